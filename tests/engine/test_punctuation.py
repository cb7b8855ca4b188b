"""Punctuators: when they are called, with what, and that what they do is committed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlib import (
    Cancellable,
    ProcessingError,
    ProcessorContext,
    PunctuationType,
    Record,
    Stores,
    StreamsBuilder,
    TopologyError,
)
from streamlib.engine.cursor import StreamTime
from streamlib.engine.punctuation import Schedule, Timeline, next_due
from streamlib.engine.task import Task
from streamlib.records import OffsetAndMetadata, RecordMetadata
from streamlib.state.memory import InMemoryBackend
from streamlib.testing import TopologyTestDriver
from streamlib.topology import operators as op
from streamlib.topology.topology import Topology
from tests.engine.support import INPUT, Clock, batch, build, outputs, processor, sink, source, task_of, timestamped

STREAM, WALL = PunctuationType.STREAM_TIME, PunctuationType.WALL_CLOCK_TIME
C37 = (42, 42, 51, 52, 61, 65, 71, 72, 95, 101, 102)


class Scheduled:
    """Runs `setup` at its init and `on_record` for each record, both with its context."""

    def __init__(
        self, setup: Callable[[ProcessorContext], object], on_record: Callable[..., object] = lambda c, r: None
    ):
        self.setup = setup
        self.on_record = on_record

    def init(self, context: ProcessorContext) -> None:
        self.context = context
        self.setup(context)

    def process(self, record: Record[str, str]) -> None:
        self.on_record(self.context, record)


def scheduling(*arguments: Any) -> Topology:
    nodes = [source(), processor("p", op.Process(lambda: Scheduled(*arguments)), "source", "rows"), sink("p")]
    return build(nodes, [timestamped("rows")])


def every(interval_ms: int, kind: PunctuationType, calls: list[Any], **options: Any) -> Callable[..., Cancellable]:
    return lambda context: context.schedule(timedelta(milliseconds=interval_ms), kind, calls.append, **options)


def feed(task: Task, *times: int, start: int = 0) -> None:
    task.enqueue(batch(INPUT, start, *(("k", "v", time) for time in times)))
    task.process(100)


def commit(task: Task, end: int = 1) -> dict[Any, OffsetAndMetadata]:
    """What a committer does; returns the offsets."""
    task.take_outputs()
    sealed = task.seal()
    task.commit(dict.fromkeys(sealed.changelog, end))
    return sealed.offsets


def dirty(task: Task) -> bool:
    """It changes between two looks, which mypy would not think of an attribute."""
    return task.dirty


def test_c37_stream_time_goes_by_a_grid_and_catches_up_at_once() -> None:
    calls: list[int] = []
    task = task_of(scheduling(every(10, STREAM, calls)))
    feed(task, *C37)
    assert calls == [42, 51, 61, 71, 95, 101]


@given(st.lists(st.integers(0, 500), min_size=1), st.integers(1, 50))
def test_stream_time_punctuates_after_the_record_that_entered_a_new_interval(times: list[int], interval: int) -> None:
    calls: list[int] = []
    feed(task_of(scheduling(every(interval, STREAM, calls))), *times)
    expected, stream_time = [], -1
    for time in times:
        if time > stream_time and (stream_time < 0 or time // interval > stream_time // interval):
            expected.append(time)
        stream_time = max(stream_time, time)
    assert calls == expected


def test_a_punctuator_runs_between_the_records_of_a_slice() -> None:
    seen: list[Any] = []
    task = task_of(scheduling(every(10, STREAM, seen), lambda c, record: seen.append(("record", record.timestamp))))
    feed(task, 5, 6, 12, 13)
    assert seen == [("record", 5), 5, ("record", 6), ("record", 12), 12, ("record", 13)]


def test_a_restart_goes_on_where_stream_time_was() -> None:
    calls: list[int] = []
    topology, backend = scheduling(every(10, STREAM, calls)), InMemoryBackend()
    task = task_of(topology, backend)
    feed(task, 42)
    committed = commit(task)
    again = task_of(topology, backend, start=False)
    again.start(committed, {})
    assert again.process(1) == again.punctuate(0) == 0
    feed(again, 49, 50, start=1)
    assert calls == [42, 50]


def test_what_is_scheduled_later_is_due_after_the_record_that_does_it() -> None:
    calls: list[int] = []
    schedule = every(10, STREAM, calls)
    task = task_of(scheduling(lambda c: None, lambda c, r: schedule(c) if r.timestamp == 7 else None))
    feed(task, 42, 7, 8, 49, 50)
    assert calls == [42, 50]


def test_the_wall_clock_calls_once_after_a_gap_and_then_at_the_next_multiple() -> None:
    calls: list[int] = []
    clock = Clock()
    clock.now_ms = 1_000
    task = task_of(scheduling(every(10, WALL, calls)), now_ms=clock)
    assert task.next_punctuation_ms == 1_010
    for now_ms in (1_009, 1_010, 1_045, 1_049, 1_050):
        task.punctuate(now_ms)
    assert calls == [1_010, 1_045, 1_050]
    assert task.next_punctuation_ms == 1_060


def test_a_start_in_the_past_is_due_at_once_and_the_grid_begins_there() -> None:
    calls: list[int] = []
    clock = Clock()
    clock.now_ms = 1_000
    task = task_of(scheduling(every(10, WALL, calls, start_ms=7)), now_ms=clock)
    task.punctuate(1_000)
    assert (calls, task.next_punctuation_ms) == ([1_000], 1_007)


def test_a_cancelled_punctuator_is_not_called_again() -> None:
    calls: list[int] = []
    handles: list[Cancellable] = []

    def stop(now_ms: int) -> None:
        calls.append(now_ms)
        handles[0].cancel()
        handles[0].cancel()

    task = task_of(scheduling(lambda c: handles.append(c.schedule(timedelta(seconds=1), WALL, stop))))
    assert [task.punctuate(now_ms) for now_ms in (1_000, 2_000)] == [1, 0]
    assert calls == [1_000]


def test_no_record_is_in_process_in_a_punctuator() -> None:
    seen: list[Any] = []

    def setup(context: ProcessorContext) -> None:
        context.schedule(
            timedelta(milliseconds=10), STREAM, lambda now: seen.append((context.record_metadata, context.headers))
        )

    task = task_of(scheduling(setup, lambda c, r: seen.append(c.record_metadata)))
    feed(task, 5)
    assert seen == [RecordMetadata("in", 0, 0), (None, ())]


def test_what_a_punctuator_writes_is_committed_though_no_position_moved() -> None:
    def setup(context: ProcessorContext) -> None:
        def punctuate(now_ms: int) -> None:
            context.state_store("rows").put("k", now_ms, now_ms)
            context.forward(Record("k", "tick", now_ms))

        context.schedule(timedelta(seconds=1), WALL, punctuate)

    task = task_of(scheduling(setup))
    assert not dirty(task)
    assert task.punctuate(1_000) == 1
    assert outputs(task) == [(b"k", b"tick", 1_000, ())]
    assert dirty(task)
    sealed = task.seal()
    [(_, _, timestamp, _)] = next(iter(sealed.changelog.values()))
    assert timestamp == 1_000
    assert sealed.offsets.keys() == {INPUT}, "a zombie has to be refused"
    task.commit(dict.fromkeys(task.changelogs, 1))
    assert not dirty(task)
    assert task.offsets() == {}


def test_an_output_alone_is_committed_after_it_was_taken() -> None:
    def setup(context: ProcessorContext) -> None:
        context.schedule(timedelta(seconds=1), WALL, lambda now: context.forward(Record("k", "v", now)))

    task = task_of(scheduling(setup))
    task.punctuate(1_000)
    assert task.take_outputs()
    assert dirty(task)
    assert commit(task).keys() == {INPUT}
    assert not dirty(task)


def test_a_punctuator_that_does_nothing_makes_nothing_to_commit() -> None:
    task = task_of(scheduling(every(10, WALL, [])))
    assert task.punctuate(10) == 1
    assert not dirty(task)


def test_an_operator_s_stream_time_moved_by_the_clock_is_committed() -> None:
    task = task_of(build([source(), sink("source")]))
    time = task._stream_times["windows"] = StreamTime()
    time.ms = 5
    assert dirty(task)
    assert commit(task).keys() == {INPUT}
    assert not dirty(task)
    time.ms = 6
    assert dirty(task)


def test_what_a_punctuator_raises_names_its_node_and_no_record() -> None:
    task = task_of(scheduling(lambda c: c.schedule(timedelta(seconds=1), STREAM, lambda now: 1 / 0)))
    with pytest.raises(ProcessingError, match="node p: a punctuator raised ZeroDivisionError") as raised:
        feed(task, 5)
    assert (raised.value.node, raised.value.offset) == ("p", None)
    with pytest.raises(AssertionError):
        task.punctuate(0)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((5, STREAM, print), {}, "interval is a datetime.timedelta"),
        ((timedelta(0), STREAM, print), {}, "interval is more than zero"),
        ((timedelta(seconds=-1), WALL, print), {}, "interval is more than zero"),
        ((timedelta(seconds=1), "stream", print), {}, "needs a PunctuationType, not 'stream'"),
        ((timedelta(seconds=1), WALL, None), {}, "schedule needs a function, not None"),
        ((timedelta(seconds=1), WALL, print), {"start_ms": -1}, "starts at a time in ms since the epoch, not -1"),
        ((timedelta(seconds=1), WALL, print), {"start_ms": timedelta(1)}, "starts at a time in ms"),
    ],
)
def test_a_wrong_schedule_is_refused(arguments: Any, options: Any, message: str) -> None:
    with pytest.raises(ProcessingError, match=message) as raised:
        task_of(scheduling(lambda c: c.schedule(*arguments, **options)))
    assert isinstance(raised.value.__cause__, TopologyError)


def test_a_processor_can_ask_for_a_commit() -> None:
    task = task_of(scheduling(lambda c: None, lambda c, r: c.commit()))
    asked = [task.commit_requested]
    feed(task, 5)
    asked.append(task.commit_requested)
    commit(task)
    asked.append(task.commit_requested)
    assert asked == [False, True, False]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 30)), max_size=12), st.lists(st.integers(0, 20)))
def test_a_timeline_calls_all_that_is_due_in_order_and_each_once(
    schedules: list[tuple[int, int]], steps: list[int]
) -> None:
    timeline, calls, now_ms = Timeline(), list[tuple[int, int]](), 0
    due: dict[int, int] = {}

    def note(number: int) -> Callable[[int], None]:
        return lambda now: calls.append((due[number], number))

    for number, (interval_ms, due_ms) in enumerate(schedules):
        due[number] = due_ms
        timeline.add(due_ms, Schedule(interval_ms, note(number)))
    for step in steps:
        now_ms += step
        expected = {number for number, due_ms in due.items() if due_ms <= now_ms}
        calls.clear()
        assert timeline.advance(now_ms) == len(expected)
        assert [at for at, _ in calls] == sorted(at for at, _ in calls)
        assert {number for _, number in calls} == expected
        for number in expected:
            due[number] = next_due(due[number], schedules[number][0], now_ms)


def test_nothing_can_be_scheduled_where_a_global_store_is_filled() -> None:
    builder = StreamsBuilder()
    rows = Stores.key_value_store("rows", key=str, value=str)
    builder.add_global_store(rows, "rows", lambda: Scheduled(every(10, WALL, [])), key=str, value=str)
    builder.stream("in").to("out")
    with pytest.raises(ProcessingError, match="nothing can be scheduled where a global store is filled"):
        TopologyTestDriver(builder.build())
