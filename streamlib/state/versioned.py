"""Versioned stores: what each key was, and when, for a span of time back.

    NEWEST + key                               time + value + what was before; of a delete the time's complement alone
    OLDER + segment + length + key + time      0 for a delete, 1 + value
    DELETED + segment + key                    empty: a delete of this segment was the newest version
    META                                       the highest time put
    changelog record                           key, value, the version's time

A version holds from its time until the next one's. An older version lies in the segment of time in which the newest
began when it was written. That is no earlier than where it stopped to hold, so whole segments can be forgotten, and
nothing but `NEWEST` has to be read to write one. Should a version be written twice, the later segment has the one that
counts.

A newest version that follows on nothing, but a delete or no version at all, is not replaced by a delete of the same
time, but taken back: that is how Kafka Streams behaves, where nothing is left to carry the delete. For this the row
has the time of the delete before: 8 bytes and 1, or 0 if the version follows on another.

Kafka Streams logs what was put and nothing else. Here the newest version is logged once more after one that came out of
order: compaction keeps the last record of a key, and that has to be the newest version.

Source: `RocksDBVersionedStore`, `ChangeLoggingVersionedKeyValueBytesStore`, KIP-889.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from struct import Struct
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from streamlib.errors import StateStoreError
from streamlib.records import FetchedRecord, OutRecord
from streamlib.state.codec import Codec
from streamlib.state.overlay import ROW_OVERHEAD_BYTES, Overlay
from streamlib.state.rows import LOCAL, Read, RecordTime
from streamlib.state.segments import MIN_SEGMENT_MS
from streamlib.topology.nodes import VersionedStoreSpec
from streamlib.windows import END_OF_TIME_MS

K = TypeVar("K")
V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)

IS_NEWEST = -1
"""What `put` returns of a version that no newer one follows (`PUT_RETURN_CODE_VALID_TO_UNDEFINED`)."""

NOT_PUT = -(1 << 63)
"""What `put` returns of a version that is too old to be kept (`PUT_RETURN_CODE_NOT_PUT`)."""

NEWEST = b"\x00"
OLDER = b"\x01"
DELETED = b"\xf0"
META = b"\xff"

_TIME = Struct(">q")
_pack_time = _TIME.pack
_unpack_time = _TIME.unpack_from
_pack_length = Struct(">I").pack

_DELETE = b"\x00"
_VALUE = b"\x01"
_FOLLOWS = 0

RawVersion: TypeAlias = tuple[bytes | None, int]
"""An encoded value, None of a delete, and the time from which it holds."""

Put: TypeAlias = Callable[[bytes, bytes], None]


class VersionedRows:
    """The bytes of a versioned store (`streamlib.state.rows.Rows`). `observed` is the highest time put, -1 before."""

    def __init__(self, spec: VersionedStoreSpec, overlay: Overlay) -> None:
        self.spec = spec
        self.overlay = overlay
        meta = overlay.get(META)
        self.observed: int = -1 if meta is None else _unpack_time(meta)[0]
        self._stored_observed = self.observed
        self._history_ms = spec.history_retention_ms
        self._segment_ms = segment_ms(spec)
        self._to_log: list[OutRecord] = []  # what was put since the last commit
        self._noted: dict[tuple[bytes, int], int] = {}  # where each version is in it
        self._forgotten = 0  # segments before this one are gone
        self._swept = 0  # deletes of segments before this one are gone

    @property
    def oldest_visible(self) -> int:
        """The earliest time that can still be asked for."""
        return max(0, self.observed - self._history_ms)

    def put(self, key: bytes, value: bytes | None, time: int) -> int:
        """Write a version, None to delete.

        Returns:
            The time from which the next version holds, `IS_NEWEST` or `NOT_PUT`.

        Raises:
            StateStoreError: the time is negative.
        """
        if time < 0:
            raise StateStoreError(f"store {self.spec.name}: a version cannot be from {time} ms, before 1970")
        if time > self.observed:
            self.observed = time
        elif time < self.observed - self._history_ms:
            return NOT_PUT
        newest = _place(self.overlay.get, self.overlay.put, self._segment_ms, (key, value, time))
        at, log = self._noted.get((key, time)), self._to_log
        if at is None or value is None or log[at][1] is None:
            self._note(key, value, time)
        else:
            log[at] = (key, value, time, ())
        if newest is None:
            return IS_NEWEST
        self._note(key, *newest)
        return self._following(key, time, newest[1])

    def newest(self, key: bytes) -> bytes | None:
        """The time (8 bytes) and the value of a key's newest version; None if that is a delete."""
        row = self.overlay.get(NEWEST + key)
        return None if row is None or row[0] >= LOCAL else row[: -1 if row[-1] == _FOLLOWS else -9]

    def as_of(self, key: bytes, time: int) -> RawVersion | None:
        """The version that held at a time; None if there was none or it is forgotten. The newest never is."""
        newest = self._newest(key)
        if newest is None or newest[1] <= time:
            return newest
        return None if time < self.oldest_visible else self._older_as_of(key, time, newest[1])

    def history(self, key: bytes, first: int, last: int) -> list[RawVersion]:
        """The versions that held at some time in a span, both inclusive, by time; what is forgotten is not among them.

        Deletes are, unless all of what they ended is forgotten.
        """
        newest = self._newest(key)
        if newest is None or first > last:
            return []
        first = max(first, self.oldest_visible)
        _, newest_time = newest
        found: dict[int, bytes | None] = {}
        if first <= last and first < newest_time:
            held = self._older_as_of(key, first, newest_time)
            start = _pack_time(first if held is None else held[1])
            end = _pack_time(min(last + 1, newest_time))
            for prefix in self._places(key, first, newest_time):
                for place, row in self.overlay.scan(prefix + start, prefix + end):
                    found[_unpack_time(place, len(prefix))[0]] = _value(row)
        if newest_time <= last:
            found[newest_time] = newest[0]
        versions = [(found[time], time) for time in sorted(found)]
        if versions and versions[0][0] is None and versions[0][1] <= first:
            del versions[0]
        return versions

    def valid_to(self, key: bytes, time: int) -> int | None:
        """When a version that can be seen stops to hold; None if it is the newest. `time` is its own."""
        newest = self._newest(key)
        if newest is None or newest[1] <= time:
            return None
        return self._following(key, time, newest[1])

    def changelog_records(self) -> list[OutRecord]:
        """What was put, in that order; several values for one version have become one."""
        records, self._to_log, self._noted = self._to_log, [], {}
        self._sweep_deletes()
        if self.observed != self._stored_observed:
            self._stored_observed = self.observed
            self.overlay.put(META, _pack_time(self.observed))
        return records

    def expired(self) -> Sequence[tuple[bytes, bytes]]:
        """Whole segments of older versions that cannot be seen any more."""
        live = self.oldest_visible // self._segment_ms
        if live <= self._forgotten:
            return ()
        self._forgotten = live
        return ((OLDER, OLDER + _pack_time(live)),)

    def _sweep_deletes(self) -> None:
        """A key whose newest version is a delete leaves nothing behind once that cannot be told from no version."""
        live = self.oldest_visible // self._segment_ms
        if live <= self._swept:
            return
        self._swept = live
        overlay, observed = self.overlay, self.observed
        for index, _ in list(overlay.scan(DELETED, DELETED + _pack_time(live))):
            place = NEWEST + index[9:]
            row = overlay.get(place)
            if row is not None and (time := _unpack_time(row)[0]) < 0 and ~time // self._segment_ms < live:
                overlay.delete(place, observed)
            overlay.delete(index, observed)

    def _note(self, key: bytes, value: bytes | None, time: int) -> None:
        self._noted[key, time] = len(self._to_log)
        self._to_log.append((key, value, time, ()))
        self.overlay.size_bytes += ROW_OVERHEAD_BYTES + len(value or b"")  # what waits here has to be bounded, too

    def _newest(self, key: bytes) -> RawVersion | None:
        row = self.overlay.get(NEWEST + key)
        return None if row is None else _unpack_newest(row)[:2]

    def _older_as_of(self, key: bytes, time: int, newest_time: int) -> RawVersion | None:
        best: bytes | None = None
        began, end = -1, _pack_time(time + 1)
        for prefix in self._places(key, time, newest_time):
            for place, row in self.overlay.scan(prefix, prefix + end, reverse=True):
                if (found := _unpack_time(place, len(prefix))[0]) >= began:
                    best, began = row, found
                break
        return None if best is None else (_value(best), began)

    def _following(self, key: bytes, time: int, newest_time: int) -> int:
        following, start, end = newest_time, _pack_time(time + 1), _pack_time(newest_time)
        # Who follows a version that can be seen holds within the history.
        for prefix in self._places(key, max(time, self.oldest_visible), newest_time):
            for place, _ in self.overlay.scan(prefix + start, prefix + end):
                following = min(following, _unpack_time(place, len(prefix))[0])
                break
        return following

    def _places(self, key: bytes, time: int, newest_time: int) -> Iterator[bytes]:
        """What older versions of a key begin with that held at a time or later, segment by segment."""
        named = _pack_length(len(key)) + key
        for segment in range(time // self._segment_ms, newest_time // self._segment_ms + 1):
            yield OLDER + _pack_time(segment) + named


def segment_ms(spec: VersionedStoreSpec) -> int:
    """How long the segments of a store are: few enough for an as-of read to look into all of them."""
    return max(spec.history_retention_ms // 2, MIN_SEGMENT_MS)


def restored_versions(
    spec: VersionedStoreSpec, records: Iterable[FetchedRecord], read: Read
) -> dict[bytes, bytes | None]:
    """The rows that changelog records stand for. Kafka Streams logs also what was too old to be put."""
    rows: dict[bytes, bytes | None] = {}

    def get(place: bytes) -> bytes | None:
        return rows[place] if place in rows else read(place)

    meta, length = read(META), segment_ms(spec)
    observed = -1 if meta is None else _unpack_time(meta)[0]
    for record in records:
        assert record.key is not None
        if record.timestamp >= observed - spec.history_retention_ms:
            observed = max(observed, record.timestamp)
            _place(get, rows.__setitem__, length, (record.key, record.value, record.timestamp))
    rows[META] = _pack_time(observed)
    return rows


def _place(get: Read, put: Put, length: int, version: tuple[bytes, bytes | None, int]) -> RawVersion | None:
    """Write a version (key, value, time); the newest one if it is not that itself. `length` is that of a segment."""
    key, value, time = version
    place = NEWEST + key
    row = get(place)
    if row is None:
        _put_newest(put, length, version, 0)
        return None
    newest, began, deleted = _unpack_newest(row)
    if time < began:
        if deleted is None or time >= deleted:
            put(_older(key, time, began // length), _pack_older(value))
            if deleted is not None and newest is not None:
                _put_newest(put, length, (key, newest, began), None)
        else:
            put(_older(key, time, deleted // length), _pack_older(value))
        return newest, began
    if time > began:
        put(_older(key, began, time // length), _pack_older(newest))
        _put_newest(put, length, version, began if newest is None else None)
    elif value is None and deleted is not None:
        _put_newest(put, length, (key, None, deleted), None)
    else:
        _put_newest(put, length, version, deleted)
    return None


def _put_newest(put: Put, length: int, version: tuple[bytes, bytes | None, int], deleted: int | None) -> None:
    """`deleted`: since when there was nothing before, None if the version follows on another."""
    key, value, time = version
    if value is None:
        put(NEWEST + key, _pack_time(~time))
        put(DELETED + _pack_time(time // length) + key, b"")
    elif deleted is None:
        put(NEWEST + key, _pack_time(time) + value + b"\x00")
    else:
        put(NEWEST + key, _pack_time(time) + value + _pack_time(deleted) + b"\x01")


def _unpack_newest(row: bytes) -> tuple[bytes | None, int, int | None]:
    """Value, time, and since when there was nothing before."""
    time = _unpack_time(row)[0]
    if time < 0:
        return None, ~time, None
    if row[-1] == _FOLLOWS:
        return row[8:-1], time, None
    return row[8:-9], time, _unpack_time(row, len(row) - 9)[0]


def _older(key: bytes, time: int, segment: int) -> bytes:
    return OLDER + _pack_time(segment) + _pack_length(len(key)) + key + _pack_time(time)


def _pack_older(value: bytes | None) -> bytes:
    return _DELETE if value is None else _VALUE + value


def _value(row: bytes) -> bytes | None:
    """Of an older version."""
    return None if row == _DELETE else row[1:]


class VersionedRecord(NamedTuple, Generic[V_co]):
    """A version of a row.

    Attributes:
        value: None only where deletes are listed (`VersionedKeyValueStore.history`).
        timestamp: from when it holds, in ms.
        valid_to: when the next version began; None if this is the newest.

    >>> VersionedRecord("red", 1_000, None).value
    'red'
    """

    value: V_co
    timestamp: int
    valid_to: int | None = None


class VersionedKeyValueStore(Generic[K, V]):
    """Values under keys, each from its time until the next one's; what was is kept for the store's history.

    A row may be written late, as long as its time is within the history, counted back from the highest time written.
    """

    def __init__(self, rows: VersionedRows, clock: RecordTime) -> None:
        self.name = rows.spec.name
        self._rows = rows
        self._codec = Codec(rows.spec)

    def put(self, key: K, value: V | None, timestamp: int) -> int:
        """Set the value of `key` from `timestamp` on, until the next version there is; None deletes it.

        Returns:
            The time of the next version; -1 if this is the newest, -9223372036854775808 if it is older than the
            history and nothing has changed.

        Raises:
            StateStoreError: the time is negative.
        """
        raw = None if value is None else self._codec.encode_value(key, value)
        return self._rows.put(self._codec.encode_key(key), raw, timestamp)

    def get(self, key: K, as_of: int | None = None) -> VersionedRecord[V] | None:
        """The newest version of `key`, or the one that held at the time `as_of`; None if it was deleted or not there.

        Of a time before the store's history it is known only if it was the newest version already.
        """
        raw_key, rows, decode = self._codec.encode_key(key), self._rows, self._codec.decode_value
        if as_of is None:
            newest = rows.newest(raw_key)
            return None if newest is None else VersionedRecord(decode(newest[8:]), _unpack_time(newest)[0])
        found = rows.as_of(raw_key, as_of)
        if found is None or found[0] is None:
            return None
        return VersionedRecord(decode(found[0]), found[1], rows.valid_to(raw_key, found[1]))

    def delete(self, key: K, timestamp: int) -> VersionedRecord[V] | None:
        """Delete the value of `key` from `timestamp` on, until the next version there is; returns what held then.

        Older than the history it does nothing, and returns None.
        """
        if timestamp < self._rows.oldest_visible:
            return None
        before = self.get(key, timestamp)
        self.put(key, None, timestamp)
        return before

    def history(self, key: K, first_ms: int = 0, last_ms: int = END_OF_TIME_MS) -> Iterator[VersionedRecord[V | None]]:
        """The versions of `key` that held at some time within `[first_ms, last_ms]`, the oldest first; deletes, with
        None as value, among them."""
        raw_key, decode = self._codec.encode_key(key), self._codec.decode_value
        for value, time in self._rows.history(raw_key, first_ms, last_ms):
            decoded = None if value is None else decode(value)
            yield VersionedRecord(decoded, time, self._rows.valid_to(raw_key, time))

    def all(self) -> Iterator[tuple[K, VersionedRecord[V]]]:
        """The newest version of each key that has not been deleted, in the order of key bytes."""
        for place, row in self._rows.overlay.scan(NEWEST, OLDER):
            value, time, _ = _unpack_newest(row)
            if value is not None:
                yield self._codec.decode_key(place[1:]), VersionedRecord(self._codec.decode_value(value), time)

    def items(self) -> Iterator[tuple[K, VersionedRecord[V]]]:
        """The same as `all`."""
        return self.all()
