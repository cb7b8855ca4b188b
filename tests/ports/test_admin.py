"""The admin port, and topics as such."""

from __future__ import annotations

import pytest

from streamlib.errors import ErrorCode, TopologyError
from streamlib.records import TopicPartition
from streamlib.runtime.ports import TopicSpec
from tests.ports.cluster import Cluster
from tests.ports.everywhere import on_every_cluster, only_on_brokers
from tests.ports.members import sole_member
from tests.ports.raw import REFUSED, RawProducer, refusal, settled
from tests.ports.reading import log_end, log_start, read, stable_end

TOPICS_STAY = only_on_brokers("the model's topics stay as they are: no worker changes or deletes one")

NON_EMPTY_GROUP = 68
"""Not one of our codes: no code of ours depends on it."""


@on_every_cluster
async def test_partition_counts_leave_out_what_does_not_exist(cluster: Cluster) -> None:
    one, three = await cluster.topic(), await cluster.topic(3)
    assert await cluster.admin.partition_counts([one, three, cluster.name("missing")]) == {one: 1, three: 3}


@on_every_cluster
async def test_all_topics_can_be_listed(cluster: Cluster) -> None:
    one, three = await cluster.topic(), await cluster.topic(3)
    topics = await cluster.admin.topics()
    assert (topics[one], topics[three]) == (1, 3)


@on_every_cluster
async def test_new_topic_is_empty(cluster: Cluster) -> None:
    partition = await cluster.partition()
    ends = await log_start(cluster, partition), await stable_end(cluster, partition), await log_end(cluster, partition)
    assert ends == (0, 0, 0)


@on_every_cluster
async def test_topic_cannot_be_created_twice(cluster: Cluster) -> None:
    name = await cluster.topic()
    assert await refusal(cluster.admin.create_topic(name)) == ErrorCode.TOPIC_ALREADY_EXISTS


@on_every_cluster
@only_on_brokers("the model takes every topic that workers would create")
async def test_topic_that_cannot_be_is_refused(cluster: Cluster) -> None:
    admin, name = cluster.admin, cluster.name("topic")
    assert await refusal(admin.create_topic("no blanks")) == ErrorCode.INVALID_TOPIC_EXCEPTION
    assert await refusal(admin.create_topic(name, 0)) == ErrorCode.INVALID_PARTITIONS
    assert await refusal(admin.create_topic(name, replication_factor=9)) == ErrorCode.INVALID_REPLICATION_FACTOR
    assert await refusal(admin.create_topic(name, config={"no.such.name": "1"})) == ErrorCode.INVALID_CONFIG
    assert await refusal(admin.create_topic(name, config={"retention.ms": "soon"})) == ErrorCode.INVALID_CONFIG
    assert await admin.partition_counts([name]) == {}


@on_every_cluster
async def test_topics_that_are_missing_are_created_with_their_settings(cluster: Cluster) -> None:
    there, missing = await cluster.topic(), cluster.name("topic")
    await cluster.admin.ensure_topics(
        [TopicSpec(there, 1, {}), TopicSpec(missing, 2, {"cleanup.policy": "compact", "retention.ms": "777"})]
    )
    assert await cluster.admin.partition_counts([missing]) == {missing: 2}
    assert await cluster.admin.topic_config([missing], "cleanup.policy") == {missing: "compact"}
    assert await cluster.admin.topic_config([missing], "retention.ms") == {missing: "777"}


@on_every_cluster
async def test_new_topics_can_be_written_at_once(cluster: Cluster) -> None:
    name = cluster.name("topic")
    await cluster.admin.ensure_topics([TopicSpec(name, 1, {})])
    producer = (await cluster.connect()).producer(None)
    await producer.init()
    producer.send(TopicPartition(name, 0), [(b"k", b"v", 0, ())])
    assert await producer.flush() == {TopicPartition(name, 0): 1}


@on_every_cluster
@pytest.mark.parametrize(("partitions", "policy"), [(2, "delete"), (1, "compact")])
async def test_topic_of_another_shape_does_not_fit(cluster: Cluster, partitions: int, policy: str) -> None:
    name = await cluster.topic()
    with pytest.raises(TopologyError, match=name):
        await cluster.admin.ensure_topics([TopicSpec(name, partitions, {"cleanup.policy": policy})])


@on_every_cluster
async def test_topic_with_other_settings_fits(cluster: Cluster) -> None:
    name = await cluster.topic(config={"retention.ms": "777"})
    await cluster.admin.ensure_topics([TopicSpec(name, 1, {"cleanup.policy": "delete", "retention.ms": "5"})])
    assert await cluster.admin.topic_config([name], "retention.ms") == {name: "777"}


@on_every_cluster
@TOPICS_STAY
async def test_settings_can_be_changed(cluster: Cluster) -> None:
    name = await cluster.topic(config={"max.message.bytes": "5000"})
    await cluster.admin.set_topic_config(name, {"retention.ms": "777"})
    assert await cluster.admin.topic_config([name], "retention.ms") == {name: "777"}
    assert await cluster.admin.topic_config([name], "max.message.bytes") == {name: "5000"}


@on_every_cluster
@TOPICS_STAY
async def test_topic_can_grow_and_not_shrink(cluster: Cluster) -> None:
    name = await cluster.topic(2)
    await cluster.admin.create_partitions(name, 3)
    assert await cluster.admin.partition_counts([name]) == {name: 3}
    for count in (3, 1):
        assert await refusal(cluster.admin.create_partitions(name, count)) == ErrorCode.INVALID_PARTITIONS


@on_every_cluster
@TOPICS_STAY
async def test_deleted_topic_cannot_be_written(cluster: Cluster) -> None:
    partition, producer = await cluster.partition(), await RawProducer(cluster).start()
    await producer.write(partition, "a")
    await cluster.admin.delete_topics([partition.topic, cluster.name("missing")])
    written = await producer.produce(partition, "b")
    assert written == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, REFUSED)
    assert await cluster.admin.partition_counts([partition.topic]) == {}


@on_every_cluster
@TOPICS_STAY
async def test_topic_created_anew_begins_anew(cluster: Cluster) -> None:
    partition, producer = await cluster.partition(), await RawProducer(cluster).start()
    await producer.write(partition, "a")
    await cluster.admin.delete_topics([partition.topic])
    await cluster.admin.create_topic(partition.topic)
    written = await settled(cluster, lambda: producer.produce(partition, "b"))
    assert written == (ErrorCode.NONE, 0)
    assert await read(cluster, partition) == ["b"]


@on_every_cluster
async def test_deleted_records_stay_away(cluster: Cluster) -> None:
    partition, producer = await cluster.partition(), await RawProducer(cluster).start()
    for value in ("a", "b", "c"):
        await producer.write(partition, value)
    await cluster.admin.delete_records({partition: 2})
    assert await log_start(cluster, partition) == 2
    assert await read(cluster, partition) == ["c"]


@on_every_cluster
async def test_records_that_are_not_there_cannot_be_deleted(cluster: Cluster) -> None:
    partition = await cluster.partition()
    assert await refusal(cluster.admin.delete_records({partition: 5})) == ErrorCode.OFFSET_OUT_OF_RANGE


@on_every_cluster
async def test_group_with_members_cannot_be_deleted(cluster: Cluster) -> None:
    member = await sole_member(cluster)
    assert await refusal(cluster.admin.delete_groups([member.group_id])) == NON_EMPTY_GROUP
    assert await refusal(cluster.admin.delete_groups([cluster.name("missing")])) == ErrorCode.NONE
