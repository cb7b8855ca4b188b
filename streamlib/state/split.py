"""Some stores of a task on disk, the others in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from streamlib.state.backend import Backend
from streamlib.state.memory import InMemoryBackend

T = TypeVar("T")


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

    def prefetch(self, store: str, keys: Sequence[bytes]) -> None:
        self._of(store).prefetch(store, keys)

    def scan(
        self, store: str, start: bytes | None, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        return self._of(store).scan(store, start, end, reverse=reverse)

    def peek(self, store: str, key: bytes) -> bytes | None:
        return self._of(store).peek(store, key)

    def page(
        self, store: str, start: bytes | None, end: bytes | None, limit: int, *, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        return self._of(store).page(store, start, end, limit, reverse=reverse)

    def estimate(self, store: str) -> int:
        return self._of(store).estimate(store)

    def write(self, changes: Mapping[str, Mapping[bytes, bytes | None]], positions: Mapping[str, int]) -> None:
        self._disk.write(self._on_disk(changes), self._on_disk(positions))
        self._memory.write(self._not_on_disk(changes), self._not_on_disk(positions))

    def load(
        self, changes: Mapping[str, Mapping[bytes, bytes | None]], positions: Mapping[str, int], *, bulk: bool
    ) -> None:
        self._disk.load(self._on_disk(changes), self._on_disk(positions), bulk=bulk)
        self._memory.write(self._not_on_disk(changes), self._not_on_disk(positions))

    def settle(self) -> bool:
        return self._disk.settle()

    def delete_range(self, store: str, start: bytes, end: bytes) -> None:
        self._of(store).delete_range(store, start, end)

    def positions(self) -> dict[str, int]:
        return {**self._disk.positions(), **self._memory.positions()}

    def clear(self, store: str) -> None:
        self._of(store).clear(store)

    def close(self) -> None:
        self._disk.close()
        self._memory.close()

    def _on_disk(self, by_store: Mapping[str, T]) -> dict[str, T]:
        return {store: value for store, value in by_store.items() if store not in self._in_memory}

    def _not_on_disk(self, by_store: Mapping[str, T]) -> dict[str, T]:
        return {store: value for store, value in by_store.items() if store in self._in_memory}

    def _of(self, store: str) -> Backend:
        return self._memory if store in self._in_memory else self._disk
