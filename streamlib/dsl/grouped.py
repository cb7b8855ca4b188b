"""Grouped streams and their aggregations, which are tables."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Generic, TypeVar, overload

from streamlib.dsl.aggregators import Aggregation, ReadyFold
from streamlib.dsl.cogroup import CogroupedKStream, CogroupInput
from streamlib.dsl.functions import UNSET, Hint, returns, serde_of
from streamlib.dsl.graph import Called, Point, RepartitionOptions, repartitioned, through_the_same_topic
from streamlib.dsl.ktable import KTable
from streamlib.dsl.materialized import Materialized, StoreOption
from streamlib.dsl.session_windowed import SessionWindowedKStream
from streamlib.dsl.windowed import FixedWindows, OnLate, TimeWindowedKStream, WindowOptions
from streamlib.errors import TopologyError
from streamlib.policies import PolicyOption
from streamlib.serdes import Serde, Serdes
from streamlib.topology import operators as op
from streamlib.topology.checks import check_policy
from streamlib.topology.functions import user_function
from streamlib.windows import SessionWindows, SlidingWindows, TimeWindows, UnlimitedWindows

K = TypeVar("K")
V = TypeVar("V")
VA = TypeVar("VA")
VR = TypeVar("VR")


class KGroupedStream(Generic[K, V]):
    """A stream whose records are about to be folded by key. Records with a null key or value do not count."""

    def __init__(self, point: Point, name: str | None) -> None:
        self._point = point
        self._name = name
        self._named_repartition: Point | None = None

    def count(self, *, store: StoreOption = None, name: str | None = None) -> KTable[K, int]:
        """How many records each key has had.

        >>> from streamlib.testing import run_stream
        >>> run_stream(lambda s: s.group_by_key().count().to_stream(), [("a", 5), ("a", 7)])
        [('a', 1), ('a', 2)]
        """
        return self._fold("KSTREAM-AGGREGATE-", op.StreamCount, Serdes.long(), store, (name, None))

    def reduce(
        self,
        reducer: Callable[[V, V], V],
        *,
        store: StoreOption = None,
        on_error: PolicyOption | None = None,
        name: str | None = None,
    ) -> KTable[K, V]:
        """Fold each key's values by `reducer(aggregate, value)`; the first value is the first aggregate.

        `on_error` says what becomes of a record at which it raises, if not what the configuration says.

        >>> from streamlib.testing import run_stream
        >>> run_stream(lambda s: s.group_by_key().reduce(max).to_stream(), [("a", 5), ("a", 3), ("a", 7)])
        [('a', 5), ('a', 5), ('a', 7)]
        """
        function = user_function(reducer, "reduce")
        return self._fold(
            "KSTREAM-REDUCE-",
            lambda named: op.StreamReduce(named, function),
            self._point.value,
            store,
            (name, on_error),
        )

    @overload
    def aggregate(
        self, aggregation: Aggregation[V, VR], /, *, store: StoreOption = ..., name: str | None = ...
    ) -> KTable[K, VR]: ...
    @overload
    def aggregate(
        self,
        initializer: Callable[[], VA],
        aggregator: Callable[[K, V, VA], VA | None],
        *,
        value: Hint = ...,
        store: StoreOption = ...,
        on_error: PolicyOption | None = ...,
        name: str | None = ...,
    ) -> KTable[K, VA]: ...
    def aggregate(
        self,
        initializer: Any,
        aggregator: Callable[[Any, Any, Any], Any] | None = None,
        *,
        value: Hint = UNSET,
        store: StoreOption = None,
        on_error: PolicyOption | None = None,
        name: str | None = None,
    ) -> KTable[K, Any]:
        """Fold each key's values by `aggregator(key, value, aggregate)`, beginning with `initializer()`.

        A result of None deletes the row; the next record begins anew.

        Args:
            initializer: makes the first aggregate of a key; or a ready aggregation such as `Sum()`, alone.
            aggregator: makes the next one.
            value: the aggregate's type; if not given, what the functions are annotated to return.
            store: the store's name, or how it is kept; give a name, and the state survives changes of the topology
                around it.
            on_error: what becomes of a record at which a function raises, if not what the configuration says.
            name: of the node.

        >>> from streamlib.testing import run_stream
        >>> total = lambda key, value, aggregate: aggregate + value
        >>> run_stream(lambda s: s.group_by_key().aggregate(lambda: 0, total).to_stream(), [("a", 5), ("a", 7)])
        [('a', 5), ('a', 12)]
        """
        if aggregator is None:
            return self._ready(ReadyFold.of(initializer, self._point.value), store, (name, on_error))
        begin, fold = user_function(initializer, "aggregate"), user_function(aggregator, "aggregate")
        annotated = returns(aggregator)
        serde = serde_of(value, self._point.value, returns(initializer) if annotated is UNSET else annotated)
        return self._fold(
            "KSTREAM-AGGREGATE-", lambda named: op.StreamAggregate(named, begin, fold), serde, store, (name, on_error)
        )

    def cogroup(self, aggregator: Callable[[K, V, VA], VA | None]) -> CogroupedKStream[K, VA]:
        """Begin to fold this stream into one table with others, by `aggregator(key, value, aggregate)`.

        >>> from streamlib.testing import run_stream
        >>> def balance(stream):
        ...     income = stream.filter(lambda key, value: value > 0).group_by_key()
        ...     spending = stream.filter(lambda key, value: value < 0).map_values(abs).group_by_key()
        ...     cogrouped = income.cogroup(lambda key, value, total: total + value)
        ...     cogrouped = cogrouped.cogroup(spending, lambda key, value, total: total - value)
        ...     return cogrouped.aggregate(lambda: 0).to_stream()
        >>> run_stream(balance, [("ann", 50), ("ann", -20)])
        [('ann', 50), ('ann', 30)]
        """
        return CogroupedKStream([CogroupInput(self, user_function(aggregator, "cogroup"))])

    @overload
    def windowed_by(
        self,
        windows: FixedWindows,
        *,
        on_late: OnLate[K, V] | None = ...,
        idle_timeout: timedelta | None = ...,
    ) -> TimeWindowedKStream[K, V]: ...
    @overload
    def windowed_by(
        self,
        windows: SessionWindows,
        *,
        on_late: OnLate[K, V] | None = ...,
        idle_timeout: timedelta | None = ...,
    ) -> SessionWindowedKStream[K, V]: ...
    def windowed_by(
        self,
        windows: FixedWindows | SessionWindows,
        *,
        on_late: OnLate[K, V] | None = None,
        idle_timeout: timedelta | None = None,
    ) -> TimeWindowedKStream[K, V] | SessionWindowedKStream[K, V]:
        """Fold the records of each key by windows of time (tumbling, hopping, sliding or unlimited ones) or by session.

        Args:
            windows: which of them a record belongs to, and how late it may come.
            on_late: called with a `LateRecord` (key, value, timestamp, window, stream time) for each window that was
                closed when a record came for it. It is called as the record is processed: if the transaction is
                aborted, it is called again.
            idle_timeout: with `EmitStrategy.on_window_close()`, what to do when nothing comes to close the last
                windows. After so long without a record, by the wall clock, stream time goes on with the wall clock,
                from where the last record left it, until the next record. What it has closed stays closed.

        Raises:
            TopologyError: these are no windows, or an option cannot be used.

        >>> from datetime import timedelta
        >>> from streamlib import TimeWindows
        >>> from streamlib.testing import run_stream
        >>> late = []
        >>> seconds = TimeWindows.of_size(timedelta(seconds=1), grace=timedelta(0))
        >>> run_stream(
        ...     lambda s: s.group_by_key().windowed_by(seconds, on_late=late.append).count().to_stream(),
        ...     [("a", 5, 1000), ("a", 7, 500)],
        ... )
        [(Windowed(key='a', start=1000, end=2000), 1)]
        >>> late[0]
        LateRecord(key='a', value=7, timestamp=500, window=Window(start=0, end=1000), stream_time=1000)
        """
        match windows:
            case TimeWindows() | UnlimitedWindows() | SlidingWindows():
                return TimeWindowedKStream(self, windows, WindowOptions.of(on_late, idle_timeout))
            case SessionWindows():
                return SessionWindowedKStream(self, windows, WindowOptions.of(on_late, idle_timeout))
            case _:
                raise TopologyError(
                    f"windowed_by needs windows, such as TimeWindows.of_size(size, grace=grace), not {windows!r}"
                )

    def _ready(self, ready: ReadyFold, store: StoreOption, called: Called) -> KTable[K, Any]:
        def fold(named: str) -> op.StreamAggregate:
            return op.StreamAggregate(named, ready.initializer, ready.aggregator, timed=True)

        return ready.finished(self._fold("KSTREAM-AGGREGATE-", fold, ready.state, store, called))

    def _fold(
        self,
        prefix: str,
        operator: Callable[[str], op.Operator],
        value: Serde[Any],
        store: StoreOption,
        called: Called,
    ) -> KTable[K, Any]:
        builder, materialized, (name, on_error) = self._point.builder, Materialized.of(store), called
        store_name = builder.store_name(prefix, materialized.name)
        node = builder.name(prefix, name)
        check_policy(on_error, f"{node}: on_error", retry=True)
        builder.add_store(materialized.table_spec(store_name, self._point.key, value))
        point = self._partitioned(store_name).then(
            node, operator(store_name), store_name, on_error=on_error, value=value
        )
        return KTable._stored(point, store_name)

    def _partitioned(self, store: str) -> Point:
        """Behind a repartition topic if the key may have changed: one for all aggregations if the group has a name,
        else one for each, called after its store."""
        if not self._point.rekeyed:
            return self._point
        if self._named_repartition is not None:
            return through_the_same_topic(self._named_repartition)
        point = repartitioned(self._point, RepartitionOptions(self._name or store))
        if self._name is not None:
            self._named_repartition = point
        return point
