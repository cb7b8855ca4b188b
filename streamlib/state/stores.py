"""Stores as user code sees them: typed views over an overlay.

    kind                    stored row                              changelog record
    key_value               value                                   key, value, time of the record being processed
    timestamped_key_value   8 bytes time (big-endian) + value       key, value, the row's time

Rows and changelog records are those of Kafka Streams (KeyValueStore, TimestampedKeyValueStore, `ValueAndTimestamp`
serialized; `ChangeLoggingTimestampedKeyValueBytesStore`), so that a Java application can take over from one of ours.
Keys are in the order of their bytes: text by UTF-8, integers as unsigned, so negative ones come last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from streamlib.errors import SerializationError, StateStoreError
from streamlib.records import OutRecord
from streamlib.serdes import Serde
from streamlib.state.overlay import Overlay
from streamlib.topology.nodes import StoreSpec

K = TypeVar("K")
V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)

_TIMESTAMP = Struct(">q")
pack_timestamp = _TIMESTAMP.pack
unpack_timestamp = _TIMESTAMP.unpack_from


class ValueAndTimestamp(NamedTuple, Generic[V_co]):
    """A row of a timestamped store: its value and the time it is valid from, in ms."""

    value: V_co
    timestamp: int


class RecordTime(Protocol):
    """Tells the time of the record in process; a change without a time of its own gets it."""

    @property
    def timestamp(self) -> int: ...


class KeyValueStore(Generic[K, V]):
    """Values under keys; a None value deletes."""

    def __init__(self, spec: StoreSpec, overlay: Overlay, clock: RecordTime) -> None:
        self.name = spec.name
        self._codec = _Codec(spec)
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

    def __init__(self, spec: StoreSpec, overlay: Overlay, clock: RecordTime) -> None:
        self.name = spec.name
        self._codec = _Codec(spec)
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


Store: TypeAlias = KeyValueStore[Any, Any] | TimestampedKeyValueStore[Any, Any]


def open_store(spec: StoreSpec, overlay: Overlay, clock: RecordTime) -> Store:
    """The view for the store's kind."""
    if spec.kind == "key_value":
        return KeyValueStore(spec, overlay, clock)
    return TimestampedKeyValueStore(spec, overlay, clock)


def changelog_records(spec: StoreSpec, overlay: Overlay) -> list[OutRecord]:
    """The changes as changelog records; several updates of one key have become one."""
    timestamps = overlay.timestamps
    if spec.kind == "key_value":
        return [(key, row, timestamps[key], ()) for key, row in overlay.changes.items()]
    return [
        (key, None, timestamps[key], ()) if row is None else (key, row[8:], unpack_timestamp(row)[0], ())
        for key, row in overlay.changes.items()
    ]


def row_of_changelog_record(spec: StoreSpec, value: bytes | None, timestamp: int) -> bytes | None:
    """The stored row that a changelog record stands for; None deletes."""
    if value is None or spec.kind == "key_value":
        return value
    return pack_timestamp(timestamp) + value


class _Codec:
    """Keys and values of one store to bytes and back, with errors that name the store."""

    def __init__(self, spec: StoreSpec) -> None:
        self._spec = spec
        self.decode_key = spec.key.decode
        self.decode_value = spec.value.decode

    def encode_key(self, key: Any) -> bytes:
        if key is None:
            raise StateStoreError(f"store {self._spec.name}: a key cannot be None")
        try:
            return self._spec.key.encode(key)
        except Exception as error:
            raise SerializationError(
                f"store {self._spec.name}: cannot encode the key {key!r:.80}: {error}; its keys are "
                f"{self._spec.key.name}"
            ) from error

    def encode_value(self, key: Any, value: Any) -> bytes:
        try:
            return self._spec.value.encode(value)
        except Exception as error:
            raise SerializationError(
                f"store {self._spec.name}: cannot encode the value {value!r:.80} of key {key!r:.80}: {error}; "
                f"its values are {self._spec.value.name}"
            ) from error

    def bounds(self, start: Any, end: Any) -> tuple[bytes | None, bytes | None]:
        """Inclusive typed bounds as `start <= key < end` in bytes."""
        first = None if start is None else self.encode_key(start)
        # The next possible key after `end` is `end` and a zero byte.
        last = None if end is None else self.encode_key(end) + b"\0"
        return first, last


def _prefix_scan(
    overlay: Overlay, codec: _Codec, prefix: Any, serde: Serde[Any] | None
) -> Iterator[tuple[bytes, bytes]]:
    raw = codec.encode_key(prefix) if serde is None else serde.encode(prefix)
    return overlay.scan(raw, prefix_end(raw))


def prefix_end(prefix: bytes) -> bytes | None:
    """The first key after all that begin with `prefix`; None if there is no such key.

    >>> prefix_end(b"ab"), prefix_end(b"a\\xff"), prefix_end(b"\\xff")
    (b'ac', b'b', None)
    """
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else None
