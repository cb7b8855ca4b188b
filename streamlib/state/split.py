"""Some stores of a task on disk, the others in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from streamlib.state.backend import Backend
from streamlib.state.memory import InMemoryBackend


class SplitBackend:
    """Sends each store to where it is kept (`streamlib.state.backend.Backend`).

    A write goes to disk first. A crash in between loses what is in memory anyway, with its positions, so both parts
    are what their positions say.
    """

    def __init__(self, disk: Backend, in_memory: frozenset[str]) -> None:
        self._disk = disk
        self._memory = InMemoryBackend()
        self._in_memory = in_memory

    def get(self, store: str, key: bytes) -> bytes | None:
        return self._of(store).get(store, key)

    def scan(
        self, store: str, start: bytes | None, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        return self._of(store).scan(store, start, end, reverse=reverse)

    def write(self, changes: Mapping[str, Mapping[bytes, bytes | None]], positions: Mapping[str, int]) -> None:
        memory = self._in_memory
        self._disk.write(
            {store: rows for store, rows in changes.items() if store not in memory},
            {store: position for store, position in positions.items() if store not in memory},
        )
        self._memory.write(
            {store: rows for store, rows in changes.items() if store in memory},
            {store: position for store, position in positions.items() if store in memory},
        )

    def delete_range(self, store: str, start: bytes, end: bytes) -> None:
        self._of(store).delete_range(store, start, end)

    def positions(self) -> dict[str, int]:
        return {**self._disk.positions(), **self._memory.positions()}

    def clear(self, store: str) -> None:
        self._of(store).clear(store)

    def close(self) -> None:
        self._disk.close()
        self._memory.close()

    def _of(self, store: str) -> Backend:
        return self._memory if store in self._in_memory else self._disk
