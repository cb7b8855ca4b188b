"""What the test driver does, an application on a real broker does: the same cases, record by record.

After each record the application is given time until it has committed everything, internal topics included; then what
it wrote is compared. Twice on the way it is stopped and started again: once with its stores, once without, so that all
of its state has to come out of the changelogs.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from streamlib import KafkaStreams, Record, StreamsBuilder, StreamsConfig, Topology
from streamlib.engine.plan import make_plan
from streamlib.kafka.connection import Connection
from streamlib.records import TopicPartition
from streamlib.testing.plugin import KafkaTarget
from streamlib.topology.nodes import Node, SinkNode, SourceNode
from tests.conformance.conftest import KEPT
from tests.conformance.test_conformance import encoded, output_serde, ported, row, serde

PATIENCE_S = 60
NEED_THE_DRIVER = {
    "dynamic_topic",  # topics that a function names
    "raw_topology_extractors",
    "stream_of_pattern",
    "hand_made_join",  # names of topics in the output
    "raw_topology",
    "record_metadata",
    "store_ranges",  # processors that count in memory
    "store_session",
    "hopping_emit_on_close_short_retention",  # differs on purpose
}
STATEFUL = (
    "aggregate_to_null",
    "cogroup_session",
    "foreign_key_left",
    "global_left",
    "hopping_emit_on_close",
    "session_merge_order",
    "sliding_count",
    "stream_join_left",
    "stream_join_outer",
    "stream_table_grace",
    "suppress_time_limit",
    "suppress_tumbling",
    "table_group_by_count",
    "table_join_outer",
    "tumbling_grace",
    "versioned_table_group_by",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = STATEFUL if not metafunc.config.getoption("all_on_a_broker") else tuple(filter(can_run, every_name()))
    metafunc.parametrize("name", names)


def every_name() -> list[str]:
    return sorted(path.stem for path in KEPT.glob("*.json"))


def can_run(name: str) -> bool:
    """Not those that move a clock, fail, or need other topics than those by name."""
    recorded = json.loads((KEPT / f"{name}.json").read_text())
    steps = recorded["cases"][0]["steps"]
    return not recorded["config"] and name not in NEED_THE_DRIVER and all("in" in s and "error" not in s for s in steps)


async def test_an_application_emits_what_kafka_streams_emitted(
    name: str, kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path
) -> None:
    recorded = json.loads((KEPT / f"{name}.json").read_text())
    case = recorded["cases"][0]
    async with opened(recorded, kafka_broker, unique_name("conformance"), tmp_path) as replay:
        third = len(case["steps"]) // 3
        await replay.run(case["steps"][:third])
        await replay.run(case["steps"][third : 2 * third])  # with the stores as they were
        shutil.rmtree(tmp_path / "state")
        await replay.run(case["steps"][2 * third :])  # with nothing but the changelogs


@asynccontextmanager
async def opened(recorded: dict[str, Any], kafka: KafkaTarget, name: str, folder: Path) -> AsyncIterator[Replay]:
    config = StreamsConfig(
        application_id=name,
        bootstrap_servers=kafka.bootstrap_servers,
        processing_guarantee="exactly_once_v2",
        state_dir=str(folder / "state"),
        commit_interval_ms=20,
        fetch_max_wait_ms=50,
    )
    connection = await Connection.open(config)
    replay = Replay(recorded, config, connection)
    try:
        await replay.create_topics()
        yield replay
    finally:
        await replay.close()
        await connection.close()


class Replay:
    """One case on an application of its own."""

    def __init__(self, recorded: dict[str, Any], config: StreamsConfig, connection: Connection) -> None:
        self._config = config
        self._connection = connection
        self._prefix = f"{config.application_id}."
        builder = StreamsBuilder()
        ported(recorded["topology"])(builder)
        self._topology = renamed(builder.build(), self._prefix)
        self._inputs = {t: (serde(of["key"]), serde(of["value"])) for t, of in recorded["inputs"].items()}
        self._outputs = {t: (output_serde(of), serde(of["value"])) for t, of in recorded["outputs"].items()}
        topics = {f"{self._prefix}{topic}" for topic in (*self._inputs, *self._outputs)}
        self._plan = make_plan(self._topology, config.application_id, dict.fromkeys(topics, 1))
        self._producer = connection.producer(None)
        self._reader = connection.fetcher()
        self._positions = {self._partition(topic): 0 for topic in self._outputs}

    async def create_topics(self) -> None:
        for topic in {*self._inputs, *self._outputs}:
            # The records are of 1970.
            await self._connection.admin().create_topic(f"{self._prefix}{topic}", 1, {"retention.ms": "-1"})
        await self._producer.init()
        self._reader.add(self._positions)

    async def close(self) -> None:
        await self._producer.close()

    async def run(self, steps: Iterable[dict[str, Any]]) -> None:
        """One life of the application."""
        async with KafkaStreams(self._topology, self._config) as app:
            await app.wait_running()
            for step in steps:
                with anyio.fail_after(PATIENCE_S):
                    await self._produce(*step["in"])
                    await self._until_all_is_committed()
                    assert await self._emitted() == self._expected(step), step

    async def _produce(self, topic: str, key: Any, value: Any, timestamp: int, headers: Any = ()) -> None:
        key_serde, value_serde = self._inputs[topic]
        raw_headers = tuple((name, None if text is None else text.encode()) for name, text in headers)
        record = (encoded(key, key_serde), encoded(value, value_serde), timestamp, raw_headers)
        self._producer.send(self._partition(topic), [record])
        await self._producer.flush()

    async def _until_all_is_committed(self) -> None:
        """Of what a commit writes to an internal topic, the end is known at the latest when its offsets are."""
        inputs = [partition for task in self._plan.tasks for partition in self._plan.inputs(task)]
        while True:
            committed = await self._connection.group().fetch_offsets(inputs)
            ends = await self._connection.admin().list_offsets(inputs, "latest")
            if all(end == (committed[p].offset if p in committed else 0) for p, end in ends.items()):
                return
            await anyio.sleep(0.01)

    async def _emitted(self) -> dict[str, list[Any]]:
        """What is new in the output topics."""
        ends = await self._stable_ends()
        found: dict[str, list[Any]] = {topic: [] for topic in self._outputs}
        while any(self._positions[partition] < end for partition, end in ends.items()):
            await self._reader.wait()
            for batch in self._reader.take(1 << 20):
                self._positions[batch.partition] = batch.next_offset
                topic = batch.partition.topic.removeprefix(self._prefix)
                found[topic].extend(self._row(topic, record) for record in batch.records())
        return found

    async def _stable_ends(self) -> dict[TopicPartition, int]:
        """Where the output topics end, once every transaction's marker is there: those of the offsets may be first."""
        admin = self._connection.admin()
        while True:
            ends = await admin.list_offsets(self._positions, "latest")
            if await admin.list_offsets(self._positions, "latest_stable") == ends:
                return ends
            await anyio.sleep(0.01)

    def _row(self, topic: str, record: Any) -> list[Any]:
        key, value = (
            None if raw is None else kind.decode(raw)
            for raw, kind in zip((record.key, record.value), self._outputs[topic], strict=True)
        )
        return row(Record(key, value, record.timestamp, record.headers))

    def _expected(self, step: dict[str, Any]) -> dict[str, list[Any]]:
        by_topic: dict[str, list[Any]] = defaultdict(list)
        for topic, *record in step["out"]:
            by_topic[topic].append(record)
        return {topic: by_topic[topic] for topic in self._outputs}

    def _partition(self, topic: str) -> TopicPartition:
        return TopicPartition(f"{self._prefix}{topic}", 0)


def renamed(topology: Topology, prefix: str) -> Topology:
    """The topology with other topics, so that it can share a broker with others."""

    def topic(name: str) -> str:
        return name if name in topology.repartition_topics else f"{prefix}{name}"

    def node(old: Node) -> Node:
        match old:
            case SourceNode():
                return msgspec.structs.replace(old, topics=tuple(map(topic, old.topics)))
            case SinkNode(topic=str(name)):
                return msgspec.structs.replace(old, topic=topic(name))
            case _:
                return old

    return Topology(
        [node(each) for each in topology.nodes.values()],
        topology.stores.values(),
        topology.repartition_topics.values(),
        [map(topic, group) for group in topology.copartition_groups],
    )
