"""Rows of one part of a store as JSON, a page at a time; where the next page begins is told as text.

The position is that of the last row in the store's own bytes, so it holds however the store changes meanwhile, and on
whatever worker the part is by then.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import msgspec

from streamlib.errors import InvalidStateStoreError, SerializationError
from streamlib.queries.parts import Part
from streamlib.queries.text import as_json, key_of
from streamlib.serdes import Serdes
from streamlib.state.codec import ValueAndTimestamp
from streamlib.state.versioned import VersionedRecord
from streamlib.topology.nodes import StoreKind, StoreSpec
from streamlib.windows import END_OF_TIME_MS, Windowed

MOST_ROWS = 1_000
DEFAULT_ROWS = 100


class Span(msgspec.Struct, frozen=True):
    """A window or session, in ms since the epoch."""

    start: int
    end: int


class Row(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A row as others see it. `timestamp`, where the store keeps times, and of versions; `valid_to` of versions that
    are not the newest."""

    key: msgspec.Raw
    window: Span | None = None
    value: msgspec.Raw
    timestamp: int | None = None
    valid_to: int | None = None


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """Where a listing goes on: after a row of a partition, or at its beginning."""

    partition: int
    after: bytes | None = None

    def encode(self) -> str:
        """As text for an address.

        >>> Cursor.decode(Cursor(2, b"ann").encode())
        Cursor(partition=2, after=b'ann')
        """
        return base64.urlsafe_b64encode(msgspec.msgpack.encode(self)).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Cursor:
        """From what `encode` gave.

        Raises:
            InvalidStateStoreError: it is none.
        """
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            return _CURSOR.decode(raw)
        except (binascii.Error, ValueError, msgspec.DecodeError) as error:
            raise InvalidStateStoreError(
                "cursor is none that a listing has given: leave it out to begin at the first row"
            ) from error


# Here, not where it is used: msgspec 0.22 crashes where two threads are the first to read a type.
_CURSOR = msgspec.msgpack.Decoder(Cursor)


class Bounds(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which rows are listed. Keys are text, as `key_of` reads them; times are in ms since the epoch.

    Args:
        key: of this key alone.
        first: from this key on (`from`).
        last: up to this key, inclusive (`to`).
        prefix: of keys that begin with this.
        from_ms: windows that start, sessions that end, versions that hold from this time on.
        to_ms: windows that start, sessions that start, versions that hold up to this time.
        reverse: from the last one back.
    """

    key: str | None = None
    first: str | None = None
    last: str | None = None
    prefix: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    reverse: bool = False

    @property
    def given(self) -> set[str]:
        """What is said, by the names that users know."""
        said = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return {_KNOWN_AS.get(name, name) for name, value in said if value is not None and value is not False}

    @property
    def times(self) -> tuple[int, int]:
        """From and to; for ever where nothing is said."""
        return self.from_ms or 0, END_OF_TIME_MS if self.to_ms is None else self.to_ms


_KNOWN_AS = {"first": "from", "last": "to"}
_KEYS, _TIMES = {"from", "to", "reverse"}, {"from_ms", "to_ms"}
TAKES: Mapping[StoreKind, set[str]] = {
    "key_value": _KEYS | {"prefix"},
    "timestamped_key_value": _KEYS | {"prefix"},
    "window": _KEYS | _TIMES | {"key"},
    "timestamped_window": _KEYS | _TIMES | {"key"},
    "session": _KEYS | _TIMES | {"key"},
    "versioned": _TIMES | {"key"},
}
"""What can be said of stores of each kind."""

Scan: TypeAlias = Callable[[Any], Iterator[Row]]


def scan_for(spec: StoreSpec, bounds: Bounds) -> Scan:
    """From a store, as user code sees it, to its rows within bounds.

    Raises:
        InvalidStateStoreError: stores of this kind are not listed like that.
        SerializationError: a bound is no key.
    """
    if wrong := sorted(bounds.given - TAKES[spec.kind]):
        raise InvalidStateStoreError(
            f"store {spec.name} holds {_KINDS[spec.kind]}, and {wrong[0]!r} does not go with these: "
            f"{', '.join(sorted(TAKES[spec.kind] - {'key'}))} do"
        )
    if spec.kind == "versioned" and bounds.key is None and bounds.given:
        raise InvalidStateStoreError(f"store {spec.name}: from_ms and to_ms go with a key, whose versions they choose")
    if bounds.prefix is not None and bounds.given & _KEYS:
        raise InvalidStateStoreError("prefix does not go with from, to or reverse")
    return _SCANS[spec.kind](spec, bounds)


def row_of(key: Any, value: Any) -> Row:
    """One row of any store."""
    window = None
    if isinstance(key, Windowed):
        key, window = key.key, Span(key.start, key.end)
    if isinstance(value, VersionedRecord):
        return Row(key=as_json(key), value=as_json(value.value), timestamp=value.timestamp, valid_to=value.valid_to)
    if isinstance(value, ValueAndTimestamp):
        return Row(key=as_json(key), window=window, value=as_json(value.value), timestamp=value.timestamp)
    return Row(key=as_json(key), window=window, value=as_json(value))


def take_page(part: Part[Row], rows: Iterator[Row], most: int) -> tuple[list[Row], Cursor | None]:
    """The next rows of a part, and where those after them begin; None after the last."""
    page, more = part.take(rows, most)
    partition = part.copy.partition or 0
    return page, Cursor(partition, part.reader.last) if more else None


def _key(spec: StoreSpec, text: str | None) -> Any:
    return None if text is None else key_of(spec, text)


def _key_values(spec: StoreSpec, bounds: Bounds) -> Scan:
    if (prefix := bounds.prefix) is not None:
        raw = _raw_prefix(spec, prefix)
        return lambda store: (row_of(*row) for row in store.prefix_scan(raw, Serdes.bytes()))
    first, last = _key(spec, bounds.first), _key(spec, bounds.last)

    def rows(store: Any) -> Iterator[Row]:
        found = store.reverse_range(first, last) if bounds.reverse else store.range(first, last)
        return (row_of(*row) for row in found)

    return rows


def _windows(spec: StoreSpec, bounds: Bounds) -> Scan:
    key, first, last = _key(spec, bounds.key), _key(spec, bounds.first), _key(spec, bounds.last)
    if bounds.key is not None:
        first = last = key

    def rows(store: Any) -> Iterator[Row]:
        found = store.fetch_keys(first, last, *bounds.times, reverse=bounds.reverse)
        return (row_of(*row) for row in found)

    return rows


def _sessions(spec: StoreSpec, bounds: Bounds) -> Scan:
    key, first, last = _key(spec, bounds.key), _key(spec, bounds.first), _key(spec, bounds.last)

    def rows(store: Any) -> Iterator[Row]:
        if bounds.key is not None:
            found = store.find_sessions(key, *bounds.times, reverse=bounds.reverse)
        else:
            found = store.find_sessions_of_keys(first, last, *bounds.times, reverse=bounds.reverse)
        return (row_of(*row) for row in found)

    return rows


def _versions(spec: StoreSpec, bounds: Bounds) -> Scan:
    key = _key(spec, bounds.key)
    if bounds.key is None:
        return lambda store: (row_of(*row) for row in store.all())
    return lambda store: (row_of(key, version) for version in store.history(key, *bounds.times))


def _raw_prefix(spec: StoreSpec, prefix: str) -> bytes:
    """Of text its bytes; of anything else it has to be what keys begin with as bytes, in base64."""
    if spec.key.type is str:
        return prefix.encode()
    try:
        return base64.b64decode(prefix, validate=True)
    except binascii.Error as error:
        raise SerializationError(
            f"store {spec.name}: the keys are {spec.key.name}, so prefix is what their bytes begin with, in base64"
        ) from error


_SCANS: Mapping[StoreKind, Callable[[StoreSpec, Bounds], Scan]] = {
    "key_value": _key_values,
    "timestamped_key_value": _key_values,
    "window": _windows,
    "timestamped_window": _windows,
    "session": _sessions,
    "versioned": _versions,
}
_KINDS: Mapping[StoreKind, str] = {
    "key_value": "values by key",
    "timestamped_key_value": "values by key",
    "window": "values by window",
    "timestamped_window": "values by window",
    "session": "values by session",
    "versioned": "versions of values",
}
