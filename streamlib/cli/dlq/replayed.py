"""Which dead letters of a partition have been replayed, as a committed offset.

The offset says that all before it have been. With a filter, some after it have been too: their ranges are in the text
that is committed with the offset, so that a later replay, with another filter or none, passes over exactly those.
"""

from __future__ import annotations

import base64
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from streamlib.cli.errors import UsageError
from streamlib.records import OffsetAndMetadata, TopicPartition

_LONGEST = 4_000
"""Brokers take 4,096 characters by default (`offset.metadata.max.bytes`)."""

_FORM = "replayed-1:"


class Replayed:
    """Offsets of one partition, as ranges that do not touch.

    >>> replayed = Replayed(10)
    >>> replayed.add(12, 14)
    >>> 11 in replayed, 13 in replayed
    (False, True)
    >>> replayed.add(10, 12)
    >>> replayed.first_left
    14
    """

    def __init__(self, first_left: int) -> None:
        self.first_left = first_left
        self._starts: list[int] = []  # of the ranges after `first_left`, ascending
        self._ends: list[int] = []  # exclusive

    @classmethod
    def committed(cls, committed: OffsetAndMetadata) -> Replayed:
        """What `to_commit` has made."""
        replayed = cls(committed.offset)
        for start, end in _ranges(committed):
            replayed.add(start, end)
        return replayed

    def __contains__(self, offset: int) -> bool:
        if offset < self.first_left:
            return True
        at = bisect_right(self._starts, offset) - 1
        return at >= 0 and offset < self._ends[at]

    def add(self, start: int, end: int) -> None:
        """Offsets from `start` to before `end`."""
        if end <= start:
            return
        first = bisect_left(self._ends, start)  # the first range that this one touches
        last = bisect_right(self._starts, end)  # behind the last one
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last], self._ends[first:last] = [start], [end]
        self._move()

    def to_commit(self, partition: TopicPartition) -> OffsetAndMetadata:
        """The offset and its text.

        Raises:
            UsageError: there are more ranges than a commit has room for.
        """
        if not self._starts:
            return OffsetAndMetadata(self.first_left)
        words, last = [], self.first_left
        for start, end in zip(self._starts, self._ends, strict=True):
            words.append(f"{start - last}+{end - start}")
            last = end
        text = _FORM + base64.b64encode(zlib.compress(",".join(words).encode(), 9)).decode()
        if len(text) > _LONGEST:
            raise UsageError(
                f"the records to replay are scattered over {partition} in {len(words):,} places, more than can be "
                "remembered: replay those before them first, with --until or without --exception"
            )
        return OffsetAndMetadata(self.first_left, text)

    def _move(self) -> None:
        while self._starts and self._starts[0] <= self.first_left:
            self.first_left = max(self.first_left, self._ends[0])
            del self._starts[0], self._ends[0]


def _ranges(committed: OffsetAndMetadata) -> Iterator[tuple[int, int]]:
    if not committed.metadata.startswith(_FORM):
        return
    last = committed.offset
    text = zlib.decompress(base64.b64decode(committed.metadata.removeprefix(_FORM))).decode()
    for word in text.split(","):
        gap, _, length = word.partition("+")
        start = last + int(gap)
        last = start + int(length)
        yield start, last
