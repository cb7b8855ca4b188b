"""What has been written to a store since the last commit, over what is committed.

    get/scan --> changes --not there--> sealed (being committed) --not there--> backend (committed)
    put      --> changes --seal--> sealed --Task.commit--> backend

The backend is written by nobody but `Task.commit`, so that a roll-back is: forget the changes, sealed ones too.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence

from streamlib.errors import StateStoreError
from streamlib.state.backend import Committed

DEFAULT_MAX_VALUE_BYTES = 1_000_000
"""A little below the broker's default `message.max.bytes`: a larger row could never be written to its changelog."""

MAX_UNASKED = 100
"""So many keys are put in order one by one before it is given up, for nobody scans."""

ROW_OVERHEAD_BYTES = 100
"""About what a dict entry and two bytes objects cost beside their content."""


class Overlay:
    """The uncommitted writes of one store.

    `changes` maps keys to new rows, None for a delete. `timestamps` has the record's time for each change whose row
    does not carry one itself. `size_bytes` is what all of it weighs. The three are for the task to read at a commit.
    """

    __slots__ = (
        "_backend",
        "_max_value_bytes",
        "_read",
        "_scan",
        "_sorted",
        "_unasked",
        "changes",
        "size_bytes",
        "store",
        "timestamps",
    )

    def __init__(self, store: str, backend: Committed, max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES) -> None:
        self.store = store
        self.changes: dict[bytes, bytes | None] = {}
        self.timestamps: dict[bytes, int] = {}
        self.size_bytes = 0
        self._backend = backend
        self._read = backend.get
        self._scan = backend.scan
        self._max_value_bytes = max_value_bytes
        self._sorted: list[bytes] | None = None  # the keys of `changes` in order, once a scan has asked for them
        self._unasked = 0  # keys added to them since

    def get(self, key: bytes) -> bytes | None:
        """The row of `key` as the next reader should see it."""
        changes = self.changes
        if key in changes:
            return changes[key]
        return self._read(self.store, key)

    def prefetch(self, keys: Sequence[bytes]) -> None:
        """These keys will be asked for soon."""
        self._backend.prefetch(self.store, keys)

    def put(self, key: bytes, row: bytes) -> None:
        """Write a row that carries its own timestamp.

        Raises:
            StateStoreError: the row is larger than the broker would take in the changelog.
        """
        size = len(row)
        if size > self._max_value_bytes:
            raise self._too_large(key, size)
        changes = self.changes
        if key in changes:
            old = changes[key]
            self.size_bytes += size if old is None else size - len(old)
        else:
            self.size_bytes += size + len(key) + ROW_OVERHEAD_BYTES
            if self._sorted is not None:
                self._add_sorted(key)
        changes[key] = row

    def put_at(self, key: bytes, row: bytes, timestamp: int) -> None:
        """Write a row without a timestamp of its own; `timestamp` goes to the changelog."""
        self.put(key, row)
        self.timestamps[key] = timestamp

    def delete(self, key: bytes, timestamp: int) -> None:
        """Delete a row; `timestamp` is the tombstone's in the changelog."""
        changes = self.changes
        if key in changes:
            self.size_bytes -= len(changes[key] or b"")
        else:
            self.size_bytes += len(key) + ROW_OVERHEAD_BYTES
            if self._sorted is not None:
                self._add_sorted(key)
        changes[key] = None
        self.timestamps[key] = timestamp

    def scan(
        self, start: bytes | None = None, end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows with `start <= key < end`, uncommitted ones included, in key order.

        Each row is as it stands when it is reached. Keys that are new since the scan began may be missed.
        """
        committed = self._rows_below(start, end, reverse)
        changed = self._changed_keys(start, end, reverse)
        return self._merge(committed, changed, reverse) if changed else self._overlaid(committed)

    def _rows_below(self, start: bytes | None, end: bytes | None, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        return self._scan(self.store, start, end, reverse=reverse)

    def _add_sorted(self, key: bytes) -> None:
        """Stores that are scanned after each put stay sorted; those that are not are sorted when they are."""
        assert self._sorted is not None
        self._unasked += 1
        if self._unasked > MAX_UNASKED:
            self._sorted = None
        else:
            insort(self._sorted, key)

    def seal(self) -> dict[bytes, bytes | None]:
        """Begin a commit: the changes so far, which stay as they are. Those from now on belong to the next commit.

        Until `committed` is called, they are seen below the new ones.
        """
        assert self._read == self._backend.get, f"store {self.store}: sealed again before the last commit has ended"
        sealed = Overlay(self.store, self._backend)
        sealed.changes, sealed._sorted = self.changes, self._sorted
        below = _Below(sealed)
        self._read, self._scan = below.get, below.scan
        self.changes, self.timestamps, self.size_bytes, self._sorted = {}, {}, 0, None
        return sealed.changes

    def committed(self) -> None:
        """What was sealed is in the backend by now."""
        self._read, self._scan = self._backend.get, self._backend.scan

    def clear(self) -> None:
        """Forget all changes: they are committed, or given up."""
        # New dicts: whoever still holds the old ones (a producer, a backend write) keeps what it was given.
        self.changes = {}
        self.timestamps = {}
        self.size_bytes = 0
        self._sorted = None

    def _changed_keys(self, start: bytes | None, end: bytes | None, reverse: bool) -> list[bytes]:
        if not self.changes:
            return []
        self._unasked = 0
        if self._sorted is None:
            self._sorted = sorted(self.changes)
        first = 0 if start is None else bisect_left(self._sorted, start)
        last = len(self._sorted) if end is None else bisect_left(self._sorted, end)
        keys = self._sorted[first:last]
        if reverse:
            keys.reverse()
        return keys

    def _overlaid(self, committed: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        for key, row in committed:
            current = self.changes.get(key, row)
            if current is not None:
                yield key, current

    def _merge(
        self, committed: Iterator[tuple[bytes, bytes]], changed: list[bytes], reverse: bool
    ) -> Iterator[tuple[bytes, bytes]]:
        """Both in one order; of a key in both, the change counts."""
        waiting = iter(changed)
        head = next(waiting, None)
        for key, row in committed:
            while head is not None and (head > key if reverse else head < key):
                if (current := self.changes.get(head)) is not None:
                    yield head, current
                head = next(waiting, None)
            if head == key:
                head = next(waiting, None)
            current = self.changes.get(key, row)
            if current is not None:
                yield key, current
        while head is not None:
            if (current := self.changes.get(head)) is not None:
                yield head, current
            head = next(waiting, None)

    def _too_large(self, key: bytes, size: int) -> StateStoreError:
        return StateStoreError(
            f"store {self.store}: the value of key {_shortened(key)} takes {size:,} bytes, more than the limit of "
            f"{self._max_value_bytes:,}: keep less under one key, or raise max_request_size and the broker's "
            "message.max.bytes"
        )


class _Below:
    """What is being committed over what is committed, read like a backend."""

    def __init__(self, sealed: Overlay) -> None:
        self._sealed = sealed

    def get(self, store: str, key: bytes) -> bytes | None:
        return self._sealed.get(key)

    def scan(
        self, store: str, start: bytes | None, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        return self._sealed.scan(start, end, reverse=reverse)


class ReadOnlyOverlay(Overlay):
    """Reads what is committed; a write is an error."""

    __slots__ = ()

    def put(self, key: bytes, row: bytes) -> None:
        """Refused."""
        raise self._refusal()

    def delete(self, key: bytes, timestamp: int) -> None:
        """Refused."""
        raise self._refusal()

    def _refusal(self) -> StateStoreError:
        return StateStoreError(
            f"store {self.store} is global: it is filled from its topic alone and can only be read here; "
            "write to the topic instead"
        )


def _shortened(key: bytes) -> str:
    text = repr(key)
    return text if len(text) <= 80 else f"{text[:77]}..."
