"""A task's stores on disk, with each access timed: only at `metrics_recording_level="DEBUG"`, for it costs as much as a
read of a cached row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from streamlib.records import TaskId
from streamlib.runtime.meter import Meter, StoreMeter
from streamlib.state.backend import Backend


class MeteredBackend:
    """Implements `Backend` over another one. Its stores are measured until it is closed."""

    def __init__(self, backend: Backend, task_id: TaskId, meter: Meter) -> None:
        self._backend = backend
        self._task_id = task_id
        self._meter = meter
        self._now_ms = meter.elapsed_ms

    def get(self, store: str, key: bytes) -> bytes | None:
        began_ms = self._now_ms()
        row = self._backend.get(store, key)
        self._of(store).get.record(self._now_ms() - began_ms)
        return row

    def prefetch(self, store: str, keys: Sequence[bytes]) -> None:
        self._backend.prefetch(store, keys)

    def scan(
        self, store: str, start: bytes | None, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        self._of(store).range.record(0)
        return self._backend.scan(store, start, end, reverse=reverse)

    def peek(self, store: str, key: bytes) -> bytes | None:
        return self._backend.peek(store, key)

    def page(
        self, store: str, start: bytes | None, end: bytes | None, limit: int, *, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        return self._backend.page(store, start, end, limit, reverse=reverse)

    def estimate(self, store: str) -> int:
        return self._backend.estimate(store)

    def write(self, changes: Mapping[str, Mapping[bytes, bytes | None]], positions: Mapping[str, int]) -> None:
        began_ms = self._now_ms()
        self._backend.write(changes, positions)
        took_ms = self._now_ms() - began_ms
        for store, rows in changes.items():
            meter = self._of(store)
            meter.flush.record(took_ms)
            meter.put.record(0, len(rows))

    def load(
        self, changes: Mapping[str, Mapping[bytes, bytes | None]], positions: Mapping[str, int], *, bulk: bool
    ) -> None:
        self._backend.load(changes, positions, bulk=bulk)

    def settle(self) -> bool:
        return self._backend.settle()

    def delete_range(self, store: str, start: bytes, end: bytes) -> None:
        self._backend.delete_range(store, start, end)

    def positions(self) -> dict[str, int]:
        return self._backend.positions()

    def clear(self, store: str) -> None:
        self._backend.clear(store)

    def close(self) -> None:
        self._meter.forget_stores(self._task_id)
        self._backend.close()

    def _of(self, store: str) -> StoreMeter:
        return self._meter.of_store(self._task_id, store)
