"""A point in the topology under construction, and the steps that lead on from one."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from streamlib.errors import TopologyError
from streamlib.policies import PolicyOption
from streamlib.serdes import Serde
from streamlib.topology.builder import TopologyBuilder
from streamlib.topology.nodes import Partitioner, ProcessorNode, RepartitionTopic, SinkNode, SourceNode
from streamlib.topology.operators import DropNullKeys, Operator

REPARTITION_SUFFIX = "-repartition"


Called: TypeAlias = tuple[str | None, PolicyOption | None]
"""A node's name, if the user gave one, and its policy at errors, if it has one of its own."""


class Point(msgspec.Struct, frozen=True):
    """A node whose records something can be attached to.

    Attributes:
        builder: where the topology grows.
        node: the node's name.
        key: how keys are written, should they have to be.
        value: how values are.
        sources: the topics it all comes from; those of two points that are joined have to be co-partitioned.
        rekeyed: whether the key may have changed since the last topic, so that a stateful step needs another one.
    """

    builder: TopologyBuilder
    node: str
    key: Serde[Any]
    value: Serde[Any]
    sources: frozenset[str]
    rekeyed: bool = False

    def then(
        self, name: str, operator: Operator, *stores: str, on_error: PolicyOption | None = None, **changes: Any
    ) -> Point:
        """Attach a processor; `on_error` is what it does with records that fail, `changes` what is different after
        it."""
        node = ProcessorNode(name=name, operator=operator, parents=(self.node,), stores=stores, on_error=on_error)
        self.builder.add(node)
        return msgspec.structs.replace(self, node=name, **changes)


class RepartitionOptions(msgspec.Struct, frozen=True):
    """How to go through an internal topic: its name without the suffix, and what the user said about it.

    `shareable`: with optimization, steps after the same node may go through one topic.
    """

    name: str
    partitions: int | None = None
    partitioner: Partitioner | None = None
    shareable: bool = True


def repartitioned(point: Point, options: RepartitionOptions) -> Point:
    """Lead a point through an internal topic. Uses three numbers up, named or not (`createRepartitionedSource`)."""
    builder = point.builder
    shared = builder.shared_repartition(point.node) if options.shareable else None
    if shared is not None and (shared.key, shared.value) == (point.key, point.value):
        return through_the_same_topic(_behind(point, shared.name, *shared.topics))
    sink, drop, source = (builder.name(prefix) for prefix in ("KSTREAM-SINK-", "KSTREAM-FILTER-", "KSTREAM-SOURCE-"))
    topic = options.name if options.name.endswith(REPARTITION_SUFFIX) else options.name + REPARTITION_SUFFIX
    if not _generated(options.name):
        sink, drop, source = f"{topic}-sink", f"{topic}-filter", f"{topic}-source"
    builder.add_repartition_topic(RepartitionTopic(name=topic, partitions=options.partitions))
    builder.add(ProcessorNode(name=drop, operator=DropNullKeys(), parents=(point.node,)))
    builder.add(
        SinkNode(
            name=sink,
            topic=topic,
            key=point.key,
            value=point.value,
            parents=(drop,),
            partitioner=options.partitioner,
        )
    )
    builder.add(SourceNode(name=source, topics=(topic,), key=point.key, value=point.value))
    if options.shareable:
        builder.share_repartition(point.node, source)
    return _behind(point, source, topic)


def _behind(point: Point, source: str, topic: str) -> Point:
    return msgspec.structs.replace(point, node=source, sources=frozenset({topic}), rekeyed=False)


def through_the_same_topic(point: Point, numbers: int = 3) -> Point:
    """A point behind a topic there is already. Uses up the numbers that another topic would have."""
    for _ in range(numbers):
        point.builder.name("")
    return point


def check_same_builder(one: Point, other: Point, operator: str) -> None:
    """What is put together has to grow in the same topology.

    Raises:
        TopologyError: it does not.
    """
    if one.builder is not other.builder:
        raise TopologyError(f"{operator} of {one.node} and {other.node}: they come from two StreamsBuilders; use one")


def _generated(name: str) -> bool:
    """Whether a name was counted up rather than given: `KSTREAM.*-[0-9]{10}`."""
    return name.startswith("KSTREAM") and len(name) > 11 and name[-11] == "-" and name[-10:].isdigit()
