"""What the DSL needs beside a growing topology: names that count up, and nodes that change when more is known."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from streamlib.topology.checks import check_topic_name
from streamlib.topology.naming import Names
from streamlib.topology.nodes import Node, ProcessorNode, RepartitionTopic, SinkNode, SourceNode, StoreSpec
from streamlib.topology.operators import DropNullKeys, Operator, PassThrough, StreamToTable, TableSource
from streamlib.topology.topology import Topology
from streamlib.topology.versions import history_ms


class TopologyBuilder:
    """Adds up a topology on behalf of the DSL.

    Names that are not given count up through all kinds of nodes, as Kafka Streams' do.

    Args:
        optimize: steps after a node may share a repartition topic.
        strict_naming: generated names are refused where something is kept.

    >>> builder = TopologyBuilder()
    >>> builder.name("KSTREAM-FILTER-"), builder.name("KSTREAM-FILTER-", "given"), builder.name("KSTREAM-MAP-")
    ('KSTREAM-FILTER-0000000000', 'given', 'KSTREAM-MAP-0000000002')
    """

    def __init__(self, *, optimize: bool = False, strict_naming: bool = False) -> None:
        self.optimize = optimize
        self._names = Names(strict=strict_naming)
        self._behind: dict[str, str] = {}  # node -> the source of the repartition topic that steps after it share
        self.topology = Topology()
        """What has grown so far."""

    def name(self, prefix: str, given: str | None = None) -> str:
        """A node's name: the given one, or the prefix and a number. A given name uses a number up, too.

        Raises:
            TopologyError: it cannot be one.
        """
        if given is None:
            return self._names.draw(prefix)
        check_topic_name(given, "a node")
        self._names.skip()
        return given

    def store_name(self, prefix: str, given: str | None = None) -> str:
        """A store's name; a given one uses no number up."""
        return given if given is not None else self.name(f"{prefix}STATE-STORE-")

    def add(self, node: Node) -> None:
        """Add a node after its parents.

        Raises:
            TopologyError: see `Topology.add`.
        """
        self.topology.add(node)

    def add_store(self, spec: StoreSpec) -> None:
        """Add a store; adding the same one again changes nothing.

        Raises:
            TopologyError: another store has this name, or it cannot be part of a topic's name.
        """
        self.topology.add_state_store(spec)
        self._names.check_store(spec.name)

    def add_global_store(
        self, store: StoreSpec, source: str, topic: str, processor: str, operator: Operator, **options: Any
    ) -> None:
        """Keep all of a topic in a store that every worker has a whole copy of, filled by `operator`."""
        self.topology.fill_global_store(store, source, topic, processor, operator, **options)
        self._names.check_store(store.name)

    def add_repartition_topic(self, topic: RepartitionTopic) -> None:
        """Add an internal topic.

        Raises:
            TopologyError: another one has this name, or it cannot be one.
        """
        self.topology.add_repartition_topic(topic)
        self._names.check_repartition_topic(topic.name)

    def share_repartition(self, node: str, source: str) -> None:
        """Steps after a node that need a repartition topic may use the one that `source` reads, if it is to be
        optimized."""
        if self.optimize:
            self._behind.setdefault(node, source)

    def shared_repartition(self, node: str) -> SourceNode | None:
        """The source of a repartition topic that steps after a node may use."""
        source = self.topology.nodes.get(self._behind.get(node, ""))
        assert source is None or isinstance(source, SourceNode)
        return source

    def copartition(self, topics: Iterable[str]) -> None:
        """Topics that are joined by key: they need the same number of partitions."""
        self.topology.copartition(topics)

    def materialize(self, table: str, spec: StoreSpec) -> None:
        """Keep the rows of a source table, because something has turned out to need them."""
        self.add_store(spec)
        node = self.topology.nodes[table]
        assert isinstance(node, ProcessorNode)
        assert isinstance(node.operator, TableSource | StreamToTable)
        operator = msgspec.structs.replace(node.operator, store=spec.name)
        self.topology.replace(msgspec.structs.replace(node, operator=operator, stores=(spec.name,)))

    def send_old_values(self, table: str) -> None:
        """Let the changes of a table carry the value from before, because something downstream asks."""
        node = self.topology.nodes[table]
        assert isinstance(node, ProcessorNode)
        self.topology.replace(msgspec.structs.replace(node, sends_old_values=True))

    def node(self, name: str) -> Node:
        """A node that was added."""
        return self.topology.nodes[name]

    def history_ms(self, table: str) -> int | None:
        """How far back the rows of the table that a node makes can be asked for; None if it has no versions."""
        return history_ms(self.topology.nodes, self.topology.stores, table)

    def parents(self, name: str) -> tuple[str, ...]:
        """The nodes that a node's records come from, through internal topics, too."""
        node = self.topology.nodes[name]
        return tuple(self._writers(node)) if isinstance(node, SourceNode) else node.parents

    def keep_null_keys(self, node: str) -> None:
        """Records without a key reach a node that can use them: nothing on the way drops them.

        Source: KIP-962, `NodesWithRelaxedNullKeyJoinDownstream`.
        """
        above = [node]
        for name in above:
            found = self.topology.nodes[name]
            if isinstance(found, ProcessorNode) and isinstance(found.operator, DropNullKeys):
                self.replace_operator(name, PassThrough())
            above.extend(parent for parent in self.parents(name) if parent not in above)

    def _writers(self, source: SourceNode) -> list[str]:
        """The sinks that write the internal topic that a source reads."""
        topics = self.topology.repartition_topics.keys() & set(source.topics)
        return [
            node.name for node in self.topology.nodes.values() if isinstance(node, SinkNode) and node.topic in topics
        ]

    def replace_operator(self, node: str, operator: Operator) -> None:
        """Say what a processor does, now that it is known: a split knows its branches only at its end."""
        found = self.topology.nodes[node]
        assert isinstance(found, ProcessorNode)
        self.topology.replace(msgspec.structs.replace(found, operator=operator))

    def build(self) -> Topology:
        """The topology as it stands; steps that are added later are not in it.

        Raises:
            TopologyError: it cannot run.
        """
        return self.topology.checked()
