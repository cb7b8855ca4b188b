"""Streams grouped by key and session, and their aggregations, which are tables of sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, overload

from streamlib.dsl.aggregators import Aggregation, ReadyFold
from streamlib.dsl.functions import UNSET, Hint, returns, serde_of
from streamlib.dsl.ktable import KTable
from streamlib.dsl.materialized import Materialized, StoreOption
from streamlib.dsl.windowed import EmitStrategy, WindowOptions
from streamlib.errors import TopologyError
from streamlib.serdes import Serde, Serdes
from streamlib.topology import operators as op
from streamlib.topology.functions import user_function
from streamlib.topology.nodes import SessionStoreSpec
from streamlib.windows import SessionWindows, Windowed, session_windowed

if TYPE_CHECKING:
    from streamlib.dsl.grouped import KGroupedStream

K = TypeVar("K")
V = TypeVar("V")
VA = TypeVar("VA")
VR = TypeVar("VR")


class SessionWindowedKStream(Generic[K, V]):
    """A stream whose records are about to be folded by key and session.

    A record that comes between two sessions makes them one: their rows are deleted, and there is a new one. Records
    with a null key do not count. Null values do, other than without windows.
    """

    def __init__(self, group: KGroupedStream[K, V], windows: SessionWindows, options: WindowOptions) -> None:
        self._group = group
        self._windows = windows
        self._options = options

    def emit_strategy(self, strategy: EmitStrategy) -> SessionWindowedKStream[K, V]:
        """When results go on: at every change, or once for each session, when it has closed.

        Raises:
            TopologyError: it is no strategy.

        >>> from datetime import timedelta
        >>> from streamlib import EmitStrategy, SessionWindows
        >>> from streamlib.testing import run_stream
        >>> visits = SessionWindows.of_inactivity_gap(timedelta(seconds=1), grace=timedelta(0))
        >>> run_stream(
        ...     lambda s: s.group_by_key()
        ...     .windowed_by(visits)
        ...     .emit_strategy(EmitStrategy.on_window_close())
        ...     .count()
        ...     .to_stream(),
        ...     [("a", 5, 0), ("a", 7, 999), ("a", 6, 5000)],
        ... )
        [(Windowed(key='a', start=0, end=999), 2)]
        """
        return SessionWindowedKStream(self._group, self._windows, self._options.emitting(strategy))

    def count(self, *, store: StoreOption = None, name: str | None = None) -> KTable[Windowed[K], int]:
        """How many records each session has.

        >>> from datetime import timedelta
        >>> from streamlib import SessionWindows
        >>> from streamlib.testing import run_stream
        >>> visits = SessionWindows.of_inactivity_gap(timedelta(seconds=1), grace=timedelta(0))
        >>> run_stream(
        ...     lambda s: s.group_by_key().windowed_by(visits).count().to_stream(), [("a", 5, 0), ("a", 7, 800)]
        ... )
        [(Windowed(key='a', start=0, end=0), 1), (Windowed(key='a', start=0, end=0), None), \
(Windowed(key='a', start=0, end=800), 2)]
        """
        if isinstance(store, Materialized) and store.name is None:
            self._group._point.builder.store_name("KSTREAM-AGGREGATE-")  # Kafka Streams uses a number up here
        return self._fold("KSTREAM-AGGREGATE-", Folding(_zero, _one_more, _sum), Serdes.long(), store, name)

    def reduce(
        self, reducer: Callable[[V, V], V], *, store: StoreOption = None, name: str | None = None
    ) -> KTable[Windowed[K], V]:
        """Fold the values of each session by `reducer(aggregate, value)`; the first value is the first aggregate.

        Sessions that become one are folded by it, too: `reducer(earlier, later)`.

        >>> from datetime import timedelta
        >>> from streamlib import SessionWindows
        >>> from streamlib.testing import run_stream
        >>> visits = SessionWindows.of_inactivity_gap(timedelta(seconds=1), grace=timedelta(0))
        >>> run_stream(
        ...     lambda s: s.group_by_key().windowed_by(visits).reduce(max).to_stream(), [("a", 5, 0), ("a", 7, 0)]
        ... )
        [(Windowed(key='a', start=0, end=0), 5), (Windowed(key='a', start=0, end=0), 7)]
        """
        function = user_function(reducer, "reduce")

        def fold(key: object, value: Any, aggregate: Any) -> Any:
            return value if aggregate is None else function(aggregate, value)

        def merge(key: object, one: Any, other: Any) -> Any:
            return fold(key, other, one)

        return self._fold("KSTREAM-REDUCE-", Folding(_nothing, fold, merge), self._group._point.value, store, name)

    @overload
    def aggregate(
        self, aggregation: Aggregation[V, VR], /, *, store: StoreOption = ..., name: str | None = ...
    ) -> KTable[Windowed[K], VR]: ...
    @overload
    def aggregate(
        self,
        initializer: Callable[[], VA],
        aggregator: Callable[[K, V, VA], VA | None],
        merger: Callable[[K, VA, VA], object],  # of VA; saying so keeps mypy from finding VA through a lambda
        *,
        value: Hint = ...,
        store: StoreOption = ...,
        name: str | None = ...,
    ) -> KTable[Windowed[K], VA]: ...
    def aggregate(
        self,
        initializer: Any,
        aggregator: Callable[[Any, Any, Any], Any] | None = None,
        merger: Callable[[Any, Any, Any], Any] | None = None,
        *,
        value: Hint = UNSET,
        store: StoreOption = None,
        name: str | None = None,
    ) -> KTable[Windowed[K], Any]:
        """Fold the values of each session by `aggregator(key, value, aggregate)`, beginning with `initializer()`.

        A result of None deletes the session's row; the next record begins it anew.

        Args:
            initializer: makes the first aggregate of a session; or a ready aggregation such as `Sum()`, alone.
            aggregator: makes the next one.
            merger: `merger(key, one, other)` makes one aggregate of those of two sessions; the first may be what the
                initializer gave. It is called for a session that merely gets longer, too.
            value: the aggregate's type; if not given, what the functions are annotated to return.
            store: the store's name, or how it is kept. Its rows are kept as long as a session can be open, unless
                `Materialized(retention=...)` says longer.
            name: of the node.

        >>> from datetime import timedelta
        >>> from streamlib import SessionWindows
        >>> from streamlib.testing import run_stream
        >>> visits = SessionWindows.of_inactivity_gap(timedelta(seconds=1), grace=timedelta(0))
        >>> add = lambda key, value, total: total + value
        >>> merge = lambda key, one, other: one + other
        >>> run_stream(
        ...     lambda s: s.group_by_key().windowed_by(visits).aggregate(lambda: 0, add, merge).to_stream(),
        ...     [("a", 5, 0), ("b", 7, 0), ("a", 5, 2000)],
        ... )
        [(Windowed(key='a', start=0, end=0), 5), (Windowed(key='b', start=0, end=0), 7), \
(Windowed(key='a', start=2000, end=2000), 5)]
        """
        if aggregator is None and merger is None:
            ready = ReadyFold.of(initializer, self._group._point.value)
            folding = Folding(ready.initializer, ready.aggregator, ready.merger, timed=True)
            return ready.finished(self._fold("KSTREAM-AGGREGATE-", folding, ready.state, store, name))
        if aggregator is None or merger is None:
            raise TopologyError("aggregate of sessions needs an initializer, an aggregator and a merger")
        begin, fold = user_function(initializer, "aggregate"), user_function(aggregator, "aggregate")
        folding = Folding(begin, fold, user_function(merger, "aggregate"))
        annotated = returns(aggregator)
        returned = returns(initializer) if annotated is UNSET else annotated
        return self._fold(
            "KSTREAM-AGGREGATE-", folding, serde_of(value, self._group._point.value, returned), store, name
        )

    def _fold(
        self, prefix: str, folding: Folding, value: Serde[Any], store: StoreOption, name: str | None
    ) -> KTable[Windowed[K], Any]:
        group, windows, options = self._group, self._windows, self._options
        builder, key, materialized = group._point.builder, group._point.key, Materialized.of(store)
        store_name = builder.store_name(prefix, materialized.name)
        node = builder.name(prefix, name)
        options.check(node)
        builder.add_store(session_store(materialized, windows, store_name, (key, value), on_close=options.on_close))
        operator = op.SessionFold(
            fold=op.StreamAggregate(store_name, folding.initializer, folding.aggregator, folding.timed),
            merger=folding.merger,
            windows=windows,
            on_close=options.on_close,
            on_late=options.on_late,
            idle_timeout_ms=options.idle_timeout_ms,
        )
        point = group._partitioned(store_name)
        point = point.then(node, operator, store_name, key=session_windowed(key), value=value)
        return KTable._stored(point, store_name)


class Folding(NamedTuple):
    """How the records of a session become one aggregate, and those of two sessions; `timed`: see `StreamAggregate`."""

    initializer: Callable[[], Any]
    aggregator: Callable[..., Any]
    merger: Callable[[Any, Any, Any], Any]
    timed: bool = False


def session_store(
    materialized: Materialized,
    windows: SessionWindows,
    name: str,
    serdes: tuple[Serde[Any], Serde[Any]],
    *,
    on_close: bool = False,
) -> SessionStoreSpec:
    """The store of a table of sessions.

    Args:
        materialized: how it is kept.
        windows: which sessions its rows are of.
        name: its name.
        serdes: of keys, without sessions, and of values.
        on_close: sessions are read from it when they close. There is nothing for a record cache to hold back then.

    Raises:
        TopologyError: it would forget sessions that are still open, or an option is for other stores.
    """
    return SessionStoreSpec(
        name=name,
        key=serdes[0],
        value=serdes[1],
        persistent=materialized.persistent,
        changelog=materialized.changelog,
        changelog_config=dict(materialized.changelog_config),
        cached=materialized.cached and not on_close,
        retention_ms=materialized.retention_ms(name, windows.gap_ms + windows.grace_ms),
        time_ordered=on_close,
    )


def _zero() -> int:
    return 0


def _one_more(key: object, value: object, count: int) -> int:
    return count + 1


def _sum(key: object, one: int, other: int) -> int:
    return one + other


def _nothing() -> None:
    """There is no aggregate before the first value."""
