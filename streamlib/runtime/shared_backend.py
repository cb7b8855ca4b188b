"""A task's stores, which others may look into while the task works on them.

The worker's loop is the only one that changes them. It does so, and closes them, under a lock that whoever looks in
takes for one row or one page at a time, so that the loop waits for a page at most, once for each commit. Its own reads
take no lock: nobody else writes.

There is no iterator from one page to the next: an open one would keep a database open that is to be closed, and handed
over to another process.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence

from streamlib.errors import StateStoreMigratedError
from streamlib.state.backend import Backend

FIRST_PAGE_ROWS = 16  # who looks for one row does not read many
PAGE_ROWS = 256


class SharedBackend:
    """Implements `Backend` over another one; `what` names the task in errors."""

    def __init__(self, backend: Backend, what: str) -> None:
        self._backend = backend
        self._what = what
        self._lock = threading.Lock()
        self._closed = False
        # The task asks for every record: no step of ours is in between.
        self.get = backend.get
        self.prefetch = backend.prefetch
        self.scan = backend.scan
        self.settle = backend.settle
        self.positions = backend.positions

    def write(self, changes: Mapping[str, Mapping[bytes, bytes | None]], positions: Mapping[str, int]) -> None:
        with self._lock:
            self._backend.write(changes, positions)

    def load(
        self, changes: Mapping[str, Mapping[bytes, bytes | None]], positions: Mapping[str, int], *, bulk: bool
    ) -> None:
        with self._lock:
            self._backend.load(changes, positions, bulk=bulk)

    def delete_range(self, store: str, start: bytes, end: bytes) -> None:
        with self._lock:
            self._backend.delete_range(store, start, end)

    def clear(self, store: str) -> None:
        with self._lock:
            self._backend.clear(store)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._backend.close()

    # What follows any thread may call.

    def peek(self, store: str, key: bytes) -> bytes | None:
        with self._lock:
            self._check_open(store)
            return self._backend.peek(store, key)

    def page(
        self, store: str, start: bytes | None, end: bytes | None, limit: int, *, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        with self._lock:
            self._check_open(store)
            return self._backend.page(store, start, end, limit, reverse=reverse)

    def estimate(self, store: str) -> int:
        with self._lock:
            self._check_open(store)
            return self._backend.estimate(store)

    def _check_open(self, store: str) -> None:
        if self._closed:
            raise StateStoreMigratedError(
                f"store {store}: {self._what} has just left this worker; ask again for who has it now"
            )


class PagedReader:
    """Reads a shared backend for one question (`streamlib.state.backend.Committed`), page by page.

    Rows are as they were when their page was read. A scan goes on after `after`, a row's key in the store's own bytes
    (in reverse: before it), which is how another question goes on where one has ended: at its `last`.

    Args:
        backend: what is read.
        after: see above.
        most_bytes: after so much no scan reads another page, whoever passes over most of what is read. None: no bound.

    Attributes:
        last: the key of the row that a scan has given out last.
        read_bytes: what was read by scans.
        stopped: whether there may have been more to read than that.
    """

    def __init__(self, backend: Backend, after: bytes | None = None, most_bytes: int | None = None) -> None:
        self._backend = backend
        self._after = after
        self._most_bytes = most_bytes
        self.last: bytes | None = after
        self.read_bytes = 0
        self.stopped = False

    def get(self, store: str, key: bytes) -> bytes | None:
        """See `Backend.peek`."""
        return self._backend.peek(store, key)

    def prefetch(self, store: str, keys: Sequence[bytes]) -> None:
        """Nothing is kept."""

    def scan(
        self, store: str, start: bytes | None, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows in key order; every page of them is one look."""
        after, rows = self._after, FIRST_PAGE_ROWS
        while True:
            if after is not None and reverse:
                end = after if end is None else min(end, after)
            elif after is not None:
                start = max(start or b"", after + b"\0")
            if start is not None and end is not None and start >= end:
                return
            if self._most_bytes is not None and self.read_bytes >= self._most_bytes:
                self.stopped = True
                return
            page = self._backend.page(store, start, end, rows, reverse=reverse)
            rows = PAGE_ROWS
            self.read_bytes += sum(len(key) + len(row) for key, row in page)
            for row in page:
                self.last = after = row[0]
                yield row
            if not page:
                return
