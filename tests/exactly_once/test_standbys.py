"""Copies of stores on other disks: how far they are, and what it costs when their tasks come to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from streamlib.testing.plugin import KafkaTarget
from tests.exactly_once.harness import Bench, Latch, Worker, check_counts, numbered, opened

PARTITIONS = 4
KEYS = "abcd"  # one for each partition
TASKS = [f"0_{number}" for number in range(PARTITIONS)]


@pytest.fixture
async def bench(kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(Bench(kafka_broker, unique_name("standbys"), tmp_path), PARTITIONS) as ready:
        ready.settings = {"num_standby_replicas": 1}
        yield ready


def begin(bench: Bench, disk: str, **settings: Any) -> Worker:
    """A worker on a disk of its own: those that share one are no standbys of each other."""
    return bench.start(name=None, state_dir=bench.disk(disk), **settings)


async def until_covered(bench: Bench, *workers: Worker) -> None:
    """Until each task runs, and the others have copies of it that are complete."""

    async def covered() -> bool:
        active = [task for worker in workers for task in worker.tasks]
        standbys = [worker.status.get("standbys", {}) for worker in workers]
        copies = [task for lags in standbys for task, lag in lags.items() if lag == 0]
        apart = all(lags.keys().isdisjoint(worker.tasks) for lags, worker in zip(standbys, workers, strict=True))
        return sorted(active) == TASKS and sorted(copies) == TASKS and apart

    await bench.until(covered, *workers)


async def until_all_with(bench: Bench, worker: Worker) -> None:
    async def all_here() -> bool:
        return worker.tasks == TASKS

    await bench.until(all_here, worker)


def once_each(first: int, count: int) -> list[tuple[str, str]]:
    """Records of keys of their own, so that each is a row of its own in a changelog."""
    return [(f"{KEYS[number % len(KEYS)]}{number}", "") for number in range(first, first + count)]


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
async def test_a_standby_takes_over_without_restoring_anything(bench: Bench, kill: bool) -> None:
    workers = [begin(bench, "a"), begin(bench, "b")]
    await bench.produce(once_each(0, 400))
    await bench.until_all_committed(*workers)
    await until_covered(bench, *workers)
    goes, stays = workers
    opened_before = opened_stores(stays)
    if kill:
        goes.kill()
    else:
        await goes.stop()
    await until_all_with(bench, stays)
    assert opened_stores(stays) == opened_before == TASKS  # the same open stores as before
    assert stays.logged("stores of 0_0 closed") == []
    restored = [line.rpartition("runs; ")[2] for line in stays.logged(" runs; ")]
    first_run = len(restored) - len(TASKS) // 2  # its own tasks before, then those that came to it
    assert restored[first_run:] == ["0 records restored"] * 2
    await bench.produce(once_each(0, 400))
    await bench.until_all_committed(stays)
    await stays.stop()
    check_counts(once_each(0, 400) * 2, await bench.read())


def opened_stores(worker: Worker) -> list[str]:
    return sorted(line.partition("stores of ")[2].split()[0] for line in worker.logged(" opened"))


async def test_a_task_that_moves_away_stays_as_a_standby_with_its_stores_open(bench: Bench) -> None:
    first = begin(bench, "a")
    await bench.produce(once_each(0, 400))
    await until_all_with(bench, first)
    second = begin(bench, "b")
    await until_covered(bench, first, second)
    moved = second.tasks
    assert len(moved) == 2
    assert opened_stores(first) == TASKS
    assert first.logged(" closed") == []
    await bench.produce(once_each(0, 400))
    await bench.until_all_committed(first, second)
    await until_covered(bench, first, second)
    second.kill()  # and back again
    await until_all_with(bench, first)
    assert opened_stores(first) == TASKS
    assert first.status["records_restored"] == 0, "what it has followed is not restored again"
    await first.stop()
    check_counts(once_each(0, 400) * 2, await bench.read())


async def test_how_far_a_standby_is_behind_is_reported(bench: Bench) -> None:
    """Held up on its way to the changelogs, it is behind by what is in them; let go, by nothing."""
    bench.settings["acceptable_recovery_lag"] = 0  # else tasks come at once, and are restored
    latch = Latch(bench.folder, "Fetch")
    latch.set()  # from its first one
    first = begin(bench, "a")
    await bench.produce(once_each(0, 400))
    await bench.until_all_committed(first)
    second = bench.start(latch.fault, name=None, state_dir=bench.disk("b"))

    async def behind() -> bool:
        standbys = second.status.get("standbys", {})
        return len(standbys) > 0 and all(lag >= 100 for lag in standbys.values())

    await bench.until(behind, first, second)
    assert first.tasks == TASKS
    latch.release()
    await until_covered(bench, first, second)
    assert second.status["records_restored"] == 0, "what a standby has followed is not restored"
    for worker in (second, first):
        await worker.stop()
    check_counts(once_each(0, 400), await bench.read())


async def test_a_task_moves_when_its_warm_up_has_caught_up(bench: Bench) -> None:
    """No standbys are asked for: the newcomer gets copies first, one at a time, and says when it is ready."""
    bench.settings = {"acceptable_recovery_lag": 0, "max_warmup_replicas": 1}
    first = begin(bench, "a")
    await bench.produce(once_each(0, 400))
    await bench.until_all_committed(first)
    second = begin(bench, "b")
    await bench.until_shared(first, second)
    assert second.status["records_restored"] == 0
    assert second.status["standbys"] == first.status["standbys"] == {}
    await bench.produce(once_each(0, 400))
    await bench.until_all_committed(first, second)
    for worker in (second, first):
        await worker.stop()
    check_counts(once_each(0, 400) * 2, await bench.read())


async def test_workers_on_one_disk_have_no_copies(bench: Bench) -> None:
    """There would be nothing to copy to."""
    workers = [bench.start(name=None) for _ in range(2)]
    await bench.produce(numbered(40))
    await bench.until_shared(*workers)
    assert [worker.status["standbys"] for worker in workers] == [{}, {}]
    assert any(worker.logged("tasks lack 1 of their 1 standbys") for worker in workers)
    await bench.until_all_committed(*workers)
    for worker in workers:
        await worker.stop()
    check_counts(numbered(40), await bench.read())
