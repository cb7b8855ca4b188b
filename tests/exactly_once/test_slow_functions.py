"""Functions that hold a worker's event loop: no rebalance, until it lasts too long; then others take over."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from tests.exactly_once.harness import Bench, Worker, check_counts, numbered

SLOW_S = 15.0  # the session is 6 s


@pytest.fixture
def bench(bench: Bench) -> Bench:
    bench.topology = "slow_counter"
    return bench


@pytest.mark.parametrize("names", [("w1", "w2"), (None, None)], ids=["static", "dynamic"])
async def test_a_function_slower_than_the_session_causes_no_rebalance(
    bench: Bench, names: tuple[str | None, str | None]
) -> None:
    """Slower than a transaction may last, too, in the middle of others' work."""
    workers = [bench.start(name=name) for name in names]
    await bench.until(lambda: _share(*workers), *workers)
    inputs = numbered(40)
    await bench.produce(inputs)
    await bench.until_all_committed(*workers)
    before = [worker.status["rebalances"] for worker in workers]
    slow = [("a", f"slow:{SLOW_S}"), *numbered(40, start=40)]
    await bench.produce(slow)
    await bench.until_all_committed(*workers)
    assert [worker.status["rebalances"] for worker in workers] == before
    for worker in workers:
        await worker.stop()
        assert "lost the membership" not in worker.log
    check_counts([*inputs, *slow], await bench.read())


@pytest.mark.parametrize("names", [("w1", "w2"), (None, None)], ids=["static", "dynamic"])
async def test_others_take_over_from_a_worker_that_is_held_for_too_long(
    bench: Bench, names: tuple[str | None, str | None]
) -> None:
    latch = bench.folder / "latch"
    workers = [bench.start(name=name, max_poll_interval_ms=8000) for name in names]
    await bench.until(lambda: _share(*workers), *workers)
    inputs = [*numbered(40), ("a", f"latch:{latch}"), *numbered(40, start=40)]
    await bench.produce(inputs)
    await _until_there(latch.with_suffix(".pid"))
    pid = int(latch.with_suffix(".pid").read_text())
    held, other = sorted(workers, key=lambda worker: worker.process.pid != pid)
    await bench.until_all_committed(other)  # while the first is still held
    latch.touch()
    more = numbered(40, start=80)
    await bench.produce(more)
    await bench.until_all_committed(*workers)
    await bench.until(lambda: _share(*workers), *workers)
    for worker in workers:
        await worker.stop()
    for level in ("WARNING", "ERROR"):
        said = next(line for line in held.log.splitlines() if level in line and "slow_functions" in line)
        assert f"topic {bench.source}, partition 1, offset 20 (key 'a') at node hold-up, function hold (" in said
        assert "topologies.py, line " in said
        assert "max_poll_interval_ms (8000)" in said
    check_counts([*inputs, *more], await bench.read())


async def test_a_rebalance_waits_for_a_worker_that_is_held(bench: Bench) -> None:
    """It hears of it when the function comes back, and was not thrown out in between."""
    latch = bench.folder / "latch"
    first = bench.start(name="w1")
    inputs = [*numbered(40), ("a", f"latch:{latch}"), *numbered(40, start=40)]
    await bench.produce(inputs)
    await _until_there(latch.with_suffix(".pid"))
    second = bench.start(name="w2")
    await anyio.sleep(8)  # beyond the session of 6 s
    latch.touch()
    await bench.until(lambda: _share(first, second), first, second)
    more = numbered(40, start=80)
    await bench.produce(more)
    await bench.until_all_committed(first, second)
    for worker in (first, second):
        await worker.stop()
    assert "lost the membership" not in first.log
    check_counts([*inputs, *more], await bench.read())


async def test_functions_slower_than_a_transaction_may_last_are_redone_once_at_most(bench: Bench) -> None:
    """Each comes when quicker ones before it have opened the transaction."""
    worker = bench.start(transaction_timeout_ms=1000, commit_interval_ms=500)
    await worker.until_running()
    quick = [("a", "slow:0.02") for _ in range(8)]
    inputs = [*quick, ("a", "slow:2.5"), *quick, ("a", "slow:2.5"), *quick, ("a", "slow:2.5"), *quick]
    await bench.produce(inputs)
    await bench.until_all_committed(worker)
    assert worker.status["redone"] <= 1
    await worker.stop()
    check_counts(inputs, await bench.read())


async def test_a_function_that_always_takes_too_long_ends_the_worker_which_names_the_record(bench: Bench) -> None:
    worker = bench.start(max_poll_interval_ms=1500)
    inputs = numbered(4)
    await bench.produce(inputs)
    await bench.until_all_committed(worker)
    await bench.produce([("a", "slow:3")])
    assert await worker.until_dead() == 1
    said = next(line for line in worker.log.splitlines() if line.startswith("error:"))
    assert f"topic {bench.source}, partition 1, offset 2 (key 'a') at node hold-up, function hold (" in said
    assert "longer than max_poll_interval_ms (1500), 3 times" in said
    check_counts(inputs, await bench.read())


async def _share(*workers: Worker) -> bool:
    return all(len(worker.status.get("tasks", ())) == 1 for worker in workers)


async def _until_there(path: Path) -> None:
    with anyio.fail_after(30):
        while not path.exists() or not path.read_text():
            await anyio.sleep(0.02)
