"""Joins of a stream: with another stream, a table, or a global table. The right side decides which."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

import msgspec

from streamlib.dsl.functions import UNSET, Hint, returns, serde_of
from streamlib.dsl.global_joins import join_with_global_table
from streamlib.dsl.global_table import GlobalKTable
from streamlib.dsl.grace import with_grace
from streamlib.dsl.graph import Point, RepartitionOptions, check_same_builder, repartitioned, through_the_same_topic
from streamlib.dsl.stream_joins import JoinStores, StreamJoin, check_windows, join_streams
from streamlib.errors import TopologyError
from streamlib.topology import operators as op
from streamlib.topology.functions import user_function
from streamlib.windows import JoinWindows

if TYPE_CHECKING:
    from streamlib.dsl.kstream import KStream
    from streamlib.dsl.ktable import KTable

K = TypeVar("K")
V = TypeVar("V")
V2 = TypeVar("V2")
VR = TypeVar("VR")


class _Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a user said about a join."""

    step: str
    joiner: Callable[..., Any]
    windows: Any
    with_key: bool
    key_selector: Callable[[Any, Any], Any] | None
    grace: timedelta | None
    key: Hint
    value: Hint
    result: Hint
    store: JoinStores
    name: str | None

    def refuse(self, right: str, **unused: object) -> None:
        """Arguments that are for other kinds of joins."""
        for argument, value in unused.items():
            if value is not None:
                raise TopologyError(f"{self.step} with {right}: {argument}= is of no use there; leave it out")


class Joining(Generic[K, V]):
    """The joins of `KStream`."""

    _point: Point
    _repartitioned_for_join: Point | None

    @overload
    def join(
        self,
        other: KStream[K, V2],
        joiner: Callable[[V, V2], VR],
        windows: JoinWindows,
        *,
        store: JoinStores = ...,
        key: Hint = ...,
        value: Hint = ...,
        result: Hint = ...,
        name: str | None = ...,
    ) -> KStream[K, VR]: ...
    @overload
    def join(
        self,
        other: KStream[K, V2],
        joiner: Callable[[K, V, V2], VR],
        windows: JoinWindows,
        *,
        with_key: Literal[True],
        store: JoinStores = ...,
        key: Hint = ...,
        value: Hint = ...,
        result: Hint = ...,
        name: str | None = ...,
    ) -> KStream[K, VR]: ...
    @overload
    def join(
        self,
        other: KTable[K, V2],
        joiner: Callable[[V, V2], VR],
        *,
        grace: timedelta | None = ...,
        key: Hint = ...,
        value: Hint = ...,
        result: Hint = ...,
        name: str | None = ...,
    ) -> KStream[K, VR]: ...
    @overload
    def join(
        self,
        other: KTable[K, V2],
        joiner: Callable[[K, V, V2], VR],
        *,
        with_key: Literal[True],
        grace: timedelta | None = ...,
        key: Hint = ...,
        value: Hint = ...,
        result: Hint = ...,
        name: str | None = ...,
    ) -> KStream[K, VR]: ...
    @overload
    def join(
        self,
        other: GlobalKTable[Any, V2],
        joiner: Callable[[V, V2], VR],
        *,
        key_selector: Callable[[K, V], object],
        key: Hint = ...,
        value: Hint = ...,
        result: Hint = ...,
        name: str | None = ...,
    ) -> KStream[K, VR]: ...
    @overload
    def join(
        self,
        other: GlobalKTable[Any, V2],
        joiner: Callable[[K, V, V2], VR],
        *,
        with_key: Literal[True],
        key_selector: Callable[[K, V], object],
        key: Hint = ...,
        value: Hint = ...,
        result: Hint = ...,
        name: str | None = ...,
    ) -> KStream[K, VR]: ...
    def join(
        self,
        other: KStream[K, Any] | KTable[K, Any] | GlobalKTable[Any, Any],
        joiner: Callable[..., Any],
        windows: JoinWindows | None = None,
        *,
        with_key: bool = False,
        key_selector: Callable[[K, V], object] | None = None,
        grace: timedelta | None = None,
        key: Hint = UNSET,
        value: Hint = UNSET,
        result: Hint = UNSET,
        store: JoinStores = None,
        name: str | None = None,
    ) -> KStream[K, Any]:
        """Join each record with those of another stream, or with a table's row: `joiner(left, right)`.

        The right side decides. A stream: all pairs of one key within `windows` of each other, at the later one's time.
        A table: the row of the record's key, as it is now; of a versioned table, as it was at the record's time. A
        global table: the row of the key that `key_selector` names. Without a match, nothing comes out.

        Args:
            other: a stream or table; both sides need the same number of partitions, but with a global table.
            joiner: called with `(key, left, right)` if `with_key`.
            windows: how far apart records of two streams may be.
            with_key: whether the joiner gets the key.
            key_selector: f(key, value) -> the key to look up in a global table; None finds no row.
            grace: how long records wait for rows that come late. The table has to have a `history_retention` at least
                as long.
            key: the keys' type, for the repartition topic if one is needed.
            value: the left values' type, likewise.
            result: the type of what the joiner returns.
            store: how records of two streams are kept: for both sides, or a pair of options, one for each.
            name: of the node, and of the repartition topic; the buffer of waiting records is `<name>-Buffer`.

        Raises:
            TopologyError: an argument is missing for this right side, or is of no use.

        >>> from streamlib import JoinWindows, StreamsBuilder
        >>> builder = StreamsBuilder()
        >>> orders = builder.stream("orders", key=str, value=int)
        >>> users = builder.table("users", key=str, value=str)
        >>> named = orders.join(users, lambda amount, user: f"{user}: {amount}", result=str)
        >>> payments = builder.stream("payments", key=str, value=int)
        >>> hour = JoinWindows.of_time_difference(timedelta(hours=1), grace=timedelta(minutes=5))
        >>> open_amounts = orders.join(payments, lambda ordered, paid: ordered - paid, hour)
        """
        return self._join(
            other,
            _Said(
                step="join",
                joiner=joiner,
                windows=windows,
                with_key=with_key,
                key_selector=key_selector,
                grace=grace,
                key=key,
                value=value,
                result=result,
                store=store,
                name=name,
            ),
        )

    @overload
    def left_join(
        self,
        other: KStream[K, V2],
        joiner: Callable[[V, V2 | None], VR],
        windows: JoinWindows,
        *,
        store: JoinStores = ...,
        key: Hint = ...,
        value: Hint = ...,
        result: Hint = ...,
        name: str | None = ...,
    ) -> KStream[K, VR]: ...
    @overload
    def left_join(
        self,
        other: KStream[K, V2],
        joiner: Callable[[K, V, V2 | None], VR],
        windows: JoinWindows,
        *,
        with_key: Literal[True],
        store: JoinStores = ...,
        key: Hint = ...,
        value: Hint = ...,
        result: Hint = ...,
        name: str | None = ...,
    ) -> KStream[K, VR]: ...
    @overload
    def left_join(
        self,
        other: KTable[K, V2],
        joiner: Callable[[V, V2 | None], VR],
        *,
        grace: timedelta | None = ...,
        key: Hint = ...,
        value: Hint = ...,
        result: Hint = ...,
        name: str | None = ...,
    ) -> KStream[K, VR]: ...
    @overload
    def left_join(
        self,
        other: KTable[K, V2],
        joiner: Callable[[K, V, V2 | None], VR],
        *,
        with_key: Literal[True],
        grace: timedelta | None = ...,
        key: Hint = ...,
        value: Hint = ...,
        result: Hint = ...,
        name: str | None = ...,
    ) -> KStream[K, VR]: ...
    @overload
    def left_join(
        self,
        other: GlobalKTable[Any, V2],
        joiner: Callable[[V, V2 | None], VR],
        *,
        key_selector: Callable[[K, V], object],
        key: Hint = ...,
        value: Hint = ...,
        result: Hint = ...,
        name: str | None = ...,
    ) -> KStream[K, VR]: ...
    @overload
    def left_join(
        self,
        other: GlobalKTable[Any, V2],
        joiner: Callable[[K, V, V2 | None], VR],
        *,
        with_key: Literal[True],
        key_selector: Callable[[K, V], object],
        key: Hint = ...,
        value: Hint = ...,
        result: Hint = ...,
        name: str | None = ...,
    ) -> KStream[K, VR]: ...
    def left_join(
        self,
        other: KStream[K, Any] | KTable[K, Any] | GlobalKTable[Any, Any],
        joiner: Callable[..., Any],
        windows: JoinWindows | None = None,
        *,
        with_key: bool = False,
        key_selector: Callable[[K, V], object] | None = None,
        grace: timedelta | None = None,
        key: Hint = UNSET,
        value: Hint = UNSET,
        result: Hint = UNSET,
        store: JoinStores = None,
        name: str | None = None,
    ) -> KStream[K, Any]:
        """As `join`, but a record without a match is joined with None.

        In a join of streams that is when nothing can match it any more: when stream time has passed its window and
        the grace. A record without a key matches nothing, so it goes on at once.

        >>> from streamlib import StreamsBuilder
        >>> builder = StreamsBuilder()
        >>> users = builder.table("users", key=str, value=str)
        >>> orders = builder.stream("orders", key=str, value=int)
        >>> named = orders.left_join(users, lambda amount, user: f"{user or 'nobody'}: {amount}", result=str)
        """
        return self._join(
            other,
            _Said(
                step="left_join",
                joiner=joiner,
                windows=windows,
                with_key=with_key,
                key_selector=key_selector,
                grace=grace,
                key=key,
                value=value,
                result=result,
                store=store,
                name=name,
            ),
        )

    @overload
    def outer_join(
        self,
        other: KStream[K, V2],
        joiner: Callable[[V | None, V2 | None], VR],
        windows: JoinWindows,
        *,
        store: JoinStores = ...,
        key: Hint = ...,
        value: Hint = ...,
        result: Hint = ...,
        name: str | None = ...,
    ) -> KStream[K, VR]: ...
    @overload
    def outer_join(
        self,
        other: KStream[K, V2],
        joiner: Callable[[K, V | None, V2 | None], VR],
        windows: JoinWindows,
        *,
        with_key: Literal[True],
        store: JoinStores = ...,
        key: Hint = ...,
        value: Hint = ...,
        result: Hint = ...,
        name: str | None = ...,
    ) -> KStream[K, VR]: ...
    def outer_join(
        self,
        other: KStream[K, Any],
        joiner: Callable[..., Any],
        windows: JoinWindows | None = None,
        *,
        with_key: bool = False,
        key: Hint = UNSET,
        value: Hint = UNSET,
        result: Hint = UNSET,
        store: JoinStores = None,
        name: str | None = None,
    ) -> KStream[K, Any]:
        """As `left_join` with a stream, but records of either side without a match are joined with None.

        >>> from streamlib import JoinWindows, StreamsBuilder
        >>> builder = StreamsBuilder()
        >>> left, right = (builder.stream(topic, key=str, value=int) for topic in ("left", "right"))
        >>> hour = JoinWindows.of_time_difference(timedelta(hours=1), grace=timedelta(minutes=5))
        >>> pairs = left.outer_join(right, lambda one, other: [one, other], hour, result=list[int | None])
        """
        return self._join(
            other,
            _Said(
                step="outer_join",
                joiner=joiner,
                windows=windows,
                with_key=with_key,
                key_selector=None,
                grace=None,
                key=key,
                value=value,
                result=result,
                store=store,
                name=name,
            ),
        )

    def _join(self, other: object, said: _Said) -> KStream[K, Any]:
        from streamlib.dsl.kstream import KStream
        from streamlib.dsl.ktable import KTable

        user_function(said.joiner, said.step)
        if isinstance(other, KStream):
            said.refuse("a stream", key_selector=said.key_selector, grace=said.grace)
            return KStream(self._join_stream(other, said))
        if said.step == "outer_join":
            raise TopologyError(f"outer_join needs a stream on the right, not {other!r}: a table does not wait")
        if isinstance(other, KTable):
            said.refuse("a table", windows=said.windows, key_selector=said.key_selector, store=said.store)
            return KStream(self._join_table(other, said))
        if isinstance(other, GlobalKTable):
            said.refuse("a global table", windows=said.windows, grace=said.grace, store=said.store)
            return KStream(self._join_global_table(other, said))
        raise TopologyError(f"{said.step} needs a stream, a table or a global table on the right, not {other!r}")

    def _join_stream(self, other: KStream[Any, Any], said: _Said) -> Point:
        check_same_builder(self._point, other._point, said.step)
        windows = check_windows(said.windows, said.step, self._point.node, other._point.node)
        typed = self._typed_for_join(said)
        sides = ("", "") if said.name is None else (f"{said.name}-left", f"{said.name}-right")
        left = self._partitioned_for_join(typed, sides[0] or None)
        right = other._partitioned_for_join(typed if other is self else other._point, sides[1] or None)
        if said.step != "join":
            # Of both sides: those of the right one move stream time, even if they match nothing.
            left.builder.keep_null_keys(left.node)
            right.builder.keep_null_keys(right.node)
        result = serde_of(said.result, left.value, returns(said.joiner))
        join = StreamJoin(said.step, said.joiner, said.with_key, windows, said.store, said.name, result)
        return join_streams(left, right, join)

    def _join_table(self, table: KTable[Any, Any], said: _Said) -> Point:
        check_same_builder(self._point, table._point, said.step)
        left = said.step == "left_join"
        operator = op.StreamTableJoin(table._point.node, said.joiner, left=left, with_key=said.with_key)
        point = self._partitioned_for_join(self._typed_for_join(said), said.name)
        builder = point.builder
        if left:
            builder.keep_null_keys(point.node)
        sources = point.sources | table._point.sources
        builder.copartition(sources)
        node = builder.name("KSTREAM-LEFTJOIN-" if left else "KSTREAM-JOIN-", said.name)
        result = serde_of(said.result, point.value, returns(said.joiner))
        if said.grace is not None:
            operator = with_grace(operator, point, node, said.grace)
        stores = (*(() if operator.buffer is None else (operator.buffer,)), *table._lookup_stores())
        return point.then(node, operator, *stores, value=result, sources=sources)

    def _join_global_table(self, table: GlobalKTable[Any, Any], said: _Said) -> Point:
        return join_with_global_table(
            self._typed_for_join(said),
            table,
            said.joiner,
            said.key_selector,
            left=said.step == "left_join",
            with_key=said.with_key,
            result=said.result,
            name=said.name,
        )

    def _typed_for_join(self, said: _Said) -> Point:
        point = self._point
        key, value = serde_of(said.key, point.key), serde_of(said.value, point.value)
        return msgspec.structs.replace(point, key=key, value=value)

    def _partitioned_for_join(self, point: Point, name: str | None) -> Point:
        """Behind a repartition topic if the key may have changed. Joins without a name share one
        (`KStreamImpl.repartitionForJoin`)."""
        if not point.rekeyed:
            return point
        if self._repartitioned_for_join is not None and name is None:
            return through_the_same_topic(self._repartitioned_for_join)
        self._repartitioned_for_join = repartitioned(point, RepartitionOptions(name or point.node))
        return self._repartitioned_for_join
