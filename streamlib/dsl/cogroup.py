"""Several grouped streams folded into one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, overload

from streamlib.dsl.functions import UNSET, Hint, returns, serde_of
from streamlib.dsl.graph import Point, check_same_builder, through_the_same_topic
from streamlib.dsl.ktable import KTable
from streamlib.dsl.materialized import Materialized, StoreOption
from streamlib.dsl.session_windowed import session_store
from streamlib.dsl.windowed import FixedWindows, window_store
from streamlib.errors import TopologyError
from streamlib.serdes import Serde
from streamlib.topology import operators as op
from streamlib.topology.builder import TopologyBuilder
from streamlib.topology.functions import user_function
from streamlib.topology.nodes import ProcessorNode, StoreSpec
from streamlib.windows import (
    SessionWindows,
    SlidingWindows,
    TimeWindows,
    UnlimitedWindows,
    Windowed,
    session_windowed,
    time_windowed,
)

if TYPE_CHECKING:
    from streamlib.dsl.grouped import KGroupedStream

K = TypeVar("K")
V = TypeVar("V")
VA = TypeVar("VA")

AGGREGATE = "COGROUPKSTREAM-AGGREGATE-"
MERGE = "COGROUPKSTREAM-MERGE-"


class CogroupedKStream(Generic[K, VA]):
    """Grouped streams with keys of type `K`, each with the aggregator that folds it into what they share.

    Records with a null key or value do not count. Source: `CogroupedKStreamImpl`, `CogroupedStreamAggregateBuilder`.
    """

    def __init__(self, inputs: Sequence[CogroupInput]) -> None:
        self._cogroup = Cogroup(inputs)

    def cogroup(
        self, group: KGroupedStream[K, V], aggregator: Callable[[K, V, VA], VA | None]
    ) -> CogroupedKStream[K, VA]:
        """The same with one more stream, folded by `aggregator(key, value, aggregate)`.

        Raises:
            TopologyError: the group is among them already, or grows in another topology.
        """
        return CogroupedKStream([*self._cogroup.inputs, CogroupInput(group, user_function(aggregator, "cogroup"))])

    @overload
    def windowed_by(self, windows: FixedWindows) -> TimeWindowedCogroupedKStream[K, VA]: ...
    @overload
    def windowed_by(self, windows: SessionWindows) -> SessionWindowedCogroupedKStream[K, VA]: ...
    def windowed_by(
        self, windows: FixedWindows | SessionWindows
    ) -> TimeWindowedCogroupedKStream[K, VA] | SessionWindowedCogroupedKStream[K, VA]:
        """Fold the streams by key and window, or by key and session. Each change is emitted; late records do not count.

        Raises:
            TopologyError: these are no windows.

        >>> from datetime import timedelta
        >>> from streamlib import TimeWindows
        >>> from streamlib.testing import run_stream
        >>> seconds = TimeWindows.of_size(timedelta(seconds=1), grace=timedelta(0))
        >>> def sums(stream):
        ...     cogrouped = stream.group_by_key().cogroup(lambda key, value, total: total + value)
        ...     return cogrouped.windowed_by(seconds).aggregate(lambda: 0).to_stream()
        >>> run_stream(sums, [("a", 1, 0), ("a", 2, 999)])
        [(Windowed(key='a', start=0, end=1000), 1), (Windowed(key='a', start=0, end=1000), 3)]
        """
        match windows:
            case TimeWindows() | UnlimitedWindows() | SlidingWindows():
                return TimeWindowedCogroupedKStream(self._cogroup, windows)
            case SessionWindows():
                return SessionWindowedCogroupedKStream(self._cogroup, windows)
            case _:
                raise TopologyError(f"windowed_by needs windows, such as TimeWindows.of_size(...), not {windows!r}")

    def aggregate(
        self,
        initializer: Callable[[], VA],
        *,
        value: Hint = UNSET,
        store: StoreOption = None,
        name: str | None = None,
    ) -> KTable[K, VA]:
        """Fold each key's records of all streams, beginning with `initializer()`.

        A result of None deletes the row; the next record begins anew.

        Args:
            initializer: makes the first aggregate of a key.
            value: the aggregate's type; if not given, what the functions are annotated to return.
            store: the store's name, or how it is kept.
            name: the nodes are called after it.

        >>> from streamlib.testing import run_stream
        >>> def both(stream):
        ...     doubled = stream.map_values(lambda value: value * 2)
        ...     cogrouped = stream.group_by_key().cogroup(lambda key, value, total: total + value)
        ...     cogrouped = cogrouped.cogroup(doubled.group_by_key(), lambda key, value, total: total * value)
        ...     return cogrouped.aggregate(lambda: 1, store="both").to_stream()
        >>> run_stream(both, [("a", 5)])
        [('a', 10), ('a', 15)]
        """
        begin = user_function(initializer, "aggregate")
        materialized, cogroup = Materialized.of(store), self._cogroup
        store_name = cogroup.builder.store_name(AGGREGATE, materialized.name)
        spec = materialized.table_spec(store_name, cogroup.key, cogroup.value(value, initializer))
        return cogroup.table(spec, spec.key, lambda fold: op.StreamAggregate(store_name, begin, fold), name)


class TimeWindowedCogroupedKStream(Generic[K, VA]):
    """Cogrouped streams about to be folded by key and window. Null values count, but not in sliding windows."""

    def __init__(self, cogroup: Cogroup, windows: FixedWindows) -> None:
        self._cogroup = cogroup
        self._windows = windows

    def aggregate(
        self,
        initializer: Callable[[], VA],
        *,
        value: Hint = UNSET,
        store: StoreOption = None,
        name: str | None = None,
    ) -> KTable[Windowed[K], VA]:
        """Fold the records of all streams in each window, beginning with `initializer()`.

        Args:
            initializer: makes the first aggregate of a key in a window.
            value: the aggregate's type; if not given, what the functions are annotated to return.
            store: the store's name, or how it is kept.
            name: the nodes are called after it.

        >>> from datetime import timedelta
        >>> from streamlib import SlidingWindows
        >>> from streamlib.testing import run_stream
        >>> close = SlidingWindows.of_time_difference(timedelta(seconds=1), grace=timedelta(0))
        >>> def sums(stream):
        ...     cogrouped = stream.group_by_key().cogroup(lambda key, value, total: total + value)
        ...     return cogrouped.windowed_by(close).aggregate(lambda: 0).to_stream()
        >>> run_stream(sums, [("a", 1, 5000)])
        [(Windowed(key='a', start=4000, end=5000), 1)]
        """
        begin = user_function(initializer, "aggregate")
        materialized, cogroup, windows = Materialized.of(store), self._cogroup, self._windows
        store_name = cogroup.builder.store_name(AGGREGATE, materialized.name)
        spec = window_store(materialized, windows, store_name, (cogroup.key, cogroup.value(value, initializer)))

        def operator(fold: Callable[..., Any]) -> op.WindowedFold:
            return op.WindowedFold(fold=op.StreamAggregate(store_name, begin, fold), windows=windows)

        return cogroup.table(spec, time_windowed(cogroup.key, spec.window_size_ms), operator, name)


class SessionWindowedCogroupedKStream(Generic[K, VA]):
    """Cogrouped streams about to be folded by key and session. Null values count."""

    def __init__(self, cogroup: Cogroup, windows: SessionWindows) -> None:
        self._cogroup = cogroup
        self._windows = windows

    def aggregate(
        self,
        initializer: Callable[[], VA],
        merger: Callable[[K, VA, VA], VA],
        *,
        value: Hint = UNSET,
        store: StoreOption = None,
        name: str | None = None,
    ) -> KTable[Windowed[K], VA]:
        """Fold each session's records of all streams, beginning with `initializer()`.

        Args:
            initializer: makes the first aggregate of a session.
            merger: `merger(key, one, other)` makes one aggregate of those of two sessions; the first may be what the
                initializer gave.
            value: the aggregate's type; if not given, what the functions are annotated to return.
            store: the store's name, or how it is kept.
            name: the nodes are called after it.

        >>> from datetime import timedelta
        >>> from streamlib import SessionWindows
        >>> from streamlib.testing import run_stream
        >>> def visits(stream):
        ...     cogrouped = stream.group_by_key().cogroup(lambda key, value, total: total + value)
        ...     sessions = SessionWindows.of_inactivity_gap(timedelta(minutes=5), grace=timedelta(0))
        ...     table = cogrouped.windowed_by(sessions).aggregate(lambda: 0, lambda key, one, other: one + other)
        ...     return table.to_stream()
        >>> run_stream(visits, [("ann", 1, 0), ("bob", 2, 60_000)])
        [(Windowed(key='ann', start=0, end=0), 1), (Windowed(key='bob', start=60000, end=60000), 2)]
        """
        begin, merge = user_function(initializer, "aggregate"), user_function(merger, "aggregate")
        materialized, cogroup, windows = Materialized.of(store), self._cogroup, self._windows
        store_name = cogroup.builder.store_name(AGGREGATE, materialized.name)
        spec = session_store(materialized, windows, store_name, (cogroup.key, cogroup.value(value, initializer)))

        def operator(fold: Callable[..., Any]) -> op.SessionFold:
            return op.SessionFold(fold=op.StreamAggregate(store_name, begin, fold), merger=merge, windows=windows)

        return cogroup.table(spec, session_windowed(cogroup.key), operator, name)


class CogroupInput(NamedTuple):
    """One of the streams: where it comes from, and how it is folded."""

    group: KGroupedStream[Any, Any]
    aggregator: Callable[[Any, Any, Any], Any]


class Cogroup:
    """What all aggregations of a cogroup, windowed or not, have in common."""

    def __init__(self, inputs: Sequence[CogroupInput]) -> None:
        first, *others = inputs
        for number, each in enumerate(others, 1):
            check_same_builder(first.group._point, each.group._point, "cogroup")
            if any(each.group is before.group for before in inputs[:number]):
                raise TopologyError(
                    f"cogroup has the group of {each.group._point.node} twice: one record would count twice; put what "
                    "both aggregators do into one"
                )
        self.inputs = tuple(inputs)
        self._behind: list[Point] = []  # the streams partitioned by key, from the first aggregation on

    @property
    def builder(self) -> TopologyBuilder:
        """Where the topology grows."""
        return self.inputs[0].group._point.builder

    @property
    def key(self) -> Serde[Any]:
        """How keys are written."""
        return self.inputs[0].group._point.key

    def value(self, hint: Hint, initializer: Callable[[], Any]) -> Serde[Any]:
        """How aggregates are written: as the user says, else as one of the functions is annotated."""
        functions: list[Callable[..., Any]] = [*(each.aggregator for each in self.inputs), initializer]
        annotated = map(returns, functions)
        found = next((each for each in annotated if each is not UNSET), UNSET)
        return serde_of(hint, self.inputs[0].group._point.value, found)

    def table(
        self,
        spec: StoreSpec,
        key: Serde[Any],
        operator: Callable[[Callable[[Any, Any, Any], Any]], op.Operator],
        name: str | None,
    ) -> KTable[Any, Any]:
        """The table of an aggregation.

        Args:
            spec: its store.
            key: how its keys are written.
            operator: makes the operator of an aggregator.
            name: of the nodes, without what tells them apart.
        """
        behind, builder = self._partitioned(spec.name), self.builder
        builder.add_store(spec)
        tables: list[KTable[Any, Any]] = []
        for number, (point, each) in enumerate(zip(behind, self.inputs, strict=True)):
            node = builder.name(AGGREGATE, None if name is None else f"{name}-cogroup-agg-{number}")
            folded = point.then(node, operator(each.aggregator), spec.name, key=key, value=spec.value)
            tables.append(KTable._stored(folded, spec.name))
        return self._merged(spec, tables, builder.name(MERGE, None if name is None else f"{name}-cogroup-merge"))

    def _merged(self, spec: StoreSpec, tables: Sequence[KTable[Any, Any]], node: str) -> KTable[Any, Any]:
        points = [table._point for table in tables]
        self.builder.add(
            ProcessorNode(name=node, operator=op.CogroupMerge(spec.name), parents=tuple(point.node for point in points))
        )
        first = points[0]
        sources = frozenset().union(*(point.sources for point in points))
        merged = Point(first.builder, node, first.key, first.value, sources)
        return KTable(merged, spec.name, old_from=tuple(tables))

    def _partitioned(self, store: str) -> list[Point]:
        """The streams by key. The first aggregation makes the topics, further ones use them, too."""
        if self._behind:
            rekeyed = [each.group._point.rekeyed for each in self.inputs]
            return [
                through_the_same_topic(point) if again else point
                for point, again in zip(self._behind, rekeyed, strict=True)
            ]
        self._behind = [each.group._partitioned(store) for each in self.inputs]
        self.builder.copartition(topic for point in self._behind for topic in point.sources)
        return self._behind
