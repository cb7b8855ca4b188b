"""Serdes learn where they are used: of which topic, for keys or values, in stores or where others read.

A store is called by its changelog, as in Kafka Streams, whether it has one or not. What is sent between tables that are
joined by foreign key has the bytes of the table's store, for the two are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from streamlib.serdes import Place
from streamlib.topology.nodes import Node, ProcessorNode, SinkNode, SourceNode, StoreSpec
from streamlib.topology.operators import JoinedTable
from streamlib.topology.topology import Topology

S = TypeVar("S", SourceNode, SinkNode, StoreSpec, JoinedTable)


class Places:
    """Puts nodes and stores in their places. `preparations`: what their serdes want done before they are used."""

    def __init__(self, topology: Topology, application_id: str) -> None:
        self._topology = topology
        self._application_id = application_id
        self.preparations: list[Callable[[], None]] = []

    def nodes(self, nodes: Mapping[str, Node]) -> dict[str, Node]:
        """The nodes with their serdes in place."""
        return {name: self._node(node) for name, node in nodes.items()}

    def stores(self) -> dict[str, StoreSpec]:
        """The topology's stores, by name."""
        return {name: self._placed(spec, self._changelog(spec)) for name, spec in self._topology.stores.items()}

    def _node(self, node: Node) -> Node:
        match node:
            case SourceNode():
                placed = [self._placed(node, self._topic(topic, writes=False)) for topic in node.topics]
                return placed[0] if placed else node
            case SinkNode():
                # Where the topic is chosen record by record, the sink asks for the serdes of each.
                return self._placed(node, self._topic(node.topic)) if isinstance(node.topic, str) else node
            case ProcessorNode():
                return msgspec.structs.replace(node, operator=self._operator(node.operator))

    def _operator(self, operator: msgspec.Struct) -> msgspec.Struct:
        tables = {
            name: self._placed(value, self._table(value))
            for name in operator.__struct_fields__
            if isinstance(value := getattr(operator, name), JoinedTable)
        }
        return msgspec.structs.replace(operator, **tables) if tables else operator

    def _placed(self, value: S, place: Place) -> S:
        key = value.key.at(msgspec.structs.replace(place, is_key=True))
        return msgspec.structs.replace(value, key=key, value=value.value.at(place))

    def _table(self, table: JoinedTable) -> Place:
        node = self._topology.nodes.get(table.node)
        store = getattr(getattr(node, "operator", None), "store", None) or ""
        if store in self._topology.stores:
            return self._changelog(self._topology.stores[store])
        return self._internal(f"{self._application_id}-{table.node}")

    def _topic(self, topic: str, *, writes: bool = True) -> Place:
        if topic in self._topology.repartition_topics:
            return self._internal(f"{self._application_id}-{topic}", writes=writes)
        return Place(topic=topic, writes=writes, preparations=self.preparations)

    def _changelog(self, spec: StoreSpec) -> Place:
        return self._internal(f"{self._application_id}-{spec.changelog_topic}")

    def _internal(self, topic: str, *, writes: bool = True) -> Place:
        return Place(topic=topic, is_internal=True, writes=writes, preparations=self.preparations)
