"""Where a topology grows: nodes, stores and topics are added, then `build` makes the value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Self

import msgspec

from streamlib.errors import TopologyError
from streamlib.serdes import serde_for
from streamlib.topology.functions import processor_supplier, user_function
from streamlib.topology.nodes import (
    Node,
    OffsetReset,
    Partitioner,
    ProcessorNode,
    RepartitionTopic,
    SinkNode,
    SourceNode,
    StoreSpec,
    TimestampExtractor,
    TopicChooser,
)
from streamlib.topology.operators import DropNullKeys, Operator, PassThrough, Process, StreamToTable, TableSource
from streamlib.topology.topology import Topology

_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


class TopologyBuilder:
    """Adds up a topology, node by node (`add_source` and the like) or on behalf of the DSL (`add` and the like).

    Names that are not given count up through all kinds of nodes, as Kafka Streams' do.

    >>> class Shout:
    ...     def init(self, context):
    ...         self.context = context
    ...     def process(self, record):
    ...         self.context.forward(record.with_value(record.value.upper()))
    >>> builder = TopologyBuilder().add_source("read", "in", key=str, value=str)
    >>> topology = builder.add_processor("shout", Shout, "read").add_sink("write", "out", "shout", value=str).build()
    >>> list(topology.nodes)
    ['read', 'shout', 'write']
    """

    def __init__(self) -> None:
        self._count = 0
        self._nodes: dict[str, Node] = {}
        self._stores: dict[str, StoreSpec] = {}
        self._repartition_topics: dict[str, RepartitionTopic] = {}
        self._copartition_groups: list[frozenset[str]] = []

    # -- Node by node --------------------------------------------------------------------------------------------------

    def add_source(
        self,
        name: str,
        *topics: str,
        key: Any = bytes,
        value: Any = bytes,
        timestamp_extractor: TimestampExtractor | None = None,
        offset_reset: OffsetReset | None = None,
    ) -> Self:
        """Read topics."""
        if timestamp_extractor is not None:
            user_function(timestamp_extractor, "timestamp_extractor")
        for topic in topics:
            check_topic_name(topic, f"source {name}")
        if not topics:
            raise TopologyError(f"source {name} needs the names of topics")
        if offset_reset not in (None, "earliest", "latest"):
            raise TopologyError(f"source {name}: offset_reset is 'earliest' or 'latest', not {offset_reset!r}")
        self.add(
            SourceNode(
                name=name,
                topics=topics,
                key=serde_for(key),
                value=serde_for(value),
                timestamp_extractor=timestamp_extractor,
                offset_reset=offset_reset,
            )
        )
        return self

    def add_processor(self, name: str, supplier: Callable[[], Any], *parents: str) -> Self:
        """Give the records of the parents to a processor of your own; `supplier()` makes one for each task."""
        operator = Process(processor_supplier(supplier, f"processor {name}"))
        self.add(ProcessorNode(name=name, operator=operator, parents=parents))
        return self

    def add_state_store(self, store: StoreSpec, *processors: str) -> Self:
        """Add a store and connect it with processors.

        Raises:
            TopologyError: there is no such processor.
        """
        self.add_store(store)
        for processor in processors:
            node = self._nodes.get(processor)
            if not isinstance(node, ProcessorNode):
                raise TopologyError(f"store {store.name} cannot be connected with {processor!r}: no such processor")
            stores = tuple(dict.fromkeys((*node.stores, store.name)))
            self._nodes[processor] = msgspec.structs.replace(node, stores=stores)
        return self

    def add_sink(
        self,
        name: str,
        topic: str | TopicChooser,
        *parents: str,
        key: Any = bytes,
        value: Any = bytes,
        partitioner: Partitioner | None = None,
    ) -> Self:
        """Write the parents' records to a topic, or each to the one that `topic(key, value, context)` gives."""
        check_sink(topic, partitioner, f"sink {name}")
        self.add(
            SinkNode(
                name=name,
                topic=topic,
                key=serde_for(key),
                value=serde_for(value),
                parents=parents,
                partitioner=partitioner,
            )
        )
        return self

    # -- On behalf of the DSL ------------------------------------------------------------------------------------------

    def name(self, prefix: str, given: str | None = None) -> str:
        """A node's name: the given one, or the prefix and a number. A given name uses a number up, too.

        Raises:
            TopologyError: it cannot be one.
        """
        if given is not None:
            check_topic_name(given, "a node")
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
            TopologyError: another store has this name, or it cannot be part of a topic's name.
        """
        if not isinstance(spec, StoreSpec):
            raise TopologyError(f"a store is needed, such as Stores.key_value_store(...), not {spec!r}")
        check_topic_name(spec.name, "a store")
        if self._stores.setdefault(spec.name, spec) != spec:
            raise TopologyError(
                f"two stores are called {spec.name!r}: give one of them another name, or make it once and use it twice"
            )

    def add_repartition_topic(self, topic: RepartitionTopic) -> None:
        """Add an internal topic.

        Raises:
            TopologyError: another one has this name, or it cannot be one.
        """
        check_topic_name(topic.name, "a repartition topic")
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

    def keep_null_keys(self, node: str) -> None:
        """Records without a key reach a node that can use them: nothing on the way drops them.

        Source: KIP-962, `NodesWithRelaxedNullKeyJoinDownstream`.
        """
        above = [node]
        for name in above:
            found = self._nodes[name]
            if isinstance(found, ProcessorNode) and isinstance(found.operator, DropNullKeys):
                self.replace_operator(name, PassThrough())
            parents = self._writers(found) if isinstance(found, SourceNode) else found.parents
            above.extend(parent for parent in parents if parent not in above)

    def _writers(self, source: SourceNode) -> list[str]:
        """The sinks that write the internal topic that a source reads."""
        topics = self._repartition_topics.keys() & set(source.topics)
        return [node.name for node in self._nodes.values() if isinstance(node, SinkNode) and node.topic in topics]

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


def check_topic_name(name: object, what: str) -> None:
    """Kafka's rule for names of topics, which those of stores become part of.

    Raises:
        TopologyError: it cannot be one.

    >>> check_topic_name("word counts", "a store")
    Traceback (most recent call last):
    streamlib.errors.TopologyError: a store cannot have the name 'word counts': use letters, digits, '.', '_' and '-'
    """
    if not isinstance(name, str) or not _TOPIC_NAME.fullmatch(name) or name in (".", ".."):
        raise TopologyError(f"{what} cannot have the name {name!r}: use letters, digits, '.', '_' and '-'")


def check_sink(topic: str | TopicChooser, partitioner: Partitioner | None, what: str) -> None:
    """A sink's topic is a name or a function, its partitioner a function.

    Raises:
        TopologyError: it is not.
    """
    if isinstance(topic, str):
        check_topic_name(topic, what)
    else:
        user_function(topic, what)
    if partitioner is not None:
        user_function(partitioner, f"the partitioner of {what}")
