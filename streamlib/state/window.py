"""Window stores: rows by key and window start.

    kind                 row                          changelog record
    window               value                        key + start + number, value, time of the record in process
    timestamped_window   8 bytes time + value         key + start + number, value, the row's time

The number is zero but in stores that keep duplicates (`WindowKeySchema.toStoreKeyBinary`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Any, Generic, TypeVar

from streamlib.records import FetchedRecord
from streamlib.state.codec import Codec, ValueAndTimestamp, pack_timestamp, unpack_timestamp
from streamlib.state.overlay import Overlay
from streamlib.state.rows import Read, RecordTime
from streamlib.state.segments import Segments, pack_time, restored_segments
from streamlib.topology.nodes import WindowStoreSpec
from streamlib.windows import END_OF_TIME_MS, Windowed

K = TypeVar("K")
V = TypeVar("V")

_PLACE = Struct(">qi")
pack_place = _PLACE.pack
unpack_place = _PLACE.unpack_from
PLACE_BYTES = _PLACE.size
_LAST_NUMBER = (1 << 31) - 1


class WindowRows(Segments):
    """The bytes of a window store."""

    spec: WindowStoreSpec

    def __init__(self, spec: WindowStoreSpec, overlay: Overlay) -> None:
        super().__init__(spec, overlay)
        if spec.time_ordered:
            self.reach_ms += 1  # as in Kafka Streams, whose stores that are read by time see one millisecond further

    def put_row(self, key: bytes, start: int, row: bytes | None, timestamp: int) -> bool:
        """Write the row of a key in a window, or one more where duplicates are kept; False if it is too old.

        Where duplicates are kept nothing is ever deleted: None is ignored.
        """
        if not self.spec.retain_duplicates:
            return self.put(key + pack_place(start, 0), start, row, timestamp)
        if row is None:
            return False
        return self.put(key + pack_place(start, self.next_number()), start, row, timestamp)

    def row(self, key: bytes, start: int) -> bytes | None:
        """The row of a key in a window."""
        return self.get(key + pack_place(start, 0), start)

    def around(self, start: int) -> tuple[bytes, bytes]:
        """What is before and after a key in the overlay's keys of the rows of a window, for who knows that the window
        can be seen and calls `observe(start)`; not for stores that are `time_ordered` or keep duplicates."""
        return pack_time(start // self.segment_ms), pack_place(start, 0)

    def starting(self, first_start: int, last_start: int) -> list[tuple[bytes, int, bytes]]:
        """Key, start and row of windows that start within a span of time, both inclusive, by start, then by key.

        Rows older than the retention are among them (`by_time`). Only in stores that are `time_ordered`.
        """
        found = []
        for start, place in self.by_time(first_start, last_start):
            row = self.get_physical(place, start)
            assert row is not None, f"store {self.spec.name}: the index names a row that is not there"
            found.append((place[:-PLACE_BYTES], start, row))
        return found

    def first_start(self, first_start: int) -> int | None:
        """The start of the earliest window from a time on, whatever the key. Only in stores that are `time_ordered`."""
        return next((start for start, _ in self.by_time(first_start, self.observed)), None)

    def fetch(
        self, key: bytes, first_start: int, last_start: int, *, reverse: bool = False
    ) -> Iterator[tuple[int, bytes]]:
        """A key's rows in windows that start within a span of time, both inclusive, by start, then as they were put."""
        first, last = max(first_start, self.oldest_visible), min(last_start, self.observed)
        if first > last:
            return
        length = len(key)
        start, end = key + pack_place(first, 0), key + pack_place(last, _LAST_NUMBER) + b"\0"
        for found, row in self.scan(start, end, first, last, reverse=reverse):
            # Longer keys that begin with this one may lie in between.
            if len(found) == length + PLACE_BYTES:
                yield unpack_place(found, length)[0], row

    def fetch_keys(
        self,
        first_key: bytes | None,
        last_key: bytes | None,
        first_start: int,
        last_start: int,
        *,
        reverse: bool = False,
    ) -> Iterator[tuple[bytes, int, bytes]]:
        """Rows of several keys, both inclusive, in windows that start within a span of time: key, start, row.

        Segment by segment, in each by key, then by start.
        """
        oldest = max(first_start, self.oldest_visible)
        for found, row in self.scan(
            first_key or b"", self.end_of_keys(last_key), first_start, last_start, reverse=reverse
        ):
            key, start = found[:-PLACE_BYTES], unpack_place(found, len(found) - PLACE_BYTES)[0]
            in_keys = (first_key is None or key >= first_key) and (last_key is None or key <= last_key)
            if in_keys and oldest <= start <= last_start:
                yield key, start, row


def restored_windows(spec: WindowStoreSpec, records: Iterable[FetchedRecord], read: Read) -> dict[bytes, bytes | None]:
    """The rows that changelog records stand for."""
    timed = spec.kind == "timestamped_window"

    def rows() -> Iterator[tuple[bytes, int, int, bytes | None]]:
        for record in records:
            key, value = record.key, record.value
            assert key is not None
            start, number = unpack_place(key, len(key) - PLACE_BYTES)
            row = pack_timestamp(record.timestamp) + value if timed and value is not None else value
            yield key, start, number, row

    return restored_segments(spec, rows(), read)


class WindowStore(Generic[K, V]):
    """Values by key and window start; `ValueAndTimestamp`s in a timestamped store. A None value deletes.

    Rows are seen until a window starts that is the store's retention later.
    """

    def __init__(self, rows: WindowRows, clock: RecordTime) -> None:
        self.name = rows.spec.name
        self._rows = rows
        self._codec = Codec(rows.spec)
        self._clock = clock
        self._timed = rows.spec.kind == "timestamped_window"
        self._size_ms = rows.spec.window_size_ms

    def put(self, key: K, value: Any, start_ms: int) -> None:
        """Set the value of `key` in the window that starts at `start_ms`; None deletes it.

        In a timestamped store `value` may be a `ValueAndTimestamp`; without a time it gets that of the record in
        process.
        """
        now = self._clock.timestamp
        raw_key, row = self._codec.encode_key(key), None
        if self._timed and value is not None:
            if not isinstance(value, ValueAndTimestamp):
                value = ValueAndTimestamp(value, now)
            row = pack_timestamp(value.timestamp) + self._codec.encode_value(key, value.value)
        elif value is not None:
            row = self._codec.encode_value(key, value)
        self._rows.put_row(raw_key, start_ms, row, now)

    def get(self, key: K, start_ms: int) -> Any:
        """What is stored for `key` in the window that starts at `start_ms`, or None."""
        row = self._rows.row(self._codec.encode_key(key), start_ms)
        return None if row is None else self._decode(row)

    def fetch(self, key: K, first_ms: int, last_ms: int, *, reverse: bool = False) -> Iterator[tuple[int, Any]]:
        """Window starts and values of `key` in windows that start within `[first_ms, last_ms]`, by start."""
        for start, row in self._rows.fetch(self._codec.encode_key(key), first_ms, last_ms, reverse=reverse):
            yield start, self._decode(row)

    def fetch_keys(
        self, first_key: K | None, last_key: K | None, first_ms: int, last_ms: int, *, reverse: bool = False
    ) -> Iterator[tuple[Windowed[K], Any]]:
        """Rows of keys within `[first_key, last_key]` in windows that start within `[first_ms, last_ms]`.

        None is an open bound. The order is that of segments of time, in each by key, then by start.
        """
        first = None if first_key is None else self._codec.encode_key(first_key)
        last = None if last_key is None else self._codec.encode_key(last_key)
        for key, start, row in self._rows.fetch_keys(first, last, first_ms, last_ms, reverse=reverse):
            yield self._windowed(key, start), self._decode(row)

    def fetch_all(self, first_ms: int, last_ms: int, *, reverse: bool = False) -> Iterator[tuple[Windowed[K], Any]]:
        """Rows of all keys in windows that start within `[first_ms, last_ms]`."""
        return self.fetch_keys(None, None, first_ms, last_ms, reverse=reverse)

    def all(self) -> Iterator[tuple[Windowed[K], Any]]:
        """All rows that can be seen."""
        return self.fetch_all(0, END_OF_TIME_MS)

    def _windowed(self, key: bytes, start: int) -> Windowed[K]:
        return Windowed(self._codec.decode_key(key), start, min(start + self._size_ms, END_OF_TIME_MS))

    def _decode(self, row: bytes) -> Any:
        if self._timed:
            return ValueAndTimestamp(self._codec.decode_value(row[8:]), unpack_timestamp(row)[0])
        return self._codec.decode_value(row)
