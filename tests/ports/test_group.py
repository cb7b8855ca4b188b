"""The group coordinator: joining, synchronising, staying and leaving."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamlib.errors import ErrorCode
from streamlib.runtime.ports import Assignment, Subscription
from tests.ports.cluster import Cluster
from tests.ports.everywhere import on_every_cluster
from tests.ports.members import (
    TOPIC,
    Member,
    ask_group,
    ask_to_join,
    new_member,
    own,
    rejoin_all,
    sole_member,
    stable_group,
    sync_all,
)
from tests.ports.raw import refusal

NOTHING = Assignment(())


async def completing(cluster: Cluster) -> list[Member]:
    """Two members that have joined generation 3 and not synchronised yet; the first leads."""
    leader, follower = await stable_group(cluster, 2)
    rejoining = asyncio.create_task(follower.join(data=b"something new"))
    await leader.told_to_rejoin()
    await leader.join()
    await rejoining
    return [leader, follower]


async def preparing(cluster: Cluster) -> tuple[list[Member], asyncio.Task[object]]:
    """Two members of generation 2, the first of which leads; the second waits for the first to join again."""
    leader, follower = await stable_group(cluster, 2)
    generation = follower.generation
    rejoining: asyncio.Task[object] = asyncio.create_task(follower.join(data=b"something new"))
    await leader.told_to_rejoin()
    assert follower.generation == generation
    return [leader, follower], rejoining


# --- joining


@on_every_cluster
async def test_new_member_is_given_an_id_first(cluster: Cluster) -> None:
    group_id = cluster.name("group")
    given = await ask_to_join(cluster, group_id)
    assert (given.error_code, given.generation_id) == (ErrorCode.MEMBER_ID_REQUIRED, -1)
    assert given.member_id
    joined = await ask_to_join(cluster, group_id, member_id=given.member_id)
    assert (joined.error_code, joined.member_id, joined.generation_id) == (ErrorCode.NONE, given.member_id, 1)


@on_every_cluster
async def test_first_member_joins_at_once_and_leads(cluster: Cluster) -> None:
    member = await new_member(cluster, cluster.name("group"))
    joined = await member.join(own(3), data=b"data")
    assert (joined.generation, joined.leads) == (1, True)
    [seen] = joined.members
    assert (seen.member_id, seen.instance_id) == (joined.member_id, None)
    assert seen.subscription == Subscription((TOPIC,), (own(3),), -1, b"data")


@on_every_cluster
async def test_second_member_is_waited_for_and_the_first_goes_on_leading(cluster: Cluster) -> None:
    first = await sole_member(cluster)
    second = await new_member(cluster, first.group_id)
    one, two = await rejoin_all([first], [second])
    assert one.generation == two.generation == 2
    assert (one.leads, two.leads) == (True, False)
    assert {each.member_id for each in one.members} == {first.member_id, second.member_id}
    assert two.members == ()


@on_every_cluster
async def test_third_member_makes_both_others_rejoin(cluster: Cluster) -> None:
    members = await stable_group(cluster, 2)
    third = await new_member(cluster, members[0].group_id)
    joined = await rejoin_all(members, [third])
    assert [each.generation for each in joined] == [3, 3, 3]
    assert [each.leads for each in joined] == [True, False, False]
    assert len(joined[0].members) == 3
    assert await sync_all([*members, third], joined) == [Assignment((own(number),)) for number in range(3)]


@on_every_cluster
async def test_leader_sees_what_each_owns(cluster: Cluster) -> None:
    members = await stable_group(cluster, 2)
    joining = asyncio.create_task(members[1].join(own(1)))
    await members[0].told_to_rejoin()
    joined = await members[0].join(own(0))
    await joining
    assert {each.subscription.owned for each in joined.members} == {(own(0),), (own(1),)}
    assert {each.subscription.generation for each in joined.members} == {2}


@on_every_cluster
async def test_join_waits_until_all_have_joined(cluster: Cluster) -> None:
    (leader, follower), rejoining = await preparing(cluster)
    await cluster.passes(50)
    assert not rejoining.done()
    await leader.join()
    await rejoining
    assert leader.generation == follower.generation == 3


@on_every_cluster
async def test_leader_can_ask_for_a_rebalance_by_joining_again(cluster: Cluster) -> None:
    leader, follower = await stable_group(cluster, 2)
    joining = asyncio.create_task(leader.join_unchanged())
    await follower.told_to_rejoin()
    await follower.join()
    await joining
    assert leader.generation == follower.generation == 3


@on_every_cluster
async def test_follower_that_repeats_itself_gets_the_same_generation_again(cluster: Cluster) -> None:
    leader, follower = await stable_group(cluster, 2)
    again = await follower.join_unchanged()
    assert (again.generation, again.leads) == (2, False)
    assert await follower.sync() == Assignment((own(1),))
    assert await leader.heartbeat() == ErrorCode.NONE


@on_every_cluster
async def test_members_that_repeat_themselves_before_the_sync_get_the_same_generation_again(cluster: Cluster) -> None:
    leader, follower = await completing(cluster)
    one, two = await leader.join_unchanged(), await follower.join_unchanged()
    assert (one.generation, one.leads, len(one.members)) == (3, True, 2)
    assert (two.generation, two.leads, two.members) == (3, False, ())


@on_every_cluster
async def test_follower_that_says_something_new_causes_a_rebalance(cluster: Cluster) -> None:
    leader, follower = await stable_group(cluster, 2)
    joining = asyncio.create_task(follower.join(data=b"something new"))
    await leader.told_to_rejoin()
    joined = await leader.join()
    await joining
    assert {each.subscription.user_data for each in joined.members} == {b"", b"something new"}


@on_every_cluster
async def test_member_id_that_the_group_does_not_know_is_refused(cluster: Cluster) -> None:
    member = await sole_member(cluster)
    refused = await ask_to_join(cluster, member.group_id, member_id="nobody")
    assert refused.error_code == ErrorCode.UNKNOWN_MEMBER_ID


@on_every_cluster
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"protocols": [{"name": "other", "metadata": b""}]}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocol_type": "connect"}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        ({"session_timeout_ms": 50}, ErrorCode.INVALID_SESSION_TIMEOUT),
        ({"session_timeout_ms": 10**8}, ErrorCode.INVALID_SESSION_TIMEOUT),
    ],
)
async def test_join_that_does_not_fit_is_refused_and_disturbs_nobody(
    cluster: Cluster, fields: dict[str, Any], expected: int
) -> None:
    member = await sole_member(cluster)
    assert (await ask_to_join(cluster, member.group_id, **fields)).error_code == expected
    assert await member.heartbeat() == ErrorCode.NONE


@on_every_cluster
async def test_group_needs_a_name(cluster: Cluster) -> None:
    assert (await ask_to_join(cluster, "")).error_code == ErrorCode.INVALID_GROUP_ID


@on_every_cluster
async def test_id_that_was_given_and_not_used_disturbs_nobody_before_it_joins(cluster: Cluster) -> None:
    member = await sole_member(cluster)
    await ask_to_join(cluster, member.group_id)
    assert await member.heartbeat() == ErrorCode.NONE


@on_every_cluster
async def test_id_that_was_given_is_not_a_member_yet(cluster: Cluster) -> None:
    member = await sole_member(cluster)
    given = await ask_to_join(cluster, member.group_id)
    answer = await ask_group(cluster, "Heartbeat", member.group_id, generation_id=1, member_id=given.member_id)
    assert answer.error_code == ErrorCode.UNKNOWN_MEMBER_ID


# --- synchronising


@on_every_cluster
async def test_follower_waits_for_what_the_leader_decides(cluster: Cluster) -> None:
    leader, follower = await completing(cluster)
    syncing = asyncio.create_task(follower.sync())
    await cluster.passes(50)
    assert not syncing.done()
    decided = {leader.member_id: NOTHING, follower.member_id: Assignment((own(5),), b"data")}
    assert await leader.sync(decided) == NOTHING
    assert await syncing == Assignment((own(5),), b"data")


@on_every_cluster
async def test_follower_that_comes_late_gets_what_was_decided(cluster: Cluster) -> None:
    leader, follower = await completing(cluster)
    await leader.sync({follower.member_id: Assignment((own(5),))})
    assert await follower.sync() == Assignment((own(5),))


@on_every_cluster
async def test_member_that_the_leader_forgot_gets_nothing(cluster: Cluster) -> None:
    leader, follower = await completing(cluster)
    assert await leader.sync({leader.member_id: Assignment((own(5),))}) == Assignment((own(5),))
    assert await follower.sync() == NOTHING


@on_every_cluster
async def test_assignment_stays_when_the_leader_repeats_itself(cluster: Cluster) -> None:
    leader = await sole_member(cluster)
    assert await leader.sync({leader.member_id: Assignment((own(7),))}) == Assignment((own(0),))


@on_every_cluster
async def test_sync_of_another_generation_or_member_is_refused(cluster: Cluster) -> None:
    member = await sole_member(cluster)
    for generation in (0, 2):
        code = await refusal(member.port.sync(generation, member.member_id, {}))
        assert code == ErrorCode.ILLEGAL_GENERATION
    assert await refusal(member.port.sync(1, "nobody", {})) == ErrorCode.UNKNOWN_MEMBER_ID


@on_every_cluster
async def test_sync_while_others_are_still_joining_is_refused(cluster: Cluster) -> None:
    (leader, _), rejoining = await preparing(cluster)
    assert await refusal(leader.sync()) == ErrorCode.REBALANCE_IN_PROGRESS
    await leader.join()
    await rejoining


@on_every_cluster
async def test_sync_that_waits_ends_when_somebody_new_joins(cluster: Cluster) -> None:
    leader, follower = await completing(cluster)
    syncing = asyncio.create_task(refusal(follower.sync()))
    await cluster.passes(50)
    third = await new_member(cluster, leader.group_id)
    joining = asyncio.create_task(third.join())
    assert await syncing == ErrorCode.REBALANCE_IN_PROGRESS
    assert await refusal(leader.sync({})) == ErrorCode.REBALANCE_IN_PROGRESS
    await asyncio.gather(leader.join(), follower.join(), joining)
    assert {leader.generation, follower.generation, third.generation} == {4}


# --- staying


@on_every_cluster
async def test_heartbeat_of_another_generation_or_member_is_refused(cluster: Cluster) -> None:
    member = await sole_member(cluster)
    for generation in (-1, 0, 2):
        code = await refusal(member.port.heartbeat(generation, member.member_id))
        assert code == ErrorCode.ILLEGAL_GENERATION
    for member_id in ("nobody", ""):
        assert await refusal(member.port.heartbeat(1, member_id)) == ErrorCode.UNKNOWN_MEMBER_ID


@on_every_cluster
async def test_heartbeat_to_a_group_that_does_not_exist_is_refused(cluster: Cluster) -> None:
    member = await new_member(cluster, cluster.name("group"))
    assert await refusal(member.port.heartbeat(1, "nobody")) == ErrorCode.UNKNOWN_MEMBER_ID


@on_every_cluster
async def test_heartbeat_says_that_others_are_joining_also_to_those_who_do(cluster: Cluster) -> None:
    (leader, follower), rejoining = await preparing(cluster)
    assert await leader.heartbeat() == ErrorCode.REBALANCE_IN_PROGRESS
    assert await follower.heartbeat() == ErrorCode.REBALANCE_IN_PROGRESS
    await leader.join()
    await rejoining


@on_every_cluster
async def test_heartbeat_is_welcome_before_the_sync(cluster: Cluster) -> None:
    for member in await completing(cluster):
        assert await member.heartbeat() == ErrorCode.NONE


# --- leaving


@on_every_cluster
async def test_others_hear_at_once_that_a_member_left(cluster: Cluster) -> None:
    leader, follower = await stable_group(cluster, 2)
    await follower.leave()
    assert await leader.heartbeat() == ErrorCode.REBALANCE_IN_PROGRESS
    assert await follower.heartbeat() == ErrorCode.UNKNOWN_MEMBER_ID
    joined = await leader.join()
    assert (joined.generation, joined.leads, len(joined.members)) == (3, True, 1)


@on_every_cluster
async def test_another_member_leads_when_the_leader_left(cluster: Cluster) -> None:
    leader, follower = await stable_group(cluster, 2)
    await leader.leave()
    await follower.told_to_rejoin()
    joined = await follower.join()
    assert (joined.leads, len(joined.members)) == (True, 1)


@on_every_cluster
async def test_member_may_leave_twice(cluster: Cluster) -> None:
    member = await sole_member(cluster)
    assert (await refusal(member.leave()), await refusal(member.leave())) == (ErrorCode.NONE, ErrorCode.NONE)


@on_every_cluster
async def test_member_that_left_has_to_join_as_a_new_one(cluster: Cluster) -> None:
    member = await sole_member(cluster)
    await member.leave()
    assert await refusal(member.join()) == ErrorCode.UNKNOWN_MEMBER_ID


@on_every_cluster
async def test_empty_group_counts_a_generation(cluster: Cluster) -> None:
    member = await sole_member(cluster)
    await member.leave()
    next_one = await new_member(cluster, member.group_id)
    assert (await next_one.join()).generation == 3


@on_every_cluster
async def test_member_that_leaves_while_others_join_is_not_waited_for(cluster: Cluster) -> None:
    (leader, follower), rejoining = await preparing(cluster)
    await leader.leave()
    await rejoining
    assert follower.generation == 3
    assert (await follower.port.join(follower.member_id, follower.said)).leads


@on_every_cluster
async def test_others_can_make_a_member_leave(cluster: Cluster) -> None:
    leader, follower = await stable_group(cluster, 2)
    await leader.port.leave(follower.member_id)
    assert await follower.heartbeat() == ErrorCode.UNKNOWN_MEMBER_ID


@on_every_cluster
async def test_member_whose_connection_breaks_while_it_joins_is_a_member(cluster: Cluster) -> None:
    """The broker does not hear of it; only the session ends such a membership."""
    first = await sole_member(cluster)
    second = await new_member(cluster, first.group_id)
    joining = asyncio.create_task(second.join())
    await first.told_to_rejoin()
    joining.cancel()
    await asyncio.gather(joining, return_exceptions=True)
    assert len((await first.join()).members) == 2


# --- what others see of a group


@on_every_cluster
async def test_description_of_a_group(cluster: Cluster) -> None:
    member = await sole_member(cluster)
    described = (await cluster.admin.describe_groups([member.group_id]))[member.group_id]
    [seen] = described.members
    assert (described.state, seen.member_id, seen.partitions) == ("Stable", member.member_id, (own(0),))
    assert member.group_id in await cluster.admin.list_groups()
    await member.leave()
    assert (await cluster.admin.describe_groups([member.group_id]))[member.group_id].state == "Empty"


@on_every_cluster
async def test_group_that_does_not_exist_is_dead(cluster: Cluster) -> None:
    name = cluster.name("group")
    assert (await cluster.admin.describe_groups([name]))[name].state == "Dead"
