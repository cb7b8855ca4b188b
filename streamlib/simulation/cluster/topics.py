"""Topics: their logs, and which broker leads each partition.

A write counts as replicated at once: brokers share the logs. So a leader that moves loses nothing, which is what
replication factor 3, min.insync.replicas 2 and acks=all promise; what moves is who may be asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from streamlib.errors import ErrorCode
from streamlib.records import TopicPartition
from streamlib.simulation.cluster.basics import Body, Handler, Refused, Reply
from streamlib.simulation.cluster.brokers import Brokers
from streamlib.simulation.cluster.log import PartitionLog

_DEFAULT_CONFIG: Mapping[str, str] = {"cleanup.policy": "delete"}


class Topic:
    """One topic's settings and logs."""

    def __init__(self, name: str, partitions: int, config: Mapping[str, str]) -> None:
        self.name = name
        self.config = {**_DEFAULT_CONFIG, **config}
        self.logs = [self._log(number) for number in range(partitions)]

    @property
    def compacted(self) -> bool:
        return "compact" in self.config["cleanup.policy"]

    def _log(self, number: int) -> PartitionLog:
        return PartitionLog(TopicPartition(self.name, number), compacted=self.compacted)


class Topics:
    """All topics of the cluster."""

    def __init__(self, brokers: Brokers) -> None:
        self._brokers = brokers
        self._topics: dict[str, Topic] = {}
        self._moved: dict[TopicPartition, int] = {}  # leaders that are not where they were at first
        self.handlers: Mapping[str, Handler] = {
            "Metadata": self._metadata,
            "CreateTopics": self._create_topics,
            "DescribeConfigs": self._describe_configs,
        }

    # For the simulation

    def create(self, name: str, partitions: int, config: Mapping[str, str] | None = None) -> Topic:
        """A new topic; raises `Refused`."""
        if name in self._topics:
            raise Refused(ErrorCode.TOPIC_ALREADY_EXISTS)
        topic = self._topics[name] = Topic(name, partitions, config or {})
        return topic

    def names(self) -> list[str]:
        """All topics, in order of creation."""
        return list(self._topics)

    def partitions(self, topics: Iterable[str]) -> list[TopicPartition]:
        """All partitions of these topics."""
        return [TopicPartition(name, n) for name in topics for n in range(len(self._topics[name].logs))]

    def log(self, partition: TopicPartition) -> PartitionLog:
        """A partition's log; raises `Refused`."""
        topic = self._topics.get(partition.topic)
        if topic is None or not 0 <= partition.partition < len(topic.logs):
            raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        return topic.logs[partition.partition]

    def led_log(self, broker: int, partition: TopicPartition) -> PartitionLog:
        """The same, for who asks this broker; raises `Refused`."""
        log = self.log(partition)
        if self.leader(partition) != broker:
            raise Refused(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        return log

    def leader(self, partition: TopicPartition) -> int | None:
        """The broker that leads the partition; None if none is up."""
        home = self._moved.get(partition, partition.partition)
        return self._brokers.first_up(home)

    def move_leader(self, partition: TopicPartition, home: int) -> None:
        """Another broker leads from now on."""
        self._moved[partition] = home

    # Requests

    def _metadata(self, broker: int, request: Any, version: int, reply: Reply) -> None:
        names = self.names() if request.topics is None else [topic.name for topic in request.topics]
        reply(
            {
                "brokers": [self._brokers.entry(number) for number in self._brokers.up],
                "controller_id": self._brokers.first_up(0),
                "topics": [self._metadata_of(name) for name in names],
            }
        )

    def _metadata_of(self, name: str) -> Body:
        topic = self._topics.get(name)
        if topic is None:
            return {"name": name, "error_code": ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "partitions": []}
        partitions = []
        for log in topic.logs:
            leader = self.leader(log.partition)
            code = ErrorCode.NONE if leader is not None else ErrorCode.LEADER_NOT_AVAILABLE
            partitions.append(
                {
                    "partition_index": log.partition.partition,
                    "leader_id": -1 if leader is None else leader,
                    "error_code": code,
                }
            )
        return {"name": name, "partitions": partitions}

    def _create_topics(self, broker: int, request: Any, version: int, reply: Reply) -> None:
        answers = []
        for wanted in request.topics:
            code = ErrorCode.NONE
            try:
                self.create(wanted.name, max(wanted.num_partitions, 1), {c.name: c.value for c in wanted.configs})
            except Refused as refused:
                code = refused.code
            answers.append({"name": wanted.name, "error_code": code, "error_message": None})
        reply({"topics": answers})

    def _describe_configs(self, broker: int, request: Any, version: int, reply: Reply) -> None:
        results = []
        for resource in request.resources:
            topic = self._topics.get(resource.resource_name)
            code = ErrorCode.NONE if topic else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            settings = topic.config if topic else {}
            wanted = settings if resource.configuration_keys is None else resource.configuration_keys
            results.append(
                {
                    "error_code": code,
                    "error_message": None,
                    "resource_type": resource.resource_type,
                    "resource_name": resource.resource_name,
                    "configs": [{"name": key, "value": settings[key]} for key in wanted if key in settings],
                }
            )
        reply({"results": results})
