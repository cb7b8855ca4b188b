"""Folding a stream into a table: count, reduce, aggregate.

A result's time is the later of the record's and the stored row's (`KStreamAggregate`, `KStreamReduce`). Records with a
null key or value are dropped. The old value that goes along with a change is the aggregate before it, for the first
record what the initializer gave, as in Kafka Streams.
"""

from __future__ import annotations

from struct import Struct
from typing import Any

from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.folding import folding_node, folding_of, row_folder
from streamlib.engine.operators.site import OpenStore, Site, store_error
from streamlib.records import Headers
from streamlib.serdes import Serdes
from streamlib.topology import operators as op

_COUNT_ROW = Struct(">qq")  # a timestamped row of a long


def compile_count(operator: op.StreamCount, site: Site) -> NodeFn:
    """A count kept as a long is read and written in one step; any other type goes the long way."""
    store = site.store(operator.store)
    if store.spec.value == Serdes.long() and store.spec.kind == "timestamped_key_value":
        return _count_longs(site, store)
    return compile_fold(operator, site)


def compile_cogroup_merge(operator: op.CogroupMerge, site: Site) -> NodeFn:
    return site.forward


def _count_longs(site: Site, store: OpenStore) -> NodeFn:
    name, forward, cursor, spec = site.name, site.forward, site.work.cursor, store.spec
    encode_key, get, put = spec.key.encode, store.overlay.get, store.overlay.put
    pack, unpack, sends_old = _COUNT_ROW.pack, _COUNT_ROW.unpack, site.sends_old_values
    no_row = None if site.cached else 0

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        if key is None or value is None:
            cursor.dropped += 1
            return
        try:
            raw_key = encode_key(key)
        except Exception as error:
            raise store_error(name, spec, key, value, error) from error
        row = get(raw_key)
        count, old = 0, no_row
        if row is not None:
            stored, count = unpack(row)
            old = count
            if stored > timestamp:
                timestamp = stored
        put(raw_key, pack(timestamp, count + 1))
        forward(key, (count + 1, old if sends_old else None), timestamp, headers)

    return node


def compile_fold(operator: op.StreamAggregate | op.StreamReduce | op.StreamCount, site: Site) -> NodeFn:
    """Any of them."""
    store = site.store(operator.store)
    return folding_node(site, store, row_folder(folding_of(operator), site, store.spec))
