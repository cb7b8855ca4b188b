"""The tasks of a workload on all its partitions, without a broker: work, commits and crashes in a random order.

A commit is atomic and nothing else is ever seen of it. Some ways to break that, the bugs, are for tests of checks.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

from streamlib.engine.calls import Call
from streamlib.engine.global_state import GlobalState
from streamlib.engine.plan import make_plan
from streamlib.engine.task import NEVER_WAIT, Task
from streamlib.records import OffsetAndMetadata, OutRecord, TaskId, TopicPartition
from streamlib.simulation.loop import VirtualTimeLoop
from streamlib.simulation.workloads import Input, Seen, Workload
from streamlib.state.memory import InMemoryBackend
from streamlib.topology.nodes import StoreSpec
from tests.engine.support import Batch, Fetched

Bug: TypeAlias = Literal[
    "an output is lost",
    "an output is written twice",
    "a record is passed over",
    "a record is processed twice",
    "the state is lost",
    "the state is ahead",
    "the state is behind",
    "stream time is lost",
]
BUGS: tuple[Bug, ...] = get_args(Bug)

EVERYTHING = 1_000
PLAIN = ("key_value", "timestamped_key_value")


class Log:
    """One partition; control markers take offsets here and there."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.records: list[tuple[int, OutRecord]] = []
        self.end = 0

    def append(self, records: Sequence[OutRecord]) -> None:
        for record in records:
            self.records.append((self.end, record))
            self.end += 1
        self.end += self._rng.random() < 0.3

    def batch(self, partition: TopicPartition, start: int, most: int) -> Batch:
        """Up to so many records from an offset on."""
        following = [(offset, record) for offset, record in self.records if offset >= start]
        chosen = following[:most]
        end = following[most][0] if len(following) > most else self.end
        return Batch(partition, end, [_fetched(offset, record) for offset, record in chosen])


class Tasks:
    """Runs a workload once; `bug` happens at random moments. The inputs are the same for all runs of a seed."""

    def __init__(
        self, workload: Workload, seed: int, *, inputs: int = 40, bug: Bug | None = None, crashes: bool = True
    ) -> None:
        self._workload = workload
        self._rng = rng = random.Random(seed)
        self._bug = bug
        self._crashes = crashes
        self._plan = make_plan(workload.topology(), "app", workload.topics)
        self._topics = {*workload.topics, *self._plan.partition_counts}
        self.logs: dict[TopicPartition, Log] = {}
        self.committed: dict[TopicPartition, OffsetAndMetadata] = {}
        self._earlier: dict[TopicPartition, OffsetAndMetadata] = {}  # what was committed before
        self._fetched: dict[TopicPartition, int] = {}
        drawn = workload.inputs(rng, inputs)
        self._prepared = [each for each in drawn if each.partition.topic in workload.prepared]
        self._coming = [each for each in drawn if each.partition.topic not in workload.prepared]
        self._coming.reverse()
        self.tasks: dict[TaskId, Task] = {}
        self._under_way: dict[TaskId, list[Call]] = defaultdict(list)

    def run(self) -> Seen:
        for each in self._prepared:
            self._write(each)
        global_state = self._fill_global_state()
        for task_id in self._plan.tasks:
            task = self.tasks[task_id] = Task(
                self._plan,
                task_id,
                InMemoryBackend(),
                now_ms=lambda: 0,
                max_task_idle_ms=NEVER_WAIT,
                global_stores=global_state.stores,
            )
            self._start(task)
        while self._coming:
            self._step()
        while sum(self._drain(task) for task in self.tasks.values()) > 0:
            pass
        return self.seen()

    def seen(self) -> Seen:
        logs = {partition: log.records for partition, log in self.logs.items()}
        inputs = {each.partition.topic for each in (*self._prepared, *self._coming)} | self._plan.topics
        inputs = {topic for topic in inputs if topic in self._workload.topics and topic not in self._workload.outputs}
        inputs |= set(self._workload.prepared)
        stores: dict[str, dict[bytes, bytes]] = {}
        for task in self.tasks.values():
            for spec in self._plan.stores(task.id):
                if spec.kind in PLAIN:
                    stores.setdefault(spec.name, {}).update(task.backend.scan(spec.name, None, None))
        return Seen(
            {partition: records for partition, records in logs.items() if partition.topic in inputs},
            {partition: records for partition, records in logs.items() if partition.topic not in inputs},
            stores,
        )

    def stores(self) -> list[tuple[Task, StoreSpec, TopicPartition]]:
        """All stores that have a changelog, and its partition."""
        return [
            (task, next(spec for spec in self._plan.stores(task.id) if spec.name == store), partition)
            for task in self.tasks.values()
            for partition, store in task.changelogs.items()
        ]

    def log(self, partition: TopicPartition) -> Log:
        return self.logs.setdefault(partition, Log(self._rng))

    def _step(self) -> None:
        task = self._rng.choice(list(self.tasks.values()))
        match self._rng.choices(("write", "work", "commit", "crash"), (5, 8, 3, 1))[0]:
            case "write" if self._coming:
                self._write(self._coming.pop())
            case "work":
                self._work(task, self._rng.randint(1, 4))
            case "commit":
                self._commit(task)
            case "crash" if self._crashes:
                self._crash(task)

    def _write(self, each: Input) -> None:
        self.log(each.partition).append([each.record])

    def _fill_global_state(self) -> GlobalState:
        state = GlobalState(self._plan, InMemoryBackend(), now_ms=lambda: 0)
        state.start()
        for partition in state.partitions:
            state.apply(self.log(partition).batch(partition, 0, EVERYTHING))
        return state

    def _work(self, task: Task, most: int) -> int:
        """Let a task have what there is, and process some of it; how many were processed."""
        for partition in task.inputs:
            if self._rng.random() < 0.8 or most == EVERYTHING:
                batch = self.log(partition).batch(partition, self._fetched[partition], most)
                if batch.next_offset > self._fetched[partition]:
                    task.enqueue(batch)
                    self._fetched[partition] = batch.next_offset
        processed = task.process(most)
        self._answer(task, everything=most == EVERYTHING)
        return processed

    def _answer(self, task: Task, *, everything: bool) -> None:
        """Have calls come back, in any order."""
        calls = self._under_way[task.id]
        calls += task.take_calls()
        while calls and (everything or self._rng.random() < 0.7):
            call = calls.pop(self._rng.randrange(len(calls)))
            loop = VirtualTimeLoop(random.Random(0))
            task.finish(call, loop.run_until_complete(call.answer()))
            loop.close()
            calls += task.take_calls()

    def _drain(self, task: Task) -> int:
        processed = self._work(task, EVERYTHING)
        self._commit(task)
        return processed

    def _commit(self, task: Task) -> None:
        if not task.dirty or task.holds_commit:
            return
        task.flush()
        for partition, records in task.take_outputs().items():
            self.log(partition).append(self._damaged(records))
        sealed = task.seal()
        for partition, records in sealed.changelog.items():
            self.log(partition).append(records)
        self._earlier.update({p: at for p, at in self.committed.items() if p in sealed.offsets})
        self.committed.update(sealed.offsets)
        task.commit({partition: self.log(partition).end for partition in sealed.changelog})

    def _damaged(self, records: list[OutRecord]) -> list[OutRecord]:
        if self._bug == "an output is lost" and self._rng.random() < 0.2:
            return records[:-1]
        if self._bug == "an output is written twice" and self._rng.random() < 0.2:
            return [*records, records[-1]]
        return records

    def _crash(self, task: Task) -> None:
        """And start again, with the disk or without."""
        if self._bug == "the state is ahead":
            changes = {spec.name: task.store(spec.name).overlay.changes for spec in self._plan.stores(task.id)}
            task.backend.write(changes, {})
        task.rollback()
        self._under_way[task.id].clear()
        if self._rng.random() < 0.5 or self._bug in ("the state is lost", "the state is behind"):
            self._lose_disk(task)
        self._start(task)

    def _lose_disk(self, task: Task) -> None:
        task.backend = InMemoryBackend()
        task.restore_positions()
        for partition in task.changelogs:
            batch = self.log(partition).batch(partition, 0, EVERYTHING)
            if self._bug == "the state is behind":
                batch = batch._replace(content=batch.content[:-1])
            if self._bug != "the state is lost":
                task.restore(batch)

    def _start(self, task: Task) -> None:
        committed = {p: self.committed[p] for p in task.inputs if p in self.committed}
        if self._bug == "a record is processed twice":
            committed = {p: self._earlier.get(p, at) for p, at in committed.items()}
        if self._bug == "a record is passed over":
            committed = {p: at._replace(offset=min(at.offset + 1, self.log(p).end)) for p, at in committed.items()}
        if self._bug == "stream time is lost":
            committed = {p: at._replace(metadata="") for p, at in committed.items()}
        task.start(committed, {p: 0 for p in task.inputs if p not in committed})
        self._fetched.update(task.positions())


def _fetched(offset: int, record: OutRecord) -> Fetched:
    key, value, timestamp, headers = record
    return Fetched(offset, timestamp, key, value, headers)
