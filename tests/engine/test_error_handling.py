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
    FailedRecord,
    ProcessingError,
    ProcessorContext,
    PunctuationType,
    Record,
    RecordTooLargeError,
    Retry,
    SerializationError,
    Skip,
    Stores,
    StreamsBuilder,
    StreamsConfig,
    TimeWindows,
    TopologyError,
)
from streamlib.engine.error_handling import LOG_INTERVAL_MS
from streamlib.engine.task import Task
from streamlib.errors import ConfigError, KafkaError
from streamlib.kafka.batches import BatchBuilder
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
        "__streams.errors.node": b"KSTREAM-SOURCE-0000000000",
        "__streams.errors.application": b"app",
    }
    assert stacktrace is not None
    assert b"Traceback" in stacktrace


def test_a_dead_letter_about_as_large_as_can_be_goes_without_long_texts() -> None:
    builder = StreamsBuilder()
    builder.stream("in", key=str, value=int).to("out")
    config = StreamsConfig(application_id="app", on_deserialization_error=DEAD, max_request_size=2_000)
    with TopologyTestDriver(builder.build(), config=config) as driver:
        pipe(driver, b"x" * 1_400, b"x" * 100)
        (_, large, _, without), (_, _, _, whole) = dead(driver)
    assert large == b"x" * 1_400
    assert whole.keys() - without.keys() == {"__streams.errors.stacktrace"}


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


def decoded(headers: dict[str, bytes | None]) -> dict[str, str]:
    """What a dead letter tells, without the stack trace."""
    prefix = "__streams.errors."
    told = {name.removeprefix(prefix): (text or b"").decode() for name, text in headers.items() if prefix in name}
    told.pop("stacktrace")
    return told


# -- At the sink -----------------------------------------------------------------------------------------------------


WRONG_TYPE = "KSTREAM-SINK-0000000001 cannot write the record"


def wrongly_typed(builder: StreamsBuilder, **options: Any) -> None:
    builder.stream("in", key=str, value=int).to("out", value=str, **options)


def configured(steps: Callable[[StreamsBuilder], object], **options: Any) -> TopologyTestDriver:
    builder = StreamsBuilder()
    steps(builder)
    return TopologyTestDriver(builder.build(), config=StreamsConfig(application_id="app", **options))


def test_a_result_that_cannot_be_encoded_is_dropped_at_the_sink() -> None:
    with configured(wrongly_typed, on_production_error=DEAD, on_processing_error="fail") as driver:
        pipe(driver, GOOD)
        [(key, value, _, headers)] = dead(driver)
    assert (key, value) == (b"k", GOOD)
    told = decoded(headers)
    assert told.pop("message") == "string cannot encode int"
    assert told == {
        "exception": "builtins.TypeError",
        "topic": "in",
        "partition": "0",
        "offset": "0",
        "node": "KSTREAM-SINK-0000000001",
        "application": "app",
    }


def test_a_sink_may_differ_from_the_configuration() -> None:
    with configured(lambda b: wrongly_typed(b, on_error="skip")) as driver:
        pipe(driver, GOOD)
        assert driver.dropped_records == 1
    strict = configured(lambda b: wrongly_typed(b, on_error="fail"), on_production_error="skip")
    with strict, pytest.raises(SerializationError, match=WRONG_TYPE):
        pipe(strict, GOOD)


def test_a_sink_that_is_to_fail_stops_the_task_whatever_the_steps_above_say() -> None:
    def steps(builder: StreamsBuilder) -> None:
        stream = builder.stream("in", key=str, value=int).map_values(lambda n: n, on_error="skip")
        stream.filter(lambda key, n: True, on_error=DEAD).to("out", value=str)

    with (
        configured(steps, on_processing_error="skip") as driver,
        pytest.raises(SerializationError, match="cannot write"),
    ):
        pipe(driver, GOOD)


@pytest.mark.parametrize("chosen", [False, True])
@pytest.mark.parametrize("headers", [(), (("h", b"1"), ("none", None))])
def test_the_largest_record_is_as_large_as_the_producer_says(chosen: bool, headers: Any) -> None:
    """No byte less: what the sink lets through is what the batch takes."""
    limit = 1_000

    def steps(builder: StreamsBuilder) -> None:
        builder.stream("in", key=bytes, value=bytes).to((lambda k, v, c: "out") if chosen else "out")

    def batched(size: int) -> bool:
        batch = BatchBuilder(TopicPartition("out", 0), 0, True, limit, limit)
        try:
            return bool(batch.extend([(b"k", b"x" * size, 1_000, headers)]) == 1)
        except KafkaError:
            return False

    largest = max(size for size in range(800, limit) if batched(size))
    with configured(steps, on_production_error="skip", max_request_size=limit) as driver:
        for size in (largest + 1, largest):
            driver.pipe("in", (b"k", b"x" * size, 1_000, headers))
        assert [len(value or b"") for value in driver.output_topic("out", key=bytes, value=bytes).read_values()] == [
            largest
        ]
        assert driver.dropped_records == 1


def test_a_record_that_is_too_large_names_the_node_and_what_to_do() -> None:
    told: list[FailedRecord] = []

    def decide(failed: FailedRecord) -> Fail:
        told.append(failed)
        return Fail()

    steps = lambda b: b.stream("in", key=bytes, value=bytes).to("out", name="write", on_error=decide)  # noqa: E731
    with (
        configured(steps, max_request_size=1_000) as driver,
        pytest.raises(RecordTooLargeError, match=r"node write cannot write a record of 1,0\d\d bytes .* to out: max_r"),
    ):
        driver.pipe("in", (b"k", b"x" * 1_000, 0, ()))
    assert [(each.stage, each.node, each.topic, each.offset) for each in told] == [("production", "write", "in", 0)]
    assert isinstance(told[0].error, RecordTooLargeError)


# -- Each step for itself --------------------------------------------------------------------------------------------


def test_a_step_may_differ_from_the_configuration() -> None:
    def steps(builder: StreamsBuilder) -> None:
        stream = builder.stream("in", key=str, value=int)
        stream.map_values(odd_only, on_error=DEAD, name="first").to("out")
        stream.map_values(odd_only, on_error="skip").to("more")
        stream.map_values(lambda n: n // (n - 6), name="strict").to("most")

    with configured(steps) as driver:
        pipe(driver, (4).to_bytes(8, "big"))
        [(_, _, _, headers)] = dead(driver)
        assert headers["__streams.errors.node"] == b"first"
        assert driver.dropped_records == 2
        with pytest.raises(ProcessingError, match="node strict: ZeroDivisionError"):
            pipe(driver, (6).to_bytes(8, "big"))


def test_any_node_may_be_given_a_policy_by_its_name() -> None:
    def steps(builder: StreamsBuilder) -> None:
        stream = builder.stream("in", key=str, value=int)
        windows = TimeWindows.of_size(timedelta(seconds=1), grace=timedelta(0))
        counted = stream.group_by_key().windowed_by(windows).reduce(lambda old, new: odd_only(old), name="summed")
        counted.to_stream(lambda key, value: key.key).to("out", value=str, name="write")
        builder.topology.on_error("summed", "skip").on_error("write", DEAD).on_error(
            "KSTREAM-SOURCE-0000000000", "skip"
        )

    with configured(steps) as driver:
        pipe(driver, (4).to_bytes(8, "big"), GOOD, BAD)
        assert driver.dropped_records == 3
        [(_, value, _, headers)] = dead(driver)
        assert (value, headers["__streams.errors.node"]) == ((4).to_bytes(8, "big"), b"write")


def test_a_policy_is_for_a_node_that_is_there() -> None:
    builder = StreamsBuilder()
    builder.stream("in").to("out", name="write")
    with pytest.raises(TopologyError, match=r"node wrote: on_error: there is no such node; there are KSTREAM.*, write"):
        builder.topology.on_error("wrote", "skip")
    with pytest.raises(TopologyError, match="node write: on_error is 'fail', 'skip' or a policy"):
        builder.topology.on_error("write", "drop")  # type: ignore[arg-type]
    with pytest.raises(TopologyError, match="node write: on_error cannot be Retry"):
        builder.topology.on_error("write", Retry([timedelta(seconds=1)]))


def test_a_function_decides_about_what_cannot_be_decoded() -> None:
    told: list[FailedRecord] = []

    def decide(failed: FailedRecord) -> Any:
        told.append(failed)
        return DEAD if failed.offset == 0 else "skip" if failed.offset == 1 else "fail"

    with configured(copy, on_deserialization_error=decide) as driver:
        pipe(driver, BAD, BAD, GOOD)
        assert (len(dead(driver)), seen(driver), driver.dropped_records) == (1, [5], 2)
        with pytest.raises(SerializationError, match="offset 3"):
            pipe(driver, BAD)
    assert [(each.stage, each.node, each.value) for each in told[:1]] == [
        ("deserialization", "KSTREAM-SOURCE-0000000000", BAD)
    ]


def test_a_punctuator_s_policy_is_that_of_its_node() -> None:
    class Ticks:
        def init(self, context: ProcessorContext) -> None:
            context.schedule(timedelta(seconds=1), PunctuationType.WALL_CLOCK_TIME, self.tick)

        def tick(self, now_ms: int) -> None:
            raise ValueError("no")

        def process(self, record: Record[Any, Any]) -> None: ...

    with configured(lambda b: b.stream("in").process(Ticks, on_error="skip")) as driver:
        driver.advance_wall_clock(timedelta(seconds=1))
        assert driver.dropped_records == 1
    strict = configured(lambda b: b.stream("in").process(Ticks, on_error="fail"), on_processing_error="skip")
    with strict, pytest.raises(ProcessingError, match="a punctuator raised ValueError"):
        strict.advance_wall_clock(timedelta(seconds=1))


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


def test_where_a_dead_letter_goes_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    driver = driver_of(copy, DEAD)
    with caplog.at_level(logging.WARNING):
        pipe(driver, BAD)
    (record,) = caplog.records
    assert record.getMessage().startswith("task 0_0 writes a dead letter to dead: topic in, partition 0, offset 0: ")


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
    with pytest.raises(
        TopologyError, match=r"on_deserialization_error is 'fail', 'skip' or a policy .*, not <function"
    ):
        StreamsBuilder().stream("in", on_deserialization_error=_awaited)  # type: ignore[arg-type]
    with pytest.raises(TopologyError, match=r"map: on_error is 'fail', 'skip' or a policy .*, not <class"):
        StreamsBuilder().stream("in").map(lambda key, value: (key, value), on_error=Skip, name="map")
    with pytest.raises(TopologyError, match=r"on_deserialization_error is 'fail', 'skip' or a policy .*, not 5"):
        StreamsBuilder().stream("in", on_deserialization_error=5)  # type: ignore[call-overload]


async def _awaited(failed: FailedRecord) -> Any: ...
