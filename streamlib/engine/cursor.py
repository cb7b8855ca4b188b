"""Where a task is: the record in process, its stream time, and what it counts."""

from __future__ import annotations

from typing import NamedTuple

from streamlib.records import FetchedRecord, Headers, TopicPartition

NO_TIME = -1
"""Stream or partition time before the first record (Kafka Streams' `RecordQueue.UNKNOWN`)."""


class Cursor:
    """Shared by a task and its operators. `partition` and `record` stay after a record is done: errors name them."""

    __slots__ = ("dropped", "partition", "record", "records_in", "stream_time")

    def __init__(self) -> None:
        self.partition: TopicPartition | None = None
        self.record: FetchedRecord | None = None
        self.stream_time = NO_TIME
        self.records_in = 0
        self.dropped = 0

    def context(self, timestamp: int) -> RecordContext:
        """The record in process as topic choosers see it."""
        assert self.partition is not None, "no record is in process"
        assert self.record is not None, "no record is in process"
        return RecordContext(*self.partition, self.record.offset, timestamp, self.record.headers)


class StreamTime:
    """The stream time of one operator: the highest timestamp of the records it accepted.

    Committed with the offsets, so that after a restart the same records are late as before it.
    """

    __slots__ = ("ms",)

    def __init__(self) -> None:
        self.ms = NO_TIME


class RecordContext(NamedTuple):
    """What a topic chooser is told beside key and value: where the record came from, its time and headers."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    headers: Headers
