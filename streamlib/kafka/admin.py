"""Topics, offsets and groups of the cluster.

`KafkaAdmin` implements what the runtime asks for (`streamlib.runtime.ports.Admin`); the other helpers serve
the command line, the demo and tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Literal

from streamlib.errors import ErrorCode, KafkaError, TopologyError
from streamlib.kafka.by_topic import answers, nested
from streamlib.kafka.client import KafkaClient, Response
from streamlib.kafka.errors import check_code, error_row
from streamlib.kafka.group_description import GroupDescription, committed_once, describe_once
from streamlib.kafka.leaders import by_leader
from streamlib.records import OffsetAndMetadata, TopicPartition
from streamlib.runtime.ports import TopicSpec

OffsetsAt = Literal["earliest", "latest", "latest_stable"]

BROKER_DEFAULT_REPLICATION = -1
"""As many replicas as the broker's `default.replication.factor` says (KIP-464)."""

_LANE = "admin"
_GROUP_ID_NOT_FOUND = 69
_TOPIC_RESOURCE = 2
_TIMESTAMPS: Mapping[OffsetsAt, int] = {"earliest": -2, "latest": -1, "latest_stable": -1}
_ISOLATION: Mapping[OffsetsAt, int] = {"earliest": 0, "latest": 0, "latest_stable": 1}
_CLEANUP_POLICY = "cleanup.policy"


class KafkaAdmin:
    """Implements `streamlib.runtime.ports.Admin`."""

    def __init__(self, client: KafkaClient, *, replication_factor: int = BROKER_DEFAULT_REPLICATION) -> None:
        self._client = client
        self._replication_factor = replication_factor

    # What the runtime asks for

    async def partition_counts(self, topics: Iterable[str]) -> dict[str, int]:
        """The number of partitions of each topic that exists; topics that do not exist are left out."""
        return await self._client.partition_counts(topics)

    async def topics(self) -> dict[str, int]:
        """The number of partitions of every topic that may be seen."""
        return await self._client.topics()

    async def ensure_topics(self, topics: Iterable[TopicSpec]) -> None:
        """Create those that are missing, check those that exist, and wait until all have leaders.

        Raises:
            TopologyError: one exists with another partition count or cleanup policy.
        """
        wanted = {spec.name: spec for spec in topics}
        existing = await self._client.partition_counts(wanted)
        missing = [spec for name, spec in wanted.items() if name not in existing]
        ours = await self._create_missing(missing)
        # Those that another worker created at the same moment are checked like those that were there before.
        await self._check([spec for name, spec in wanted.items() if name not in ours])
        await self._wait_for_leaders({spec.name: spec.partitions for spec in missing})

    async def list_offsets(self, partitions: Iterable[TopicPartition], at: OffsetsAt) -> dict[TopicPartition, int]:
        """Log start, log end (high watermark), or last stable offset of each partition."""
        return await self._list_offsets(partitions, _TIMESTAMPS[at], _ISOLATION[at])

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Let the broker drop records before the offsets."""
        left = dict(before)
        await self._client.retrying(lambda: self._delete_records_once(left))

    async def close(self) -> None:
        """Drop the connections."""
        self._client.disconnect(_LANE)

    # Helpers for the command line, the demo and tests

    async def create_topic(
        self,
        name: str,
        partitions: int = 1,
        config: Mapping[str, str] | None = None,
        *,
        replication_factor: int | None = None,
    ) -> None:
        """Create a topic and wait until its leaders are known.

        Raises:
            KafkaError: TOPIC_ALREADY_EXISTS and all other refusals.
        """
        spec = TopicSpec(name, partitions, dict(config or {}))
        for topic in await self._create([spec], replication_factor):
            check_code(topic.error_code, "CreateTopics", name, topic.error_message)
        await self._wait_for_leaders({name: partitions})

    async def delete_topics(self, names: Iterable[str]) -> None:
        """Delete topics; those that do not exist are passed over."""
        wanted = sorted(set(names))
        await self._client.retrying(lambda: self._delete_topics_once(wanted))

    async def create_partitions(self, name: str, count: int) -> None:
        """Give the topic `count` partitions in all, and wait until they have leaders."""
        await self._client.retrying(lambda: self._create_partitions_once(name, count))
        await self._wait_for_leaders({name: count})

    async def offsets_at_time(
        self, partitions: Iterable[TopicPartition], timestamp_ms: int
    ) -> dict[TopicPartition, int | None]:
        """The first offset of a record with this timestamp or a later one; None where there is no such record."""
        found = await self._list_offsets(partitions, timestamp_ms, _ISOLATION["latest"])
        return {partition: None if offset < 0 else offset for partition, offset in found.items()}

    async def topic_config(self, names: Iterable[str], key: str) -> dict[str, str | None]:
        """One setting of each topic, with the broker's default where the topic has none."""
        wanted = sorted(set(names))
        return await self._client.retrying(lambda: self._topic_config_once(wanted, key)) if wanted else {}

    async def set_topic_config(self, name: str, config: Mapping[str, str]) -> None:
        """Set some settings of a topic, leave the others as they are, and wait until every broker knows of it."""
        await self._client.retrying(lambda: self._set_topic_config_once(name, config))
        for node in self._client.brokers:
            await self._client.retrying(partial(self._look_for_topic_config, name, config, node))

    async def describe_groups(self, group_ids: Iterable[str]) -> dict[str, GroupDescription]:
        """Members and assignments of groups; one that does not exist is "Dead" and empty."""
        return {
            group_id: await self._client.retrying(partial(describe_once, self._client, group_id))
            for group_id in group_ids
        }

    async def committed_offsets(self, group_id: str) -> dict[TopicPartition, OffsetAndMetadata]:
        """All that a group has committed; what a transaction is about to commit does not count."""
        return await self._client.retrying(partial(committed_once, self._client, group_id))

    async def list_groups(self) -> list[str]:
        """All groups of the cluster."""
        found: set[str] = set()
        for node in self._client.brokers:
            found.update(await self._client.retrying(partial(self._list_groups_once, node)))
        return sorted(found)

    async def delete_groups(self, group_ids: Iterable[str]) -> None:
        """Delete groups without members, and their offsets; those that do not exist are passed over."""
        for group_id in group_ids:
            await self._client.retrying(partial(self._delete_group_once, group_id))

    # Creating

    async def _create_missing(self, specs: list[TopicSpec]) -> frozenset[str]:
        """Create the topics; returns those that we created and nobody else."""
        if not specs:
            return frozenset()
        created = set()
        for topic in await self._create(specs, None):
            if topic.error_code == ErrorCode.TOPIC_ALREADY_EXISTS:
                continue
            check_code(topic.error_code, "CreateTopics", topic.name, topic.error_message)
            created.add(topic.name)
        return frozenset(created)

    async def _create(self, specs: list[TopicSpec], replication_factor: int | None) -> list[Any]:
        replicas = self._replication_factor if replication_factor is None else replication_factor
        topics = [_new_topic(spec, replicas) for spec in specs]
        body = {"topics": topics, "timeout_ms": self._client.settings.request_timeout_ms}
        return await self._client.retrying(lambda: self._create_once(body))

    async def _create_once(self, body: Mapping[str, Any]) -> list[Any]:
        response = await self._to_controller("CreateTopics", body)
        for topic in response.topics:
            if error_row(topic.error_code).retriable:
                check_code(topic.error_code, "CreateTopics", topic.name, topic.error_message)
        topics: list[Any] = response.topics
        return topics

    async def _wait_for_leaders(self, counts: Mapping[str, int]) -> None:
        """A new topic is known to the brokers a moment after it was created."""
        partitions = [TopicPartition(topic, index) for topic, count in counts.items() for index in range(count)]

        async def look() -> None:
            await self._client.refresh_metadata(counts)
            for partition in partitions:
                if self._client.leader(partition) is None:
                    self._client.check_topic(partition.topic)
                    raise KafkaError(ErrorCode.LEADER_NOT_AVAILABLE, "Metadata", str(partition), "no leader yet")

        await self._client.retrying(look)

    # Checking

    async def _check(self, specs: list[TopicSpec]) -> None:
        names = [spec.name for spec in specs]
        counts = await self._client.retrying(lambda: self._known_counts(names))
        policies = await self.topic_config(names, _CLEANUP_POLICY)
        wrong = [problem for spec in specs for problem in _problems(spec, counts[spec.name], policies.get(spec.name))]
        if wrong:
            raise TopologyError(
                f"internal topics do not fit the topology: {'; '.join(wrong)}. Was the topology changed, or were "
                "partitions added to a source? Use a new application_id, or stop all workers and reset the application"
            )

    async def _known_counts(self, names: list[str]) -> dict[str, int]:
        """Partition counts of topics that do exist, although the broker we ask may not have heard of them yet."""
        counts = await self._client.partition_counts(names)
        for name in names:
            if name not in counts:
                check_code(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "Metadata", f"topic {name}")
        return counts

    async def _topic_config_once(self, names: list[str], key: str) -> dict[str, str | None]:
        return {name: found.get(key) for name, found in (await self._describe_configs(names, [key])).items()}

    async def _describe_configs(
        self, names: Iterable[str], keys: Iterable[str], node: int | None = None
    ) -> dict[str, dict[str, str | None]]:
        """By topic some of its settings, as one broker knows them."""
        asked = {"resource_type": _TOPIC_RESOURCE, "configuration_keys": sorted(keys)}
        resources = [asked | {"resource_name": name} for name in names]
        response = await self._client.call("DescribeConfigs", {"resources": resources}, node=node, lane=_LANE)
        found: dict[str, dict[str, str | None]] = {}
        for result in response.results:
            if result.error_code == ErrorCode.TOPIC_AUTHORIZATION_FAILED:
                detail = "grant this principal DescribeConfigs on the topic"
                raise KafkaError(result.error_code, "DescribeConfigs", f"topic {result.resource_name}", detail)
            check_code(result.error_code, "DescribeConfigs", result.resource_name, result.error_message)
            found[result.resource_name] = {config.name: config.value for config in result.configs}
        return found

    async def _set_topic_config_once(self, name: str, config: Mapping[str, str]) -> None:
        configs = [{"name": key, "value": value} for key, value in sorted(config.items())]
        resource = {"resource_type": _TOPIC_RESOURCE, "resource_name": name, "configs": configs}
        response = await self._to_controller("IncrementalAlterConfigs", {"resources": [resource]})
        for result in response.responses:
            check_code(result.error_code, "IncrementalAlterConfigs", name, result.error_message)

    async def _look_for_topic_config(self, name: str, config: Mapping[str, str], node: int) -> None:
        """The controller has answered; the brokers read of it a moment later."""
        found = (await self._describe_configs([name], config, node))[name]
        if config.items() - found.items():
            where = f"topic {name} at broker {node}"
            raise KafkaError(ErrorCode.REQUEST_TIMED_OUT, "DescribeConfigs", where, "not the new settings yet")

    # Offsets and records, at each partition's leader

    async def _list_offsets(
        self, partitions: Iterable[TopicPartition], timestamp: int, isolation: int
    ) -> dict[TopicPartition, int]:
        wanted = frozenset(partitions)
        found: dict[TopicPartition, int] = {}
        await self._client.retrying(lambda: self._list_offsets_once(wanted - found.keys(), timestamp, isolation, found))
        return found

    async def _list_offsets_once(
        self, partitions: Iterable[TopicPartition], timestamp: int, isolation: int, found: dict[TopicPartition, int]
    ) -> None:
        for node, group in (await by_leader(self._client, partitions)).items():
            topics = [
                {
                    "name": topic,
                    "partitions": [{"partition_index": tp.partition, "timestamp": timestamp} for tp in tps],
                }
                for topic, tps in nested(group)
            ]
            body = {"isolation_level": isolation, "topics": topics}
            response = await self._client.call("ListOffsets", body, node=node, lane=_LANE)
            for partition, answer in answers(response.topics):
                check_code(answer.error_code, "ListOffsets", str(partition))
                found[partition] = answer.offset

    async def _delete_records_once(self, left: dict[TopicPartition, int]) -> None:
        for node, group in (await by_leader(self._client, left)).items():
            topics = [
                {
                    "name": topic,
                    "partitions": [{"partition_index": tp.partition, "offset": left[tp]} for tp in tps],
                }
                for topic, tps in nested(group)
            ]
            body = {"topics": topics, "timeout_ms": self._client.settings.request_timeout_ms}
            response = await self._client.call("DeleteRecords", body, node=node, lane=_LANE)
            for partition, answer in answers(response.topics):
                check_code(answer.error_code, "DeleteRecords", str(partition))
                del left[partition]

    # Topics

    async def _delete_topics_once(self, names: list[str]) -> None:
        body = {"topic_names": names, "timeout_ms": self._client.settings.request_timeout_ms}
        response = await self._to_controller("DeleteTopics", body)
        for topic in response.responses:
            if topic.error_code != ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
                check_code(topic.error_code, "DeleteTopics", topic.name, topic.error_message)

    async def _create_partitions_once(self, name: str, count: int) -> None:
        # Null, not an empty list, lets the cluster choose the brokers.
        topic = {"name": name, "count": count, "assignments": None}
        body = {"topics": [topic], "timeout_ms": self._client.settings.request_timeout_ms}
        response = await self._to_controller("CreatePartitions", body)
        for result in response.results:
            check_code(result.error_code, "CreatePartitions", name, result.error_message)

    async def _to_controller(self, api: str, body: Mapping[str, Any]) -> Response:
        return await self._client.call(api, body, node=self._client.controller, lane=_LANE)

    # Groups

    async def _list_groups_once(self, node: int) -> list[str]:
        response = await self._client.call("ListGroups", {}, node=node, lane=_LANE)
        check_code(response.error_code, "ListGroups")
        return [group.group_id for group in response.groups]

    async def _delete_group_once(self, group_id: str) -> None:
        node = await self._client.coordinator(group_id, "group")
        response = await self._client.call("DeleteGroups", {"groups_names": [group_id]}, node=node, lane=_LANE)
        for result in response.results:
            if result.error_code != _GROUP_ID_NOT_FOUND:
                check_code(result.error_code, "DeleteGroups", f"group {group_id}")


def _new_topic(spec: TopicSpec, replication_factor: int) -> dict[str, Any]:
    return {
        "name": spec.name,
        "num_partitions": spec.partitions,
        "replication_factor": replication_factor,
        "configs": [{"name": key, "value": value} for key, value in sorted(spec.config.items())],
    }


def _problems(spec: TopicSpec, partitions: int, policy: str | None) -> Iterable[str]:
    if partitions != spec.partitions:
        yield f"{spec.name} has {partitions} partitions, {spec.partitions} are needed"
    wanted = spec.config.get(_CLEANUP_POLICY)
    if wanted is not None and _policies(policy) != _policies(wanted):
        yield f"{spec.name} has {_CLEANUP_POLICY}={policy}, {wanted} is needed"


def _policies(text: str | None) -> frozenset[str]:
    return frozenset(part.strip() for part in (text or "").split(",") if part.strip())
