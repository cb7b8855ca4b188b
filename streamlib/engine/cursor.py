"""Where a task is: the record in process, its stream time, and what it counts."""

from __future__ import annotations

from typing import NamedTuple

from streamlib.records import FetchedRecord, Headers, TopicPartition

NO_TIME = -1
"""Stream or partition time before the first record (Kafka Streams' `RecordQueue.UNKNOWN`)."""

END_OF_TIME = 1 << 63
"""Later than any timestamp."""


class Cursor:
    """Shared by a task and its operators. `partition` and `record` stay after a record is done: errors name them; in a
    punctuator there is none. `punctuation_due_ms` is the stream time at which the next punctuator is due.
    `derived` tells apart what was made of the record (`RecordMetadata`), where somebody may ask."""

    __slots__ = (
        "commit_requested",
        "derived",
        "dropped",
        "partition",
        "punctuation_due_ms",
        "record",
        "records_in",
        "stream_time",
    )

    def __init__(self) -> None:
        self.partition: TopicPartition | None = None
        self.record: FetchedRecord | None = None
        self.derived: tuple[int, ...] = ()
        self.stream_time = NO_TIME
        self.punctuation_due_ms = END_OF_TIME
        self.commit_requested = False
        self.records_in = 0
        self.dropped = 0

    def context(self, timestamp: int) -> RecordContext:
        """The record in process as topic choosers see it."""
        if self.partition is None or self.record is None:
            return RecordContext("", -1, -1, timestamp, ())
        return RecordContext(*self.partition, self.record.offset, timestamp, self.record.headers)


class StreamTime:
    """The stream time of one operator: the highest timestamp of the records it accepted.

    Committed with the offsets, so that after a restart the same records are late as before it.
    """

    __slots__ = ("ms",)

    def __init__(self) -> None:
        self.ms = NO_TIME


class Earlier(NamedTuple):
    """What is known of a record that was processed earlier, when what it caused goes on (`FetchedRecord`)."""

    offset: int
    timestamp: int
    headers: Headers
    key: bytes | None = None
    value: bytes | None = None


class RecordContext(NamedTuple):
    """What a topic chooser is told beside key and value: where the record came from, its time and headers.

    What a punctuator forwards came from nowhere: topic "", partition and offset -1.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    headers: Headers
