"""Suppression: changes wait in a buffer until their time has come (`KTableSuppressProcessor`).

The operator's stream time is the highest time of a change it was given. A change goes on with the time, the headers and
the place of the last record that changed it. The old value that goes along is the one the last change had: that is
what Kafka Streams does, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamlib.engine.cursor import NO_TIME
from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.site import Site, TableRow, TableRows, store_error
from streamlib.engine.operators.waiting import origin_of, releasing
from streamlib.errors import StreamsError
from streamlib.records import Headers
from streamlib.serdes import Serde
from streamlib.state.buffer import Buffered, BufferRows, unpack_buffered
from streamlib.topology import operators as op


def compile_suppress(operator: op.Suppress, site: Site) -> NodeFn:
    """Each change is buffered first, then what is due goes on, then what is too much."""
    rows: BufferRows = site.store(operator.buffer).rows
    add, emit = _adder(operator, site, rows), _emitter(operator, site, rows)
    clock, wait_ms = site.stream_time(), operator.wait_ms
    enforce = _enforcer(operator, site.name, rows, emit)

    def node(key: Any, change: Any, timestamp: int, headers: Headers) -> None:
        if timestamp > clock.ms:
            clock.ms = timestamp
        add(key, change, timestamp, headers)
        due = clock.ms - wait_ms
        while rows.oldest_time <= due:
            emit(timestamp)
        if enforce is not None:
            enforce(timestamp)

    return node


def _adder(operator: op.Suppress, site: Site, rows: BufferRows) -> NodeFn:
    """Puts a change into the buffer."""
    name, spec, cursor, final = site.name, rows.spec, site.work.cursor, operator.until_window_closes
    encode_key, encode, put_change = spec.key.encode, spec.value.encode, rows.put_change

    def add(key: Any, change: Any, timestamp: int, headers: Headers) -> None:
        new, old = change
        try:
            raw_key = encode_key(key)
            raw = None if new is None else encode(new), None if old is None else encode(old)
        except Exception as error:
            raise store_error(name, spec, key, new, error) from error
        put_change(raw_key, key.end if final else timestamp, raw, origin_of(cursor, timestamp, headers), timestamp)

    return add


def _emitter(operator: op.Suppress, site: Site, rows: BufferRows) -> Callable[[int], None]:
    """f(time of the record in process): takes the oldest change out of the buffer and passes it on."""
    release, sends_old = releasing(site.forward, site.work.cursor), site.sends_old_values
    final = operator.until_window_closes
    pop, decode_key, decode = rows.pop, rows.spec.key.decode, rows.spec.value.decode

    def emit(timestamp: int) -> None:
        raw_key, buffered = pop(timestamp)
        if final and buffered.new is None:
            return
        new = None if buffered.new is None else decode(buffered.new)
        old = None if buffered.old is None or not sends_old else decode(buffered.old)
        release(decode_key(raw_key), (new, old), buffered.origin)

    return emit


def _enforcer(
    operator: op.Suppress, name: str, rows: BufferRows, emit: Callable[[int], None]
) -> Callable[[int], None] | None:
    """Sees to it that no more waits than may; None if any amount may."""
    if operator.max_records is None and operator.max_bytes is None:
        return None
    infinity = float("inf")
    max_records = infinity if operator.max_records is None else operator.max_records
    max_bytes = infinity if operator.max_bytes is None else operator.max_bytes

    def emit_early(timestamp: int) -> None:
        while len(rows) > max_records or rows.size_bytes > max_bytes:
            emit(timestamp)

    def shut_down(timestamp: int) -> None:
        if len(rows) > max_records or rows.size_bytes > max_bytes:
            raise StreamsError(
                f"node {name}: the suppression buffer is full: {len(rows)} records of {max_records}, "
                f"{rows.size_bytes} bytes of {max_bytes}: give it a larger bound, or let it emit early "
                "(BufferConfig...emit_early_when_full())"
            )

    return shut_down if operator.shut_down else emit_early


def suppressed_rows(operator: op.Suppress, site: Site) -> TableRows:
    """What the tables below have seen: of a key that waits the value from before it began to wait, without a time; of
    any other the row of the table above."""
    rows: BufferRows = site.store(operator.buffer).rows
    above = site.work.getter(operator.table)
    parent_value, parent_row = above.value, above.row
    key_serde: Serde[Any] = rows.spec.key
    encode_key, decode, get = key_serde.encode, rows.spec.value.decode, rows.get

    def waiting(key: Any) -> Buffered | None:
        entry = get(encode_key(key))
        return None if entry is None else unpack_buffered(entry)

    def prior(buffered: Buffered) -> Any:
        return None if buffered.prior is None else decode(buffered.prior)

    def value(key: Any) -> Any:
        buffered = waiting(key)
        return parent_value(key) if buffered is None else prior(buffered)

    def row(key: Any) -> TableRow | None:
        buffered = waiting(key)
        if buffered is None:
            return parent_row(key)
        found = prior(buffered)
        return None if found is None else (found, NO_TIME)

    return TableRows(value, row)
