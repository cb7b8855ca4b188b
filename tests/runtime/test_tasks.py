"""Where tasks start, and what happens to those that are revoked, rolled back or locked on the way."""

from __future__ import annotations

import anyio
import pytest

from streamlib.engine.inputs import Metadata, encode_metadata
from streamlib.errors import ConfigError, ErrorCode, KafkaError, ProcessingError
from streamlib.records import OffsetAndMetadata, TopicPartition
from streamlib.runtime.tasks import LOCK_PATIENCE_MS
from tests.runtime.fakes import IN0, IN1, LOG0, T0, T1, Bench, Transaction, others_run, until


async def run(bench: Bench) -> None:
    """Open and start both tasks."""
    tasks = bench.tasks.hold([T0, T1])
    await bench.tasks.open(tasks)
    assert bench.tasks.start_restored() == tasks


async def test_a_task_starts_from_its_committed_offset_and_else_by_the_reset_policy() -> None:
    bench = Bench()
    bench.broker.write(IN0, "a", "b", "c")
    bench.broker.write(IN1, "a", "b", "c")
    bench.broker.committed[IN0] = OffsetAndMetadata(2)
    await run(bench)
    assert bench.fetcher.positions == {IN0: 2, IN1: 0}


async def test_without_a_committed_offset_and_a_policy_the_worker_stops() -> None:
    bench = Bench(reset="none")
    with pytest.raises(ConfigError, match="no committed offset"):
        await bench.tasks.open(bench.tasks.hold([T0]))


async def test_changelog_ends_are_asked_once_the_offsets_are_stable() -> None:
    """The offsets of an open transaction are waited for, and the end covers what it has written."""
    bench = Bench()
    open_one = bench.broker.open["foreign"] = Transaction()
    open_one.offsets[IN0] = OffsetAndMetadata(3)
    tasks = bench.tasks.hold([T0])
    async with anyio.create_task_group() as children:
        children.start_soon(bench.tasks.open, tasks)
        await until(lambda: bench.script.done("fetch_offsets"))
        await others_run()
        assert "list_offsets latest" not in bench.journal
        open_one.written.add(LOG0)
        bench.broker.append(LOG0, [(b"a", b"\0" * 16, 0, ())], open_one)
        bench.broker.end("foreign", "committed")
    restoration = next(iter(bench.restorer.under_way))
    assert restoration.changelogs[LOG0].end == 2  # the record and its marker
    assert restoration.task is tasks[0]


async def test_a_task_revoked_while_it_is_opened_is_neither_started_nor_touched() -> None:
    bench = Bench()
    offsets = bench.script.hold("fetch_offsets")
    tasks = bench.tasks.hold([T0, T1])
    async with anyio.create_task_group() as children:
        children.start_soon(bench.tasks.open, tasks)
        await until(lambda: bench.script.done("fetch_offsets"))
        bench.tasks.close([T0])
        offsets.set()
    assert bench.tasks.start_restored() == [tasks[1]]
    assert bench.fetcher.positions.keys() == {IN1}
    assert bench.journal.count("close 0_0") == 1


async def test_a_task_that_came_back_while_it_was_opened_is_started_by_the_later_opening_only() -> None:
    bench = Bench()
    offsets = bench.script.hold("fetch_offsets")
    first = bench.tasks.hold([T0])
    async with anyio.create_task_group() as children:
        children.start_soon(bench.tasks.open, first)
        await until(lambda: bench.script.done("fetch_offsets"))
        bench.tasks.close([T0])
        second = bench.tasks.hold([T0])
        offsets.set()
    assert bench.tasks.start_restored() == []
    await bench.tasks.open(second)
    assert bench.tasks.start_restored() == second


async def test_what_was_asked_for_before_a_roll_back_is_void() -> None:
    bench = Bench()
    starts = bench.script.hold("list_offsets latest")
    tasks = bench.tasks.hold([T0])
    async with anyio.create_task_group() as children:
        children.start_soon(bench.tasks.open, tasks)  # finds nothing committed
        await until(lambda: bench.script.done("list_offsets latest"))
        assert bench.tasks.roll_back() == tasks
        starts.set()
    assert bench.tasks.start_restored() == []
    bench.broker.write(IN0, *"abcde")
    bench.broker.committed[IN0] = OffsetAndMetadata(5)
    await bench.tasks.open(tasks)
    bench.tasks.start_restored()
    assert bench.fetcher.positions == {IN0: 5}


async def test_a_roll_back_stops_reading_and_opens_every_task_again() -> None:
    bench = Bench()
    await run(bench)
    tasks = list(bench.tasks.running.values())
    assert bench.tasks.roll_back() == tasks
    assert bench.fetcher.positions == {}
    assert bench.tasks.running == {}
    assert bench.tasks.ids == {T0, T1}


async def test_a_task_rolled_back_between_its_restore_and_its_start_is_not_started() -> None:
    bench = Bench()
    tasks = bench.tasks.hold([T0])
    await bench.tasks.open(tasks)
    bench.tasks.roll_back()
    assert bench.tasks.start_restored() == []


async def test_after_a_roll_back_latest_still_means_the_first_end_that_was_found() -> None:
    """Else all that came between the two would never be processed."""
    bench = Bench(reset="latest")
    bench.broker.write(IN0, "old")
    await run(bench)
    assert bench.fetcher.positions[IN0] == 1
    bench.broker.write(IN0, "a", "b")
    await bench.tasks.open(bench.tasks.roll_back())
    bench.tasks.start_restored()
    assert bench.fetcher.positions[IN0] == 1


async def test_another_life_of_a_task_asks_for_the_latest_anew() -> None:
    bench = Bench(reset="latest")
    await run(bench)
    bench.broker.write(IN0, "a", "b")
    bench.tasks.close([T0, T1])
    await run(bench)
    assert bench.fetcher.positions[IN0] == 2


async def test_where_the_log_was_cut_off_the_reset_policy_applies_and_stream_time_stays() -> None:
    bench = Bench()
    bench.broker.write(IN0, *"abcdefg")
    bench.broker.starts[IN0] = 4
    bench.broker.committed[IN0] = OffsetAndMetadata(2, encode_metadata(Metadata(77)))
    tasks = bench.tasks.hold([T0])
    await bench.tasks.open(tasks)
    bench.tasks.start_restored()
    assert bench.fetcher.positions == {IN0: 4}
    assert tasks[0].stream_time == 77


async def test_a_locked_task_is_tried_again_and_then_opened_aside() -> None:
    bench = Bench()
    bench.directory.locked.add(T0)
    assert [task.id for task in bench.tasks.hold([T0, T1])] == [T1]
    assert bench.tasks.waits_for_lock
    assert bench.tasks.ids == {T0, T1}
    bench.clock.ms += LOCK_PATIENCE_MS
    assert bench.tasks.try_locked() == []
    bench.clock.ms += 1
    assert [task.id for task in bench.tasks.try_locked()] == [T0]
    assert bench.journal[-1] == "open 0_0.aside"
    assert not bench.tasks.waits_for_lock


async def test_a_lock_that_is_given_back_leads_to_the_usual_folder() -> None:
    bench = Bench()
    bench.directory.locked.add(T0)
    assert bench.tasks.hold([T0]) == []
    bench.directory.locked.clear()
    assert len(bench.tasks.try_locked()) == 1
    assert bench.journal[-1] == "open 0_0"


async def test_closing_a_task_that_waits_for_its_lock_forgets_it() -> None:
    bench = Bench()
    bench.directory.locked.add(T0)
    bench.tasks.hold([T0])
    bench.tasks.close([T0])
    assert bench.tasks.ids == frozenset()
    assert bench.tasks.try_locked() == []


async def test_uncommitted_work_of_a_closed_task_does_not_reach_the_disk() -> None:
    bench = Bench()
    bench.broker.write(IN0, "a")
    await run(bench)
    task = bench.tasks.running[T0]
    for batch in bench.fetcher.take(1 << 20):
        task.enqueue(batch)
    assert task.process(10) == 1
    bench.tasks.close([T0])
    assert bench.directory.rows(T0) == {}


async def test_all_tasks_are_closed_whatever_one_of_them_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    await run(bench)
    first, second = bench.tasks.running.values()
    close = first.close

    def close_badly() -> None:
        close()
        raise ProcessingError("a processor's close", node="n")

    monkeypatch.setattr(first, "close", close_badly)
    with pytest.raises(ProcessingError, match="a processor's close"):
        bench.tasks.close([first.id, second.id])
    assert bench.directory.open_stores == set()
    assert bench.tasks.ids == frozenset()
    assert bench.fetcher.positions == {}


async def test_an_opening_that_fails_leaves_the_task_to_be_rolled_back() -> None:
    bench = Bench()
    bench.script.fail("fetch_offsets", ErrorCode.NOT_COORDINATOR)
    tasks = bench.tasks.hold([T0])
    with pytest.raises(KafkaError, match="NOT_COORDINATOR"):
        await bench.tasks.open(tasks)
    assert bench.tasks.opening == {T0}
    assert bench.tasks.roll_back() == tasks


def test_the_fakes_topics_are_those_of_the_plan() -> None:
    plan = Bench().plan
    assert plan.tasks == (T0, T1)
    assert plan.changelogs(T0) == {LOG0: "counts"}
    assert plan.inputs(T1) == (TopicPartition("in", 1),)
