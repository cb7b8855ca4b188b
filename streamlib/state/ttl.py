"""Key-value stores whose rows expire: a row is not seen any more once stream time is `ttl_ms` past the row's own time.

    stored row         time (8 bytes) + value, in stores without timestamps, too
    changelog record   key, value, the row's time; a tombstone at the time the row expired

Readers do not see an expired row. It is deleted when its key comes again, or by a sweep, which visits some rows every
now and then. What is swept when changes nothing but when the delete is heard of.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from streamlib.state.backend import Committed
from streamlib.state.codec import pack_timestamp, unpack_timestamp
from streamlib.state.overlay import Overlay
from streamlib.topology.nodes import TtlStoreSpec

SWEPT_AT_ONCE = 1000
"""So many rows are visited by one sweep."""

WRITES_BETWEEN_SWEEPS = 500
"""Half as many as are visited, so that all rows are visited before there are twice as many."""


class StreamClock(Protocol):
    """Tells the task's stream time in ms."""

    @property
    def stream_time(self) -> int: ...


class Expired(NamedTuple):
    """A row that has been deleted, as its kind of store has it, and the stream time at which it expired."""

    key: bytes
    row: bytes
    at: int


class TtlOverlay(Overlay):
    """Rows as the kind of store has them, those that have expired left out.

    `sweeps_itself`: expired rows are deleted beside the writes and nobody hears of it; the node of a table turns that
    off and sees to it on its own.
    """

    __slots__ = ("_clock", "_position", "_skipped", "_ttl_ms", "_writes", "sweeps_itself")

    def __init__(self, spec: TtlStoreSpec, backend: Committed, max_value_bytes: int, clock: StreamClock) -> None:
        super().__init__(spec.name, backend, max_value_bytes)
        self.sweeps_itself = True
        self._clock = clock
        self._ttl_ms = spec.ttl_ms
        self._skipped = 8 if spec.kind == "key_value" else 0  # of a stored row, to get to the row
        self._position: bytes | None = None  # where the next sweep begins
        self._writes = 0

    def get(self, key: bytes) -> bytes | None:
        """The row of `key` unless it has expired."""
        stored = super().get(key)
        if stored is None or self._expiry(stored) <= self._clock.stream_time:
            return None
        return stored[self._skipped :]

    def put(self, key: bytes, row: bytes) -> None:
        """Write a row that carries its own timestamp."""
        super().put(key, row)
        if self.sweeps_itself:
            self._sweep_sometimes()

    def put_at(self, key: bytes, row: bytes, timestamp: int) -> None:
        """Write a row without a timestamp of its own."""
        self.put(key, pack_timestamp(timestamp) + row)

    def scan(
        self, start: bytes | None = None, end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows with `start <= key < end` that have not expired, in key order."""
        for key, stored in super().scan(start, end, reverse=reverse):
            if self._expiry(stored) > self._clock.stream_time:
                yield key, stored[self._skipped :]

    def expire(self, key: bytes) -> Expired | None:
        """Delete the row of `key` if it has expired; what it was."""
        stored = super().get(key)
        if stored is None or (at := self._expiry(stored)) > self._clock.stream_time:
            return None
        self.delete(key, at)
        return Expired(key, stored[self._skipped :], at)

    def sweep(self) -> list[Expired]:
        """Visit some rows, those after the last ones visited, and delete what has expired among them."""
        keys: list[bytes] = []
        position, self._position = self._position, None
        for visited, (key, stored) in enumerate(super().scan(position)):
            if visited == SWEPT_AT_ONCE:
                self._position = key
                break
            if self._expiry(stored) <= self._clock.stream_time:
                keys.append(key)
        return [expired for key in keys if (expired := self.expire(key)) is not None]

    def _expiry(self, stored: bytes) -> int:
        return int(unpack_timestamp(stored)[0]) + self._ttl_ms

    def _sweep_sometimes(self) -> None:
        self._writes += 1
        if self._writes == WRITES_BETWEEN_SWEEPS:
            self._writes = 0
            self.sweep()
