"""How long a group waits for a member: to say that it is alive, to join again, to synchronise."""

from __future__ import annotations

import asyncio

from streamlib.errors import ErrorCode
from streamlib.runtime.ports import Assignment
from tests.ports.cluster import Cluster
from tests.ports.everywhere import on_every_cluster
from tests.ports.members import Member, ask_to_join, new_member, rejoin_all, sole_member, stable_group, sync_all
from tests.ports.raw import refusal

A_LITTLE_LATE_MS = 10_000
"""So much later may happen what happens after a while: machines that run tests are busy."""


def now_ms() -> float:
    return asyncio.get_running_loop().time() * 1000


async def told_to_rejoin_after_ms(member: Member, since_ms: float) -> float:
    await member.told_to_rejoin()
    return now_ms() - since_ms


@on_every_cluster
async def test_silent_member_is_removed_after_its_session(cluster: Cluster) -> None:
    leader, silent = await stable_group(cluster, 2, session_timeout_ms=cluster.short_ms)
    took_ms = await told_to_rejoin_after_ms(leader, now_ms())
    assert cluster.short_ms - 100 <= took_ms <= cluster.short_ms + A_LITTLE_LATE_MS
    assert await silent.heartbeat() == ErrorCode.UNKNOWN_MEMBER_ID
    assert await refusal(silent.join()) == ErrorCode.UNKNOWN_MEMBER_ID
    assert len((await leader.join()).members) == 1


@on_every_cluster
async def test_heartbeats_keep_a_member_alive(cluster: Cluster) -> None:
    member = await sole_member(cluster, session_timeout_ms=cluster.short_ms)
    for _ in range(4):
        await cluster.passes(cluster.short_ms / 2)
        assert await member.heartbeat() == ErrorCode.NONE


@on_every_cluster
async def test_last_member_is_removed_after_its_session_too(cluster: Cluster) -> None:
    member = await sole_member(cluster, session_timeout_ms=cluster.short_ms)
    while (await cluster.admin.describe_groups([member.group_id]))[member.group_id].state != "Empty":
        await cluster.passes(20)
    assert await member.heartbeat() == ErrorCode.UNKNOWN_MEMBER_ID


@on_every_cluster
async def test_member_that_does_not_rejoin_in_time_is_removed(cluster: Cluster) -> None:
    slow = await sole_member(cluster, max_poll_interval_ms=cluster.short_ms)
    quick = await new_member(cluster, slow.group_id, max_poll_interval_ms=cluster.short_ms)
    since_ms = now_ms()
    joined = await quick.join()
    assert cluster.short_ms - 100 <= now_ms() - since_ms <= cluster.short_ms + A_LITTLE_LATE_MS
    assert (joined.leads, len(joined.members), joined.generation) == (True, 1, 2)
    assert await slow.heartbeat() == ErrorCode.UNKNOWN_MEMBER_ID


@on_every_cluster
async def test_longest_rebalance_timeout_of_the_members_counts(cluster: Cluster) -> None:
    patient = await sole_member(cluster, max_poll_interval_ms=3 * cluster.short_ms)
    hasty = await new_member(cluster, patient.group_id, max_poll_interval_ms=cluster.short_ms)
    joining = asyncio.create_task(hasty.join())
    await patient.told_to_rejoin()
    await cluster.passes(2 * cluster.short_ms)
    assert not joining.done()
    await patient.join()
    await joining
    assert patient.generation == hasty.generation == 2


@on_every_cluster
async def test_member_that_does_not_synchronise_in_time_is_removed(cluster: Cluster) -> None:
    member = await new_member(cluster, cluster.name("group"), max_poll_interval_ms=cluster.short_ms)
    await member.join()
    since_ms = now_ms()
    while (code := await member.heartbeat()) == ErrorCode.NONE:
        await cluster.passes(10)
    assert code == ErrorCode.UNKNOWN_MEMBER_ID
    assert cluster.short_ms - 100 <= now_ms() - since_ms <= cluster.short_ms + A_LITTLE_LATE_MS


@on_every_cluster
async def test_session_does_not_run_while_a_join_is_held_back(cluster: Cluster) -> None:
    first = await sole_member(cluster)
    second = await new_member(cluster, first.group_id, session_timeout_ms=cluster.short_ms)
    joining = asyncio.create_task(second.join())
    await cluster.passes(2 * cluster.short_ms)
    assert not joining.done()
    joined = await first.join()
    assert {each.member_id for each in joined.members} == {first.member_id, (await joining).member_id}


@on_every_cluster
async def test_rebalance_waits_for_an_id_that_was_given_as_long_as_its_session(cluster: Cluster) -> None:
    member = await sole_member(cluster)
    given = await ask_to_join(cluster, member.group_id, session_timeout_ms=cluster.short_ms)
    since_ms = now_ms()
    joined = await member.join()
    assert cluster.short_ms - 200 <= now_ms() - since_ms <= cluster.short_ms + A_LITTLE_LATE_MS
    assert len(joined.members) == 1
    late = await ask_to_join(cluster, member.group_id, member_id=given.member_id)
    assert late.error_code == ErrorCode.UNKNOWN_MEMBER_ID


@on_every_cluster
async def test_member_that_vanished_while_it_joined_is_removed_after_its_session(cluster: Cluster) -> None:
    member = await sole_member(cluster)
    given = await ask_to_join(cluster, member.group_id, session_timeout_ms=cluster.short_ms)
    vanished = asyncio.create_task(
        ask_to_join(cluster, member.group_id, member_id=given.member_id, session_timeout_ms=cluster.short_ms)
    )
    await member.told_to_rejoin()
    vanished.cancel()
    assert len((await member.join()).members) == 2
    await member.sync({member.member_id: Assignment(())})
    took_ms = await told_to_rejoin_after_ms(member, now_ms())
    assert cluster.short_ms - 100 <= took_ms <= cluster.short_ms + A_LITTLE_LATE_MS


@on_every_cluster
async def test_static_member_keeps_its_place_for_its_session(cluster: Cluster) -> None:
    leader = await sole_member(cluster, "one", session_timeout_ms=cluster.short_ms)
    gone = await new_member(cluster, leader.group_id, "other", session_timeout_ms=cluster.short_ms)
    await sync_all([leader, gone], await rejoin_all([leader], [gone]))
    took_ms = await told_to_rejoin_after_ms(leader, now_ms())
    assert cluster.short_ms - 100 <= took_ms <= cluster.short_ms + A_LITTLE_LATE_MS
    assert await gone.heartbeat() == ErrorCode.UNKNOWN_MEMBER_ID
    assert len((await leader.join()).members) == 1
