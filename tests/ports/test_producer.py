"""The producer port: what becomes of records and of who wrote them."""

from __future__ import annotations

import pytest

from streamlib.errors import ErrorCode, KafkaError
from streamlib.kafka.producer import KafkaProducer
from streamlib.records import GroupMetadata, OffsetAndMetadata, TopicPartition
from tests.ports.cluster import Cluster
from tests.ports.everywhere import on_every_cluster
from tests.ports.members import sole_member
from tests.ports.raw import NOW_MS, refusal
from tests.ports.reading import log_end, markers_written, read, read_stable


async def new_producer(
    cluster: Cluster, transactional_id: str | None = None, *, plain: bool = False, **config: object
) -> KafkaProducer:
    """An initialised producer, with connections of its own; transactional unless it is `plain`."""
    connection = await cluster.connect(**config)
    producer = connection.producer(None if plain else transactional_id or cluster.name("tx"))
    await producer.init()
    return producer


def send(producer: KafkaProducer, partition: TopicPartition, *values: str) -> None:
    producer.send(partition, [(b"k", value.encode(), NOW_MS, ()) for value in values])


async def write(producer: KafkaProducer, partition: TopicPartition, *values: str, commit: bool = True) -> None:
    """One transaction."""
    producer.begin()
    send(producer, partition, *values)
    await producer.flush()
    await producer.end(commit=commit)


# --- what becomes of records


@on_every_cluster
async def test_committed_records_are_visible_from_the_commit_on_in_all_partitions(cluster: Cluster) -> None:
    topic = await cluster.topic(partitions=2)
    zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)
    producer = await new_producer(cluster)
    producer.begin()
    send(producer, zero, "a", "b")
    send(producer, one, "c")
    await producer.flush()
    assert (await read_stable(cluster, zero), await read_stable(cluster, one)) == ([], [])
    await producer.end(commit=True)
    assert (await read(cluster, zero), await read(cluster, one)) == (["a", "b"], ["c"])


@on_every_cluster
async def test_aborted_records_are_never_visible(cluster: Cluster) -> None:
    partition, producer = await cluster.partition(), await new_producer(cluster)
    for number in range(6):
        await write(producer, partition, f"{number}", commit=number % 2 == 0)
    assert await read(cluster, partition) == ["0", "2", "4"]


@on_every_cluster
async def test_records_that_were_not_flushed_are_aborted_too(cluster: Cluster) -> None:
    partition, producer = await cluster.partition(), await new_producer(cluster)
    producer.begin()
    send(producer, partition, "a")
    await producer.end(commit=False)
    await write(producer, partition, "b")
    assert await read(cluster, partition) == ["b"]


@on_every_cluster
async def test_order_is_kept_over_many_batches(cluster: Cluster) -> None:
    partition, producer = await cluster.partition(), await new_producer(cluster, batch_size=200)
    values = [str(number) for number in range(300)]
    producer.begin()
    for value in values:
        send(producer, partition, value)
    await producer.flush()
    await producer.end(commit=True)
    assert await read(cluster, partition) == values


@on_every_cluster
async def test_flush_says_where_each_partition_ends(cluster: Cluster) -> None:
    topic, producer = await cluster.topic(partitions=2), await new_producer(cluster)
    zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)
    producer.begin()
    send(producer, zero, "a", "b")
    assert await producer.flush() == {zero: 2}
    send(producer, one, "c")
    assert await producer.flush() == {zero: 2, one: 1}
    await producer.end(commit=True)


@on_every_cluster
@pytest.mark.parametrize("commit", [True, False])
async def test_marker_takes_an_offset(cluster: Cluster, commit: bool) -> None:
    partition, producer = await cluster.partition(), await new_producer(cluster)
    await write(producer, partition, "a", commit=commit)
    await markers_written(cluster, partition)
    assert await log_end(cluster, partition) == 2
    producer.begin()
    send(producer, partition, "b")
    assert await producer.flush() == {partition: 3}
    await producer.end(commit=True)


@on_every_cluster
async def test_plain_records_need_no_end(cluster: Cluster) -> None:
    partition, producer = await cluster.partition(), await new_producer(cluster, plain=True)
    send(producer, partition, "a", "b")
    assert await producer.flush() == {partition: 2}
    send(producer, partition, "c")
    assert await producer.flush() == {partition: 3}
    assert await producer.flush() == {}
    assert await read(cluster, partition) == ["a", "b", "c"]


@on_every_cluster
async def test_empty_transaction_leaves_no_trace(cluster: Cluster) -> None:
    partition, producer = await cluster.partition(), await new_producer(cluster)
    for commit in (True, False):
        producer.begin()
        await producer.end(commit=commit)
    assert await log_end(cluster, partition) == 0
    await write(producer, partition, "a")
    assert await read(cluster, partition) == ["a"]


@on_every_cluster
async def test_next_transaction_may_begin_at_once(cluster: Cluster) -> None:
    partition, producer = await cluster.partition(), await new_producer(cluster)
    for number in range(5):
        await write(producer, partition, str(number))
    assert await read(cluster, partition) == ["0", "1", "2", "3", "4"]


@on_every_cluster
async def test_two_ids_in_turn_keep_the_order(cluster: Cluster) -> None:
    partition = await cluster.partition()
    producers = [await new_producer(cluster), await new_producer(cluster)]
    for number in range(10):
        await write(producers[number % 2], partition, str(number))
    assert await read(cluster, partition) == [str(number) for number in range(10)]


# --- fencing


@on_every_cluster
async def test_init_aborts_what_an_older_producer_of_the_id_left_open(cluster: Cluster) -> None:
    partition = await cluster.partition()
    older = await new_producer(cluster)
    older.begin()
    send(older, partition, "left open")
    await older.flush()
    newer = await new_producer(cluster, older.transactional_id)
    await markers_written(cluster, partition)
    await write(newer, partition, "new")
    assert await read(cluster, partition) == ["new"]


@on_every_cluster
async def test_older_producer_can_write_no_more(cluster: Cluster) -> None:
    partition = await cluster.partition()
    older = await new_producer(cluster)
    await new_producer(cluster, older.transactional_id)
    older.begin()
    send(older, partition, "late")
    # Before KIP-890 it meets the coordinator first.
    expected = {2: ErrorCode.INVALID_PRODUCER_EPOCH, 1: ErrorCode.PRODUCER_FENCED}
    assert await refusal(older.flush()) == expected[cluster.transaction_version]
    assert await read(cluster, partition) == []


@on_every_cluster
async def test_older_producer_can_write_no_more_where_it_wrote_before(cluster: Cluster) -> None:
    partition = await cluster.partition()
    older = await new_producer(cluster)
    older.begin()
    send(older, partition, "in time")
    await older.flush()
    await new_producer(cluster, older.transactional_id)
    send(older, partition, "late")
    assert await refusal(older.flush()) == ErrorCode.INVALID_PRODUCER_EPOCH
    assert await read(cluster, partition) == []


@on_every_cluster
async def test_older_producer_cannot_commit_its_records(cluster: Cluster) -> None:
    partition = await cluster.partition()
    older = await new_producer(cluster)
    older.begin()
    send(older, partition, "in time")
    await older.flush()
    await new_producer(cluster, older.transactional_id)
    assert await refusal(older.end(commit=True)) == ErrorCode.PRODUCER_FENCED
    assert await read(cluster, partition) == []


@on_every_cluster
async def test_older_producer_cannot_commit_offsets(cluster: Cluster) -> None:
    member, partition = await sole_member(cluster), await cluster.partition()
    older = await new_producer(cluster)
    await new_producer(cluster, older.transactional_id)
    older.begin()
    expected = {2: ErrorCode.INVALID_PRODUCER_EPOCH, 1: ErrorCode.PRODUCER_FENCED}
    refused = await refusal(older.add_offsets(member.who, {partition: OffsetAndMetadata(1)}))
    assert refused == expected[cluster.transaction_version]
    assert await member.port.fetch_offsets([partition]) == {}


@on_every_cluster
async def test_fenced_producer_fences_in_turn_with_init(cluster: Cluster) -> None:
    partition = await cluster.partition()
    first = await new_producer(cluster)
    second = await new_producer(cluster, first.transactional_id)
    await first.init()
    await write(first, partition, "first")
    second.begin()
    send(second, partition, "second")
    assert await refusal(second.flush()) != ErrorCode.NONE
    assert await read(cluster, partition) == ["first"]


# --- failures


@on_every_cluster
async def test_failed_batch_cannot_be_committed_around(cluster: Cluster) -> None:
    compacted, other = await cluster.partition({"cleanup.policy": "compact"}), await cluster.partition()
    producer = await new_producer(cluster)
    producer.begin()
    send(producer, other, "good")
    await producer.flush()
    producer.send(compacted, [(None, b"without a key", NOW_MS, ())])
    assert await refusal(producer.flush()) == ErrorCode.INVALID_RECORD
    assert await refusal(producer.end(commit=True)) == ErrorCode.INVALID_RECORD
    await producer.init()
    await write(producer, compacted, "good")
    assert (await read(cluster, other), await read(cluster, compacted)) == ([], ["good"])


@on_every_cluster
async def test_refused_offsets_stand_in_the_way_of_a_commit_until_they_are_accepted(cluster: Cluster) -> None:
    member, partition = await sole_member(cluster), await cluster.partition()
    producer = await new_producer(cluster)
    outdated = GroupMetadata(member.group_id, member.generation + 1, member.member_id, None)
    producer.begin()
    send(producer, partition, "a")
    offsets = {partition: OffsetAndMetadata(7, "text")}
    assert await refusal(producer.add_offsets(outdated, offsets)) == ErrorCode.ILLEGAL_GENERATION
    assert await refusal(producer.end(commit=True)) == ErrorCode.ILLEGAL_GENERATION
    await producer.add_offsets(member.who, offsets)
    await producer.end(commit=True)
    assert await member.port.fetch_offsets([partition]) == offsets
    assert await read(cluster, partition) == ["a"]


@on_every_cluster
async def test_transaction_with_refused_offsets_can_be_aborted(cluster: Cluster) -> None:
    member, partition = await sole_member(cluster), await cluster.partition()
    producer = await new_producer(cluster)
    outdated = GroupMetadata(member.group_id, member.generation + 1, member.member_id, None)
    producer.begin()
    with pytest.raises(KafkaError):
        await producer.add_offsets(outdated, {partition: OffsetAndMetadata(7)})
    await producer.end(commit=False)
    await write(producer, partition, "next")
    assert await read(cluster, partition) == ["next"]


# --- timeouts


async def outlived(cluster: Cluster, partition: TopicPartition) -> KafkaProducer:
    """A producer whose open transaction has been aborted by the broker, because it took too long."""
    producer = await new_producer(cluster, transaction_timeout_ms=500)
    producer.begin()
    send(producer, partition, "slow")
    await producer.flush()
    await markers_written(cluster, partition)
    return producer


@on_every_cluster
async def test_transaction_that_takes_too_long_is_aborted(cluster: Cluster) -> None:
    partition = await cluster.partition()
    producer = await outlived(cluster, partition)
    expected = {2: ErrorCode.INVALID_TXN_STATE, 1: ErrorCode.PRODUCER_FENCED}
    assert await refusal(producer.end(commit=True)) == expected[cluster.transaction_version]
    assert await read(cluster, partition) == []


@on_every_cluster
async def test_producer_that_took_too_long_can_write_no_more_until_init(cluster: Cluster) -> None:
    partition = await cluster.partition()
    producer = await outlived(cluster, partition)
    send(producer, partition, "late")
    assert await refusal(producer.flush()) == ErrorCode.INVALID_PRODUCER_EPOCH
    await producer.init()
    await write(producer, partition, "again")
    assert await read(cluster, partition) == ["again"]


@on_every_cluster
async def test_idle_producer_does_not_time_out(cluster: Cluster) -> None:
    partition = await cluster.partition()
    producer = await new_producer(cluster, transaction_timeout_ms=500)
    await cluster.passes(1500)
    await write(producer, partition, "a")
    assert await read(cluster, partition) == ["a"]
