"""Members with a name of their own (KIP-345): who notices when they go and come back, and what two with one name do."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from streamlib.testing.plugin import KafkaTarget
from tests.exactly_once.harness import Bench, Worker, check_counts, numbered, opened

PARTITIONS = 6
KEYS = "abcdef"  # one for each partition
NAMES = ("w1", "w2", "w3")
# Longer than any test takes.
NEVER: dict[str, Any] = {"session_timeout_ms": 1_000_000}


@pytest.fixture
async def bench(kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(Bench(kafka_broker, unique_name("static"), tmp_path), PARTITIONS) as ready:
        yield ready


def begin(bench: Bench, name: str, **settings: Any) -> Worker:
    """A static member on its own disk."""
    return bench.start(name=name, state_dir=bench.disk(name), **settings)


async def members(bench: Bench) -> int:
    groups = await bench.connection.admin().describe_groups([bench.name])
    return len(groups[bench.name].members)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
async def test_one_after_the_other_is_replaced_without_a_rebalance(bench: Bench, how: signal.Signals) -> None:
    """Each comes back to the tasks and the stores it had, the leader too; the others hear nothing of it."""
    bench.settings |= NEVER
    workers = [begin(bench, name) for name in NAMES]
    await bench.until_shared(*workers)
    held = {worker.name: worker.tasks for worker in workers}
    for turn, name in enumerate(NAMES):
        await bench.produce(numbered(60, KEYS, 60 * turn))
        others = [worker for worker in workers if worker.name != name]
        before = [worker.status["rebalances"] for worker in others]
        [old] = [worker for worker in workers if worker.name == name]
        old.process.send_signal(how)
        await old.until_dead()
        new = begin(bench, name)
        workers = [*others, new]
        await bench.until_shared(*workers)
        await bench.until_all_committed(*workers)
        assert [worker.status["rebalances"] for worker in others] == before
        assert new.status["rebalances"] == 1
        assert {worker.name: worker.tasks for worker in workers} == held
        if how == signal.SIGTERM:
            assert new.status["records_restored"] == 0
    for worker in workers:
        await worker.stop()
    check_counts(numbered(180, KEYS), await bench.read())


async def test_a_static_member_that_is_to_leave_lets_the_others_take_over_at_once(bench: Bench) -> None:
    bench.settings |= NEVER
    stays, goes = begin(bench, "w1"), begin(bench, "w2", leave_group=True)
    await bench.until_shared(stays, goes)
    await bench.produce(numbered(60, KEYS))
    await bench.until_all_committed(stays, goes)
    await goes.stop()
    await bench.until_shared(stays)
    await bench.produce(numbered(60, KEYS, 60))
    await bench.until_all_committed(stays)
    assert await members(bench) == 1
    assert len(stays.logged("w2 left, ")) == 1
    await stays.stop()
    check_counts(numbered(120, KEYS), await bench.read())


async def test_a_dynamic_member_that_is_not_to_leave_is_waited_for(bench: Bench) -> None:
    """It cannot come back to its place, so this only makes sense where the whole group stops; it does as it is told."""
    stays = bench.start(name=None, state_dir=bench.disk("w1"))
    goes = bench.start(name=None, state_dir=bench.disk("w2"), leave_group=False)
    await bench.until_shared(stays, goes)
    before = stays.status["rebalances"]
    await goes.stop()
    assert await members(bench) == 2
    assert stays.status["rebalances"] == before
    await bench.produce(numbered(60, KEYS))
    await bench.until_all_committed(stays)  # after its session
    await stays.stop()
    check_counts(numbered(60, KEYS), await bench.read())


async def test_of_two_processes_with_one_name_the_older_stops_and_says_whose_name_it_was(bench: Bench) -> None:
    """On two hosts, where no lock keeps them apart. Nothing is lost or repeated on the way."""
    await bench.produce(numbered(60, KEYS))
    older, other = begin(bench, "w1"), begin(bench, "w2")
    await bench.until_shared(older, other)
    newer = bench.start(name="w1", state_dir=bench.disk("elsewhere"))
    await bench.produce(numbered(60, KEYS, 60))
    assert await older.until_dead() == 1
    [said] = older.logged("error:")
    for part in ("FENCED_INSTANCE_ID", "group_instance_id 'w1'", "unique", "STREAMLIB_GROUP_INSTANCE_ID"):
        assert part in said
    await bench.until_shared(newer, other)
    await bench.until_all_committed(newer, other)
    for worker in (newer, other):
        await worker.stop()
    check_counts(numbered(120, KEYS), await bench.read())


async def test_of_two_processes_with_one_name_on_one_disk_the_newer_does_not_start(bench: Bench) -> None:
    older = begin(bench, "w1")
    await older.until_running()
    newer = begin(bench, "w1")
    assert await newer.until_dead() == 1
    [said] = newer.logged("error:")
    for part in ("w1.lock", f"held by process {older.process.pid}", "group_instance_id"):
        assert part in said
    await bench.produce(numbered(60, KEYS))
    await bench.until_all_committed(older)
    await older.stop()
    check_counts(numbered(60, KEYS), await bench.read())
