"""How many dead letters topics have, and the newest of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from streamlib.dead_letters.letters import Letter
from streamlib.kafka.connection import Connection
from streamlib.kafka.reading import partitions_of, read_batches
from streamlib.records import TopicPartition


class TopicOfLetters(msgspec.Struct, frozen=True):
    """A topic of dead letters.

    Args:
        topic: its name.
        size: how many offsets it has; with transactions some of them are markers. None: there is no such topic.
        newest: its newest letters, the newest first.
    """

    topic: str
    size: int | None
    newest: tuple[Letter, ...]


async def recent_letters(connection: Connection, topics: Collection[str], most: int) -> list[TopicOfLetters]:
    """The topics in order, each with up to so many letters.

    Raises:
        KafkaError: the cluster refuses, or cannot be reached.
        StalledError: nothing came for a minute.
    """
    admin = connection.admin()
    counts = await admin.partition_counts(topics)
    partitions = [each for topic, count in counts.items() for each in partitions_of(topic, count)]
    ends = await admin.list_offsets(partitions, "latest_stable")
    first = await admin.list_offsets(partitions, "earliest")
    starts = {each: max(first[each], ends[each] - 2 * most) for each in partitions}  # every other one may be a marker
    newest = await _newest(connection, starts, ends, most)
    return [
        TopicOfLetters(
            topic,
            sum(ends[each] - first[each] for each in partitions if each.topic == topic) if topic in counts else None,
            tuple(newest.get(topic, ())),
        )
        for topic in sorted(topics)
    ]


async def _newest(
    connection: Connection, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int], most: int
) -> dict[str, list[Letter]]:
    found: dict[str, list[Letter]] = {}
    async for batch in read_batches(connection, starts, ends):
        letters = found.setdefault(batch.partition.topic, [])
        within = range(starts[batch.partition], ends[batch.partition])
        letters += [Letter.read(batch.partition, record) for record in batch.records() if record.offset in within]
        letters.sort(key=lambda letter: (letter.timestamp, letter.partition, letter.offset), reverse=True)
        del letters[most:]
    return found
