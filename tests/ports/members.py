"""Members of a group, through the port; each remembers who it is, as a worker does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from streamlib.errors import ErrorCode
from streamlib.kafka.client import Response
from streamlib.kafka.connection import Connection
from streamlib.kafka.consumer_protocol import encode_subscription
from streamlib.kafka.group import KafkaGroup
from streamlib.records import GroupMetadata, TopicPartition
from streamlib.runtime.assignor import PROTOCOL
from streamlib.runtime.ports import Assignment, JoinResult, Subscription
from tests.ports.cluster import Cluster
from tests.ports.raw import refusal

TOPIC = "orders"
"""What the members say they read; a coordinator does not look at it."""


class Member:
    """One member: its connection, and what the coordinator told it last."""

    def __init__(self, cluster: Cluster, connection: Connection, group_id: str, instance_id: str | None) -> None:
        self.cluster = cluster
        self.connection = connection
        self.group_id = group_id
        self.instance_id = instance_id
        self.port: KafkaGroup = connection.group()
        self.generation, self.member_id = -1, ""
        self.said = Subscription((TOPIC,))

    @property
    def who(self) -> GroupMetadata:
        """What goes along with its offsets."""
        return GroupMetadata(self.group_id, self.generation, self.member_id, self.instance_id)

    async def join(self, *owned: TopicPartition, data: bytes = b"") -> JoinResult:
        """Join, or join again as the same."""
        self.said = Subscription((TOPIC,), owned, self.generation, data)
        return await self.join_unchanged()

    async def join_unchanged(self) -> JoinResult:
        """Join with the same words as last time."""
        joined = await self.port.join(self.member_id, self.said)
        self.generation, self.member_id = joined.generation, joined.member_id
        return joined

    async def sync(self, assignments: Mapping[str, Assignment] | None = None) -> Assignment:
        """Hand in the assignments, a leader's; a follower hands in nothing."""
        return await self.port.sync(self.generation, self.member_id, assignments or {})

    async def heartbeat(self) -> int:
        """What the coordinator says to a heartbeat."""
        return await refusal(self.port.heartbeat(self.generation, self.member_id))

    async def leave(self) -> None:
        await self.port.leave(self.member_id)

    async def told_to_rejoin(self) -> None:
        """Return when a heartbeat says that the group is rebalancing."""
        while (code := await self.heartbeat()) != ErrorCode.REBALANCE_IN_PROGRESS:
            assert code == ErrorCode.NONE
            await self.cluster.passes(5)


async def new_member(cluster: Cluster, group_id: str, instance_id: str | None = None, **config: Any) -> Member:
    """A member that has not joined yet, with connections of its own."""
    connection = await cluster.connect(application_id=group_id, group_instance_id=instance_id, **config)
    return Member(cluster, connection, group_id, instance_id)


async def sole_member(cluster: Cluster, instance_id: str | None = None, **config: Any) -> Member:
    """The stable only member of a new group; it has been assigned `own(0)`."""
    member = await new_member(cluster, cluster.name("group"), instance_id, **config)
    await member.join()
    await member.sync({member.member_id: Assignment((own(0),))})
    return member


async def rejoin_all(old: Sequence[Member], new: Sequence[Member] = ()) -> list[JoinResult]:
    """Let `new` members join, and the old ones when they are told to; the answers in this order."""
    joining = [asyncio.create_task(member.join()) for member in new]
    for member in old:
        await member.told_to_rejoin()
    joined = await asyncio.gather(*(member.join() for member in old))
    return [*joined, *await asyncio.gather(*joining)]


async def sync_all(members: Sequence[Member], joined: Sequence[JoinResult]) -> list[Assignment]:
    """Let the leader assign `own(i)` to the i-th member; the answers in the members' order."""
    decided = {member.member_id: Assignment((own(number),)) for number, member in enumerate(members)}
    return await asyncio.gather(
        *(member.sync(decided if result.leads else {}) for member, result in zip(members, joined, strict=True))
    )


async def stable_group(cluster: Cluster, count: int, **config: Any) -> list[Member]:
    """So many members in a stable group, the first of which leads."""
    members = [await sole_member(cluster, **config)]
    for _ in range(count - 1):
        members.append(await new_member(cluster, members[0].group_id, **config))
    if count > 1:
        await sync_all(members, await rejoin_all(members[:1], members[1:]))
    return members


async def ask_group(
    cluster: Cluster, api: str, group_id: str, *, version: int | None = None, **fields: Any
) -> Response:
    """One request to a group's coordinator by hand, on a connection of its own: it may be held back."""
    node = await cluster.client.retrying(lambda: cluster.client.coordinator(group_id, "group"))
    body = {"group_id": group_id, **fields}
    return await cluster.client.call(api, body, node=node, lane=cluster.name("by-hand"), max_version=version)


async def ask_to_join(cluster: Cluster, group_id: str, *, version: int | None = None, **fields: Any) -> Response:
    """One JoinGroup by hand; as the port's but for what is given."""
    usual = {
        "session_timeout_ms": 10_000,
        "rebalance_timeout_ms": 10_000,
        "member_id": "",
        "protocol_type": "consumer",
        "protocols": [{"name": PROTOCOL, "metadata": encode_subscription(Subscription((TOPIC,)))}],
    }
    return await ask_group(cluster, "JoinGroup", group_id, version=version, **{**usual, **fields})


def own(number: int) -> TopicPartition:
    """The partition that the members' assignments speak of."""
    return TopicPartition(TOPIC, number)
