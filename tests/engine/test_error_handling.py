"""Records that fail under each policy: what is dropped, what stays, what is said about it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from streamlib import (
    DeadLetter,
    Fail,
    ProcessingError,
    ProcessorContext,
    PunctuationType,
    Record,
    SerializationError,
    Skip,
    Stores,
    StreamsBuilder,
    StreamsConfig,
    TopologyError,
)
from streamlib.engine.error_handling import LOG_INTERVAL_MS
from streamlib.engine.task import Task
from streamlib.errors import ConfigError
from streamlib.policies import ErrorPolicies, PolicyOption
from streamlib.records import TaskId, TopicPartition
from streamlib.state.memory import InMemoryBackend
from streamlib.testing import TopologyTestDriver
from streamlib.topology.nodes import SourceNode
from tests.engine.support import INPUT, LONG, TEXT, Batch, Clock, Fetched, build, pairs, plan_of, sink

BAD = b"bad"
GOOD = (5).to_bytes(8, "big")
DEAD = DeadLetter("dead")


def driver_of(
    steps: Callable[[StreamsBuilder], object], decoding: PolicyOption = "fail", processing: PolicyOption = "fail"
) -> TopologyTestDriver:
    builder = StreamsBuilder()
    steps(builder)
    config = StreamsConfig(application_id="app", on_deserialization_error=decoding, on_processing_error=processing)
    return TopologyTestDriver(builder.build(), config=config)


def copy(builder: StreamsBuilder) -> None:
    builder.stream("in", key=str, value=int).to("out")


def pipe(driver: TopologyTestDriver, *values: bytes, topic: str = "in") -> None:
    for number, value in enumerate(values):
        driver.pipe(topic, (b"k", value, number, (("h", b"1"),)))


def dead(driver: TopologyTestDriver) -> list[tuple[Any, Any, int, dict[str, bytes | None]]]:
    records = driver.output_topic("dead").read_records()
    return [(each.key, each.value, each.timestamp, dict(each.headers)) for each in records]


def seen(driver: TopologyTestDriver, topic: str = "out") -> list[Any]:
    return driver.output_topic(topic, key=str, value=int).read_values()


# -- At the source ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["fail", Fail()])
def test_by_default_what_cannot_be_decoded_stops_the_task(policy: PolicyOption) -> None:
    driver = driver_of(copy, policy)
    with pytest.raises(SerializationError, match="offset 1: the record cannot be decoded"):
        pipe(driver, GOOD, BAD)


@pytest.mark.parametrize("policy", ["skip", Skip()])
def test_a_skipped_record_moves_the_offset_and_no_time(policy: PolicyOption) -> None:
    driver = driver_of(copy, policy)
    pipe(driver, GOOD)
    driver.pipe("in", (b"k", BAD, 1_000, ()))
    assert seen(driver) == [5]
    assert driver.dropped_records == 1
    [task] = driver._tasks.values()
    assert (task.stream_time, next(iter(task.positions().values()))) == (0, 2)
    assert not task.dirty


def test_a_dead_letter_is_the_record_as_it_was_and_tells_where_and_why() -> None:
    driver = driver_of(copy, DEAD)
    pipe(driver, GOOD, BAD, GOOD)
    assert seen(driver) == [5, 5]
    [(key, value, timestamp, headers)] = dead(driver)
    assert (key, value, timestamp) == (b"k", BAD, 1)
    assert headers.pop("h") == b"1"
    stacktrace = headers.pop("__streams.errors.stacktrace")
    assert headers == {
        "__streams.errors.exception": b"struct.error",
        "__streams.errors.message": b"unpack requires a buffer of 8 bytes",
        "__streams.errors.topic": b"in",
        "__streams.errors.partition": b"0",
        "__streams.errors.offset": b"1",
    }
    assert stacktrace is not None
    assert b"Traceback" in stacktrace


def test_a_source_may_differ_from_the_configuration() -> None:
    def steps(builder: StreamsBuilder) -> None:
        builder.stream("lenient", key=str, value=int, on_deserialization_error=DEAD).to("out")
        builder.table("strict", key=str, value=int, on_deserialization_error="fail").to_stream().to("more")

    driver = driver_of(steps, "skip")
    pipe(driver, BAD, topic="lenient")
    assert len(dead(driver)) == 1
    with pytest.raises(SerializationError):
        pipe(driver, BAD, topic="strict")


def test_skipping_works_with_an_extractor_and_the_extractor_does_not_see_it() -> None:
    times: list[int] = []

    def extractor(record: Any, partition_time: int) -> int:
        times.append(record.value)
        return int(record.value)

    driver = driver_of(lambda b: b.stream("in", key=str, value=int, timestamp_extractor=extractor).to("out"), "skip")
    pipe(driver, GOOD, BAD, GOOD)
    assert (seen(driver), times, driver.dropped_records) == ([5, 5], [5, 5], 1)


def test_an_extractor_that_raises_stops_the_task_whatever_the_policy() -> None:
    driver = driver_of(
        lambda b: b.stream("in", key=str, value=int, timestamp_extractor=lambda r, t: 1 // 0).to("out"), "skip", "skip"
    )
    with pytest.raises(ProcessingError, match="the timestamp extractor raised"):
        pipe(driver, GOOD)


def test_the_time_of_a_skipped_record_does_not_decide_which_input_goes_first() -> None:
    """Kafka Streams decodes a record when it becomes the first of its partition."""
    nodes = [
        SourceNode(name="source", topics=("in", "other"), key=TEXT, value=LONG),
        sink("source", value=LONG),
    ]
    plan = plan_of(build(nodes), other=1)
    policies = ErrorPolicies(on_deserialization_error="skip")
    task = Task(plan, TaskId(0, 0), InMemoryBackend(), now_ms=Clock(), max_task_idle_ms=-1, policies=policies)
    task.start({}, dict.fromkeys(task.inputs, 0))
    task.enqueue(Batch(INPUT, 2, [Fetched(0, 50, b"late", BAD), Fetched(1, 10, b"first", GOOD)]))
    task.enqueue(Batch(TopicPartition("other", 0), 1, [Fetched(0, 30, b"second", GOOD)]))
    assert task.process(10) == 3
    assert [key for key, _ in pairs(task)] == [b"first", b"second"]


def test_a_global_store_skips_what_would_be_a_dead_letter() -> None:
    def steps(builder: StreamsBuilder) -> None:
        builder.global_table("rows", key=str, value=int, store="rows")
        copy(builder)

    driver = driver_of(steps, DEAD)
    pipe(driver, BAD, GOOD, topic="rows")
    assert driver.store("rows").get("k") == 5
    assert dead(driver) == []


# -- In an operator --------------------------------------------------------------------------------------------------


def odd_only(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"{value} is even")
    return value


def test_a_record_is_dropped_at_the_operator_that_raised_and_goes_on_elsewhere() -> None:
    def steps(builder: StreamsBuilder) -> None:
        stream = builder.stream("in", key=str, value=int).flat_map_values(lambda n: [n, n + 1])
        stream.to("before")
        stream.map_values(odd_only).map_values(lambda n: n).to("out")
        stream.to("after")

    driver = driver_of(steps, processing="skip")
    pipe(driver, GOOD)
    assert [seen(driver, topic) for topic in ("before", "out", "after")] == [[5, 6], [5], [5, 6]]
    assert driver.dropped_records == 1


def test_a_dead_letter_of_an_operator_is_the_record_that_was_read() -> None:
    driver = driver_of(
        lambda b: b.stream("in", key=str, value=int).map_values(lambda n: n + 1).map_values(odd_only).to("out"),
        processing=DEAD,
    )
    pipe(driver, GOOD)
    [(key, value, _, headers)] = dead(driver)
    assert (key, value) == (b"k", GOOD)
    assert headers["__streams.errors.exception"] == b"builtins.ValueError"
    assert headers["__streams.errors.message"] == b"6 is even"


def test_what_a_processor_did_before_it_raised_stays() -> None:
    class PutsAndRaises:
        stores = (Stores.key_value_store("rows", key=str, value=int),)

        def init(self, context: ProcessorContext) -> None:
            self.context, self.rows = context, context.state_store("rows")

        def process(self, record: Record[str, int]) -> None:
            self.rows.put(record.key, record.value)
            self.context.forward(record)
            odd_only(record.value + 1)

    driver = driver_of(lambda b: b.stream("in", key=str, value=int).process(PutsAndRaises).to("out"), processing="skip")
    pipe(driver, GOOD)
    assert driver.store("rows").get("k") == 5
    assert seen(driver) == [5]


def test_a_value_that_a_store_cannot_hold_is_the_operator_s_error() -> None:
    driver = driver_of(
        lambda b: (
            b.stream("in", key=str, value=int)
            .group_by_key()
            .aggregate(lambda: "", lambda key, value, text: value, value=str, store="texts")
        ),
        processing="skip",
    )
    pipe(driver, GOOD)
    assert driver.dropped_records == 1


def test_a_result_that_a_sink_cannot_write_stops_the_task() -> None:
    driver = driver_of(
        lambda b: b.stream("in", key=str, value=int).map_values(lambda n: n).to("out", value=str), processing="skip"
    )
    with pytest.raises(SerializationError, match="cannot write the record"):
        pipe(driver, GOOD)


def test_a_sink_s_function_that_raises_drops_the_record() -> None:
    driver = driver_of(lambda b: b.stream("in", key=str, value=int).to(lambda k, v, c: str(1 // 0)), processing="skip")
    pipe(driver, GOOD)
    assert driver.dropped_records == 1


def test_a_punctuator_that_raises_is_called_again() -> None:
    calls: list[int] = []

    class Ticks:
        def init(self, context: ProcessorContext) -> None:
            context.schedule(timedelta(seconds=1), PunctuationType.WALL_CLOCK_TIME, self.tick)

        def tick(self, now_ms: int) -> None:
            calls.append(now_ms)
            raise ValueError("no")

        def process(self, record: Record[Any, Any]) -> None: ...

    driver = driver_of(lambda b: b.stream("in").process(Ticks), processing=DEAD)
    driver.advance_wall_clock(timedelta(seconds=1))
    driver.advance_wall_clock(timedelta(seconds=1))
    assert (calls, driver.dropped_records, dead(driver)) == ([1_000, 2_000], 2, [])


# -- What is said ----------------------------------------------------------------------------------------------------


def test_a_flood_of_bad_records_is_logged_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    driver = driver_of(copy, "skip")
    with caplog.at_level(logging.WARNING):
        pipe(driver, *[BAD] * 10)
        driver.advance_wall_clock(timedelta(milliseconds=LOG_INTERVAL_MS))
        pipe(driver, BAD)
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("task 0_0 skips a record: topic in, partition 0, offset 0: the record cannot be decoded")
    assert second.endswith("(9 more since the last warning)")


def test_a_dead_letter_without_a_topic_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="dead letters have nowhere to go"):
        StreamsConfig(application_id="app", on_processing_error=DeadLetter())
    with pytest.raises(ConfigError, match="dead letters cannot go to 'a topic'"):
        StreamsConfig(application_id="app", on_processing_error=DeadLetter("a topic"))
    named = StreamsConfig(
        application_id="app", on_processing_error=DeadLetter(), errors_dead_letter_queue_topic_name="dead"
    )
    assert named.error_policies.of_processing == DEAD


def test_with_a_topic_for_dead_letters_what_is_skipped_goes_there() -> None:
    config = StreamsConfig.load(
        {"application.id": "app", "on_processing_error": "skip", "errors.dead.letter.queue.topic.name": "dead"}, env={}
    )
    assert config.error_policies.of_processing == DEAD
    assert config.error_policies.of_source(None) == Fail()


def test_a_policy_is_named_when_it_is_none() -> None:
    with pytest.raises(ConfigError, match=r"on_processing_error has to be 'fail', 'skip' or a policy .*, not 'drop'"):
        StreamsConfig.load({"application_id": "app", "on_processing_error": "drop"}, env={})
    with pytest.raises(ConfigError, match=r"on_deserialization_error has to be 'fail', 'skip' or a policy .*, not 5"):
        StreamsConfig(application_id="app", on_deserialization_error=5)  # type: ignore[arg-type]
    with pytest.raises(TopologyError, match=r"on_deserialization_error is 'fail', 'skip' or a policy .*, not 5"):
        StreamsBuilder().stream("in", on_deserialization_error=5)  # type: ignore[call-overload]
