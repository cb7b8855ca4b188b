"""Reads a cluster with a client that is not ours (librdkafka): committed records, offsets, open transactions."""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

PATIENCE_S = 60
WAIT_S = 0.2


class Row(msgspec.Struct, frozen=True):
    """A committed record."""

    partition: int
    offset: int
    key: bytes
    value: bytes | None
    timestamp_ms: int


class Readback:
    """Everything there is to know about a cluster from the outside."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._settings: dict[str, str | int | float | bool] = {"bootstrap.servers": bootstrap_servers, "log_level": 0}
        self._admin = AdminClient(self._settings)

    def topics(self) -> dict[str, int]:
        """All topics and their numbers of partitions, Kafka's own among them."""
        found = self._admin.list_topics(timeout=PATIENCE_S).topics
        return {name: len(topic.partitions) for name, topic in found.items()}

    def read(self, topic: str) -> list[Row]:
        """All committed records, partition by partition, each in order."""
        count = self.topics()[topic]
        consumer = Consumer(
            {
                **self._settings,
                "group.id": "readback",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )
        rows: list[list[Row]] = [[] for _ in range(count)]
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(count)])
        open_partitions = set(range(count))
        give_up_s = time.monotonic() + PATIENCE_S
        while open_partitions:
            messages = consumer.consume(10_000, WAIT_S)  # it waits for so many, or for so long
            if not messages and time.monotonic() > give_up_s:
                raise TimeoutError(f"{topic}: nothing more for {PATIENCE_S} s from partitions {open_partitions}")
            give_up_s = time.monotonic() + PATIENCE_S if messages else give_up_s
            for message in messages:
                number = message.partition()
                assert number is not None
                error = message.error()
                if error is None:
                    rows[number].append(_row(number, message))
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_partitions.discard(number)
                else:
                    raise KafkaException(error)
        consumer.close()
        return [row for partition in rows for row in partition]

    def ends(self, topics: Iterable[str], *, stable: bool) -> dict[tuple[str, int], int]:
        """Each partition's log end, or (stable) the first offset of its oldest open transaction if that is less."""
        level = IsolationLevel.READ_COMMITTED if stable else IsolationLevel.READ_UNCOMMITTED
        counts = self.topics()
        latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = {TopicPartition(topic, n): latest for topic in topics for n in range(counts[topic])}
        found = self._admin.list_offsets(asked, isolation_level=level, request_timeout=PATIENCE_S)
        return {(p.topic, p.partition): future.result().offset for p, future in found.items()}

    def hanging(self) -> list[str]:
        """Partitions with a transaction that nobody has ended, with how much lies behind it."""
        topics = sorted(self.topics())
        ends, stable = self.ends(topics, stable=False), self.ends(topics, stable=True)
        return [f"{p[0]}-{p[1]}: {stable[p]} of {ends[p]}" for p in ends if stable[p] < ends[p]]

    def committed(self, group: str, topics: Iterable[str]) -> dict[tuple[str, int], int]:
        """The group's committed offsets of all partitions; 0 where there are none."""
        counts = self.topics()
        asked = [TopicPartition(topic, n) for topic in topics for n in range(counts[topic])]
        request = [ConsumerGroupTopicPartitions(group, asked)]
        futures = self._admin.list_consumer_group_offsets(request, request_timeout=PATIENCE_S)
        found = futures[group].result().topic_partitions
        return {(p.topic, p.partition): max(p.offset, 0) for p in found}


def _row(number: int, message: object) -> Row:
    m = message
    return Row(number, m.offset(), m.key() or b"", m.value(), m.timestamp()[1])  # type: ignore[attr-defined]
