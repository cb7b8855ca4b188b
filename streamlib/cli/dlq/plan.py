"""What would be replayed, and to where. Nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec

from streamlib.cli.dlq.reading import Advance, Extent, existing, read_letters, what_was_replayed
from streamlib.cli.errors import UsageError
from streamlib.dead_letters.letters import Letter, Wanted
from streamlib.kafka.admin import KafkaAdmin
from streamlib.kafka.connection import Connection
from streamlib.partitioning import partition_for
from streamlib.records import TopicPartition

GROUP_PREFIX = "streamlib-dlq-replay-"
"""The group that commits what was replayed is this and the topic's name."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for.

    Attributes:
        topic: of dead letters.
        wanted: which of them.
        to: the topic to write to; None is where each was read from.
        keep_partition: write to the partition with the number of the one it was read from.
        again: also what was replayed before.
    """

    topic: str
    wanted: Wanted
    to: str | None = None
    keep_partition: bool = False
    again: bool = False


class Route:
    """Where a dead letter goes; asks for the partitions of each topic once."""

    def __init__(self, admin: KafkaAdmin, request: Request) -> None:
        self._admin = admin
        self._to = request.to
        self._keep_partition = request.keep_partition
        self._counts: dict[str, int] = {}

    async def of(self, letter: Letter) -> TopicPartition | None:
        """None if it does not tell its source.

        Raises:
            UsageError: there is no such topic or partition.
        """
        topic = self._to or letter.source_topic
        if topic is None:
            return None
        if topic not in self._counts:
            self._counts[topic] = await self._partitions(topic, letter)
        if self._keep_partition:
            return TopicPartition(topic, kept_partition(letter, topic, self._counts[topic]))
        return TopicPartition(topic, chosen_partition(letter, self._counts[topic]))

    async def _partitions(self, topic: str, letter: Letter) -> int:
        try:
            return await existing(self._admin, topic)
        except UsageError as error:
            place = letter.partition.at(letter.offset)
            raise UsageError(f"{error}; the dead letter at {place} would go to it: --to names another") from None


def chosen_partition(letter: Letter, count: int) -> int:
    """By the key as Kafka's clients do; without one, that of the source as far as there are so many."""
    key = letter.record[0]
    if key is not None:
        return partition_for(key, count)
    return (letter.offset if letter.source_partition is None else letter.source_partition) % count


def kept_partition(letter: Letter, topic: str, count: int) -> int:
    """That of the source.

    Raises:
        UsageError: it is not known, or the topic has fewer partitions.
    """
    if letter.source_partition is None or letter.source_partition >= count:
        known = "it does not tell" if letter.source_partition is None else f"{letter.source_partition}"
        raise UsageError(
            f"the dead letter at {letter.partition.at(letter.offset)} cannot keep its partition, {known}: "
            f"{topic} has {count}; leave out --keep-partition"
        )
    return letter.source_partition


class Plan(msgspec.Struct, frozen=True):
    """What a replay would do.

    Attributes:
        extent: what has to be read.
        counts: records by the topic they go to.
        not_wanted: records that the filter leaves out.
        without_source: records that do not tell where they were read from, and stay.
    """

    extent: Extent
    counts: Mapping[str, int]
    not_wanted: int
    without_source: int

    @property
    def total(self) -> int:
        """Records to write."""
        return sum(self.counts.values())


async def make_plan(connection: Connection, request: Request, route: Route, advance: Advance) -> Plan:
    """Read all that is left.

    Raises:
        UsageError: there is no such topic, or nothing it could be written to.
    """
    whole = await Extent.of(connection.admin(), request.topic)
    replayed = await what_was_replayed(connection, whole, again=request.again)
    extent = whole.after(replayed)
    counts: Counter[str] = Counter()
    not_wanted = without_source = 0
    async for letters in read_letters(connection, extent, advance):
        for letter in letters:
            if letter.offset in replayed[letter.partition]:
                continue
            if letter not in request.wanted:
                not_wanted += 1
            elif (target := await route.of(letter)) is None:
                without_source += 1
            else:
                counts[target.topic] += 1
    return Plan(extent, counts, not_wanted, without_source)
