"""Folding a stream into a table of sessions.

A record at `t` becomes one session with all of its key that reach into `[t - gap, t + gap]`. Those that are swallowed
are deleted, with a tombstone each, before the new one is written. A result's time is its session's end, and it has no
headers (`KStreamSessionWindowAggregate`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.closing import released_when_closed
from streamlib.engine.operators.idle import closed_when_idle
from streamlib.engine.operators.in_window import new_windowed
from streamlib.engine.operators.site import OpenStore, Site, TableRow, TableRows, store_error, user_error
from streamlib.engine.operators.table import lookup_error
from streamlib.records import Headers
from streamlib.state.session import SessionRows
from streamlib.topology import operators as op
from streamlib.topology.nodes import StoreSpec
from streamlib.windows import LateRecord, Windowed

Session: TypeAlias = tuple[int, int, bytes]
"""A stored session: start, end, row."""

Update: TypeAlias = Callable[[bytes, Windowed[Any], Any, int, list[Session]], None]
"""f(encoded key, merged session, value of the record, time of the record, sessions that were merged)."""


def compile_session_fold(operator: op.SessionFold, site: Site) -> NodeFn:
    node = _in_sessions(operator, site)
    if not operator.on_close:
        return node
    release = SessionRelease(operator, site)
    node = released_when_closed(node, release, site)
    timeout_ms = operator.idle_timeout_ms
    return node if timeout_ms is None else closed_when_idle(node, release, timeout_ms, site)


def _in_sessions(operator: op.SessionFold, site: Site) -> NodeFn:
    name, cursor, time, store = site.name, site.work.cursor, site.stream_time(), site.store(operator.store)
    rows: SessionRows = store.rows
    spec, encode_key, find = store.spec, store.spec.key.encode, rows.find
    gap_ms, closing_ms = operator.windows.gap_ms, _closing_ms(operator)
    update, late = _updating(operator, site, store), _late(operator, site)

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        if key is None:
            cursor.dropped += 1
            return
        if timestamp > time.ms:
            time.ms = timestamp
        try:
            raw_key = encode_key(key)
        except Exception as error:
            raise store_error(name, spec, key, value, error) from error
        start = end = timestamp
        sessions = list(find(raw_key, timestamp - gap_ms, timestamp + gap_ms))
        for session_start, session_end, _ in sessions:
            if session_start < start:
                start = session_start
            if session_end > end:
                end = session_end
        merged = new_windowed((key, start, end))
        if end >= time.ms - closing_ms:
            update(raw_key, merged, value, timestamp, sessions)
        else:
            late(merged, value, timestamp)

    return node


def _closing_ms(operator: op.SessionFold) -> int:
    """How far stream time can be from the end of a session that is open."""
    return operator.windows.gap_ms + operator.windows.grace_ms


def _updating(operator: op.SessionFold, site: Site, store: OpenStore) -> Update:
    rows: SessionRows = store.rows
    put_row, fold, decode = rows.put_row, _folding(operator, site, store), _decoding(store.spec)
    forward, sends_old, cached = site.forward, site.sends_old_values, site.cached
    emits = not operator.on_close

    def update(raw_key: bytes, merged: Windowed[Any], value: Any, timestamp: int, sessions: list[Session]) -> None:
        key, start, end = merged
        new, raw = fold(key, value, timestamp, sessions)
        old = None
        if start == timestamp == end:
            # As in Kafka Streams, only a record cache knows the old value of a session that stays as long as it was.
            if cached and sessions:
                old = decode(key, sessions[0][2])
        else:
            for swallowed_start, swallowed_end, row in sessions:
                put_row(raw_key, swallowed_start, swallowed_end, None, timestamp)
                if emits:
                    swallowed = new_windowed((key, swallowed_start, swallowed_end))
                    forward(swallowed, (None, decode(key, row) if sends_old else None), swallowed_end, ())
        put_row(raw_key, start, end, raw, timestamp)
        if emits:
            forward(merged, (new, old), end, ())

    return update


def _folding(
    operator: op.SessionFold, site: Site, store: OpenStore
) -> Callable[[Any, Any, int, list[Session]], tuple[Any, bytes | None]]:
    """f(key, value, timestamp, sessions) -> the aggregate of all of them, and its bytes. Changes nothing."""
    name, spec, merger = site.name, store.spec, operator.merger
    encode, decode = spec.value.encode, spec.value.decode
    initializer, aggregator, timed = operator.fold.initializer, operator.fold.aggregator, operator.fold.timed

    def fold(key: Any, value: Any, timestamp: int, sessions: list[Session]) -> tuple[Any, bytes | None]:
        try:
            aggregate = initializer()
            for _, _, row in sessions:
                aggregate = merger(key, aggregate, decode(row))
            aggregate = aggregator(key, value, aggregate, timestamp) if timed else aggregator(key, value, aggregate)
        except Exception as error:
            raise user_error(name, key, error) from error
        if aggregate is None:
            return None, None
        try:
            return aggregate, encode(aggregate)
        except Exception as error:
            raise store_error(name, spec, key, aggregate, error) from error

    return fold


def _late(operator: op.SessionFold, site: Site) -> Callable[[Windowed[Any], Any, int], None]:
    """f(session, value, timestamp): counts a record that is late, and tells the user's `on_late`."""
    name, cursor, time, on_late = site.name, site.work.cursor, site.stream_time(), operator.on_late

    def late(session: Windowed[Any], value: Any, timestamp: int) -> None:
        cursor.dropped += 1
        if on_late is None:
            return
        try:
            on_late(LateRecord(session.key, value, timestamp, session.window, time.ms))
        except Exception as error:
            raise user_error(name, session.key, error) from error

    return late


class SessionRelease:
    """Emits sessions as they close, those that end first at first. Like `closing.Release`, for sessions."""

    def __init__(self, operator: op.SessionFold, site: Site) -> None:
        store = site.store(operator.store)
        self._rows: SessionRows = store.rows
        self._decode_key, self._decode = store.spec.key.decode, _decoding(store.spec)
        self._forward = site.forward
        self._time = site.stream_time()
        self._closing_ms = _closing_ms(operator)
        self._next_end = self._after_closed()  # the first end that has not been released
        self.due_ms = self._next_end + self._closing_ms + 1

    def __call__(self, headers: Headers) -> None:
        """Emit what has closed since the last call."""
        first, self._next_end = self._next_end, self._after_closed()
        self.due_ms = self._next_end + self._closing_ms + 1
        for raw_key, start, end, row in self._rows.ended(first, self._next_end - 1):
            key = self._decode_key(raw_key)
            self._forward(new_windowed((key, start, end)), (self._decode(key, row), None), end, headers)

    def first_due_ms(self) -> int | None:
        """The stream time at which the first session that waits closes; None if none waits."""
        first = self._rows.first_end(self._next_end)
        return None if first is None else first + self._closing_ms + 1

    def _after_closed(self) -> int:
        """The first end of sessions that are open."""
        return max(self._time.ms - self._closing_ms, 0)


def _decoding(spec: StoreSpec) -> Callable[[Any, bytes], Any]:
    """f(key, row) -> the aggregate in a row."""
    decode = spec.value.decode

    def decoded(key: Any, row: bytes) -> Any:
        try:
            return decode(row)
        except Exception as error:
            raise lookup_error(spec, key, error) from error

    return decoded


def stored_sessions(store: OpenStore) -> TableRows:
    """The rows of a session store. A row's time is its session's end."""
    spec, encode_key, decode = store.spec, store.spec.key.encode, _decoding(store.spec)
    rows: SessionRows = store.rows

    def value(session: Any) -> Any:
        key, start, end = session
        try:
            raw_key = encode_key(key)
        except Exception as error:
            raise lookup_error(spec, key, error) from error
        row = rows.row(raw_key, start, end)
        return None if row is None else decode(key, row)

    def row(session: Any) -> TableRow | None:
        found = value(session)
        return None if found is None else (found, session[2])

    return TableRows(value, row)
