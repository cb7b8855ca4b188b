"""Fetch: what comes back, and when."""

from __future__ import annotations

from typing import Any

import pytest

from streamlib.errors import ErrorCode
from streamlib.kafka.batches import AbortedTransaction, read_batches
from streamlib.records import TopicPartition
from tests.simulation.cluster.asking import Asked
from tests.simulation.cluster.producing import Bench, batch

OK = ErrorCode.NONE
LARGE = 1 << 20


@pytest.fixture
def bench() -> Bench:
    """All partitions of "t" are led by broker 0."""
    bench = Bench()
    for partition in bench.partitions:
        bench.topics.move_leader(partition, 0)
    return bench


def fetch(
    bench: Bench,
    positions: dict[TopicPartition, int],
    *,
    committed: bool = True,
    max_bytes: int = LARGE,
    partition_max_bytes: int = LARGE,
    **body: Any,
) -> Asked:
    topics = [
        {
            "topic": partition.topic,
            "partitions": [
                {
                    "partition": partition.partition,
                    "fetch_offset": offset,
                    "partition_max_bytes": partition_max_bytes,
                }
            ],
        }
        for partition, offset in positions.items()
    ]
    wanted = {"max_wait_ms": 500, "min_bytes": 1, "max_bytes": max_bytes, "isolation_level": int(committed)}
    return bench.ask("Fetch", {**wanted, "topics": topics, **body})


def answers(asked: Asked) -> dict[TopicPartition, Any]:
    return {
        TopicPartition(topic.topic, each.partition_index): each
        for topic in asked.answer.responses
        for each in topic.partitions
    }


def values(asked: Asked, positions: dict[TopicPartition, int]) -> dict[TopicPartition, list[str]]:
    """What a client makes of the answer."""
    found = {}
    for partition, answer in answers(asked).items():
        aborted = [AbortedTransaction(each.first_offset, each.producer_id) for each in answer.aborted_transactions]
        batches = read_batches(partition, bytes(answer.records), positions[partition], aborted)
        found[partition] = [record.value.decode() for each in batches for record in each.records()]  # type: ignore[union-attr]
    return found


def append(bench: Bench, partition: TopicPartition, *texts: str) -> None:
    bench.topics.log(partition).append(batch(*texts))


# --- what comes back


def test_each_partition_is_read_from_its_own_position(bench: Bench) -> None:
    p0, p1, p2 = bench.partitions
    append(bench, p0, "a", "b")
    append(bench, p1, "c")
    positions = {p0: 1, p1: 0, p2: 0}
    asked = fetch(bench, positions)
    assert values(asked, positions) == {p0: ["b"], p1: ["c"], p2: []}
    assert {partition: answer.high_watermark for partition, answer in answers(asked).items()} == {p0: 2, p1: 1, p2: 0}


def test_committed_reader_gets_what_is_stable_and_the_index_of_what_was_aborted(bench: Bench) -> None:
    [p0, *_] = bench.partitions
    first, second, third = (bench.producer(name) for name in ("one", "two", "three"))
    first.write(p0, "aborted")
    second.write(p0, "committed")
    third.write(p0, "open")
    assert (first.end(commit=False), second.end(commit=True)) == (OK, OK)
    bench.timers.settle()
    asked = fetch(bench, {p0: 0})
    assert values(asked, {p0: 0}) == {p0: ["committed"]}
    answer = answers(asked)[p0]
    assert (answer.log_start_offset, answer.last_stable_offset, answer.high_watermark) == (0, 2, 5)
    uncommitted = answers(fetch(bench, {p0: 0}, committed=False))[p0]
    assert uncommitted.aborted_transactions is None
    assert len(uncommitted.records) > len(answer.records)


def test_errors_are_each_partitions_own(bench: Bench) -> None:
    p0, p1, p2 = bench.partitions
    missing = TopicPartition("missing", 0)
    append(bench, p0, "a")
    bench.topics.move_leader(p2, 1)
    asked = fetch(bench, {p0: 0, p1: 1, p2: 0, missing: 0})
    assert {partition: answer.error_code for partition, answer in answers(asked).items()} == {
        p0: OK,
        p1: ErrorCode.OFFSET_OUT_OF_RANGE,
        p2: ErrorCode.NOT_LEADER_OR_FOLLOWER,
        missing: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    }


def test_sizes_are_kept_to_except_for_one_batch(bench: Bench) -> None:
    p0, p1, _ = bench.partitions
    for partition in (p0, p1):
        append(bench, partition, "a" * 100)
        append(bench, partition, "b" * 100)
    size = len(batch("a" * 100))
    positions = {p0: 0, p1: 0}

    def counts(max_bytes: int, partition_max_bytes: int) -> list[int]:
        asked = fetch(bench, positions, max_bytes=max_bytes, partition_max_bytes=partition_max_bytes)
        return [len(answer.records) // size for answer in answers(asked).values()]

    assert counts(LARGE, LARGE) == [2, 2]
    assert counts(LARGE, size) == [1, 1]
    assert counts(LARGE, 1) == [1, 0]
    assert counts(1, LARGE) == [1, 0]
    assert counts(3 * size, LARGE) == [2, 1]


# --- when


def test_request_for_nothing_new_is_held_back_until_its_time_is_over(bench: Bench) -> None:
    [p0, *_] = bench.partitions
    asked = fetch(bench, {p0: 0})
    bench.timers.advance(499)
    assert asked.waits
    bench.timers.advance(1)
    assert values(asked, {p0: 0}) == {p0: []}
    append(bench, p0, "a")
    bench.timers.advance(1_000)


@pytest.mark.parametrize("body", [{"max_wait_ms": 0}, {"min_bytes": 0}, {"topics": []}])
def test_request_that_does_not_wait_is_answered_at_once(bench: Bench, body: dict[str, Any]) -> None:
    assert not fetch(bench, {bench.partitions[0]: 0}, **body).waits


def test_record_of_any_partition_ends_the_waiting_of_all_who_may_read_it(bench: Bench) -> None:
    p0, p1, _ = bench.partitions
    both, other = fetch(bench, {p0: 0, p1: 0}), fetch(bench, {p0: 0})
    append(bench, p1, "a")
    assert values(both, {p0: 0, p1: 0}) == {p0: [], p1: ["a"]}
    assert other.waits
    append(bench, p0, "b")
    assert values(other, {p0: 0}) == {p0: ["b"]}
    bench.timers.advance(1_000)


def test_request_waits_for_as_much_as_it_asks_for(bench: Bench) -> None:
    p0, p1, _ = bench.partitions
    size = len(batch("a"))
    asked = fetch(bench, {p0: 0, p1: 0}, min_bytes=2 * size)
    append(bench, p0, "a")
    assert asked.waits
    append(bench, p1, "b")
    assert values(asked, {p0: 0, p1: 0}) == {p0: ["a"], p1: ["b"]}
    patient = fetch(bench, {p0: 0}, min_bytes=2 * size)
    bench.timers.advance(500)
    assert values(patient, {p0: 0}) == {p0: ["a"]}


def test_committed_reader_waits_for_the_marker(bench: Bench) -> None:
    [p0, *_] = bench.partitions
    committed, uncommitted = fetch(bench, {p0: 0}), fetch(bench, {p0: 0}, committed=False)
    producer = bench.producer()
    producer.write(p0, "a")
    assert not uncommitted.waits
    assert producer.end(commit=True) == OK
    assert committed.waits
    bench.timers.settle()
    assert values(committed, {p0: 0}) == {p0: ["a"]}


def test_leader_that_moves_and_records_that_go_end_the_waiting(bench: Bench) -> None:
    p0, p1, _ = bench.partitions
    moving = fetch(bench, {p0: 0})
    bench.topics.move_leader(p0, 1)
    bench.topics.log(p0).wake()
    assert answers(moving)[p0].error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
    bench.producer().write(p1, "open", "open")
    going = fetch(bench, {p1: 0})
    bench.topics.log(p1).delete_before(1)
    assert answers(going)[p1].error_code == ErrorCode.OFFSET_OUT_OF_RANGE
