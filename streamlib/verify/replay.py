"""Replays what an application has processed, in memory, with the tasks that run in production.

    inputs --in some order--> tasks --> records for topics: what should be there
                     ^                |
                     +-- repartition topics, each record with the place of the input it comes from
                                      +--> the last change of each row: what changelogs should say

Which record of one partition met which of another is not known, so the same inputs are replayed in several orders
(`TRIALS`): by time, as in a run that was never behind, then one partition after the other, forwards and backwards, so
that any two records of different partitions have met both ways. The clock stands somewhere else each time and never
moves: what depends on it differs from replay to replay, and punctuators on the wall clock are not called.

What is written to a repartition topic and not processed yet is held back. Of several records that are the same it is
the last ones; how many there will be is known when a replay is over, so that one is done again if it matters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from typing import NamedTuple, TypeAlias

import msgspec

from streamlib.config import StreamsConfig
from streamlib.engine.calls import Answer
from streamlib.engine.global_state import GlobalState
from streamlib.engine.operators.site import OpenStore
from streamlib.engine.plan import Plan
from streamlib.engine.record_cache import CacheBudget
from streamlib.engine.task import NEVER_WAIT, Task
from streamlib.errors import StreamsError
from streamlib.records import FetchedBatch, FetchedRecord, Headers, OutRecord, TaskId, TopicPartition
from streamlib.state.memory import InMemoryBackend
from streamlib.verify.history import History, Part
from streamlib.verify.orders import Alternating, ByTime, InTurn, Queue
from streamlib.verify.results import Place, Records, Shape
from streamlib.verify.withheld import Withheld

Source: TypeAlias = tuple[TopicPartition, TaskId | None]
"""Where records of a task come from: a partition, and for internal topics the task that wrote them."""

_STEP_RECORDS = 200


class Trial(msgspec.Struct, frozen=True):
    """One way to replay.

    Attributes:
        order: makes the queue that says which records are next.
        clock_ms: where the wall clock stands.
        first_offset: of repartition topics; which offsets their records had is not known.
        cached: with record caches that hold all they may; without any if not.
        commit_every: after so many records of a task its stores are written.
    """

    order: Callable[[], Queue]
    clock_ms: int
    first_offset: int
    cached: bool
    commit_every: int


TRIALS = (
    Trial(ByTime, clock_ms=0, first_offset=0, cached=False, commit_every=100),
    Trial(InTurn, clock_ms=1_000_000_000_000, first_offset=1 << 40, cached=False, commit_every=7),
    Trial(Alternating, clock_ms=2_000_000_000_000, first_offset=1 << 39, cached=False, commit_every=10),
    Trial(
        partial(InTurn, backwards=True),
        clock_ms=3_000_000_000_000,
        first_offset=1 << 41,
        cached=True,
        commit_every=1 << 62,
    ),
)
"""They differ in all that a run is free to do otherwise."""


class Outcome(msgspec.Struct):
    """What a replay has led to.

    Attributes:
        results: records for topics, dead letters among them; not those for repartition topics.
        changes: the last change of each row, by changelog.
        writers: for each topic, the subtopologies that have written to it.
        sources: for each task, where its records came from.
        dropped: how many records each task has dropped, those that were late among them.
        wall_clock: subtopologies that have asked to be called by the wall clock.
        unexplained: records that wait in repartition topics and were not written in the replay.
        failure: what ended the replay early.
    """

    results: Records
    changes: Records
    writers: dict[str, set[int]] = {}
    sources: dict[TaskId, set[Source]] = {}
    dropped: dict[TaskId, int] = {}
    wall_clock: set[int] = set()
    unexplained: Mapping[TopicPartition, list[FetchedRecord]] = {}
    failure: StreamsError | None = None


class Replay:
    """An application's plan and history, to be tried out.

    Args:
        plan: on the partitions there are.
        config: the application's.
        history: what it has processed.
        shapes: how the records of a topic are compared, if not as a whole.
    """

    def __init__(
        self, plan: Plan, config: StreamsConfig, history: History, shapes: Mapping[str, Shape] | None = None
    ) -> None:
        self._plan = plan
        self._config = config
        self._history = history
        self._shapes = shapes or {}

    def run(self, trial: Trial) -> Outcome:
        """Replay all of it in one order."""
        steps = self.steps(trial)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                outcome: Outcome = done.value
                return outcome

    def steps(self, trial: Trial) -> Generator[int, None, Outcome]:
        """The same, bit by bit: yields how many records were processed since it last did."""
        withheld = Withheld(self._history.pending)
        outcome = yield from self._steps(trial, withheld)
        if withheld.ambiguous:
            outcome = yield from self._steps(trial, withheld.again())
        return outcome

    def _steps(self, trial: Trial, withheld: Withheld) -> Generator[int, None, Outcome]:
        outcome = Outcome(Records(self._shapes), Records(self._shapes, only_last=True))
        try:
            run = _Run(self._plan, self._config, self._history, trial, withheld, outcome)
            run.start()
            for done, _ in enumerate(run.work(), start=1):
                if done % _STEP_RECORDS == 0:
                    yield _STEP_RECORDS
            run.close()
        except StreamsError as error:
            outcome.failure = error
        outcome.unexplained = withheld.unexplained()
        return outcome


class _Run:
    """One replay under way."""

    def __init__(
        self, plan: Plan, config: StreamsConfig, history: History, trial: Trial, withheld: Withheld, outcome: Outcome
    ) -> None:
        self._plan = plan
        self._config = config
        self._history = history
        self._trial = trial
        self._withheld = withheld
        self._outcome = outcome
        self._global: GlobalState | None = None
        self._tasks: dict[TaskId, Task] = {}
        self._uncommitted: Counter[TaskId] = Counter()
        self._changelog_ends: Counter[TopicPartition] = Counter()
        self._origins: dict[TopicPartition, list[Place | None]] = {}  # of each record of a repartition topic
        self._queue = trial.order()

    def start(self) -> None:
        """Make the tasks, fill the global stores, and put all inputs where they are waited for."""
        stores = self._global_stores()
        budget = CacheBudget(self._config.statestore_cache_max_bytes if self._trial.cached else 0)
        inputs = self._history.inputs
        for task_id in self._plan.tasks:
            task = self._tasks[task_id] = self._task(task_id, budget, stores)
            task.start({}, {p: inputs[p].start if p in inputs else self._trial.first_offset for p in task.inputs})
            self._watch_the_clock(task)
        for partition, consumed in inputs.items():
            for batch in consumed.batches if partition.topic in self._plan.topics else ():
                self._deliver(batch, None)

    def _global_stores(self) -> Mapping[str, OpenStore]:
        if not self._plan.global_stores:
            return {}
        policies, clock_ms = self._config.error_policies, self._trial.clock_ms
        self._global = GlobalState(self._plan, InMemoryBackend(), now_ms=lambda: clock_ms, policies=policies)
        self._global.start()
        for partition in self._plan.global_inputs:
            for batch in self._history.inputs[partition].batches:
                self._global.apply(batch)
        return self._global.stores

    def _task(self, task_id: TaskId, budget: CacheBudget, global_stores: Mapping[str, OpenStore]) -> Task:
        clock_ms = self._trial.clock_ms
        return Task(
            self._plan,
            task_id,
            InMemoryBackend(),
            now_ms=lambda: clock_ms,
            max_task_idle_ms=NEVER_WAIT,
            max_value_bytes=self._config.max_row_bytes,
            global_stores=global_stores,
            cache_budget=budget,
            policies=self._config.error_policies,
        )

    def work(self) -> Iterator[None]:
        """Process until nothing is left, caches included; yields after each record."""
        while (task := self._queue.next() or self._next_after_commit()) is not None:
            self._process(task)
            yield

    def close(self) -> None:
        """Let processors close what they have."""
        for task in self._tasks.values():
            self._outcome.dropped[task.id] = task.dropped
            task.close()
        if self._global is not None:
            self._global.close()

    def _next_after_commit(self) -> Task | None:
        """What caches let go may have to be processed in turn."""
        for task in self._tasks.values():
            self._commit(task)
        return self._queue.next()

    def _process(self, task: Task) -> None:
        before = task.positions()
        task.process(1)
        _tried_again(task)
        after = task.positions()
        moved = next((partition for partition in before if before[partition] != after[partition]), None)
        self._watch_the_clock(task)
        self._take_outputs(task, None if moved is None else self._origin(moved, before[moved]))
        self._uncommitted[task.id] += 1
        if self._uncommitted[task.id] >= self._trial.commit_every:
            self._commit(task)

    def _watch_the_clock(self, task: Task) -> None:
        if task.next_punctuation_ms is not None:
            self._outcome.wall_clock.add(task.id.subtopology)

    def _origin(self, partition: TopicPartition, offset: int) -> Place | None:
        """The record of an input topic that a record comes from."""
        origins = self._origins.get(partition)
        return Place(partition, offset) if origins is None else origins[offset - self._trial.first_offset]

    def _commit(self, task: Task) -> None:
        task.flush()
        while _tried_again(task):
            task.flush()
        self._take_outputs(task, None)
        changes = task.seal().changelog
        for partition, records in changes.items():
            self._changelog_ends[partition] += len(records)
            for record in records:
                self._outcome.changes.add(partition, record, None)
            self._outcome.writers.setdefault(partition.topic, set()).add(task.id.subtopology)
        task.commit({partition: self._changelog_ends[partition] for partition in changes})
        self._uncommitted[task.id] = 0

    def _take_outputs(self, task: Task, origin: Place | None) -> None:
        if missing := task.missing_topics():
            task.learn_partitions({topic: self._history.partition_counts.get(topic, 1) for topic in missing})
        for partition, records in task.take_outputs().items():
            if partition.topic in self._plan.repartition_topics:
                self._pass_on(task, partition, records, origin)
                continue
            self._outcome.writers.setdefault(partition.topic, set()).add(task.id.subtopology)
            for record in records:
                self._outcome.results.add(partition, record, origin)

    def _pass_on(self, task: Task, partition: TopicPartition, records: list[OutRecord], origin: Place | None) -> None:
        """To the task that reads the repartition topic, but for what is not processed yet."""
        origins = self._origins.setdefault(partition, [])
        passing = [record for record in records if self._withheld.passes(partition, record)]
        if not passing:
            return
        first = self._trial.first_offset + len(origins)
        origins += [origin] * len(passing)
        fetched = [_Passed(first + n, *record) for n, record in enumerate(passing)]
        self._deliver(Part(partition, first + len(passing), fetched), task.id)

    def _deliver(self, batch: FetchedBatch, writer: TaskId | None) -> None:
        task = self._tasks[self._plan.task_of(batch.partition)]
        self._outcome.sources.setdefault(task.id, set()).add((batch.partition, writer))
        self._queue.put(task, batch)


def _tried_again(task: Task) -> bool:
    """Try again what failed: at once, and as often as it may be. Whether there was anything."""
    tried = False
    while calls := task.take_calls():
        tried = True
        for call in calls:
            assert not call.awaited, "what a service said is not known"
            task.finish(call, Answer())
    return tried


class _Passed(NamedTuple):
    """A record of a repartition topic, as it would be fetched."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: Headers
