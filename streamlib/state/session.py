"""Session stores: rows by key, session end and session start.

    row      the value; a session has no other time than its end
    changelog record     key + end + start, value, time of the record in process (`SessionKeySchema.toBinary`)

A session is as old as its end is: retention, and what counts as observed, go by ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Generic, TypeVar

from streamlib.errors import StateStoreError
from streamlib.records import FetchedRecord
from streamlib.state.codec import Codec
from streamlib.state.overlay import Overlay
from streamlib.state.rows import Read, RecordTime
from streamlib.state.segments import Segments, restored_segments
from streamlib.topology.nodes import SessionStoreSpec
from streamlib.windows import END_OF_TIME_MS, Windowed

K = TypeVar("K")
V = TypeVar("V")

_SPAN = Struct(">qq")
pack_span = _SPAN.pack
unpack_span = _SPAN.unpack_from
SPAN_BYTES = _SPAN.size


class SessionRows(Segments):
    """The bytes of a session store."""

    spec: SessionStoreSpec

    def __init__(self, spec: SessionStoreSpec, overlay: Overlay) -> None:
        super().__init__(spec, overlay)
        # A session that a late record can still reach may be as old as the retention, and is not found any more. What
        # that record makes takes its place, as in Kafka Streams; it is there to be emitted when it closes.
        self.unseen_ms = 1

    def put_row(self, key: bytes, start: int, end: int, row: bytes | None, timestamp: int) -> bool:
        """Write the row of a session, or delete it; False if the session ended too long ago to be kept.

        Raises:
            StateStoreError: it ends before it starts, or starts before 1970.
        """
        if not 0 <= start <= end:
            raise StateStoreError(f"store {self.spec.name}: a session cannot last from {start} to {end} ms")
        return self.put(key + pack_span(end, start), end, row, timestamp)

    def row(self, key: bytes, start: int, end: int) -> bytes | None:
        """The row of a session."""
        return self.get(key + pack_span(end, start), end)

    def find(
        self, key: bytes, earliest_end: int, latest_start: int, *, reverse: bool = False
    ) -> Iterator[tuple[int, int, bytes]]:
        """Start, end and row of a key's sessions that end at or after one time and start at or before another.

        By end, then by start.
        """
        first = max(earliest_end, self.oldest_visible)
        if first > self.observed or latest_start < 0:
            return
        length = len(key)
        lower, upper = key + pack_span(first, 0), key + pack_span(END_OF_TIME_MS, latest_start) + b"\0"
        for found, row in self.scan(lower, upper, first, END_OF_TIME_MS, reverse=reverse):
            # Longer keys that begin with this one may lie in between.
            if len(found) == length + SPAN_BYTES:
                end, start = unpack_span(found, length)
                if end >= first and start <= latest_start:
                    yield start, end, row

    def find_keys(
        self,
        first_key: bytes | None,
        last_key: bytes | None,
        earliest_end: int,
        latest_start: int,
        *,
        reverse: bool = False,
    ) -> Iterator[tuple[bytes, int, int, bytes]]:
        """The same of several keys, both inclusive: key, start, end, row.

        Segment by segment, in each by key, then by end and start.
        """
        first = max(earliest_end, self.oldest_visible)
        for found, row in self.scan(
            first_key or b"", self.end_of_keys(last_key), first, END_OF_TIME_MS, reverse=reverse
        ):
            key, (end, start) = found[:-SPAN_BYTES], unpack_span(found, len(found) - SPAN_BYTES)
            in_keys = (first_key is None or key >= first_key) and (last_key is None or key <= last_key)
            if in_keys and end >= first and start <= latest_start:
                yield key, start, end, row

    def ended(self, first_end: int, last_end: int) -> list[tuple[bytes, int, int, bytes]]:
        """Key, start, end and row of all sessions that ended within a span of time, both inclusive, seen or not.

        By end, then by start, then by key (`TimeFirstSessionKeySchema`). Only in stores that are `time_ordered`.
        """
        sessions = []
        for end, found in self.by_time(first_end, last_end):
            row = self.get_physical(found, end)
            assert row is not None, f"store {self.spec.name}: the index has a session that is not there"
            sessions.append((found[:-SPAN_BYTES], unpack_span(found, len(found) - SPAN_BYTES)[1], end, row))
        sessions.sort(key=_by_time)
        return sessions

    def first_end(self, first_end: int) -> int | None:
        """The end of the session that ends first from a time on, whatever the key. Only in stores that are
        `time_ordered`."""
        return next((end for end, _ in self.by_time(first_end, self.observed)), None)


def _by_time(session: tuple[bytes, int, int, bytes]) -> tuple[int, int, bytes]:
    key, start, end, _ = session
    return end, start, key


def restored_sessions(
    spec: SessionStoreSpec, records: Iterable[FetchedRecord], read: Read
) -> dict[bytes, bytes | None]:
    """The rows that changelog records stand for."""

    def rows() -> Iterator[tuple[bytes, int, int, bytes | None]]:
        for record in records:
            key = record.key
            assert key is not None
            yield key, unpack_span(key, len(key) - SPAN_BYTES)[0], 0, record.value

    return restored_segments(spec, rows(), read)


class SessionStore(Generic[K, V]):
    """Values by key and session. A session is `Windowed(key, start, end)`, both ends inclusive, in ms.

    A session is gone when one has been put that ends the store's retention later.
    """

    def __init__(self, rows: SessionRows, clock: RecordTime) -> None:
        self.name = rows.spec.name
        self._rows = rows
        self._codec = Codec(rows.spec)
        self._clock = clock

    def put(self, session: Windowed[K], value: V | None) -> None:
        """Set the value of a session; None deletes it.

        Raises:
            StateStoreError: it ends before it starts, or starts before 1970.
        """
        key, start, end = session
        raw_key = self._codec.encode_key(key)
        row = None if value is None else self._codec.encode_value(key, value)
        self._rows.put_row(raw_key, start, end, row, self._clock.timestamp)

    def remove(self, session: Windowed[K]) -> None:
        """Delete a session."""
        self.put(session, None)

    def get(self, session: Windowed[K]) -> V | None:
        """The value of a session, or None."""
        return self.fetch_session(*session)

    def fetch_session(self, key: K, start_ms: int, end_ms: int) -> V | None:
        """The value of the session of `key` that starts and ends at exactly these times, or None."""
        row = self._rows.row(self._codec.encode_key(key), start_ms, end_ms)
        return None if row is None else self._codec.decode_value(row)

    def find_sessions(
        self, key: K, earliest_end_ms: int, latest_start_ms: int, *, reverse: bool = False
    ) -> Iterator[tuple[Windowed[K], V]]:
        """Sessions of `key` that end at or after one time and start at or before the other, by end, then by start."""
        decode = self._codec.decode_value
        raw_key = self._codec.encode_key(key)
        for start, end, row in self._rows.find(raw_key, earliest_end_ms, latest_start_ms, reverse=reverse):
            yield Windowed(key, start, end), decode(row)

    def find_sessions_of_keys(
        self,
        first_key: K | None,
        last_key: K | None,
        earliest_end_ms: int,
        latest_start_ms: int,
        *,
        reverse: bool = False,
    ) -> Iterator[tuple[Windowed[K], V]]:
        """The same for keys within `[first_key, last_key]`; None is an open bound.

        The order is that of segments of time, in each by key, then by end and start.
        """
        first = None if first_key is None else self._codec.encode_key(first_key)
        last = None if last_key is None else self._codec.encode_key(last_key)
        decode_key, decode = self._codec.decode_key, self._codec.decode_value
        found = self._rows.find_keys(first, last, earliest_end_ms, latest_start_ms, reverse=reverse)
        for key, start, end, row in found:
            yield Windowed(decode_key(key), start, end), decode(row)

    def fetch(self, key: K, *, reverse: bool = False) -> Iterator[tuple[Windowed[K], V]]:
        """All sessions of `key`, by end, then by start."""
        return self.find_sessions(key, 0, END_OF_TIME_MS, reverse=reverse)

    def fetch_keys(
        self, first_key: K | None, last_key: K | None, *, reverse: bool = False
    ) -> Iterator[tuple[Windowed[K], V]]:
        """All sessions of keys within `[first_key, last_key]`; None is an open bound."""
        return self.find_sessions_of_keys(first_key, last_key, 0, END_OF_TIME_MS, reverse=reverse)

    def all(self) -> Iterator[tuple[Windowed[K], V]]:
        """All sessions that can be seen."""
        return self.fetch_keys(None, None)
