"""Reads the dead letters of a topic, up to where its committed records end now."""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import msgspec

from streamlib.cli.dlq.replayed import Replayed
from streamlib.cli.errors import UsageError
from streamlib.dead_letters.letters import Letter
from streamlib.kafka.admin import KafkaAdmin
from streamlib.kafka.connection import Connection
from streamlib.kafka.reading import partitions_of, read_batches
from streamlib.records import TopicPartition

Advance = Callable[[int], object]
"""Is told how many offsets, or records, are done since the last call."""


class Extent(msgspec.Struct, frozen=True):
    """The offsets of a topic of dead letters at one moment: where each partition begins, and ends."""

    starts: Mapping[TopicPartition, int]
    ends: Mapping[TopicPartition, int]

    @classmethod
    async def of(cls, admin: KafkaAdmin, topic: str) -> Extent:
        """Ask for all partitions.

        Raises:
            UsageError: there is no such topic.
        """
        partitions = partitions_of(topic, await existing(admin, topic))
        ends = await admin.list_offsets(partitions, "latest_stable")
        return cls(await admin.list_offsets(partitions, "earliest"), ends)

    def only(self, partition: int | None, offset: int | None) -> Extent:
        """One partition, from an offset on.

        Raises:
            UsageError: there is no such partition.
        """
        if partition is None:
            return self
        found = [each for each in self.starts if each.partition == partition]
        if not found:
            raise UsageError(f"there is no partition {partition}: the topic has {len(self.starts)}")
        start = max(self.starts[found[0]], offset or 0)
        return Extent({found[0]: start}, {found[0]: self.ends[found[0]]})

    def after(self, replayed: Mapping[TopicPartition, Replayed]) -> Extent:
        """Without the beginning of each partition that has been replayed."""
        starts = {each: max(start, replayed[each].first_left) for each, start in self.starts.items()}
        return Extent(starts, self.ends)

    @property
    def size(self) -> int:
        """How many offsets there are; not each has a record."""
        return sum(max(0, end - self.starts[partition]) for partition, end in self.ends.items())


async def existing(admin: KafkaAdmin, topic: str) -> int:
    """The number of partitions of a topic.

    Raises:
        UsageError: there is no such topic.
    """
    counts = await admin.partition_counts([topic])
    if topic in counts:
        return counts[topic]
    close = difflib.get_close_matches(topic, await admin.topics(), 1)
    raise UsageError(f"there is no topic {topic}{f': did you mean {close[0]}?' if close else ''}")


async def read_letters(connection: Connection, extent: Extent, advance: Advance) -> AsyncIterator[Sequence[Letter]]:
    """All of them in order within a partition, some of one partition at a time.

    Raises:
        StalledError: nothing came for a minute.
    """
    positions = dict(extent.starts)
    async for batch in read_batches(connection, extent.starts, extent.ends):
        partition, end = batch.partition, extent.ends[batch.partition]
        letters = [Letter.read(partition, record) for record in batch.records() if record.offset < end]
        yield letters
        reached = min(batch.next_offset, end)
        advance(reached - positions[partition])
        positions[partition] = reached


async def what_was_replayed(
    connection: Connection, extent: Extent, *, again: bool = False
) -> dict[TopicPartition, Replayed]:
    """Of each partition, by the offsets that the connection's group has committed; nothing if `again`.

    Raises:
        UsageError: more has been replayed than there is.
    """
    committed = {} if again else await connection.group().fetch_offsets(extent.starts)
    for partition, (offset, _) in committed.items():
        if offset > extent.ends[partition]:
            raise UsageError(
                f"{partition} ends at offset {extent.ends[partition]}, but was replayed up to {offset}: was the topic "
                "deleted and made anew? 'dlq replay --again' starts over"
            )
    return {
        partition: Replayed.committed(committed[partition]) if partition in committed else Replayed(start)
        for partition, start in extent.starts.items()
    }
