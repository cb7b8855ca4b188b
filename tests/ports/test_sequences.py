"""Idempotence: what a partition remembers of a producer, and what it refuses because of it."""

from __future__ import annotations

import pytest

from streamlib.errors import ErrorCode
from streamlib.kafka.batches import BatchBuilder
from streamlib.records import TopicPartition
from tests.ports.cluster import Cluster
from tests.ports.everywhere import on_every_cluster, only_on_brokers
from tests.ports.raw import NOW_MS, REFUSED, RawProducer, Written, in_transaction, new_producer, settled
from tests.ports.reading import read

REMEMBERED = 5
"""So many batches of a producer a partition remembers."""

GAP = Written(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, REFUSED)


async def plain_producer(cluster: Cluster) -> tuple[RawProducer, TopicPartition]:
    """It has written "a" and "b" to a new partition, as one batch."""
    producer, partition = await RawProducer(cluster).start(), await cluster.partition()
    await producer.write(partition, "a", "b")
    return producer, partition


@on_every_cluster
async def test_repeated_batch_is_acknowledged_like_the_first_and_not_written(cluster: Cluster) -> None:
    producer, partition = await plain_producer(cluster)
    assert await producer.produce(partition, "c") == (ErrorCode.NONE, 2)
    assert await producer.produce(partition, "a", "b", sequence=0) == (ErrorCode.NONE, 0)
    assert await producer.produce(partition, "c", sequence=2) == (ErrorCode.NONE, 2)
    assert await read(cluster, partition) == ["a", "b", "c"]


@on_every_cluster
async def test_repeated_batch_of_a_transaction_is_not_written(cluster: Cluster) -> None:
    producer, partition = await in_transaction(cluster)
    assert await producer.produce(partition, "a", sequence=0) == (ErrorCode.NONE, 0)
    await producer.finish(commit=True)
    assert await read(cluster, partition) == ["a"]


@on_every_cluster
async def test_only_the_last_batches_are_remembered(cluster: Cluster) -> None:
    producer, partition = await plain_producer(cluster)
    for number in range(REMEMBERED - 1):
        await producer.write(partition, str(number))
    assert await producer.produce(partition, "a", "b", sequence=0) == (ErrorCode.NONE, 0)
    await producer.write(partition, "one more")
    assert await producer.produce(partition, "a", "b", sequence=0) == GAP


@on_every_cluster
async def test_batch_that_leaves_a_gap_is_refused(cluster: Cluster) -> None:
    producer, partition = await plain_producer(cluster)
    assert await producer.produce(partition, "d", sequence=3) == GAP
    assert await producer.produce(partition, "c") == (ErrorCode.NONE, 2)


@on_every_cluster
async def test_batch_that_overlaps_is_refused(cluster: Cluster) -> None:
    producer, partition = await plain_producer(cluster)
    assert await producer.produce(partition, "b", "c", sequence=1) == GAP


@on_every_cluster
async def test_gap_does_not_stand_in_the_way_of_a_commit(cluster: Cluster) -> None:
    """The coordinator does not know of it: that is the producer's to prevent."""
    producer, partition = await in_transaction(cluster)
    assert await producer.produce(partition, "c", sequence=2) == GAP
    await producer.finish(commit=True)
    assert await read(cluster, partition) == ["a"]


@on_every_cluster
async def test_partitions_count_for_themselves(cluster: Cluster) -> None:
    producer, _ = await plain_producer(cluster)
    other = await cluster.partition()
    await producer.write(other, "x")
    assert await read(cluster, other) == ["x"]


@on_every_cluster
async def test_plain_producer_that_a_partition_does_not_know_may_begin_anywhere(cluster: Cluster) -> None:
    """Its records may have been deleted."""
    producer, partition = await RawProducer(cluster).start(), await cluster.partition()
    producer.sequences[partition] = 17
    await producer.write(partition, "a")
    assert await producer.produce(partition, "b", sequence=0) == GAP


@on_every_cluster
async def test_transaction_begins_at_0_in_a_new_partition_since_kip_890(cluster: Cluster) -> None:
    producer, partition = await new_producer(cluster), await cluster.partition()
    await producer.enlist(partition)
    written = await settled(cluster, lambda: producer.produce(partition, "a", sequence=3))
    assert written == {2: GAP, 1: (ErrorCode.NONE, 0)}[cluster.transaction_version]


@on_every_cluster
async def test_next_transaction_begins_at_0_since_kip_890_and_goes_on_before(cluster: Cluster) -> None:
    producer, partition = await in_transaction(cluster)
    await producer.finish(commit=True)
    assert producer.sequences.get(partition, 0) == {2: 0, 1: 1}[cluster.transaction_version]
    await producer.write(partition, "b")
    again = await producer.produce(partition, "a", sequence=0)
    # With the new epoch that is a repetition of "b", with the same epoch one of "a".
    assert again == (ErrorCode.NONE, {2: 2, 1: 0}[cluster.transaction_version])
    await producer.finish(commit=True)
    assert await read(cluster, partition) == ["a", "b"]


@on_every_cluster
async def test_next_transaction_does_not_begin_with_a_gap(cluster: Cluster) -> None:
    producer, partition = await in_transaction(cluster)
    await producer.finish(commit=True)
    await producer.enlist(partition)
    ahead = producer.sequences.get(partition, 0) + 1
    assert await settled(cluster, lambda: producer.produce(partition, "c", sequence=ahead)) == GAP


@on_every_cluster
async def test_new_epoch_begins_at_0(cluster: Cluster) -> None:
    producer, partition = await plain_producer(cluster)
    producer.epoch += 1
    assert await producer.produce(partition, "c", sequence=2) == GAP
    assert await producer.produce(partition, "c", sequence=0) == (ErrorCode.NONE, 2)


@on_every_cluster
async def test_old_epoch_is_refused_once_the_partition_has_seen_a_newer_one(cluster: Cluster) -> None:
    producer, partition = await plain_producer(cluster)
    newer = producer.twin()
    newer.epoch += 1
    assert await newer.produce(partition, "c", sequence=0) == (ErrorCode.NONE, 2)
    assert await producer.produce(partition, "late") == (ErrorCode.INVALID_PRODUCER_EPOCH, REFUSED)


@on_every_cluster
async def test_transactional_epoch_that_the_coordinator_never_gave_is_refused(cluster: Cluster) -> None:
    producer, partition = await in_transaction(cluster)
    ahead = producer.twin()
    ahead.epoch += 1
    # Before KIP-890, what is in the transaction is not asked about again.
    written = await ahead.produce(partition, "x", sequence=0)
    expected = {2: (ErrorCode.INVALID_PRODUCER_EPOCH, REFUSED), 1: (ErrorCode.NONE, 1)}
    assert written == expected[cluster.transaction_version]


@on_every_cluster
async def test_transactional_producer_id_that_the_coordinator_never_gave_is_refused(cluster: Cluster) -> None:
    producer, partition = await in_transaction(cluster)
    stranger = producer.twin()
    stranger.producer_id += 10**6
    refused = Written(ErrorCode.INVALID_PRODUCER_ID_MAPPING, REFUSED)
    assert await stranger.produce(partition, "x", sequence=0) == refused


@on_every_cluster
async def test_refused_batch_uses_up_no_sequence(cluster: Cluster) -> None:
    partition = await cluster.partition({"cleanup.policy": "compact"})
    producer = await RawProducer(cluster).start()
    await producer.write(partition, "a")
    refused = await producer.produce_bytes(partition, batch_of(producer, partition, (None, b"without a key")))
    assert refused == (ErrorCode.INVALID_RECORD, REFUSED)
    await producer.write(partition, "b")
    assert await read(cluster, partition) == ["a", "b"]


@on_every_cluster
@only_on_brokers("the model has no limits of size")
async def test_batch_that_is_larger_than_the_topic_allows_is_refused(cluster: Cluster) -> None:
    partition = await cluster.partition({"max.message.bytes": "1000"})
    producer = await RawProducer(cluster).start()
    await producer.write(partition, "a")
    assert await producer.produce(partition, "x" * 2000) == (ErrorCode.MESSAGE_TOO_LARGE, REFUSED)
    await producer.write(partition, "b")


@on_every_cluster
async def test_sequence_0_follows_the_highest(cluster: Cluster) -> None:
    producer, partition = await RawProducer(cluster).start(), await cluster.partition()
    producer.sequences[partition] = 2**31 - 2
    await producer.write(partition, "a", "b", "c")
    assert producer.sequences[partition] == 1
    await producer.write(partition, "d")
    assert await read(cluster, partition) == ["a", "b", "c", "d"]


@on_every_cluster
async def test_damaged_batch_is_refused(cluster: Cluster) -> None:
    producer, partition = await plain_producer(cluster)
    data = batch_of(producer, partition, (b"k", b"v"))
    data[-1] ^= 1
    assert await producer.produce_bytes(partition, data) == (ErrorCode.CORRUPT_MESSAGE, REFUSED)


@on_every_cluster
@pytest.mark.parametrize(
    ("policy", "expected"), [("compact", (ErrorCode.INVALID_RECORD, REFUSED)), ("delete", (ErrorCode.NONE, 0))]
)
async def test_compacted_topic_takes_no_record_without_a_key(
    cluster: Cluster, policy: str, expected: tuple[int, int]
) -> None:
    partition, producer = await cluster.partition({"cleanup.policy": policy}), await RawProducer(cluster).start()
    data = batch_of(producer, partition, (None, b"v"))
    assert await producer.produce_bytes(partition, data) == expected


def batch_of(producer: RawProducer, partition: TopicPartition, record: tuple[bytes | None, bytes]) -> bytearray:
    """The next batch of the producer."""
    batch = BatchBuilder(partition, 0, False, 1000, 1000)
    batch.extend([(*record, NOW_MS, ())])
    return batch.build(producer.producer_id, producer.epoch, producer.sequences.get(partition, 0))
