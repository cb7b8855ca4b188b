"""Folding a stream into a table: count, reduce, aggregate.

A result's time is the later of the record's and the stored row's (`KStreamAggregate`, `KStreamReduce`). Records with a
null key or value are dropped. The old value that goes along with a change is the aggregate before it, for the first
record what the initializer gave, as in Kafka Streams.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any

from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.site import OpenStore, Site, store_error, user_error
from streamlib.records import Headers
from streamlib.serdes import Serdes
from streamlib.state.codec import pack_timestamp, unpack_timestamp
from streamlib.topology import operators as op

_COUNT_ROW = Struct(">qq")  # a timestamped row of a long


def compile_count(operator: op.StreamCount, site: Site) -> NodeFn:
    """A count kept as a long is read and written in one step; any other type goes the long way."""
    store = site.store(operator.store)
    if store.spec.value == Serdes.long():
        return _count_longs(site, store)
    return _fold(site, store, lambda: 0, lambda key, value, count: count + 1)


def compile_aggregate(operator: op.StreamAggregate, site: Site) -> NodeFn:
    return _fold(site, site.store(operator.store), operator.initializer, operator.aggregator)


def compile_reduce(operator: op.StreamReduce, site: Site) -> NodeFn:
    reducer = operator.reducer
    first = object()  # a reduction has no initializer: the first value is the first aggregate

    def aggregator(key: Any, value: Any, aggregate: Any) -> Any:
        return value if aggregate is first else reducer(aggregate, value)

    return _fold(site, site.store(operator.store), lambda: first, aggregator, first)


def _count_longs(site: Site, store: OpenStore) -> NodeFn:
    name, forward, cursor, spec = site.name, site.forward, site.work.cursor, store.spec
    encode_key, get, put = spec.key.encode, store.overlay.get, store.overlay.put
    pack, unpack, sends_old = _COUNT_ROW.pack, _COUNT_ROW.unpack, site.sends_old_values

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        if key is None or value is None:
            cursor.dropped += 1
            return
        try:
            raw_key = encode_key(key)
        except Exception as error:
            raise store_error(name, spec, key, value, error) from error
        row = get(raw_key)
        old = 0
        if row is not None:
            stored, old = unpack(row)
            if stored > timestamp:
                timestamp = stored
        put(raw_key, pack(timestamp, old + 1))
        forward(key, (old + 1, old if sends_old else None), timestamp, headers)

    return node


def _fold(
    site: Site,
    store: OpenStore,
    initializer: Callable[[], Any],
    aggregator: Callable[[Any, Any, Any], Any],
    no_aggregate: object = None,
) -> NodeFn:
    """`no_aggregate` is what an initializer gives that is not an aggregate anybody should see."""
    name, forward, cursor, spec = site.name, site.forward, site.work.cursor, store.spec
    encode_key, encode, decode = spec.key.encode, spec.value.encode, spec.value.decode
    get, put, delete = store.overlay.get, store.overlay.put, store.overlay.delete
    sends_old = site.sends_old_values

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        if key is None or value is None:
            cursor.dropped += 1
            return
        try:
            raw_key = encode_key(key)
        except Exception as error:
            raise store_error(name, spec, key, value, error) from error
        row = get(raw_key)
        result_time = timestamp
        try:
            if row is None:
                old = initializer()
            else:
                result_time = max(timestamp, unpack_timestamp(row)[0])
                old = decode(row[8:])
            before = None
            if sends_old and old is not no_aggregate:
                # Another object: an aggregator may change the one it is given.
                before = initializer() if row is None else decode(row[8:])
            new = aggregator(key, value, old)
        except Exception as error:
            raise user_error(name, key, error) from error
        if new is None:
            delete(raw_key, timestamp)
        else:
            try:
                raw = encode(new)
            except Exception as error:
                raise store_error(name, spec, key, new, error) from error
            put(raw_key, pack_timestamp(result_time) + raw)
        forward(key, (new, before), result_time, headers)

    return node
