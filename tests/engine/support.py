"""Hand-made topologies and batches for tests of the engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from streamlib.engine.plan import Plan, make_plan
from streamlib.engine.task import Task
from streamlib.records import Headers, OutRecord, TaskId, TopicPartition
from streamlib.serdes import serde_for
from streamlib.state.backend import Backend
from streamlib.state.memory import InMemoryBackend
from streamlib.topology.nodes import Node, ProcessorNode, RepartitionTopic, SinkNode, SourceNode, StoreSpec
from streamlib.topology.operators import Operator
from streamlib.topology.topology import Topology

TEXT = serde_for(str)
LONG = serde_for(int)
INPUT = TopicPartition("in", 0)
OUTPUT = TopicPartition("out", 0)


class Fetched(NamedTuple):
    """A record as a fetcher would give it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Batch(NamedTuple):
    """A batch as a fetcher would give it."""

    partition: TopicPartition
    next_offset: int
    content: Sequence[Fetched]

    @property
    def size_bytes(self) -> int:
        return 10 * len(self.content) + 1

    def records(self) -> Iterable[Fetched]:
        return self.content


class Clock:
    """Stands where it is put."""

    def __init__(self) -> None:
        self.now_ms = 0

    def __call__(self) -> int:
        return self.now_ms


def batch(partition: TopicPartition, start: int, *records: tuple[str | None, str | None, int]) -> Batch:
    """A batch of consecutive text records (key, value, timestamp) from `start` on."""
    fetched = [
        Fetched(start + n, timestamp, _bytes(key), _bytes(value)) for n, (key, value, timestamp) in enumerate(records)
    ]
    return Batch(partition, start + len(fetched), fetched)


def markers(partition: TopicPartition, next_offset: int) -> Batch:
    """A batch of nothing but control records."""
    return Batch(partition, next_offset, ())


def build(
    nodes: Iterable[Node],
    stores: Iterable[StoreSpec] = (),
    repartition: Iterable[RepartitionTopic] = (),
    copartitioned: Iterable[Iterable[str]] = (),
) -> Topology:
    """A topology of these parts."""
    return Topology(
        nodes=tuple(nodes),
        stores=tuple(stores),
        repartition_topics=tuple(repartition),
        copartition_groups=tuple(frozenset(group) for group in copartitioned),
    )


def source(name: str = "source", *topics: str, **options: Any) -> Node:
    return SourceNode(name=name, topics=topics or ("in",), key=TEXT, value=TEXT, **options)


def processor(name: str, operator: Operator, parent: str = "source", *stores: str) -> Node:
    return ProcessorNode(name=name, operator=operator, parents=(parent,), stores=stores)


def sink(parent: str, topic: Any = "out", name: str = "sink", **options: Any) -> Node:
    return SinkNode(name=name, topic=topic, parents=(parent,), **{"key": TEXT, "value": TEXT, **options})


def timestamped(name: str, value: Any = LONG, **options: Any) -> StoreSpec:
    return StoreSpec(name=name, kind="timestamped_key_value", key=TEXT, value=value, **options)


def plan_of(topology: Topology, **counts: int) -> Plan:
    return make_plan(topology, "app", {"in": 1, "out": 1, "rows": 1, **counts})


def task_of(topology: Topology, backend: Backend | None = None, *, start: bool = True, **options: Any) -> Task:
    """Task 0_0 on topics of one partition, started at offset 0."""
    backend = InMemoryBackend() if backend is None else backend
    task = Task(plan_of(topology), TaskId(0, 0), backend, **{"now_ms": Clock(), "max_task_idle_ms": -1, **options})
    if start:
        task.start({}, dict.fromkeys(task.inputs, 0))
    return task


def outputs(task: Task, partition: TopicPartition = OUTPUT) -> list[OutRecord]:
    """What the task has written to a partition since the last time."""
    return task.take_outputs().get(partition, [])


def pairs(task: Task) -> list[tuple[bytes | None, bytes | None]]:
    """Keys and values of the output."""
    return [(key, value) for key, value, _, _ in outputs(task)]


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()
