"""The port between stores and whatever keeps their bytes: RocksDB on disk, or a dict in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

PAGE_BYTES = 1 << 20
"""So much is read at once of what is looked at from outside; a larger row comes alone."""


def up_to_a_page(rows: Iterable[tuple[bytes, bytes]], limit: int) -> list[tuple[bytes, bytes]]:
    """The first of the rows, up to so many, and about `PAGE_BYTES`; at least one if there is one."""
    page: list[tuple[bytes, bytes]] = []
    size_bytes = 0
    for row in rows:
        page.append(row)
        size_bytes += len(row[0]) + len(row[1])
        if len(page) >= limit or size_bytes >= PAGE_BYTES:
            break
    return page


class Committed(Protocol):
    """What can be read of it."""

    def get(self, store: str, key: bytes) -> bytes | None:
        """The value of `key`, or None."""
        ...

    def prefetch(self, store: str, keys: Sequence[bytes]) -> None:
        """`get` will be asked for these keys soon; they may be read together now."""
        ...

    def scan(
        self, store: str, start: bytes | None, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows with `start <= key < end` in key order (reverse: from the end); None is an open bound."""
        ...


class Backend(Committed, Protocol):
    """The bytes of all stores of one task.

    Guarantees: `write` is atomic over all stores and positions, so that a store's content always corresponds to
    its position; nothing uncommitted is ever written. Keys are ordered as unsigned bytes.

    `peek`, `page` and `estimate` are for who looks in from outside, in a thread of its own: nobody writes or closes
    meanwhile (`runtime/shared_backend.py`), but the task may read.
    """

    def peek(self, store: str, key: bytes) -> bytes | None:
        """As `get`, and leaves no trace: nothing is kept for the next one, or counted."""
        ...

    def page(
        self, store: str, start: bytes | None, end: bytes | None, limit: int, *, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """The first rows of a `scan`, up to so many, and about `PAGE_BYTES`; leaves no trace."""
        ...

    def estimate(self, store: str) -> int:
        """About how many rows a store has."""
        ...

    def write(self, changes: Mapping[str, Mapping[bytes, bytes | None]], positions: Mapping[str, int]) -> None:
        """Apply `changes[store][key]` (None deletes) and `positions[store]` all together or not at all."""
        ...

    def load(
        self, changes: Mapping[str, Mapping[bytes, bytes | None]], positions: Mapping[str, int], *, bulk: bool
    ) -> None:
        """As `write`, for rows that are restored: nobody is expected to read them soon.

        In bulk it is quicker, but a crash may lose it: always the latest loads, and with each its positions. After a
        bulk load there must be no `write` before `settle` has said yes.
        """
        ...

    def settle(self) -> bool:
        """Whether everything that was loaded in bulk is safe by now; the first call has it brought to disk.

        Does not wait: to be asked again after a moment.

        Raises:
            StateStoreError: the disk does not take it.
        """
        ...

    def delete_range(self, store: str, start: bytes, end: bytes) -> None:
        """Delete rows with `start <= key < end` that nobody will ask for again; may be lost in a crash."""
        ...

    def positions(self) -> dict[str, int]:
        """What was written as positions: for each store with a changelog, the offset in it up to which (exclusive)
        the content is complete. A store that is filled from several partitions has one for each, `<store>/<of what>`.
        """
        ...

    def clear(self, store: str) -> None:
        """Forget the store's content and position."""
        ...

    def close(self) -> None:
        """Release files and locks; everything written stays."""
        ...
