"""Finding one's way: which topics there are, who leads, who coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from streamlib.errors import ErrorCode
from streamlib.records import TopicPartition
from tests.ports.cluster import Cluster
from tests.ports.everywhere import on_every_cluster


async def metadata(cluster: Cluster, topics: Sequence[str] | None) -> dict[str, Any]:
    """One Metadata request: the answer about each topic."""
    named = None if topics is None else [{"name": topic} for topic in topics]
    answer = await cluster.client.call("Metadata", {"topics": named, "allow_auto_topic_creation": False})
    return {topic.name: topic for topic in answer.topics}


@on_every_cluster
async def test_each_partition_of_a_new_topic_has_a_leader(cluster: Cluster) -> None:
    name = await cluster.topic(3)
    found = (await metadata(cluster, [name]))[name]
    assert found.error_code == ErrorCode.NONE
    assert sorted(partition.partition_index for partition in found.partitions) == [0, 1, 2]
    assert {partition.leader_id for partition in found.partitions} <= cluster.client.brokers.keys()


@on_every_cluster
async def test_topics_that_are_not_there_say_so(cluster: Cluster) -> None:
    there, missing = await cluster.topic(), cluster.name("missing")
    answer = await metadata(cluster, [there, missing])
    codes = {name: topic.error_code for name, topic in answer.items()}
    assert codes == {there: ErrorCode.NONE, missing: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION}


@on_every_cluster
async def test_no_names_are_no_topics_and_none_is_all_topics(cluster: Cluster) -> None:
    name = await cluster.topic()
    assert await metadata(cluster, []) == {}
    assert name in await metadata(cluster, None)


@on_every_cluster
@pytest.mark.parametrize("kind", ["group", "transaction"])
async def test_coordinator_is_one_of_the_brokers_and_stays(cluster: Cluster, kind: Any) -> None:
    client, name = cluster.client, cluster.name("any")
    first = await client.retrying(lambda: client.coordinator(name, kind))
    assert first in client.brokers
    client.forget_coordinator(name, kind)
    assert await client.retrying(lambda: client.coordinator(name, kind)) == first


@on_every_cluster
async def test_cluster_has_a_controller(cluster: Cluster) -> None:
    assert cluster.client.controller in cluster.client.brokers


@on_every_cluster
async def test_partitions_are_led_for_all_clients_alike(cluster: Cluster) -> None:
    name = await cluster.topic(3)
    partitions = [TopicPartition(name, number) for number in range(3)]
    other = (await cluster.connect()).client
    for client in (cluster.client, other):
        await client.refresh_metadata([name])
    assert [cluster.client.leader(each) for each in partitions] == [other.leader(each) for each in partitions]
