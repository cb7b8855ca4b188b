"""Fetch and ListOffsets, request by request: what a reader of committed records may see, and when."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamlib.errors import ErrorCode
from streamlib.records import TopicPartition
from tests.ports.cluster import Cluster
from tests.ports.everywhere import on_every_cluster
from tests.ports.raw import RawProducer, in_transaction, new_producer
from tests.ports.reading import fetch, log_end, log_start, markers_written, read, stable_end, values_in

READ_UNCOMMITTED = 0
LONG_MS = 20_000
"""A long poll's patience: much longer than anything takes that ends it."""


async def plain_records(cluster: Cluster, *values: str) -> TopicPartition:
    """A new partition with these records, one batch each."""
    producer, partition = await RawProducer(cluster).start(), await cluster.partition()
    for value in values:
        await producer.write(partition, value)
    return partition


def ends(answer: Any) -> tuple[int, int, int]:
    """Log start, last stable offset, and high watermark, as an answer says."""
    return answer.log_start_offset, answer.last_stable_offset, answer.high_watermark


async def fetch_values(cluster: Cluster, partition: TopicPartition, offset: int, **options: Any) -> list[str]:
    answer = await fetch(cluster, partition, offset, **options)
    assert answer.error_code == ErrorCode.NONE
    return values_in(partition, offset, answer)


# --- what may be seen


@on_every_cluster
async def test_reading_ends_where_an_open_transaction_begins(cluster: Cluster) -> None:
    partition = await plain_records(cluster, "before")
    producer, other = await new_producer(cluster), await RawProducer(cluster).start()
    await producer.write(partition, "open")
    await other.write(partition, "behind it")
    answer = await fetch(cluster, partition, 0)
    assert values_in(partition, 0, answer) == ["before"]
    assert ends(answer) == (0, 1, 3)
    await producer.finish(commit=True)
    await markers_written(cluster, partition)
    assert await fetch_values(cluster, partition, 1) == ["open", "behind it"]


@on_every_cluster
async def test_offsets_behind_an_open_transaction_are_empty_and_not_out_of_range(cluster: Cluster) -> None:
    _, partition = await in_transaction(cluster)
    for offset in (0, 1):
        answer = await fetch(cluster, partition, offset)
        assert (answer.error_code, answer.records, answer.aborted_transactions) == (ErrorCode.NONE, b"", [])


@on_every_cluster
async def test_reader_of_uncommitted_records_sees_them(cluster: Cluster) -> None:
    _, partition = await in_transaction(cluster)
    answer = await fetch(cluster, partition, 0, isolation_level=READ_UNCOMMITTED)
    assert values_in(partition, 0, answer) == ["a"]
    assert answer.aborted_transactions is None


@on_every_cluster
async def test_aborted_records_come_with_an_index_of_them(cluster: Cluster) -> None:
    producer, partition = await in_transaction(cluster)
    await producer.finish(commit=False)
    await markers_written(cluster, partition)
    answer = await fetch(cluster, partition, 0)
    assert len(answer.records) > 0
    assert [(each.producer_id, each.first_offset) for each in answer.aborted_transactions] == [
        (producer.producer_id, 0)
    ]
    assert values_in(partition, 0, answer) == []


@on_every_cluster
async def test_index_names_a_transaction_that_began_before_the_offset(cluster: Cluster) -> None:
    producer, partition = await in_transaction(cluster)
    await producer.write(partition, "b")
    await producer.finish(commit=False)
    await markers_written(cluster, partition)
    for offset, expected in ((1, [0]), (2, [0]), (3, [])):  # its second record, its marker, behind it
        answer = await fetch(cluster, partition, offset)
        assert [each.first_offset for each in answer.aborted_transactions] == expected
        assert values_in(partition, offset, answer) == []


@on_every_cluster
async def test_aborted_and_committed_transactions_that_overlap_are_told_apart(cluster: Cluster) -> None:
    partition = await cluster.partition()
    aborted, committed, again = [await new_producer(cluster) for _ in range(3)]
    for number in range(3):
        for name, producer in (("no", aborted), ("yes", committed), ("again", again)):
            await producer.write(partition, f"{name}-{number}")
    await again.finish(commit=False)
    await aborted.finish(commit=False)
    await again.write(partition, "again")
    await again.finish(commit=True)
    await committed.finish(commit=True)
    await markers_written(cluster, partition)
    assert await fetch_values(cluster, partition, 0) == ["yes-0", "yes-1", "yes-2", "again"]


@on_every_cluster
@pytest.mark.parametrize("commit", [True, False])
async def test_markers_are_part_of_what_is_read(cluster: Cluster, commit: bool) -> None:
    producer, partition = await in_transaction(cluster)
    await producer.finish(commit=commit)
    await markers_written(cluster, partition)
    for options in ({}, {"isolation_level": READ_UNCOMMITTED}):
        answer = await fetch(cluster, partition, 1, **options)
        assert len(answer.records) > 0
        assert values_in(partition, 1, answer) == []
    assert (await fetch(cluster, partition, 2)).records == b""


# --- where it may be read


@on_every_cluster
async def test_offset_at_the_end_is_empty_and_one_more_is_out_of_range(cluster: Cluster) -> None:
    partition = await plain_records(cluster, "a")
    answer = await fetch(cluster, partition, 1)
    assert (answer.error_code, answer.records) == (ErrorCode.NONE, b"")
    for offset in (2, -5):
        answer = await fetch(cluster, partition, offset, max_wait_ms=LONG_MS)
        assert answer.error_code == ErrorCode.OFFSET_OUT_OF_RANGE
        assert ends(answer) == (-1, -1, -1)


@on_every_cluster
async def test_partition_that_does_not_exist_is_unknown(cluster: Cluster) -> None:
    there = await plain_records(cluster, "a")
    missing = [{"partition": 7, "fetch_offset": 0, "partition_max_bytes": 1000}]
    present = [{"partition": 0, "fetch_offset": 0, "partition_max_bytes": 1000}]
    topics = [
        {"topic": there.topic, "partitions": [*present, *missing]},
        {"topic": cluster.name("missing"), "partitions": present},
    ]
    body = {"max_wait_ms": 0, "min_bytes": 1, "isolation_level": 1, "topics": topics}
    response = await cluster.client.call("Fetch", body, node=cluster.client.leader(there))
    codes = [[each.error_code for each in topic.partitions] for topic in response.responses]
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert codes == [[ErrorCode.NONE, unknown], [unknown]]


@on_every_cluster
async def test_middle_of_a_batch_gives_the_whole_batch(cluster: Cluster) -> None:
    producer, partition = await RawProducer(cluster).start(), await cluster.partition()
    await producer.write(partition, "a", "b", "c")
    whole, middle = await fetch(cluster, partition, 0), await fetch(cluster, partition, 1)
    assert bytes(whole.records) == bytes(middle.records)
    assert values_in(partition, 1, middle) == ["b", "c"]


@on_every_cluster
@pytest.mark.parametrize("limit", ["max_bytes", "partition_max_bytes"])
async def test_first_batch_comes_however_large_it_is(cluster: Cluster, limit: str) -> None:
    partition = await plain_records(cluster, "a" * 1000, "b")
    assert await fetch_values(cluster, partition, 0, **{limit: 1}) == ["a" * 1000]


@on_every_cluster
async def test_answer_holds_as_many_batches_as_fit(cluster: Cluster) -> None:
    partition = await plain_records(cluster, *["x" * 400] * 10)
    values = await fetch_values(cluster, partition, 0, partition_max_bytes=1500)
    assert 1 <= len(values) <= 3


@on_every_cluster
async def test_deleted_records_are_out_of_range(cluster: Cluster) -> None:
    partition = await plain_records(cluster, "a", "b", "c")
    await cluster.admin.delete_records({partition: 2})
    assert (await fetch(cluster, partition, 1)).error_code == ErrorCode.OFFSET_OUT_OF_RANGE
    answer = await fetch(cluster, partition, 2)
    assert values_in(partition, 2, answer) == ["c"]
    assert ends(answer) == (2, 3, 3)


# --- ListOffsets and DeleteRecords


@on_every_cluster
async def test_ends_of_a_log(cluster: Cluster) -> None:
    producer, partition = await in_transaction(cluster)
    before = (
        await log_start(cluster, partition),
        await stable_end(cluster, partition),
        await log_end(cluster, partition),
    )
    assert before == (0, 0, 1)
    await producer.finish(commit=True)
    await markers_written(cluster, partition)
    after = await log_start(cluster, partition), await stable_end(cluster, partition), await log_end(cluster, partition)
    assert after == (0, 2, 2)


@on_every_cluster
async def test_stable_end_is_the_first_record_of_the_oldest_open_transaction(cluster: Cluster) -> None:
    partition, one, other = await cluster.partition(), await new_producer(cluster), await new_producer(cluster)
    await one.write(partition, "one")
    await other.write(partition, "other")
    await one.write(partition, "one")
    assert await stable_end(cluster, partition) == 0
    await one.finish(commit=True)
    while await stable_end(cluster, partition) == 0:
        await cluster.passes(1)
    assert await stable_end(cluster, partition) == 1
    await other.finish(commit=True)
    await markers_written(cluster, partition)
    assert await stable_end(cluster, partition) == 5


@on_every_cluster
async def test_records_can_be_deleted_to_the_end_and_no_further(cluster: Cluster) -> None:
    partition = await plain_records(cluster, "a", "b", "c")
    assert await delete(cluster, partition, 1) == (ErrorCode.NONE, 1)
    assert await delete(cluster, partition, 0) == (ErrorCode.NONE, 1)
    assert await delete(cluster, partition, 4) == (ErrorCode.OFFSET_OUT_OF_RANGE, -1)
    assert await delete(cluster, partition, -1) == (ErrorCode.NONE, 3)
    assert (await log_start(cluster, partition), await log_end(cluster, partition)) == (3, 3)


@on_every_cluster
async def test_records_of_an_open_transaction_can_be_deleted(cluster: Cluster) -> None:
    producer, partition = await in_transaction(cluster)
    await producer.write(partition, "b")
    assert await delete(cluster, partition, 1) == (ErrorCode.NONE, 1)
    await producer.finish(commit=True)
    assert await read(cluster, partition) == ["b"]


@on_every_cluster
async def test_only_partitions_that_exist_have_ends(cluster: Cluster) -> None:
    missing = cluster.name("missing")
    body: dict[str, Any] = {
        "isolation_level": 0,
        "topics": [{"name": missing, "partitions": [{"partition_index": 0, "timestamp": -1}]}],
    }
    response = await cluster.client.call("ListOffsets", body)
    [answer] = response.topics[0].partitions
    assert (answer.error_code, answer.offset) == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1)
    assert await delete(cluster, TopicPartition(missing, 0), 0) == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1)


async def delete(cluster: Cluster, partition: TopicPartition, before: int) -> tuple[int, int]:
    """One DeleteRecords request: its code, and the log start it answers."""
    partitions = [{"partition_index": partition.partition, "offset": before}]
    body = {"topics": [{"name": partition.topic, "partitions": partitions}], "timeout_ms": 10_000}
    response = await cluster.client.call("DeleteRecords", body, node=cluster.client.leader(partition))
    [answer] = response.topics[0].partitions
    return answer.error_code, answer.low_watermark


# --- long polls


class Poll:
    """A Fetch that the broker may hold back."""

    def __init__(self, cluster: Cluster, partition: TopicPartition, offset: int, **options: Any) -> None:
        self._cluster = cluster
        self._began_s = asyncio.get_running_loop().time()
        self._task = asyncio.create_task(fetch(cluster, partition, offset, **{"max_wait_ms": LONG_MS, **options}))

    async def is_held_back(self, ms: float = 50) -> bool:
        await self._cluster.passes(ms)
        return not self._task.done()

    async def answer(self) -> Any:
        return await self._task

    async def took_ms(self) -> float:
        await self._task
        return (asyncio.get_running_loop().time() - self._began_s) * 1000


@on_every_cluster
async def test_poll_that_finds_nothing_ends_after_its_time(cluster: Cluster) -> None:
    partition = await plain_records(cluster, "a")
    assert await Poll(cluster, partition, 1, max_wait_ms=200).took_ms() >= 190


@on_every_cluster
async def test_poll_ends_with_the_first_record(cluster: Cluster) -> None:
    partition, producer = await plain_records(cluster, "a"), await RawProducer(cluster).start()
    poll = Poll(cluster, partition, 1)
    assert await poll.is_held_back()
    await producer.write(partition, "b")
    assert values_in(partition, 1, await poll.answer()) == ["b"]
    assert await poll.took_ms() < LONG_MS / 2


@on_every_cluster
@pytest.mark.parametrize(("commit", "expected"), [(True, ["b"]), (False, [])])
async def test_poll_for_committed_records_ends_with_the_marker(
    cluster: Cluster, commit: bool, expected: list[str]
) -> None:
    partition, producer = await plain_records(cluster, "a"), await new_producer(cluster)
    poll = Poll(cluster, partition, 1)
    await producer.write(partition, "b")
    assert await poll.is_held_back()
    await producer.finish(commit=commit)
    answer = await poll.answer()
    assert ends(answer) == (0, 3, 3)
    assert values_in(partition, 1, answer) == expected
    assert await poll.took_ms() < LONG_MS / 2


@on_every_cluster
async def test_poll_for_uncommitted_records_ends_with_the_record(cluster: Cluster) -> None:
    partition, producer = await plain_records(cluster, "a"), await new_producer(cluster)
    poll = Poll(cluster, partition, 1, isolation_level=READ_UNCOMMITTED)
    assert await poll.is_held_back()
    await producer.write(partition, "b")
    assert values_in(partition, 1, await poll.answer()) == ["b"]
