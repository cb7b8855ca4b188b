"""Records that are compared, and the lanes they are compared in.

A lane is what has an order of its own in Kafka: the records of one key in one partition. Records without a key go to
any partition, so all of a topic's are one lane.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from streamlib.records import Headers, OutRecord, TopicPartition

ANY_PARTITION = -1


class Place(NamedTuple):
    """Where a record is."""

    partition: TopicPartition
    offset: int


class Lane(NamedTuple):
    """`partition` is ANY_PARTITION for records without a key."""

    topic: str
    partition: int
    key: bytes | None


class Content(NamedTuple):
    """What is compared of a record."""

    value: bytes | None
    timestamp: int
    headers: tuple[tuple[str, bytes | None], ...]


class Result(NamedTuple):
    """A record: one that is there, at its place, or one that should be, with the place of the input it comes from."""

    content: Content
    place: Place | None


Lanes: TypeAlias = Mapping[Lane, Sequence[Result]]


class Shape(NamedTuple):
    """What of a topic's records is compared. `essence` is what counts of a value, all of it if None."""

    timestamps: bool = True
    ignored_headers: frozenset[str] = frozenset()
    essence: Callable[[bytes], bytes] | None = None

    def content(self, value: bytes | None, timestamp: int, headers: Headers) -> Content:
        """A record as it is compared."""
        kept = tuple((name, text) for name, text in headers if name not in self.ignored_headers) if headers else ()
        if value is not None and self.essence is not None:
            value = self.essence(value)
        return Content(value, timestamp if self.timestamps else 0, kept)


WHOLE = Shape()


class Records:
    """Records by lane, in order.

    Args:
        shapes: how the records of a topic are compared, if not as a whole.
        only_last: of each lane the last record counts and a delete is none: so a changelog is read.
    """

    def __init__(self, shapes: Mapping[str, Shape] | None = None, *, only_last: bool = False) -> None:
        self.count = 0
        self._shapes = shapes or {}
        self._only_last = only_last
        self._lanes: dict[Lane, list[Result]] = {}

    def add(self, partition: TopicPartition, record: OutRecord, place: Place | None) -> None:
        """Take in one more."""
        key, value, timestamp, headers = record
        lane = Lane(partition.topic, ANY_PARTITION if key is None else partition.partition, key)
        result = Result(self._shapes.get(partition.topic, WHOLE).content(value, timestamp, headers), place)
        self.count += 1
        if self._only_last:
            self._lanes[lane] = [result]
        else:
            self._lanes.setdefault(lane, []).append(result)

    @property
    def topics(self) -> set[str]:
        """Where they are."""
        return {lane.topic for lane in self._lanes}

    @property
    def lanes(self) -> Lanes:
        """All of it."""
        if not self._only_last:
            return self._lanes
        return {lane: last for lane, last in self._lanes.items() if last[0].content.value is not None}
