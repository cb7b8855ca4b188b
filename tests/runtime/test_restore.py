"""How a store gets to the end of its changelog, and where that end is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from streamlib.engine.task import Task
from streamlib.errors import ErrorCode, KafkaError, StateStoreError
from streamlib.records import OutRecord, TopicPartition
from streamlib.runtime.restore import Restoration
from tests.runtime.fakes import LOG0, T0, Bench, Rows, Transaction, others_run, until


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
    async with anyio.create_task_group() as children:
        children.start_soon(bench.restorer.run)
        bench.restorer.begin(task, bounds)
        yield task
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
        task.changelog_records()
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
