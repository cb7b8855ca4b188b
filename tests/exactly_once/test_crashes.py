"""SIGKILL at every step of a commit, errors of user code, and what is left on disk afterwards."""

from __future__ import annotations

import signal
from collections import Counter
from typing import Any

import anyio
import pytest

from tests.exactly_once.harness import Bench, Worker, check_counts, numbered

STEPS: list[dict[str, Any]] = [
    {"act": "kill", "when": when, "api": api, "nth": nth}
    for api in ("Produce", "TxnOffsetCommit", "EndTxn")
    for when in ("before", "sent", "after")
    for nth in (2,)
] + [{"act": "kill", "when": when, "api": "store-write", "nth": 2} for when in ("before", "after")]


def step_name(step: dict[str, Any]) -> str:
    return f"{step['when']}-{step['api']}"


async def feed_until_dead(bench: Bench, worker: Worker) -> int:
    """Produce a few records at a time until the planted fault has killed the worker; how many there were."""
    fed = 0
    with anyio.fail_after(60):
        while worker.alive:
            await bench.produce(numbered(4, start=fed))
            fed += 4
            await anyio.sleep(0.05)
    assert worker.process.returncode == -signal.SIGKILL, worker.log
    return fed


@pytest.mark.parametrize("step", STEPS, ids=step_name)
async def test_a_kill_at_this_step_loses_and_repeats_nothing(bench: Bench, step: dict[str, Any]) -> None:
    fed = await feed_until_dead(bench, bench.start(step))
    again = bench.start()
    await bench.produce(numbered(20, start=fed))
    await bench.until_all_committed(again)
    await again.stop()
    check_counts(numbered(fed + 20), await bench.read())


async def test_after_a_kill_only_the_tail_is_restored(bench: Bench) -> None:
    """The commit whose store write the kill prevented wrote a row for each of its records; no more come back."""
    await bench.produce([(f"{key}{n}", "") for key in "ab" for n in range(500)])
    worker = bench.start()
    await bench.until_all_committed(worker)
    await worker.stop()
    await bench.produce([(f"{key}{n}", "") for key in "ab" for n in range(4)])
    victim = bench.start({"act": "kill", "when": "after", "api": "EndTxn", "nth": 1})
    await victim.until_dead()
    tail = sum((await bench.committed()).values()) - 1_000  # of one partition or of both
    assert tail > 0
    again = bench.start()
    await again.until_running()
    assert again.status["records_restored"] == tail
    await bench.until_all_committed(again)
    await again.stop()


async def test_without_its_disk_a_worker_restores_everything(bench: Bench) -> None:
    await bench.produce([(f"{key}{n}", "") for key in "ab" for n in range(50)])
    worker = bench.start()
    await bench.until_all_committed(worker)
    await worker.stop()
    elsewhere = bench.start(state_dir=str(bench.folder / "another-disk"))
    await elsewhere.until_running()
    assert elsewhere.status["records_restored"] == 100
    await bench.produce([("a0", ""), ("b0", "")])
    await bench.until_all_committed(elsewhere)
    await elsewhere.stop()
    for key in ("a0", "b0"):
        assert [r.value for r in await bench.read() if r.key == key] == [1, 2]


async def test_a_restore_that_is_cut_short_goes_on_where_it_was(bench: Bench) -> None:
    """A kill in the middle of a restore keeps what has been restored; one that is not in bulk loses nothing."""
    await bench.produce([(f"a{n}", "") for n in range(9_000)])
    worker = bench.start()
    await bench.until_all_committed(worker)
    await worker.stop()
    disk = str(bench.folder / "another-disk")
    victim = bench.start({"act": "kill", "when": "after", "api": "store-write", "nth": 2}, state_dir=disk)
    await victim.until_dead()
    again = bench.start(state_dir=disk)
    await again.until_running()
    assert 0 < again.status["records_restored"] < 9_000
    await again.stop()


@pytest.mark.parametrize("bad", [[("a", "poison")], [("b", "poison")]], ids=["partition-1", "partition-0"])
async def test_a_failing_record_takes_its_whole_transaction_back(bench: Bench, bad: list[tuple[str, str]]) -> None:
    bench.topology = "fails_on_poison"
    await bench.produce(numbered(20))
    worker = bench.start()
    await bench.until_all_committed(worker)
    await worker.stop()
    await bench.produce([*numbered(5, start=20), *bad, *numbered(5, start=25)])
    broken = bench.start()
    assert await broken.until_dead() == 1
    assert "refuse-poison" in broken.log
    assert "this value is poison" in broken.log
    check_counts(numbered(20), await bench.read())
    assert sum((await bench.committed()).values()) == 20, "nothing of the failed transaction may be committed"
    bench.topology = "counter"
    mended = bench.start()
    await bench.until_all_committed(mended)
    await mended.stop()
    check_counts([*numbered(30), *bad], await bench.read())


@pytest.mark.parametrize("step", STEPS[:3] + STEPS[-2:], ids=step_name)
async def test_at_least_once_loses_nothing_in_the_same_crashes(bench: Bench, step: dict[str, Any]) -> None:
    bench.guarantee = "at_least_once"
    fed = await feed_until_dead(bench, bench.start(step))
    again = bench.start()
    await bench.produce(numbered(20, start=fed))
    await bench.until_all_committed(again)
    await again.stop()
    last = {record.key: record.value for record in await bench.read()}
    wanted = Counter(key for key, _ in numbered(fed + 20))
    assert all(int(last[key] or 0) >= count for key, count in wanted.items())
