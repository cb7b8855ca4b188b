"""Committed offsets: plainly, and as part of a transaction that holds them back until it ends."""

from __future__ import annotations

import asyncio

import pytest

from streamlib.errors import ErrorCode
from streamlib.kafka.by_topic import answers
from streamlib.records import GroupMetadata, OffsetAndMetadata, TopicPartition
from tests.ports.cluster import Cluster
from tests.ports.everywhere import on_every_cluster, only_on_brokers
from tests.ports.members import Member, new_member, sole_member, stable_group, sync_all
from tests.ports.raw import RawProducer, ask_coordinator, new_producer, refusal, settled

NOTHING = (ErrorCode.NONE, -1, "")
PENDING = (ErrorCode.UNSTABLE_OFFSET_COMMIT, -1, "")
KAFKA_4_GROUPS = only_on_brokers("the model's groups are those of Kafka 4, and whoever is refused joins again anyway")

GROUP_ID_NOT_FOUND = 69
"""Not one of our codes: no code of ours depends on it."""

BEFORE_STABLE = 5
"""A version of OffsetFetch that cannot ask for stable offsets."""


def at(offset: int) -> tuple[int, int, str]:
    """What a fetch answers when `RawProducer` has committed this offset."""
    return ErrorCode.NONE, offset, f"at {offset}"


async def commit(member: Member, partition: TopicPartition, offset: int, who: GroupMetadata | None = None) -> int:
    """A plain commit; what the coordinator says."""
    offsets = {partition: OffsetAndMetadata(offset, f"at {offset}")}
    return await refusal(member.port.commit_offsets(who or member.who, offsets))


async def fetch(
    cluster: Cluster, group_id: str, partition: TopicPartition, *, stable: bool = True, version: int | None = None
) -> tuple[int, int, str]:
    """One OffsetFetch: the partition's code, offset and metadata."""
    topics = [{"name": partition.topic, "partition_indexes": [partition.partition]}]
    one = {"group_id": group_id, "topics": topics}
    body = {"groups": [one], "require_stable": stable} if version is None else one
    answer = await ask_coordinator(cluster.client, "group", group_id, "OffsetFetch", body, version)
    [(_, found)] = answers(answer.groups[0].topics if version is None else answer.topics)
    return found.error_code, found.committed_offset, found.metadata


async def fetch_settled(cluster: Cluster, group_id: str, partition: TopicPartition) -> tuple[int, int, str]:
    """One OffsetFetch, once nothing is pending: markers are written after EndTxn is answered."""
    while (found := await fetch(cluster, group_id, partition)) == PENDING:
        await cluster.passes(1)
    return found


# --- plain commits


@on_every_cluster
async def test_committed_offset_comes_back_with_its_metadata(cluster: Cluster) -> None:
    member, partition = await sole_member(cluster), await cluster.partition()
    offsets = {partition: OffsetAndMetadata(5, "some text")}
    await member.port.commit_offsets(member.who, offsets)
    assert await member.port.fetch_offsets([partition]) == offsets


@on_every_cluster
async def test_partition_without_a_commit_is_left_out(cluster: Cluster) -> None:
    member, topic = await sole_member(cluster), await cluster.topic(2)
    with_commit, without = TopicPartition(topic, 0), TopicPartition(topic, 1)
    await member.port.commit_offsets(member.who, {with_commit: OffsetAndMetadata(5)})
    assert (await member.port.fetch_offsets([with_commit, without])).keys() == {with_commit}


@on_every_cluster
async def test_group_that_does_not_exist_has_no_offsets(cluster: Cluster) -> None:
    assert await fetch(cluster, cluster.name("group"), await cluster.partition()) == NOTHING


@on_every_cluster
async def test_offset_may_go_back(cluster: Cluster) -> None:
    member, partition = await sole_member(cluster), await cluster.partition()
    for offset in (5, 3):
        assert await commit(member, partition, offset) == ErrorCode.NONE
    assert await fetch(cluster, member.group_id, partition) == at(3)


@on_every_cluster
async def test_offsets_outlive_the_members(cluster: Cluster) -> None:
    member, partition = await sole_member(cluster), await cluster.partition()
    await commit(member, partition, 5)
    await member.leave()
    assert await fetch(cluster, member.group_id, partition) == at(5)


@on_every_cluster
async def test_offsets_go_with_the_group(cluster: Cluster) -> None:
    member, partition = await sole_member(cluster), await cluster.partition()
    await commit(member, partition, 5)
    await member.leave()
    await cluster.admin.delete_groups([member.group_id])
    assert await fetch(cluster, member.group_id, partition) == NOTHING


@on_every_cluster
async def test_plain_commit_of_another_generation_or_member_is_refused(cluster: Cluster) -> None:
    member, partition = await sole_member(cluster), await cluster.partition()
    for generation, member_id, expected in (
        (0, member.member_id, ErrorCode.ILLEGAL_GENERATION),
        (2, member.member_id, ErrorCode.ILLEGAL_GENERATION),
        (1, "nobody", ErrorCode.UNKNOWN_MEMBER_ID),
        (-1, member.member_id, ErrorCode.ILLEGAL_GENERATION),
        (-1, "", ErrorCode.UNKNOWN_MEMBER_ID),
    ):
        who = GroupMetadata(member.group_id, generation, member_id, None)
        assert await commit(member, partition, 9, who) == expected
    assert await fetch(cluster, member.group_id, partition) == NOTHING


@on_every_cluster
async def test_anybody_may_commit_for_a_group_without_members(cluster: Cluster) -> None:
    member, partition = await sole_member(cluster), await cluster.partition()
    await member.leave()
    anybody = GroupMetadata(member.group_id, -1, "", None)
    assert await commit(member, partition, 5, anybody) == ErrorCode.NONE
    assert await commit(member, partition, 6) == ErrorCode.UNKNOWN_MEMBER_ID
    assert await fetch(cluster, member.group_id, partition) == at(5)


@on_every_cluster
@KAFKA_4_GROUPS
async def test_member_of_a_group_that_does_not_exist_cannot_commit(cluster: Cluster) -> None:
    member, partition = await new_member(cluster, cluster.name("group")), await cluster.partition()
    nobody = GroupMetadata(member.group_id, 1, "nobody", None)
    expected = {2: GROUP_ID_NOT_FOUND, 1: ErrorCode.ILLEGAL_GENERATION}
    assert await commit(member, partition, 5, nobody) == expected[cluster.transaction_version]


# --- commits in a transaction


@on_every_cluster
async def test_offset_of_a_transaction_is_pending_until_it_commits(cluster: Cluster) -> None:
    member, partition, producer = await sole_member(cluster), await cluster.partition(), await new_producer(cluster)
    assert await producer.write_offset(member.who, partition, 7) == ErrorCode.NONE
    assert await fetch(cluster, member.group_id, partition) == PENDING
    await producer.finish(commit=True)
    assert await fetch_settled(cluster, member.group_id, partition) == at(7)


@on_every_cluster
async def test_port_waits_for_the_end_of_the_transaction(cluster: Cluster) -> None:
    member, partition, producer = await sole_member(cluster), await cluster.partition(), await new_producer(cluster)
    await producer.write_offset(member.who, partition, 7)
    fetching = asyncio.create_task(member.port.fetch_offsets([partition]))
    await cluster.passes(100)
    assert not fetching.done()
    await producer.finish(commit=True)
    assert await fetching == {partition: OffsetAndMetadata(7, "at 7")}


@on_every_cluster
async def test_those_who_do_not_ask_for_stable_offsets_get_the_old_one(cluster: Cluster) -> None:
    member, partition, producer = await sole_member(cluster), await cluster.partition(), await new_producer(cluster)
    await commit(member, partition, 1)
    await producer.write_offset(member.who, partition, 7)
    assert await fetch(cluster, member.group_id, partition, stable=False) == at(1)
    assert await fetch(cluster, member.group_id, partition, version=BEFORE_STABLE) == at(1)


@on_every_cluster
async def test_only_what_the_transaction_commits_is_pending(cluster: Cluster) -> None:
    member, partition, producer = await sole_member(cluster), await cluster.partition(), await new_producer(cluster)
    other = await cluster.partition()
    await commit(member, other, 1)
    await producer.write_offset(member.who, partition, 7)
    assert await fetch(cluster, member.group_id, other) == at(1)


@on_every_cluster
async def test_aborted_offset_was_never_there(cluster: Cluster) -> None:
    member, partition, producer = await sole_member(cluster), await cluster.partition(), await new_producer(cluster)
    await commit(member, partition, 1)
    await producer.write_offset(member.who, partition, 7)
    await producer.finish(commit=False)
    assert await fetch_settled(cluster, member.group_id, partition) == at(1)


@on_every_cluster
async def test_last_offset_of_a_transaction_counts(cluster: Cluster) -> None:
    member, partition, producer = await sole_member(cluster), await cluster.partition(), await new_producer(cluster)
    for offset in (8, 7):
        await producer.write_offset(member.who, partition, offset)
    await producer.finish(commit=True)
    assert await fetch_settled(cluster, member.group_id, partition) == at(7)


@on_every_cluster
async def test_plain_commit_made_meanwhile_stays(cluster: Cluster) -> None:
    member, partition, producer = await sole_member(cluster), await cluster.partition(), await new_producer(cluster)
    await producer.write_offset(member.who, partition, 7)
    assert await commit(member, partition, 30) == ErrorCode.NONE
    assert await fetch(cluster, member.group_id, partition) == PENDING
    await producer.finish(commit=True)
    assert await fetch_settled(cluster, member.group_id, partition) == at(30)


@on_every_cluster
@pytest.mark.parametrize("first_ends_first", [True, False])
async def test_of_two_transactions_the_later_offset_counts_whichever_ends_last(
    cluster: Cluster, first_ends_first: bool
) -> None:
    member, partition = await sole_member(cluster), await cluster.partition()
    first, second = await new_producer(cluster), await new_producer(cluster)
    await first.write_offset(member.who, partition, 40)
    await second.write_offset(member.who, partition, 50)
    for producer in (first, second) if first_ends_first else (second, first):
        assert await fetch(cluster, member.group_id, partition) == PENDING
        await producer.finish(commit=True)
    assert await fetch_settled(cluster, member.group_id, partition) == at(50)


@on_every_cluster
async def test_next_producer_of_the_id_drops_what_is_pending(cluster: Cluster) -> None:
    member, partition, producer = await sole_member(cluster), await cluster.partition(), await new_producer(cluster)
    await producer.write_offset(member.who, partition, 7)
    await RawProducer(cluster, producer.transactional_id).start()
    assert await fetch_settled(cluster, member.group_id, partition) == NOTHING


@on_every_cluster
async def test_timeout_drops_what_is_pending(cluster: Cluster) -> None:
    member, partition = await sole_member(cluster), await cluster.partition()
    producer = RawProducer(cluster, cluster.name("tx"))
    assert await settled(cluster, lambda: producer.init(timeout_ms=500)) == ErrorCode.NONE
    await producer.write_offset(member.who, partition, 7)
    assert await fetch_settled(cluster, member.group_id, partition) == NOTHING


@on_every_cluster
async def test_member_that_left_meanwhile_still_commits(cluster: Cluster) -> None:
    """Whose offset it was is looked at when it comes, not when the transaction ends."""
    member, partition, producer = await sole_member(cluster), await cluster.partition(), await new_producer(cluster)
    await producer.write_offset(member.who, partition, 7)
    await member.leave()
    await producer.finish(commit=True)
    assert await fetch_settled(cluster, member.group_id, partition) == at(7)


# --- who may commit in a transaction


@on_every_cluster
async def test_transactional_commit_of_another_generation_or_member_is_refused(cluster: Cluster) -> None:
    member, partition, producer = await sole_member(cluster), await cluster.partition(), await new_producer(cluster)
    for generation, member_id, expected in (
        (0, member.member_id, ErrorCode.ILLEGAL_GENERATION),
        (2, member.member_id, ErrorCode.ILLEGAL_GENERATION),
        (1, "nobody", ErrorCode.UNKNOWN_MEMBER_ID),
        (-1, member.member_id, ErrorCode.ILLEGAL_GENERATION),
    ):
        who = GroupMetadata(member.group_id, generation, member_id, None)
        assert await producer.write_offset(who, partition, 9) == expected
    assert await fetch(cluster, member.group_id, partition) == NOTHING


@on_every_cluster
async def test_transactional_commit_without_a_generation_is_accepted_from_anybody(cluster: Cluster) -> None:
    """Why the port refuses to make one."""
    member, partition, producer = await sole_member(cluster), await cluster.partition(), await new_producer(cluster)
    anybody = GroupMetadata(member.group_id, -1, "", None)
    assert await producer.write_offset(anybody, partition, 9) == ErrorCode.NONE
    await producer.finish(commit=True)
    assert await fetch_settled(cluster, member.group_id, partition) == at(9)


@on_every_cluster
@KAFKA_4_GROUPS
async def test_transactional_commit_for_a_group_that_does_not_exist_needs_no_generation(cluster: Cluster) -> None:
    partition, producer = await cluster.partition(), await new_producer(cluster)
    name = cluster.name("group")
    nobody, anybody = GroupMetadata(name, 1, "nobody", None), GroupMetadata(name, -1, "", None)
    expected = {2: ErrorCode.ILLEGAL_GENERATION, 1: ErrorCode.UNKNOWN_MEMBER_ID}
    assert await producer.write_offset(nobody, partition, 9) == expected[cluster.transaction_version]
    assert await producer.write_offset(anybody, partition, 9) == ErrorCode.NONE


@on_every_cluster
async def test_refused_offset_can_be_committed_by_another_generation(cluster: Cluster) -> None:
    member, partition, producer = await sole_member(cluster), await cluster.partition(), await new_producer(cluster)
    outdated = GroupMetadata(member.group_id, 0, member.member_id, None)
    assert await producer.write_offset(outdated, partition, 7) == ErrorCode.ILLEGAL_GENERATION
    assert await producer.write_offset(member.who, partition, 7) == ErrorCode.NONE
    await producer.finish(commit=True)
    assert await fetch_settled(cluster, member.group_id, partition) == at(7)


@on_every_cluster
async def test_transaction_with_a_refused_offset_can_be_aborted(cluster: Cluster) -> None:
    member, partition, producer = await sole_member(cluster), await cluster.partition(), await new_producer(cluster)
    outdated = GroupMetadata(member.group_id, 0, member.member_id, None)
    assert await producer.write_offset(outdated, partition, 7) == ErrorCode.ILLEGAL_GENERATION
    await producer.finish(commit=False)
    assert producer.epoch == {2: 1, 1: 0}[cluster.transaction_version]


@on_every_cluster
async def test_older_commit_needs_its_group_added(cluster: Cluster) -> None:
    member, partition, producer = await sole_member(cluster), await cluster.partition(), await new_producer(cluster)
    code = await settled(cluster, lambda: producer.commit_offset(member.who, partition, 7, version=4))
    assert code == ErrorCode.TRANSACTION_ABORTABLE
    assert await fetch(cluster, member.group_id, partition) == NOTHING


@on_every_cluster
@only_on_brokers("the model's groups know nothing of topics")
async def test_offsets_of_a_topic_that_does_not_exist_are_refused(cluster: Cluster) -> None:
    member, producer = await sole_member(cluster), await new_producer(cluster)
    missing = TopicPartition(cluster.name("missing"), 0)
    if cluster.transaction_version < 2:
        assert await settled(cluster, lambda: producer.add_group(member.group_id)) == ErrorCode.NONE
    code = await producer.commit_offset(member.who, missing, 1)
    assert code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


# --- while the group rebalances


@on_every_cluster
async def test_members_may_commit_until_they_have_joined_again(cluster: Cluster) -> None:
    leader, follower = await stable_group(cluster, 2)
    partition, producer = await cluster.partition(), await new_producer(cluster)
    joining = asyncio.create_task(follower.join(data=b"something new"))
    await leader.told_to_rejoin()
    for member in (leader, follower):
        assert await commit(member, partition, 1) == ErrorCode.NONE
        assert await producer.write_offset(member.who, partition, 2) == ErrorCode.NONE
    await leader.join()
    await joining


@on_every_cluster
async def test_between_join_and_sync_only_transactional_commits_are_accepted(cluster: Cluster) -> None:
    members = await stable_group(cluster, 2)
    leader, follower = members
    partition, producer = await cluster.partition(), await new_producer(cluster)
    before = leader.who
    joining = asyncio.create_task(follower.join(data=b"something new"))
    await leader.told_to_rejoin()
    joined = [await leader.join(), await joining]
    for member in members:
        assert await commit(member, partition, 1) == ErrorCode.REBALANCE_IN_PROGRESS
        assert await producer.write_offset(member.who, partition, 2) == ErrorCode.NONE
    assert await commit(leader, partition, 1, before) == ErrorCode.ILLEGAL_GENERATION
    assert await producer.write_offset(before, partition, 1) == ErrorCode.ILLEGAL_GENERATION
    await sync_all(members, joined)
    for member in members:
        assert await commit(member, partition, 3) == ErrorCode.NONE


@on_every_cluster
async def test_member_that_left_cannot_commit(cluster: Cluster) -> None:
    _, gone = await stable_group(cluster, 2)
    partition, producer = await cluster.partition(), await new_producer(cluster)
    await gone.leave()
    assert await commit(gone, partition, 1) == ErrorCode.UNKNOWN_MEMBER_ID
    assert await producer.write_offset(gone.who, partition, 1) == ErrorCode.UNKNOWN_MEMBER_ID
