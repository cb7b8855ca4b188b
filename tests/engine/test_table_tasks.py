"""Joined and regrouped tables across the loss of a task's disk: what the changelogs hold is enough to go on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import pytest

from streamlib import KTable, StreamsBuilder
from streamlib.engine.plan import Plan, make_plan
from streamlib.engine.task import Task
from streamlib.records import OffsetAndMetadata, OutRecord, TaskId, TopicPartition
from streamlib.serdes import Serdes
from streamlib.state.memory import InMemoryBackend
from streamlib.topology.changes import changes_of
from tests.engine.support import Batch, Clock, Fetched, batch, outputs

GROUPED = TopicPartition("app-sums-repartition", 0)
CHANGES = changes_of(Serdes.long())


def plan(steps: Callable[[StreamsBuilder], KTable[str, int]]) -> Plan:
    builder = StreamsBuilder()
    steps(builder).to_stream().to("out")
    return make_plan(builder.build(), "app", {"in": 1, "left": 1, "right": 1, "out": 1})


def task_of(plan: Plan, task_id: TaskId) -> Task:
    return Task(plan, task_id, InMemoryBackend(), now_ms=Clock(), max_task_idle_ms=-1)


class Changelogs:
    """Everything a task's stores have written, and where its inputs were."""

    def __init__(self) -> None:
        self.records: dict[TopicPartition, list[OutRecord]] = defaultdict(list)
        self.committed: dict[TopicPartition, OffsetAndMetadata] = {}

    def on_another_worker(self, plan: Plan, task: Task) -> Task:
        """Commits the task and goes on with a copy of it that has only the changelogs and the committed offsets."""
        copy = task_of(plan, task.id)
        sealed = task.seal()
        for partition, records in sealed.changelog.items():
            self.records[partition] += records
        for partition, records in self.records.items():
            fetched = [
                Fetched(offset, timestamp, key, value) for offset, (key, value, timestamp, _) in enumerate(records)
            ]
            copy.restore(Batch(partition, len(fetched), fetched))
        self.committed.update(sealed.offsets)
        copy.start(self.committed, {partition: 0 for partition in task.inputs if partition not in self.committed})
        return copy


def changes(start: int, *records: tuple[str, int | None, int | None, int]) -> Batch:
    """Records of the repartition topic: group, new value, old value, timestamp."""
    fetched = [
        Fetched(start + n, timestamp, group.encode(), CHANGES.encode((new, old)))
        for n, (group, new, old, timestamp) in enumerate(records)
    ]
    return Batch(GROUPED, start + len(fetched), fetched)


def shown(records: list[OutRecord]) -> list[tuple[str, int | None, int]]:
    return [
        (key.decode(), None if value is None else Serdes.long().decode(value), timestamp)
        for key, value, timestamp, _ in records
        if key is not None
    ]


def test_an_aggregate_goes_on_from_its_changelog() -> None:
    def sums(builder: StreamsBuilder) -> KTable[str, int]:
        rows = builder.table("in", key=str, value=int)
        grouped = rows.group_by(lambda key, value: ("odd" if value % 2 else "even", value))
        return grouped.reduce(lambda total, value: total + value, lambda total, value: total - value, store="sums")

    the_plan, changelogs = plan(sums), Changelogs()
    task = task_of(the_plan, TaskId(1, 0))
    task.start({}, {GROUPED: 0})
    task.enqueue(changes(0, ("odd", 1, None, 20), ("odd", 5, None, 10), ("even", 2, None, 10)))
    task.process(9)
    assert shown(outputs(task)) == [("odd", 1, 20), ("odd", 6, 20), ("even", 2, 10)]
    task = changelogs.on_another_worker(the_plan, task)
    task.enqueue(changes(3, ("odd", None, 1, 15), ("even", 4, 2, 30)))
    task.process(9)
    assert shown(outputs(task)) == [("odd", 5, 20), ("even", 4, 30)]


@pytest.mark.parametrize("store", [None, "joined"])
def test_a_join_goes_on_from_the_changelogs_of_both_sides(store: str | None) -> None:
    def joined(builder: StreamsBuilder) -> KTable[str, int]:
        left = builder.table("left", key=str, value=str)
        right = builder.table("right", key=str, value=str)
        return left.outer_join(right, lambda x, y: len(x or "") * 10 + len(y or ""), result=int, store=store)

    left, right = TopicPartition("left", 0), TopicPartition("right", 0)
    the_plan, changelogs = plan(joined), Changelogs()
    task = task_of(the_plan, TaskId(0, 0))
    task.start({}, {left: 0, right: 0})
    task.enqueue(batch(left, 0, ("k", "a", 20)))
    task.process(9)
    assert shown(outputs(task)) == [("k", 10, 20)]
    task = changelogs.on_another_worker(the_plan, task)
    task.enqueue(batch(right, 0, ("k", "bb", 5), ("k", None, 7)))
    task.process(9)
    assert shown(outputs(task)) == [("k", 12, 20), ("k", 10, 20)]
    task = changelogs.on_another_worker(the_plan, task)
    task.enqueue(batch(left, 1, ("k", None, 21), ("k", None, 22)))
    task.process(9)
    assert shown(outputs(task)) == [("k", None, 21)]  # the second finds nothing old, nothing new, and no other side
