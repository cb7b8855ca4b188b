"""Folding one record into one row: what aggregations have in common, with windows and without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, assert_never

from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.change import OutOfOrder
from streamlib.engine.operators.site import OpenStore, Site, store_error, user_error
from streamlib.records import Headers
from streamlib.state.codec import pack_timestamp, unpack_timestamp
from streamlib.state.versioned import IS_NEWEST, NOT_PUT
from streamlib.topology import operators as op
from streamlib.topology.nodes import StoreSpec

Folded: TypeAlias = tuple[bytes | None, tuple[Any, Any], int]
"""The new row, None if it is to be deleted; the change to forward; the change's time."""

FoldRow: TypeAlias = Callable[[Any, Any, int, bytes | None], Folded]
"""f(key, value, timestamp, row as it is stored or None) -> what comes of it. Changes nothing."""


class Folding(NamedTuple):
    """How values are folded. `first_old`: the old value of a row's first change. `timed`: see `StreamAggregate`."""

    initializer: Callable[[], Any]
    aggregator: Callable[..., Any]
    first_old: Callable[[], Any]
    timed: bool = False


def folding_of(operator: op.StreamAggregate | op.StreamReduce | op.StreamCount) -> Folding:
    """The functions of an aggregation."""
    match operator:
        case op.StreamCount():
            return Folding(lambda: 0, lambda key, value, count: count + 1, lambda: 0)
        case op.StreamAggregate(initializer=initializer, aggregator=aggregator, timed=timed):
            return Folding(initializer, aggregator, initializer, timed)
        case op.StreamReduce(reducer=reducer):
            return _reduction(reducer)
        case _:
            assert_never(operator)


def _reduction(reducer: Callable[[Any, Any], Any]) -> Folding:
    first = object()  # there is no initializer: the first value is the first aggregate

    def aggregator(key: Any, value: Any, aggregate: Any) -> Any:
        return value if aggregate is first else reducer(aggregate, value)

    return Folding(lambda: first, aggregator, _nothing)


def row_folder(folding: Folding, site: Site, spec: StoreSpec) -> FoldRow:
    """Folds a record into the row of a timestamped store.

    A result's time is the later of the record's and the row's. In front of a cache a row's first change has no old
    value, and a delete the time of the record: it leaves no row with a time, which is where a cache takes it from.
    """
    initializer, aggregator, first_old, timed = folding
    name, encode, decode = site.name, spec.value.encode, spec.value.decode
    sends_old, cached = site.sends_old_values, site.cached
    first_old = _nothing if cached else first_old

    def fold(key: Any, value: Any, timestamp: int, row: bytes | None) -> Folded:
        result_time, before = timestamp, None
        try:
            if row is None:
                old = initializer()
            else:
                result_time = max(timestamp, unpack_timestamp(row)[0])
                old = decode(row[8:])
            if sends_old:
                # Another object: an aggregator may change the one it is given.
                before = first_old() if row is None else decode(row[8:])
            new = aggregator(key, value, old, timestamp) if timed else aggregator(key, value, old)
        except Exception as error:
            raise user_error(name, key, error) from error
        if new is None:
            return None, (None, before), timestamp if cached else result_time
        try:
            raw = encode(new)
        except Exception as error:
            raise store_error(name, spec, key, new, error) from error
        return pack_timestamp(result_time) + raw, (new, before), result_time

    return fold


def folding_node(site: Site, store: OpenStore, fold: FoldRow) -> NodeFn:
    """Folds each record into the row of its key, and forwards the change. Records with a null key or value are
    dropped."""
    if store.spec.kind == "versioned":
        return _versioned_folding_node(site, store, fold)
    name, forward, cursor, spec = site.name, site.forward, site.work.cursor, store.spec
    encode_key, get, put, delete = spec.key.encode, store.overlay.get, store.overlay.put, store.overlay.delete

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        if key is None or value is None:
            cursor.dropped += 1
            return
        try:
            raw_key = encode_key(key)
        except Exception as error:
            raise store_error(name, spec, key, value, error) from error
        row, change, result_time = fold(key, value, timestamp, get(raw_key))
        if row is None:
            delete(raw_key, timestamp)
        else:
            put(raw_key, row)
        forward(key, change, result_time, headers)

    return node


def _versioned_folding_node(site: Site, store: OpenStore, fold: FoldRow) -> NodeFn:
    """The same, with each result as a version of the row: a key that begins anew may do so too late."""
    name, forward, cursor, spec, rows = site.name, site.forward, site.work.cursor, store.spec, store.rows
    encode_key, newest, put = spec.key.encode, rows.newest, rows.put

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        if key is None or value is None:
            cursor.dropped += 1
            return
        try:
            raw_key = encode_key(key)
        except Exception as error:
            raise store_error(name, spec, key, value, error) from error
        row, change, result_time = fold(key, value, timestamp, newest(raw_key))
        followed_at = put(raw_key, None if row is None else row[8:], result_time)
        if followed_at == NOT_PUT:
            cursor.dropped += 1
            return
        forward(key, change if followed_at == IS_NEWEST else OutOfOrder(change), result_time, headers)

    return node


def _nothing() -> None:
    """There is no old value."""
