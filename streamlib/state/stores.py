"""Every kind of store: its bytes, what user code sees of it, and the way back from its changelog."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from streamlib.errors import StateStoreError
from streamlib.records import FetchedRecord
from streamlib.serdes import MsgspecSerde
from streamlib.state.backend import Backend, Committed
from streamlib.state.buffer import BufferRows, BufferStore, restored_buffer
from streamlib.state.key_value import KeyValueRows, KeyValueStore, TimestampedKeyValueStore, restored_key_values
from streamlib.state.lru import LruOverlay, LruReader, LruRows, restored_lru
from streamlib.state.overlay import Overlay
from streamlib.state.rows import Read, RecordTime, Rows
from streamlib.state.session import SessionRows, SessionStore, restored_sessions
from streamlib.state.ttl import StreamClock, TtlOverlay
from streamlib.state.versioned import VersionedKeyValueStore, VersionedRows, restored_versions
from streamlib.state.window import WindowRows, WindowStore, restored_windows
from streamlib.topology.nodes import LruStoreSpec, StoreKind, StoreSpec, TtlStoreSpec

Store: TypeAlias = (
    KeyValueStore[Any, Any]
    | TimestampedKeyValueStore[Any, Any]
    | WindowStore[Any, Any]
    | SessionStore[Any, Any]
    | VersionedKeyValueStore[Any, Any]
    | BufferStore[Any, Any]
)


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
    "session": Kind(SessionRows, SessionStore, restored_sessions),
    "versioned": Kind(VersionedRows, VersionedKeyValueStore, restored_versions),
    "buffer": Kind(BufferRows, BufferStore, restored_buffer),
}


LRU = Kind(LruRows, KeyValueStore, restored_lru)
TIMESTAMPED_LRU = Kind(LruRows, TimestampedKeyValueStore, restored_lru)


def open_overlay(spec: StoreSpec, backend: Backend, max_value_bytes: int, clock: StreamClock) -> Overlay:
    """The uncommitted writes of a store that is being opened. The clock is for rows that expire."""
    if isinstance(spec, LruStoreSpec):
        return LruOverlay(spec, backend, max_value_bytes)
    if isinstance(spec, TtlStoreSpec):
        return TtlOverlay(spec, backend, max_value_bytes, clock)
    return Overlay(spec.name, backend, max_value_bytes)


def open_rows(spec: StoreSpec, overlay: Overlay) -> Rows:
    """A store's bytes over its overlay."""
    return _kind(spec).rows(spec, overlay)


def open_store(rows: Rows, clock: RecordTime) -> Store:
    """A store as user code sees it."""
    return _kind(rows.spec).view(rows, clock)


class _NoRecord:
    """No record is in process where nothing can be put."""

    timestamp = 0


def open_for_reading(spec: StoreSpec, committed: Committed, clock: StreamClock) -> Store:
    """A store as user code sees it, without what is uncommitted; not to be written to.

    Made for one question: what it reads when it is opened, of windows that can be seen for instance, gets old.
    """
    overlay: Overlay
    if isinstance(spec, LruStoreSpec):
        overlay = LruReader(spec, committed)
    elif isinstance(spec, TtlStoreSpec):
        overlay = TtlOverlay(spec, committed, 0, clock)
    else:
        overlay = Overlay(spec.name, committed)
    return open_store(open_rows(spec, overlay), _NoRecord())


def restored_rows(spec: StoreSpec, records: Iterable[FetchedRecord], read: Read) -> dict[bytes, bytes | None]:
    """The rows to write for a batch of changelog records. `read` gives rows already there.

    Raises:
        StateStoreError: a record has no key.
    """
    kind = _kind(spec)
    return kind.restored(spec, records if kind.restored is restored_key_values else _with_keys(spec, records), read)


def reads_values(spec: StoreSpec) -> bool:
    """Whether changelog records have values as the store's serde writes them, and reading tells right from wrong."""
    return isinstance(spec.value, MsgspecSerde) and spec.kind != "buffer"


def first_unreadable(spec: StoreSpec, records: Iterable[FetchedRecord]) -> tuple[FetchedRecord, Exception] | None:
    """The first changelog record whose value the store cannot read, and why; None if it reads all."""
    decode = spec.value.decode
    for record in records:
        value = record.value
        if value is not None:
            try:
                decode(value)
            except Exception as error:
                return record, error
    return None


def _with_keys(spec: StoreSpec, records: Iterable[FetchedRecord]) -> Iterator[FetchedRecord]:
    for record in records:
        if record.key is None:
            raise StateStoreError(f"store {spec.name}: the changelog record at offset {record.offset} has no key")
        yield record


def _kind(spec: StoreSpec) -> Kind:
    if isinstance(spec, LruStoreSpec):
        return TIMESTAMPED_LRU if spec.kind == "timestamped_key_value" else LRU
    return KINDS[spec.kind]
