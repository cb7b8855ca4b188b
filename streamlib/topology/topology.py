"""The whole: nodes, stores, internal topics, and the subtopologies they fall into.

A topology grows node by node, by hand or on behalf of the DSL; each step is checked where it is made. What runs is a
copy (`checked`), so that growing further changes nothing that runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Self

import msgspec

from streamlib.errors import TopologyError
from streamlib.policies import PolicyOption
from streamlib.serdes import serde_for
from streamlib.topology.checks import check_node_name, check_policy, check_sink, check_source, check_topic_name
from streamlib.topology.describe import describe
from streamlib.topology.dot import dot
from streamlib.topology.drawing import draw
from streamlib.topology.functions import processor_supplier, supplied_stores, user_function
from streamlib.topology.lifespans import Lifespan, check_lifespan
from streamlib.topology.mermaid import mermaid
from streamlib.topology.nodes import (
    LruStoreSpec,
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
    TtlStoreSpec,
)
from streamlib.topology.operators import Operator, Process
from streamlib.topology.subtopologies import Subtopology, parents_of, stores_of, subtopologies
from streamlib.topology.timestamps import ReadyExtractor

GLOBAL_STORE_KINDS = ("key_value", "timestamped_key_value")


class Topology:
    """What is read, done and written.

    `StreamsBuilder.build()` makes one; another way is to add sources, processors, stores and sinks by hand.

    >>> class Shout:
    ...     def init(self, context):
    ...         self.context = context
    ...     def process(self, record):
    ...         self.context.forward(record.with_value(record.value.upper()))
    >>> topology = Topology().add_source("read", "in", key=str, value=str).add_processor("shout", Shout, "read")
    >>> topology = topology.add_sink("write", "out", "shout", key=str, value=str)
    >>> from streamlib.testing import TopologyTestDriver
    >>> with TopologyTestDriver(topology) as driver:
    ...     driver.input_topic("in", key=str, value=str).pipe_input("a", "hello")
    ...     driver.output_topic("out", key=str, value=str).read_value()
    'HELLO'

    Args:
        nodes: in the order they were added; children are visited in this order.
        stores: the state stores that nodes use.
        repartition_topics: internal topics, by the names that sources and sinks use.
        copartition_groups: topics that have to have the same number of partitions.
        lifespans: what is open while it runs; see `add_lifespan`.

    Raises:
        TopologyError: a name is used twice or not known, or a topic is read twice.
    """

    def __init__(
        self,
        nodes: Iterable[Node] = (),
        stores: Iterable[StoreSpec] = (),
        repartition_topics: Iterable[RepartitionTopic] = (),
        copartition_groups: Iterable[Iterable[str]] = (),
        lifespans: Iterable[Lifespan] = (),
    ) -> None:
        self._nodes: dict[str, Node] = {}
        self._stores: dict[str, StoreSpec] = {}
        self._repartition_topics: dict[str, RepartitionTopic] = {}
        self._copartition_groups = [frozenset(group) for group in copartition_groups]
        self._lifespans: list[Lifespan] = []
        for lifespan in lifespans:
            self.add_lifespan(lifespan)
        for topic in repartition_topics:
            self.add_repartition_topic(topic)
        for store in stores:
            self.add_state_store(store)
        for node in nodes:
            self.add(node)

    # -- What there is -----------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> Mapping[str, Node]:
        """By name, in the order they were added."""
        return MappingProxyType(self._nodes)

    @property
    def stores(self) -> Mapping[str, StoreSpec]:
        """By name."""
        return MappingProxyType(self._stores)

    @property
    def repartition_topics(self) -> Mapping[str, RepartitionTopic]:
        """By the name that sources and sinks use, which lacks the application's prefix."""
        return MappingProxyType(self._repartition_topics)

    @property
    def copartition_groups(self) -> tuple[frozenset[str], ...]:
        """Topics that have to have the same number of partitions."""
        return tuple(self._copartition_groups)

    @property
    def lifespans(self) -> tuple[Lifespan, ...]:
        """What is open while it runs, in the order it is opened."""
        return tuple(self._lifespans)

    def subtopologies(self) -> tuple[Subtopology, ...]:
        """In the order of their ids."""
        return subtopologies(self._nodes)

    def describe(self) -> str:
        """The description that Kafka Streams' `Topology.describe` prints."""
        return describe([[self._nodes[name] for name in each.nodes] for each in self.subtopologies()])

    def to_mermaid(self) -> str:
        """A Mermaid flowchart: subtopologies as boxes, in them nodes and stores, around them topics.

        >>> from streamlib import StreamsBuilder
        >>> builder = StreamsBuilder()
        >>> builder.table("users", key=str, value=str, store="names").to_stream().to("out")
        >>> print(builder.build().to_mermaid())
        flowchart TD
            topic0[/"users"/]
            topic1[/"out"/]
            subgraph sub0["Sub-topology 0"]
                node0(["KSTREAM-SOURCE-0000000000"])
                node1["KTABLE-SOURCE-0000000001"]
                node2["KTABLE-TOSTREAM-0000000002"]
                node3(["KSTREAM-SINK-0000000003"])
                store0[("names")]
            end
            topic0 --> node0
            node0 --> node1
            node1 -.- store0
            node1 --> node2
            node2 --> node3
            node3 --> topic1
        <BLANKLINE>
        """
        return mermaid(draw(self))

    def to_dot(self) -> str:
        """The same picture in Graphviz' language; `streamlib topology --picture` draws it."""
        return dot(draw(self))

    def checked(self) -> Topology:
        """A copy, if it can run.

        Raises:
            TopologyError: it reads nothing, or a store is missing.
        """
        _check_sources(self)
        _check_stores(self)
        return Topology(
            self._nodes.values(),
            self._stores.values(),
            self._repartition_topics.values(),
            self._copartition_groups,
            self._lifespans,
        )

    # -- Node by node ------------------------------------------------------------------------------------------------

    def add_source(
        self,
        name: str,
        *topics: str | re.Pattern[str],
        key: Any = bytes,
        value: Any = bytes,
        timestamp_extractor: TimestampExtractor | None = None,
        offset_reset: OffsetReset | None = None,
        on_deserialization_error: PolicyOption | None = None,
    ) -> Self:
        """Read topics by name, or by one pattern that their whole name matches.

        Args:
            name: of the node.
            topics: names, or one `re.compile("...")`.
            key: the keys' type.
            value: the values' type.
            timestamp_extractor: gives a record its time in ms: f(record, partition time); negative drops it.
            offset_reset: where to start without a committed offset, if not as the configuration says.
            on_deserialization_error: what becomes of a record that cannot be decoded, if not what the configuration
                says.

        Raises:
            TopologyError: the name is taken, or another source reads one of the topics.
        """
        check_source(topics, offset_reset, on_deserialization_error, f"source {name}")
        if timestamp_extractor is not None and not isinstance(timestamp_extractor, ReadyExtractor):
            user_function(timestamp_extractor, "timestamp_extractor")
        node = SourceNode(
            name=name,
            topics=tuple(topic for topic in topics if isinstance(topic, str)),
            pattern=next((topic.pattern for topic in topics if isinstance(topic, re.Pattern)), None),
            key=serde_for(key),
            value=serde_for(value),
            timestamp_extractor=timestamp_extractor,
            offset_reset=offset_reset,
            on_deserialization_error=on_deserialization_error,
        )
        return self.add(node)

    def add_processor(
        self, name: str, supplier: Callable[[], Any], *parents: str, on_error: PolicyOption | None = None
    ) -> Self:
        """Give the records of the parents to a processor of your own.

        Args:
            name: of the node.
            supplier: makes a processor for each task, such as its class. The stores in its attribute `stores`, or that
                its function of this name returns, are added and connected.
            parents: nodes that were added before.
            on_error: what becomes of a record at which it raises, if not what the configuration says.

        Raises:
            TopologyError: the name is taken, or a parent is not there or is a sink.
        """
        what = f"processor {name}"
        check_policy(on_error, f"{what}: on_error", retry=True)
        operator = Process(processor_supplier(supplier, what))
        self.add(ProcessorNode(name=name, operator=operator, parents=parents, on_error=on_error))
        for store in supplied_stores(supplier, what):
            self.add_state_store(store, name)
        return self

    def add_sink(
        self,
        name: str,
        topic: str | TopicChooser,
        *parents: str,
        key: Any = bytes,
        value: Any = bytes,
        partitioner: Partitioner | None = None,
        on_error: PolicyOption | None = None,
    ) -> Self:
        """Write the records of the parents to a topic, or each to the one that `topic(key, value, context)` gives.

        `on_error` says what becomes of those that cannot be written, if not what the configuration says.

        Raises:
            TopologyError: the name is taken, or a parent is not there or is a sink.
        """
        check_sink(topic, partitioner, on_error, f"sink {name}")
        node = SinkNode(
            name=name,
            topic=topic,
            key=serde_for(key),
            value=serde_for(value),
            parents=parents,
            partitioner=partitioner,
            on_error=on_error,
        )
        return self.add(node)

    def add_state_store(self, store: StoreSpec, *processors: str) -> Self:
        """Add a store and connect it with processors. Adding the same store again only connects it.

        Raises:
            TopologyError: another store has its name, or there is no such processor.
        """
        if not isinstance(store, StoreSpec):
            raise TopologyError(f"a store is needed, such as Stores.key_value_store(...), not {store!r}")
        check_topic_name(store.name, "a store")
        if self._stores.setdefault(store.name, store) != store:
            raise TopologyError(
                f"two stores are called {store.name!r}: give one of them another name, or make it once and use it twice"
            )
        for processor in processors:
            self.connect_processor_and_state_stores(processor, store.name)
        return self

    def connect_processor_and_state_stores(self, processor: str, *stores: str) -> Self:
        """Let a processor use stores.

        Raises:
            TopologyError: one of them was not added.
        """
        node = self._nodes.get(processor)
        for store in stores:
            if not isinstance(node, ProcessorNode):
                raise TopologyError(f"store {store} cannot be connected with {processor!r}: no such processor")
            if store not in self._stores:
                raise TopologyError(f"processor {processor} cannot use store {store!r}: add the store first")
            node = msgspec.structs.replace(node, stores=tuple(dict.fromkeys((*node.stores, store))))
            self.replace(node)
        return self

    def add_lifespan(self, lifespan: Lifespan) -> Self:
        """Have something open for as long as the topology runs; see `StreamsBuilder.add_lifespan`.

        Raises:
            TopologyError: it cannot be opened.
        """
        check_lifespan(lifespan)
        self._lifespans.append(lifespan)
        return self

    def on_error(self, name: str, policy: PolicyOption) -> Self:
        """Say what becomes of records that fail at a node; of a source, of those that cannot be decoded.

        For nodes whose step in the DSL has no option for it, such as joins and windows.

        Raises:
            TopologyError: there is no such node, or this is no policy.

        >>> from streamlib import StreamsBuilder
        >>> builder = StreamsBuilder()
        >>> users = builder.table("users", key=str, value=str)
        >>> orders = builder.stream("orders", key=str, value=float)
        >>> orders.join(users, lambda amount, user: f"{user}: {amount}", name="named", result=str).to("out")
        >>> topology = builder.topology.on_error("named", "skip")
        """
        node = self._nodes.get(name)
        what = f"node {name}: on_error"
        if node is None:
            raise TopologyError(f"{what}: there is no such node; there are {', '.join(sorted(self._nodes))}")
        check_policy(policy, what, retry=isinstance(node, ProcessorNode))
        if any(isinstance(each, SourceNode) and each.retries == name for each in self._nodes.values()):
            raise TopologyError(
                f"{what}: the step has RetryTopics, and topics for that: give it another on_error there"
            )
        changed = {"on_deserialization_error" if isinstance(node, SourceNode) else "on_error": policy}
        self.replace(msgspec.structs.replace(node, **changed))
        return self

    def add_global_store(
        self,
        store: StoreSpec,
        source: str,
        topic: str,
        processor: str,
        supplier: Callable[[], Any],
        *,
        key: Any = bytes,
        value: Any = bytes,
        timestamp_extractor: TimestampExtractor | None = None,
    ) -> Self:
        """Keep all of a topic in a store that every worker has a whole copy of, filled by a processor of your own.

        Every processor may read it, without being connected to it.

        Args:
            store: a key-value store.
            source: the name of the node that reads.
            topic: what it reads, from the beginning.
            processor: the name of the node that fills the store.
            supplier: makes the processor.
            key: the keys' type.
            value: the values' type.
            timestamp_extractor: gives a record its time in ms.

        Raises:
            TopologyError: a name is taken, or the store is of another kind.
        """
        operator = Process(processor_supplier(supplier, f"processor {processor}"))
        options = {"key": key, "value": value, "timestamp_extractor": timestamp_extractor}
        return self.fill_global_store(store, source, topic, processor, operator, **options)

    # -- As values, on behalf of the DSL -----------------------------------------------------------------------------

    def fill_global_store(
        self, store: StoreSpec, source: str, topic: str, processor: str, operator: Operator, **options: Any
    ) -> Self:
        """As `add_global_store`, whatever fills the store."""
        if isinstance(store, LruStoreSpec | TtlStoreSpec):
            raise TopologyError(
                f"the global store of {topic} has all rows of its topic: leave max_entries= and ttl= out"
            )
        kind = getattr(store, "kind", None)  # whatever a user may have given
        if kind not in GLOBAL_STORE_KINDS:
            raise TopologyError(
                f"the global store of {topic} has to be a key-value store, such as Stores.key_value_store(...), "
                f"not {store!r:.200}"
            )
        self.add_state_store(msgspec.structs.replace(store, changelog=False))  # the topic is what it is restored from
        self.add_source(source, topic, **options)
        self.replace(msgspec.structs.replace(self._nodes[source], is_global=True))
        return self.add(ProcessorNode(name=processor, operator=operator, parents=(source,), stores=(store.name,)))

    def add(self, node: Node) -> Self:
        """Add a node after its parents.

        Raises:
            TopologyError: the name is taken, a parent is not there or is a sink, or a topic is read already.
        """
        check_node_name(node.name)
        if node.name in self._nodes:
            raise TopologyError(f"two nodes are called {node.name!r}: give one of them another name")
        if isinstance(node, SourceNode):
            self._check_unread(node)
        else:
            self._check_parents(node)
        self._nodes[node.name] = node
        return self

    def replace(self, node: Node) -> None:
        """Put another in the place of the node of the same name."""
        assert node.name in self._nodes, f"there is no node {node.name}"
        self._nodes[node.name] = node

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

    def _check_unread(self, node: SourceNode) -> None:
        sources = [each for each in self._nodes.values() if isinstance(each, SourceNode)]
        readers = {topic: each.name for each in sources for topic in each.topics}
        for topic in node.topics:
            if topic in readers:
                raise TopologyError(
                    f"topic {topic!r} is read by {readers[topic]} and by {node.name}: read it once and use the stream "
                    "twice"
                )
            readers[topic] = node.name

    def _check_parents(self, node: ProcessorNode | SinkNode) -> None:
        if not node.parents:
            raise TopologyError(f"node {node.name} has no parent to get records from: name one that was added before")
        for parent in parents_of(node):
            check_node_name(parent)
            found = self._nodes.get(parent)
            if found is None:
                raise TopologyError(
                    f"node {node.name} has a parent {parent!r} that does not exist: add the parent first"
                )
            if isinstance(found, SinkNode):
                raise TopologyError(f"node {node.name} cannot get records from {parent}: a sink forwards nothing")


def _check_sources(topology: Topology) -> None:
    if not any(isinstance(node, SourceNode) for node in topology.nodes.values()):
        raise TopologyError(
            "the topology reads no topic: begin with builder.stream(...) or builder.table(...), or with add_source"
        )


def _check_stores(topology: Topology) -> None:
    """Stores are there; global ones are connected with what fills them only, or all would be one subtopology."""
    global_sources = {node.name for node in topology.nodes.values() if isinstance(node, SourceNode) and node.is_global}
    filled = {
        store: node.name
        for node in topology.nodes.values()
        if global_sources.intersection(parents_of(node))
        for store in stores_of(node)
    }
    for node in topology.nodes.values():
        for store in stores_of(node):
            if store not in topology.stores:
                raise TopologyError(
                    f"node {node.name} uses store {store!r}, which does not exist: add it to the builder"
                )
            if filled.get(store, node.name) != node.name:
                raise TopologyError(
                    f"node {node.name} cannot be connected with the global store {store!r}: any processor may read it "
                    "without that, so leave its name out"
                )
