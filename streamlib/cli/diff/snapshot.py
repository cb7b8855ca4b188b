"""A topology as JSON: everything under which something is kept, and what it looks like.

The format has a number and only grows: a reader skips fields that it does not know, and gives those that are missing
their defaults. The number goes up when that is not enough.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from streamlib.cli.errors import UsageError
from streamlib.engine.plan import sink_topics, source_topics
from streamlib.serdes import Serde
from streamlib.state.shapes import StoreShape
from streamlib.topology.nodes import (
    Node,
    ProcessorNode,
    RetainedStoreSpec,
    SinkNode,
    SourceNode,
    StoreSpec,
    WindowStoreSpec,
)
from streamlib.topology.topology import Topology

FORMAT = 1

NodeKind: TypeAlias = Literal["source", "processor", "sink"]


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """What keys and values look like: the names of their serdes and, where it is known, their shapes."""

    key: str
    value: str
    shape: StoreShape = StoreShape()

    @staticmethod
    def of(spec: Any) -> Rows:
        """Those that a store or a node has serdes for."""
        return Rows(key=spec.key.name, value=spec.value.name, shape=StoreShape.of(spec))


class NodeSnapshot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step. `operator`: what a processor does; `topics`: what a source reads, or a sink writes, but for patterns."""

    name: str
    kind: NodeKind
    subtopology: int
    operator: str | None = None
    topics: tuple[str, ...] = ()
    pattern: str | None = None
    stores: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()


class StoreSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A store. `changelog`: the full name of its topic, None if it has none; `subtopology`: None if nobody uses it."""

    name: str
    kind: str
    subtopology: int | None
    is_global: bool
    changelog: str | None
    changelog_config: dict[str, str]
    persistent: bool
    rows: Rows
    window_size_ms: int | None = None
    retention_ms: int | None = None


class InternalTopic(msgspec.Struct, frozen=True, kw_only=True):
    """A repartition or retry topic. `partitions`: None if they follow from the topics that feed it."""

    name: str
    partitions: int | None
    read_by: int
    written_by: tuple[int, ...]
    rows: Rows


class OtherTopic(msgspec.Struct, frozen=True, kw_only=True):
    """A topic of others, that is read or written."""

    name: str
    rows: Rows


class SubtopologySnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes that run together: its tasks are `<id>_<partition>`. None of one that fills global stores."""

    id: int
    is_global: bool
    sources: tuple[str, ...]
    stores: tuple[str, ...]


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """See the module. `application_id` is the group, too, and what names of transactions begin with."""

    format: int = FORMAT
    application_id: str
    subtopologies: tuple[SubtopologySnapshot, ...]
    nodes: tuple[NodeSnapshot, ...]
    stores: tuple[StoreSnapshot, ...]
    internal_topics: tuple[InternalTopic, ...]
    inputs: tuple[OtherTopic, ...]
    outputs: tuple[OtherTopic, ...]

    def encoded(self) -> str:
        """JSON for people and version control: indented, always in the same order."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode()


def take_snapshot(topology: Topology, application_id: str) -> Snapshot:
    """A topology as an application of this name runs it."""
    parts = topology.subtopologies()
    number_of = {name: part.id for part in parts for name in part.nodes}
    nodes = topology.nodes.values()
    return Snapshot(
        application_id=application_id,
        subtopologies=tuple(
            SubtopologySnapshot(id=part.id, is_global=part.is_global, sources=part.sources, stores=part.stores)
            for part in parts
        ),
        nodes=tuple(_node(node, number_of[node.name]) for node in nodes),
        stores=tuple(_store(spec, topology, application_id) for spec in topology.stores.values()),
        internal_topics=tuple(
            _internal_topic(name, topology, application_id, number_of) for name in topology.repartition_topics
        ),
        inputs=tuple(
            OtherTopic(name=topic, rows=_rows(topology, topic, SourceNode)) for topic in source_topics(topology)
        ),
        outputs=tuple(OtherTopic(name=topic, rows=_rows(topology, topic, SinkNode)) for topic in sink_topics(topology)),
    )


def read_snapshot(data: bytes, where: str) -> Snapshot:
    """What `Snapshot.encoded` made.

    Raises:
        UsageError: it is something else, or a newer format.
    """
    advice = "write it with 'streamlib topology --json'"
    try:
        head = msgspec.json.decode(data, type=_Head)
        if head.format > FORMAT:
            raise UsageError(
                f"{where} has format {head.format}, and this streamlib reads up to {FORMAT}: use the newer one"
            )
        return msgspec.json.decode(data, type=Snapshot)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError(f"{where} is no topology: {error}; {advice}") from None


class _Head(msgspec.Struct):
    format: int


def _node(node: Node, subtopology: int) -> NodeSnapshot:
    match node:
        case SourceNode():
            return NodeSnapshot(
                name=node.name, kind="source", subtopology=subtopology, topics=node.topics, pattern=node.pattern
            )
        case ProcessorNode():
            return NodeSnapshot(
                name=node.name,
                kind="processor",
                subtopology=subtopology,
                operator=type(node.operator).__name__,
                stores=node.stores,
                parents=node.parents,
            )
        case SinkNode():
            topics = (node.topic,) if isinstance(node.topic, str) else ()
            return NodeSnapshot(
                name=node.name, kind="sink", subtopology=subtopology, topics=topics, parents=node.parents
            )


def _store(spec: StoreSpec, topology: Topology, application_id: str) -> StoreSnapshot:
    users = [part for part in topology.subtopologies() if spec.name in part.stores]
    return StoreSnapshot(
        name=spec.name,
        kind=spec.kind,
        subtopology=users[0].id if users else None,
        is_global=any(part.is_global for part in users),
        changelog=f"{application_id}-{spec.changelog_topic}" if spec.changelog else None,
        changelog_config=spec.topic_config if spec.changelog else {},
        persistent=spec.persistent,
        rows=Rows.of(spec),
        window_size_ms=spec.window_size_ms if isinstance(spec, WindowStoreSpec) else None,
        retention_ms=spec.retention_ms if isinstance(spec, RetainedStoreSpec) else None,
    )


def _internal_topic(name: str, topology: Topology, application_id: str, number_of: dict[str, int]) -> InternalTopic:
    readers = [n for n in topology.nodes.values() if isinstance(n, SourceNode) and name in n.topics]
    writers = [n for n in topology.nodes.values() if isinstance(n, SinkNode) and n.topic == name]
    assert readers, f"nobody reads {name}"
    return InternalTopic(
        name=f"{application_id}-{name}",
        partitions=topology.repartition_topics[name].partitions,
        read_by=number_of[readers[0].name],
        written_by=tuple(sorted({number_of[writer.name] for writer in writers})),
        rows=Rows.of(readers[0]),
    )


def _rows(topology: Topology, topic: str, kind: type[SourceNode] | type[SinkNode]) -> Rows:
    for node in topology.nodes.values():
        if isinstance(node, kind):
            named = node.topics if isinstance(node, SourceNode) else (node.topic,)
            if topic in named:
                return Rows.of(node)
    raise AssertionError(f"no node has {topic}")


def stored_as(name: str, key: Serde[Any], value: Serde[Any]) -> StoreSpec:
    """A topic's rows as if a store kept them: compared in the same way."""
    return StoreSpec(name=name, kind="key_value", key=key, value=value)
