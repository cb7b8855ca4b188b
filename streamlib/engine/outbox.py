"""What a task has written to topics and its driver has not taken yet: encoded records by partition, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from streamlib.records import OutRecord, TopicPartition

RECORD_OVERHEAD_BYTES = 100
"""About what the tuple and its bytes objects cost beside their content."""

WEIGHED_RECORDS = 20
"""So many of a partition's new records are weighed for all of them."""

Slots: TypeAlias = list[list[OutRecord]]
"""A list of records for each partition of a topic. `take` exchanges the inner lists, so writers index each time."""

Place: TypeAlias = Callable[[Any, Any, OutRecord], None]
"""Puts a record into its partition: f(key, value, encoded record)."""


class _Waiting(NamedTuple):
    """A record for a topic whose partitions are not known yet."""

    key: Any
    value: Any
    record: OutRecord
    place: Callable[[str], Place]


class Outbox:
    """Records on their way out. Two sinks that write to one topic share its slots, so their order holds."""

    def __init__(self, partition_counts: Mapping[str, int]) -> None:
        self.records_out = 0
        self._counts = dict(partition_counts)
        self._slots: dict[str, Slots] = {}
        self._waiting: dict[str, list[_Waiting]] = {}
        self._weighed: dict[tuple[str, int], tuple[int, int]] = {}  # records counted so far, and their bytes

    def slots(self, topic: str) -> Slots:
        """The lists to append to; the topic's partitions have to be known."""
        if topic not in self._slots:
            self._slots[topic] = [[] for _ in range(self._counts[topic])]
        return self._slots[topic]

    def knows(self, topic: str) -> bool:
        """Whether the topic's number of partitions is known."""
        return topic in self._counts

    def hold(self, topic: str, key: Any, value: Any, record: OutRecord, place: Callable[[str], Place]) -> None:
        """Keep a record until its topic is learnt; `place(topic)` will say where it goes."""
        self._waiting.setdefault(topic, []).append(_Waiting(key, value, record, place))

    @property
    def missing_topics(self) -> set[str]:
        """Topics that records wait for."""
        return set(self._waiting)

    def learn(self, partition_counts: Mapping[str, int]) -> None:
        """Place what was waiting for these topics, in order."""
        self._counts.update(partition_counts)
        for topic in partition_counts:
            for key, value, record, place in self._waiting.pop(topic, ()):
                place(topic)(key, value, record)

    def take(self) -> dict[TopicPartition, list[OutRecord]]:
        """Everything placed since the last call."""
        taken: dict[TopicPartition, list[OutRecord]] = {}
        for topic, partition, records in self._filled():
            taken[TopicPartition(topic, partition)] = records
            self._slots[topic][partition] = []
            self.records_out += len(records)
        self._weighed.clear()
        return taken

    @property
    def empty(self) -> bool:
        return not self._waiting and not any(any(slots) for slots in self._slots.values())

    @property
    def size_bytes(self) -> int:
        """About what the records weigh, by a sample of them: when somebody asks, not in the hot loop."""
        total = sum(_weight(each.record) for waiting in self._waiting.values() for each in waiting)
        return total + sum(self._weigh((topic, partition), records) for topic, partition, records in self._filled())

    def _filled(self) -> Iterator[tuple[str, int, list[OutRecord]]]:
        """Topics, partitions, and what waits there. Most tasks of many have nothing, which is seen at once."""
        for topic, slots in self._slots.items():
            if any(slots):
                for partition, records in enumerate(slots):
                    if records:
                        yield topic, partition, records

    def _weigh(self, slot: tuple[str, int], records: list[OutRecord]) -> int:
        counted, size = self._weighed.get(slot, (0, 0))
        new = records[counted:] if counted else records
        some = new[:: len(new) // WEIGHED_RECORDS + 1]
        size += sum(map(_weight, some)) * len(new) // max(len(some), 1)
        self._weighed[slot] = len(records), size
        return size


def _weight(record: OutRecord) -> int:
    return len(record[0] or b"") + len(record[1] or b"") + RECORD_OVERHEAD_BYTES
