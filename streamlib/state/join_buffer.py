"""Records of joins of streams that wait for a match: rows of a key-value store, as Kafka Streams writes them.

    key     8 bytes time + 1 byte side (0 right, 1 left) + record key
    row     a list, in the order they came, of 1 byte side + value

So they are in the order of time, then side, then key. The changelog has keys and rows as they are. Sources:
`TimestampedKeyAndJoinSideSerializer`, `LeftOrRightValueSerializer`, `ListValueStore`, `ListSerializer` (elements of
varying length: a byte 1, their number, then each behind its length).
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

from streamlib.state.overlay import Overlay

RIGHT, LEFT = 0, 1

_PLACE = Struct(">qB")
_LIST = Struct(">Bi")
_LENGTH = Struct(">i")
_VARYING_LENGTH = 1


class JoinBuffer:
    """The waiting records of both sides of a join, over the overlay of their store."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self._first = b""  # no row is before this key: what was deleted there need not be passed again and again

    def add(self, timestamp: int, side: int, key: bytes, value: bytes) -> None:
        """A record waits, behind those of the same key, time and side."""
        place = _PLACE.pack(timestamp, side) + key
        row = _appended(self._overlay.get(place), bytes((side,)) + value)
        self._overlay.put_at(place, row, timestamp)
        self._first = min(self._first, place)

    def discard(self, timestamp: int, side: int, key: bytes, now: int) -> None:
        """Forget all records of this key, time and side, if any wait. `now` is the time of the tombstone."""
        place = _PLACE.pack(timestamp, side) + key
        if self._overlay.get(place) is not None:
            self._overlay.delete(place, now)

    def delete(self, timestamp: int, side: int, key: bytes, now: int) -> None:
        """As `discard`, for records that are known to wait."""
        self._overlay.delete(_PLACE.pack(timestamp, side) + key, now)

    def rows(self) -> Iterator[tuple[int, int, bytes, bytes]]:
        """Time, side, key and row, in their order; `values_of` takes the row apart. They may be deleted on the way."""
        all_deleted, changes = True, self._overlay.changes
        for place, row in self._overlay.scan(self._first):
            if all_deleted:
                self._first = place
            timestamp, side = _PLACE.unpack_from(place)
            yield timestamp, side, place[_PLACE.size :], row
            all_deleted = all_deleted and changes.get(place, row) is None

    def first_time(self) -> int | None:
        """The time of the earliest that waits."""
        return next((timestamp for timestamp, _, _, _ in self.rows()), None)


def values_of(row: bytes) -> list[bytes]:
    """The values in a row, in the order they came."""
    at, values = _LIST.size, []
    for _ in range(_LIST.unpack_from(row)[1]):
        end = at + _LENGTH.size + _LENGTH.unpack_from(row, at)[0]
        values.append(row[at + _LENGTH.size + 1 : end])  # behind its length and its side
        at = end
    return values


def _appended(row: bytes | None, element: bytes) -> bytes:
    head, count = (b"", 0) if row is None else (row[_LIST.size :], _LIST.unpack_from(row)[1])
    return b"".join((_LIST.pack(_VARYING_LENGTH, count + 1), head, _LENGTH.pack(len(element)), element))
