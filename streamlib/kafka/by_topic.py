"""Between flat partitions and the protocol's nesting by topic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from streamlib.records import TopicPartition


def nested(partitions: Iterable[TopicPartition]) -> list[tuple[str, list[TopicPartition]]]:
    """Each topic with its partitions, in order."""
    return [(topic, list(group)) for topic, group in groupby(sorted(partitions), key=lambda tp: tp.topic)]


def answers(topics: Iterable[Any], index: str = "partition_index") -> Iterator[tuple[TopicPartition, Any]]:
    """Each partition's answer out of a response's `topics`."""
    for topic in topics:
        for partition in topic.partitions:
            yield TopicPartition(topic.name, getattr(partition, index)), partition
