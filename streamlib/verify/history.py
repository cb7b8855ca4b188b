"""What was read from the cluster: inputs as far as they are processed, and what waits between the tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from streamlib.records import FetchedBatch, FetchedRecord, TopicPartition


class Consumed(msgspec.Struct, frozen=True):
    """The part of an input partition that is processed.

    Attributes:
        start: where its log begins now.
        end: the committed offset, `start` if there is none.
        log_end: where what is committed ends, and reading would.
        batches: the records from `start` to `end`.
        latest: whether an application that has committed nothing begins at the end.
        has_holes: records in between were compacted away.
    """

    start: int
    end: int
    log_end: int
    batches: Sequence[FetchedBatch] = ()
    latest: bool = False
    has_holes: bool = False

    @property
    def lag(self) -> int:
        """How many offsets are left to process."""
        return max(self.log_end - max(self.end, self.start), 0)


class History(msgspec.Struct, frozen=True):
    """What there is to replay.

    Attributes:
        inputs: of each partition that the topology reads, internal ones left out.
        pending: records of repartition topics that are written and not processed yet.
        partition_counts: of all topics, where a function may choose any of them.
    """

    inputs: Mapping[TopicPartition, Consumed]
    pending: Mapping[TopicPartition, Sequence[FetchedRecord]] = {}
    partition_counts: Mapping[str, int] = {}


class Part(NamedTuple):
    """Some consecutive records as a batch."""

    partition: TopicPartition
    next_offset: int
    content: Sequence[FetchedRecord]

    @property
    def size_bytes(self) -> int:
        """Nobody asks for more than whether there is something."""
        return len(self.content)

    def records(self) -> Iterable[FetchedRecord]:
        """The records."""
        return self.content


def before(batch: FetchedBatch, end: int) -> FetchedBatch:
    """The batch as far as its records are before an offset."""
    if batch.next_offset <= end:
        return batch
    return Part(batch.partition, end, [record for record in batch.records() if record.offset < end])


def one_by_one(batch: FetchedBatch) -> list[Part]:
    """Each record as a batch of its own; the last one ends where the batch does, an empty one stays as it is."""
    records = list(batch.records())
    ends = [*(record.offset for record in records[1:]), batch.next_offset]
    return [Part(batch.partition, end, records[n : n + 1]) for n, end in enumerate(ends)]
