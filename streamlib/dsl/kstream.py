"""Streams: records that stand for themselves, and the branches they split into."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, overload

import msgspec

from streamlib.dsl.deduplicate import DeduplicateOptions, deduplicated
from streamlib.dsl.functions import (
    UNSET,
    Hint,
    returns,
    returns_iterable,
    returns_pair,
    returns_pairs,
    serde_of,
)
from streamlib.dsl.graph import Called, Point, RepartitionOptions, check_same_builder, repartitioned
from streamlib.dsl.joining import Joining
from streamlib.dsl.materialized import Materialized, StoreOption
from streamlib.dsl.processing import processed
from streamlib.dsl.processor import FixedKeyProcessor, Processor
from streamlib.errors import TopologyError
from streamlib.policies import PolicyOption
from streamlib.serdes import Serde, Serdes
from streamlib.topology import operators as op
from streamlib.topology.checks import check_policy, check_sink
from streamlib.topology.functions import call_options, user_function
from streamlib.topology.nodes import Partitioner, ProcessorNode, SinkNode, StoreSpec, TopicChooser
from streamlib.topology.operators import Ordered
from streamlib.topology.services import Service

if TYPE_CHECKING:
    from streamlib.dsl.grouped import KGroupedStream
    from streamlib.dsl.ktable import KTable

K = TypeVar("K")
V = TypeVar("V")
K2 = TypeVar("K2")
V2 = TypeVar("V2")
VR = TypeVar("VR")


class KStream(Joining[K, V]):
    """A stream of records with keys of type `K` and values of type `V`.

    Each method adds a step and returns the stream after it; a stream may be used several times. Types that a step
    changes are taken from `key=` and `value=`, else from the function's annotations, else they stay.

    The functions of `filter`, `filter_not`, `map`, `map_values`, `flat_map`, `flat_map_values`, `peek` and `foreach`
    may be declared with `async def`. Their calls then overlap, and these options say how:

    - `concurrency`: how many calls one task has under way at a time, 64 if not given.
    - `ordered`: `"key"` (if not given): the calls of one key come one after the other; `"partition"`: the results go on
      in the order of the records; `"none"`: as they come.
    - `timeout`: a call that takes longer has failed; without one it may take for ever.
    - `service`: the `Service` that is called: how often it may be, and when calls wait until it works again.

    What becomes of a record at which a function raises is said by `on_error`, else by `on_processing_error` of the
    configuration: `"fail"`, `"skip"`, `DeadLetter(topic)`, `Retry(delays)`, or a function that is told of the
    `FailedRecord` and returns one of these; `on_error` may also be `RetryTopics(delays)`. The page on errors has more.

    >>> from streamlib import StreamsBuilder
    >>> builder = StreamsBuilder()
    >>> builder.stream("in", key=str, value=int).filter(lambda key, value: value > 0).to("out")
    >>> print(builder.build().describe())
    Topologies:
       Sub-topology: 0
        Source: KSTREAM-SOURCE-0000000000 (topics: [in])
          --> KSTREAM-FILTER-0000000001
        Processor: KSTREAM-FILTER-0000000001 (stores: [])
          --> KSTREAM-SINK-0000000002
          <-- KSTREAM-SOURCE-0000000000
        Sink: KSTREAM-SINK-0000000002 (topic: out)
          <-- KSTREAM-FILTER-0000000001
    <BLANKLINE>
    <BLANKLINE>
    """

    def __init__(self, point: Point) -> None:
        self._point = point
        self._repartitioned_for_join: Point | None = None

    # -- One record at a time, the key stays -------------------------------------------------------------------------

    def filter(
        self,
        predicate: Callable[[K, V], object],
        *,
        concurrency: int | None = None,
        ordered: Ordered | None = None,
        timeout: timedelta | None = None,
        service: Service | None = None,
        on_error: PolicyOption | None = None,
        name: str | None = None,
    ) -> KStream[K, V]:
        """Keep the records that `predicate(key, value)` accepts.

        >>> from streamlib.testing import run_stream
        >>> run_stream(lambda s: s.filter(lambda key, value: value > 1), [("a", 1), ("a", 2)])
        [('a', 2)]
        """
        calls = call_options(predicate, "filter", (concurrency, ordered, timeout, service))
        operator = op.Filter(predicate, calls=calls)
        return self._next("KSTREAM-FILTER-", operator, name, on_error)

    def filter_not(
        self,
        predicate: Callable[[K, V], object],
        *,
        concurrency: int | None = None,
        ordered: Ordered | None = None,
        timeout: timedelta | None = None,
        service: Service | None = None,
        on_error: PolicyOption | None = None,
        name: str | None = None,
    ) -> KStream[K, V]:
        """Keep the records that `predicate(key, value)` refuses.

        >>> from streamlib.testing import run_stream
        >>> run_stream(lambda s: s.filter_not(lambda key, value: value > 1), [("a", 1), ("a", 2)])
        [('a', 1)]
        """
        calls = call_options(predicate, "filter_not", (concurrency, ordered, timeout, service))
        operator = op.Filter(predicate, True, calls)
        return self._next("KSTREAM-FILTER-", operator, name, on_error)

    @overload
    def map_values(
        self,
        mapper: Callable[[V], Awaitable[VR]],
        *,
        value: Hint = ...,
        concurrency: int | None = ...,
        ordered: Ordered | None = ...,
        timeout: timedelta | None = ...,
        service: Service | None = ...,
        on_error: PolicyOption | None = ...,
        name: str | None = ...,
    ) -> KStream[K, VR]: ...
    @overload
    def map_values(
        self,
        mapper: Callable[[V], VR],
        *,
        value: Hint = ...,
        on_error: PolicyOption | None = ...,
        name: str | None = ...,
    ) -> KStream[K, VR]: ...
    @overload
    def map_values(
        self,
        mapper: Callable[[K, V], Awaitable[VR]],
        *,
        with_key: Literal[True],
        value: Hint = ...,
        concurrency: int | None = ...,
        ordered: Ordered | None = ...,
        timeout: timedelta | None = ...,
        service: Service | None = ...,
        on_error: PolicyOption | None = ...,
        name: str | None = ...,
    ) -> KStream[K, VR]: ...
    @overload
    def map_values(
        self,
        mapper: Callable[[K, V], VR],
        *,
        with_key: Literal[True],
        value: Hint = ...,
        on_error: PolicyOption | None = ...,
        name: str | None = ...,
    ) -> KStream[K, VR]: ...
    def map_values(
        self,
        mapper: Callable[..., Any],
        *,
        with_key: bool = False,
        value: Hint = UNSET,
        concurrency: int | None = None,
        ordered: Ordered | None = None,
        timeout: timedelta | None = None,
        service: Service | None = None,
        on_error: PolicyOption | None = None,
        name: str | None = None,
    ) -> KStream[K, Any]:
        """Replace the value by `mapper(value)`, or by `mapper(key, value)` with `with_key=True`.

        >>> from streamlib.testing import run_stream
        >>> run_stream(lambda s: s.map_values(lambda value: value * 10), [("a", 1)])
        [('a', 10)]
        """
        calls = call_options(mapper, "map_values", (concurrency, ordered, timeout, service))
        operator = op.MapValues(mapper, with_key, calls)
        serde = serde_of(value, self._point.value, returns(mapper))
        return self._next("KSTREAM-MAPVALUES-", operator, name, on_error, value=serde)

    @overload
    def flat_map_values(
        self,
        mapper: Callable[[V], Iterable[VR] | Awaitable[Iterable[VR]] | AsyncIterable[VR]],
        *,
        value: Hint = ...,
        concurrency: int | None = ...,
        ordered: Ordered | None = ...,
        timeout: timedelta | None = ...,
        service: Service | None = ...,
        on_error: PolicyOption | None = ...,
        name: str | None = ...,
    ) -> KStream[K, VR]: ...
    @overload
    def flat_map_values(
        self,
        mapper: Callable[[K, V], Iterable[VR] | Awaitable[Iterable[VR]] | AsyncIterable[VR]],
        *,
        with_key: Literal[True],
        value: Hint = ...,
        concurrency: int | None = ...,
        ordered: Ordered | None = ...,
        timeout: timedelta | None = ...,
        service: Service | None = ...,
        on_error: PolicyOption | None = ...,
        name: str | None = ...,
    ) -> KStream[K, VR]: ...
    def flat_map_values(
        self,
        mapper: Callable[..., Any],
        *,
        with_key: bool = False,
        value: Hint = UNSET,
        concurrency: int | None = None,
        ordered: Ordered | None = None,
        timeout: timedelta | None = None,
        service: Service | None = None,
        on_error: PolicyOption | None = None,
        name: str | None = None,
    ) -> KStream[K, Any]:
        """Replace each record by one for each value that `mapper(value)` (or `mapper(key, value)`) gives.

        >>> from streamlib.testing import run_stream
        >>> run_stream(lambda s: s.flat_map_values(lambda value: range(value)), [("a", 2)])
        [('a', 0), ('a', 1)]
        """
        calls = call_options(mapper, "flat_map_values", (concurrency, ordered, timeout, service), many=True)
        operator = op.FlatMapValues(mapper, with_key, calls)
        serde = serde_of(value, self._point.value, returns_iterable(mapper))
        return self._next("KSTREAM-FLATMAPVALUES-", operator, name, on_error, value=serde)

    def peek(
        self,
        action: Callable[[K, V], object],
        *,
        concurrency: int | None = None,
        ordered: Ordered | None = None,
        timeout: timedelta | None = None,
        service: Service | None = None,
        on_error: PolicyOption | None = None,
        name: str | None = None,
    ) -> KStream[K, V]:
        """Call `action(key, value)` for each record, then go on with the record as it is.

        What the action does is repeated when a transaction is.

        >>> from streamlib.testing import run_stream
        >>> run_stream(lambda s: s.peek(print), [("a", 1)])
        a 1
        [('a', 1)]
        """
        calls = call_options(action, "peek", (concurrency, ordered, timeout, service))
        operator = op.Peek(action, calls)
        return self._next("KSTREAM-PEEK-", operator, name, on_error)

    def with_record_id(self, *, header: str = "record-id", name: str | None = None) -> KStream[K, V]:
        """Add a header with the record's id (`RecordMetadata.id`), by which others can tell that they have seen it.

        A record that comes with this header keeps it, so behind other topics it is still the id of the first record.

        >>> from streamlib import StreamsBuilder
        >>> from streamlib.testing import TopologyTestDriver
        >>> builder = StreamsBuilder()
        >>> builder.stream("in", key=str, value=str).flat_map_values(str.split).with_record_id().to("out")
        >>> with TopologyTestDriver(builder.build()) as driver:
        ...     driver.input_topic("in", key=str, value=str).pipe_input("a", "to be")
        ...     [record.headers for record in driver.output_topic("out").read_records()]
        [(('record-id', b'in-0-0-0'),), (('record-id', b'in-0-0-1'),)]
        """
        return self._next("KSTREAM-RECORD-ID-", op.AddRecordId(header), name, None)

    def print(self, *, label: str | None = None, name: str | None = None) -> None:
        """Write each record to standard output, as `[label]: key, value`; the end of the line, for a look at things.

        >>> from streamlib.testing import run_stream
        >>> run_stream(lambda s: s.print(label="in") or s, [("a", 1)])
        [in]: a, 1
        [('a', 1)]
        """
        node = self._point.builder.name("KSTREAM-PRINTER-", name)
        shown = node if label is None else label
        self._point.then(node, op.Foreach(lambda key, value: print(f"[{shown}]: {key}, {value}")))

    def foreach(
        self,
        action: Callable[[K, V], object],
        *,
        concurrency: int | None = None,
        ordered: Ordered | None = None,
        timeout: timedelta | None = None,
        service: Service | None = None,
        on_error: PolicyOption | None = None,
        name: str | None = None,
    ) -> None:
        """Call `action(key, value)` for each record; nothing comes after it.

        >>> from streamlib.testing import run_stream
        >>> run_stream(lambda s: (s.foreach(print), s)[1], [("a", 1)])
        a 1
        [('a', 1)]
        """
        calls = call_options(action, "foreach", (concurrency, ordered, timeout, service))
        operator = op.Foreach(action, calls)
        self._next("KSTREAM-FOREACH-", operator, name, on_error)

    # -- The key may change ------------------------------------------------------------------------------------------

    def map(
        self,
        mapper: Callable[[K, V], tuple[K2, V2] | Awaitable[tuple[K2, V2]]],
        *,
        key: Hint = UNSET,
        value: Hint = UNSET,
        concurrency: int | None = None,
        ordered: Ordered | None = None,
        timeout: timedelta | None = None,
        service: Service | None = None,
        on_error: PolicyOption | None = None,
        name: str | None = None,
    ) -> KStream[K2, V2]:
        """Replace key and value by what `mapper(key, value)` returns.

        >>> from streamlib.testing import run_stream
        >>> run_stream(lambda s: s.map(lambda key, value: (key + "!", value + 1)), [("a", 1)])
        [('a!', 2)]
        """
        calls = call_options(mapper, "map", (concurrency, ordered, timeout, service))
        operator = op.MapRecords(mapper, calls)
        return self._rekeyed("KSTREAM-MAP-", operator, (name, on_error), (key, value), returns_pair(mapper))

    def flat_map(
        self,
        mapper: Callable[
            [K, V],
            Iterable[tuple[K2, V2]] | Awaitable[Iterable[tuple[K2, V2]]] | AsyncIterable[tuple[K2, V2]],
        ],
        *,
        key: Hint = UNSET,
        value: Hint = UNSET,
        concurrency: int | None = None,
        ordered: Ordered | None = None,
        timeout: timedelta | None = None,
        service: Service | None = None,
        on_error: PolicyOption | None = None,
        name: str | None = None,
    ) -> KStream[K2, V2]:
        """Replace each record by one for each (key, value) that `mapper(key, value)` gives.

        >>> from streamlib.testing import run_stream
        >>> run_stream(lambda s: s.flat_map(lambda key, value: [(key, value), ("b", 0)]), [("a", 1)])
        [('a', 1), ('b', 0)]
        """
        calls = call_options(mapper, "flat_map", (concurrency, ordered, timeout, service), many=True)
        operator = op.FlatMap(mapper, calls)
        return self._rekeyed("KSTREAM-FLATMAP-", operator, (name, on_error), (key, value), returns_pairs(mapper))

    def select_key(
        self,
        selector: Callable[[K, V], K2],
        *,
        key: Hint = UNSET,
        on_error: PolicyOption | None = None,
        name: str | None = None,
    ) -> KStream[K2, V]:
        """Give each record the key `selector(key, value)`. What needs the key next goes through a repartition topic.

        >>> from streamlib.testing import run_stream
        >>> run_stream(lambda s: s.select_key(lambda key, value: str(value)), [("a", 1)])
        [('1', 1)]
        """
        operator = op.SelectKey(user_function(selector, "select_key"))
        return self._rekeyed(
            "KSTREAM-KEY-SELECT-", operator, (name, on_error), (key, UNSET), (returns(selector), UNSET)
        )

    # -- Several streams ---------------------------------------------------------------------------------------------

    def merge(self, other: KStream[K, V], *, name: str | None = None) -> KStream[K, V]:
        """This stream's records and the other's, in the order they are processed.

        >>> from streamlib.testing import run_stream
        >>> run_stream(lambda s: s.merge(s.map_values(lambda value: -value)), [("a", 1)])
        [('a', -1), ('a', 1)]
        """
        if not isinstance(other, KStream):
            raise TopologyError(f"merge needs another stream, not {other!r}")
        mine, others = self._point, other._point
        check_same_builder(mine, others, "merge")
        node = mine.builder.name("KSTREAM-MERGE-", name)
        mine.builder.add(ProcessorNode(name=node, operator=op.PassThrough(), parents=(mine.node, others.node)))
        return KStream(
            msgspec.structs.replace(
                mine, node=node, sources=mine.sources | others.sources, rekeyed=mine.rekeyed or others.rekeyed
            )
        )

    def split(self, *, name: str | None = None) -> BranchedKStream[K, V]:
        """Split into branches; each record goes to the first whose predicate accepts it.

        >>> from streamlib import StreamsBuilder
        >>> stream = StreamsBuilder().stream("in", key=str, value=int)
        >>> branches = (
        ...     stream.split(name="by-")
        ...     .branch(lambda key, value: value > 100, name="big")
        ...     .default_branch(name="rest")
        ... )
        >>> sorted(branches)
        ['by-big', 'by-rest']
        """
        return BranchedKStream(self._point, self._point.builder.name("KSTREAM-BRANCH-", name))

    def repartition(
        self,
        *,
        name: str | None = None,
        partitions: int | None = None,
        key: Hint = UNSET,
        value: Hint = UNSET,
        partitioner: Partitioner | None = None,
    ) -> KStream[K, V]:
        """Lead the records through an internal topic, so that those of one key meet in one task.

        Args:
            name: the topic is `<application_id>-<name>-repartition`.
            partitions: as many as the largest input has, if not given.
            key: the keys' type.
            value: the values' type.
            partitioner: chooses the partition: f(topic, key, value, partitions).

        >>> from streamlib import StreamsBuilder
        >>> builder = StreamsBuilder()
        >>> builder.stream("in").repartition(name="spread", partitions=8).to("out")
        >>> builder.build().repartition_topics["spread-repartition"].partitions
        8
        """
        if partitions is not None and partitions < 1:
            raise TopologyError(f"repartition needs at least one partition, not {partitions}")
        if partitioner is not None:
            user_function(partitioner, "the partitioner of repartition")
        topic = name if name is not None else self._point.builder.name("KSTREAM-REPARTITION-")
        return KStream(
            repartitioned(self._typed(key, value), RepartitionOptions(topic, partitions, partitioner, shareable=False))
        )

    def deduplicate(
        self,
        within: timedelta,
        *,
        id_selector: Callable[[K, V], object] | None = None,
        id: Hint = UNSET,
        key: Hint = UNSET,
        value: Hint = UNSET,
        store: StoreOption = None,
        name: str | None = None,
    ) -> KStream[K, V]:
        """Drop records that repeat one of the same key, or of the same key and id, from at most `within` away.

        A record is dropped if one was let through whose time is at most `within` before or after its own, whichever
        came first: records may come in any order. Dropped ones are not remembered: of a record that comes again and
        again one passes every now and then. Records without a key, or whose id is None, always pass.

        Ids are compared among the records of one key, which one task sees. Where the same id may come under several
        keys, make it the key first: `stream.select_key(...).deduplicate(...)`.

        What was let through is kept in a window store for twice `within`. A record that is later than `within`,
        measured by the times of those let through, may pass although it is a repetition; `store=Materialized(
        retention=...)` keeps them for longer.

        Args:
            within: how far apart in event time repetitions may be, inclusive.
            id_selector: gives a record's id: `id_selector(key, value)`. Without one the key is the id.
            id: the ids' type; any that can be written as JSON if not given.
            key: the keys' type, for the repartition topic if one is needed.
            value: the values' type, likewise.
            store: the store's name, or how it is kept.
            name: of the node and the repartition topic.

        Raises:
            TopologyError: `within` is no timedelta, or the store's retention is shorter.

        >>> from streamlib.testing import run_stream
        >>> run_stream(lambda s: s.deduplicate(timedelta(seconds=10)), [("a", 1), ("b", 1), ("a", 2)])
        [('a', 1), ('b', 1)]
        """
        selector = None if id_selector is None else user_function(id_selector, "deduplicate")
        returned = UNSET if selector is None else returns(selector)
        serde = serde_of(id, Serdes.json(Any), returned)
        return KStream(deduplicated(self._typed(key, value), DeduplicateOptions(within, selector, serde, store, name)))

    # -- Groups and tables -------------------------------------------------------------------------------------------

    def group_by_key(self, *, key: Hint = UNSET, value: Hint = UNSET, name: str | None = None) -> KGroupedStream[K, V]:
        """Group by the key there is. Repartitions only if the key may have changed before.

        >>> from streamlib import StreamsBuilder
        >>> counts = StreamsBuilder().stream("in", key=str, value=int).group_by_key().count(store="counts")
        """
        from streamlib.dsl.grouped import KGroupedStream

        return KGroupedStream(self._typed(key, value), name)

    def group_by(
        self,
        selector: Callable[[K, V], K2],
        *,
        key: Hint = UNSET,
        value: Hint = UNSET,
        name: str | None = None,
    ) -> KGroupedStream[K2, V]:
        """Group by `selector(key, value)`, through the repartition topic `<application_id>-<name>-repartition`.

        >>> from streamlib import StreamsBuilder
        >>> stream = StreamsBuilder().stream("in", key=str, value=str)
        >>> counts = stream.group_by(lambda key, word: word, name="by-word").count(store="counts")
        """
        from streamlib.dsl.grouped import KGroupedStream

        operator = op.SelectKey(user_function(selector, "group_by"))
        hints = (key, value)
        stream: KStream[K2, V] = self._rekeyed(
            "KSTREAM-KEY-SELECT-", operator, (name, None), hints, (returns(selector), UNSET)
        )
        return KGroupedStream(stream._point, name)

    @overload
    def to_table(
        self: KStream[K, V2 | None],
        *,
        key: Hint = ...,
        value: Hint = ...,
        store: StoreOption = ...,
        name: str | None = ...,
    ) -> KTable[K, V2]: ...
    @overload
    def to_table(
        self, *, key: Hint = ..., value: Hint = ..., store: StoreOption = ..., name: str | None = ...
    ) -> KTable[K, V]: ...
    def to_table(
        self, *, key: Hint = UNSET, value: Hint = UNSET, store: StoreOption = None, name: str | None = None
    ) -> KTable[K, Any]:
        """Take each record as the new value of its key; a None value deletes.

        >>> from streamlib import StreamsBuilder
        >>> latest = StreamsBuilder().stream("in", key=str, value=int).to_table(store="latest")
        """
        from streamlib.dsl.ktable import KTable

        point = self._typed(key, value)
        builder = point.builder
        node = builder.name("KSTREAM-TOTABLE-", name)
        materialized = Materialized.of(store)
        store_name = builder.store_name("KSTREAM-TOTABLE-", materialized.name)
        if point.rekeyed:
            point = repartitioned(point, RepartitionOptions(node))
        spec = materialized.table_spec(store_name, point.key, point.value)
        table: KTable[K, Any] = KTable._source(point.then(node, op.StreamToTable()), spec)
        if materialized.in_any_case:
            table._lookup_stores()
        return table

    # -- Processors and topics ---------------------------------------------------------------------------------------

    @overload
    def process(
        self,
        supplier: Callable[[], Processor[K, V]],
        *stores: str | StoreSpec,
        key: type[K2] | Serde[K2],
        value: type[V2] | Serde[V2],
        on_error: PolicyOption | None = ...,
        name: str | None = ...,
    ) -> KStream[K2, V2]: ...
    @overload
    def process(
        self,
        supplier: Callable[[], Processor[K, V]],
        *stores: str | StoreSpec,
        key: Hint = ...,
        value: Hint = ...,
        on_error: PolicyOption | None = ...,
        name: str | None = ...,
    ) -> KStream[Any, Any]: ...
    def process(
        self,
        supplier: Callable[[], Processor[K, V]],
        *stores: str | StoreSpec,
        key: Hint = UNSET,
        value: Hint = UNSET,
        on_error: PolicyOption | None = None,
        name: str | None = None,
    ) -> KStream[Any, Any]:
        """Give each record to a processor of your own; `supplier()` makes one for each task.

        Args:
            supplier: a class or function without arguments. The stores in its attribute `stores`, or that its function
                of this name returns, are added and connected.
            stores: the stores it uses: names of added ones, or specs, which are added.
            key: the type of the keys it forwards.
            value: the type of the values it forwards.
            on_error: what becomes of a record at which it raises, if not what the configuration says. What the
                processor did with it before stays; it is called again (`Retry`) only if that was nothing.
            name: of the node.

        >>> from streamlib import Stores, StreamsBuilder
        >>> class Numbered:
        ...     def init(self, context):
        ...         self.context, self.count = context, context.state_store("count")
        ...     def process(self, record):
        ...         number = (self.count.get("n") or 0) + 1
        ...         self.count.put("n", number)
        ...         self.context.forward(record.with_value(number))
        >>> builder = StreamsBuilder()
        >>> count = Stores.key_value_store("count", key=str, value=int)
        >>> builder.stream("in", key=str, value=str).process(Numbered, count, value=int).to("out")
        """
        changes = {"key": serde_of(key, self._point.key), "value": serde_of(value, self._point.value), "rekeyed": True}
        return KStream(processed(self._point, supplier, stores, (name, on_error), keeps_key=False, **changes))

    @overload
    def process_values(
        self,
        supplier: Callable[[], FixedKeyProcessor[K, V]],
        *stores: str | StoreSpec,
        value: type[V2] | Serde[V2],
        on_error: PolicyOption | None = ...,
        name: str | None = ...,
    ) -> KStream[K, V2]: ...
    @overload
    def process_values(
        self,
        supplier: Callable[[], FixedKeyProcessor[K, V]],
        *stores: str | StoreSpec,
        value: Hint = ...,
        on_error: PolicyOption | None = ...,
        name: str | None = ...,
    ) -> KStream[K, Any]: ...
    def process_values(
        self,
        supplier: Callable[[], FixedKeyProcessor[K, V]],
        *stores: str | StoreSpec,
        value: Hint = UNSET,
        on_error: PolicyOption | None = None,
        name: str | None = None,
    ) -> KStream[K, Any]:
        """As `process`, for a processor that leaves keys alone: no repartition topic is needed after it.

        Args:
            supplier: a class or function without arguments; its `stores` are added and connected.
            stores: the stores it uses: names of added ones, or specs, which are added.
            value: the type of the values it forwards.
            on_error: what becomes of a record at which it raises, if not what the configuration says. What the
                processor did with it before stays; it is called again (`Retry`) only if that was nothing.
            name: of the node.

        >>> from streamlib import Stores
        >>> from streamlib.testing import run_stream
        >>> class Changes:
        ...     stores = (Stores.key_value_store("last", key=str, value=int),)
        ...     def init(self, context):
        ...         self.context, self.last = context, context.state_store("last")
        ...     def process(self, record):
        ...         if record.value != self.last.get(record.key):
        ...             self.last.put(record.key, record.value)
        ...             self.context.forward(record)
        >>> run_stream(lambda s: s.process_values(Changes), [("a", 1), ("a", 1), ("a", 2)])
        [('a', 1), ('a', 2)]
        """
        serde = serde_of(value, self._point.value)
        return KStream(processed(self._point, supplier, stores, (name, on_error), keeps_key=True, value=serde))

    def to(
        self,
        topic: str | TopicChooser,
        *,
        key: Hint = UNSET,
        value: Hint = UNSET,
        partitioner: Partitioner | None = None,
        on_error: PolicyOption | None = None,
        name: str | None = None,
    ) -> None:
        """Write the records to a topic, or for each to the one that `topic(key, value, context)` chooses.

        `on_error` says what becomes of those that cannot be written, if not `on_production_error` of the configuration.

        >>> from streamlib import StreamsBuilder
        >>> stream = StreamsBuilder().stream("in", key=str, value=int)
        >>> stream.to(lambda key, value, context: "even" if value % 2 == 0 else "odd")
        """
        check_sink(topic, partitioner, on_error, "to")
        point = self._typed(key, value)
        node = point.builder.name("KSTREAM-SINK-", name)
        sink = SinkNode(
            name=node,
            topic=topic,
            key=point.key,
            value=point.value,
            parents=(point.node,),
            partitioner=partitioner,
            on_error=on_error,
        )
        point.builder.add(sink)

    # -- How it is done ----------------------------------------------------------------------------------------------

    def _next(
        self, prefix: str, operator: op.Operator, name: str | None, on_error: PolicyOption | None, **changes: Any
    ) -> KStream[Any, Any]:
        node = self._point.builder.name(prefix, name)
        check_policy(on_error, f"{node}: on_error", retry=True, topics=True)
        return KStream(self._point.then(node, operator, on_error=on_error, **changes))

    def _rekeyed(
        self,
        prefix: str,
        operator: op.Operator,
        called: Called,
        hints: tuple[Hint, Hint],
        returned: tuple[Hint, Hint],
    ) -> KStream[Any, Any]:
        key = serde_of(hints[0], self._point.key, returned[0])
        value = serde_of(hints[1], self._point.value, returned[1])
        return self._next(prefix, operator, *called, key=key, value=value, rekeyed=True)

    def _typed(self, key: Hint, value: Hint) -> Point:
        point = self._point
        return msgspec.structs.replace(point, key=serde_of(key, point.key), value=serde_of(value, point.value))


Then: TypeAlias = Callable[[KStream[K, V]], KStream[K, V] | None]
"""What is done with a branch in place: what it returns goes by the branch's name; None: nothing does."""


class BranchedKStream(Generic[K, V]):
    """A stream that is being split; `default_branch` or `no_default_branch` gives the branches by name.

    A branch is called the split's name followed by its own, or by its number if it has none (0 for the default).
    """

    def __init__(self, point: Point, node: str) -> None:
        self._point = point
        self._node = node
        self._operator = op.Branch((), ())
        self._branches: dict[str, KStream[K, V]] = {}
        point.builder.add(ProcessorNode(name=node, operator=self._operator, parents=(point.node,)))

    def branch(
        self, predicate: Callable[[K, V], object], *, name: str | None = None, then: Then[K, V] | None = None
    ) -> BranchedKStream[K, V]:
        """Add a branch for the records that `predicate(key, value)` accepts and no branch before it did.

        Args:
            predicate: called with key and value.
            name: of the branch.
            then: what to do with the branch at once; what it returns takes the branch's place among the branches, and
                the branch is not among them if it returns None.

        >>> from streamlib import StreamsBuilder
        >>> split = StreamsBuilder().stream("in", key=str, value=int).split(name="by-")
        >>> split = split.branch(lambda key, value: value < 0, name="bad", then=lambda bad: bad.to("bad"))
        >>> list(split.branch(lambda key, value: value > 100, name="big").no_default_branch())
        ['by-big']
        """
        accepts = user_function(predicate, "branch")
        old = self._operator
        child = self._child_name(name, len(old.predicates) + 1)
        self._add(child, op.Branch((*old.predicates, accepts), (*old.children, child)), then)
        return self

    def default_branch(self, *, name: str | None = None, then: Then[K, V] | None = None) -> Mapping[str, KStream[K, V]]:
        """What no predicate accepted is a branch, too. Returns all branches by name.

        >>> from streamlib import StreamsBuilder
        >>> split = StreamsBuilder().stream("in", key=str, value=int).split(name="by-")
        >>> list(split.branch(lambda key, value: value > 100).default_branch())
        ['by-1', 'by-0']
        """
        child = self._child_name(name, 0)
        self._add(child, msgspec.structs.replace(self._operator, default=child), then)
        return self._branches

    def no_default_branch(self) -> Mapping[str, KStream[K, V]]:
        """What no predicate accepted is dropped. Returns all branches by name.

        >>> from streamlib import StreamsBuilder
        >>> split = StreamsBuilder().stream("in", key=str, value=int).split(name="by-")
        >>> list(split.branch(lambda key, value: value > 100).no_default_branch())
        ['by-1']
        """
        return self._branches

    def _child_name(self, name: str | None, number: int) -> str:
        return f"{self._node}{number if name is None else name}"

    def _add(self, child: str, operator: op.Branch, then: Then[K, V] | None) -> None:
        if self._operator.default is not None:
            raise TopologyError(f"split {self._node} has its default branch: add no more branches")
        builder = self._point.builder
        builder.name("", child)  # uses a number up
        builder.add(ProcessorNode(name=child, operator=op.PassThrough(), parents=(self._node,)))
        self._operator = operator
        builder.replace_operator(self._node, operator)
        branch: KStream[K, V] = KStream(msgspec.structs.replace(self._point, node=child))
        result = branch if then is None else user_function(then, "branch")(branch)
        if result is not None:
            self._branches[child] = result
