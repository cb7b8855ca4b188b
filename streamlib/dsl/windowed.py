"""Streams grouped by key and window, and their aggregations, which are tables of windows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar, assert_never, overload

import msgspec

from streamlib.dsl.aggregators import Aggregation, ReadyFold
from streamlib.dsl.functions import UNSET, Hint, returns, serde_of
from streamlib.dsl.ktable import KTable
from streamlib.dsl.materialized import Materialized, StoreOption
from streamlib.errors import TopologyError
from streamlib.serdes import Serde, Serdes
from streamlib.topology import operators as op
from streamlib.topology.functions import user_function
from streamlib.topology.nodes import WindowStoreSpec
from streamlib.windows import (
    END_OF_TIME_MS,
    LateRecord,
    SlidingWindows,
    TimeWindows,
    UnlimitedWindows,
    Windowed,
    duration_ms,
    time_windowed,
)

if TYPE_CHECKING:
    from streamlib.dsl.grouped import KGroupedStream

K = TypeVar("K")
V = TypeVar("V")
VA = TypeVar("VA")
VR = TypeVar("VR")

FixedWindows: TypeAlias = TimeWindows | UnlimitedWindows | SlidingWindows
"""Windows whose start says where they end."""

OnLate: TypeAlias = Callable[[LateRecord[K, V]], object]
"""Told of each window that was closed when a record came for it."""


class EmitStrategy(msgspec.Struct, frozen=True):
    """When the results of windows go on. Made by `on_window_update` or `on_window_close`.

    >>> EmitStrategy.on_window_close().on_close
    True
    """

    on_close: bool

    @classmethod
    def on_window_update(cls) -> Self:
        """At every change; the last result of a window is the one that stays. This is the default."""
        return cls(False)

    @classmethod
    def on_window_close(cls) -> Self:
        """Once for each window, when stream time has passed its end and grace."""
        return cls(True)


class WindowOptions(msgspec.Struct, frozen=True):
    """What `windowed_by` and `emit_strategy` were told beside the windows.

    Attributes:
        on_late: called for each window that was closed when a record came for it.
        idle_timeout_ms: how long without a record by the wall clock until stream time follows the wall clock.
        on_close: windows are emitted when they close.
    """

    on_late: OnLate[Any, Any] | None = None
    idle_timeout_ms: int | None = None
    on_close: bool = False

    @classmethod
    def of(cls, on_late: OnLate[Any, Any] | None, idle_timeout: timedelta | None) -> Self:
        """What `windowed_by` was told.

        Raises:
            TopologyError: `on_late` cannot be called, or the timeout is no timedelta.
        """
        return cls(
            None if on_late is None else user_function(on_late, "windowed_by(on_late=)"),
            None if idle_timeout is None else duration_ms(idle_timeout, "idle_timeout", positive=True),
        )

    def emitting(self, strategy: object) -> Self:
        """The same, emitted as a strategy says.

        Raises:
            TopologyError: it is none.
        """
        if not isinstance(strategy, EmitStrategy):
            raise TopologyError(
                "emit_strategy needs EmitStrategy.on_window_update() or EmitStrategy.on_window_close(), not "
                f"{strategy!r}"
            )
        return msgspec.structs.replace(self, on_close=strategy.on_close)

    def check(self, node: str) -> None:
        """What has been chosen has to make sense together.

        Raises:
            TopologyError: it does not.
        """
        if self.idle_timeout_ms is not None and not self.on_close:
            raise TopologyError(
                f"node {node}: idle_timeout= lets windows close without records, which nobody would notice: add "
                ".emit_strategy(EmitStrategy.on_window_close()), or leave it out"
            )


class TimeWindowedKStream(Generic[K, V]):
    """A stream whose records are about to be folded by key and window.

    Records with a null key do not count. Null values do, other than without windows; in sliding windows they do not.
    """

    def __init__(self, group: KGroupedStream[K, V], windows: FixedWindows, options: WindowOptions) -> None:
        self._group = group
        self._windows = windows
        self._options = options

    def emit_strategy(self, strategy: EmitStrategy) -> TimeWindowedKStream[K, V]:
        """When results go on: at every change, or once for each window, when it has closed.

        Raises:
            TopologyError: it is no strategy, or unlimited windows, which never close, are to be emitted when they do.

        >>> from datetime import timedelta
        >>> from streamlib import EmitStrategy, TimeWindows
        >>> from streamlib.testing import run_stream
        >>> seconds = TimeWindows.of_size(timedelta(seconds=1), grace=timedelta(0))
        >>> run_stream(
        ...     lambda s: s.group_by_key()
        ...     .windowed_by(seconds)
        ...     .emit_strategy(EmitStrategy.on_window_close())
        ...     .count()
        ...     .to_stream(),
        ...     [("a", 5, 0), ("a", 7, 999), ("a", 6, 1000)],
        ... )
        [(Windowed(key='a', start=0, end=1000), 2)]
        """
        options = self._options.emitting(strategy)
        if options.on_close and isinstance(self._windows, UnlimitedWindows):
            raise TopologyError(
                "unlimited windows never close, so they cannot be emitted on close: use EmitStrategy.on_window_update()"
            )
        return TimeWindowedKStream(self._group, self._windows, options)

    def count(self, *, store: StoreOption = None, name: str | None = None) -> KTable[Windowed[K], int]:
        """How many records each key has had in each window.

        >>> from datetime import timedelta
        >>> from streamlib import TimeWindows
        >>> from streamlib.testing import run_stream
        >>> seconds = TimeWindows.of_size(timedelta(seconds=1), grace=timedelta(0))
        >>> run_stream(
        ...     lambda s: s.group_by_key().windowed_by(seconds).count().to_stream(), [("a", 5, 0), ("a", 7, 1500)]
        ... )
        [(Windowed(key='a', start=0, end=1000), 1), (Windowed(key='a', start=1000, end=2000), 1)]
        """
        return self._fold("KSTREAM-AGGREGATE-", op.StreamCount, Serdes.long(), store, name)

    def reduce(
        self, reducer: Callable[[V, V], V], *, store: StoreOption = None, name: str | None = None
    ) -> KTable[Windowed[K], V]:
        """Fold the values of each key and window by `reducer(aggregate, value)`, beginning with the first value.

        >>> from datetime import timedelta
        >>> from streamlib import SlidingWindows
        >>> from streamlib.testing import run_stream
        >>> close = SlidingWindows.of_time_difference(timedelta(seconds=1), grace=timedelta(0))
        >>> run_stream(
        ...     lambda s: s.group_by_key().windowed_by(close).reduce(max).to_stream(), [("a", 5, 5000), ("a", 7, 5500)]
        ... )
        [(Windowed(key='a', start=4000, end=5000), 5), (Windowed(key='a', start=5001, end=6001), 7), \
(Windowed(key='a', start=4500, end=5500), 7)]
        """
        function = user_function(reducer, "reduce")
        value = self._group._point.value
        return self._fold("KSTREAM-REDUCE-", lambda named: op.StreamReduce(named, function), value, store, name)

    @overload
    def aggregate(
        self, aggregation: Aggregation[V, VR], /, *, store: StoreOption = ..., name: str | None = ...
    ) -> KTable[Windowed[K], VR]: ...
    @overload
    def aggregate(
        self,
        initializer: Callable[[], VA],
        aggregator: Callable[[K, V, VA], VA | None],
        *,
        value: Hint = ...,
        store: StoreOption = ...,
        name: str | None = ...,
    ) -> KTable[Windowed[K], VA]: ...
    def aggregate(
        self,
        initializer: Any,
        aggregator: Callable[[Any, Any, Any], Any] | None = None,
        *,
        value: Hint = UNSET,
        store: StoreOption = None,
        name: str | None = None,
    ) -> KTable[Windowed[K], Any]:
        """Fold the values of each key and window by `aggregator(key, value, aggregate)`, starting from `initializer()`.

        A result of None deletes the window's row; the next record begins it anew.

        Args:
            initializer: makes the first aggregate of a key in a window; or a ready aggregation such as `Sum()`, alone.
            aggregator: makes the next one.
            value: the aggregate's type; if not given, what the functions are annotated to return.
            store: the store's name, or how it is kept. Its rows are kept as long as a window can be open, unless
                `Materialized(retention=...)` says longer.
            name: of the node.

        >>> from datetime import timedelta
        >>> from streamlib import UnlimitedWindows
        >>> from streamlib.testing import run_stream
        >>> total = lambda key, value, aggregate: aggregate + value
        >>> since = UnlimitedWindows.of(start_ms=1000)
        >>> run_stream(
        ...     lambda s: s.group_by_key().windowed_by(since).aggregate(lambda: 0, total).to_stream(),
        ...     [("a", 5, 0), ("a", 6, 1000), ("a", 7, 2000)],
        ... )
        [(Windowed(key='a', start=1000, end=9223372036854775807), 6), \
(Windowed(key='a', start=1000, end=9223372036854775807), 13)]
        """
        if aggregator is None:
            return self._ready(ReadyFold.of(initializer, self._group._point.value), store, name)
        begin, fold = user_function(initializer, "aggregate"), user_function(aggregator, "aggregate")
        annotated = returns(aggregator)
        returned = returns(initializer) if annotated is UNSET else annotated
        serde = serde_of(value, self._group._point.value, returned)
        return self._fold(
            "KSTREAM-AGGREGATE-", lambda named: op.StreamAggregate(named, begin, fold), serde, store, name
        )

    def _ready(self, ready: ReadyFold, store: StoreOption, name: str | None) -> KTable[Windowed[K], Any]:
        def fold(named: str) -> op.StreamAggregate:
            return op.StreamAggregate(named, ready.initializer, ready.aggregator, timed=True)

        return ready.finished(self._fold("KSTREAM-AGGREGATE-", fold, ready.state, store, name))

    def _fold(
        self,
        prefix: str,
        fold: Callable[[str], op.StreamAggregate | op.StreamReduce | op.StreamCount],
        value: Serde[Any],
        store: StoreOption,
        name: str | None,
    ) -> KTable[Windowed[K], Any]:
        group, options = self._group, self._options
        builder, key, materialized = group._point.builder, group._point.key, Materialized.of(store)
        store_name = builder.store_name(prefix, materialized.name)
        node = builder.name(prefix, name)
        options.check(node)
        spec = window_store(materialized, self._windows, store_name, (key, value), on_close=options.on_close)
        builder.add_store(spec)
        operator = op.WindowedFold(
            fold=fold(store_name),
            windows=self._windows,
            on_close=options.on_close,
            on_late=options.on_late,
            idle_timeout_ms=options.idle_timeout_ms,
        )
        windowed = time_windowed(key, spec.window_size_ms)
        point = group._partitioned(store_name).then(node, operator, store_name, key=windowed, value=value)
        return KTable._stored(point, store_name)


def window_store(
    materialized: Materialized,
    windows: FixedWindows,
    name: str,
    serdes: tuple[Serde[Any], Serde[Any]],
    *,
    on_close: bool = False,
) -> WindowStoreSpec:
    """The store of a table of windows.

    Args:
        materialized: how it is kept.
        windows: which windows its rows are of.
        name: its name.
        serdes: of keys, without windows, and of values.
        on_close: windows are read from it when they close. There is nothing for a record cache to hold back then.

    Raises:
        TopologyError: it would forget windows that are still open, or an option is for other stores.
    """
    size_ms, least_ms = _size_and_lifetime_ms(windows)
    return WindowStoreSpec(
        name=name,
        kind="timestamped_window",
        key=serdes[0],
        value=serdes[1],
        persistent=materialized.persistent,
        changelog=materialized.changelog,
        changelog_config=dict(materialized.changelog_config),
        cached=materialized.cached and not on_close,
        retention_ms=materialized.retention_ms(name, least_ms),
        time_ordered=on_close,
        window_size_ms=size_ms,
    )


def _size_and_lifetime_ms(windows: FixedWindows) -> tuple[int, int]:
    """How long windows are, and how far stream time can be from the start of one that is open."""
    match windows:
        case TimeWindows(size_ms=size, grace_ms=grace):
            return size, size + grace
        case SlidingWindows(difference_ms=difference, grace_ms=grace):
            return difference, 2 * difference + grace  # windows are made from earlier ones
        case UnlimitedWindows():
            return END_OF_TIME_MS, END_OF_TIME_MS
        case _:
            assert_never(windows)
