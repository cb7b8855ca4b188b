"""A real application on a real broker: what is scraped is what happened, and its health is what it is."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from streamlib import (
    CircuitBreaker,
    Health,
    HealthStatus,
    KafkaStreams,
    Retry,
    RetryTopics,
    Service,
    StreamsBuilder,
    StreamsConfig,
    Topology,
)
from streamlib.app import Connect
from streamlib.kafka.connection import Connection
from streamlib.monitoring.endpoint import MetricsEndpoint
from streamlib.records import TopicPartition
from streamlib.testing.plugin import KafkaTarget
from tests.errors.injection import Faults, faulty_pool

PATIENCE_S = 30
WATCHDOG_MS = 2_000


class Bench:
    """Two topics of two partitions, an application between them, and its endpoint."""

    def __init__(self, config: StreamsConfig, connection: Connection) -> None:
        self.config = config
        self.source, self.sink = f"{config.application_id}-in", f"{config.application_id}-out"
        self.connection = connection
        self.endpoint: MetricsEndpoint | None = None

    @asynccontextmanager
    async def running(self, topology: Topology, connect: Connect | None = None) -> AsyncIterator[KafkaStreams]:
        async with KafkaStreams(topology, self.config, connect=connect) as app:
            with MetricsEndpoint(app, "0") as self.endpoint:
                yield app

    async def produce(self, records: list[tuple[str | None, str]], *, open_transaction: str | None = None) -> None:
        """By turns into both partitions; in a transaction that stays open if it has a name."""
        producer = self.connection.producer(open_transaction)
        await producer.init()
        if open_transaction is not None:
            producer.begin()
        now_ms = time.time_ns() // 1_000_000
        for number, (key, value) in enumerate(records):
            raw_key = None if key is None else key.encode()
            producer.send(TopicPartition(self.source, number % 2), [(raw_key, value.encode(), now_ms, ())])
        await producer.flush()
        if open_transaction is None:
            await producer.close()

    async def get(self, path: str) -> tuple[int, str]:
        """Asked from another thread, as anybody would."""
        return await anyio.to_thread.run_sync(self.get_here, path)

    def get_here(self, path: str) -> tuple[int, str]:
        assert self.endpoint is not None
        connection = HTTPConnection(*self.endpoint.address, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    async def scrape(self) -> dict[str, dict[tuple[str, ...], float]]:
        """Name -> the labels of the place, by their names in order -> value."""
        _, text = await self.get("/metrics")
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = {n: v for n, v in sample.labels.items() if n not in ("application_id", "worker")}
                found.setdefault(sample.name, {})[tuple(labels[name] for name in sorted(labels))] = sample.value
        return found


@pytest.fixture
async def bench(kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Bench]:
    config = StreamsConfig(
        application_id=unique_name("monitored"),
        bootstrap_servers=kafka_broker.bootstrap_servers,
        processing_guarantee="exactly_once_v2",
        state_dir=str(tmp_path),
        watchdog_timeout_ms=WATCHDOG_MS,
        metrics_recording_level="DEBUG",
    )
    connection = await Connection.open(config)
    ready = Bench(config, connection)
    for topic in (ready.source, ready.sink):
        await connection.admin().create_topic(topic, 2)
    yield ready
    await connection.close()


async def until_health(app: KafkaStreams, wanted: Callable[[Health], bool]) -> Health:
    with anyio.fail_after(PATIENCE_S):
        while not wanted(health := app.health()):
            await anyio.sleep(0.05)
    return health


def is_well(health: Health) -> bool:
    return health.status is HealthStatus.OK and health.ready


def counting(bench: Bench) -> Topology:
    builder = StreamsBuilder()
    stream = builder.stream(bench.source, key=str, value=str)
    stream.group_by_key().count(store="counts").to_stream().to(bench.sink)
    return builder.build()


async def test_what_is_scraped_is_what_happened(bench: Bench) -> None:
    await bench.produce([(f"user-{number % 7}", "x") for number in range(1_000)] + [(None, "x")] * 4)
    async with bench.running(counting(bench)) as app:
        await app.wait_running()
        with anyio.fail_after(PATIENCE_S):
            while app.status.records_in < 1_004 or app.metrics().worker.open_transaction_age:  # type: ignore[union-attr]
                await anyio.sleep(0.05)
        await anyio.sleep(1.2)  # what looks once a second has looked
        status, found = app.status, await bench.scrape()
        assert (await bench.get("/ready"))[0] == (await bench.get("/health"))[0] == 200
    worker = {name.removeprefix("streamlib_worker_"): of for name, of in found.items()}
    assert worker["process_total"] == {(): 1_004}
    assert worker["records_produced_total"] == {(): 1_000}
    assert worker["commit_total"] == {(): status.commits}
    assert status.commits >= 1
    assert 0 < worker["commit_latency_avg"][()] <= worker["commit_latency_max"][()] < 10_000
    assert worker["visible_latency_avg"][()] >= worker["commit_latency_avg"][()] / 2
    assert worker["rebalance_total"] == {(): status.rebalances}
    assert status.rebalances >= 1
    assert worker["rebalance_time_total"][()] > 0
    assert worker["records_lag_max"] == {(): 0}
    assert worker["process_ratio"][()] > 0
    assert worker["tasks"] == {(): 2}
    assert found["streamlib_partition_records_lag"] == {
        ("0", "0_0", bench.source): 0,
        ("1", "0_1", bench.source): 0,
    }
    assert sum(found["streamlib_task_dropped_records_total"].values()) == 4  # null keys
    assert sum(found["streamlib_task_process_total"].values()) == 1_004
    assert all(0 < ms < 600_000 for ms in found["streamlib_task_record_e2e_latency_avg"].values())
    by_node = found["streamlib_node_process_total"]
    assert sum(by_node.values()) > 3 * 1_000
    assert sum(found["streamlib_store_put_total"].values()) >= 7
    assert sum(found["streamlib_store_get_total"].values()) >= 7
    assert found["streamlib_client_state"] == {("RUNNING",): 1}
    closed = app.metrics()
    assert closed.client.state == "NOT_RUNNING"
    gone = (closed.tasks, closed.partitions, closed.nodes, closed.stores, closed.caches)
    assert gone == ({}, {}, {}, {}, {})
    assert app.health() == Health(HealthStatus.STUCK, False, ("the application has stopped",))


async def test_restored_records_are_counted(bench: Bench, tmp_path: Path) -> None:
    bench.config = msgspec.structs.replace(bench.config, metrics_recording_level="INFO")
    await bench.produce([(f"user-{number}", "x") for number in range(50)])
    async with bench.running(counting(bench)) as app:
        await app.wait_running()
        with anyio.fail_after(PATIENCE_S):
            while app.status.commits == 0 or app.status.records_out < 50 or app.status.lag:
                await anyio.sleep(0.05)
    bench.config = msgspec.structs.replace(bench.config, state_dir=str(tmp_path / "another"))
    async with bench.running(counting(bench)) as app:
        await app.wait_running()
        found = await bench.scrape()
    assert found["streamlib_worker_restore_total"] == {(): 50}
    assert "streamlib_node_process_total" not in found  # that is for DEBUG
    assert "streamlib_store_get_total" not in found


async def test_a_function_that_blocks_is_named_by_the_endpoint_while_it_does(bench: Bench) -> None:
    entered, let_go = threading.Event(), threading.Event()

    def block(value: str) -> str:
        if value == "block":
            entered.set()
            let_go.wait(PATIENCE_S)
        return value

    builder = StreamsBuilder()
    builder.stream(bench.source, key=str, value=str).map_values(block, name="slow").to(bench.sink)
    answers: list[tuple[int, str]] = []

    def ask() -> None:
        """In a thread, for the loop does not turn."""
        assert entered.wait(PATIENCE_S)
        try:
            deadline = time.monotonic() + PATIENCE_S
            while time.monotonic() < deadline and (not answers or answers[-1][0] != 503):
                answers.append(bench.get_here("/health"))
            answers.append(bench.get_here("/metrics"))
        finally:
            let_go.set()

    async with bench.running(builder.build()) as app:
        await app.wait_running()
        assert is_well(app.health())
        asking = threading.Thread(target=ask)
        asking.start()
        await bench.produce([("a", "block")])
        while asking.is_alive():
            await anyio.sleep(0.05)
        await until_health(app, is_well)
    *early, (status, told), (scraped, _) = answers
    assert (status, scraped) == (503, 200)
    assert early, "it is degraded before it is stuck"
    assert all(status == 200 and "degraded" in text for status, text in early)
    assert "node slow" in told
    assert "has held the worker for" in told


async def test_a_call_that_does_not_end_is_stuck_and_so_is_its_partition(bench: Bench) -> None:
    gate = asyncio.Event()

    async def call(value: str) -> str:
        if value == "hang":
            await gate.wait()
        return value

    builder = StreamsBuilder()
    builder.stream(bench.source, key=str, value=str).map_values(call, name="enrich").to(bench.sink)
    async with bench.running(builder.build()) as app:
        await app.wait_running()
        await bench.produce([("a", "hang"), ("b", "fine")])
        health = await until_health(app, lambda health: len(health.reasons) == 2)
        status, told = await bench.get("/health")
        found = await bench.scrape()
        assert (status, health.status) == (503, HealthStatus.STUCK)
        assert any(f"stuck partition: topic {bench.source}, partition 0, offset 0" in why for why in health.reasons)
        assert any("a call of node enrich" in why for why in health.reasons)
        assert "stuck partition" in told
        assert found["streamlib_worker_stuck_partitions"] == {(): 1}
        assert found["streamlib_worker_calls_in_flight"] == {(): 1}
        assert found["streamlib_worker_oldest_call_age"][()] >= WATCHDOG_MS
        standing = found["streamlib_partition_standing_time"]
        assert standing["0", "0_0", bench.source] >= WATCHDOG_MS
        assert standing["1", "0_1", bench.source] == 0
        gate.set()
        await until_health(app, is_well)
        assert (await bench.scrape())["streamlib_worker_stuck_partitions"] == {(): 0}


SERVICE = Service("shop", breaker=CircuitBreaker(failures=1, open_for=timedelta(hours=1)))


@pytest.mark.parametrize(
    "options",
    [
        {"on_error": Retry([timedelta(hours=1)])},
        {"on_error": RetryTopics([timedelta(hours=1)])},
        {"service": SERVICE},
    ],
    ids=["retry", "retry topic", "breaker"],
)
async def test_what_waits_to_be_tried_again_is_not_stuck(bench: Bench, options: dict[str, Any]) -> None:
    async def fail(value: str) -> str:
        raise ConnectionError(value)

    builder = StreamsBuilder()
    builder.stream(bench.source, key=str, value=str).map_values(fail, name="ask", **options).to(bench.sink)
    async with bench.running(builder.build()) as app:
        await app.wait_running()
        await bench.produce([("a", "x")])
        with anyio.fail_after(PATIENCE_S):
            while app.status.records_in == 0:
                await anyio.sleep(0.05)
        await anyio.sleep(2 * WATCHDOG_MS / 1000)
        assert is_well(app.health()), app.health()


async def test_a_transaction_that_somebody_leaves_open_is_told_until_it_ends(bench: Bench) -> None:
    async with bench.running(counting(bench)) as app:
        await app.wait_running()
        await bench.produce([("a", "x")], open_transaction=f"{bench.source}-left-open")
        health = await until_health(app, lambda health: bool(health.reasons))
        found = await bench.scrape()
        assert health.status is HealthStatus.DEGRADED
        assert f"hanging transaction: one that somebody else left open holds up {bench.source}-0" in health.reasons[0]
        assert found["streamlib_worker_hanging_transaction_age"][()] >= WATCHDOG_MS
        assert found["streamlib_partition_unstable_records"]["0", "0_0", bench.source] == 1
        again = bench.connection.producer(f"{bench.source}-left-open")
        await again.init()  # which aborts it
        await again.close()
        await until_health(app, is_well)


async def test_brokers_that_are_gone_degrade_and_do_not_ask_for_a_restart(bench: Bench) -> None:
    faults = Faults()

    async def through_faults(config: StreamsConfig) -> Connection:
        return await Connection.open(config, faulty_pool(config, faults))

    short: dict[str, Any] = {"session_timeout_ms": 2_000, "request_timeout_ms": 1_000, "delivery_timeout_ms": 2_000}
    bench.config = msgspec.structs.replace(bench.config, heartbeat_interval_ms=200, watchdog_timeout_ms=60_000, **short)
    async with bench.running(counting(bench), through_faults) as app:
        await app.wait_running()
        faults.network.refuses = True
        faults.cut_all()
        health = await until_health(app, lambda health: bool(health.reasons))
        assert health.status is HealthStatus.DEGRADED
        assert health.reasons[0].startswith(("broker unreachable", "rebalancing"))
        assert (await bench.get("/health"))[0] == 200
        faults.heal()
        await until_health(app, is_well)


async def test_readiness_begins_and_ends_with_the_tasks(bench: Bench) -> None:
    """Readiness follows the life of the application from one end to the other."""
    app = KafkaStreams(counting(bench), bench.config)
    assert (app.health().status, app.health().ready) == (HealthStatus.DEGRADED, False)
    async with app:
        await until_health(app, is_well)
        app.close()
        assert not app.health().ready
