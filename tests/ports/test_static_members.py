"""Static members (KIP-345): a restart that the others do not notice, and the old incarnation that it fences."""

from __future__ import annotations

import asyncio

import pytest

from streamlib.errors import ErrorCode
from streamlib.records import GroupMetadata, OffsetAndMetadata
from streamlib.runtime.ports import Assignment
from tests.ports.cluster import Cluster
from tests.ports.everywhere import on_every_cluster
from tests.ports.members import (
    Member,
    ask_group,
    ask_to_join,
    new_member,
    own,
    rejoin_all,
    sole_member,
    sync_all,
)
from tests.ports.raw import new_producer, refusal

LEADER, FOLLOWER = "worker-1", "worker-2"
FENCED = ErrorCode.FENCED_INSTANCE_ID
BEFORE_KIP_814 = 8
"""A version of JoinGroup that cannot say that the assignment is to be kept."""


async def static_pair(cluster: Cluster) -> tuple[Member, Member]:
    """A stable group of two static members, the first of which leads."""
    leader = await sole_member(cluster, LEADER)
    follower = await new_member(cluster, leader.group_id, FOLLOWER)
    await sync_all([leader, follower], await rejoin_all([leader], [follower]))
    return leader, follower


async def restarted(cluster: Cluster, member: Member) -> Member:
    """The same instance, as a new process that has not joined yet."""
    return await new_member(cluster, member.group_id, member.instance_id)


# --- a restart


@on_every_cluster
async def test_static_member_needs_no_id_first(cluster: Cluster) -> None:
    joined = await ask_to_join(cluster, cluster.name("group"), group_instance_id=LEADER)
    assert (joined.error_code, joined.generation_id, joined.leader) == (ErrorCode.NONE, 1, joined.member_id)


@on_every_cluster
async def test_restarted_follower_has_its_assignment_back_and_nobody_notices(cluster: Cluster) -> None:
    leader, follower = await static_pair(cluster)
    again = await restarted(cluster, follower)
    joined = await again.join(data=b"something new")
    assert (joined.generation, joined.leads, joined.members) == (2, False, ())
    assert again.member_id != follower.member_id
    assert await again.sync() == Assignment((own(1),))
    assert await leader.heartbeat() == ErrorCode.NONE


@on_every_cluster
async def test_restarted_leader_has_its_assignment_back_and_nobody_notices(cluster: Cluster) -> None:
    leader, follower = await static_pair(cluster)
    again = await restarted(cluster, leader)
    joined = await again.join(data=b"something new")
    assert (joined.generation, joined.leads) == (2, False)
    assert await again.sync() == Assignment((own(0),))
    assert await follower.heartbeat() == ErrorCode.NONE


@on_every_cluster
async def test_restarted_leader_is_told_that_it_leads_and_to_skip_the_assignment(cluster: Cluster) -> None:
    leader, _ = await static_pair(cluster)
    answer = await ask_to_join(cluster, leader.group_id, group_instance_id=LEADER)
    assert (answer.leader, answer.skip_assignment, len(answer.members)) == (answer.member_id, True, 2)


@on_every_cluster
async def test_restarted_leader_that_cannot_be_told_to_skip_is_told_that_another_leads(cluster: Cluster) -> None:
    leader, _ = await static_pair(cluster)
    answer = await ask_to_join(cluster, leader.group_id, version=BEFORE_KIP_814, group_instance_id=LEADER)
    assert (answer.leader, answer.generation_id, answer.members) == (leader.member_id, 2, [])


@on_every_cluster
async def test_restarted_leader_leads_the_next_rebalance(cluster: Cluster) -> None:
    leader, follower = await static_pair(cluster)
    again = await restarted(cluster, leader)
    await again.join()
    joining = asyncio.create_task(again.join())
    await follower.told_to_rejoin()
    assert not (await follower.join()).leads
    joined = await joining
    assert (joined.generation, joined.leads) == (3, True)
    assert {each.instance_id for each in joined.members} == {LEADER, FOLLOWER}


@on_every_cluster
async def test_restart_while_others_are_joining_joins_with_them(cluster: Cluster) -> None:
    leader, follower = await static_pair(cluster)
    third, again = await new_member(cluster, leader.group_id), await restarted(cluster, follower)
    joining = [asyncio.create_task(third.join())]
    await leader.told_to_rejoin()
    joining.append(asyncio.create_task(again.join()))
    await cluster.passes(50)
    assert not any(task.done() for task in joining)
    assert len((await leader.join()).members) == 3
    await asyncio.gather(*joining)
    assert {leader.generation, again.generation, third.generation} == {3}


@on_every_cluster
async def test_restart_before_the_sync_begins_another_rebalance(cluster: Cluster) -> None:
    leader = await sole_member(cluster, LEADER)
    follower = await new_member(cluster, leader.group_id, FOLLOWER)
    await rejoin_all([leader], [follower])
    again = await restarted(cluster, follower)
    joining = asyncio.create_task(again.join())
    await leader.told_to_rejoin()
    assert await refusal(leader.sync({})) == ErrorCode.REBALANCE_IN_PROGRESS
    await leader.join()
    await joining
    assert leader.generation == again.generation == 3


# --- the old incarnation


async def replaced(cluster: Cluster) -> tuple[Member, Member]:
    """A member that another process has replaced, and that process."""
    _, follower = await static_pair(cluster)
    again = await restarted(cluster, follower)
    await again.join()
    return follower, again


@on_every_cluster
async def test_old_incarnation_is_fenced_from_the_group(cluster: Cluster) -> None:
    old, _ = await replaced(cluster)
    assert await old.heartbeat() == FENCED
    assert await refusal(old.sync()) == FENCED
    assert await refusal(old.join()) == FENCED
    assert await refusal(old.leave()) == FENCED


@on_every_cluster
async def test_old_incarnation_is_fenced_from_offsets(cluster: Cluster) -> None:
    old, new = await replaced(cluster)
    partition, producer = await cluster.partition(), await new_producer(cluster)
    offsets = {partition: OffsetAndMetadata(7)}
    assert await refusal(old.port.commit_offsets(old.who, offsets)) == FENCED
    assert await producer.write_offset(old.who, partition, 7) == FENCED
    await producer.finish(commit=False)
    assert await new.port.fetch_offsets([partition]) == {}


@on_every_cluster
async def test_new_incarnation_may_do_all_that(cluster: Cluster) -> None:
    _, new = await replaced(cluster)
    partition, producer = await cluster.partition(), await new_producer(cluster)
    assert await new.heartbeat() == ErrorCode.NONE
    await new.port.commit_offsets(new.who, {partition: OffsetAndMetadata(7)})
    assert await producer.write_offset(new.who, partition, 8) == ErrorCode.NONE


@on_every_cluster
async def test_without_its_instance_id_the_old_incarnation_is_unknown(cluster: Cluster) -> None:
    old, _ = await replaced(cluster)
    partition, producer = await cluster.partition(), await new_producer(cluster)
    anonymous = GroupMetadata(old.group_id, old.generation, old.member_id, None)
    unknown = ErrorCode.UNKNOWN_MEMBER_ID
    assert await refusal(old.port.commit_offsets(anonymous, {partition: OffsetAndMetadata(7)})) == unknown
    assert await producer.write_offset(anonymous, partition, 7) == unknown


@on_every_cluster
async def test_instance_that_the_group_does_not_know_is_unknown(cluster: Cluster) -> None:
    member, partition, producer = await sole_member(cluster), await cluster.partition(), await new_producer(cluster)
    stranger = GroupMetadata(member.group_id, member.generation, member.member_id, "stranger")
    unknown = ErrorCode.UNKNOWN_MEMBER_ID
    assert await refusal(member.port.commit_offsets(stranger, {partition: OffsetAndMetadata(7)})) == unknown
    assert await producer.write_offset(stranger, partition, 7) == unknown


# --- leaving


@on_every_cluster
async def test_instance_can_be_made_to_leave_by_name(cluster: Cluster) -> None:
    leader, follower = await static_pair(cluster)
    assert await leave_by_name(cluster, leader.group_id, FOLLOWER) == ErrorCode.NONE
    assert await follower.heartbeat() == ErrorCode.UNKNOWN_MEMBER_ID
    assert await leader.heartbeat() == ErrorCode.REBALANCE_IN_PROGRESS
    assert await leave_by_name(cluster, leader.group_id, FOLLOWER) == ErrorCode.UNKNOWN_MEMBER_ID


@on_every_cluster
@pytest.mark.parametrize("instance_id", [LEADER, FOLLOWER])
async def test_static_member_that_left_is_gone(cluster: Cluster, instance_id: str) -> None:
    pair = await static_pair(cluster)
    [leaves] = [member for member in pair if member.instance_id == instance_id]
    [stays] = [member for member in pair if member.instance_id != instance_id]
    await leaves.leave()
    await stays.told_to_rejoin()
    joined = await stays.join()
    assert (joined.leads, [each.instance_id for each in joined.members]) == (True, [stays.instance_id])


async def leave_by_name(cluster: Cluster, group_id: str, instance_id: str) -> int:
    """LeaveGroup for an instance, whatever its member id: the code for that member."""
    leaving = {"member_id": "", "group_instance_id": instance_id, "reason": "its host is gone"}
    answer = await ask_group(cluster, "LeaveGroup", group_id, members=[leaving])
    assert answer.error_code == ErrorCode.NONE
    code: int = answer.members[0].error_code
    return code
