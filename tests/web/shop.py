"""An application of three workers and 24 tasks, as its workers would tell of it, and the consoles that show it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from streamlib import DeadLetter, StreamsBuilder, StreamsConfig, TimeWindows, Topology
from streamlib.dead_letters.letters import Letter
from streamlib.dead_letters.recent import TopicOfLetters
from streamlib.metrics import Health, HealthStatus, Metrics
from streamlib.monitoring.address import Address
from streamlib.records import TopicPartition
from streamlib.snapshots.worker import (
    HotKey,
    Moment,
    NodeSeen,
    PartitionSeen,
    RebalanceSeen,
    StoreComing,
    TaskComing,
    TaskSeen,
    TopicSeen,
    WorkerSnapshot,
)
from streamlib.web.console import Console
from streamlib.web.server import WebServer
from tests.monitoring.sample import Told

PASSWORD = "never-shown-to-anybody"
PARTITIONS = 12


def topology() -> Topology:
    builder = StreamsBuilder()
    orders = builder.stream("orders", key=str, value=str)
    customers = builder.table("customers", key=str, value=str, store="customers")
    rich = orders.filter(lambda _, order: bool(order)).join(customers, lambda order, customer: f"{order} {customer}")
    rich.to("enriched-orders")
    (
        rich.group_by(lambda _, order: order, key=str)
        .windowed_by(TimeWindows.of_size(timedelta(minutes=1), grace=timedelta(0)))
        .count(store="revenue-per-minute")
        .to_stream()
        .to("revenue")
    )
    return builder.build()


def names() -> dict[str, str]:
    """The nodes of the topology by what they are."""
    return {name.split("-")[1].lower() + name[-2:]: name for name in topology().nodes}


class Worker(Told):
    """Implements `Shown`: worker 0, 1 or 2."""

    def __init__(self, number: int, token: str | None = None, *, restoring: bool = True) -> None:
        super().__init__()
        self.number = number
        self.config = StreamsConfig(
            application_id="shop",
            bootstrap_servers="localhost:1",
            processing_guarantee="exactly_once_v2",
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="PLAIN",
            sasl_username="shop",
            sasl_password=PASSWORD,  # type: ignore[arg-type]
            web_token=token,  # type: ignore[arg-type]
            on_processing_error=DeadLetter("orders-dead-letters"),
            request_timeout_ms=500,
            delivery_timeout_ms=1_000,
        )
        self.topology = topology()
        self.restoring = restoring
        self.held_s = 0.0
        self.began_ms = time.time() * 1000

    def metrics(self) -> Metrics:
        return msgspec.structs.replace(super().metrics(), worker_id=f"worker-{self.number}")

    def snapshot(self) -> WorkerSnapshot:
        time.sleep(self.held_s)
        now_ms = int(time.time() * 1000)
        tasks = [f"{sub}_{each}" for sub in (0, 1) for each in range(PARTITIONS) if each % 3 == self.number]
        coming = (self._coming(tasks.pop(), now_ms),) if self.number == 2 and self.restoring else ()
        standbys = tuple(
            TaskComing(f"1_{each}", True, 40_000, 12 * each, 900.0, None, (StoreComing("revenue-per-minute", 1, 2),))
            for each in range(PARTITIONS)
            if (each + 1) % 3 == self.number
        )
        degraded = bool(coming)
        return WorkerSnapshot(
            application_id="shop",
            worker_id=f"worker-{self.number}",
            host="shop-0.internal",
            pid=4100 + self.number,
            version="0.1.0",
            at_ms=now_ms,
            state="REBALANCING" if degraded else "RUNNING",
            health="degraded" if degraded else self.said.status.name.lower(),
            ready=not degraded,
            reasons=("restoring task 1_11: 31,204 records to go",) if degraded else self.said.reasons,
            guarantee="exactly_once_v2",
            rate_in=4_210.0 + 90 * self.number,
            rate_out=5_020.0 + 90 * self.number,
            lag=1_200 + 340 * self.number,
            busy=0.42 + 0.1 * self.number,
            commit_ms=(8.4 + self.number, 31.0),
            visible_ms=(61.0, 140.0),
            open_transaction_ms=47.0 + 9 * self.number,
            totals={"rebalances": 4 - self.number, "commits": 90_312, "records_in": 81_223_120},
            tasks=tuple(self._task(task) for task in tasks),
            coming=(*coming, *standbys),
            nodes=self._nodes(),
            topics={
                "orders": TopicSeen(2_100.0, 0.0),
                "customers": TopicSeen(4.0, 0.0),
                "shop-revenue-per-minute-repartition": TopicSeen(2_070.0, 2_080.0),
                "enriched-orders": TopicSeen(0.0, 2_080.0),
                "revenue": TopicSeen(0.0, 850.0),
            },
            hot_keys=(
                HotKey("orders", "customer-7", 14_200, 0, 63_000),
                HotKey("orders", f"customer-{90 + self.number}", 5_100, 80, 63_000),
                HotKey("orders", "customer-1312", 1_020, 400, 63_000),
            ),
            rebalances=self._rebalances(now_ms),
            history=tuple(_history(now_ms, self.number)),
        )

    def _task(self, task: str) -> TaskSeen:
        partition = int(task.partition("_")[2])
        topics = ("orders", "customers") if task.startswith("0") else ("shop-revenue-per-minute-repartition",)
        inputs = tuple(PartitionSeen(topic, partition, 37 * partition, 0.0) for topic in topics)
        return TaskSeen(task, 0.125, 35.0 + partition, 3 if partition == 4 else 0, 0, inputs)

    def _coming(self, task: str, now_ms: int) -> TaskComing:
        done = min(68_796 + int((now_ms - self.began_ms) * 2), 99_000)
        left = 100_000 - done
        store = StoreComing("revenue-per-minute", done, left)
        return TaskComing(task, False, done, left, 2_000.0, left / 2_000, (store,))

    def _nodes(self) -> dict[str, NodeSeen]:
        parts = {"source": 0.06, "filter": 0.03, "join": 0.31, "aggregate": 0.08, "sink": 0.05, "key": 0.02}
        found = {}
        for name in self.topology.nodes:
            part = next((each for kind, each in parts.items() if kind in name.lower()), 0.0)
            found[name] = NodeSeen(part * (1 + self.number / 5), 2_050.0 if "JOIN" in name else None)
        return found

    def _rebalances(self, now_ms: int) -> tuple[RebalanceSeen, ...]:
        first = now_ms // 600_000 * 600_000 - 900_000
        all_ = [
            RebalanceSeen(first, 1, ("a",), (), 24, 24, 310.0),
            RebalanceSeen(first + 300_000, 2, ("b",), (), 8, 24, 140.0),
            RebalanceSeen(first + 320_000, 3, (), (), 4, 24, 35.0),
            RebalanceSeen(first + 700_000, 4, ("c",), (), 8, 24, 120.0),
        ]
        return tuple(all_[self.number :])


def _history(now_ms: int, number: int) -> Iterator[Moment]:
    for second in range(170):
        at_ms = now_ms // 1000 * 1000 - 1000 * (169 - second)
        wave = math.sin(at_ms / 9_000 + number)
        lag = 1_200 + 340 * number + int(600 * wave) + (4_000 - 100 * second if second < 40 else 0)
        yield Moment(at_ms, 4_200 + 700 * wave, 5_000 + 820 * wave, max(lag, 0), 8.0 + wave * 2 + (second % 7) / 3)


async def letters() -> list[TopicOfLetters]:
    async def one(number: int) -> Letter:
        return Letter(
            partition=TopicPartition("orders-dead-letters", number % 3),
            offset=1_200 + number,
            record=(b"customer-7", b'{"amount": -3.5, "currency": "<script>alert(1)</script>"}', 1_790_000_000_000, ()),
            exception="shop.orders.NegativeAmount",
            message="an order cannot be below nothing: -3.5",
            stacktrace='Traceback (most recent call last):\n  File "shop/orders.py", line 31, in check\n',
            source_topic="orders",
            source_partition=4,
            source_offset=881_220 + number,
            node="KSTREAM-FILTER-0000000002",
            application="shop",
        )

    return [TopicOfLetters("orders-dead-letters", 214, tuple([await one(number) for number in range(6)]))]


@contextmanager
def consoles(workers: Sequence[Worker]) -> Iterator[list[WebServer]]:
    """One for each worker, all of which know of each other."""
    servers: list[WebServer] = []
    with ExitStack() as stack:
        for worker in workers:

            def others(number: int = len(servers)) -> list[Address]:
                return [server.address for at, server in enumerate(servers) if at != number]

            console = Console(worker, others, letters)
            stack.callback(console.close)
            server = WebServer(worker, "0", token=worker.config.web_token, routes=[*console.routes(), *store_routes()])
            servers.append(stack.enter_context(server))
        yield servers


def store_routes() -> list[BaseRoute]:
    """As `StoreRoutes` answers: two pages of customers, each a row of 50."""
    kinds = [("customers", "timestamped_key_value"), ("revenue-per-minute", "timestamped_window")]

    def listed(request: Request) -> JSONResponse:
        return JSONResponse(
            {
                "stores": [
                    {"name": name, "kind": kind, "key": "str", "key_as": "text", "global": False, "partitions": 12}
                    for name, kind in kinds
                ]
            }
        )

    def rows(request: Request) -> JSONResponse:
        name, first = request.path_params["name"], int(request.query_params.get("cursor", 0))
        prefix = request.query_params.get("prefix", "")
        found = [_row(name, number) for number in range(60) if _row(name, number)["key"].startswith(prefix)]
        cursor = first + 50 if len(found) > first + 50 else None
        part = {"partition": 0, "worker": "worker-0", "stale": False, "lag": None}
        page = found[first : first + 50]
        return JSONResponse(
            {"store": name, "rows": page, "cursor": None if cursor is None else str(cursor), "parts": [part]}
        )

    def key(request: Request) -> JSONResponse:
        name, wanted = request.path_params["name"], request.path_params["key"]
        for number in range(60):
            if (row := _row(name, number))["key"] == wanted:
                return JSONResponse({"store": name, **row, "partition": 3, "worker": "worker-1", "stale": False})
        return JSONResponse({"error": "key_not_found", "message": f"store {name} has no {wanted!r}"}, 404)

    return [
        Route("/stores", listed),
        Route("/stores/{name}/keys/{key:path}", key),
        Route("/stores/{name}", rows),
    ]


def _row(store: str, number: int) -> dict[str, Any]:
    time_ms = 1_790_000_000_000 + 60_000 * number
    row: dict[str, Any] = {"key": f"customer-{number}", "value": {"name": "Ann", "city": "Graz"}, "timestamp": time_ms}
    if store == "customers":
        return row
    return {**row, "value": 17 * number, "window": {"start": time_ms, "end": time_ms + 60_000}}


STUCK = Health(HealthStatus.STUCK, True, ("stuck partition: topic orders, partition 3, offset 4711 does not move",))
