"""Groups as their coordinators see them: members, what each has been assigned, and all committed offsets.

Groups of the classic protocol and streams groups (KIP-1071) are described by different requests; a coordinator asked
with the wrong one says that there is no such group.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from streamlib.errors import ErrorCode, UnsupportedBrokerError
from streamlib.kafka import offset_fetch
from streamlib.kafka.client import KafkaClient
from streamlib.kafka.consumer_protocol import decode_assignment
from streamlib.kafka.errors import check_code
from streamlib.records import OffsetAndMetadata, TopicPartition

STREAMS_PROTOCOL = "streams"
"""What `GroupDescription.protocol` is for a streams group."""

_LANE = "admin"
_CLASSIC, _STREAMS = "DescribeGroups", "StreamsGroupDescribe"
_NO_STREAMS_GROUP = frozenset({ErrorCode.GROUP_ID_NOT_FOUND, ErrorCode.UNSUPPORTED_VERSION})


class GroupMember(msgspec.Struct, frozen=True):
    """A member of a group, and what it has been assigned."""

    member_id: str
    instance_id: str | None
    client_id: str
    host: str
    partitions: tuple[TopicPartition, ...]
    user_data: bytes


class GroupDescription(msgspec.Struct, frozen=True):
    """A group as its coordinator sees it; `state` is "Stable", "Empty", "PreparingRebalance" ... or "Dead".

    What no coordinator knows is "Dead" and empty.
    """

    group_id: str
    state: str
    protocol: str
    members: tuple[GroupMember, ...]


async def describe_once(client: KafkaClient, group_id: str) -> GroupDescription:
    """One attempt, to be repeated by `retrying`."""
    node = await client.coordinator(group_id, "group")
    response = await client.call(_CLASSIC, {"groups": [group_id]}, node=node, lane=_LANE)
    group = response.groups[0]
    if group.error_code != ErrorCode.GROUP_ID_NOT_FOUND:
        check_code(group.error_code, _CLASSIC, f"group {group_id}", group.error_message)
        if group.group_state != "Dead":
            members = tuple(_classic_member(member) for member in group.members)
            return GroupDescription(group_id, group.group_state, group.protocol_data, members)
    return await _describe_streams(client, group_id, node)


async def committed_once(client: KafkaClient, group_id: str) -> dict[TopicPartition, OffsetAndMetadata]:
    """All offsets that a group has committed; one attempt, to be repeated by `retrying`."""
    node = await client.coordinator(group_id, "group")
    body = offset_fetch.request(client, group_id, None)
    ours = offset_fetch.answer(client, await client.call("OffsetFetch", body, node=node, lane=_LANE))
    if ours.error_code == ErrorCode.GROUP_ID_NOT_FOUND:
        return {}
    check_code(ours.error_code, "OffsetFetch", f"group {group_id}")
    return offset_fetch.committed(ours, f"group {group_id}")


async def _describe_streams(client: KafkaClient, group_id: str, node: int) -> GroupDescription:
    nobody = GroupDescription(group_id, "Dead", "", ())
    try:
        client.version(_STREAMS)
    except UnsupportedBrokerError:
        return nobody
    body = {"group_ids": [group_id], "include_authorized_operations": False}
    response = await client.call(_STREAMS, body, node=node, lane=_LANE)
    group = response.groups[0]
    if group.error_code in _NO_STREAMS_GROUP:
        return nobody
    check_code(group.error_code, _STREAMS, f"group {group_id}", group.error_message)
    topics = _source_topics(group.topology)
    members = tuple(_streams_member(member, topics) for member in group.members)
    return GroupDescription(group_id, group.group_state, STREAMS_PROTOCOL, members)


def _classic_member(member: Any) -> GroupMember:
    assignment = decode_assignment(member.member_assignment)
    return GroupMember(
        member.member_id,
        member.group_instance_id,
        member.client_id,
        member.client_host,
        assignment.partitions,
        assignment.user_data,
    )


def _source_topics(topology: Any) -> Mapping[str, list[str]]:
    """What the tasks of each subtopology read."""
    subtopologies = (topology.subtopologies or ()) if topology is not None else ()
    return {
        each.subtopology_id: [*each.source_topics, *(topic.name for topic in each.repartition_source_topics)]
        for each in subtopologies
    }


def _streams_member(member: Any, topics: Mapping[str, list[str]]) -> GroupMember:
    # A task has the partition with its number of each topic that has so many: that some have fewer is no matter here.
    partitions = tuple(
        TopicPartition(topic, number)
        for tasks in member.assignment.active_tasks
        for topic in topics.get(tasks.subtopology_id, ())
        for number in tasks.partitions
    )
    return GroupMember(member.member_id, member.instance_id, member.client_id, member.client_host, partitions, b"")
