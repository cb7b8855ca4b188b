"""What a task commits for a join of streams."""

from __future__ import annotations

from datetime import timedelta

from streamlib import JoinWindows, StreamsBuilder
from streamlib.engine.inputs import decode_metadata
from streamlib.engine.task import Task
from streamlib.records import TaskId, TopicPartition
from streamlib.state.memory import InMemoryBackend
from tests.engine.support import Clock, batch, plan_of

LEFT, RIGHT = TopicPartition("left", 0), TopicPartition("right", 0)
WAITING = "KSTREAM-OUTERSHARED-0000000004-store"


def joining_task() -> Task:
    builder = StreamsBuilder()
    left, right = (builder.stream(topic, key=str, value=str) for topic in ("left", "right"))
    windows = JoinWindows.of_time_difference(timedelta(milliseconds=10), grace=timedelta(0))
    left.outer_join(right, lambda one, other: f"{one}+{other}", windows).to("out")
    plan = plan_of(builder.build(), left=1, right=1)
    task = Task(plan, TaskId(0, 0), InMemoryBackend(), now_ms=Clock(), max_task_idle_ms=-1)
    task.start({}, dict.fromkeys(task.inputs, 0))
    return task


def committed(task: Task, partition: TopicPartition, time: int) -> dict[TopicPartition, dict[str, int]]:
    """The operators' times that are committed with each input, after one more record."""
    task.enqueue(batch(partition, task.positions()[partition], (partition.topic, "v", time)))
    task.process(1)
    task.take_outputs()
    before = task.restore_positions()
    sealed = task.seal()
    task.commit({changelog: (before[changelog] or 0) + len(new) for changelog, new in sealed.changelog.items()})
    return {
        partition: dict(decode_metadata(offset.metadata).stream_times) for partition, offset in sealed.offsets.items()
    }


def test_a_time_that_goes_back_is_told_by_all_inputs() -> None:
    task = joining_task()
    earliest = f"{WAITING}-earliest"
    assert committed(task, LEFT, 100) == {LEFT: {WAITING: 100, earliest: 100}}
    assert committed(task, LEFT, 101) == {LEFT: {WAITING: 101, earliest: 100}}
    times = {WAITING: 101, earliest: 95}
    assert committed(task, RIGHT, 95) == {LEFT: times, RIGHT: times}
    assert committed(task, RIGHT, 103) == {RIGHT: {WAITING: 103, earliest: 95}}
