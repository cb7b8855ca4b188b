"""The subtopologies that nodes fall into.

Nodes that are connected, or share a store, make a subtopology: the unit that is copied for each partition.
Subtopologies are numbered as Kafka Streams numbers them, by the sorted names of their sources
(`InternalTopologyBuilder.makeNodeGroups`), so a task `1_3` here and there is the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from streamlib.topology.nodes import Node, ProcessorNode, SinkNode, SourceNode


class Subtopology(msgspec.Struct, frozen=True):
    """Nodes that have to run together, by name in the order they were added, and which of them read and write.

    `is_global`: it fills global stores, in every worker; there are no tasks of it.
    """

    id: int
    nodes: tuple[str, ...]
    sources: tuple[str, ...]
    sinks: tuple[str, ...]
    stores: tuple[str, ...]
    is_global: bool = False


def subtopologies(nodes: Mapping[str, Node]) -> tuple[Subtopology, ...]:
    """In the order of their ids."""
    root = _connected(nodes)
    order: dict[str, int] = {}
    # Tasks keep their numbers when a step gets retry topics.
    sources = sorted(name for name, node in nodes.items() if isinstance(node, SourceNode) and node.retries is None)
    for name in (*sources, *sorted(nodes)):
        order.setdefault(root[name], len(order))
    return tuple(
        _subtopology(number, [node for name, node in nodes.items() if root[name] == group])
        for group, number in order.items()
    )


def parents_of(node: Node) -> tuple[str, ...]:
    """The nodes that a node gets its records from."""
    return () if isinstance(node, SourceNode) else node.parents


def stores_of(node: Node) -> tuple[str, ...]:
    """The stores that a node may use."""
    return node.stores if isinstance(node, ProcessorNode) else ()


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


def _subtopology(number: int, nodes: Sequence[Node]) -> Subtopology:
    return Subtopology(
        number,
        tuple(node.name for node in nodes),
        tuple(node.name for node in nodes if isinstance(node, SourceNode)),
        tuple(node.name for node in nodes if isinstance(node, SinkNode)),
        tuple(dict.fromkeys(store for node in nodes for store in stores_of(node))),
        any(isinstance(node, SourceNode) and node.is_global for node in nodes),
    )
