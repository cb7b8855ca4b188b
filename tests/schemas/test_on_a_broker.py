"""Avro in, totals in a store, JSON Schema and Protobuf out, exactly once, with a registry that comes and goes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from streamlib import KafkaStreams, StreamsBuilder, StreamsConfig, Topology
from streamlib.errors import SchemaRegistryUnavailableError
from streamlib.schemas import SchemaRegistry
from streamlib.schemas.framing import header
from streamlib.testing.plugin import KafkaTarget
from tests.schemas.stub import Stub

pytestmark = [pytest.mark.broker, pytest.mark.slow]

PATIENCE_S = 60
V1 = '{"type":"record","name":"Order","fields":[{"name":"user","type":"string"},{"name":"cents","type":"long"}]}'
V2 = V1.replace("]}", ',{"name":"note","type":"string","default":""}]}')


class Order(msgspec.Struct):
    user: str
    cents: int


class Total(msgspec.Struct):
    cents: int = 0
    orders: int = 0


def totals(registry: SchemaRegistry, name: str, message: Any = None) -> Topology:
    """Out goes every total, and each order as it was read if there is a message type for it."""
    builder = StreamsBuilder()
    orders = builder.stream(f"{name}-in", key=None, value=registry.avro(Order))
    by_user = orders.group_by(lambda _, order: order.user, key=str, name="by-user")
    table = by_user.aggregate(
        Total,
        lambda _, order, total: Total(total.cents + order.cents, total.orders + 1),
        value=registry.avro(Total),
        store="totals",
    )
    table.to_stream().to(f"{name}-out", value=registry.json_schema(Total))
    if message is not None:
        converted = orders.map_values(
            lambda order: message(user=order.user, cents=order.cents), value=registry.protobuf(message)
        )
        converted.to(f"{name}-copies", key=None)
    return builder.build()


class Cluster:
    """Topics of one test: written by Confluent's client and read with its `read_committed`."""

    def __init__(self, kafka: KafkaTarget, name: str, folder: Path) -> None:
        self.name = name
        self._servers = kafka.bootstrap_servers
        self._folder = folder
        self._producer = Producer({"bootstrap.servers": self._servers})
        topics = [NewTopic(f"{name}-{each}", 2, 1) for each in ("in", "out", "copies")]
        admin = AdminClient({"bootstrap.servers": self._servers})
        for created in admin.create_topics(topics).values():
            created.result(30)

    def config(self) -> StreamsConfig:
        return StreamsConfig(
            application_id=self.name,
            bootstrap_servers=self._servers,
            processing_guarantee="exactly_once_v2",
            state_dir=str(self._folder),
            commit_interval_ms=50,
        )

    def move(self, folder: Path) -> None:
        """From here on the application has its state there."""
        self._folder = folder

    def write(self, values: list[bytes]) -> None:
        for value in values:
            self._producer.produce(f"{self.name}-in", value)
        assert self._producer.flush(30) == 0

    async def read(self, topic: str, count: int) -> list[tuple[bytes | None, bytes]]:
        """`count` committed records, and those that come within a second after them."""
        return await anyio.to_thread.run_sync(self._read, f"{self.name}-{topic}", count)

    def _read(self, topic: str, count: int) -> list[tuple[bytes | None, bytes]]:
        options = {"group.id": f"{topic}-reader", "auto.offset.reset": "earliest", "enable.auto.commit": False}
        consumer = Consumer({"bootstrap.servers": self._servers, "isolation.level": "read_committed", **options})
        consumer.subscribe([topic])
        try:
            found: list[tuple[bytes | None, bytes]] = []
            looks = PATIENCE_S
            while looks > 0:
                message = consumer.poll(1.0)
                looks -= message is None
                if message is not None:
                    assert message.error() is None
                    found.append((message.key(), message.value() or b""))
                elif len(found) >= count:
                    return found
            raise AssertionError(f"{len(found)} of {count} records in {topic}")
        finally:
            consumer.close()


@asynccontextmanager
async def running(topology: Topology, cluster: Cluster) -> AsyncIterator[KafkaStreams]:
    async with KafkaStreams(topology, cluster.config()) as app:
        with anyio.fail_after(PATIENCE_S):
            await app.wait_running()
        yield app


def check_totals(orders: list[tuple[str, int]], seen: dict[str, list[Total]]) -> None:
    """Each total of each user once, in order."""
    wanted: dict[str, list[Total]] = defaultdict(list)
    for user, cents in orders:
        last = wanted[user][-1] if wanted[user] else Total()
        wanted[user].append(Total(last.cents + cents, last.orders + 1))
    assert {user: [total.orders for total in found] for user, found in seen.items()} == {
        user: [total.orders for total in found] for user, found in wanted.items()
    }
    assert {user: found[-1] for user, found in seen.items()} == {user: found[-1] for user, found in wanted.items()}


async def seen_totals(cluster: Cluster, registry: SchemaRegistry, count: int) -> dict[str, list[Total]]:
    serde, seen = registry.json_schema(Total), defaultdict(list)
    for key, value in await cluster.read("out", count):
        seen[(key or b"").decode()].append(serde.decode(value))
    return seen


async def test_avro_in_json_and_protobuf_out_exactly_once(
    kafka: KafkaTarget, registry_url: str, unique_name: Callable[[str], str], tmp_path: Path, shop_pb2: Any
) -> None:
    cluster = Cluster(kafka, unique_name("schemas"), tmp_path)
    registry = SchemaRegistry(registry_url)
    topology = totals(registry, cluster.name, shop_pb2.Order)
    with SchemaRegistryClient({"url": registry_url}) as client:
        context = SerializationContext(f"{cluster.name}-in", MessageField.VALUE)
        orders = [("abc"[n % 3], n) for n in range(90)]

        def write(part: list[tuple[str, int]], schema: str) -> None:
            serializer = AvroSerializer(client, schema)
            cluster.write([serializer({"user": user, "cents": cents, "note": "x"}, context) for user, cents in part])

        write(orders[:30], V1)
        async with running(topology, cluster):
            assert len(await cluster.read("out", 30)) == 30
            await anyio.to_thread.run_sync(write, orders[30:60], V2)  # an id that nobody has heard of
            assert len(await cluster.read("out", 60)) == 60
        write(orders[60:], V1)
        async with running(topology, cluster):  # with the state of the first
            seen = await seen_totals(cluster, registry, 90)
        check_totals(orders, seen)
        copies = [registry.protobuf(shop_pb2.Order).decode(value) for _, value in await cluster.read("copies", 90)]
        assert sorted((copy.user, copy.cents) for copy in copies) == sorted(orders)


async def test_an_application_does_not_start_without_its_registry(
    kafka: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path, stub: Stub
) -> None:
    cluster = Cluster(kafka, unique_name("start"), tmp_path)
    stub.on["GET"] = stub.on["POST"] = (503, "down")
    topology = totals(SchemaRegistry(stub.url, timeout=timedelta(seconds=0.2)), cluster.name)
    with anyio.fail_after(PATIENCE_S), pytest.raises(SchemaRegistryUnavailableError, match=f"{cluster.name}-in-value"):
        await KafkaStreams(topology, cluster.config()).run()


async def test_while_the_registry_is_down_nothing_is_lost_and_nothing_twice(
    kafka: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path, stub: Stub, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Cluster(kafka, unique_name("down"), tmp_path)
    schemas = {7: V1}
    stub.on["GET"] = (404, {"error_code": 40401, "message": "Subject not found"})
    stub.on["POST"] = lambda asked: (200, {"id": _id_of(asked.body["schema"], schemas)})
    registry = SchemaRegistry(stub.url, timeout=timedelta(seconds=0.2))
    async with running(totals(registry, cluster.name), cluster):
        stub.on["GET"] = (503, "down")
        orders = [("abc"[n % 3], n) for n in range(30)]
        await anyio.to_thread.run_sync(cluster.write, [header(7) + _avro(*order) for order in orders])
        with anyio.fail_after(PATIENCE_S):
            while "schema id 7" not in caplog.text:
                await anyio.sleep(0.05)
        stub.on["GET"] = lambda asked: (200, {"schema": schemas[int(asked.path.rpartition("/")[2])]})
        rows = await cluster.read("out", 30)
    assert "work since the last commit is redone" in caplog.text
    seen: dict[str, list[Total]] = defaultdict(list)
    for key, value in rows:
        seen[(key or b"").decode()].append(msgspec.json.decode(value[5:], type=Total))
    check_totals(orders, seen)


def _id_of(schema: str, schemas: dict[int, str]) -> int:
    schemas[next((number for number, known in schemas.items() if known == schema), len(schemas) + 10)] = schema
    return next(number for number, known in schemas.items() if known == schema)


def _avro(user: str, cents: int) -> bytes:
    return bytes((2 * len(user),)) + user.encode() + bytes((2 * cents,))
