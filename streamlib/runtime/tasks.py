"""The tasks of one worker and where each is in its life.

    assigned --> opening ----------------------> running --> closed
                 stores open (lock)              |     ^
                 committed offsets, once stable  |     | started again from the committed offsets
                 stores restored to the end      v     |
                                              rolled back

Positions known before a task was assigned, or rolled back, are void: opening always asks for the committed offsets
first and restores after that.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import msgspec

from streamlib.engine.plan import Plan
from streamlib.engine.task import Task
from streamlib.errors import ConfigError, LockError
from streamlib.records import OffsetAndMetadata, TaskId, TopicPartition
from streamlib.runtime.ports import Admin, Clock, Fetcher, Group, StateDirectory
from streamlib.runtime.restore import Restorer

log = logging.getLogger(__name__)

LOCK_PATIENCE_MS = 2_000
OPENING_MS = 10

TaskFactory: TypeAlias = Callable[[TaskId, StateDirectory, bool], Task]


class StartingPoint(msgspec.Struct, frozen=True):
    """Where a task starts to read: the committed offset of each input, or where the reset policy points."""

    committed: dict[TopicPartition, OffsetAndMetadata]
    reset: dict[TopicPartition, int]

    def positions(self) -> dict[TopicPartition, int]:
        """The offset to fetch from, for each input."""
        return {**self.reset, **{partition: at.offset for partition, at in self.committed.items()}}


class TaskPorts(msgspec.Struct, frozen=True):
    """What opening and closing tasks needs."""

    group: Group
    admin: Admin
    fetcher: Fetcher
    state: StateDirectory
    clock: Clock


class TaskSet:
    """Opens, starts, rolls back and closes tasks. `running` are those that process; each task is in one place only.

        locked --lock had--> opening --restored--> running
                                ^                     |
                             promote               demote
                                |                     v
        locked standby ----> standby <----------------+

    Standbys own nothing: they only follow changelogs, on the same open stores as before and after.
    """

    def __init__(
        self, plan: Plan, ports: TaskPorts, restorer: Restorer, make_task: TaskFactory, default_reset: str
    ) -> None:
        self._plan = plan
        self._default_reset = default_reset
        self._ports = ports
        self._restorer = restorer
        self._make_task = make_task
        self._locked_since_ms: dict[TaskId, float] = {}
        self._locked_standbys: set[TaskId] = set()
        self._told_of_lock: set[TaskId] = set()  # those of them that were tried and found locked
        self._clock_ms = ports.clock.monotonic_ms
        self._standbys: dict[TaskId, Task] = {}
        self._warmed_up: frozenset[TaskId] = frozenset()
        self._opening: dict[TaskId, Task] = {}
        self._starting_points: dict[TaskId, StartingPoint] = {}
        # Where the reset policy pointed first: "latest" asked again after a roll-back would skip what came in between.
        self._resets: dict[TopicPartition, int] = {}
        self._era = 0  # moves on with each roll-back: what was asked for before is void
        self.running: dict[TaskId, Task] = {}
        self.records_restored = 0  # for tasks to run; what standbys have followed is not among it

    @property
    def ids(self) -> frozenset[TaskId]:
        """All tasks this worker owns, in whatever state."""
        return frozenset((*self._locked_since_ms, *self._opening, *self.running))

    def find(self, task_id: TaskId) -> Task | None:
        """A task whose stores are open here, in whatever state. Any thread may ask."""
        return self.running.get(task_id) or self._opening.get(task_id) or self._standbys.get(task_id)

    @property
    def standbys(self) -> list[Task]:
        """Those whose stores are open."""
        return list(self._standbys.values())

    @property
    def standby_ids(self) -> frozenset[TaskId]:
        """All tasks this worker follows, or waits to."""
        return frozenset((*self._locked_standbys, *self._standbys))

    @property
    def warmed_up(self) -> frozenset[TaskId]:
        """Standbys that had caught up at some time since they are followed."""
        return self._warmed_up.intersection(self._standbys)

    def have_warmed_up(self, task_ids: Iterable[TaskId]) -> None:
        """They have caught up: the group is to hear of it."""
        self._warmed_up = self.warmed_up.union(task_ids)

    def positions(self) -> dict[TaskId, int]:
        """For each stateful task with stores here, the sum of their changelog positions: how far they are."""
        stored = {task: sum(of.values()) for task, of in self._ports.state.stored_positions().items()}
        open_tasks = (*self._opening.values(), *self.running.values(), *self._standbys.values())
        mine = {
            task.id: sum(p or 0 for p in task.positions_stored().values()) for task in open_tasks if task.changelogs
        }
        return stored | mine

    @property
    def waits_for_lock(self) -> bool:
        """Whether a task's stores are still held by another process."""
        return bool(self._locked_since_ms or self._locked_standbys)

    @property
    def more_to_open(self) -> bool:
        """Whether some wait for no lock, but because running tasks were not to wait for their opening."""
        return not self._told_of_lock.issuperset((*self._locked_since_ms, *self._locked_standbys))

    @property
    def opening(self) -> frozenset[TaskId]:
        """Tasks on their way to running."""
        return frozenset(self._opening)

    def hold(self, task_ids: Iterable[TaskId]) -> list[Task]:
        """Take tasks on; returns those whose stores could be opened, the others wait for their lock.

        Standbys are promoted: their stores stay open.
        """
        now = self._ports.clock.monotonic_ms()
        promoted = []
        for task_id in task_ids:
            self._locked_standbys.discard(task_id)
            self._told_of_lock.discard(task_id)
            if task := self._standbys.pop(task_id, None):
                self._restorer.forget(task_id, "promoted")
                self._opening[task_id] = task
                promoted.append(task)
            else:
                self._locked_since_ms[task_id] = now
        return [*promoted, *self.try_locked()]

    def hold_standbys(self, task_ids: Iterable[TaskId]) -> list[Task]:
        """Take standbys on; returns those that are to be followed now. A lock that is held is waited for."""
        wanted = set(task_ids)
        self._told_of_lock -= wanted
        self._locked_standbys |= wanted
        return self.try_locked_standbys()

    def try_locked_standbys(self) -> list[Task]:
        """Try again to open the stores of standbys. Nobody needs them at once, so there is no copy aside."""
        opened = []
        for task_id in self._in_time(sorted(self._locked_standbys)):
            if (task := self._unlocked(task_id, aside=False)) is not None:
                self._locked_standbys.discard(task_id)
                self._standbys[task_id] = task
                opened.append(task)
        return opened

    def demote(self, task_ids: Iterable[TaskId]) -> list[Task]:
        """Make standbys of tasks that are owned no longer; their stores stay open. Uncommitted work is dropped."""
        demoted = []
        for task_id in task_ids:
            self._forget(task_id)
            if self._locked_since_ms.pop(task_id, None) is not None:
                self._locked_standbys.add(task_id)
                continue
            task = self.running.pop(task_id, None)
            if task is not None:
                self._ports.fetcher.remove(task.inputs)
                task.rollback()
            else:
                task = self._opening.pop(task_id)
            self._standbys[task_id] = task
            demoted.append(task)
        return demoted

    async def follow(self, tasks: list[Task]) -> None:
        """Begin to follow the changelogs of standbys."""
        bounds = await self._restorer.bounds(tasks)
        for task in tasks:
            if self._standbys.get(task.id) is task:  # not promoted or closed while we asked
                self._restorer.follow(task, bounds)

    def drop_standbys(self, task_ids: Iterable[TaskId]) -> None:
        """Follow these no longer."""
        for task_id in task_ids:
            self._locked_standbys.discard(task_id)
            if task := self._standbys.pop(task_id, None):
                self._restorer.forget(task_id)
                task.close()

    def try_locked(self) -> list[Task]:
        """Try again to open what was locked; after a while, aside."""
        now = self._ports.clock.monotonic_ms()
        opened = []
        for task_id in self._in_time(list(self._locked_since_ms)):
            aside = now - self._locked_since_ms[task_id] > LOCK_PATIENCE_MS
            if (task := self._unlocked(task_id, aside=aside)) is not None:
                del self._locked_since_ms[task_id]
                self._opening[task_id] = task
                opened.append(task)
        return opened

    def _in_time(self, task_ids: Sequence[TaskId]) -> Iterator[TaskId]:
        """As many as can be opened while running tasks wait; the others have their turn in the next round.

        To open a database takes some 7 ms of CPU (measured).
        """
        ends_ms = self._clock_ms() + (OPENING_MS if self.running else math.inf)
        for number, task_id in enumerate(task_ids):
            if number and self._clock_ms() >= ends_ms:
                return
            yield task_id

    def _unlocked(self, task_id: TaskId, *, aside: bool) -> Task | None:
        try:
            task = self._make_task(task_id, self._ports.state, aside)
        except LockError as error:
            if task_id not in self._told_of_lock:
                log.info("task %s waits: %s", task_id, error)
            self._told_of_lock.add(task_id)
            return None
        self._told_of_lock.discard(task_id)
        return task

    async def open(self, tasks: list[Task]) -> None:
        """Find the starting points, once the committed offsets are stable, then start to restore."""
        era = self._era
        inputs = [partition for task in tasks for partition in task.inputs]
        committed = await self._ports.group.fetch_offsets(inputs)
        starts = await self._ports.admin.list_offsets(inputs, "earliest")
        ends = await self._ports.admin.list_offsets(committed, "latest")
        gone = {p for p, at in committed.items() if not starts[p] <= at.offset <= ends[p]}
        for partition in gone:
            log.warning(
                "the committed offset %d of %s is not in the log, which goes from %d to %d; the reset policy applies",
                committed[partition].offset, partition, starts[partition], ends[partition],
            )  # fmt: skip
        resets = await self._reset_positions([p for p in inputs if p not in committed or p in gone], starts)
        # The text that came with an offset stays: stream time does not go back where a log was cut off.
        found = {p: at._replace(offset=resets[p]) if p in gone else at for p, at in committed.items()}
        points = {
            task.id: StartingPoint(
                {p: found[p] for p in task.inputs if p in found},
                {p: resets[p] for p in task.inputs if p not in found},
            )
            for task in tasks
        }
        bounds = await self._restorer.bounds(tasks)
        for task in tasks:
            if era == self._era and self._opening.get(task.id) is task:  # not revoked or rolled back while we asked
                self._starting_points[task.id] = points[task.id]
                self._resets |= points[task.id].reset
                self._restorer.begin(task, bounds)

    def start_restored(self) -> list[Task]:
        """Start what has finished restoring, and begin to fetch its inputs."""
        started = []
        for restoration in self._restorer.take_finished():
            task = restoration.task
            point = self._starting_points.pop(task.id)
            task.start(point.committed, point.reset)
            self.running[task.id] = self._opening.pop(task.id)
            self._ports.fetcher.add(point.positions())
            started.append(task)
            self.records_restored += restoration.restored
            log.info("task %s runs; %d records restored", task.id, restoration.restored)
        return started

    def roll_back(self) -> list[Task]:
        """Drop all uncommitted work; every task that was open has to be opened again. Standbys have none."""
        self._era += 1
        for task in self.running.values():
            self._ports.fetcher.remove(task.inputs)
            task.rollback()
        for task_id in self._opening:
            self._restorer.forget(task_id)
        self._starting_points.clear()
        self._opening |= self.running
        self.running = {}
        return list(self._opening.values())

    def close(self, task_ids: Iterable[TaskId]) -> None:
        """Let go of tasks: nothing of them is fetched, restored or kept open. Uncommitted work is dropped.

        Raises:
            ProcessingError: a processor's `close` raised; all tasks are closed all the same.
        """
        first: Exception | None = None
        for task_id in task_ids:
            try:
                self._close(task_id)
            except Exception as error:
                first = first or error
        if first is not None:
            raise first

    def _close(self, task_id: TaskId) -> None:
        self._locked_since_ms.pop(task_id, None)
        self._forget(task_id)
        if task := self.running.pop(task_id, None):
            self._ports.fetcher.remove(task.inputs)
            task.rollback()
            task.close()
        elif task := self._opening.pop(task_id, None):
            task.close()

    def _forget(self, task_id: TaskId) -> None:
        """Where it started, and how far it was restored."""
        self._starting_points.pop(task_id, None)
        self._restorer.forget(task_id)
        for partition in self._plan.inputs(task_id):
            self._resets.pop(partition, None)

    async def _reset_positions(
        self, partitions: list[TopicPartition], starts: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        known = {p: self._resets[p] for p in partitions if self._resets.get(p, -1) >= starts[p]}
        policies = {p: self._plan.offset_reset(p) or self._default_reset for p in partitions if p not in known}
        if refused := [p for p, policy in policies.items() if policy == "none"]:
            raise ConfigError(
                f"no committed offset for {refused[0]} and auto_offset_reset is 'none': "
                "commit a starting offset for the group, or choose 'earliest' or 'latest'"
            )
        latest = [p for p, policy in policies.items() if policy == "latest"]
        ends = await self._ports.admin.list_offsets(latest, "latest") if latest else {}
        return {p: known.get(p, ends.get(p, starts[p])) for p in partitions}
