"""The fetcher port: positions, and partitions that come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from streamlib.errors import ErrorCode, KafkaError
from streamlib.kafka.fetcher import KafkaFetcher
from streamlib.records import TopicPartition
from tests.ports.cluster import Cluster
from tests.ports.everywhere import on_every_cluster
from tests.ports.raw import RawProducer, in_transaction, new_producer
from tests.ports.reading import A_LOT, markers_written, take_values


async def new_fetcher(cluster: Cluster, **config: object) -> KafkaFetcher:
    return (await cluster.connect(**config)).fetcher()


async def topic_with(cluster: Cluster, *values: str) -> list[TopicPartition]:
    """As many partitions as values, with one record in each."""
    topic, producer = await cluster.topic(len(values)), await RawProducer(cluster).start()
    partitions = [TopicPartition(topic, number) for number in range(len(values))]
    for partition, value in zip(partitions, values, strict=True):
        await producer.write(partition, value)
    return partitions


async def positions(fetcher: KafkaFetcher, *partitions: TopicPartition) -> dict[TopicPartition, int]:
    """Where the fetcher is, once something has come out of each."""
    reached: dict[TopicPartition, int] = {}
    while reached.keys() != set(partitions):
        await fetcher.wait()
        for batch in fetcher.take(A_LOT):
            reached[batch.partition] = batch.next_offset
    return reached


@on_every_cluster
async def test_position_goes_on_behind_what_nobody_may_read(cluster: Cluster) -> None:
    producer, partition = await in_transaction(cluster)
    await producer.finish(commit=False)
    await markers_written(cluster, partition)
    fetcher = await new_fetcher(cluster)
    fetcher.add({partition: 0})
    assert await take_values(fetcher, 0, end=2) == []


@on_every_cluster
async def test_reading_goes_on_when_a_transaction_ends(cluster: Cluster) -> None:
    producer, partition = await in_transaction(cluster)
    fetcher = await new_fetcher(cluster)
    fetcher.add({partition: 0})
    await cluster.passes(50)
    assert not fetcher.ready
    await producer.finish(commit=True)
    assert await take_values(fetcher, 0, end=2) == ["a"]


@on_every_cluster
async def test_end_offsets_are_the_stable_ones(cluster: Cluster) -> None:
    [partition] = await topic_with(cluster, "a")
    await (await new_producer(cluster)).write(partition, "open")
    fetcher = await new_fetcher(cluster)
    fetcher.add({partition: 0})
    assert await positions(fetcher, partition) == {partition: 1}
    assert fetcher.end_offsets() == {partition: 1}


@on_every_cluster
async def test_what_is_behind_an_open_transaction_is_counted_until_it_ends(cluster: Cluster) -> None:
    producer, partition = await in_transaction(cluster)
    fetcher = await new_fetcher(cluster, fetch_max_wait_ms=50)
    fetcher.add({partition: 0})
    await eventually(lambda: fetcher.unstable() == {partition: 1})
    await producer.finish(commit=True)
    assert await take_values(fetcher, 0, end=2) == ["a"]
    await eventually(lambda: fetcher.unstable() == {})


async def eventually(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.01)


@on_every_cluster
async def test_records_come_as_they_are_written(cluster: Cluster) -> None:
    partition, producer = await cluster.partition(), await RawProducer(cluster).start()
    fetcher = await new_fetcher(cluster)
    fetcher.add({partition: 0})
    for number in range(5):
        await producer.write(partition, str(number))
        assert await take_values(fetcher, number, end=number + 1) == [str(number)]


@on_every_cluster
async def test_partition_can_be_added_while_others_are_waited_for(cluster: Cluster) -> None:
    full, *_ = await topic_with(cluster, "a")
    empty, fetcher = await cluster.partition(), await new_fetcher(cluster, fetch_max_wait_ms=10_000)
    fetcher.add({empty: 0})
    await cluster.passes(50)
    fetcher.add({full: 0})
    async with asyncio.timeout(5):
        assert await positions(fetcher, full) == {full: 1}


@on_every_cluster
async def test_nothing_comes_of_a_removed_partition(cluster: Cluster) -> None:
    one, other = await topic_with(cluster, "one", "other")
    fetcher = await new_fetcher(cluster)
    fetcher.add({one: 0, other: 0})
    while not fetcher.ready:
        await fetcher.wait()
    fetcher.remove([one])
    assert await positions(fetcher, other) == {other: 1}
    await cluster.passes(50)
    assert not fetcher.ready


@on_every_cluster
async def test_partition_that_is_added_anew_is_read_from_there(cluster: Cluster) -> None:
    [partition] = await topic_with(cluster, "a")
    fetcher = await new_fetcher(cluster)
    for _ in range(2):
        fetcher.add({partition: 0})
        assert await take_values(fetcher, 0, end=1) == ["a"]


@on_every_cluster
async def test_paused_partition_is_held_back_until_it_flows_again(cluster: Cluster) -> None:
    one, other = await topic_with(cluster, "one", "other")
    fetcher = await new_fetcher(cluster)
    fetcher.add({one: 0, other: 0})
    fetcher.pause([one])
    assert await positions(fetcher, other) == {other: 1}
    await cluster.passes(50)
    assert not fetcher.ready
    fetcher.pause([])
    assert await positions(fetcher, one) == {one: 1}


@on_every_cluster
async def test_offset_that_is_gone_is_raised_with_its_partition(cluster: Cluster) -> None:
    gone, good = await topic_with(cluster, "gone", "good")
    await cluster.admin.delete_records({gone: 1})
    fetcher = await new_fetcher(cluster)
    fetcher.add({gone: 0})
    with pytest.raises(KafkaError) as refused:
        await fetcher.wait()
    assert (refused.value.code, refused.value.where) == (ErrorCode.OFFSET_OUT_OF_RANGE, str(gone))
    fetcher.remove([gone])
    fetcher.add({good: 0})
    assert await positions(fetcher, good) == {good: 1}


@on_every_cluster
async def test_small_buffers_give_everything_in_the_end(cluster: Cluster) -> None:
    partition, producer = await cluster.partition(), await RawProducer(cluster).start()
    values = [f"{number}" * 100 for number in range(10)]
    for value in values:
        await producer.write(partition, value)
    fetcher = await new_fetcher(cluster, max_partition_fetch_bytes=500, fetch_max_bytes=500)
    fetcher.add({partition: 0})
    assert await take_values(fetcher, 0, end=len(values)) == values
