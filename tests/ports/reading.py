"""What is in a partition: where its log ends, and what a reader sees of it."""

from __future__ import annotations

from typing import Any

from streamlib.kafka.batches import AbortedTransaction, RecordBatch, read_batches
from streamlib.kafka.fetcher import KafkaFetcher
from streamlib.records import TopicPartition
from tests.ports.cluster import Cluster

A_LOT = 1 << 20


async def log_start(cluster: Cluster, partition: TopicPartition) -> int:
    return (await cluster.admin.list_offsets([partition], "earliest"))[partition]


async def log_end(cluster: Cluster, partition: TopicPartition) -> int:
    return (await cluster.admin.list_offsets([partition], "latest"))[partition]


async def stable_end(cluster: Cluster, partition: TopicPartition) -> int:
    """The last stable offset: the first one of a transaction that is open, or the log's end."""
    return (await cluster.admin.list_offsets([partition], "latest_stable"))[partition]


async def markers_written(cluster: Cluster, *partitions: TopicPartition) -> None:
    """Return when no transaction is open there; markers are written after EndTxn is answered."""
    for partition in partitions:
        while await stable_end(cluster, partition) < await log_end(cluster, partition):
            await cluster.passes(1)


async def read(cluster: Cluster, partition: TopicPartition) -> list[str]:
    """The values of all committed records, once no transaction is open."""
    await markers_written(cluster, partition)
    return await read_stable(cluster, partition)


async def read_stable(cluster: Cluster, partition: TopicPartition) -> list[str]:
    """The values of all committed records below the last stable offset."""
    fetcher = cluster.connections[0].fetcher()
    start, end = await log_start(cluster, partition), await stable_end(cluster, partition)
    fetcher.add({partition: start})
    values = await take_values(fetcher, start, end)
    await fetcher.close()
    return values


async def take_values(fetcher: KafkaFetcher, position: int, end: int) -> list[str]:
    """Values that come out of the fetcher until its position is `end`."""
    values: list[str] = []
    while position < end:
        await fetcher.wait()
        for batch in fetcher.take(A_LOT):
            position = batch.next_offset
            values += [(record.value or b"").decode() for record in batch.records()]
    return values


async def fetch(cluster: Cluster, partition: TopicPartition, offset: int, **options: Any) -> Any:
    """One Fetch request for one partition; returns the partition's part of the answer.

    Without options: committed records, at once, as many as there are.
    """
    client = cluster.client
    if client.leader(partition) is None:
        await client.refresh_metadata([partition.topic])
    asked = {
        "partition": partition.partition,
        "fetch_offset": offset,
        "partition_max_bytes": options.pop("partition_max_bytes", A_LOT),
    }
    body = {
        "max_wait_ms": 0,
        "min_bytes": 1,
        "max_bytes": A_LOT,
        "isolation_level": 1,
        "topics": [{"topic": partition.topic, "partitions": [asked]}],
    }
    response = await client.call("Fetch", body | options, node=client.leader(partition), lane="fetch by hand")
    return response.responses[0].partitions[0]


def batches_in(partition: TopicPartition, offset: int, answer: Any) -> list[RecordBatch]:
    """What a reader makes of an answer."""
    aborted = [AbortedTransaction(each.first_offset, each.producer_id) for each in answer.aborted_transactions or ()]
    return read_batches(partition, bytes(answer.records or b""), offset, aborted)


def values_in(partition: TopicPartition, offset: int, answer: Any) -> list[str]:
    """The values of an answer's records that are not aborted."""
    batches = batches_in(partition, offset, answer)
    return [(record.value or b"").decode() for batch in batches for record in batch.records()]
