"""Where a topology begins."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

from streamlib.dsl.functions import Hint
from streamlib.dsl.global_table import GlobalKTable
from streamlib.dsl.graph import Point
from streamlib.dsl.kstream import KStream
from streamlib.dsl.ktable import KTable
from streamlib.dsl.materialized import Materialized, StoreOption
from streamlib.errors import TopologyError
from streamlib.policies import PolicyOption
from streamlib.serdes import Serde, serde_for
from streamlib.topology import operators as op
from streamlib.topology.builder import TopologyBuilder
from streamlib.topology.functions import processor_supplier
from streamlib.topology.lifespans import Lifespan
from streamlib.topology.nodes import OffsetReset, StoreSpec, TimestampExtractor
from streamlib.topology.topology import Topology

K = TypeVar("K")
V = TypeVar("V")


class StreamsBuilder:
    """Begin with `stream` or `table`, add steps, end with `build`.

    Args:
        optimize: leave out what costs and changes no result: steps that need the same repartition topic share one
            (Kafka Streams' `topology.optimization=all`). It changes the names of internal topics, so an application
            that runs already begins anew with it.
        strict_naming: refuse generated names for whatever is kept in Kafka: stores, changelogs, repartition topics. A
            generated name changes with the steps before it, and what is kept under it is lost.

    >>> builder = StreamsBuilder()
    >>> words = builder.stream("lines", key=str, value=str).flat_map_values(str.split)
    >>> words.group_by(lambda _, word: word, name="by-word").count(store="counts").to_stream().to("word-counts")
    >>> [len(each.nodes) for each in builder.build().subtopologies()]
    [5, 4]
    """

    def __init__(self, *, optimize: bool = False, strict_naming: bool = False) -> None:
        self._builder = TopologyBuilder(optimize=optimize, strict_naming=strict_naming)
        self._streams: dict[frozenset[str], tuple[dict[str, Any], Point]] = {}  # by topics: how they are read

    @overload
    def stream(
        self,
        topics: str | Sequence[str] | re.Pattern[str],
        *,
        key: type[K] | Serde[K],
        value: type[V] | Serde[V],
        timestamp_extractor: TimestampExtractor | None = ...,
        offset_reset: OffsetReset | None = ...,
        on_deserialization_error: PolicyOption | None = ...,
        name: str | None = ...,
    ) -> KStream[K, V]: ...
    @overload
    def stream(
        self,
        topics: str | Sequence[str] | re.Pattern[str],
        *,
        key: type[K] | Serde[K],
        value: Hint = ...,
        timestamp_extractor: TimestampExtractor | None = ...,
        offset_reset: OffsetReset | None = ...,
        on_deserialization_error: PolicyOption | None = ...,
        name: str | None = ...,
    ) -> KStream[K, Any]: ...
    @overload
    def stream(
        self,
        topics: str | Sequence[str] | re.Pattern[str],
        *,
        key: Hint = ...,
        value: type[V] | Serde[V],
        timestamp_extractor: TimestampExtractor | None = ...,
        offset_reset: OffsetReset | None = ...,
        on_deserialization_error: PolicyOption | None = ...,
        name: str | None = ...,
    ) -> KStream[Any, V]: ...
    @overload
    def stream(
        self,
        topics: str | Sequence[str] | re.Pattern[str],
        *,
        key: Hint = ...,
        value: Hint = ...,
        timestamp_extractor: TimestampExtractor | None = ...,
        offset_reset: OffsetReset | None = ...,
        on_deserialization_error: PolicyOption | None = ...,
        name: str | None = ...,
    ) -> KStream[Any, Any]: ...
    def stream(
        self,
        topics: str | Sequence[str] | re.Pattern[str],
        *,
        key: Hint = bytes,
        value: Hint = bytes,
        timestamp_extractor: TimestampExtractor | None = None,
        offset_reset: OffsetReset | None = None,
        on_deserialization_error: PolicyOption | None = None,
        name: str | None = None,
    ) -> KStream[Any, Any]:
        """Read one or several topics as a stream. The same topics read in the same way again are the same stream.

        Args:
            topics: names of topics that exist; or a pattern, `re.compile("orders-.*")`, for all topics whose whole name
                it matches. Topics that turn up later are read, too, from where `offset_reset` says.
            key: the keys' type; None if they are always null.
            value: the values' type.
            timestamp_extractor: gives a record its time in ms: f(record, partition time), negative drops it; or one of
                those there are, such as `LogAndSkipOnInvalidTimestamp()`.
            offset_reset: where to start without a committed offset, if not as the configuration says.
            on_deserialization_error: what becomes of a record that cannot be decoded, if not what the configuration
                says: "fail", "skip", or a policy such as `DeadLetter("topic")`.
            name: of the node.

        >>> orders = StreamsBuilder().stream("orders", key=str, value=float)
        """
        node = self._builder.name("KSTREAM-SOURCE-", name)
        names = _topic_names(topics)
        how = {
            "key": key,
            "value": value,
            "timestamp_extractor": timestamp_extractor,
            "offset_reset": offset_reset,
            "on_deserialization_error": on_deserialization_error,
        }
        before, point = self._streams.get(frozenset(names), (None, None))
        if point is None or before != how:
            point = self._source(node, names, **how)
            self._streams[frozenset(names)] = how, point
        return KStream(point)

    @overload
    def table(
        self,
        topic: str,
        *,
        key: type[K] | Serde[K],
        value: type[V] | Serde[V],
        store: StoreOption = ...,
        timestamp_extractor: TimestampExtractor | None = ...,
        offset_reset: OffsetReset | None = ...,
        on_deserialization_error: PolicyOption | None = ...,
        name: str | None = ...,
    ) -> KTable[K, V]: ...
    @overload
    def table(
        self,
        topic: str,
        *,
        key: Hint = ...,
        value: Hint = ...,
        store: StoreOption = ...,
        timestamp_extractor: TimestampExtractor | None = ...,
        offset_reset: OffsetReset | None = ...,
        on_deserialization_error: PolicyOption | None = ...,
        name: str | None = ...,
    ) -> KTable[Any, Any]: ...
    def table(
        self,
        topic: str,
        *,
        key: Hint = bytes,
        value: Hint = bytes,
        store: StoreOption = None,
        timestamp_extractor: TimestampExtractor | None = None,
        offset_reset: OffsetReset | None = None,
        on_deserialization_error: PolicyOption | None = None,
        name: str | None = None,
    ) -> KTable[Any, Any]:
        """Read a topic as a table: each record is the new value of its key, None deletes it.

        Args:
            topic: a topic that exists.
            key: the keys' type.
            value: the rows' type.
            store: keep the rows under this name, or as `Materialized` says. Without a name they are kept only if
                something looks them up.
            timestamp_extractor: gives a record its time in ms.
            offset_reset: where to start without a committed offset, if not as the configuration says.
            on_deserialization_error: what becomes of a record that cannot be decoded, if not what the configuration
                says: "fail", "skip", or a policy such as `DeadLetter("topic")`.
            name: of the table's node; the one that reads is `<name>-source`.

        >>> users = StreamsBuilder().table("users", key=str, value=str, store="users")
        """
        if not isinstance(topic, str):
            raise TopologyError(f"a table is read from one topic, not {topic!r}")
        materialized = Materialized.of(store)
        store_name = self._builder.store_name(f"{topic}-", materialized.name)
        node = self._builder.name("KSTREAM-SOURCE-", None if name is None else f"{name}-source")
        table_node = self._builder.name("KTABLE-SOURCE-", name)
        point = self._source(
            node,
            (topic,),
            key=key,
            value=value,
            timestamp_extractor=timestamp_extractor,
            offset_reset=offset_reset,
            on_deserialization_error=on_deserialization_error,
        )
        spec = materialized.table_spec(store_name, point.key, point.value)
        table: KTable[Any, Any] = KTable._source(point.then(table_node, op.TableSource()), spec)
        if materialized.in_any_case:
            table._lookup_stores()
        return table

    @overload
    def global_table(
        self,
        topic: str,
        *,
        key: type[K] | Serde[K],
        value: type[V] | Serde[V],
        store: StoreOption = ...,
        timestamp_extractor: TimestampExtractor | None = ...,
        name: str | None = ...,
    ) -> GlobalKTable[K, V]: ...
    @overload
    def global_table(
        self,
        topic: str,
        *,
        key: Hint = ...,
        value: Hint = ...,
        store: StoreOption = ...,
        timestamp_extractor: TimestampExtractor | None = ...,
        name: str | None = ...,
    ) -> GlobalKTable[Any, Any]: ...
    def global_table(
        self,
        topic: str,
        *,
        key: Hint = bytes,
        value: Hint = bytes,
        store: StoreOption = None,
        timestamp_extractor: TimestampExtractor | None = None,
        name: str | None = None,
    ) -> GlobalKTable[Any, Any]:
        """Read all of a topic as a table into every worker; streams join it by any key.

        It is read to its end before the first record is processed, and followed from then on.

        Args:
            topic: a topic that exists; its committed records are all read, whatever `auto_offset_reset` says.
            key: the keys' type.
            value: the rows' type.
            store: the store's name, or how it is kept.
            timestamp_extractor: gives a record its time in ms.
            name: of the table's node; the one that reads is `<name>-source`.

        >>> builder = StreamsBuilder()
        >>> countries = builder.global_table("countries", key=str, value=str, store="countries")
        >>> orders = builder.stream("orders", key=str, value=str)
        >>> orders.join(countries, lambda order, name: f"{order} to {name}", key_selector=lambda key, order: order[:2])
        ... # doctest: +ELLIPSIS
        <streamlib.dsl.kstream.KStream object at ...>
        """
        materialized = Materialized.of(store)
        store_name = self._builder.store_name(f"{topic}-", materialized.name)
        spec = materialized.table_spec(store_name, serde_for(key), serde_for(value))
        self._add_global(topic, spec, op.TableSource(store_name), key, value, timestamp_extractor, name)
        return GlobalKTable(self._builder, store_name)

    def add_global_store(
        self,
        store: StoreSpec,
        topic: str,
        supplier: Callable[[], Any],
        *,
        key: Hint = bytes,
        value: Hint = bytes,
        timestamp_extractor: TimestampExtractor | None = None,
        name: str | None = None,
    ) -> None:
        """Fill a store of every worker from all of a topic, by a processor of your own.

        Every processor of the topology may read the store, without being connected to it; only this one writes it. It
        sees each record of the topic once per copy of the store, those from before the start among them, and forwards
        nothing.

        Args:
            store: a key-value store; see `Stores`.
            topic: a topic that exists.
            supplier: makes the processor.
            key: the keys' type.
            value: the values' type.
            timestamp_extractor: gives a record its time in ms.
            name: of the processor's node; the one that reads is `<name>-source`.

        >>> from streamlib import Stores
        >>> class Keep:
        ...     def init(self, context):
        ...         self.rules = context.state_store("rules")
        ...     def process(self, record):
        ...         self.rules.put(record.key, record.value)
        >>> rules = Stores.key_value_store("rules", key=str, value=str)
        >>> StreamsBuilder().add_global_store(rules, "rules", Keep, key=str, value=str)
        """
        operator = op.Process(processor_supplier(supplier, "add_global_store"))
        self._add_global(topic, store, operator, key, value, timestamp_extractor, name)

    def _add_global(
        self,
        topic: str,
        store: StoreSpec,
        operator: op.Operator,
        key: Hint,
        value: Hint,
        timestamp_extractor: TimestampExtractor | None,
        name: str | None,
    ) -> None:
        if not isinstance(topic, str):
            raise TopologyError(f"a global store is read from one topic, not {topic!r}")
        source = self._builder.name("KSTREAM-SOURCE-", None if name is None else f"{name}-source")
        processor = self._builder.name("KTABLE-SOURCE-", name)
        self._builder.add_global_store(
            store, source, topic, processor, operator, key=key, value=value, timestamp_extractor=timestamp_extractor
        )

    def add_state_store(self, store: StoreSpec) -> None:
        """Add a store for processors to use by name; see `Stores`.

        >>> from streamlib import Stores
        >>> StreamsBuilder().add_state_store(Stores.key_value_store("seen", key=str, value=int))
        """
        self._builder.add_store(store)

    def add_lifespan(self, lifespan: Lifespan) -> None:
        """Have something open for as long as the topology runs, such as the client that its functions call with.

        It is opened in the worker's event loop before anything is read, and closed when the last transaction is
        committed and the worker has left its group; each worker opens its own. Several are opened in the order they
        were added, and closed the other way round. `TopologyTestDriver` and the simulation open it, too.

        One that cannot be opened ends the worker with a `LifespanError`, so do not connect there to what may be down
        for a while: a client that connects with the first call leaves that to its `Service`.

        Args:
            lifespan: makes an asynchronous context manager; a function with `@asynccontextmanager`.

        Raises:
            TopologyError: it does not.

        >>> from contextlib import asynccontextmanager
        >>> prices = {}
        >>> @asynccontextmanager
        ... async def price_list():
        ...     prices["tea"] = 4
        ...     yield
        ...     prices.clear()
        >>> builder = StreamsBuilder()
        >>> builder.add_lifespan(price_list)
        >>> builder.stream("sold", key=str, value=str).map_values(lambda item: prices[item], value=int).to("paid")
        >>> from streamlib.testing import TopologyTestDriver
        >>> with TopologyTestDriver(builder.build()) as driver:
        ...     driver.input_topic("sold", key=str, value=str).pipe_input("ann", "tea")
        ...     driver.output_topic("paid", key=str, value=int).read_value()
        4
        >>> prices
        {}
        """
        self._builder.topology.add_lifespan(lifespan)

    @property
    def topology(self) -> Topology:
        """The topology under construction, to add nodes by hand beside the DSL's.

        Steps go by the names of their nodes, so give those a name that nodes added by hand are to be attached to.

        >>> class Audit:
        ...     def init(self, context): ...
        ...     def process(self, record):
        ...         print("paid", record.value)
        >>> builder = StreamsBuilder()
        >>> builder.stream("orders", key=str, value=int).filter(lambda key, paid: paid > 0, name="paid").to("out")
        >>> list(builder.topology.add_processor("audit", Audit, "paid").nodes)
        ['KSTREAM-SOURCE-0000000000', 'paid', 'KSTREAM-SINK-0000000002', 'audit']
        """
        return self._builder.topology

    def build(self) -> Topology:
        """The topology as it stands: a copy, which steps that are added later do not change.

        Raises:
            TopologyError: it cannot be one.
        """
        return self._builder.build()

    def _source(
        self, node: str, topics: tuple[str | re.Pattern[str], ...], *, key: Hint, value: Hint, **options: Any
    ) -> Point:
        """Read topics; the options are those of `add_source`."""
        self._builder.topology.add_source(node, *topics, key=key, value=value, **options)
        sources = frozenset(topic.pattern if isinstance(topic, re.Pattern) else topic for topic in topics)
        return Point(self._builder, node, serde_for(key), serde_for(value), sources)


def _topic_names(topics: object) -> tuple[Any, ...]:
    if isinstance(topics, str | re.Pattern):
        return (topics,)
    if not isinstance(topics, Sequence):
        raise TopologyError(f"stream needs the name of a topic or several, not {topics!r}")
    return tuple(topics)
