"""Open transactions, asked of the cluster."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

from streamlib.errors import ErrorCode, KafkaError, UnsupportedBrokerError
from streamlib.kafka.admin import KafkaAdmin
from streamlib.kafka.transactions import KafkaTransactions, OpenAtPartition
from streamlib.records import TopicPartition
from streamlib.verify.hanging import OpenTransaction, open_transactions

_OFFSETS_TOPIC = "__consumer_offsets"


async def find_open(
    transactions: KafkaTransactions, admin: KafkaAdmin, group_id: str, partitions: Collection[TopicPartition]
) -> tuple[list[OpenTransaction], list[str]]:
    """The transactions that are open in the partitions, or over the group's offsets; and what could not be asked."""
    notes: list[str] = []
    try:
        first = await transactions.open_at(partitions)
        first += await _open_over_offsets(transactions, admin, group_id, notes)
        known = await transactions.describe(await _ids(transactions, first))
        later = await transactions.open_at({each.partition for each in first})
    except UnsupportedBrokerError:
        return [], ["brokers before Kafka 3.0 do not tell of open transactions"]
    return open_transactions(first, known, later, time.time_ns() // 1_000_000), notes


async def _ids(transactions: KafkaTransactions, found: Iterable[OpenAtPartition]) -> list[str]:
    producers = sorted({each.producer_id for each in found})
    return await transactions.list_ids(producer_ids=producers) if producers else []


async def _open_over_offsets(
    transactions: KafkaTransactions, admin: KafkaAdmin, group_id: str, notes: list[str]
) -> list[OpenAtPartition]:
    counts = await admin.partition_counts([_OFFSETS_TOPIC])
    if _OFFSETS_TOPIC not in counts:
        return []
    try:
        return await transactions.open_at([offsets_partition(group_id, counts[_OFFSETS_TOPIC])])
    except KafkaError as error:
        if error.code != ErrorCode.TOPIC_AUTHORIZATION_FAILED:
            raise
        notes.append(f"transactions over committed offsets were not looked at: {error}")
        return []


def offsets_partition(group_id: str, count: int) -> TopicPartition:
    """Where a group's offsets are: by Java's hash of its name (`GroupCoordinatorService.partitionFor`).

    >>> offsets_partition("word-count", 50).partition, offsets_partition("orders", 50).partition
    (0, 31)
    """
    hashed = 0
    units = group_id.encode("utf-16-be")
    for at in range(0, len(units), 2):
        hashed = (31 * hashed + int.from_bytes(units[at : at + 2], "big")) & 0xFFFF_FFFF
    signed = hashed - (1 << 32) if hashed >> 31 else hashed
    return TopicPartition(_OFFSETS_TOPIC, 0 if signed == -(1 << 31) else abs(signed) % count)
