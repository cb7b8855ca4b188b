"""Retry topics on a real broker: workers are killed, and come and go, while records are parked."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from streamlib.records import TopicPartition
from streamlib.testing.plugin import KafkaTarget
from tests.exactly_once.harness import Bench, Worker, opened

KEYS = "abcdefgh"
TOPICS = ("ask-retry-1", "ask-retry-2", "ask-retry-3")
MENDED_AFTER_S = 6
"""Then records that are not bad pass: after one or two of the delays, the last one of which is over later."""


class Bed:
    """Records of which some fail for a while and some for good, and what has to become of them."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.dead = f"{bench.name}-dead"
        self.inputs: list[tuple[str, str]] = []

    @property
    def in_order(self) -> bool:
        return "in_order" in self.bench.topology

    async def feed(self, count: int) -> None:
        mended = time.time() + MENDED_AFTER_S
        more = [self._record(number, mended) for number in range(len(self.inputs), len(self.inputs) + count)]
        self.inputs += more
        await self.bench.produce(more)

    def _record(self, number: int, mended: float) -> tuple[str, str]:
        until = "bad" if number % 41 == 0 else str(mended) if number % 7 == 0 else ""
        return KEYS[number % len(KEYS)], f"{number}:{until}"

    async def until_done(self, *workers: Worker) -> None:
        """All of the input, and then all that is parked."""
        await self.bench.until_all_committed(*workers)
        for topic in TOPICS * (3 if self.in_order else 1):  # those behind others may come again
            await self.bench.until_all_committed(*workers, topic=f"{self.bench.name}-{topic}")

    async def check(self) -> None:
        dead = Counter((seen.key, seen.value) for seen in await self.bench.read(self.dead, value=str))
        bad = [(key, value) for key, value in self.inputs if value.endswith(":bad")]
        assert dead == Counter(bad)
        passed = [(seen.key, str(seen.value)) for seen in await self.bench.read(value=str)]
        assert Counter(passed) == Counter(self.inputs) - Counter(bad)
        if self.in_order:
            assert _by_key(passed) == _by_key(set_apart(self.inputs, bad))
            return
        for topic in TOPICS:  # each failure has parked its record once
            seen = await self.bench.read(f"{self.bench.name}-{topic}", value=str)
            found = Counter((each.key, each.value) for each in seen)
            assert found >= Counter(bad)
            assert max(found.values()) == 1, topic


def set_apart(inputs: list[tuple[str, str]], bad: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [each for each in inputs if each not in bad]


def _by_key(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    found = defaultdict(list)
    for key, value in pairs:
        found[key].append(value)
    return found


@pytest.fixture(params=["parked", "parked_awaited", "parked_in_order", "parked_in_order_awaited"])
async def bed(
    kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Bed]:
    async with opened(Bench(kafka_broker, unique_name("retry-topics"), tmp_path, request.param)) as bench:
        bed = Bed(bench)
        bench.settings["repartition_purge_interval_ms"] = 600_000  # what was parked is looked at
        await bench.create_topic(bed.dead)
        yield bed


async def test_kills_while_records_are_parked_lose_and_repeat_nothing(bed: Bed) -> None:
    await bed.feed(200)
    for after_s in (0.3, 1.2, 2.5):
        victim = bed.bench.start()
        await victim.until_running()
        await anyio.sleep(after_s)
        assert victim.alive, victim.log
        victim.kill()
        await bed.feed(50)
    worker = bed.bench.start()
    await bed.until_done(worker)
    await worker.stop()
    await bed.check()


@pytest.mark.parametrize(("when", "nth"), [("before", 2), ("sent", 3), ("after", 4)])
async def test_a_kill_in_a_commit_loses_and_repeats_nothing(bed: Bed, when: str, nth: int) -> None:
    await bed.feed(200)
    victim = bed.bench.start({"act": "kill", "when": when, "api": "EndTxn", "nth": nth})
    await victim.until_dead()
    worker = bed.bench.start()
    await bed.until_done(worker)
    await worker.stop()
    await bed.check()


async def test_rebalances_while_records_are_parked_lose_and_repeat_nothing(bed: Bed) -> None:
    settings: dict[str, Any] = {"session_timeout_ms": 3_000}
    one = bed.bench.start(name="one", **settings)
    await one.until_running()
    await bed.feed(150)
    two = bed.bench.start(name="two", **settings)
    await bed.bench.until_shared(one, two)
    await bed.feed(150)
    two.kill()
    await bed.feed(50)
    two = bed.bench.start(name="two", **settings)
    await bed.bench.until_shared(one, two)
    await one.stop()
    await bed.until_done(two)
    await two.stop()
    await bed.check()


@pytest.mark.parametrize("protocol", ["classic", "streams"])
async def test_what_has_come_back_is_purged_and_nothing_else(
    kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path, protocol: str
) -> None:
    async with opened(Bench(kafka_broker, unique_name("retry-topics"), tmp_path, "parked")) as bench:
        bed = Bed(bench)
        await bench.create_topic(bed.dead)
        settings = {"group_protocol": protocol, "repartition_purge_interval_ms": 200}
        worker = bench.start(name=None if protocol == "streams" else "w", **settings)
        await bed.feed(100)
        await bed.until_done(worker)
        topics = [TopicPartition(f"{bench.name}-{topic}", number) for topic in TOPICS for number in range(2)]

        async def purged() -> bool:
            admin = bench.connection.admin()
            return await admin.list_offsets(topics, "earliest") == await admin.list_offsets(topics, "latest")

        await bench.until(purged, worker)
        await worker.stop()
        passed = Counter((seen.key, str(seen.value)) for seen in await bench.read(value=str))
        assert passed == Counter(each for each in bed.inputs if not each[1].endswith(":bad"))
