"""Records of repartition topics that are written and not processed yet: a replay must not process them either.

They are known by their content. Of several that are the same it is the last ones that wait, and how many there are in
all is known when a replay is over: then `again` says how many pass before the rest is held back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from streamlib.records import FetchedRecord, Headers, OutRecord, TopicPartition
from streamlib.verify.results import ANY_PARTITION, WHOLE, Content

Pending: TypeAlias = Mapping[TopicPartition, Sequence[FetchedRecord]]

_Identity: TypeAlias = tuple[str, int, bytes | None, Content]


class Withheld:
    """What is held back in one replay. `passing`: how many of a record go through first; none if not said."""

    def __init__(self, pending: Pending, passing: Mapping[_Identity, int] | None = None) -> None:
        self._pending = pending
        self._counts = Counter(_fetched(partition, each) for partition, records in pending.items() for each in records)
        self._passing = passing or {}
        self._written: Counter[_Identity] = Counter()

    def passes(self, partition: TopicPartition, record: OutRecord) -> bool:
        """Whether a record that is written to a repartition topic is processed. Asked once for each."""
        if not self._counts:
            return True
        identity = _identity(partition, *record)
        if identity not in self._counts:
            return True
        self._written[identity] += 1
        return self._written[identity] <= self._passing.get(identity, 0)

    @property
    def ambiguous(self) -> bool:
        """Whether more of a record was written than waits, so that it matters which are held back."""
        return any(self._written[identity] > count for identity, count in self._counts.items())

    def again(self) -> Withheld:
        """For another replay of the same: with what is known now."""
        return Withheld(self._pending, self._written - self._counts)

    def unexplained(self) -> dict[TopicPartition, list[FetchedRecord]]:
        """Records that wait, but were never written here."""
        left = self._counts - self._written
        found: dict[TopicPartition, list[FetchedRecord]] = {}
        for partition, records in self._pending.items():
            for record in records:
                identity = _fetched(partition, record)
                if left[identity] > 0:
                    left[identity] -= 1
                    found.setdefault(partition, []).append(record)
        return found


def _fetched(partition: TopicPartition, record: FetchedRecord) -> _Identity:
    return _identity(partition, record.key, record.value, record.timestamp, record.headers)


def _identity(
    partition: TopicPartition, key: bytes | None, value: bytes | None, timestamp: int, headers: Headers
) -> _Identity:
    number = ANY_PARTITION if key is None else partition.partition
    return partition.topic, number, key, WHOLE.content(value, timestamp, headers)
