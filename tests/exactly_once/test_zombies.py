"""Workers that stop and come back when their work is someone else's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from tests.exactly_once.harness import Bench, Latch, Worker, check_counts, numbered


async def test_a_stopped_worker_that_wakes_up_repeats_nothing(bench: Bench) -> None:
    """Stopped beyond its session, with work pending; another takes all; the first wakes, is refused, joins again."""
    first, second = bench.start(name="w1"), bench.start(name="w2")
    await bench.produce(numbered(40))
    await bench.until_all_committed(first, second)
    first.freeze()
    await bench.produce(numbered(40, start=40))
    await bench.until_all_committed(second)
    first.thaw()
    await bench.produce(numbered(40, start=80))
    await bench.until_all_committed(first, second)
    await bench.until(_shares(first, second), first, second)
    await bench.produce(numbered(40, start=120))
    await bench.until_all_committed(first, second)
    for worker in (first, second):
        await worker.stop()
    check_counts(numbered(160), await bench.read())


async def test_a_worker_stopped_between_its_offsets_and_their_commit_repeats_nothing(bench: Bench) -> None:
    """Its offsets are in an open transaction when it stops; whoever comes next must not read the ones before."""
    await bench.produce(numbered(40))
    latch = Latch(bench.folder, "EndTxn")
    first = bench.start(latch.fault, name="w1", transaction_timeout_ms=20_000)
    await bench.until_all_committed(first)
    latch.set()
    await bench.produce(numbered(20, start=40))
    await latch.until_reached()
    first.freeze()
    second = bench.start(name="w2")
    await anyio.sleep(8)  # beyond the session of 6 s: the tasks are the second's now, their offsets not yet stable
    assert second.alive
    latch.release()
    first.thaw()  # ends its transaction now: it commits, and the second must have waited for it
    await bench.produce(numbered(20, start=60))
    await bench.until_all_committed(second)
    await bench.until(_shares(first, second), first, second)
    for worker in (first, second):
        await worker.stop()
    check_counts(numbered(80), await bench.read())


async def test_a_zombie_that_commits_after_the_new_owner_began_is_refused(bench: Bench) -> None:
    """It wakes before TxnOffsetCommit: the coordinator knows a later generation."""
    await bench.produce(numbered(40))
    latch = Latch(bench.folder, "TxnOffsetCommit")
    first = bench.start(latch.fault, name="w1")
    await bench.until_all_committed(first)
    latch.set()
    await bench.produce(numbered(20, start=40))
    await latch.until_reached()
    first.freeze()
    second = bench.start(name="w2")
    await bench.until_all_committed(second)
    latch.release()
    first.thaw()
    await bench.produce(numbered(20, start=60))
    await bench.until_all_committed(second)
    await bench.until(_shares(first, second), first, second)
    for worker in (first, second):
        await worker.stop()
    check_counts(numbered(80), await bench.read())


async def test_a_foreign_producer_with_our_transactional_id_costs_nothing_but_a_redo(bench: Bench) -> None:
    worker = bench.start(name="w1")
    await bench.produce(numbered(20))
    await bench.until_all_committed(worker)
    for turn in (0, 1):
        foreign = bench.connection.producer(f"{bench.name}-w1-{turn}")
        await foreign.init()
        await foreign.close()
    await bench.produce(numbered(20, start=20))
    await bench.until_all_committed(worker)
    assert worker.status["redone"] >= 1
    await worker.stop()
    check_counts(numbered(40), await bench.read())


async def test_a_static_member_restarts_within_its_session_without_a_rebalance(bench: Bench) -> None:
    first, second = bench.start(name="w1"), bench.start(name="w2")
    await bench.produce(numbered(20))
    await first.until_running()
    await second.until_running()
    await bench.until_all_committed(first, second)
    before = second.status["rebalances"]
    first.kill()
    again = bench.start(name="w1")
    await again.until_running()
    await bench.produce(numbered(20, start=20))
    await bench.until_all_committed(again, second)
    assert second.status["rebalances"] == before
    assert again.status["tasks"]
    for worker in (again, second):
        await worker.stop()
    check_counts(numbered(40), await bench.read())


async def test_of_two_processes_with_one_instance_id_the_older_stops_and_says_why(bench: Bench) -> None:
    first = bench.start(name="w1")
    await first.until_running()
    second = bench.start(name="w1", state_dir=str(bench.folder / "another-disk"))
    assert await first.until_dead() == 1
    assert "group_instance_id" in first.log
    await bench.produce(numbered(20))
    await bench.until_all_committed(second)
    await second.stop()


def _shares(*workers: Worker) -> Callable[[], Awaitable[bool]]:
    async def each_has_a_task() -> bool:
        return all(len(worker.status.get("tasks", ())) == 1 for worker in workers)

    return each_has_a_task
