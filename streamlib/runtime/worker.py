"""One worker: a member of the group that runs its share of the tasks in one transaction at a time.

Everything that changes a task happens in one loop, in this order, so that no lock is needed:

    membership event   close what was revoked (after a commit), take on what was assigned, follow standbys
    restored tasks     start
    fetched batches    into the tasks
    answers            of functions that are awaited, each with what comes after it
    punctuators        that the clock has made due, each once
    a slice of work    oldest record first, at most `SLICE_MS`
    calls              of functions that are awaited: begun, they go on beside the loop
    outputs            to the producer, inside the open transaction; during a commit they wait in the tasks
    commit             begun when nothing is left to do (latency), or by interval or bytes (throughput)

Beside the loop run: the commit under way, the membership (heartbeats), the restorer, the purger, the watch on the
fetcher, the opening of tasks, and the calls.
They never touch a running task, but for a commit that has succeeded, which writes its stores; what they find or fail
with is looked at in the loop.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

import anyio
import anyio.abc
import anyio.lowlevel
import msgspec

from streamlib.config import StreamsConfig
from streamlib.engine.at_work import AtWork
from streamlib.engine.calls import Call
from streamlib.engine.cursor import END_OF_TIME
from streamlib.engine.plan import Plan
from streamlib.engine.services import Services, ServiceStatus
from streamlib.engine.task import Task
from streamlib.errors import ErrorCode, KafkaError, StreamsError, TaskMigratedError, TopologyError
from streamlib.records import TaskId, TopicPartition
from streamlib.runtime.calls import CallsUnderWay
from streamlib.runtime.commits import Commits
from streamlib.runtime.complaints import Complaints
from streamlib.runtime.failures import Action, decide
from streamlib.runtime.global_stores import GlobalStores
from streamlib.runtime.local_stores import LocalStores
from streamlib.runtime.membership import Assigned, Lost, Membership, Rebalance
from streamlib.runtime.meter import Meter, MeteredCommitter
from streamlib.runtime.ports import Admin, Clock, Fetcher
from streamlib.runtime.purge import Purger
from streamlib.runtime.restoration import Restoration
from streamlib.runtime.restore import Restorer
from streamlib.runtime.slice_end import SliceEnd
from streamlib.runtime.slow_functions import SlowFunctions
from streamlib.runtime.tasks import TaskSet
from streamlib.runtime.topic_watch import TopicWatch
from streamlib.runtime.transaction import Committer
from streamlib.runtime.wakeup import Wakeup

log = logging.getLogger(__name__)

SLICE_MS = 10
COMMITTING_SLICE_MS = 5  # while a commit is under way, whose requests have to be written, and answers read
SLICE_RECORDS = 1_000
TAKE_BYTES = 4 << 20
LONG_SLICE_MS = 250  # after a slice that took so long, the requests of others have to be written, and answers read
LATE_OUTPUTS_MS = 600_000  # for so long after a slow function, outputs wait for the commit
LOCK_RETRY_MS = 100
CALLS_COMMIT_MS = 10  # while calls are under way, commits are at least so far apart
FIRST_BACKOFF_MS = 50
LONGEST_BACKOFF_MS = 5_000
MOST_LOSSES = 3
# Together with the last abort and the leaving below the 30 s that Kubernetes waits after SIGTERM.
HAND_OVER_MS = 8_000
LAST_COMMIT_MS = 10_000
LAST_ABORT_MS = 5_000  # the broker aborts by itself what it does not hear of


class WorkerStatus(msgspec.Struct, frozen=True):
    """What a worker is doing, for people to look at. Counts are since its start.

    `standbys` and `restoring` say for each task how many changelog offsets it is behind. `calls_in_flight` are calls of
    functions that are awaited, and records that are to be tried again; `commits_held` the commits that had to wait for
    such; `services` are those that functions call, by name. `dropped` counts records that the tasks it has now left
    out, since these began: without a key or a time where they need one, late, or skipped after an error. `paused`:
    nothing is processed until somebody says so.
    """

    tasks: tuple[str, ...]
    standbys: dict[str, int]
    restoring: dict[str, int]
    records_in: int
    records_out: int
    records_restored: int
    commits: int
    redone: int
    rebalances: int
    last_rebalance: Rebalance | None
    lag: int
    calls_in_flight: int = 0
    commits_held: int = 0
    services: dict[str, ServiceStatus] = {}
    dropped: int = 0
    paused: bool = False


class Observation(msgspec.Struct, frozen=True):
    """A worker as it is at a moment, for those who watch it.

    Args:
        status: for people.
        running: whether every task of the assignment is processing.
        settled: whether no rebalance is under way.
        heard: how often the coordinator has answered.
        rebalance_ms: how long rebalances took, all together.
        tasks: those that process.
        restorations: of tasks on their way, and of standbys.
        low_water: for each input the offset below which everything is done.
        committed: likewise, done and in a commit that was begun at least.
        ends: the inputs' last stable offsets, as far as they are known.
        unstable: how many records are behind them, where there are any.
        resting: inputs that stand still on purpose, until something can be tried again.
        open_transaction_ms: for how long a transaction is open; 0 if none is.
        oldest_call: of those under way, and for how many ms.
        meter: what is counted and timed.
    """

    status: WorkerStatus
    running: bool
    settled: bool
    heard: int
    rebalance_ms: float
    tasks: Mapping[TaskId, Task]
    restorations: Collection[Restoration]
    low_water: Mapping[TopicPartition, int]
    committed: Mapping[TopicPartition, int]
    ends: Mapping[TopicPartition, int]
    unstable: Mapping[TopicPartition, int]
    resting: Collection[TopicPartition]
    open_transaction_ms: float
    oldest_call: tuple[Call, float] | None
    meter: Meter


class WorkerParts(msgspec.Struct, frozen=True):
    """What a worker is put together from (`app.py`)."""

    plan: Plan
    config: StreamsConfig
    clock: Clock
    admin: Admin
    fetcher: Fetcher
    membership: Membership
    committer: Committer
    restorer: Restorer
    tasks: TaskSet
    purger: Purger
    topic_watch: TopicWatch
    wakeup: Wakeup
    slow_functions: SlowFunctions
    services: Services
    local: LocalStores
    global_stores: GlobalStores | None = None
    meter: Meter = msgspec.field(default_factory=Meter)


class Worker:
    """Runs until `stop`, or until something happens that no retry can mend."""

    def __init__(self, parts: WorkerParts) -> None:
        self._plan = parts.plan
        self._config = parts.config
        self._clock = parts.clock
        self._admin = parts.admin
        self._fetcher = parts.fetcher
        self._membership = parts.membership
        self.meter = parts.meter
        self.local = parts.local
        self._committer = MeteredCommitter(parts.committer, parts.meter)
        self._restorer = parts.restorer
        self._tasks = parts.tasks
        self._purger = parts.purger
        self._commits = Commits(self._committer, parts.purger, parts.wakeup)
        self._topic_watch = parts.topic_watch
        self._global_stores = parts.global_stores
        self._wakeup = parts.wakeup
        self._slow_functions = parts.slow_functions
        self._services = parts.services
        self._calls = CallsUnderWay(parts.wakeup, parts.config.transaction_timeout_ms / 2)
        self._holding = False  # a commit waits for calls, and tasks that may make it wait longer are not fed
        self._paused = False  # no task is fed
        self._room = Wakeup()  # set when the loop has taken what the fetcher had
        self._children: anyio.abc.TaskGroup | None = None
        self._failure: StreamsError | None = None
        self._target: frozenset[TaskId] = frozenset()
        self._standby_target: frozenset[TaskId] = frozenset()
        self._warmups: frozenset[TaskId] = frozenset()  # those that have not caught up yet
        self._unopened: frozenset[TopicPartition] = frozenset()  # ours, but the rest of their tasks is not yet
        self._leaves = True  # when it stops
        self._lost = False  # the membership is, and the tasks have not been dropped yet
        self._stopping = False
        self._life: anyio.CancelScope | None = None  # ends some time after `stop`, whatever still waits for a broker
        self._opened_ms = 0.0  # when the first uncommitted record was processed
        self._slowest_ms = 0.0  # the longest slice since the last commit
        self._slice_ms = 0.0  # the last one
        self._first: TaskId | None = None  # whose turn is next, if the last slice ended before that
        self._late_outputs_until_ms = 0.0
        self._losses = 0  # of the membership since the last commit
        self._owed = 0  # records processed and punctuators called since the last commit
        self._backoff_ms = FIRST_BACKOFF_MS
        self._complaints = Complaints(log)
        self._counts = dict.fromkeys(("records_in", "records_out", "commits", "commits_held", "redone"), 0)

    @property
    def outdated(self) -> bool:
        """Whether it stopped because patterns match other topics by now, so that another plan is needed."""
        return self._topic_watch.outdated

    @property
    def running(self) -> bool:
        """Whether the worker has an assignment and every task of it is processing."""
        settled = self._membership.settled and not self._membership.has_event
        return settled and self._tasks.running.keys() == self._target

    @property
    def status(self) -> WorkerStatus:
        """A snapshot for people; not consistent with any commit."""
        positions = {p: o for task in self._tasks.running.values() for p, o in task.positions().items()}
        ends = self._fetcher.end_offsets()
        return WorkerStatus(
            tasks=tuple(str(task_id) for task_id in sorted(self._tasks.running)),
            standbys={str(task): lag for task, lag in sorted(self._restorer.lags().items())},
            restoring={str(r.task.id): r.remaining for r in self._restorer.under_way},
            records_in=self._counts["records_in"],
            records_out=self._counts["records_out"],
            records_restored=self._tasks.records_restored,
            commits=self._counts["commits"],
            redone=self._counts["redone"],
            rebalances=self._membership.rebalances,
            last_rebalance=self._membership.last_rebalance,
            lag=sum(max(ends[p] - o, 0) for p, o in positions.items() if p in ends),
            calls_in_flight=len(self._calls),
            commits_held=self._counts["commits_held"],
            services=self._services.status,
            dropped=sum(task.dropped for task in self._tasks.running.values()),
            paused=self._paused,
        )

    def observe(self) -> Observation:
        """What `Monitor` looks at; nothing of it is a copy."""
        running = self._tasks.running
        return Observation(
            status=self.status,
            running=self.running,
            settled=self._membership.settled,
            heard=self._membership.heard,
            rebalance_ms=self._membership.rebalance_ms,
            tasks=running,
            restorations=self._restorer.all,
            low_water={p: mark for task in running.values() for p, mark in task.low_water_marks().items()},
            committed={p: mark for task in running.values() for p, mark in task.committed_marks().items()},
            ends=self._fetcher.end_offsets(),
            unstable=self._fetcher.unstable(),
            resting=self._resting(),
            open_transaction_ms=self._committer.open_ms,
            oldest_call=self._calls.oldest,
            meter=self.meter,
        )

    def _resting(self) -> Collection[TopicPartition]:
        running = self._tasks.running.values()
        if self._paused:
            return {partition for task in running for partition in task.inputs}
        return self._calls.resting.union(*(task.resting for task in running))

    def at_work(self) -> AtWork:
        """What the loop is busy with. Any thread may ask."""
        return self._slow_functions.at_work()

    def pause(self) -> None:
        """Process nothing more and call no punctuators, until `resume`; what is begun is ended and committed."""
        self._paused = True

    def resume(self) -> None:
        """Go on after `pause`."""
        self._paused = False
        self._wakeup.set()

    def stop(self, *, leave: bool | None = None) -> None:
        """Hand over, commit, close, leave: without a commit if that is not to be had soon.

        `leave` replaces what `run` was told.
        """
        if leave is not None:
            self._leaves = leave
        if self._life is not None and not self._stopping:
            hand_over_ms = HAND_OVER_MS if self._leaves else 0
            self._life.deadline = anyio.current_time() + (hand_over_ms + LAST_COMMIT_MS) / 1000
        self._stopping = True
        self._wakeup.set()

    async def run(self, *, leave: bool) -> None:
        """Join, process, and on `stop` commit and close; `leave` decides whether the group is told.

        Raises:
            ProcessingError: a user function raised; the open transaction was aborted.
            SerializationError: poison bytes; nothing at or after them was committed.
            KafkaError: what the failure table calls fatal.
            TaskMigratedError: user functions take longer than the session, again and again.
        """
        self._leaves = leave if not self._stopping else self._leaves
        try:
            with anyio.CancelScope() as self._life:
                if self._global_stores is not None:
                    await self._global_stores.bootstrap(lambda: not self._stopping)
                await self._begin()
                await self._run_with_children()
            if self._life.cancelled_caught:
                log.warning("no commit within %d s of the stop: the next owner redoes the work", LAST_COMMIT_MS / 1000)
        finally:
            await self._give_up()
            if self._leaves:
                await self._leave()  # after an error, too: everything is closed, nobody has to wait for the session

    async def _begin(self) -> None:
        """Fresh producers. Nothing can be lost yet, so a worker that cannot begin in time stops and says why."""
        until_ms = self._clock.monotonic_ms() + self._config.delivery_timeout_ms
        while not self._stopping:
            try:
                await self._committer.init()
                return
            except KafkaError as error:
                if decide(error) is Action.FATAL or self._clock.monotonic_ms() >= until_ms:
                    raise
                self._complaints.warn(error.code, self._clock.monotonic_ms(), "cannot begin yet: %s", error)
            await self._back_off()

    async def _run_with_children(self) -> None:
        """The loop raises one error at a time; it should arrive as itself, not in a group."""
        failure: StreamsError | None = None
        async with anyio.create_task_group() as children:
            self._children = children
            children.start_soon(self._child, self._membership.run)
            children.start_soon(self._child, self._restorer.run)
            children.start_soon(self._child, self._watch_fetcher)
            children.start_soon(self._child, self._purger.run)
            children.start_soon(self._child, self._slow_functions.run)
            children.start_soon(self._child, self._topic_watch.run)
            if self._global_stores is not None:
                children.start_soon(self._child, self._global_stores.run)
            try:
                await self._loop()
            except StreamsError as error:
                failure = error
                with anyio.move_on_after(LAST_COMMIT_MS / 1000):
                    await self._settle_commit()  # what came before the error is done
            finally:
                children.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _leave(self) -> None:
        """All is closed by now, so it is no error of ours if nobody can be told."""
        with anyio.move_on_after(LAST_ABORT_MS / 1000, shield=True):
            try:
                await self._membership.leave()
            except KafkaError as error:
                log.warning("could not leave the group, the others wait for the session to expire: %s", error)

    async def _loop(self) -> None:
        while not self._stopping and not self._topic_watch.outdated:
            try:
                await self._turn()
            except KafkaError as error:
                await self._recover(error)
        try:
            await self._hand_over()
            if self._lost:
                await self._settle_commit()
            else:
                await self._commit()
        except KafkaError as error:
            log.warning("the last commit failed, its work will be redone by the next owner: %s", error)
            await self._settle_commit()
            await self._committer.abort()
        await self._calls.cancel()
        self._close_all()

    async def _hand_over(self) -> None:
        """Go on until others hold the tasks, or are about to: nobody waits for what we still work on."""
        if not (self._stopping and self._leaves) or self._lost or self._membership.alone:
            return
        self._membership.hand_over()
        until_ms = self._clock.monotonic_ms() + HAND_OVER_MS
        while self._tasks.ids and self._clock.monotonic_ms() < until_ms:
            await self._turn()

    def _close_all(self) -> None:
        self._tasks.drop_standbys(self._tasks.standby_ids)
        self._tasks.close(sorted(self._tasks.ids))

    async def _turn(self) -> None:
        """One round of the loop."""
        self._raise_failure()
        if self._commits.ended:
            await self._end_commit()
        self._restorer.give_way(bool(self._tasks.running))
        await self._follow_membership()
        self._tasks.start_restored()
        self._take_fetched()
        self._finish_calls()
        self._process_slice()
        if self._slow_functions.given_up is not None:
            self._membership.gave_up(str(self._slow_functions.given_up))
            self._lost = True
            return  # the next turn drops the tasks
        self._start_calls()
        idle = not self._work_waits()
        if self._commits.under_way:
            if self._full:
                await self._end_commit()
                return
        else:
            if not self._outputs_wait:
                await self._hand_over_outputs()
            if self._commit_due(idle) and not self._held_by_calls():
                await self._commit_work(beside=not idle)  # outputs and changelogs leave in one request
                return
        if idle:
            await self._wakeup.wait(self._idle_ms())
        elif self._slice_ms > LONG_SLICE_MS:
            await anyio.sleep(SLICE_MS / 1000)  # requests of the others have to be written, and answers read
        else:
            await anyio.lowlevel.checkpoint()

    # --- membership ---------------------------------------------------------------------------------------------------

    async def _follow_membership(self) -> None:
        match self._membership.take_event():
            case Assigned(partitions=partitions, instructions=instructions):
                if self._topic_watch.assigned(partitions):
                    return
                self._target = self._tasks_of(partitions)
                self._let_go_of_unopened(partitions)
                self._warmups = frozenset(instructions.warmup)
                self._standby_target = self._warmups.union(instructions.standby)
            case Lost():
                self._target = frozenset()
                self._lost = True
            case None:
                pass
        if self._lost:
            await self._drop_all()
        held = self._tasks.ids
        if revoked := held - self._target:
            await self._hand_back(sorted(revoked))
        self._tasks.drop_standbys(self._tasks.standby_ids - self._standby_target - self._target)
        waits = self._tasks.waits_for_lock  # what waits is tried again with what is new
        if (added := self._target - held) or waits:
            self._open_soon(self._tasks.hold(sorted(added)))
        if (added := self._standby_target - self._tasks.standby_ids - self._tasks.ids) or waits:
            self._follow_soon(self._tasks.hold_standbys(sorted(added)))
        if self._warmups:
            self._claim_warmed_up()

    def _claim_warmed_up(self) -> None:
        """Say so as soon as a warm-up has caught up; the group need not look for it at intervals."""
        lags = self._restorer.lags()
        ready = {task for task in self._warmups if lags.get(task, END_OF_TIME) <= self._config.acceptable_recovery_lag}
        if ready:
            self._warmups -= ready
            self._tasks.have_warmed_up(ready)
            self._membership.claim_warmed_up()

    async def _hand_back(self, revoked: Sequence[TaskId]) -> None:
        """Rule: open work of a revoked task is committed first, then it is dropped here, then the others hear of it."""
        await self._commit()
        await self._calls.cancel(self._tasks.running[task_id] for task_id in revoked if task_id in self._tasks.running)
        demoted = [task_id for task_id in revoked if task_id in self._standby_target]
        self._follow_soon(self._tasks.demote(demoted))
        self._tasks.close([task_id for task_id in revoked if task_id not in self._standby_target])
        self._membership.release([p for task_id in revoked for p in self._plan.inputs(task_id)])
        if self._stopping:
            self._wakeup.set()  # nobody is to wait for an idle turn of ours

    async def _drop_all(self) -> None:
        """Rule: of a lost task nothing is committed."""
        self._check_pace()
        await self._calls.cancel()
        await self._settle_commit()
        await self._committer.abort()
        self._tasks.close(sorted(self._tasks.ids))
        self._owed, self._holding = 0, False
        await self._committer.init()
        self._lost, self._unopened = False, frozenset()
        self._membership.dropped_all()

    def _check_pace(self) -> None:
        """A function that holds the worker for too long loses the membership each time it is tried."""
        self._losses += 1
        if (given_up := self._slow_functions.take_given_up()) is not None:
            if (times := max(given_up.times, self._losses)) >= MOST_LOSSES:
                raise TaskMigratedError(
                    f"{given_up}, longer than max_poll_interval_ms ({self._config.max_poll_interval_ms}), "
                    f"{times} times: make the function quicker, or raise max_poll_interval_ms above that"
                )
            return
        if self._losses >= MOST_LOSSES and self._slowest_ms > self._config.session_timeout_ms:
            raise TaskMigratedError(
                f"the group went on without this worker {self._losses} times, and nothing was committed in between: "
                f"functions held it for up to {self._slowest_ms:.0f} ms at a time, longer than session_timeout_ms "
                f"({self._config.session_timeout_ms}), and no other thread could run (a regular expression, say, holds "
                "the interpreter); make them quicker, or raise session_timeout_ms above that"
            )

    def _tasks_of(self, partitions: frozenset[TopicPartition]) -> frozenset[TaskId]:
        """The tasks of these partitions, each with all its inputs: the others might be those of another owner.

        A leader that has not seen yet what a pattern has found here is about to; such tasks wait for that.
        """
        tasks = {self._plan.task_of(p) for p in partitions if p.topic in self._plan.topics}
        if tasks <= set(self._plan.tasks):
            inputs = {p for task_id in tasks for p in self._plan.inputs(task_id)}
            missing = inputs - partitions
            if partitions <= inputs and (not missing or self._topic_watch.may_be_unknown(missing)):
                waiting = set(map(self._plan.task_of, missing))
                if waiting:
                    topics = ", ".join(sorted({p.topic for p in missing}))
                    log.info("%d tasks wait until the leader of the group has found %s, too", len(waiting), topics)
                return frozenset(tasks - waiting)
        raise TopologyError(
            "this worker was assigned other partitions than its topology reads together: another member of "
            f"{self._config.application_id} runs a different topology; give it an application_id of its own"
        )

    def _let_go_of_unopened(self, assigned: frozenset[TopicPartition]) -> None:
        """Give back what was assigned before, was no whole task, and has gone elsewhere now."""
        gone = self._unopened - assigned
        self._unopened = assigned.difference(*map(self._plan.inputs, self._target))
        self._membership.release(gone)

    def _open_soon(self, tasks: list[Task]) -> None:
        if tasks:
            assert self._children is not None
            self._children.start_soon(self._open, self._tasks.open, tasks)

    def _follow_soon(self, tasks: list[Task]) -> None:
        if tasks:
            assert self._children is not None
            self._children.start_soon(self._open, self._tasks.follow, tasks)

    async def _open(self, how: Callable[[list[Task]], Awaitable[None]], tasks: list[Task]) -> None:
        try:
            await how(tasks)
        except StreamsError as error:
            self._fail(error)
        self._wakeup.set()

    # --- records ------------------------------------------------------------------------------------------------------

    def _take_fetched(self) -> None:
        began_ms = self.meter.elapsed_ms()
        running = self._tasks.running
        inputs = [(partition, task) for task in running.values() for partition in task.inputs]
        share = self._config.input_buffer_max_bytes // 2 // max(len(inputs), 1)
        limit = min(self._config.buffered_bytes_per_partition, share)
        self._fetcher.pause([partition for partition, task in inputs if task.buffered_bytes_of(partition) > limit])
        for batch in self._fetcher.take(TAKE_BYTES):
            task = running.get(self._plan.task_of(batch.partition))
            if task is not None:
                task.enqueue(batch)
        ends = self._fetcher.end_offsets()
        for task in running.values():
            task.learn_end_offsets(ends)
        self._room.set()
        self.meter.polled(began_ms)

    def _process_slice(self) -> None:
        """Let each task that can have its turn, oldest first within a task, until the slice is over.

        Punctuators run before it, on time of their own: whatever they take, records get their slice, too. Tasks that
        have not had their turn come first in the next slice, so that what is done can be committed in between, and a
        task gets through many records at a time.
        """
        started = self._clock.monotonic_ms()
        now_ms = self._clock.now_ms()
        punctuated = sum(task.punctuate(now_ms) for task in self._fed())
        began_ms = self._clock.monotonic_ms()
        self.meter.punctuated(punctuated, began_ms - started)
        ends_ms = began_ms + (COMMITTING_SLICE_MS if self._commits.under_way else SLICE_MS)
        if self._owed and not self._commits.under_way:
            ends_ms = min(ends_ms, self._opened_ms + self._config.commit_interval_ms)

        end = SliceEnd(self._clock.monotonic_ms, ends_ms)
        processed = awaited = 0
        tasks, self._first = self._in_turn(), None
        for number, task in enumerate(tasks, 1):
            pending = task.calls_pending
            done = task.process(SLICE_RECORDS, end)
            processed += done
            awaited += task.calls_pending - pending
            turned_ms = self._clock.monotonic_ms()
            self.meter.processed(task, done, turned_ms - began_ms, now_ms)
            began_ms = turned_ms
            if turned_ms >= ends_ms:
                self._first = tasks[number % len(tasks)].id
                break
        self._owe(max(processed - awaited, 0) + punctuated, started)
        self._counts["records_in"] += processed
        self._note_pace(started)

    def _owe(self, work: int, since_ms: float) -> None:
        """Note work that is to be committed."""
        if work and not self._owed:
            self._opened_ms = since_ms
        self._owed += work

    def _fed(self) -> Iterable[Task]:
        """Tasks that may take records."""
        if self._paused:
            return ()
        running = self._tasks.running.values()
        return (task for task in running if not task.may_hold_commit) if self._holding else running

    def _in_turn(self) -> list[Task]:
        tasks = list(self._fed())
        if self._first is None:
            return tasks
        first = next((number for number, task in enumerate(tasks) if task.id == self._first), 0)
        return tasks[first:] + tasks[:first]

    def _note_pace(self, started_ms: float) -> None:
        """Functions about as slow as a transaction may last must not run inside of one: for a while, outputs wait in
        the tasks for the commit, and the transaction begins with them."""
        now_ms = self._clock.monotonic_ms()
        self._slice_ms = now_ms - started_ms
        self._slowest_ms = max(self._slowest_ms, self._slice_ms)
        if self._slice_ms > self._config.transaction_timeout_ms / 2:
            self._late_outputs_until_ms = now_ms + LATE_OUTPUTS_MS

    async def _hand_over_outputs(self) -> None:
        for task in self._tasks.running.values():
            if missing := task.missing_topics():
                task.learn_partitions(await self._partition_counts(missing))
            if outputs := task.take_outputs():
                self._counts["records_out"] += sum(map(len, outputs.values()))
                self._committer.send(outputs)
        if self._committer.buffered_bytes > self._config.buffer_memory:
            await self._committer.wait_for_room()

    async def _partition_counts(self, topics: set[str]) -> dict[str, int]:
        counts = await self._admin.partition_counts(topics)
        if unknown := topics - counts.keys():
            raise TopologyError(
                f"a sink chose topic {min(unknown)!r}, which does not exist: create it, or choose another"
            )
        return counts

    def _work_waits(self) -> bool:
        now_ms = self._clock.now_ms()
        return self._calls.answered or any(task.ready(now_ms) for task in self._fed()) or self._fetcher.ready

    async def _watch_fetcher(self) -> None:
        while True:
            await self._fetcher.wait()
            self._wakeup.set()
            await self._room.wait()

    # --- functions that are awaited -----------------------------------------------------------------------------------

    def _start_calls(self) -> None:
        for task in self._tasks.running.values():
            self._calls.start(task)

    def _finish_calls(self) -> None:
        """Go on with what has its answer by now."""
        if not self._calls.answered:
            return
        started, began_ms = self._clock.monotonic_ms(), self.meter.elapsed_ms()
        answers = self._calls.take_answers()
        for task, call, answer in answers:
            task.finish(call, answer)
        self._owe(len(answers), started)
        self.meter.finished(began_ms)

    def _held_by_calls(self) -> bool:
        """Whether the commit that is due has to wait for calls. If so, nothing is begun that would make it wait longer.

        What record caches hold back has to be out before, as it may lead to calls in turn.
        """
        running = self._tasks.running.values()
        for task in running:
            if task.may_hold_commit:
                task.flush()
        if not any(task.holds_commit for task in running):
            return False
        if not self._holding:
            self._holding = True
            self._counts["commits_held"] += 1
        now_ms = self._clock.monotonic_ms()
        if now_ms - self._opened_ms > self._config.transaction_timeout_ms / 2:
            self._late_outputs_until_ms = now_ms + LATE_OUTPUTS_MS
        self._start_calls()
        return True

    async def _wait_for_calls(self) -> None:
        """Until a commit can be made; all that can hold it up has a time limit."""
        while self._held_by_calls():
            await self._wakeup.wait(self._config.commit_interval_ms)
            self._finish_calls()

    def _commit_spacing_ms(self) -> float:
        """How far apart commits are when there is nothing else to do."""
        if not len(self._calls):
            return 0
        if any(task.holds_commit for task in self._tasks.running.values()):
            return self._config.commit_interval_ms
        return min(CALLS_COMMIT_MS, self._config.commit_interval_ms)

    # --- commit -------------------------------------------------------------------------------------------------------

    def _commit_due(self, idle: bool) -> bool:
        """At once when there is nothing else to do, otherwise by interval or bytes."""
        running = self._tasks.running.values()
        age_ms = self._clock.monotonic_ms() - self._opened_ms
        if self._holding or any(task.commit_requested for task in running):
            return True
        if not self._owed:
            # Only positions moved (markers, dropped data): no reader waits for that. Past pending calls it is nothing.
            late = age_ms >= self._config.commit_interval_ms
            return late and any(task.offsets() for task in running if not task.calls_pending)
        return age_ms >= (self._commit_spacing_ms() if idle else self._config.commit_interval_ms) or self._full

    @property
    def _slow(self) -> bool:
        """Whether functions take so long that they would keep a transaction open."""
        return self._slice_ms > LONG_SLICE_MS or self._outputs_wait

    @property
    def _outputs_wait(self) -> bool:
        """Whether outputs wait in the tasks for the commit, since functions were slow not long ago."""
        return self._clock.monotonic_ms() < self._late_outputs_until_ms

    @property
    def _full(self) -> bool:
        """Whether no more is to be processed before a commit."""
        uncommitted = sum(task.uncommitted_bytes for task in self._tasks.running.values())
        return uncommitted >= self._config.commit_max_bytes

    async def _commit(self) -> None:
        """Commit all there is, and wait for it."""
        await self._end_commit()
        await self._wait_for_calls()
        await self._commit_work(beside=False)
        assert not any(task.dirty for task in self._tasks.running.values()), "uncommitted work after a commit"

    async def _commit_work(self, *, beside: bool) -> None:
        """Commit all that was done so far; with more at hand, `beside` the loop.

        Who has nothing else to do waits: the little that comes meanwhile could not leave before the end in any case,
        and has the better latency if all of it is taken at once.
        """
        tasks = [task for task in self._tasks.running.values() if task.dirty]
        if tasks or self._committer.open:
            for task in tasks:
                task.flush()
            await self._hand_over_outputs()
            if beside and not self._slow:
                assert self._children is not None
                await self._commits.begin(tasks, self._children)
            else:
                await self._commits.make(tasks)
                self._note_commit()
        self._owed, self._holding = 0, False
        self._opened_ms = self._clock.monotonic_ms()

    async def _end_commit(self) -> None:
        """Wait for the commit under way, if there is one. Raises what it failed with."""
        if await self._commits.end():
            self._note_commit()

    def _note_commit(self) -> None:
        self._slowest_ms, self._losses = 0.0, 0
        self._counts["commits"] += 1
        self._backoff_ms = FIRST_BACKOFF_MS

    async def _settle_commit(self) -> None:
        """As `_end_commit`, where its tasks are given up anyway."""
        try:
            await self._end_commit()
        except StreamsError as error:
            log.info("the commit under way has failed, too: %s", error)

    def _idle_ms(self) -> float:
        """How long there is nothing to do, unless something happens."""
        if self._tasks.waits_for_lock:
            return 0 if self._tasks.more_to_open else LOCK_RETRY_MS
        running = self._tasks.running.values()
        due = [due for task in self._fed() for due in (task.next_punctuation_ms, task.next_retry_ms)]
        until_due = min((ms for ms in due if ms is not None), default=END_OF_TIME) - self._clock.now_ms()
        until_call = min((ms for ms in (task.next_call_ms for task in running) if ms is not None), default=END_OF_TIME)
        until_call -= self._clock.monotonic_ms()
        until_commit = self._config.commit_interval_ms
        if self._owed and not self._holding and not self._commits.under_way:
            age_ms = self._clock.monotonic_ms() - self._opened_ms
            until_commit = max(1, math.ceil(self._commit_spacing_ms() - age_ms))
        return max(0, min(until_due, until_call, until_commit))

    # --- failures -----------------------------------------------------------------------------------------------------

    async def _child(self, run: Callable[[], Awaitable[None]]) -> None:
        """Run something beside the loop. What it fails with is raised in the loop, then it runs again."""
        while True:
            try:
                return await run()
            except StreamsError as error:
                self._fail(error)
            await anyio.sleep(FIRST_BACKOFF_MS / 1000)

    def _fail(self, error: StreamsError) -> None:
        self._failure = self._failure or error
        self._wakeup.set()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    async def _recover(self, error: KafkaError) -> None:
        """Do what the table says; returns when the tasks are on their way again."""
        action = decide(error)
        await self._settle_commit()
        if action is Action.FATAL:
            if error.code == ErrorCode.FENCED_INSTANCE_ID:
                self._membership.lose(str(error))  # the place in the group is another process's, not ours to leave
                raise self._fenced(error) from error
            raise error
        self._counts["redone"] += 1
        self._complaints.warn(
            (action, error.code), self._clock.monotonic_ms(),
            "work since the last commit is redone (%s): %s", action.value, error,
        )  # fmt: skip
        try:
            await self._calls.cancel()
            await self._committer.abort()
            if action is Action.MIGRATED:
                self._membership.lose(str(error))
                self._lost = True  # the next turn drops the tasks, or they are closed as they are
                return
            tasks = self._tasks.roll_back()
            self._owed, self._holding = 0, False
            await self._back_off()
            await self._committer.init()
            self._open_soon(tasks)
            self._follow_soon(self._tasks.standbys)  # the logs may begin later by now
        except KafkaError as again:
            self._fail(again)
            await self._back_off()

    def _fenced(self, error: KafkaError) -> KafkaError:
        return KafkaError(
            error.code, error.api, error.where,
            "another process runs with the same group_instance_id: it has to be unique for each process; stop one of "
            f"the two with group_instance_id {self._config.group_instance_id!r}, or start it with another name "
            "(STREAMLIB_GROUP_INSTANCE_ID, or --instance-id of streamlib run)",
        )  # fmt: skip

    async def _back_off(self) -> None:
        await anyio.sleep(self._backoff_ms / 1000)
        self._backoff_ms = min(self._backoff_ms * 2, LONGEST_BACKOFF_MS)

    async def _give_up(self) -> None:
        """Close dirty what is still open: nothing is committed, nothing uncommitted reaches the disk."""
        with anyio.CancelScope(shield=True):
            await self._calls.cancel()
            try:
                with anyio.move_on_after(LAST_ABORT_MS / 1000):
                    await self._committer.abort()
            finally:
                try:
                    self._close_all()
                finally:
                    await self._committer.close()  # nothing of it is tried again from here on
                    if self._global_stores is not None:
                        self._global_stores.close()
