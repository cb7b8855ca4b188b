"""Functions that are awaited, on a real broker: kills and rebalances while calls are under way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import anyio
import pytest

from streamlib.testing.plugin import KafkaTarget
from tests.exactly_once.harness import Bench, Seen, check_counts, numbered, opened

KEYS = "abcdefghijklmnopqrstuvwx"
TOPOLOGIES = ("enriched", "enriched_then_counted", "counted_then_enriched")


def check(bench: Bench, inputs: Iterable[tuple[str, str]], outputs: list[Seen]) -> None:
    """Each record once, those of a key in order."""
    if bench.topology != "enriched":
        check_counts(inputs, outputs)
        return
    wanted, found = defaultdict(list), defaultdict(list)
    for key, value in inputs:
        wanted[key].append(value)
    for record in outputs:
        found[record.key].append(record.value)
    assert found == wanted


async def read(bench: Bench) -> list[Seen]:
    return await bench.read(value=str if bench.topology == "enriched" else int)


@pytest.fixture(params=TOPOLOGIES)
async def bench(
    kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Bench]:
    async with opened(Bench(kafka_broker, unique_name("async"), tmp_path, request.param)) as ready:
        yield ready


async def test_kills_in_the_middle_of_calls_lose_and_repeat_nothing(bench: Bench) -> None:
    inputs = numbered(3_000, KEYS)
    await bench.produce(inputs)
    for committed in (300, 1_000, 2_000):
        victim = bench.start()
        await bench.until_committed(committed, victim)
        victim.kill()
    worker = bench.start()
    await bench.until_all_committed(worker)
    await worker.stop()
    check(bench, inputs, await read(bench))


@pytest.mark.parametrize("when", ["before", "sent", "after"])
@pytest.mark.parametrize("api", ["TxnOffsetCommit", "EndTxn"])
async def test_a_kill_in_a_commit_loses_and_repeats_nothing(bench: Bench, api: str, when: str) -> None:
    inputs = numbered(1_000, KEYS)
    await bench.produce(inputs)
    victim = bench.start({"act": "kill", "when": when, "api": api, "nth": 4})
    await victim.until_dead()
    worker = bench.start()
    await bench.until_all_committed(worker)
    await worker.stop()
    check(bench, inputs, await read(bench))


async def test_rebalances_in_the_middle_of_calls_lose_and_repeat_nothing(bench: Bench) -> None:
    """Another worker comes, one is killed, it comes back, the other leaves."""
    settings: dict[str, Any] = {"session_timeout_ms": 3_000}
    one = bench.start(name="one", **settings)
    await one.until_running()
    inputs: list[tuple[str, str]] = []

    async def feed(count: int = 600) -> None:
        more = numbered(count, KEYS, start=len(inputs))
        inputs.extend(more)
        await bench.produce(more)

    await feed()
    two = bench.start(name="two", state_dir=bench.disk("two"), **settings)
    await two.until_running()
    await feed()
    await anyio.sleep(0.3)
    one.kill()
    await feed()
    again = bench.start(name="one", **settings)
    await again.until_running()
    await feed()
    await two.stop()
    await feed()
    await bench.until_all_committed(again)
    await again.stop()
    check(bench, inputs, await read(bench))


async def test_a_stop_does_not_wait_for_slow_calls_unless_it_has_to(bench: Bench) -> None:
    """What is left is done by the next."""
    inputs = numbered(400, KEYS)
    await bench.produce(inputs)
    worker = bench.start()
    await bench.until_committed(50, worker)
    await worker.stop()
    assert "no commit within" not in worker.log
    worker = bench.start()
    await bench.until_all_committed(worker)
    status = worker.status
    assert (status["commits_held"] > 0) == (bench.topology == "counted_then_enriched")
    await worker.stop()
    check(bench, inputs, await read(bench))
