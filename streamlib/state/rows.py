"""What every kind of store is to a task: bytes that go to a changelog and come back from it.

Each kind has its `Rows`: bytes under byte keys in the order the kind needs, over one overlay. Rows whose key begins
with a byte from `LOCAL` on are the store's own (indexes, what it has observed); they are written with the others and do
not go to the changelog as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from streamlib.records import OutRecord
from streamlib.state.overlay import Overlay
from streamlib.topology.nodes import StoreSpec

Read: TypeAlias = Callable[[bytes], bytes | None]
"""Reads a committed row by its key."""

LOCAL = 0x80
"""The first byte of a key that belongs to the store itself, in kinds that have such rows."""


class RecordTime(Protocol):
    """Tells the time of the record in process; a change without a time of its own gets it."""

    @property
    def timestamp(self) -> int: ...


class Rows(Protocol):
    """The bytes of one store. Made anew whenever the task starts, so it may keep in memory what it reads at first."""

    @property
    def spec(self) -> StoreSpec: ...
    @property
    def overlay(self) -> Overlay: ...

    def changelog_records(self) -> list[OutRecord]:
        """The uncommitted changes as changelog records. Called once for each commit, before the overlay is written:
        rows of the store's own that are only needed at the next start may be put now."""
        ...

    def expired(self) -> Sequence[tuple[bytes, bytes]]:
        """Ranges `start <= key < end` that nobody can see any more. Asked once for each commit, after
        `changelog_records`; they are deleted when it has succeeded."""
        ...
