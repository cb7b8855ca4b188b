"""Where tasks start, and what happens to those that are revoked, rolled back or locked on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from streamlib import StreamsBuilder
from streamlib.engine.inputs import Metadata, encode_metadata
from streamlib.engine.plan import make_plan
from streamlib.errors import ConfigError, ErrorCode, KafkaError, ProcessingError
from streamlib.records import OffsetAndMetadata, TaskId, TopicPartition
from streamlib.runtime.tasks import LOCK_PATIENCE_MS, OPENING_MS
from streamlib.state.backend import Backend
from tests.runtime.fakes import IN0, IN1, LOG0, LOG1, T0, T1, Bench, Transaction, others_run, until


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


# --- standbys


@asynccontextmanager
async def restoring(bench: Bench) -> AsyncIterator[None]:
    async with anyio.create_task_group() as children:
        children.start_soon(bench.restorer.run)
        yield
        children.cancel_scope.cancel()


def write_row(bench: Bench, changelog: TopicPartition, key: bytes) -> None:
    """A committed row of the count store."""
    done = Transaction()
    done.outcome = "committed"
    bench.broker.append(changelog, [(key, (1).to_bytes(8, "big") * 2, 0, ())], done)


async def following(bench: Bench, *task_ids: TaskId) -> None:
    """Standbys that follow their changelogs."""
    await bench.tasks.follow(bench.tasks.hold_standbys(task_ids))


async def test_a_standby_follows_its_changelog_and_owns_nothing() -> None:
    bench = Bench()
    write_row(bench, LOG0, b"a")
    async with restoring(bench):
        await following(bench, T0)
        await until(lambda: bench.directory.rows(T0).keys() == {b"a"})
        write_row(bench, LOG0, b"b")
        await until(lambda: bench.directory.rows(T0).keys() == {b"a", b"b"})
    assert bench.tasks.standby_ids == {T0}
    assert bench.tasks.ids == frozenset()
    assert bench.fetcher.positions == {}
    assert bench.tasks.start_restored() == []
    assert "fetch_offsets" not in bench.journal


async def test_a_standby_says_how_far_behind_it_is_and_nothing_once_it_is_there() -> None:
    bench = Bench()
    for key in (b"a", b"b", b"c"):
        write_row(bench, LOG0, key)
    await following(bench, T0)
    assert bench.restorer.lags() == {T0: 3}
    async with restoring(bench):
        await until(lambda: bench.restorer.lags() == {T0: 0})
    assert bench.tasks.positions() == {T0: 3}


async def test_a_standby_is_promoted_with_its_stores_open_and_reads_nothing_again() -> None:
    bench = Bench()
    write_row(bench, LOG0, b"a")
    async with restoring(bench):
        await following(bench, T0)
        await until(lambda: bench.restorer.lags() == {T0: 0})
        promoted = bench.tasks.hold([T0])
        assert bench.tasks.standby_ids == frozenset()
        await bench.tasks.open(promoted)
        assert bench.tasks.start_restored() == promoted
    assert bench.journal.count("open 0_0") == 1
    assert "close 0_0" not in bench.journal
    assert [step for step in bench.journal if step.startswith("restore")] == [f"restore {LOG0} from 0"]
    assert bench.fetcher.positions == {IN0: 0}


async def test_only_what_was_restored_for_a_task_to_run_is_counted_and_once() -> None:
    bench = Bench()
    write_row(bench, LOG0, b"a")
    async with restoring(bench):
        await following(bench, T0)
        await until(lambda: bench.restorer.lags() == {T0: 0})
        write_row(bench, LOG1, b"b")
        bench.tasks.hold([T0, T1])
        for _ in range(2):
            await bench.tasks.open(bench.tasks.roll_back())
            while bench.tasks.opening:
                await until(bench.tasks.start_restored)
    assert bench.tasks.records_restored == 1


async def test_what_a_standby_still_misses_is_restored_when_it_is_promoted() -> None:
    bench = Bench()
    await following(bench, T0)
    write_row(bench, LOG0, b"a")
    promoted = bench.tasks.hold([T0])
    await bench.tasks.open(promoted)
    assert bench.tasks.start_restored() == []
    async with restoring(bench):
        await until(bench.tasks.start_restored)
    assert bench.directory.rows(T0).keys() == {b"a"}


async def test_a_demoted_task_keeps_its_stores_open_and_goes_on_as_a_standby() -> None:
    bench = Bench()
    await run(bench)
    [demoted] = bench.tasks.demote([T0])
    await bench.tasks.follow([demoted])
    assert bench.tasks.ids == {T1}
    assert bench.tasks.standby_ids == {T0}
    assert bench.fetcher.positions == {IN1: 0}
    write_row(bench, LOG0, b"a")
    async with restoring(bench):
        await until(lambda: bench.directory.rows(T0).keys() == {b"a"})
    assert bench.journal.count("open 0_0") == 1
    assert "close 0_0" not in bench.journal


async def test_uncommitted_work_of_a_demoted_task_is_dropped() -> None:
    bench = Bench()
    bench.broker.write(IN0, "a")
    await run(bench)
    task = bench.tasks.running[T0]
    for batch in bench.fetcher.take(1 << 20):
        task.enqueue(batch)
    assert task.process(10) == 1
    await bench.tasks.follow(bench.tasks.demote([T0]))
    promoted = bench.tasks.hold([T0])
    await bench.tasks.open(promoted)
    assert bench.tasks.start_restored() == [task]
    assert not task.dirty
    assert bench.directory.rows(T0) == {}


async def test_a_task_demoted_while_it_is_opened_is_not_started() -> None:
    bench = Bench()
    offsets = bench.script.hold("fetch_offsets")
    async with anyio.create_task_group() as children:
        children.start_soon(bench.tasks.open, bench.tasks.hold([T0]))
        await until(lambda: bench.script.done("fetch_offsets"))
        [demoted] = bench.tasks.demote([T0])
        offsets.set()
    assert bench.tasks.start_restored() == []
    assert bench.tasks.standbys == [demoted]
    assert bench.journal.count("open 0_0") == 1


async def test_a_standby_promoted_while_its_changelog_was_looked_up_is_not_followed() -> None:
    """Two readers of one changelog would write one store."""
    bench = Bench()
    ends = bench.script.hold("list_offsets latest")
    async with anyio.create_task_group() as children:
        children.start_soon(bench.tasks.follow, bench.tasks.hold_standbys([T0]))
        await until(lambda: bench.script.done("list_offsets latest"))
        bench.tasks.hold([T0])
        ends.set()
    assert bench.restorer.lags() == {}
    assert bench.changelog_fetcher.positions == {}


async def test_beside_running_tasks_stores_are_opened_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = StreamsBuilder()
    builder.stream("in", key=str, value=str).group_by_key().count(store="counts")
    bench = Bench(plan=make_plan(builder.build(), "app", {"in": 5}))
    t2, t3, t4 = (TaskId(0, partition) for partition in (2, 3, 4))
    await bench.tasks.open(bench.tasks.hold([T0]))
    bench.tasks.start_restored()
    open_stores = bench.directory.open

    def open_slowly(*arguments: Any, **options: Any) -> Backend:
        bench.clock.ms += OPENING_MS
        return open_stores(*arguments, **options)

    monkeypatch.setattr(bench.directory, "open", open_slowly)
    bench.directory.locked.add(T1)
    assert bench.tasks.hold([T1, t2, t3]) == []  # one is locked, and that took the time of this round
    assert [task.id for task in bench.tasks.hold_standbys([t4])] == [t4]
    assert bench.tasks.more_to_open
    bench.clock.ms -= OPENING_MS * 2
    monkeypatch.setattr(bench.directory, "open", open_stores)
    assert [task.id for task in bench.tasks.try_locked()] == [t2, t3]
    assert bench.tasks.waits_for_lock
    assert not bench.tasks.more_to_open


async def test_a_standby_whose_stores_are_held_waits_for_them_without_a_copy_aside() -> None:
    """Their holder writes them, so there is nothing to copy them for."""
    bench = Bench()
    bench.directory.locked.add(T0)
    assert bench.tasks.hold_standbys([T0]) == []
    assert bench.tasks.waits_for_lock
    assert bench.tasks.standby_ids == {T0}
    bench.clock.ms += LOCK_PATIENCE_MS + 1
    assert bench.tasks.try_locked_standbys() == []
    assert "open 0_0.aside" not in bench.journal
    bench.directory.locked.clear()
    assert [task.id for task in bench.tasks.try_locked_standbys()] == [T0]
    assert not bench.tasks.waits_for_lock


async def test_a_locked_standby_that_becomes_active_waits_as_one() -> None:
    bench = Bench()
    bench.directory.locked.add(T0)
    bench.tasks.hold_standbys([T0])
    assert bench.tasks.hold([T0]) == []
    assert bench.tasks.ids == {T0}
    assert bench.tasks.standby_ids == frozenset()
    bench.directory.locked.clear()
    assert [task.id for task in bench.tasks.try_locked()] == [T0]
    assert bench.tasks.try_locked_standbys() == []


async def test_a_locked_task_that_is_demoted_waits_as_a_standby() -> None:
    bench = Bench()
    bench.directory.locked.add(T0)
    bench.tasks.hold([T0])
    assert bench.tasks.demote([T0]) == []
    assert bench.tasks.ids == frozenset()
    assert bench.tasks.standby_ids == {T0}


async def test_a_standby_that_is_dropped_is_closed_and_followed_no_longer() -> None:
    bench = Bench()
    bench.directory.locked.add(T1)
    await following(bench, T0, T1)
    bench.tasks.drop_standbys([T0, T1])
    assert bench.tasks.standby_ids == frozenset()
    assert bench.changelog_fetcher.positions == {}
    assert bench.directory.open_stores == set()
    bench.directory.locked.clear()
    assert bench.tasks.try_locked_standbys() == []


async def test_a_roll_back_leaves_standbys_alone() -> None:
    bench = Bench()
    await following(bench, T1)
    await bench.tasks.open(bench.tasks.hold([T0]))
    bench.tasks.start_restored()
    assert [task.id for task in bench.tasks.roll_back()] == [T0]
    assert bench.tasks.standby_ids == {T1}
    assert bench.changelog_fetcher.positions.keys() == {LOG1}


async def test_how_far_stores_are_is_known_of_tasks_that_run_of_standbys_and_of_folders() -> None:
    bench = Bench()
    bench.directory.stored = {T0: {"counts": 3}, TaskId(5, 5): {"counts": 8, "sums": 1}}
    for key in (b"a", b"b"):
        write_row(bench, LOG1, key)
    async with restoring(bench):
        await bench.tasks.open(bench.tasks.hold([T1]))
        await until(bench.tasks.start_restored)
    assert bench.tasks.positions() == {T0: 3, T1: 2, TaskId(5, 5): 9}
