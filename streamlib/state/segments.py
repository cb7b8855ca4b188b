"""Rows with a time, in segments: what window and session stores have in common.

    segment (8 bytes) + changelog key              row      the changelog key begins with the record key
    INDEX + time (8 bytes) + changelog key         empty    only in stores that are read by time alone
    META                                           the highest time put, and how many numbers were given out

A segment is a span of time, as long as in Kafka Streams' `RocksDBSegmentedBytesStore`. Within it rows are in the order
of their keys, so reading a key's rows of a span of time is one scan for each segment; forgetting is deleting whole
segments. What is older than the retention is not seen any more even while its segment is still there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct

from streamlib.errors import StateStoreError
from streamlib.records import OutRecord
from streamlib.state.overlay import Overlay
from streamlib.state.rows import LOCAL, Read
from streamlib.topology.nodes import RetainedStoreSpec

MIN_SEGMENT_MS = 60_000
"""Kafka Streams has no shorter segments (`AbstractStoreBuilder`, `WindowStore` suppliers)."""

META = b"\xff"
INDEX = b"\xf0"

_TIME = Struct(">q")
pack_time = _TIME.pack
unpack_time = _TIME.unpack_from
_META = Struct(">qi")


class Segments:
    """The rows of one store. `observed` is the highest time ever put, -1 before the first."""

    def __init__(self, spec: RetainedStoreSpec, overlay: Overlay) -> None:
        self.spec = spec
        self.overlay = overlay
        self.segment_ms = segment_ms(spec)
        self.reach_ms = spec.retention_ms - 1  # how far behind the newest time a row can be seen
        self.unseen_ms = 0  # how much further behind it is still kept
        self._timed = spec.kind == "timestamped_window"  # rows carry their times
        meta = overlay.get(META)
        self.observed: int = -1
        self.numbers: int = 0
        if meta is not None:
            self.observed, self.numbers = _META.unpack(meta)
        self._stored_meta = (self.observed, self.numbers)
        self._dropped = 0  # segments before this one are gone
        self._kept: dict[int, int] = {}  # what was put into segments, in bytes; only if it is kept for longer
        self._max_kept_bytes: int | None = None

    @property
    def oldest_visible(self) -> int:
        """The earliest time whose rows can still be seen."""
        return max(0, self.observed - self.reach_ms)

    def keep_forgotten(self, max_bytes: int) -> None:
        """Let rows that are older than the retention be seen as long as all that was put since the start, by segments,
        weighs no more than this.

        In front of a window store Kafka Streams' cache does not forget what the store has forgotten.
        """
        self._max_kept_bytes = max_bytes

    def would_be_seen(self, time: int) -> bool:
        """Whether a row that is put now could be read afterwards."""
        return self.reach_ms >= 0 and time >= self.observed - self.reach_ms

    def observe(self, time: int) -> None:
        """A row of this time is put."""
        if time > self.observed:
            self.observed = time

    def put(self, key: bytes, time: int, row: bytes | None, timestamp: int) -> bool:
        """Write a row under its changelog key, or delete it; False if it is too old to be kept.

        Raises:
            StateStoreError: the time is negative.
        """
        if time < 0:
            raise StateStoreError(f"store {self.spec.name}: a window cannot be at {time} ms, before 1970")
        if time > self.observed:
            self.observed = time
        elif time < self.observed - self.reach_ms - self.unseen_ms:
            return False
        local = pack_time(time // self.segment_ms) + key
        overlay = self.overlay
        if row is None:
            overlay.delete(local, timestamp)
        elif self._timed:
            overlay.put(local, row)
        else:
            overlay.put_at(local, row, timestamp)
        if self.spec.time_ordered:
            index = INDEX + pack_time(time) + key
            if row is None:
                overlay.delete(index, timestamp)
            else:
                overlay.put(index, b"")
        return True

    def get(self, key: bytes, time: int) -> bytes | None:
        """The row under a changelog key, if it can be seen."""
        if time < self.observed - self.reach_ms or time < 0:
            return None
        return self.overlay.get(pack_time(time // self.segment_ms) + key)

    def scan(
        self, start: bytes, end: bytes | None, first_time: int, last_time: int, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows of all segments in a span of time, segment by segment, with `start <= changelog key < end`.

        Yields changelog keys and rows. Rows of these segments outside of the span come along.
        """
        first = max(first_time, self.oldest_visible) // self.segment_ms
        last = min(last_time, self.observed) // self.segment_ms
        numbers = range(first, last + 1) if self._max_kept_bytes is None else self._existing(first, last)
        for number in reversed(numbers) if reverse else numbers:
            prefix = pack_time(number)
            stop = pack_time(number + 1) if end is None else prefix + end
            for key, row in self.overlay.scan(prefix + start, stop, reverse=reverse):
                yield key[8:], row

    def end_of_keys(self, last_key: bytes | None) -> bytes | None:
        """Where to stop when changelog keys of all record keys up to one are scanned (`OrderedBytes.upperRange`).

        A key that the last one begins with is before it, its changelog keys, with their times, need not be.
        """
        if last_key is None:
            return None
        latest = pack_time(max(self.observed, 0)) + b"\xff" * 9  # whatever comes after the first time is shorter
        return max(last_key[:length] + latest for length in range(len(last_key) + 1))

    def by_time(self, first_time: int, last_time: int) -> Iterator[tuple[int, bytes]]:
        """Time and changelog key of rows in a span of time, both inclusive, in the order of time, then key.

        Rows older than the retention are among them as long as they are there: what has to be emitted when it closes
        may be looked for only after newer rows were put.
        """
        assert self.spec.time_ordered, f"store {self.spec.name} is not read by time"
        start, end = INDEX + pack_time(max(first_time, 0)), INDEX + pack_time(last_time + 1)
        for key, _ in self.overlay.scan(start, end):
            yield unpack_time(key, 1)[0], key[9:]

    def get_physical(self, key: bytes, time: int) -> bytes | None:
        """The row under a changelog key as long as it is there, seen or not."""
        return self.overlay.get(pack_time(time // self.segment_ms) + key)

    def next_number(self) -> int:
        """A number no other row of the store has, until 2^31 were given out."""
        self.numbers = (self.numbers + 1) & 0x7FFFFFFF
        return self.numbers

    def changelog_records(self) -> list[OutRecord]:
        """See `streamlib.state.rows.Rows`."""
        overlay = self.overlay
        if self._max_kept_bytes is not None:
            self._weigh()
        if (self.observed, self.numbers) != self._stored_meta:
            self._stored_meta = self.observed, self.numbers
            overlay.put(META, _META.pack(self.observed, self.numbers))
        timestamps, timed = overlay.timestamps, self._timed
        records: list[OutRecord] = []
        for key, row in overlay.changes.items():
            if key[0] >= LOCAL:
                continue
            if timed and row is not None:
                records.append((key[8:], row[8:], unpack_time(row)[0], ()))
            else:
                records.append((key[8:], row, timestamps[key], ()))
        return records

    def _existing(self, first: int, last: int) -> Sequence[int]:
        """Segments between these, both inclusive; older than the retention only those that are kept, for the retention
        bounds how many there can be."""
        retained = max(self._first_retained(), first)
        return [*(number for number in sorted(self._kept) if first <= number < retained), *range(retained, last + 1)]

    def _first_retained(self) -> int:
        return max(self.observed - self.spec.retention_ms + 1, 0) // self.segment_ms

    def _weigh(self) -> None:
        for key, row in self.overlay.changes.items():
            if key[0] < LOCAL and row is not None:
                number = unpack_time(key)[0]
                self._kept[number] = self._kept.get(number, 0) + len(key) + len(row)

    def _reach_for_kept(self, max_bytes: int) -> None:
        """Give up the oldest segments while there is too much, and reach back to what is left."""
        retained, total = self._first_retained(), sum(self._kept.values())
        for number in sorted(self._kept):
            if total <= max_bytes or number >= retained:
                break
            total -= self._kept.pop(number)
        oldest = min(self._kept, default=retained) * self.segment_ms
        self.reach_ms = max(self.spec.retention_ms - 1, self.observed - oldest)

    def expired(self) -> Sequence[tuple[bytes, bytes]]:
        """Whole segments that cannot be seen any more."""
        if self._max_kept_bytes is not None:
            self._reach_for_kept(self._max_kept_bytes)
        live = max(0, self.oldest_visible - self.unseen_ms) // self.segment_ms
        if live <= self._dropped:
            return ()
        self._dropped = live
        gone = [(b"", pack_time(live))]
        if self.spec.time_ordered:
            gone.append((INDEX, INDEX + pack_time(live * self.segment_ms)))
        return gone


def segment_ms(spec: RetainedStoreSpec) -> int:
    """How long the segments of a store are."""
    return max(spec.retention_ms // 2, MIN_SEGMENT_MS)


def restored_segments(
    spec: RetainedStoreSpec, rows: Iterable[tuple[bytes, int, int, bytes | None]], read: Read
) -> dict[bytes, bytes | None]:
    """Rows that changelog records stand for, given as changelog key, time, number and row."""
    length = segment_ms(spec)
    meta = read(META)
    observed, numbers = (-1, 0) if meta is None else _META.unpack(meta)
    restored: dict[bytes, bytes | None] = {}
    for key, time, number, row in rows:
        observed, numbers = max(observed, time), max(numbers, number)
        restored[pack_time(time // length) + key] = row
        if spec.time_ordered:
            restored[INDEX + pack_time(time) + key] = None if row is None else b""
    restored[META] = _META.pack(observed, numbers)
    return restored
