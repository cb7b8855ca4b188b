"""Where an application stands in each of its inputs, as the cluster knows it; nothing is asked of its workers."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

import msgspec

from streamlib.cli.errors import UsageError
from streamlib.kafka.admin import KafkaAdmin
from streamlib.kafka.group_description import GroupDescription, GroupMember
from streamlib.kafka.reading import partitions_of
from streamlib.records import OffsetAndMetadata, TopicPartition


class MemberName(msgspec.Struct, frozen=True):
    """Who a member is."""

    member_id: str
    instance_id: str | None
    client_id: str
    host: str

    def __str__(self) -> str:
        return f"{self.instance_id or self.member_id} ({self.host.removeprefix('/')})"


class PartitionStanding(msgspec.Struct, frozen=True, kw_only=True):
    """One input partition.

    Attributes:
        topic: its full name.
        partition: its number.
        committed: the offset of the next record to process; None if nothing was committed.
        end: behind the last record, those of open transactions included.
        lag: offsets in between; the ends of transactions count, too. None if nothing was committed.
        member: who has it; None if nobody has.
    """

    topic: str
    partition: int
    committed: int | None
    end: int
    lag: int | None
    member: MemberName | None


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """An application at one moment; `state` and `protocol` are those of its group."""

    application_id: str
    state: str
    protocol: str
    members: int
    partitions: tuple[PartitionStanding, ...]

    @property
    def total_lag(self) -> int:
        """Of all partitions of which something was committed."""
        return sum(each.lag or 0 for each in self.partitions)


async def ask_standing(admin: KafkaAdmin, application_id: str) -> Standing:
    """Ask the group's coordinator, then the leaders of the partitions.

    Raises:
        UsageError: there is no such group.
    """
    group = (await admin.describe_groups([application_id]))[application_id]
    committed = await admin.committed_offsets(application_id)
    if group.state == "Dead" and not committed:
        raise await no_such_group(admin, application_id)
    topics = {each.topic for each in (*committed, *_assigned(group))}
    counts = await admin.partition_counts(topics)  # without those that are deleted
    partitions = sorted(each for topic, count in counts.items() for each in partitions_of(topic, count))
    ends = await admin.list_offsets(partitions, "latest")
    return Standing(
        application_id=application_id,
        state=group.state,
        protocol=group.protocol,
        members=len(group.members),
        partitions=tuple(_standings(partitions, committed, ends, group)),
    )


async def no_such_group(admin: KafkaAdmin, application_id: str) -> UsageError:
    """The error that says so, with the nearest name there is."""
    close = difflib.get_close_matches(application_id, await admin.list_groups(), 1)
    hint = f": did you mean {close[0]}?" if close else ": has the application run here, under this name?"
    return UsageError(f"there is no group {application_id}{hint}")


def _standings(
    partitions: Iterable[TopicPartition],
    committed: Mapping[TopicPartition, OffsetAndMetadata],
    ends: Mapping[TopicPartition, int],
    group: GroupDescription,
) -> Iterable[PartitionStanding]:
    owners = _assigned(group)
    for each in partitions:
        offset = committed[each].offset if each in committed else None
        owner = owners.get(each)
        yield PartitionStanding(
            topic=each.topic,
            partition=each.partition,
            committed=offset,
            end=ends[each],
            # Ends are asked for after the committed offsets, so they are beyond them, unless a topic was made anew.
            lag=None if offset is None else max(0, ends[each] - offset),
            member=None if owner is None else _name(owner),
        )


def _assigned(group: GroupDescription) -> Mapping[TopicPartition, GroupMember]:
    return {partition: member for member in group.members for partition in member.partitions}


def _name(member: GroupMember) -> MemberName:
    return MemberName(member.member_id, member.instance_id, member.client_id, member.host)
