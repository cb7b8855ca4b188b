"""Topics, offsets and groups of a real cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from streamlib.errors import ErrorCode, KafkaError, TopologyError
from streamlib.kafka.admin import KafkaAdmin
from streamlib.kafka.client import KafkaClient
from streamlib.kafka.group import KafkaGroup
from streamlib.kafka.producer import KafkaProducer
from streamlib.records import GroupMetadata, OffsetAndMetadata, TopicPartition
from streamlib.runtime.ports import Assignment, Subscription, TopicSpec

UniqueName = Callable[[str], str]


@pytest.fixture
async def rival(client: KafkaClient) -> AsyncIterator[KafkaAdmin]:
    """Another worker's admin, with connections of its own."""
    other = await KafkaClient.connect(client.settings)
    yield KafkaAdmin(other)
    await other.close()


def changelog(name: str, partitions: int = 2, policy: str = "compact") -> TopicSpec:
    return TopicSpec(name, partitions, {"cleanup.policy": policy})


async def test_missing_topics_are_created_as_asked(
    admin: KafkaAdmin, client: KafkaClient, unique_name: UniqueName
) -> None:
    changes, repartition = unique_name("changes"), unique_name("repartition")
    await admin.ensure_topics([changelog(changes), TopicSpec(repartition, 3, {"cleanup.policy": "delete"})])
    assert await admin.partition_counts([changes, repartition]) == {changes: 2, repartition: 3}
    assert await admin.topic_config([changes, repartition], "cleanup.policy") == {
        changes: "compact",
        repartition: "delete",
    }
    assert all(client.leader(TopicPartition(repartition, p)) is not None for p in range(3))


async def test_two_workers_may_create_the_same_topics_at_once(
    admin: KafkaAdmin, rival: KafkaAdmin, unique_name: UniqueName
) -> None:
    specs = [changelog(unique_name("changes")) for _ in range(3)]
    await asyncio.gather(admin.ensure_topics(specs), rival.ensure_topics(specs))
    counts = {spec.name: 2 for spec in specs}
    assert await admin.partition_counts(counts) == await rival.partition_counts(counts) == counts
    await admin.ensure_topics(specs)


async def test_topic_that_a_rival_created_otherwise_is_found_out(
    admin: KafkaAdmin, rival: KafkaAdmin, unique_name: UniqueName, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = unique_name("changes")
    create = admin._create

    async def too_late(specs: list[TopicSpec], replicas: int | None) -> list[object]:
        await rival.ensure_topics([changelog(name, partitions=1)])
        return await create(specs, replicas)

    monkeypatch.setattr(admin, "_create", too_late)
    with pytest.raises(TopologyError, match=rf"{name} has 1 partitions, 2 are needed"):
        await admin.ensure_topics([changelog(name, partitions=2)])


async def test_topics_that_do_not_fit_are_all_named_with_what_is_wanted(
    admin: KafkaAdmin, unique_name: UniqueName
) -> None:
    one, two = unique_name("one"), unique_name("two")
    await admin.create_topic(one, 3, {"cleanup.policy": "compact"})
    await admin.create_topic(two, 2, {"cleanup.policy": "delete"})
    with pytest.raises(TopologyError) as wrong:
        await admin.ensure_topics([changelog(one), changelog(two)])
    assert f"{one} has 3 partitions, 2 are needed" in str(wrong.value)
    assert f"{two} has cleanup.policy=delete, compact is needed" in str(wrong.value)


async def test_policies_are_compared_as_sets(admin: KafkaAdmin, unique_name: UniqueName) -> None:
    name = unique_name("windows")
    await admin.create_topic(name, 2, {"cleanup.policy": "delete,compact"})
    await admin.ensure_topics([changelog(name, policy="compact,delete")])


async def test_existing_topic_is_refused_by_name(admin: KafkaAdmin, unique_name: UniqueName) -> None:
    name = unique_name("orders")
    await admin.create_topic(name)
    with pytest.raises(KafkaError, match=name) as refused:
        await admin.create_topic(name)
    assert refused.value.code == ErrorCode.TOPIC_ALREADY_EXISTS


async def test_too_many_replicas_are_refused_with_what_to_do(admin: KafkaAdmin, unique_name: UniqueName) -> None:
    with pytest.raises(KafkaError, match="fewer brokers than replicas"):
        await admin.create_topic(unique_name("orders"), replication_factor=99)


async def test_partitions_can_be_added_and_settings_changed(admin: KafkaAdmin, unique_name: UniqueName) -> None:
    name = unique_name("orders")
    await admin.create_topic(name)
    await admin.create_partitions(name, 4)
    assert await admin.partition_counts([name]) == {name: 4}
    await admin.set_topic_config(name, {"retention.ms": "1234"})
    assert await admin.topic_config([name], "retention.ms") == {name: "1234"}


async def test_deleted_topics_are_gone_and_may_be_deleted_twice(admin: KafkaAdmin, unique_name: UniqueName) -> None:
    name = unique_name("orders")
    await admin.create_topic(name)
    await admin.delete_topics([name])
    await admin.delete_topics([name])
    assert await admin.partition_counts([name]) == {}


async def test_offsets_of_an_empty_partition(admin: KafkaAdmin, unique_name: UniqueName) -> None:
    name = unique_name("orders")
    await admin.create_topic(name, 2)
    partitions = [TopicPartition(name, 0), TopicPartition(name, 1)]
    assert await admin.list_offsets(partitions, "earliest") == dict.fromkeys(partitions, 0)
    assert await admin.list_offsets(partitions, "latest") == dict.fromkeys(partitions, 0)
    assert await admin.list_offsets(partitions, "latest_stable") == dict.fromkeys(partitions, 0)
    assert await admin.list_offsets([], "latest") == {}


async def test_deleted_records_move_the_log_start(
    admin: KafkaAdmin, client: KafkaClient, unique_name: UniqueName
) -> None:
    name = unique_name("orders")
    await admin.create_topic(name)
    partition = TopicPartition(name, 0)
    await write(client, partition, 5)
    assert await admin.list_offsets([partition], "latest") == {partition: 5}
    await admin.delete_records({partition: 3})
    assert await admin.list_offsets([partition], "earliest") == {partition: 3}
    with pytest.raises(KafkaError, match=str(partition)) as refused:
        await admin.delete_records({partition: 99})
    assert refused.value.code == ErrorCode.OFFSET_OUT_OF_RANGE


async def test_group_is_described_with_its_members(
    admin: KafkaAdmin, client: KafkaClient, unique_name: UniqueName
) -> None:
    group_id = unique_name("group")
    assert (await admin.describe_groups([group_id]))[group_id].state == "Dead"
    group = KafkaGroup(
        client,
        group_id,
        instance_id="worker-1",
        session_timeout_ms=10_000,
        rebalance_timeout_ms=10_000,
        protocol="test",
    )
    joined = await group.join("", Subscription(("orders",)))
    mine = Assignment((TopicPartition("orders", 1),), b"data")
    await group.sync(joined.generation, joined.member_id, {joined.member_id: mine})

    described = (await admin.describe_groups([group_id]))[group_id]
    assert (described.state, described.protocol) == ("Stable", "test")
    (member,) = described.members
    assert (member.member_id, member.instance_id) == (joined.member_id, "worker-1")
    assert (member.partitions, member.user_data) == (mine.partitions, mine.user_data)
    assert group_id in await admin.list_groups()

    await group.leave(joined.member_id)
    await admin.delete_groups([group_id])
    await admin.delete_groups([group_id])
    assert group_id not in await admin.list_groups()


async def test_all_offsets_of_a_group_are_told_without_naming_partitions(
    admin: KafkaAdmin, client: KafkaClient, unique_name: UniqueName
) -> None:
    group_id, topic = unique_name("group"), unique_name("orders")
    await admin.create_topic(topic, 2)
    assert await admin.committed_offsets(group_id) == {}
    group = KafkaGroup(
        client, group_id, instance_id=None, session_timeout_ms=10_000, rebalance_timeout_ms=10_000, protocol="test"
    )
    committed = {TopicPartition(topic, 1): OffsetAndMetadata(7, "text")}
    await group.commit_offsets(GroupMetadata(group_id, -1, "", None), committed)
    assert await admin.committed_offsets(group_id) == committed


async def test_offset_of_a_time_is_that_of_the_first_record_from_then_on(
    admin: KafkaAdmin, client: KafkaClient, unique_name: UniqueName
) -> None:
    topic = unique_name("orders")
    await admin.create_topic(topic, 2, {"retention.ms": "-1"})
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    producer = KafkaProducer(client, None)
    await producer.init()
    producer.send(first, [(b"key", b"value", time_ms, ()) for time_ms in (1_000, 3_000, 5_000)])
    await producer.flush()
    await producer.close()
    assert await admin.offsets_at_time([first, second], 1_001) == {first: 1, second: None}
    assert await admin.offsets_at_time([first], 5_001) == {first: None}


async def write(client: KafkaClient, partition: TopicPartition, records: int) -> None:
    """Produce some records without any producer."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    for index in range(records):
        builder.append(index, None, b"key", b"value", [])
    data = {"index": partition.partition, "records": bytes(builder.build())}
    topics = [{"name": partition.topic, "partition_data": [data]}]
    body = {"acks": -1, "timeout_ms": 5_000, "topic_data": topics}
    response = await client.call("Produce", body, node=client.leader(partition))
    assert response.responses[0].partition_responses[0].error_code == 0
