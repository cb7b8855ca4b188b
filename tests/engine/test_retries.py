"""What is tried again: when, in which order, what commits say meanwhile, and what a crash leaves."""

from __future__ import annotations

from collections import Counter
from contextvars import copy_context
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlib import (
    ConfigError,
    DeadLetter,
    FailedRecord,
    ProcessingError,
    PunctuationType,
    Retry,
    Skip,
    Stores,
    StreamsBuilder,
    StreamsConfig,
    TimeWindows,
    TopologyError,
)
from streamlib.engine.calls import DEEPEST, MOST_PENDING, Answer, Call
from streamlib.engine.plan import dead_letter_topics
from streamlib.engine.task import Task
from streamlib.policies import ErrorPolicies
from streamlib.records import TopicPartition
from streamlib.testing import TopologyTestDriver
from tests.engine.support import INPUT
from tests.engine.test_async_calls import STEPS, Make, World, answered, commit, fed, run, values

DEAD = TopicPartition("dead", 0)
TWICE = Retry([timedelta(seconds=1), timedelta(seconds=5)], then="fail", jitter=0)


class Flaky:
    """Raises the first few times it is called for a value: as often as the digit that the value ends with."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def __call__(self, value: str) -> str:
        self.calls[value] += 1
        if self.calls[value] <= int(value[-1]):
            raise ValueError(f"no {value}")
        return value

    async def awaited(self, value: str) -> str:
        return self(value)


def again(task: Task, *calls: Call) -> None:
    """The time of these is over."""
    for call in calls:
        task.finish(call, answered(call))


def until_done(task: Task) -> list[float]:
    """Answer calls until there are none; what each had to wait before."""
    waited = []
    while calls := task.take_calls():
        waited += [0 if call.wait is None else call.wait.delay_ms for call in calls]
        again(task, *calls)
    return waited


def mapped(on_error: Any = TWICE, *, awaited: bool = False) -> Make:
    flaky = Flaky()
    return lambda s: s.map_values(flaky.awaited if awaited else flaky, value=str, on_error=on_error, name="map")


# -- How often, and when -----------------------------------------------------------------------------------------------


def test_a_function_that_raised_is_called_again_after_each_delay() -> None:
    task = fed(mapped(), ("a", "x2"))
    assert until_done(task) == [1_000, 5_000]
    assert values(task) == ["x2"]
    assert commit(task).offset == 1


def test_an_awaited_function_is_called_again_in_its_call() -> None:
    task = fed(mapped(awaited=True), ("a", "x2"))
    assert until_done(task) == [0, 1_000, 5_000]
    assert values(task) == ["x2"]


@pytest.mark.parametrize("awaited", [False, True])
def test_when_all_tries_have_failed_the_last_resort_holds(awaited: bool) -> None:
    task = fed(mapped(awaited=awaited), ("a", "x3"))
    with pytest.raises(ProcessingError, match=r"node map: ValueError: no x3 .*offset 0"):
        until_done(task)
    task = fed(mapped(Retry(TWICE.delays, then=DeadLetter("dead")), awaited=awaited), ("a", "x3"), ("a", "y0"))
    until_done(task)
    assert values(task) == ["y0"]
    assert task.dropped == 1
    assert task.low_water_marks() == {INPUT: 2}


def test_a_dead_letter_of_what_was_tried_again_is_written_once() -> None:
    task = fed(mapped(Retry(TWICE.delays, then=DeadLetter("dead"))), ("a", "x3"))
    until_done(task)
    ((key, value, _, headers),) = task.take_outputs()[DEAD]
    assert (key, value) == (b"a", b"x3")
    assert dict(headers)["__streams.errors.node"] == b"map"


@pytest.mark.parametrize("awaited", [False, True])
def test_the_policy_of_the_configuration_holds_for_all_steps(awaited: bool) -> None:
    task = fed(mapped(None, awaited=awaited), ("a", "x2"), policies=ErrorPolicies(on_processing_error=TWICE))
    assert until_done(task)[-2:] == [1_000, 5_000]
    assert values(task) == ["x2"]


def test_an_error_below_is_not_tried_again_above() -> None:
    """Each step tries its own function; what it forwards then happens once."""
    above, below = Flaky(), Flaky()
    task = fed(
        lambda s: s.map_values(above, value=str, on_error=TWICE).map_values(below, value=str, on_error=TWICE),
        ("a", "x1"),
    )
    assert until_done(task) == [1_000, 1_000]
    assert (above.calls["x1"], below.calls["x1"]) == (2, 2)
    assert values(task) == ["x1"]


def test_a_step_below_that_is_to_fail_stops_the_task_whatever_the_steps_above_say() -> None:
    def fail(value: str) -> str:
        raise ValueError("below")

    for above in (TWICE, "skip", lambda failed: "skip"):
        builder = StreamsBuilder()
        stream = builder.stream("in", key=str, value=str).map_values(str.upper, on_error=above)
        stream.map_values(fail, on_error="fail", name="it").to("out")
        with (
            TopologyTestDriver(builder.build()) as driver,
            pytest.raises(ProcessingError, match="it: ValueError: below"),
        ):
            driver.input_topic("in", key=str, value=str).pipe_input("a", "x")


# -- Order, and what goes on meanwhile ---------------------------------------------------------------------------------


def test_records_of_the_key_wait_behind_and_others_go_on() -> None:
    task = fed(mapped(), ("a", "x1"), ("a", "y0"), ("b", "z0"), ("a", "w2"), (None, "n0"))
    assert values(task) == ["z0", "n0"]
    until_done(task)
    assert values(task) == ["x1", "y0", "w2"]


def test_records_that_wait_are_unfinished_and_commits_go_past_them() -> None:
    task = fed(mapped(), ("a", "x1"), ("b", "z0"), ("a", "y0"))
    assert not task.holds_commit
    assert commit(task).offset == 0
    again(task, *task.take_calls())
    assert commit(task).offset == 2
    until_done(task)
    assert commit(task).offset == 3


def test_a_commit_waits_where_results_are_out_already() -> None:
    task = fed(
        lambda s: s.group_by_key().count().to_stream().map_values(_fails_once(), value=str, on_error=TWICE),
        ("a", ""),
        ("b", ""),
    )
    assert task.holds_commit
    until_done(task)
    assert commit(task).offset == 2


def test_where_commits_wait_few_wait_behind_and_without_a_failure_a_slice_is_as_long_as_ever() -> None:
    make: Make = lambda s: (s.to("copy"), s.map_values(Flaky(), value=str, on_error=TWICE))[1]  # noqa: E731
    task = fed(make, *[("a", "x1")] + [("a", "y0")] * 100)
    assert task.calls_pending == DEEPEST + 1
    task = fed(make, *[("a", "y0")] * 100)
    assert len(values(task)) == 100


def test_no_more_wait_than_may() -> None:
    task = fed(mapped(), *[(None, f"{n}1") for n in range(MOST_PENDING + 100)])
    assert task.calls_pending == MOST_PENDING
    assert not task.ready(0)


def _fails_once() -> Any:
    seen: set[int] = set()

    def once(count: int) -> str:
        if count not in seen:
            seen.add(count)
            raise ValueError("the first time")
        return str(count)

    return once


# -- Steps that can ----------------------------------------------------------------------------------------------------


def _joined(stream: Any, flaky: Any, builder: StreamsBuilder) -> Any:
    return stream.join(builder.table("rows", key=str, value=str), lambda left, right: flaky(left))


def _joined_globally(stream: Any, flaky: Any, builder: StreamsBuilder) -> Any:
    rows = builder.global_table("rows", key=str, value=str, store="rows")
    return stream.left_join(rows, lambda left, right: flaky(left), key_selector=lambda key, value: key)


def _folded(stream: Any, flaky: Any, _: Any) -> Any:
    return stream.group_by_key().aggregate(str, lambda key, value, old: flaky(value), value=str).to_stream()


def _split(stream: Any, flaky: Any, _: Any) -> Any:
    return stream.split(name="s-").branch(lambda key, value: flaky(value)).no_default_branch()["s-1"]


FUNCTION_FIRST: dict[str, Any] = {
    "map": lambda s, flaky, _: s.map(lambda key, value: (key, flaky(value))),
    "flat_map": lambda s, flaky, _: s.flat_map(lambda key, value: [(key, flaky(value))]),
    "flat_map_values": lambda s, flaky, _: s.flat_map_values(lambda value: [flaky(value)]),
    "filter": lambda s, flaky, _: s.filter(lambda key, value: flaky(value)),
    "peek": lambda s, flaky, _: s.peek(lambda key, value: flaky(value)),
    "foreach": lambda s, flaky, _: (s.foreach(lambda key, value: flaky(value)), s)[1],
    "select_key": lambda s, flaky, _: s.select_key(lambda key, value: flaky(value) and key),
    "split": _split,
    "reduce": lambda s, flaky, _: s.group_by_key().reduce(lambda old, new: flaky(new)).to_stream(),
    "aggregate": _folded,
    "join": _joined,
    "global": _joined_globally,
}


@pytest.mark.parametrize("step", FUNCTION_FIRST)
def test_steps_whose_function_comes_first_try_it_again(step: str) -> None:
    builder, flaky = StreamsBuilder(), Flaky()
    FUNCTION_FIRST[step](builder.stream("in", key=str, value=str), flaky, builder).to("out", key=str, value=str)
    config = StreamsConfig(application_id="app", on_processing_error=TWICE)
    with TopologyTestDriver(builder.build(), config=config) as driver:
        if step in ("join", "global"):
            driver.input_topic("rows", key=str, value=str).pipe_input("a", "row")
        source = driver.input_topic("in", key=str, value=str)
        source.pipe_input("a", "w0")
        source.pipe_input("a", "x2")
        assert driver.output_topic("out", key=str, value=str).read_key_values() == [("a", "w0"), ("a", "x2")]
    assert flaky.calls["x2"] == 3


class Cautious:
    """A processor that may do something before it raises."""

    before: Any = staticmethod(lambda self, record: None)
    stores = (Stores.key_value_store("rows", key=str, value=str),)

    def __init__(self) -> None:
        self.calls = 0

    def init(self, context: Any) -> None:
        self.context, self.rows = context, context.state_store("rows")
        self.rows.put("init", "1")

    def process(self, record: Any) -> None:
        self.calls += 1
        assert self.rows.get("init") == "1"
        assert "init" in dict(self.rows.all())
        self.before(self, record)
        if self.calls < 3:
            raise ValueError("not yet")
        self.rows.put(record.key, record.value)
        self.context.forward(record)


def test_a_processor_that_has_done_nothing_yet_is_called_again() -> None:
    task = fed(lambda s: s.process(Cautious, key=str, value=str, on_error=TWICE), ("a", "x"), ("a", "y"), ("b", "z"))
    until_done(task)
    assert values(task) == ["x", "z", "y"]


@pytest.mark.parametrize(
    "before",
    [
        lambda self, record: self.context.forward(record),
        lambda self, record: self.rows.put("other", "row"),
        lambda self, record: self.rows.put_if_absent("other", "row"),
        lambda self, record: self.rows.delete("other"),
        lambda self, record: self.context.schedule(
            timedelta(seconds=1), PunctuationType.WALL_CLOCK_TIME, lambda now_ms: None
        ),
    ],
    ids=["forward", "put", "put_if_absent", "delete", "schedule"],
)
def test_a_processor_that_has_done_something_is_not_called_again(before: Any) -> None:
    class DoesSomething(Cautious):
        pass

    DoesSomething.before = staticmethod(before)
    retry = Retry(TWICE.delays, then="skip")
    task = fed(lambda s: s.process(DoesSomething, key=str, value=str, on_error=retry), ("a", "x"))
    assert (task.calls_pending, task.dropped) == (0, 1)


def test_steps_of_which_a_part_may_be_done_are_not_tried_again() -> None:
    calls: list[str] = []

    def add(key: str, value: str, total: str) -> str:
        calls.append(value)
        raise ValueError("no")

    windows = TimeWindows.of_size(timedelta(seconds=2), grace=timedelta(0)).advance_by(timedelta(seconds=1))
    make: Make = lambda s: s.group_by_key().windowed_by(windows).aggregate(str, add, value=str).to_stream()  # noqa: E731
    policies = ErrorPolicies(on_processing_error=Retry(TWICE.delays, then="skip"))
    task = fed(make, ("a", "x"), policies=policies)
    assert (calls, task.calls_pending, task.dropped) == (["x"], 0, 1)


# -- Functions that decide ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("awaited", [False, True])
def test_a_function_decides_about_each_failure(awaited: bool) -> None:
    told: list[FailedRecord] = []

    def decide(failed: FailedRecord) -> Any:
        told.append(failed)
        return DeadLetter("dead") if failed.value == b"bad9" else TWICE if failed.retries < 1 else "skip"

    task = fed(mapped(decide, awaited=awaited), ("a", "x1"), ("b", "bad9"), ("c", "y5"))
    until_done(task)
    taken = task.take_outputs()
    assert [value for _, value, _, _ in taken[TopicPartition("out", 0)]] == [b"x1"]
    assert [value for _, value, _, _ in taken[DEAD]] == [b"bad9"]
    seen = sorted((each.offset, each.retries) for each in told)
    assert seen == [(0, 0), (1, 0), (2, 0), (2, 1)]
    first = min(told, key=lambda each: each.offset)
    assert (first.stage, first.node, first.topic, first.partition, first.key, first.task) == (
        "processing",
        "map",
        "in",
        0,
        b"a",
        "0_0",
    )
    assert isinstance(first.error, ValueError)


@pytest.mark.parametrize(
    ("decide", "message"),
    [
        (lambda failed: 1 // 0, r"raised ZeroDivisionError"),
        (lambda failed: None, r"returned None, which is no policy"),
        (lambda failed: lambda again: "skip", r"which is no policy"),
    ],
)
def test_a_function_that_does_not_decide_stops_the_task(decide: Any, message: str) -> None:
    """Kafka Streams takes a handler that fails for one that says to fail."""
    with pytest.raises(ProcessingError, match=message):
        fed(mapped(decide), ("a", "x1"), policies=ErrorPolicies(on_processing_error="skip"))


def test_an_awaited_function_that_nobody_decides_about_is_named_with_its_record() -> None:
    make = mapped(lambda failed: None, awaited=True)
    task = fed(make, ("a", "x1"), ("b", "y1"))
    first, second = task.take_calls()
    assert (first.value, second.value) == ("x1", "y1")
    with pytest.raises(
        ProcessingError, match=r"returned None, which is no policy \[while processing topic in, .* offset 0"
    ):
        again(task, first)


# -- What is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delays": []}, "Retry needs delays"),
        ({"delays": [5]}, "Retry needs delays"),
        ({"delays": timedelta(seconds=1)}, "Retry needs delays"),
        ({"delays": [timedelta(seconds=-1)]}, "a delay is not negative"),
        ({"delays": [timedelta(1)], "then": TWICE}, "Retry: then is 'fail'"),
        ({"delays": [timedelta(1)], "jitter": 2}, "jitter is a part, from 0 to 1, not 2"),
    ],
)
def test_a_retry_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Retry(**options)


@pytest.mark.parametrize("option", ["on_deserialization_error", "on_production_error"])
def test_bytes_are_not_tried_again(option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option} cannot be Retry"):
        StreamsConfig.load({"application_id": "app", option: TWICE}, env={})
    with pytest.raises(TopologyError, match="cannot be Retry"):
        StreamsBuilder().stream("in", on_deserialization_error=TWICE)
    with pytest.raises(TopologyError, match="to: on_error cannot be Retry"):
        StreamsBuilder().stream("in").to("out", on_error=TWICE)


def test_a_policy_may_come_from_a_file() -> None:
    retry = {"type": "retry", "delays": ["PT1S", "PT5S"], "then": {"type": "dead_letter", "topic": "dead"}}
    config = StreamsConfig.load({"application_id": "app", "on_processing_error": retry}, env={})
    assert config.on_processing_error == Retry(TWICE.delays, then=DeadLetter("dead"))
    with pytest.raises(ConfigError, match="on_processing_error: Invalid value 'never'"):
        StreamsConfig.load({"application_id": "app", "on_processing_error": {"type": "never"}}, env={})


def test_a_policy_with_attributes_is_a_table_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "app.toml").write_text(
        """
        [streamlib]
        application.id = "app"
        on_processing_error = { type = "retry", delays = ["PT1S", "PT5S"], then = "skip", jitter = 0 }
        on_production_error = { type = "dead_letter", topic = "dead" }
        """
    )
    config = StreamsConfig.load(file=tmp_path / "app.toml", env={})
    assert config.on_processing_error == Retry(TWICE.delays, then="skip", jitter=0)
    assert config.on_production_error == DeadLetter("dead")


def test_topics_for_dead_letters_of_steps_are_known() -> None:
    builder = StreamsBuilder()
    stream = builder.stream("in", key=str, value=str)
    stream.map_values(str.upper, on_error=Retry(TWICE.delays, then=DeadLetter("one"))).to(
        "out", on_error=DeadLetter("two")
    )
    assert dead_letter_topics(builder.build(), ErrorPolicies()) == {"one", "two"}


# -- Crashes -----------------------------------------------------------------------------------------------------------


def _retried_alone(stream: Any) -> Any:
    return stream.map_values(Flaky(), value=str, on_error=TWICE)


def _retried_twice(stream: Any) -> Any:
    return _retried_alone(_retried_alone(stream))


def _retried_and_awaited(stream: Any) -> Any:
    return _retried_alone(stream).map_values(Flaky().awaited, on_error=TWICE, concurrency=2)


def _awaited_in_line(stream: Any) -> Any:
    return stream.map_values(Flaky().awaited, on_error=TWICE, concurrency=3, ordered="partition")


def at_once(call: Call) -> Answer:
    """The answer of a function that awaits nothing."""
    try:
        copy_context().run(call.answer().send, None)
    except StopIteration as done:
        answer: Answer = done.value
        return answer
    raise AssertionError("it awaits something")


def _retried_beside(stream: Any) -> Any:
    stream.to("dead")  # some topic that is there
    return _retried_alone(stream)


@pytest.mark.parametrize(
    "make", [_retried_alone, _retried_twice, _retried_and_awaited, _awaited_in_line, _retried_beside]
)
@settings(max_examples=60, deadline=None)
@given(
    keys=st.lists(st.sampled_from("abc"), max_size=40), steps=st.lists(STEPS, max_size=120), failing=st.integers(1, 4)
)
def test_effects_are_once_whatever_is_tried_again_and_crashes(
    make: Make, keys: list[str], steps: list[tuple[str, int | None]], failing: int
) -> None:
    records = [(key, f"{number}-{2 if number % failing == 0 else 0}") for number, key in enumerate(keys)]
    world = World(make, records, at_once)
    run(world, steps)
    expected: dict[str, list[str]] = {}
    for key, value in records:
        expected.setdefault(key, []).append(value)
    assert world.by_key == expected


def _counted_after(stream: Any) -> Any:
    return _retried_alone(stream).group_by_key().count().to_stream().map_values(str, value=str)


def _counted_before(stream: Any) -> Any:
    latest = stream.group_by_key().aggregate(str, lambda key, value, old: old + "x", value=str)
    return latest.to_stream().map_values(len, value=int).map_values(_fails_once(), value=str, on_error=TWICE)


def _aggregated(stream: Any) -> Any:
    flaky = Flaky()
    table = stream.group_by_key().aggregate(str, lambda key, value, old: flaky(value)[:0] + old + "x", value=str)
    return table.to_stream().map_values(lambda text: str(len(text)), value=str)


def _counted_by_hand(stream: Any) -> Any:
    flaky = Flaky()

    class Counts:
        stores = (Stores.key_value_store("counts", key=str, value=int),)

        def init(self, context: Any) -> None:
            self.context, self.counts = context, context.state_store("counts")

        def process(self, record: Any) -> None:
            count = (self.counts.get(record.key) or 0) + 1
            flaky(record.value)
            self.counts.put(record.key, count)
            self.context.forward(record.with_value(str(count)))

    return stream.process(Counts, key=str, value=str)


@pytest.mark.parametrize("make", [_counted_after, _counted_before, _aggregated, _counted_by_hand])
@settings(max_examples=100, deadline=None)
@given(keys=st.lists(st.sampled_from("abc"), max_size=40), steps=st.lists(STEPS, max_size=120))
def test_stores_are_written_once_whatever_is_tried_again_and_crashes(
    make: Make, keys: list[str], steps: list[tuple[str, int | None]]
) -> None:
    records = [(key, f"{number}-{number % 3}") for number, key in enumerate(keys)]
    world = World(make, records, at_once, policies=ErrorPolicies(on_processing_error=TWICE))
    run(world, steps)
    assert world.by_key == {key: [str(n + 1) for n in range(keys.count(key))] for key in set(keys)}


def test_what_waited_is_tried_anew_after_a_crash() -> None:
    world = World(_retried_alone, [("a", "x2"), ("b", "y0")])
    world.fetch(2)
    world.process(2)
    world.commit()
    assert [value for _, value, _, _ in world.results] == [b"y0"]
    world.crash()
    world.drain()
    assert [value for _, value, _, _ in world.results] == [b"y0", b"x2"]


def test_skipping_is_no_reason_to_wait() -> None:
    task = fed(mapped(Skip()), ("a", "x1"), ("a", "y0"))
    assert (values(task), task.calls_pending) == (["y0"], 0)
