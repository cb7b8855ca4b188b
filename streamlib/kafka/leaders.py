"""Which broker to ask about which partition."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from streamlib.errors import ErrorCode
from streamlib.kafka.client import KafkaClient
from streamlib.kafka.errors import check_code
from streamlib.records import TopicPartition


async def by_leader(client: KafkaClient, partitions: Iterable[TopicPartition]) -> dict[int, list[TopicPartition]]:
    """The partitions of each leader, as far as leaders are known; asks for those that are not.

    Raises:
        KafkaError: UNKNOWN_TOPIC_OR_PARTITION, which `retrying` repeats, or what the topic is refused with.
    """
    wanted = sorted(partitions)  # some come in a set, whose order is another one in each run
    if any(client.leader(partition) is None for partition in wanted):
        await client.refresh_metadata({partition.topic for partition in wanted})
    groups = defaultdict(list)
    for partition in wanted:
        leader = client.leader(partition)
        if leader is None:
            client.check_topic(partition.topic)
            check_code(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "Metadata", str(partition))
            continue
        groups[leader].append(partition)
    return groups
