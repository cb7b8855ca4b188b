"""A backend in memory: for tests, and for tasks whose stores may be rebuilt from their changelogs."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence

from streamlib.state.backend import up_to_a_page

FEW_CHANGES = 100


class InMemoryBackend:
    """Dicts with a sorted list of keys beside them, built when a scan asks for it."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[bytes, bytes]] = {}
        self._sorted: dict[str, list[bytes]] = {}  # keys in order; absent when they have changed
        self._positions: dict[str, int] = {}
        self._closed = False

    def get(self, store: str, key: bytes) -> bytes | None:
        rows = self._rows.get(store)
        return None if rows is None else rows.get(key)

    def prefetch(self, store: str, keys: Sequence[bytes]) -> None:
        """Everything is here."""

    def scan(
        self, store: str, start: bytes | None, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        rows = self._rows.get(store, {})
        keys, first, last = self._span(store, start, end)
        chosen = keys[first:last]
        if reverse:
            chosen.reverse()
        return iter([(key, rows[key]) for key in chosen])

    def peek(self, store: str, key: bytes) -> bytes | None:
        return self.get(store, key)

    def page(
        self, store: str, start: bytes | None, end: bytes | None, limit: int, *, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        rows = self._rows.get(store, {})
        keys, first, last = self._span(store, start, end)
        chosen = keys[max(last - limit, first) : last][::-1] if reverse else keys[first : min(first + limit, last)]
        return up_to_a_page(((key, rows[key]) for key in chosen), limit)

    def estimate(self, store: str) -> int:
        return len(self._rows.get(store, ()))

    def _span(self, store: str, start: bytes | None, end: bytes | None) -> tuple[list[bytes], int, int]:
        """All keys in order, and which of them are within the bounds."""
        keys = self._sorted.get(store)
        if keys is None:
            keys = self._sorted[store] = sorted(self._rows.get(store, ()))
        first = 0 if start is None else bisect_left(keys, start)
        last = len(keys) if end is None else bisect_left(keys, end)
        return keys, first, last

    def write(self, changes: Mapping[str, Mapping[bytes, bytes | None]], positions: Mapping[str, int]) -> None:
        assert not self._closed, "write to a closed backend"
        for store, changed in changes.items():
            rows = self._rows.setdefault(store, {})
            self._keep_sorted(store, rows, changed)
            rows.update(changed)  # type: ignore[arg-type]  # those without a value are taken out again
            if None in changed.values():
                for key in [key for key, value in changed.items() if value is None]:
                    del rows[key]
        self._positions.update(positions)

    def _keep_sorted(self, store: str, rows: Mapping[bytes, bytes], changed: Mapping[bytes, bytes | None]) -> None:
        """A few changes go into the sorted keys one by one; for many it is quicker to sort anew."""
        keys = self._sorted.get(store)
        if keys is None:
            return
        if len(changed) > FEW_CHANGES:
            del self._sorted[store]
            return
        for key, value in changed.items():
            if (value is None) == (key not in rows):
                continue
            if value is None:
                del keys[bisect_left(keys, key)]
            else:
                insort(keys, key)

    def load(
        self, changes: Mapping[str, Mapping[bytes, bytes | None]], positions: Mapping[str, int], *, bulk: bool
    ) -> None:
        self.write(changes, positions)

    def settle(self) -> bool:
        return True

    def delete_range(self, store: str, start: bytes, end: bytes) -> None:
        self.write({store: {key: None for key, _ in self.scan(store, start, end)}}, {})

    def positions(self) -> dict[str, int]:
        return dict(self._positions)

    def clear(self, store: str) -> None:
        self._rows.pop(store, None)
        self._sorted.pop(store, None)
        self._positions.pop(store, None)

    def close(self) -> None:
        self._closed = True
