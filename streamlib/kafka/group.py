"""One member's conversation with its group coordinator, and committed offsets.

The classic protocol, client-side assignment (KIP-429), static members (KIP-345). What moves with the
coordinator is repeated here; what is said about the member (generations, rebalances, fencing) goes up.

A broker answers one connection's requests in turn, and holds a join back until all members have joined. So
joins, heartbeats and offsets each have a lane of their own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from streamlib.errors import ErrorCode, KafkaError
from streamlib.kafka import offset_fetch
from streamlib.kafka.by_topic import answers, nested
from streamlib.kafka.client import KafkaClient, Response
from streamlib.kafka.consumer_protocol import (
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from streamlib.kafka.errors import check_code
from streamlib.kafka.protocol.primitives import DecodeError
from streamlib.records import GroupMetadata, OffsetAndMetadata, TopicPartition
from streamlib.runtime.ports import Assignment, JoinResult, MemberSubscription, Subscription

T = TypeVar("T")

log = logging.getLogger("streamlib.kafka")

_PROTOCOL_TYPE = "consumer"
# What a join may take beyond the rebalance timeout before we call the connection dead (as in Java).
_JOIN_MARGIN_MS = 5_000
_TRIES_PER_SESSION = 3
_STABLE_BACKOFF_MS = (5.0, 100.0)
_STABLE_WARNING_S = 10.0


class KafkaGroup:
    """Implements `streamlib.runtime.ports.Group`."""

    def __init__(
        self,
        client: KafkaClient,
        group_id: str,
        *,
        instance_id: str | None,
        session_timeout_ms: int,
        rebalance_timeout_ms: int,
        protocol: str,
    ) -> None:
        self._client = client
        self._group_id = group_id
        self._instance_id = instance_id
        self._session_timeout_ms = session_timeout_ms
        self._rebalance_timeout_ms = rebalance_timeout_ms
        self._protocol = protocol
        self._where = f"group {group_id}"
        self._join_lane = ("join", group_id)
        self._heartbeat_lane = ("heartbeat", group_id)
        self._offsets_lane = ("offsets", group_id)

    async def join(self, member_id: str, subscription: Subscription) -> JoinResult:
        """Join or rejoin, and wait until all members have."""
        body = {
            "session_timeout_ms": self._session_timeout_ms,
            "rebalance_timeout_ms": self._rebalance_timeout_ms,
            "protocol_type": _PROTOCOL_TYPE,
            "protocols": [{"name": self._protocol, "metadata": encode_subscription(subscription)}],
        }
        response = await self._held_back("JoinGroup", body | {"member_id": member_id})
        if response.error_code == ErrorCode.MEMBER_ID_REQUIRED:
            # The broker gives new members an id first, so that a lost answer leaves no unknown member (KIP-394).
            response = await self._held_back("JoinGroup", body | {"member_id": response.member_id})
        check_code(response.error_code, "JoinGroup", self._where)
        leads = response.leader == response.member_id and not response.skip_assignment
        members = tuple(self._member(member) for member in response.members) if leads else ()
        return JoinResult(response.generation_id, response.member_id, leads, members)

    async def sync(self, generation: int, member_id: str, assignments: Mapping[str, Assignment]) -> Assignment:
        """Hand in what the leader decided and receive the own assignment."""
        body = {
            "generation_id": generation,
            "member_id": member_id,
            "protocol_type": _PROTOCOL_TYPE,
            "protocol_name": self._protocol,
            "assignments": [
                {"member_id": member, "assignment": encode_assignment(assignment)}
                for member, assignment in sorted(assignments.items())
            ],
        }
        response = await self._held_back("SyncGroup", body)
        check_code(response.error_code, "SyncGroup", self._where)
        return _understood(decode_assignment, response.assignment, "SyncGroup", self._where)

    async def heartbeat(self, generation: int, member_id: str) -> None:
        """Say that the member is alive; gives up after a session timeout, there is nobody left to tell then."""
        body = {"generation_id": generation, "member_id": member_id}
        await self._at_once("Heartbeat", body | self._who)

    async def leave(self, member_id: str) -> None:
        """Leave at once; that the coordinator does not know the member any more is fine."""
        member = {"member_id": member_id, "group_instance_id": self._instance_id, "reason": "the worker stops"}
        response = await self._at_once("LeaveGroup", {"group_id": self._group_id, "members": [member]})
        for left in response.members:
            if left.error_code != ErrorCode.UNKNOWN_MEMBER_ID:
                check_code(left.error_code, "LeaveGroup", self._where)

    async def fetch_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        """Committed offsets, once no transaction over them is pending (`require_stable`, KIP-447).

        There is no deadline but the cancellation: the broker ends a dead producer's transaction after its
        timeout, within ten seconds.
        """
        topics = [
            {"name": topic, "partition_indexes": [tp.partition for tp in group]} for topic, group in nested(partitions)
        ]
        pause_ms, longest_ms = _STABLE_BACKOFF_MS
        clock = asyncio.get_running_loop().time
        warn_at_s = clock() + _STABLE_WARNING_S
        while (committed := await self._client.retrying(lambda: self._fetch_once(topics))) is None:
            if clock() > warn_at_s:
                log.warning("group %s: a transaction over its offsets is still pending", self._group_id)
                warn_at_s += _STABLE_WARNING_S
            await asyncio.sleep(pause_ms / 1000)
            pause_ms = min(pause_ms * 2, longest_ms)
        return committed

    async def commit_offsets(self, group: GroupMetadata, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Commit outside of a transaction."""
        body = {
            "group_id": group.group_id,
            "generation_id_or_member_epoch": group.generation,
            "member_id": group.member_id,
            "group_instance_id": group.instance_id,
            "topics": [
                {"name": topic, "partitions": [_commit(tp, offsets[tp]) for tp in group_of]}
                for topic, group_of in nested(offsets)
            ],
        }
        await self._client.retrying(lambda: self._commit_once(body))

    async def close(self) -> None:
        """Drop the connections; does not leave the group."""
        for lane in (self._join_lane, self._heartbeat_lane, self._offsets_lane):
            self._client.disconnect(lane)

    @property
    def _who(self) -> dict[str, Any]:
        return {"group_id": self._group_id, "group_instance_id": self._instance_id}

    async def _held_back(self, api: str, body: Mapping[str, Any]) -> Response:
        """A request that is answered when all members have made theirs.

        A cancelled one would keep its connection waiting, so that is dropped.
        """
        timeout_ms = max(self._rebalance_timeout_ms + _JOIN_MARGIN_MS, self._client.settings.request_timeout_ms)
        deadline_ms = timeout_ms + self._client.settings.delivery_timeout_ms
        try:
            return await self._client.retrying(
                lambda: self._ask(api, {**body, **self._who}, self._join_lane, timeout_ms), deadline_ms=deadline_ms
            )
        except asyncio.CancelledError:
            self._client.disconnect(self._join_lane)
            raise

    async def _at_once(self, api: str, body: Mapping[str, Any]) -> Response:
        """A request that is worth nothing any more after a session timeout; one that is lost costs a part of it."""
        timeout_ms = max(self._session_timeout_ms // _TRIES_PER_SESSION, 1)
        return await self._client.retrying(
            lambda: self._ask(api, body, self._heartbeat_lane, timeout_ms), deadline_ms=self._session_timeout_ms
        )

    async def _ask(
        self, api: str, body: Mapping[str, Any], lane: tuple[str, str], timeout_ms: int | None = None
    ) -> Response:
        node = await self._client.coordinator(self._group_id, "group")
        response = await self._client.call(api, body, node=node, lane=lane, where=self._where, timeout_ms=timeout_ms)
        if response.error_code != ErrorCode.MEMBER_ID_REQUIRED:
            check_code(response.error_code, api, self._where)
        return response

    async def _fetch_once(self, topics: list[dict[str, Any]]) -> dict[TopicPartition, OffsetAndMetadata] | None:
        """What is committed, or None while any of it is about to change."""
        body = {"require_stable": True} | offset_fetch.request(self._client, self._group_id, topics)
        ours = offset_fetch.answer(self._client, await self._ask("OffsetFetch", body, self._offsets_lane))
        check_code(ours.error_code, "OffsetFetch", self._where)
        if any(each.error_code == ErrorCode.UNSTABLE_OFFSET_COMMIT for _, each in answers(ours.topics)):
            return None
        return offset_fetch.committed(ours, self._where)

    async def _commit_once(self, body: Mapping[str, Any]) -> None:
        node = await self._client.coordinator(self._group_id, "group")
        response = await self._client.call("OffsetCommit", body, node=node, lane=self._offsets_lane, where=self._where)
        for partition, answer in answers(response.topics):
            check_code(answer.error_code, "OffsetCommit", f"{self._where}, {partition}")

    def _member(self, member: Any) -> MemberSubscription:
        subscription = _understood(decode_subscription, member.metadata, "JoinGroup", self._where)
        return MemberSubscription(member.member_id, member.group_instance_id, subscription)


def _understood(decode: Callable[[bytes], T], data: bytes, api: str, where: str) -> T:
    try:
        return decode(data)
    except DecodeError as error:
        raise KafkaError(ErrorCode.INCONSISTENT_GROUP_PROTOCOL, api, where, str(error)) from error


def _commit(partition: TopicPartition, committed: OffsetAndMetadata) -> dict[str, Any]:
    return {
        "partition_index": partition.partition,
        "committed_offset": committed.offset,
        "committed_metadata": committed.metadata,
    }
