"""Produce, ListOffsets and DeleteRecords.

The codes are those that brokers 4.3.1 (version 2) and 3.9.2 (version 1) gave to the same requests.
"""

from __future__ import annotations

import pytest

from streamlib.errors import ErrorCode
from streamlib.kafka.by_topic import nested
from streamlib.records import TopicPartition
from tests.simulation.cluster.producing import Bench, Written, batch

OK = ErrorCode.NONE
both_versions = pytest.mark.parametrize("version", [1, 2])


def refused(code: ErrorCode) -> Written:
    return Written(code, -1)


# --- Produce


def test_each_partition_has_an_answer_of_its_own() -> None:
    bench = Bench()
    p0, p1, _ = bench.partitions
    bench.topics.move_leader(p1, 0)
    body = {
        "acks": -1,
        "timeout_ms": 1,
        "topic_data": [
            {
                "name": "t",
                "partition_data": [
                    {"index": 0, "records": batch("a", "b")},
                    {"index": 1, "records": b""},
                    {"index": 2, "records": batch("c")},
                    {"index": 9, "records": batch("d")},
                ],
            },
            {"name": "missing", "partition_data": [{"index": 0, "records": batch("e")}]},
        ],
    }
    t, missing = bench.ask("Produce", body, broker=bench.leader(p0)).answer.responses
    assert [(each.index, each.error_code, each.base_offset) for each in t.partition_responses] == [
        (0, OK, 0),
        (1, ErrorCode.INVALID_RECORD, -1),
        (2, ErrorCode.NOT_LEADER_OR_FOLLOWER, -1),
        (9, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1),
    ]
    assert missing.partition_responses[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert bench.values(p0) == ["a", "b"]


@both_versions
def test_idempotent_producer_needs_no_coordinator(version: int) -> None:
    bench = Bench(version)
    producer, [p0, *_] = bench.producer(None), bench.partitions
    assert producer.produce(p0, "a", sequence=5) == (OK, 0)
    assert producer.produce(p0, "b", sequence=6) == (OK, 1)
    assert producer.produce(p0, "a", sequence=5) == (OK, 0)
    assert producer.produce(p0, "c", sequence=8) == refused(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER)
    assert bench.values(p0) == ["a", "b"]


@both_versions
def test_transactional_batch_needs_a_transactional_id(version: int) -> None:
    bench = Bench(version)
    data = batch("a", who=(0, 0), sequence=0, transactional=True)
    topics = [{"name": "t", "partition_data": [{"index": 0, "records": data}]}]
    body = {"acks": -1, "timeout_ms": 1, "topic_data": topics}
    [topic] = bench.ask("Produce", body, broker=bench.leader(bench.partitions[0])).answer.responses
    assert topic.partition_responses[0].error_code == ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED


def test_with_kip_890_produce_begins_the_transaction() -> None:
    bench = Bench(2)
    producer, [p0, p1, _] = bench.producer(), bench.partitions
    assert producer.produce(p0, "a") == (OK, 0)
    assert producer.produce(p1, "b") == (OK, 0)
    found = bench.transactions.find("app")
    assert found is not None
    assert list(found.partitions) == [p0, p1]
    assert found.started_ms == bench.timers.now_ms()


@both_versions
def test_older_produce_does_not(version: int) -> None:
    bench = Bench(version)
    producer, [p0, *_] = bench.producer(), bench.partitions
    assert producer.produce(p0, "a", version=11) == refused(ErrorCode.TRANSACTION_ABORTABLE)
    assert producer.produce(p0, "a", version=9) == refused(ErrorCode.INVALID_TXN_STATE)
    assert producer.add_partitions(p0) == {p0: OK}
    assert producer.produce(p0, "a", version=11) == (OK, 0)
    assert producer.produce(p0, "b", version=9) == (OK, 1)


def test_first_sequence_of_a_transaction_is_zero_only_with_kip_890() -> None:
    for version, expected in ((2, refused(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER)), (1, (OK, 0))):
        bench = Bench(version)
        producer, [p0, *_] = bench.producer(), bench.partitions
        if version == 1:
            producer.add_partitions(p0)
        assert producer.produce(p0, "a", sequence=5) == expected


def test_newer_epoch_in_an_open_transaction_is_seen_through_only_with_kip_890() -> None:
    for version, expected in ((2, refused(ErrorCode.INVALID_PRODUCER_EPOCH)), (1, (OK, 1))):
        bench = Bench(version)
        producer, [p0, *_] = bench.producer(), bench.partitions
        producer.write(p0, "a")
        producer.who = (producer.who[0], producer.who[1] + 1)
        assert producer.produce(p0, "b", sequence=0) == expected


def test_late_batch_of_a_transaction_that_is_over_is_refused() -> None:
    for version, code in ((2, ErrorCode.INVALID_PRODUCER_EPOCH), (1, ErrorCode.TRANSACTION_ABORTABLE)):
        bench = Bench(version)
        producer, [p0, *_] = bench.producer(), bench.partitions
        producer.write(p0, "a")
        late = producer.twin()
        assert producer.end(commit=True) == OK
        assert late.produce(p0, "a", sequence=0) == (OK, 0), "before the marker it is there already"
        bench.timers.settle()
        assert late.produce(p0, "a", sequence=0) == refused(code)
        assert bench.values(p0) == ["a"]


def test_producer_is_told_to_wait_in_words_it_knows() -> None:
    for version, code in ((2, ErrorCode.CONCURRENT_TRANSACTIONS), (1, ErrorCode.NOT_ENOUGH_REPLICAS)):
        bench = Bench(version)
        producer, [p0, p1, _] = bench.producer(), bench.partitions
        producer.write(p0, "a")
        assert producer.end(commit=True) == OK
        assert producer.produce(p1, "b") == refused(code)
        bench.timers.settle()
        bench.coordinators.move("transaction", "app", 0, 100)
        assert producer.produce(p1, "b") == refused(ErrorCode.NOT_ENOUGH_REPLICAS)
        bench.timers.advance(100)
        producer.write(p1, "b")


# --- ListOffsets


def listed(bench: Bench, timestamp: int, *, committed: bool = True, broker: int | None = None) -> list[tuple[int, int]]:
    wanted = [{"partition_index": partition.partition, "timestamp": timestamp} for partition in bench.partitions]
    body = {"isolation_level": int(committed), "topics": [{"name": "t", "partitions": wanted}]}
    for partition in bench.partitions:
        bench.topics.move_leader(partition, 0)
    [topic] = bench.ask("ListOffsets", body, broker=broker or 0).answer.topics
    return [(each.error_code, each.offset) for each in topic.partitions]


def test_offsets_are_the_start_and_what_may_be_read() -> None:
    bench = Bench()
    p0, p1, _ = bench.partitions
    bench.topics.log(p0).append(batch("a", "b", "c"))
    bench.topics.log(p0).delete_before(1)
    bench.producer().write(p1, "open")
    assert listed(bench, -2) == [(OK, 1), (OK, 0), (OK, 0)]
    assert listed(bench, -1) == [(OK, 3), (OK, 0), (OK, 0)]
    assert listed(bench, -1, committed=False) == [(OK, 3), (OK, 1), (OK, 0)]


def test_only_the_leader_lists_offsets() -> None:
    assert listed(Bench(), -1, broker=1) == [(ErrorCode.NOT_LEADER_OR_FOLLOWER, -1)] * 3


# --- DeleteRecords


def deleted(bench: Bench, offsets: dict[TopicPartition, int]) -> list[tuple[int, int]]:
    topics = [
        {"name": topic, "partitions": [{"partition_index": tp.partition, "offset": offsets[tp]} for tp in partitions]}
        for topic, partitions in nested(offsets)
    ]
    answer = bench.ask("DeleteRecords", {"topics": topics, "timeout_ms": 1}).answer
    return [(each.error_code, each.low_watermark) for topic in answer.topics for each in topic.partitions]


def test_records_are_deleted_where_the_broker_leads() -> None:
    bench = Bench()
    p0, p1, p2 = bench.partitions
    for partition in bench.partitions:
        bench.topics.log(partition).append(batch("a", "b", "c"))
    bench.topics.move_leader(p1, 0)
    assert deleted(bench, {p0: 2, p1: -1, p2: 1}) == [(OK, 2), (OK, 3), (ErrorCode.NOT_LEADER_OR_FOLLOWER, -1)]
    assert deleted(bench, {p0: 9}) == [(ErrorCode.OFFSET_OUT_OF_RANGE, -1)]
    assert [bench.values(partition) for partition in bench.partitions] == [["c"], [], ["a", "b", "c"]]
