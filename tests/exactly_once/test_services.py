"""A service that does not work for a while, on a real broker: nothing is lost, nothing fails, it is left in peace."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from streamlib import CircuitBreaker, KafkaStreams, RateLimit, Service, StreamsBuilder, StreamsConfig
from streamlib.testing.plugin import KafkaTarget
from streamlib.topology.topology import Topology
from tests.exactly_once.harness import Bench, config_of, numbered, opened

FAILURES, OPEN_FOR_S, CONCURRENCY = 5, 0.5, 20


class Server:
    """Answers at once, or refuses."""

    def __init__(self) -> None:
        self.works = True
        self.times: list[float] = []
        self.answered: Counter[str] = Counter()

    async def ask(self, value: str) -> str:
        self.times.append(time.monotonic())
        await asyncio.sleep(0.005)
        if not self.works:
            raise ConnectionError("connection refused")
        self.answered[value] += 1
        return value


def asking(bench: Bench, server: Server, service: Service) -> Topology:
    """Records of keys up to `d` need the service, others do not."""
    builder = StreamsBuilder()
    ways = builder.stream(bench.source, key=str, value=str).split(name="way-")
    branches = ways.branch(lambda key, _: key <= "d", name="served").default_branch(name="free")
    branches["way-served"].map_values(server.ask, service=service, concurrency=CONCURRENCY, value=str).to(bench.sink)
    branches["way-free"].to(bench.sink)
    return builder.build()


@pytest.fixture
async def bench(kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(Bench(kafka_broker, unique_name("service"), tmp_path)) as ready:
        yield ready


@pytest.fixture
def config(bench: Bench, kafka_broker: KafkaTarget, tmp_path: Path) -> StreamsConfig:
    return config_of(bench, kafka_broker, tmp_path, session_timeout_ms=6_000, heartbeat_interval_ms=300)


async def until(holds: Callable[[], Any]) -> None:
    with anyio.fail_after(30):
        while not holds():
            await anyio.sleep(0.02)


async def check(bench: Bench, inputs: list[tuple[str, str]]) -> None:
    """Each record once, those of a key in order."""
    wanted, found = defaultdict(list), defaultdict(list)
    for key, value in inputs:
        wanted[key].append(value)
    for record in await bench.read(value=str):
        found[record.key].append(record.value)
    assert found == wanted


async def test_an_outage_longer_than_the_session_costs_nothing(bench: Bench, config: StreamsConfig) -> None:
    server = Server()
    breaker = CircuitBreaker(FAILURES, timedelta(seconds=OPEN_FOR_S))
    app = KafkaStreams(asking(bench, server, Service("server", breaker=breaker)), config)
    inputs = numbered(200)
    await bench.produce(inputs)
    async with app:
        await bench.until_all_committed()
        rebalances = app.status.rebalances
        server.works = False
        down, before = time.monotonic(), len(server.times)
        more = numbered(400, "abcdefgh", start=200)
        await bench.produce(more)
        await until(lambda: app.status.services["server"].breaker == "open")
        commits = app.status.commits
        await anyio.sleep(8)
        others = numbered(40, "efgh", start=600)
        await bench.produce(others)
        await until(lambda: app.status.records_in == 640)
        await until(lambda: app.status.commits > commits)
        status = app.status
        calls, outage_s = len(server.times) - before, time.monotonic() - down
        # Those under way when it failed, and one at a time since.
        assert calls <= 2 * CONCURRENCY + outage_s / OPEN_FOR_S + 1
        assert calls >= outage_s / OPEN_FOR_S / 2 - 2
        assert status.services["server"].opened == 1
        assert status.calls_in_flight <= 1
        assert len([record for record in await bench.read(value=str) if record.key > "d"]) == 240
        assert (status.rebalances, status.redone) == (rebalances, 0)
        server.works = True
        await bench.until_all_committed()
        assert app.status.services["server"].breaker == "closed"
    await check(bench, inputs + more + others)
    assert set(server.answered.values()) == {1}


async def test_a_worker_that_stops_in_an_outage_leaves_the_records_to_the_next(
    bench: Bench, config: StreamsConfig, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    breaker = CircuitBreaker(FAILURES, timedelta(seconds=OPEN_FOR_S))
    topology = asking(bench, server, Service("server", breaker=breaker))
    inputs = numbered(300, "abcdefgh")
    server.works = False
    await bench.produce(inputs)
    async with KafkaStreams(topology, config) as app:
        await app.wait_running()
        await until(lambda: app.status.services and app.status.services["server"].breaker == "open")
        await until(lambda: app.status.records_out > 0)
    assert "no commit within" not in caplog.text  # it does not wait for the service
    server.works = True
    async with KafkaStreams(topology, config):
        await bench.until_all_committed()
    await check(bench, inputs)


async def test_calls_are_as_far_apart_as_the_limit_says(bench: Bench, config: StreamsConfig) -> None:
    """That no span of a second has more is shown under a hand-set clock (tests/engine); here calls are seen late."""
    server = Server()
    service = Service("server", rate_limit=RateLimit(50))
    inputs = numbered(180)
    await bench.produce(inputs)
    began = time.monotonic()
    async with KafkaStreams(asking(bench, server, service), config) as app:
        await bench.until_all_committed()
        assert app.status.services["server"].calls == len(inputs)
    assert server.times[100] - began >= 2
    assert server.times[-1] - began >= 3
    await check(bench, inputs)
