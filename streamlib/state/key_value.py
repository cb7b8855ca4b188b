"""Key-value stores.

    kind                    stored row                              changelog record
    key_value               value                                   key, value, time of the record being processed
    timestamped_key_value   8 bytes time (big-endian) + value       key, value, the row's time

Rows and changelog records are those of Kafka Streams (KeyValueStore, TimestampedKeyValueStore, `ValueAndTimestamp`
serialized; `ChangeLoggingTimestampedKeyValueBytesStore`), so that a Java application can take over from one of ours.
Keys are in the order of their bytes: text by UTF-8, integers as unsigned, so negative ones come last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar, cast

from streamlib.errors import StateStoreError
from streamlib.records import FetchedRecord, OutRecord
from streamlib.serdes import Serde
from streamlib.state.codec import Codec, ValueAndTimestamp, pack_timestamp, prefix_end, unpack_timestamp
from streamlib.state.overlay import Overlay
from streamlib.state.rows import Read, RecordTime
from streamlib.topology.nodes import StoreSpec, TtlStoreSpec

K = TypeVar("K")
V = TypeVar("V")


class KeyValueRows:
    """The bytes of a key-value store (`streamlib.state.rows.Rows`)."""

    def __init__(self, spec: StoreSpec, overlay: Overlay) -> None:
        self.spec = spec
        self.overlay = overlay

    def changelog_records(self) -> list[OutRecord]:
        """The changes; several updates of one key have become one."""
        overlay, timestamps = self.overlay, self.overlay.timestamps
        if not rows_have_times(self.spec):
            return [(key, row, timestamps[key], ()) for key, row in overlay.changes.items()]
        return [
            (key, None, timestamps[key], ()) if row is None else (key, row[8:], unpack_timestamp(row)[0], ())
            for key, row in overlay.changes.items()
        ]

    def expired(self) -> Sequence[tuple[bytes, bytes]]:
        """Nothing ever is."""
        return ()


def rows_have_times(spec: StoreSpec) -> bool:
    """Whether stored rows begin with their times: in timestamped stores, and where rows expire."""
    return spec.kind == "timestamped_key_value" or isinstance(spec, TtlStoreSpec)


def restored_key_values(spec: StoreSpec, records: Iterable[FetchedRecord], read: Read) -> dict[bytes, bytes | None]:
    """The rows that changelog records stand for."""
    # Millions of records go through here: nothing is made per record but its row.
    rows: dict[bytes | None, bytes | None]
    if rows_have_times(spec):
        pack = pack_timestamp
        rows = {
            record.key: None if (value := record.value) is None else pack(record.timestamp) + value
            for record in records
        }
    else:
        rows = {record.key: record.value for record in records}
    if None in rows:
        raise StateStoreError(f"store {spec.name}: a changelog record without a key")
    return cast(dict[bytes, bytes | None], rows)


class KeyValueStore(Generic[K, V]):
    """Values under keys; a None value deletes."""

    def __init__(self, rows: KeyValueRows, clock: RecordTime) -> None:
        spec, overlay = rows.spec, rows.overlay
        self.name = spec.name
        self._codec = Codec(spec)
        self._overlay = overlay
        self._clock = clock

    def get(self, key: K) -> V | None:
        """The value of `key`, or None."""
        row = self._overlay.get(self._codec.encode_key(key))
        return None if row is None else self._codec.decode_value(row)

    def put(self, key: K, value: V | None) -> None:
        """Set the value of `key`; None deletes it."""
        raw_key = self._codec.encode_key(key)
        if value is None:
            self._overlay.delete(raw_key, self._clock.timestamp)
        else:
            self._overlay.put_at(raw_key, self._codec.encode_value(key, value), self._clock.timestamp)

    def put_all(self, rows: Iterable[tuple[K, V | None]]) -> None:
        """Set the values of several keys."""
        for key, value in rows:
            self.put(key, value)

    def put_if_absent(self, key: K, value: V | None) -> V | None:
        """Set the value of `key` unless it has one; returns what it had."""
        present = self.get(key)
        if present is None:
            self.put(key, value)
        return present

    def delete(self, key: K) -> V | None:
        """Delete the value of `key`; returns what it was."""
        present = self.get(key)
        self.put(key, None)
        return present

    def range(self, start: K | None = None, end: K | None = None) -> Iterator[tuple[K, V]]:
        """Rows from `start` to `end`, both inclusive, in key order; None is an open bound."""
        return self._rows(start, end, reverse=False)

    def reverse_range(self, start: K | None = None, end: K | None = None) -> Iterator[tuple[K, V]]:
        """Rows from `end` down to `start`, both inclusive."""
        return self._rows(start, end, reverse=True)

    def all(self) -> Iterator[tuple[K, V]]:
        """All rows in key order."""
        return self._rows(None, None, reverse=False)

    def reverse_all(self) -> Iterator[tuple[K, V]]:
        """All rows against key order."""
        return self._rows(None, None, reverse=True)

    def items(self) -> Iterator[tuple[K, V]]:
        """All rows in key order."""
        return self.all()

    def prefix_scan(self, prefix: Any, serde: Serde[Any] | None = None) -> Iterator[tuple[K, V]]:
        """Rows whose key bytes begin with those of `prefix` (the key's serde unless another is given)."""
        decode_key, decode_value = self._codec.decode_key, self._codec.decode_value
        for key, row in _prefix_scan(self._overlay, self._codec, prefix, serde):
            yield decode_key(key), decode_value(row)

    def _rows(self, start: K | None, end: K | None, *, reverse: bool) -> Iterator[tuple[K, V]]:
        decode_key, decode_value = self._codec.decode_key, self._codec.decode_value
        for key, row in self._overlay.scan(*self._codec.bounds(start, end), reverse=reverse):
            yield decode_key(key), decode_value(row)


class TimestampedKeyValueStore(Generic[K, V]):
    """Values with the time they are valid from, under keys; a None value deletes."""

    def __init__(self, rows: KeyValueRows, clock: RecordTime) -> None:
        spec, overlay = rows.spec, rows.overlay
        self.name = spec.name
        self._codec = Codec(spec)
        self._overlay = overlay
        self._clock = clock

    def get(self, key: K) -> ValueAndTimestamp[V] | None:
        """The row of `key`, or None."""
        row = self._overlay.get(self._codec.encode_key(key))
        return None if row is None else self._decode(row)

    def put(self, key: K, value: V | None, timestamp: int | None = None) -> None:
        """Set the row of `key`, at the time of the record in process unless another is given; None deletes it.

        `value` may be a `ValueAndTimestamp`, whose time then counts.
        """
        if isinstance(value, ValueAndTimestamp):
            value, timestamp = value
        raw_key = self._codec.encode_key(key)
        if value is None:
            self._overlay.delete(raw_key, self._clock.timestamp)
            return
        at = self._clock.timestamp if timestamp is None else timestamp
        self._overlay.put(raw_key, pack_timestamp(at) + self._codec.encode_value(key, value))

    def put_all(self, rows: Iterable[tuple[K, ValueAndTimestamp[V] | None]]) -> None:
        """Set several rows."""
        for key, row in rows:
            if row is None:
                self.put(key, None)
            else:
                self.put(key, row.value, row.timestamp)

    def put_if_absent(self, key: K, value: V | None, timestamp: int | None = None) -> ValueAndTimestamp[V] | None:
        """Set the row of `key` unless it has one; returns what it had."""
        present = self.get(key)
        if present is None:
            self.put(key, value, timestamp)
        return present

    def delete(self, key: K) -> ValueAndTimestamp[V] | None:
        """Delete the row of `key`; returns what it was."""
        present = self.get(key)
        self.put(key, None)
        return present

    def range(self, start: K | None = None, end: K | None = None) -> Iterator[tuple[K, ValueAndTimestamp[V]]]:
        """Rows from `start` to `end`, both inclusive, in key order; None is an open bound."""
        return self._rows(start, end, reverse=False)

    def reverse_range(self, start: K | None = None, end: K | None = None) -> Iterator[tuple[K, ValueAndTimestamp[V]]]:
        """Rows from `end` down to `start`, both inclusive."""
        return self._rows(start, end, reverse=True)

    def all(self) -> Iterator[tuple[K, ValueAndTimestamp[V]]]:
        """All rows in key order."""
        return self._rows(None, None, reverse=False)

    def reverse_all(self) -> Iterator[tuple[K, ValueAndTimestamp[V]]]:
        """All rows against key order."""
        return self._rows(None, None, reverse=True)

    def items(self) -> Iterator[tuple[K, ValueAndTimestamp[V]]]:
        """All rows in key order."""
        return self.all()

    def prefix_scan(self, prefix: Any, serde: Serde[Any] | None = None) -> Iterator[tuple[K, ValueAndTimestamp[V]]]:
        """Rows whose key bytes begin with those of `prefix` (the key's serde unless another is given)."""
        for key, row in _prefix_scan(self._overlay, self._codec, prefix, serde):
            yield self._codec.decode_key(key), self._decode(row)

    def _rows(self, start: K | None, end: K | None, *, reverse: bool) -> Iterator[tuple[K, ValueAndTimestamp[V]]]:
        decode_key, decode = self._codec.decode_key, self._decode
        for key, row in self._overlay.scan(*self._codec.bounds(start, end), reverse=reverse):
            yield decode_key(key), decode(row)

    def _decode(self, row: bytes) -> ValueAndTimestamp[V]:
        return ValueAndTimestamp(self._codec.decode_value(row[8:]), unpack_timestamp(row)[0])


def _prefix_scan(
    overlay: Overlay, codec: Codec, prefix: Any, serde: Serde[Any] | None
) -> Iterator[tuple[bytes, bytes]]:
    raw = codec.encode_key(prefix) if serde is None else serde.encode(prefix)
    return overlay.scan(raw, prefix_end(raw))
