"""How a store gets to the end of its changelog, and where that end is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlib.engine.task import Task
from streamlib.errors import ErrorCode, KafkaError, StateStoreError
from streamlib.records import OutRecord, TopicPartition
from streamlib.restore_listener import RestoreListener, SuspendReason
from streamlib.runtime import restore
from streamlib.runtime.restoration import Backlog, Progress, Restoration
from tests.runtime.fakes import (
    LOG0,
    LOG1,
    T0,
    T1,
    Bench,
    FakeClock,
    Row,
    Rows,
    Transaction,
    on_disk,
    others_run,
    until,
)


def row(key: str, count: int) -> OutRecord:
    return key.encode(), count.to_bytes(8, "big"), 0, ()


def write(bench: Bench, *rows: OutRecord) -> None:
    done = Transaction()
    done.outcome = "committed"
    bench.broker.append(LOG0, rows, done)


@asynccontextmanager
async def restoring(bench: Bench) -> AsyncIterator[Task]:
    """The restorer runs and has begun with task 0_0."""
    (task,) = bench.tasks.hold([T0])
    bounds = await bench.restorer.bounds([task])
    async with running_restorer(bench):
        bench.restorer.begin(task, bounds)
        yield task


@asynccontextmanager
async def following(bench: Bench) -> AsyncIterator[Task]:
    """The restorer runs and has begun to follow task 0_0 as a standby."""
    (task,) = bench.tasks.hold_standbys([T0])
    async with running_restorer(bench):
        await bench.tasks.follow([task])
        yield task


@asynccontextmanager
async def running_restorer(bench: Bench) -> AsyncIterator[None]:
    async with anyio.create_task_group() as children:
        children.start_soon(bench.restorer.run)
        yield
        children.cancel_scope.cancel()


async def finished(bench: Bench) -> Restoration:
    await until(lambda: not bench.restorer.under_way)
    (restoration,) = bench.restorer.take_finished()
    return restoration


async def test_an_empty_store_is_read_from_the_start_of_the_log() -> None:
    bench = Bench()
    write(bench, row("a", 1), row("b", 1), row("a", 2))
    async with restoring(bench):
        restoration = await finished(bench)
    assert restoration.restored == 3
    assert bench.directory.rows(T0).keys() == {b"a", b"b"}
    assert bench.directory.disks["0_0"].positions() == {"counts": 3}
    assert bench.changelog_fetcher.positions == {}


async def test_a_store_that_is_there_gets_only_what_it_misses() -> None:
    bench = Bench()
    write(bench, row("a", 1), row("b", 1), row("a", 2))
    bench.directory.disks["0_0"].write({"counts": {}}, {"counts": 2})
    async with restoring(bench):
        assert (await finished(bench)).restored == 1


async def test_a_store_at_the_end_needs_no_reading() -> None:
    bench = Bench()
    write(bench, row("a", 1))
    bench.directory.disks["0_0"].write({"counts": {}}, {"counts": 1})
    async with restoring(bench):
        assert (await finished(bench)).restored == 0
    assert not any(step.startswith("restore") for step in bench.journal)


async def test_records_of_a_transaction_that_is_still_open_are_waited_for() -> None:
    """The offsets' marker may land before the changelog's: the high watermark covers what the last stable offset
    does not."""
    bench = Bench()
    write(bench, row("a", 1))
    transaction = bench.broker.open["before"] = Transaction()
    transaction.written.add(LOG0)
    bench.broker.append(LOG0, [row("a", 2)], transaction)
    async with restoring(bench):
        await until(lambda: bench.directory.disks["0_0"].positions() == {"counts": 1})
        await others_run()
        assert bench.restorer.take_finished() == []
        bench.broker.end("before", "committed")
        assert (await finished(bench)).restored == 2


async def test_records_of_an_aborted_transaction_are_passed_over() -> None:
    bench = Bench()
    transaction = bench.broker.open["before"] = Transaction()
    transaction.written.add(LOG0)
    bench.broker.append(LOG0, [row("a", 2)], transaction)
    bench.broker.end("before", "aborted")
    async with restoring(bench):
        assert (await finished(bench)).restored == 0
    assert bench.directory.rows(T0) == {}
    assert bench.directory.disks["0_0"].positions() == {"counts": 2}


async def test_a_store_from_before_the_start_of_the_log_is_built_anew() -> None:
    bench = Bench()
    write(bench, row("a", 1), row("b", 1), row("c", 1))
    bench.broker.starts[LOG0] = 2
    bench.directory.disks["0_0"].write({"counts": {b"gone": b"x"}}, {"counts": 1})
    async with restoring(bench):
        await finished(bench)
    assert bench.directory.rows(T0).keys() == {b"c"}


@pytest.mark.parametrize("records", [0, 2])
async def test_a_store_from_beyond_the_end_of_the_log_is_built_anew(records: int) -> None:
    """The changelog was deleted and made again: its offsets begin anew, and commits go on from there."""
    bench = Bench()
    write(bench, *(row(key, 1) for key in "ab"[:records]))
    bench.directory.disks["0_0"].write({"counts": {b"gone": b"x"}}, {"counts": 500})
    async with restoring(bench) as task:
        await finished(bench)
        task.start({}, dict.fromkeys(task.inputs, 0))
        task.seal()
        task.commit({LOG0: records + 1})
    assert bench.directory.rows(T0).keys() == {key.encode() for key in "ab"[:records]}
    assert bench.directory.disks["0_0"].positions() == {"counts": records + 1}


async def test_a_task_that_is_forgotten_is_not_written_to_any_more() -> None:
    bench = Bench()
    write(bench, row("a", 1), row("b", 1))
    async with restoring(bench) as task:
        bench.restorer.forget(task.id)
        task.close()
        await others_run()
        assert bench.restorer.take_finished() == []
    assert "write 0_0" not in bench.journal


async def test_a_finished_restoration_that_is_forgotten_is_not_handed_out() -> None:
    bench = Bench()
    async with restoring(bench) as task:
        bench.restorer.forget(task.id)
        assert bench.restorer.take_finished() == []


async def test_a_restore_that_was_cut_short_goes_on_where_it_was() -> None:
    bench = Bench()
    write(bench, row("a", 1))
    transaction = bench.broker.open["before"] = Transaction()
    transaction.written.add(LOG0)
    bench.broker.append(LOG0, [row("b", 1)], transaction)
    async with restoring(bench):
        await until(lambda: bench.directory.disks["0_0"].positions() == {"counts": 1})
        bench.tasks.close([T0])
    bench.broker.end("before", "committed")
    async with restoring(bench):
        assert (await finished(bench)).restored == 1


async def test_heartbeats_go_on_while_there_is_much_to_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is buffered is applied batch by batch, and others have their turn in between."""
    bench = Bench()
    write(bench, *(row("a", n) for n in range(20)))
    read = bench.broker.read

    def one_record(partition: TopicPartition, position: int) -> Rows | None:
        rows = read(partition, position)
        return rows and Rows(partition, position + 1, rows.content[:1])

    monkeypatch.setattr(bench.broker, "read", one_record)
    beats = 0
    async with restoring(bench):
        while bench.restorer.under_way:
            beats += 1
            await anyio.lowlevel.checkpoint()
    assert beats >= 20


async def test_what_cannot_be_read_or_stored_is_raised() -> None:
    bench = Bench()
    bench.changelog_fetcher.break_off(KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE, "Fetch"))
    with pytest.raises(KafkaError, match="OFFSET_OUT_OF_RANGE"):
        await bench.restorer.run()
    write(bench, (None, b"x", 0, ()))
    (task,) = bench.tasks.hold([T0])
    bench.restorer.begin(task, await bench.restorer.bounds([task]))
    with pytest.raises(StateStoreError, match="without a key"):
        await bench.restorer.run()


# --- bites, slices, bulk


class Reading(NamedTuple):
    """A batch whose end need not be that of its last record: markers and compacted records are gaps."""

    next_offset: int
    content: Sequence[Row]
    partition: TopicPartition = LOG0
    size_bytes: int = 1

    def records(self) -> Iterator[Row]:
        return iter(self.content)


@given(st.lists(st.lists(st.integers(1, 3), max_size=5), max_size=6), st.integers(0, 3), st.lists(st.integers(1, 7)))
def test_slices_are_what_was_fetched_whatever_the_batches_and_gaps(
    gaps: list[list[int]], tail: int, sizes: list[int]
) -> None:
    backlog, offset, offsets = Backlog(LOG0, 0), 0, []
    for batch in gaps:
        content = []
        for gap in batch:
            offset += gap
            content.append(Row(offset - 1, 0, b"k", b"v"))
        offset += tail
        offsets += [row.offset for row in content]
        backlog.add(Reading(offset, content))
    seen: list[int] = []
    for size in [*sizes, *[1] * 40]:
        taken = backlog.take(size)
        new = [record.offset for record in taken.records()]
        assert len(new) <= size
        seen += new
        assert all(at < taken.next_offset for at in seen)
        assert all(at >= taken.next_offset for at in offsets[len(seen) :])
    assert seen == offsets
    assert not backlog
    assert backlog.position == offset


class SteppingClock(FakeClock):
    """Moves on whenever somebody looks."""

    def monotonic_ms(self) -> float:
        self.ms += 1
        return self.ms


async def most_writes_at_once(bench: Bench, tasks_run: bool) -> int:
    """How many slices are restored before others have their turn."""
    bench.restorer.give_way(tasks_run)
    write(bench, *(row("a", n) for n in range(200)))
    most = 0
    async with restoring(bench):
        while bench.restorer.under_way:
            before = bench.script.done("write 0_0")
            await anyio.lowlevel.checkpoint()
            most = max(most, bench.script.done("write 0_0") - before)
    return most


async def test_a_bite_is_shorter_while_tasks_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_SLICE_RECORDS", "MOST_SLICE_RECORDS", "LEAST_SLICE_RECORDS"):
        monkeypatch.setattr(restore, name, 1)
    monkeypatch.setattr("tests.runtime.fakes.FakeClock", SteppingClock)
    beside, alone = await most_writes_at_once(Bench(), True), await most_writes_at_once(Bench(), False)
    assert 1 <= beside <= restore.BITE_BESIDE_RUNNING_MS / 2
    assert beside < alone <= restore.BITE_MS / 2


async def test_several_changelogs_are_restored_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore, "FIRST_SLICE_RECORDS", 1)
    monkeypatch.setattr(restore, "MOST_SLICE_RECORDS", 1)
    bench = Bench()
    write(bench, *(row("a", n) for n in range(5)))
    bench.broker.write(LOG1, *"bcdef")
    tasks = bench.tasks.hold([T0, T1])
    async with running_restorer(bench):
        bounds = await bench.restorer.bounds(tasks)
        for task in tasks:
            bench.restorer.begin(task, bounds)
        await until(lambda: not bench.restorer.under_way)
    assert [step for step in bench.journal if step.startswith("write")] == ["write 0_0", "write 0_1"] * 5


async def test_a_restore_in_bulk_is_over_when_it_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore, "BULK_RECORDS", 2)
    bench = Bench()
    write(bench, row("a", 1), row("b", 1), row("c", 2))
    async with restoring(bench) as task:
        store = on_disk(task)
        store.settling = True
        await until(lambda: bench.script.done("settle 0_0") > 2)
        assert bench.restorer.take_finished() == []
        assert bench.restorer.under_way
        store.settling = False
        assert (await finished(bench)).restored == 3
    assert bench.script.done("load 0_0") == 1
    assert bench.script.done("write 0_0") == 0


async def test_a_standby_that_caught_up_in_bulk_goes_on_with_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore, "BULK_RECORDS", 2)
    bench = Bench()
    write(bench, row("a", 1), row("b", 1), row("c", 2))
    async with following(bench) as task:
        store = on_disk(task)
        store.settling = True
        await until(lambda: bench.script.done("settle 0_0") > 2)
        write(bench, row("d", 1))
        await others_run()
        assert bench.directory.rows(T0).keys() == {b"a", b"b", b"c"}, "nothing is read before it is settled"
        store.settling = False
        await until(lambda: b"d" in bench.directory.rows(T0))
    assert bench.script.done("load 0_0") == 1
    assert bench.script.done("write 0_0") == 1


# --- what is said of it


async def test_a_restore_that_stands_still_is_said_aloud(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(restore, "LOOK_S", 0.001)
    bench = Bench()
    write(bench, row("a", 1))
    transaction = bench.broker.open["before"] = Transaction()
    transaction.written.add(LOG0)
    bench.broker.append(LOG0, [row("a", 2)], transaction)

    def said() -> list[str]:
        return [r.getMessage() for r in caplog.records if "stood still" in r.getMessage()]

    async def looked_at(now_ms: float) -> None:
        bench.clock.ms = now_ms
        reports, looks = bench.restorer._reports, 0
        look = reports.look

        def counted(*arguments: Any) -> None:
            nonlocal looks
            looks += 1
            look(*arguments)

        monkeypatch.setattr(reports, "look", counted)
        await until(lambda: looks > 1)
        monkeypatch.setattr(reports, "look", look)

    async with restoring(bench):
        await until(lambda: bench.directory.disks["0_0"].positions() == {"counts": 1})
        await looked_at(29_000)
        assert said() == []
        await looked_at(31_000)
        await looked_at(59_000)
        (line,) = said()
        assert "task 0_0: the restore of store counts has stood still for 31 s" in line
        assert f"it is at offset 1 of {LOG0} and has to reach 2" in line
        assert "a transaction that is still open" in line
        await looked_at(62_000)
        assert len(said()) == 2
        bench.broker.end("before", "committed")
        await finished(bench)


def test_rate_and_time_left_are_of_the_whole_restore() -> None:
    progress = Progress("counts", start=100, position=500, end=900, restored=300)
    restoration = Restoration(Bench().tasks.hold([T0])[0], {LOG0: progress}, started_ms=1_000)
    assert (restoration.rate, restoration.eta_s) == (0, None)
    restoration.moved_ms = 3_000
    assert (restoration.remaining, restoration.rate, restoration.eta_s) == (400, 150, 2)
    progress.position = 100
    assert restoration.eta_s is None


async def test_begin_and_end_of_a_restore_are_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    bench = Bench()
    write(bench, row("a", 1), row("b", 1), row("a", 2))
    bench.directory.disks["0_0"].write({"counts": {}}, {"counts": 1})
    async with restoring(bench):
        await finished(bench)
    said = [record.getMessage() for record in caplog.records]
    assert f"task 0_0: restoring {LOG0} from 1 to 3" in said
    assert any("task 0_0: restored 2 records in 0.0 s" in line and f"offset 1 of {LOG0}" in line for line in said)


class Heard(RestoreListener):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def on_restore_start(self, partition: TopicPartition, store: str, start: int, end: int) -> None:
        self.events.append(("start", partition, store, start, end))

    def on_batch_restored(self, partition: TopicPartition, store: str, offset: int, count: int) -> None:
        self.events.append(("batch", partition, store, offset, count))

    def on_restore_end(self, partition: TopicPartition, store: str, total: int) -> None:
        self.events.append(("end", partition, store, total))

    def on_restore_suspended(self, partition: TopicPartition, store: str, total: int) -> None:
        self.events.append(("suspended", partition, store, total))

    def on_update_start(self, partition: TopicPartition, store: str, start: int) -> None:
        self.events.append(("update", partition, store, start))

    def on_batch_loaded(self, partition: TopicPartition, store: str, offset: int, count: int, end: int) -> None:
        self.events.append(("loaded", partition, store, offset, count, end))

    def on_update_suspended(
        self, partition: TopicPartition, store: str, offset: int, end: int, reason: SuspendReason
    ) -> None:
        self.events.append(("update suspended", partition, store, offset, end, reason))


async def test_a_listener_hears_of_start_batches_and_end() -> None:
    bench = Bench(restore_listener=(heard := Heard()))
    write(bench, row("a", 1), row("b", 1), row("a", 2))
    bench.directory.disks["0_0"].write({"counts": {}}, {"counts": 1})
    async with restoring(bench):
        await finished(bench)
    assert heard.events == [
        ("start", LOG0, "counts", 1, 3), ("batch", LOG0, "counts", 3, 2), ("end", LOG0, "counts", 2)
    ]  # fmt: skip


async def test_a_listener_hears_that_there_was_nothing_to_restore() -> None:
    bench = Bench(restore_listener=(heard := Heard()))
    async with restoring(bench):
        await finished(bench)
    assert heard.events == [("start", LOG0, "counts", 0, 0), ("end", LOG0, "counts", 0)]


async def test_a_listener_hears_that_a_task_was_taken_away_in_the_middle() -> None:
    bench = Bench(restore_listener=(heard := Heard()))
    write(bench, row("a", 1))
    transaction = bench.broker.open["before"] = Transaction()
    bench.broker.append(LOG0, [row("b", 1)], transaction)
    async with restoring(bench):
        await until(lambda: len(heard.events) == 2)
        bench.tasks.close([T0])
    assert heard.events[1:] == [("batch", LOG0, "counts", 1, 1), ("suspended", LOG0, "counts", 1)]


@pytest.mark.parametrize("reason", ["promoted", "migrated"])
async def test_a_listener_hears_what_becomes_of_a_standby(reason: SuspendReason) -> None:
    bench = Bench(restore_listener=(heard := Heard()))
    write(bench, row("a", 1))
    async with following(bench):
        await until(lambda: len(heard.events) == 2)
        write(bench, row("b", 1))
        await until(lambda: len(heard.events) == 3)
        bench.restorer.lags()
        if reason == "promoted":
            bench.tasks.hold([T0])
        else:
            bench.tasks.drop_standbys([T0])
    assert heard.events == [
        ("update", LOG0, "counts", 0),
        ("loaded", LOG0, "counts", 1, 1, 1),
        ("loaded", LOG0, "counts", 2, 1, 1),
        ("update suspended", LOG0, "counts", 2, 2, reason),
    ]


async def test_a_listener_that_raises_does_not_stop_the_restore(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(RestoreListener):
        def on_batch_restored(self, partition: TopicPartition, store: str, offset: int, count: int) -> None:
            raise ValueError("no")

    bench = Bench(restore_listener=Broken())
    write(bench, row("a", 1))
    async with restoring(bench):
        assert (await finished(bench)).restored == 1
    assert "the restore listener raised" in caplog.text


# --- the log begins later than where we read


@pytest.mark.parametrize("standby", [False, True])
async def test_a_log_that_was_cut_off_under_a_restore_is_read_from_its_new_start(standby: bool) -> None:
    bench = Bench()
    write(bench, row("a", 1))
    transaction = bench.broker.open["before"] = Transaction()
    transaction.written.add(LOG0)
    bench.broker.append(LOG0, [row("b", 1), row("c", 1)], transaction)
    async with following(bench) if standby else restoring(bench):
        await until(lambda: bench.directory.disks["0_0"].positions() == {"counts": 1})
        bench.broker.end("before", "committed")
        bench.broker.starts[LOG0] = 2
        bench.changelog_fetcher.positions.clear()
        bench.changelog_fetcher.break_off(KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE, "Fetch", str(LOG0)))
        await until(lambda: bench.directory.disks["0_0"].positions() == {"counts": 4})
        assert bench.directory.rows(T0).keys() == {b"c"}
        assert standby or not bench.restorer.under_way
