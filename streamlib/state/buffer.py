"""Buffers: records that wait for their time, read in the order of time, then key bytes, then arrival.

    row                time (8 bytes, big-endian) + entry, under the key
    changelog record   key, entry + time, header "v" = 3, time of the record in process

Where several records of one key may wait, the key is time + key + a number that counts up with each, and changelog
records have eight zero bytes for the time and no header (`RocksDBTimeOrderedKeyValueBuffer`).

An entry is what `BufferValue` of Kafka Streams serializes: where the record came from, the key's value before the first
buffered change (prior), before the last one (old), and the value itself (new). Rows and records are those of
`InMemoryTimeOrderedKeyValueChangeBuffer`, but for the time of the changelog record, which Kafka Streams leaves to the
producer's clock.

The order is kept in memory, as (time, key) alone, and read anew at each start: an entry costs one write, the oldest is
found without a scan. Entries themselves stay on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from struct import Struct
from typing import Any, Generic, NamedTuple, TypeVar

from streamlib.errors import StateStoreError
from streamlib.records import FetchedRecord, Headers, OutRecord
from streamlib.state.codec import Codec, ValueAndTimestamp, pack_timestamp, unpack_timestamp
from streamlib.state.overlay import Overlay
from streamlib.state.rows import Read, RecordTime
from streamlib.topology.nodes import BufferStoreSpec
from streamlib.windows import END_OF_TIME_MS

K = TypeVar("K")
V = TypeVar("V")

VERSION: Headers = (("v", b"\x03"),)
"""Marks the format of changelog records (`InMemoryTimeOrderedKeyValueChangeBuffer.CHANGELOG_HEADERS`)."""

_ORIGIN = Struct(">qqi")  # timestamp, offset, length of the topic's name
_PLACE = Struct(">ii")  # partition, number of headers
_LENGTH = Struct(">i")
_NUMBER = Struct(">I")
_NONE = -1
_AS_PRIOR = -2
_NO_TIME = bytes(8)

LENGTHS_BYTES = 4 + 4 + 3 * 4
"""What an entry has besides content: the lengths of topic, headers and three values."""


class Origin(NamedTuple):
    """Where a buffered record came from, its time in ms and its headers (`ProcessorRecordContext`)."""

    timestamp: int
    offset: int
    topic: str
    partition: int
    headers: Headers


class Buffered(NamedTuple):
    """A buffered change, its values as bytes."""

    prior: bytes | None
    old: bytes | None
    new: bytes | None
    origin: Origin


class BufferRows:
    """The bytes of a buffer (`streamlib.state.rows.Rows`).

    `oldest_time` is that of the entry that is next to leave, the end of time if there is none. `size_bytes` is what all
    entries weigh by Kafka Streams' count, on which the bounds of a suppression go.
    """

    def __init__(self, spec: BufferStoreSpec, overlay: Overlay) -> None:
        self.spec = spec
        self.overlay = overlay
        self.size_bytes = 0
        self._number = 0
        self._order: list[tuple[int, bytes]] = []  # a heap; each key once
        for key, row in overlay.scan():
            self._order.append((unpack_timestamp(row)[0], key))
            self.size_bytes += weight(key, row)
            if spec.retain_duplicates:
                self._number = max(self._number, _NUMBER.unpack_from(key, len(key) - 4)[0])
        heapify(self._order)
        self.oldest_time = self._order[0][0] if self._order else END_OF_TIME_MS

    def __len__(self) -> int:
        return len(self._order)

    def get(self, key: bytes) -> bytes | None:
        """The entry of a key."""
        row = self.overlay.get(key)
        return None if row is None else row[8:]

    def put(self, key: bytes, time: int, entry: bytes, timestamp: int) -> None:
        """Add an entry. One for a key that waits already takes its place in the order, whatever its time, unless
        the buffer keeps several.

        Args:
            key: the record's key.
            time: the entry's place in the order.
            entry: as `pack_buffered` makes it.
            timestamp: of the record in process, for the changelog.
        """
        before = None
        if self.spec.retain_duplicates:
            self._number = (self._number + 1) & 0x7FFFFFFF
            key = pack_timestamp(time) + key + _NUMBER.pack(self._number)
        else:
            before = self.overlay.get(key)
        self._write(key, before, time, entry, timestamp)

    def put_change(
        self, key: bytes, time: int, change: tuple[bytes | None, bytes | None], origin: Origin, timestamp: int
    ) -> None:
        """Add a change (new value, old value). The value before the first change that waits is kept beside it."""
        new, old = change
        before = self.overlay.get(key)
        prior = old if before is None else unpack_buffered(before, 8).prior
        self._write(key, before, time, pack_buffered(Buffered(prior, old, new, origin)), timestamp)

    def pop(self, timestamp: int) -> tuple[bytes, Buffered]:
        """Take out the oldest entry; its key, and what it is. `timestamp` is that of the record in process."""
        _, key = heappop(self._order)
        self.oldest_time = self._order[0][0] if self._order else END_OF_TIME_MS
        row = self.overlay.get(key)
        assert row is not None, f"buffer {self.spec.name}: an entry in the order is not there"
        self.overlay.delete(key, timestamp)
        self.size_bytes -= weight(key, row)
        return key[8:-4] if self.spec.retain_duplicates else key, unpack_buffered(row, 8)

    def changelog_records(self) -> list[OutRecord]:
        """The changes; a key that came and went leaves a tombstone, as in Kafka Streams."""
        timestamps, changes = self.overlay.timestamps, self.overlay.changes
        if self.spec.retain_duplicates:
            return [
                (key, None if row is None else row[8:] + _NO_TIME, timestamps[key], ()) for key, row in changes.items()
            ]
        return [
            (key, None, timestamps[key], ()) if row is None else (key, row[8:] + row[:8], timestamps[key], VERSION)
            for key, row in changes.items()
        ]

    def expired(self) -> Sequence[tuple[bytes, bytes]]:
        """Nothing ever is."""
        return ()

    def _write(self, key: bytes, before: bytes | None, time: int, entry: bytes, timestamp: int) -> None:
        if before is None:
            heappush(self._order, (time, key))
            if time < self.oldest_time:
                self.oldest_time = time
            row = pack_timestamp(time) + entry
        else:
            self.size_bytes -= weight(key, before)
            row = before[:8] + entry
        self.size_bytes += weight(key, row)
        self.overlay.put_at(key, row, timestamp)


def restored_buffer(spec: BufferStoreSpec, records: Iterable[FetchedRecord], read: Read) -> dict[bytes, bytes | None]:
    """The rows that changelog records stand for.

    Raises:
        StateStoreError: a record is not of the one format that is read (Kafka Streams 2.4.1 and later write it).
    """
    rows: dict[bytes, bytes | None] = {}
    for record in records:
        key, value = record.key, record.value
        assert key is not None
        if spec.retain_duplicates:
            rows[key] = None if value is None else key[:8] + value[:-8]
            continue
        if value is not None and dict(record.headers).get("v") != VERSION[0][1]:
            raise StateStoreError(
                f"store {spec.name}: the changelog record at offset {record.offset} is not in format 3: let the "
                "application that wrote it drain its buffer before this one takes over"
            )
        rows[key] = None if value is None else value[-8:] + value[:-8]
    return rows


def weight(key: bytes, row: bytes) -> int:
    """How many bytes an entry counts for: its time, its key, and the content of the entry without the lengths
    (`InMemoryTimeOrderedKeyValueChangeBuffer.computeRecordSize`)."""
    topic_bytes = _ORIGIN.unpack_from(row, 8)[2]
    headers = _PLACE.unpack_from(row, 8 + _ORIGIN.size + topic_bytes)[1]
    return len(key) + len(row) - LENGTHS_BYTES - 8 * int(headers)


def pack_buffered(buffered: Buffered) -> bytes:
    """`BufferValue.serialize`, without its end padding."""
    prior, old, new, (timestamp, offset, topic, partition, headers) = buffered
    name = topic.encode()
    parts = [_ORIGIN.pack(timestamp, offset, len(name)), name, _PLACE.pack(partition, len(headers))]
    for header, content in headers:
        _add(parts, header.encode())
        _add(parts, content)
    _add(parts, prior)
    if old is not None and old == prior:
        parts.append(_LENGTH.pack(_AS_PRIOR))
    else:
        _add(parts, old)
    _add(parts, new)
    return b"".join(parts)


def unpack_buffered(data: bytes, at: int = 0) -> Buffered:
    """The entry that begins at this place (`BufferValue.deserialize`)."""
    timestamp, offset, length = _ORIGIN.unpack_from(data, at)
    at += _ORIGIN.size
    topic = data[at : at + length].decode()
    partition, count = _PLACE.unpack_from(data, at + length)
    at += length + _PLACE.size
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        name, at = _take(data, at)
        content, at = _take(data, at)
        assert name is not None, "a header has a name"
        headers.append((name.decode(), content))
    prior, at = _take(data, at)
    if _LENGTH.unpack_from(data, at)[0] == _AS_PRIOR:
        old, at = prior, at + 4
    else:
        old, at = _take(data, at)
    return Buffered(prior, old, _take(data, at)[0], Origin(timestamp, offset, topic, partition, tuple(headers)))


def _add(parts: list[bytes], content: bytes | None) -> None:
    if content is None:
        parts.append(_LENGTH.pack(_NONE))
    else:
        parts += (_LENGTH.pack(len(content)), content)


def _take(data: bytes, at: int) -> tuple[bytes | None, int]:
    length = _LENGTH.unpack_from(data, at)[0]
    at += 4
    return (None, at) if length == _NONE else (data[at : at + length], at + length)


class BufferStore(Generic[K, V]):
    """What waits, to look at; only the operator that owns a buffer changes it."""

    def __init__(self, rows: BufferRows, clock: RecordTime) -> None:
        self.name = rows.spec.name
        self._rows = rows
        self._codec = Codec(rows.spec)

    def get(self, key: K) -> ValueAndTimestamp[V | None] | None:
        """The buffered value of `key`, None in it for a delete, with its record's time; None if nothing waits.

        Where several may wait it is the oldest.
        """
        raw_key = self._codec.encode_key(key)
        if self._rows.spec.retain_duplicates:
            return next((self._decode(row[8:]) for found, row in self._waiting() if found == raw_key), None)
        row = self._rows.get(raw_key)
        return None if row is None else self._decode(row)

    def all(self) -> Iterator[tuple[K, ValueAndTimestamp[V | None]]]:
        """All that waits, by key, or by time where several may; values may be None."""
        for key, row in self._waiting():
            yield self._codec.decode_key(key), self._decode(row[8:])

    def __len__(self) -> int:
        return len(self._rows)

    def _waiting(self) -> Iterator[tuple[bytes, bytes]]:
        several = self._rows.spec.retain_duplicates
        for key, row in self._rows.overlay.scan():
            yield key[8:-4] if several else key, row

    def _decode(self, entry: bytes) -> Any:
        buffered = unpack_buffered(entry)
        value = None if buffered.new is None else self._codec.decode_value(buffered.new)
        return ValueAndTimestamp(value, buffered.origin.timestamp)
