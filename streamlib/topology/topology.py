"""The whole: nodes, stores, internal topics, and the subtopologies they fall into.

Nodes that are connected, or share a store, make a subtopology: the unit that is copied for each partition.
Subtopologies are numbered as Kafka Streams numbers them, by the sorted names of their sources
(`InternalTopologyBuilder.makeNodeGroups`), so a task `1_3` here and there is the same one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Protocol, TypeVar

import msgspec

from streamlib.errors import TopologyError
from streamlib.topology.describe import describe
from streamlib.topology.nodes import Node, ProcessorNode, RepartitionTopic, SinkNode, SourceNode, StoreSpec


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_T = TypeVar("_T", bound=_Named)


class Subtopology(msgspec.Struct, frozen=True):
    """Nodes that have to run together, by name in the order they were added, and which of them read and write."""

    id: int
    nodes: tuple[str, ...]
    sources: tuple[str, ...]
    sinks: tuple[str, ...]
    stores: tuple[str, ...]


class Topology:
    """What is read, done and written, as a value: it is not changed after it is built.

    Args:
        nodes: in the order they were added; children are visited in this order.
        stores: the state stores that nodes use.
        repartition_topics: internal topics, by the names that sources and sinks use.
        copartition_groups: topics that have to have the same number of partitions.

    Raises:
        TopologyError: a name is used twice or not known, a topic is read twice, or nothing is read.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        stores: Iterable[StoreSpec] = (),
        repartition_topics: Iterable[RepartitionTopic] = (),
        copartition_groups: Iterable[Iterable[str]] = (),
    ) -> None:
        self.nodes: Mapping[str, Node] = _by_name(nodes, "node")
        self.stores: Mapping[str, StoreSpec] = _by_name(tuple(stores), "store")
        self.repartition_topics: Mapping[str, RepartitionTopic] = _by_name(tuple(repartition_topics), "topic")
        self.copartition_groups: tuple[frozenset[str], ...] = tuple(map(frozenset, copartition_groups))
        _check(self)

    def subtopologies(self) -> tuple[Subtopology, ...]:
        """In the order of their ids."""
        return self._subtopologies

    def describe(self) -> str:
        """The description that Kafka Streams' `Topology.describe` prints."""
        groups = [[self.nodes[name] for name in each.nodes] for each in self._subtopologies]
        return describe(groups)

    @cached_property
    def _subtopologies(self) -> tuple[Subtopology, ...]:
        root = _connected(self.nodes)
        order: dict[str, int] = {}
        sources = sorted(name for name, node in self.nodes.items() if isinstance(node, SourceNode))
        for name in (*sources, *sorted(self.nodes)):
            order.setdefault(root[name], len(order))
        return tuple(
            _subtopology(number, [node for name, node in self.nodes.items() if root[name] == group])
            for group, number in order.items()
        )


def _subtopology(number: int, nodes: Sequence[Node]) -> Subtopology:
    return Subtopology(
        number,
        tuple(node.name for node in nodes),
        tuple(node.name for node in nodes if isinstance(node, SourceNode)),
        tuple(node.name for node in nodes if isinstance(node, SinkNode)),
        tuple(dict.fromkeys(store for node in nodes for store in stores_of(node))),
    )


def parents_of(node: Node) -> tuple[str, ...]:
    """The nodes that a node gets its records from."""
    return () if isinstance(node, SourceNode) else node.parents


def stores_of(node: Node) -> tuple[str, ...]:
    """The stores that a node may use."""
    return node.stores if isinstance(node, ProcessorNode) else ()


def _by_name(items: Iterable[_T], kind: str) -> dict[str, _T]:
    found: dict[str, _T] = {}
    for item in items:
        if item.name in found:
            raise TopologyError(f"two {kind}s are called {item.name!r}: give one of them another name")
        found[item.name] = item
    return found


def _check(topology: Topology) -> None:
    added: set[str] = set()
    read: dict[str, str] = {}
    for name, node in topology.nodes.items():
        _check_parents(topology, node, added)
        added.add(name)
        for store in stores_of(node):
            if store not in topology.stores:
                raise TopologyError(f"node {name} uses store {store!r}, which does not exist: add it to the builder")
        for topic in node.topics if isinstance(node, SourceNode) else ():
            if topic in read:
                raise TopologyError(
                    f"topic {topic!r} is read by {read[topic]} and by {name}: read it once and use the stream twice"
                )
            read[topic] = name
    if not read:
        raise TopologyError("the topology reads no topic: begin with builder.stream(...) or builder.table(...)")


def _check_parents(topology: Topology, node: Node, added: set[str]) -> None:
    if not isinstance(node, SourceNode) and not node.parents:
        raise TopologyError(f"node {node.name} has no parent to get records from")
    for parent in parents_of(node):
        if parent not in topology.nodes:
            raise TopologyError(f"node {node.name} has a parent {parent!r} that does not exist")
        if parent not in added:
            raise TopologyError(f"node {node.name} was added before its parent {parent}: add the parent first")
        if isinstance(topology.nodes[parent], SinkNode):
            raise TopologyError(f"node {node.name} cannot get records from {parent}: a sink forwards nothing")


def _connected(nodes: Mapping[str, Node]) -> dict[str, str]:
    """For each node a representative of its subtopology."""
    root = {name: name for name in nodes}

    def find(name: str) -> str:
        while root[name] != name:
            root[name] = root[root[name]]
            name = root[name]
        return name

    store_users: dict[str, str] = {}
    for name, node in nodes.items():
        for other in (*parents_of(node), *(store_users.setdefault(store, name) for store in stores_of(node))):
            root[find(other)] = find(name)
    return {name: find(name) for name in nodes}
