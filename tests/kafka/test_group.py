"""Membership and committed offsets against a real coordinator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from streamlib.errors import ConnectionFailedError, ErrorCode, KafkaError
from streamlib.kafka.admin import KafkaAdmin
from streamlib.kafka.client import KafkaClient
from streamlib.kafka.group import KafkaGroup
from streamlib.kafka.group_description import GroupDescription
from streamlib.records import GroupMetadata, OffsetAndMetadata, TopicPartition
from streamlib.runtime.ports import Assignment, JoinResult, Subscription

UniqueName = Callable[[str], str]
NewMember = Callable[..., Awaitable[KafkaGroup]]


@pytest.fixture
async def new_member(client: KafkaClient, unique_name: UniqueName) -> AsyncIterator[NewMember]:
    """Makes members of one group, each with connections of its own, as processes have."""
    group_id = unique_name("group")
    clients: list[KafkaClient] = []

    async def make(instance_id: str | None = None) -> KafkaGroup:
        clients.append(await KafkaClient.connect(client.settings))
        return KafkaGroup(
            clients[-1],
            group_id,
            instance_id=instance_id,
            session_timeout_ms=10_000,
            rebalance_timeout_ms=20_000,
            protocol="test",
        )

    yield make
    for each in clients:
        await each.close()


def subscription(topic: str = "orders", *, data: bytes = b"") -> Subscription:
    return Subscription((topic,), (TopicPartition(topic, 1),), 7, data)


async def join_alone(member: KafkaGroup) -> JoinResult:
    joined = await member.join("", subscription())
    assigned = Assignment((TopicPartition("orders", 0),), b"mine")
    assert await member.sync(joined.generation, joined.member_id, {joined.member_id: assigned}) == assigned
    return joined


async def join_both(first: KafkaGroup, second: KafkaGroup, known: str) -> tuple[JoinResult, JoinResult]:
    """The first is a member already, with the id `known`; the second is new."""
    joining = asyncio.create_task(second.join("", subscription(data=b"second")))
    await heartbeat_until_rebalance(first, known)
    again = await first.join(known, subscription(data=b"first"))
    return again, await joining


async def sync_both(first: KafkaGroup, second: KafkaGroup, one: JoinResult, two: JoinResult) -> None:
    """The first leads, and assigns nothing to anybody."""
    follower = asyncio.create_task(second.sync(two.generation, two.member_id, {}))
    await first.sync(one.generation, one.member_id, {m.member_id: Assignment(()) for m in one.members})
    await follower


async def heartbeat_until_rebalance(member: KafkaGroup, member_id: str, generation: int = 1) -> None:
    async with asyncio.timeout(10):
        while True:
            if await refusal(member.heartbeat(generation, member_id)) == ErrorCode.REBALANCE_IN_PROGRESS:
                return


async def refusal(request: Awaitable[object]) -> int:
    """The code that a request is refused with, 0 if it is not."""
    try:
        await request
    except KafkaError as error:
        return error.code
    return ErrorCode.NONE


async def test_only_member_leads_and_gets_what_it_assigned(new_member: NewMember) -> None:
    member = await new_member()
    joined = await join_alone(member)
    assert joined.leads
    assert [(m.member_id, m.subscription) for m in joined.members] == [(joined.member_id, subscription())]
    await member.heartbeat(joined.generation, joined.member_id)


async def test_leader_sees_what_both_members_said_and_assigns_to_both(new_member: NewMember) -> None:
    first, second = await new_member(), await new_member()
    alone = await join_alone(first)
    one, two = await join_both(first, second, alone.member_id)

    assert one.generation == two.generation == alone.generation + 1
    assert one.leads
    assert not two.leads
    assert not two.members
    assert {m.subscription.user_data for m in one.members} == {b"first", b"second"}

    for_one, for_two = Assignment((TopicPartition("orders", 0),)), Assignment((TopicPartition("orders", 1),), b"x")
    follower = asyncio.create_task(second.sync(two.generation, two.member_id, {}))
    decided = {one.member_id: for_one, two.member_id: for_two}
    assert await first.sync(one.generation, one.member_id, decided) == for_one
    assert await follower == for_two


async def test_heartbeats_and_offsets_do_not_wait_behind_a_pending_join(
    new_member: NewMember, unique_name: UniqueName
) -> None:
    first, second = await new_member(), await new_member()
    alone = await join_alone(first)
    one, two = await join_both(first, second, alone.member_id)
    await sync_both(first, second, one, two)
    pending = asyncio.create_task(second.join(two.member_id, subscription(data=b"something new")))
    await heartbeat_until_rebalance(first, alone.member_id, two.generation)
    async with asyncio.timeout(2):
        beat = await refusal(second.heartbeat(two.generation, two.member_id))
        assert beat == ErrorCode.REBALANCE_IN_PROGRESS
        assert await second.fetch_offsets([TopicPartition(unique_name("none"), 0)]) == {}
    assert not pending.done()
    pending.cancel()


async def test_cancelled_join_does_not_block_the_next_one(new_member: NewMember, admin: KafkaAdmin) -> None:
    first, second = await new_member(), await new_member()
    alone = await join_alone(first)
    pending = asyncio.create_task(second.join("", subscription()))
    await heartbeat_until_rebalance(first, alone.member_id)
    pending.cancel()
    await asyncio.gather(pending, return_exceptions=True)

    # The broker hears of it although the first attempt is still held back: it counts a third member.
    joining = asyncio.create_task(second.join("", subscription()))
    async with asyncio.timeout(5):
        while len((await describe(admin, second)).members) < 3:
            await asyncio.sleep(0)
    again = await first.join(alone.member_id, subscription())
    assert (await joining).generation == again.generation


async def describe(admin: KafkaAdmin, member: KafkaGroup) -> GroupDescription:
    group_id = member._group_id
    return (await admin.describe_groups([group_id]))[group_id]


async def test_member_that_left_is_unknown(new_member: NewMember) -> None:
    member = await new_member()
    joined = await join_alone(member)
    await member.leave(joined.member_id)
    await member.leave(joined.member_id)
    with pytest.raises(KafkaError) as refused:
        await member.heartbeat(joined.generation, joined.member_id)
    assert refused.value.code == ErrorCode.UNKNOWN_MEMBER_ID


async def test_static_member_comes_back_without_a_new_generation(new_member: NewMember) -> None:
    before = await new_member("worker-1")
    joined = await join_alone(before)
    after = await new_member("worker-1")
    back = await after.join("", subscription())
    assert back.generation == joined.generation
    assert back.member_id != joined.member_id
    assert not back.leads
    assignment = await after.sync(back.generation, back.member_id, {})
    assert assignment == Assignment((TopicPartition("orders", 0),), b"mine")

    with pytest.raises(KafkaError) as refused:
        await before.heartbeat(joined.generation, joined.member_id)
    assert refused.value.code == ErrorCode.FENCED_INSTANCE_ID


async def test_old_generation_is_refused(new_member: NewMember) -> None:
    member = await new_member()
    joined = await join_alone(member)
    with pytest.raises(KafkaError) as refused:
        await member.heartbeat(joined.generation + 1, joined.member_id)
    assert refused.value.code == ErrorCode.ILLEGAL_GENERATION


def watch(member: KafkaGroup, monkeypatch: pytest.MonkeyPatch, *refusals: int) -> list[str]:
    """The requests the member makes from now on; its first heartbeats are refused with these codes."""
    ask = member._client.call
    asked: list[str] = []
    left = list(refusals)

    async def call(api: str, *args: Any, **options: Any) -> Any:
        asked.append(api)
        if api == "Heartbeat" and left:
            raise KafkaError(left.pop(0), api)
        return await ask(api, *args, **options)

    monkeypatch.setattr(member._client, "call", call)
    return asked


async def test_coordinator_that_moved_is_looked_up_again(
    new_member: NewMember, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = await new_member()
    joined = await join_alone(member)
    asked = watch(member, monkeypatch, ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
    await member.heartbeat(joined.generation, joined.member_id)
    assert asked == ["Heartbeat", "FindCoordinator", "Heartbeat", "Heartbeat"]


async def test_heartbeat_that_nobody_answers_is_sent_again_before_the_session_ends(
    client: KafkaClient, unique_name: UniqueName, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = KafkaGroup(
        client,
        unique_name("group"),
        instance_id=None,
        session_timeout_ms=1500,
        rebalance_timeout_ms=20_000,
        protocol="test",
    )
    joined = await join_alone(member)
    ask, lost = client.call, 1

    async def call(api: str, *args: Any, **options: Any) -> Any:
        nonlocal lost
        if api == "Heartbeat" and lost:
            lost -= 1
            await asyncio.sleep(options["timeout_ms"] / 1000)
            raise ConnectionFailedError(api)
        return await ask(api, *args, **options)

    monkeypatch.setattr(client, "call", call)
    await member.heartbeat(joined.generation, joined.member_id)


async def test_committed_offsets_come_back_with_their_metadata(
    new_member: NewMember, admin: KafkaAdmin, unique_name: UniqueName
) -> None:
    topic = unique_name("orders")
    await admin.create_topic(topic, partitions=3)
    member = await new_member()
    joined = await join_alone(member)
    who = GroupMetadata(member._group_id, joined.generation, joined.member_id, None)
    offsets = {
        TopicPartition(topic, 0): OffsetAndMetadata(0),
        TopicPartition(topic, 2): OffsetAndMetadata(5, "time=7"),
    }
    await member.commit_offsets(who, offsets)
    assert await member.fetch_offsets([TopicPartition(topic, p) for p in range(3)]) == offsets

    with pytest.raises(KafkaError) as refused:
        await member.commit_offsets(who._replace(generation=joined.generation + 1), offsets)
    assert refused.value.code == ErrorCode.ILLEGAL_GENERATION
    assert topic in str(refused.value)


async def test_pending_transaction_holds_back_its_offsets(
    new_member: NewMember,
    admin: KafkaAdmin,
    client: KafkaClient,
    unique_name: UniqueName,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topic = unique_name("orders")
    await admin.create_topic(topic)
    member = await new_member()
    joined = await join_alone(member)
    partition = TopicPartition(topic, 0)
    end = await open_offsets_transaction(client, unique_name("tx"), member._group_id, joined, partition)

    asked = watch(member, monkeypatch)
    waiting = asyncio.create_task(member.fetch_offsets([partition]))
    async with asyncio.timeout(5):
        while asked.count("OffsetFetch") < 4:
            await asyncio.sleep(0)
    assert not waiting.done()
    await end()
    assert await asyncio.wait_for(waiting, 5) == {partition: OffsetAndMetadata(42)}


async def open_offsets_transaction(
    client: KafkaClient, transactional_id: str, group_id: str, joined: JoinResult, partition: TopicPartition
) -> Callable[[], Awaitable[None]]:
    """Commit offset 42 inside a transaction of the old kind; returns what ends it."""
    node = await client.retrying(lambda: client.coordinator(transactional_id, "transaction"))
    body = {"transactional_id": transactional_id, "transaction_timeout_ms": 20_000}
    producer = await ask(client, "InitProducerId", body, node)
    who = {"producer_id": producer.producer_id, "producer_epoch": producer.producer_epoch}
    ids = {"transactional_id": transactional_id, "group_id": group_id} | who
    await ask(client, "AddOffsetsToTxn", ids, node)
    group_node = await client.retrying(lambda: client.coordinator(group_id, "group"))
    offset = {"partition_index": partition.partition, "committed_offset": 42, "committed_metadata": ""}
    topics = [{"name": partition.topic, "partitions": [offset]}]
    live = {"generation_id": joined.generation, "member_id": joined.member_id, "topics": topics}
    await ask(client, "TxnOffsetCommit", ids | live, group_node, max_version=4)

    async def end() -> None:
        await ask(
            client, "EndTxn", {"transactional_id": transactional_id, "committed": True} | who, node, max_version=4
        )

    return end


async def ask(client: KafkaClient, api: str, body: dict[str, Any], node: int, max_version: int | None = None) -> Any:
    async def once() -> Any:
        response = await client.call(api, body, node=node, max_version=max_version)
        if code := getattr(response, "error_code", 0):
            raise KafkaError(code, api)
        return response

    return await client.retrying(once)
