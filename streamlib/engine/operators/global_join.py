"""Joins of a stream with a global table."""

from __future__ import annotations

from typing import Any

from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.site import Site, store_error, user_error
from streamlib.records import Headers
from streamlib.topology import operators as op


def compile_stream_global_table_join(operator: op.StreamGlobalTableJoin, site: Site) -> NodeFn:
    """`KStreamKTableJoinProcessor` with a key selector: a null value is dropped always; no key to look up finds no
    row (KIP-962)."""
    selector, joiner, left, with_key = operator.selector, operator.joiner, operator.left, operator.with_key
    name, forward, cursor = site.name, site.forward, site.work.cursor
    store = site.work.global_stores[operator.store]
    spec, get = store.spec, store.overlay.get
    encode_key, decode = spec.key.encode, spec.value.decode

    def look_up(mapped: Any) -> Any:
        try:
            row = get(encode_key(mapped))
            return None if row is None else decode(row[8:])
        except Exception as error:
            raise store_error(name, spec, mapped, None, error) from error

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        if value is None:
            cursor.dropped += 1
            return
        try:
            mapped = selector(key, value)
        except Exception as error:
            raise user_error(name, key, error) from error
        row = None if mapped is None else look_up(mapped)
        if row is None and not left:
            cursor.dropped += mapped is None
            return
        try:
            joined = joiner(key, value, row) if with_key else joiner(value, row)
        except Exception as error:
            raise user_error(name, key, error) from error
        forward(key, joined, timestamp, headers)

    return node
