"""Ready timestamp extractors: with whose clock, and where none helps."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest

from streamlib import (
    FailOnInvalidTimestamp,
    LogAndSkipOnInvalidTimestamp,
    StreamsBuilder,
    UsePartitionTimeOnInvalidTimestamp,
)
from streamlib.engine.plan import make_plan
from streamlib.engine.task import Task
from streamlib.errors import SerializationError, TopologyError
from streamlib.policies import ErrorPolicies, Skip
from streamlib.records import TaskId
from streamlib.state.memory import InMemoryBackend
from tests.engine.support import INPUT, OUTPUT, Clock, batch

HOUR = timedelta(hours=1)
HOUR_MS = 3_600_000


def task_of(extractor: Any, clock: Clock | None = None, **options: Any) -> Task:
    builder = StreamsBuilder()
    builder.stream("in", key=str, value=str, timestamp_extractor=extractor).to("out")
    plan = make_plan(builder.build(), "app", {"in": 1, "out": 1})
    task = Task(plan, TaskId(0, 0), InMemoryBackend(), now_ms=clock or Clock(), max_task_idle_ms=-1, **options)
    task.start({}, {INPUT: 0})
    return task


def times(task: Task, *timestamps: int) -> list[int]:
    task.enqueue(batch(INPUT, 0, *(("k", "v", timestamp) for timestamp in timestamps)))
    task.process(100)
    return [timestamp for _, _, timestamp, _ in task.take_outputs().get(OUTPUT, ())]


def test_how_far_ahead_a_time_may_be_moves_with_the_clock() -> None:
    clock = Clock()
    task = task_of(LogAndSkipOnInvalidTimestamp(HOUR), clock)
    assert times(task, HOUR_MS, HOUR_MS + 1) == [HOUR_MS]
    clock.now_ms = 1
    task.enqueue(batch(INPUT, 2, ("k", "v", HOUR_MS + 1)))
    task.process(100)
    assert len(task.take_outputs()[OUTPUT]) == 1
    assert task.dropped == 1


def test_a_time_of_the_future_stops_the_task_whatever_the_policy_if_that_is_said() -> None:
    policies = ErrorPolicies(on_processing_error=Skip(), on_deserialization_error=Skip())
    task = task_of(FailOnInvalidTimestamp(HOUR), policies=policies)
    with pytest.raises(SerializationError, match=rf"no valid timestamp \({HOUR_MS + 1}\)") as caught:
        times(task, 5, HOUR_MS + 1)
    assert (caught.value.offset, caught.value.node) == (1, "KSTREAM-SOURCE-0000000000")


def test_there_is_no_partition_time_before_the_first_record() -> None:
    with pytest.raises(SerializationError, match="none before it to take the time of"):
        times(task_of(UsePartitionTimeOnInvalidTimestamp()), -1, 5)


def test_a_flood_of_records_without_a_time_is_logged_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    assert times(task_of(LogAndSkipOnInvalidTimestamp()), *[-1] * 100, 7) == [7]
    assert len(caplog.records) == 1
    assert "leaves out a record" in caplog.text


@pytest.mark.parametrize("kind", [FailOnInvalidTimestamp, LogAndSkipOnInvalidTimestamp])
def test_how_far_ahead_is_a_length_of_time(kind: Any) -> None:
    with pytest.raises(TopologyError, match=rf"{kind.__name__}: max_ahead is a datetime.timedelta"):
        kind(3600)
