"""Every kind of store: its bytes, what user code sees of it, and the way back from its changelog."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from streamlib.records import FetchedRecord
from streamlib.state.key_value import KeyValueRows, KeyValueStore, TimestampedKeyValueStore, restored_key_values
from streamlib.state.overlay import Overlay
from streamlib.state.rows import Read, RecordTime, Rows
from streamlib.state.window import WindowRows, WindowStore, restored_windows
from streamlib.topology.nodes import StoreKind, StoreSpec

Store: TypeAlias = KeyValueStore[Any, Any] | TimestampedKeyValueStore[Any, Any] | WindowStore[Any, Any]


class Kind(NamedTuple):
    """One kind of store: its bytes, its typed view, the rows that changelog records stand for."""

    rows: Callable[[Any, Overlay], Rows]
    view: Callable[[Any, RecordTime], Store]
    restored: Callable[[Any, Iterable[FetchedRecord], Read], dict[bytes, bytes | None]]


KINDS: Mapping[StoreKind, Kind] = {
    "key_value": Kind(KeyValueRows, KeyValueStore, restored_key_values),
    "timestamped_key_value": Kind(KeyValueRows, TimestampedKeyValueStore, restored_key_values),
    "window": Kind(WindowRows, WindowStore, restored_windows),
    "timestamped_window": Kind(WindowRows, WindowStore, restored_windows),
}


def open_rows(spec: StoreSpec, overlay: Overlay) -> Rows:
    """A store's bytes over its overlay."""
    return KINDS[spec.kind].rows(spec, overlay)


def open_store(rows: Rows, clock: RecordTime) -> Store:
    """A store as user code sees it."""
    return KINDS[rows.spec.kind].view(rows, clock)


def restored_rows(spec: StoreSpec, records: Iterable[FetchedRecord], read: Read) -> dict[bytes, bytes | None]:
    """The rows to write for a batch of changelog records, which have keys. `read` gives rows already there."""
    return KINDS[spec.kind].restored(spec, records, read)
