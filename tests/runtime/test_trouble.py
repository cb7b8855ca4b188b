"""Anything may fail at any step, and the group may change its mind: afterwards everything is counted once."""

from __future__ import annotations

import random

import anyio
import anyio.lowlevel
import pytest

from streamlib.errors import ErrorCode
from streamlib.records import TopicPartition
from streamlib.runtime import worker as worker_module
from tests.runtime.fakes import IN0, IN1, PATIENCE_S, Bench, Script, kafka_error, until

SEEDS = 60
ROUNDS = 60
CODES = [
    ErrorCode.NETWORK_EXCEPTION,
    ErrorCode.REQUEST_TIMED_OUT,
    ErrorCode.PRODUCER_FENCED,
    ErrorCode.INVALID_TXN_STATE,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.UNKNOWN_SERVER_ERROR,
]
MEMBERSHIP = [ErrorCode.ILLEGAL_GENERATION, ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.REBALANCE_IN_PROGRESS]
SAFE = ("begin", "open", "close", "write", "read", "restore", "leave")


class Trouble(Script):
    """Fails steps at random, while it is not over."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance
        self.over = True

    async def step(self, step: str) -> None:
        for _ in range(self._chance.randrange(6)):
            await anyio.lowlevel.checkpoint()
        await super().step(step)

    def raise_due(self, step: str) -> None:
        super().raise_due(step)
        if self.over or step.startswith(SAFE) or self._chance.random() > 0.08:
            return
        member = step.startswith(("offsets", "commit_offsets", "join", "sync", "heartbeat"))
        raise kafka_error(self._chance.choice(CODES + MEMBERSHIP * 2 if member else CODES))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for pause in ("FIRST_BACKOFF_MS", "LONGEST_BACKOFF_MS", "LOCK_RETRY_MS"):
        monkeypatch.setattr(worker_module, pause, 0)


@pytest.mark.parametrize("guarantee", ["exactly_once_v2", "at_least_once"])
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_trouble_costs_nothing_but_time(seed: int, guarantee: str) -> None:
    chance = random.Random(seed)
    script = Trouble(chance)
    bench = Bench(guarantee=guarantee, script=script)  # type: ignore[arg-type]
    bench.group.assigned = (IN0, IN1)
    written = {IN0: 0, IN1: 0}
    with anyio.fail_after(PATIENCE_S * 4):
        async with anyio.create_task_group() as children:
            children.start_soon(_run, bench)
            await until(lambda: bench.worker.running)
            script.over = False
            for _ in range(ROUNDS):
                await _something(chance, bench, written)
            script.over = True
            bench.group.rebalance(IN0, IN1)
            await until(lambda: all(bench.committed(p) == end for p, end in written.items() if end))
            bench.worker.stop()
    _check(bench, written, exactly=guarantee == "exactly_once_v2")


async def _run(bench: Bench) -> None:
    await bench.worker.run(leave=True)


async def _something(chance: random.Random, bench: Bench, written: dict[TopicPartition, int]) -> None:
    match chance.randrange(4):
        case 0:
            bench.group.rebalance(*chance.choice([(IN0,), (IN1,), (IN0, IN1), ()]))
        case 1:
            bench.fetcher.break_off(kafka_error(ErrorCode.OFFSET_OUT_OF_RANGE))
        case _:
            partition = chance.choice([IN0, IN1])
            count = chance.randrange(1, 4)
            bench.broker.write(partition, *[f"key{partition.partition}"] * count)
            written[partition] += count
    for _ in range(chance.randrange(60)):
        await anyio.lowlevel.checkpoint()


def _check(bench: Bench, written: dict[TopicPartition, int], *, exactly: bool) -> None:
    counts = bench.counts()
    for partition, total in written.items():
        seen = [count for key, count in counts if key == f"key{partition.partition}"]
        if exactly:
            assert seen == list(range(1, total + 1))
        else:
            assert max(seen, default=0) >= total
            assert set(seen) >= set(range(1, total + 1))
    assert bench.directory.open_stores == set()
    assert not bench.broker.open
