"""What is known of the cluster: brokers, leaders, partition counts. A value without I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from streamlib.errors import ErrorCode
from streamlib.kafka.errors import error_row
from streamlib.records import TopicPartition


class Address(NamedTuple):
    """Where a broker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class ClusterView:
    """The latest metadata, and the bootstrap addresses as nodes -1, -2, ..., for when all else fails."""

    def __init__(self, bootstrap: Iterable[Address]) -> None:
        self._bootstrap = {-1 - index: address for index, address in enumerate(bootstrap)}
        self._brokers: dict[int, Address] = {}
        self._leaders: dict[TopicPartition, int] = {}
        self._counts: dict[str, int] = {}
        self._refusals: dict[str, int] = {}
        self.controller: int | None = None

    @property
    def bootstrap(self) -> dict[int, Address]:
        """The addresses the user gave, by their (negative) node ids."""
        return self._bootstrap

    @property
    def brokers(self) -> dict[int, Address]:
        """The brokers that the cluster says it has."""
        return self._brokers

    def address(self, node: int) -> Address | None:
        """Where the node listens, None if it is not part of the cluster any more."""
        return self._brokers.get(node) or self._bootstrap.get(node)

    def leader(self, partition: TopicPartition) -> int | None:
        """The leader's node id, None while there is none or it is not known."""
        return self._leaders.get(partition)

    def count(self, topic: str) -> int:
        """The number of partitions as last heard; 0 if nothing is known."""
        return self._counts.get(topic, 0)

    def refusal(self, topic: str) -> int:
        """The error code that the last metadata about the topic held and that will not pass by itself, or 0."""
        return self._refusals.get(topic, ErrorCode.NONE)

    def absorb(self, metadata: Any) -> None:
        """Take over a Metadata response; topics it says nothing of keep what was known."""
        self._brokers = {broker.node_id: Address(broker.host, broker.port) for broker in metadata.brokers}
        self.controller = metadata.controller_id if metadata.controller_id in self._brokers else None
        for topic in metadata.topics:
            self._refusals.pop(topic.name, None)
            if not error_row(topic.error_code).retriable and topic.error_code:
                self._refusals[topic.name] = topic.error_code
            if topic.error_code == ErrorCode.NONE and topic.partitions:
                self._absorb_topic(topic)

    def forget(self, topic: str) -> None:
        """The topic is gone for certain."""
        for partition in range(self._counts.pop(topic, 0)):
            self._leaders.pop(TopicPartition(topic, partition), None)

    def _absorb_topic(self, topic: Any) -> None:
        self.forget(topic.name)
        self._counts[topic.name] = len(topic.partitions)
        for partition in topic.partitions:
            if partition.leader_id >= 0:
                self._leaders[TopicPartition(topic.name, partition.partition_index)] = partition.leader_id
