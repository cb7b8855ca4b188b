"""Where a topology grows: nodes, stores and topics are added, then `build` makes the value."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from streamlib.errors import TopologyError
from streamlib.topology.nodes import Node, ProcessorNode, RepartitionTopic, StoreSpec
from streamlib.topology.operators import Operator, StreamToTable, TableSource
from streamlib.topology.topology import Topology


class TopologyBuilder:
    """Adds up a topology. Names that are not given count up through all kinds of nodes, as Kafka Streams' do."""

    def __init__(self) -> None:
        self._count = 0
        self._nodes: dict[str, Node] = {}
        self._stores: dict[str, StoreSpec] = {}
        self._repartition_topics: dict[str, RepartitionTopic] = {}
        self._copartition_groups: list[frozenset[str]] = []

    def name(self, prefix: str, given: str | None = None) -> str:
        """A node's name: the given one, or the prefix and a number. A given name uses a number up, too."""
        number, self._count = self._count, self._count + 1
        return given if given is not None else f"{prefix}{number:010d}"

    def store_name(self, prefix: str, given: str | None = None) -> str:
        """A store's name; a given one uses no number up."""
        return given if given is not None else self.name(f"{prefix}STATE-STORE-")

    def add(self, node: Node) -> None:
        """Add a node after its parents.

        Raises:
            TopologyError: the name is taken.
        """
        if node.name in self._nodes:
            raise TopologyError(f"two nodes are called {node.name!r}: give one of them another name")
        self._nodes[node.name] = node

    def add_store(self, spec: StoreSpec) -> None:
        """Add a store; adding the same one again changes nothing.

        Raises:
            TopologyError: another store has this name.
        """
        if self._stores.setdefault(spec.name, spec) != spec:
            raise TopologyError(f"two stores are called {spec.name!r}: give one of them another name")

    def add_repartition_topic(self, topic: RepartitionTopic) -> None:
        """Add an internal topic.

        Raises:
            TopologyError: another one has this name.
        """
        if topic.name in self._repartition_topics:
            raise TopologyError(f"two repartition topics are called {topic.name!r}: give one of them another name")
        self._repartition_topics[topic.name] = topic

    def copartition(self, topics: Iterable[str]) -> None:
        """Topics that are joined by key: they need the same number of partitions."""
        group = frozenset(topics)
        if len(group) > 1:
            self._copartition_groups.append(group)

    def materialize(self, table: str, spec: StoreSpec) -> None:
        """Keep the rows of a source table, because something has turned out to need them."""
        self.add_store(spec)
        node = self._nodes[table]
        assert isinstance(node, ProcessorNode)
        assert isinstance(node.operator, TableSource | StreamToTable)
        operator = msgspec.structs.replace(node.operator, store=spec.name)
        self._nodes[table] = msgspec.structs.replace(node, operator=operator, stores=(spec.name,))

    def replace_operator(self, node: str, operator: Operator) -> None:
        """Say what a processor does, now that it is known: a split knows its branches only at its end."""
        found = self._nodes[node]
        assert isinstance(found, ProcessorNode)
        self._nodes[node] = msgspec.structs.replace(found, operator=operator)

    def build(self) -> Topology:
        """The topology as it stands.

        Raises:
            TopologyError: it cannot be one.
        """
        return Topology(
            tuple(self._nodes.values()),
            self._stores.values(),
            self._repartition_topics.values(),
            self._copartition_groups,
        )
