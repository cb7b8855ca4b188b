"""Joins of streams with tables."""

from __future__ import annotations

from typing import Any

from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.site import Site, store_error, user_error
from streamlib.engine.operators.waiting import origin_of, releasing
from streamlib.records import Headers
from streamlib.state.buffer import Buffered, BufferRows, pack_buffered
from streamlib.topology import operators as op


def compile_stream_table_join(operator: op.StreamTableJoin, site: Site) -> NodeFn:
    """`KStreamKTableJoinProcessor`: a null value is dropped always, a null key unless the join is left (KIP-962)."""
    join = _joining(operator, site)
    return join if operator.buffer is None else _waiting(operator.buffer, operator.grace_ms, site, join)


def _joining(operator: op.StreamTableJoin, site: Site) -> NodeFn:
    """Joins with the row that is there now, or that of a versioned table that held at the record's time."""
    joiner, left, with_key = operator.joiner, operator.left, operator.with_key
    name, forward, cursor = site.name, site.forward, site.work.cursor
    rows = site.work.getter(operator.table)
    look_up, as_of = rows.value, rows.as_of

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        if value is None or (key is None and not left):
            cursor.dropped += 1
            return
        if key is None:
            row = None
        elif as_of is None:
            row = look_up(key)
        else:
            held = as_of(key, timestamp)
            row = None if held is None else held[0]
        if row is None and not left:
            return
        try:
            joined = joiner(key, value, row) if with_key else joiner(value, row)
        except Exception as error:
            raise user_error(name, key, error) from error
        forward(key, joined, timestamp, headers)

    return node


def _waiting(buffer: str, grace_ms: int, site: Site, join: NodeFn) -> NodeFn:
    """Records wait until their rows can be there; stream time is the highest time of those that do.

    What is later than the grace is joined at once, and so is what has no key (`RocksDBTimeOrderedKeyValueBuffer` fails
    on it): no row can come that it would have to wait for.
    """
    rows: BufferRows = site.store(buffer).rows
    name, spec, cursor, clock = site.name, rows.spec, site.work.cursor, site.stream_time()
    put, pop, release = rows.put, rows.pop, releasing(join, cursor)
    encode_key, encode, decode_key, decode = spec.key.encode, spec.value.encode, spec.key.decode, spec.value.decode

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        if key is None or value is None or timestamp < clock.ms - grace_ms:
            join(key, value, timestamp, headers)
            return
        try:
            raw_key, raw = encode_key(key), encode(value)
        except Exception as error:
            raise store_error(name, spec, key, value, error) from error
        if timestamp > clock.ms:
            clock.ms = timestamp
        origin = origin_of(cursor, timestamp, headers)
        put(raw_key, timestamp, pack_buffered(Buffered(None, None, raw, origin)), timestamp)
        due = clock.ms - grace_ms
        while rows.oldest_time <= due:
            raw_key, waited = pop(timestamp)
            assert waited.new is not None, "nothing without a value waits"
            release(decode_key(raw_key), decode(waited.new), waited.origin)

    return node
