"""Key-value stores that keep the latest used rows, in memory.

    stored row         use (8 bytes) + time (8 bytes) + value
    changelog record   key, value, the row's time; a tombstone for a row that was dropped

A row is used when it is read or written by key; uses are counted, so the order of rows by their last use is part of the
store. That it may survive restarts, rows that were only read are written to the changelog again, in the order of their
use; a restored row's use is its record's offset. Otherwise records are those of `MemoryLRUCache`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct

from streamlib.records import FetchedRecord, OutRecord
from streamlib.state.backend import Backend, Committed
from streamlib.state.codec import unpack_timestamp
from streamlib.state.key_value import KeyValueRows
from streamlib.state.overlay import Overlay
from streamlib.state.rows import Read
from streamlib.topology.nodes import LruStoreSpec

_HEAD = Struct(">qq")  # use, time


class LruOverlay(Overlay):
    """Rows as the kind of store has them, without their uses; drops those that have not been used for longest."""

    __slots__ = ("_max_entries", "_skipped", "_timed", "_uses", "uses")

    def __init__(self, spec: LruStoreSpec, backend: Backend, max_value_bytes: int) -> None:
        super().__init__(spec.name, backend, max_value_bytes)
        self._max_entries = spec.max_entries
        self._timed = spec.kind == "timestamped_key_value"
        self._skipped = 8 if self._timed else _HEAD.size  # of a stored row, to get to the row
        stored = ((_HEAD.unpack_from(row)[0], key) for key, row in backend.scan(spec.name, None, None))
        self.uses: dict[bytes, int] = {key: use for use, key in sorted(stored)}  # the longest unused first
        self._uses = max(self.uses.values(), default=0)

    def get(self, key: bytes) -> bytes | None:
        """The row of `key`, which is used by this."""
        if key in self.changes:
            row = self.changes[key]
        elif (stored := self._read(self.store, key)) is not None:
            row = stored[self._skipped :]
            super().put(key, row)
            self.timestamps[key] = _HEAD.unpack_from(stored)[1]
        else:
            row = None
        if row is not None:
            self._use(key)
        return row

    def put(self, key: bytes, row: bytes) -> None:
        """Write a row that carries its own timestamp, and drop another if it is one too many."""
        super().put(key, row)
        self._use(key)
        self._drop_oldest(unpack_timestamp(row)[0])

    def put_at(self, key: bytes, row: bytes, timestamp: int) -> None:
        """Write a row without a timestamp of its own, and drop another if it is one too many."""
        super().put(key, row)
        self.timestamps[key] = timestamp
        self._use(key)
        self._drop_oldest(timestamp)

    def delete(self, key: bytes, timestamp: int) -> None:
        """Delete a row."""
        super().delete(key, timestamp)
        self.uses.pop(key, None)

    def stamp(self, key: bytes, row: bytes) -> tuple[bytes, int]:
        """Make a changed row one to be stored; its value and time."""
        time = unpack_timestamp(row)[0] if self._timed else self.timestamps[key]
        value = row[8:] if self._timed else row
        self.changes[key] = _HEAD.pack(self.uses[key], time) + value
        return value, time

    def _use(self, key: bytes) -> None:
        self.uses.pop(key, None)
        self._uses += 1
        self.uses[key] = self._uses

    def _drop_oldest(self, timestamp: int) -> None:
        while len(self.uses) > self._max_entries:
            self.delete(next(iter(self.uses)), timestamp)

    def _rows_below(self, start: bytes | None, end: bytes | None, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        for key, stored in super()._rows_below(start, end, reverse):
            yield key, stored[self._skipped :]


class LruReader(Overlay):
    """The rows of such a store as the kind of store has them, to be read by who does not use them by that."""

    __slots__ = ("_skipped",)

    def __init__(self, spec: LruStoreSpec, committed: Committed) -> None:
        super().__init__(spec.name, committed)
        self._skipped = 8 if spec.kind == "timestamped_key_value" else _HEAD.size

    def get(self, key: bytes) -> bytes | None:
        """The row of `key`."""
        stored = super().get(key)
        return None if stored is None else stored[self._skipped :]

    def _rows_below(self, start: bytes | None, end: bytes | None, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        for key, stored in super()._rows_below(start, end, reverse):
            yield key, stored[self._skipped :]


class LruRows(KeyValueRows):
    """The bytes of such a store."""

    overlay: LruOverlay

    def changelog_records(self) -> list[OutRecord]:
        """Deletes, then rows in the order of their use."""
        overlay, changes = self.overlay, self.overlay.changes
        records: list[OutRecord] = []
        for key in sorted(changes, key=lambda key: overlay.uses.get(key, 0)):
            row = changes[key]
            if row is None:
                records.append((key, None, overlay.timestamps[key], ()))
            else:
                records.append((key, *overlay.stamp(key, row), ()))
        return records


def restored_lru(spec: LruStoreSpec, records: Iterable[FetchedRecord], read: Read) -> dict[bytes, bytes | None]:
    """The rows that changelog records stand for."""
    rows: dict[bytes, bytes | None] = {}
    for record in records:
        assert record.key is not None
        value = record.value
        rows[record.key] = None if value is None else _HEAD.pack(record.offset, record.timestamp) + value
    return rows
