"""Known bugs, each planted into the production code: what a simulator is worth is what it finds.

Every one of them is in some stream processor that people run, or was in a draft of this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import anyio
import msgspec

from streamlib.engine import calls as calls_module
from streamlib.engine import task as task_module
from streamlib.engine.assignment import Decision, Member, assign
from streamlib.engine.inputs import Input
from streamlib.engine.progress import Progress
from streamlib.engine.task import Task
from streamlib.errors import ErrorCode, KafkaError
from streamlib.kafka.group import KafkaGroup
from streamlib.kafka.producer import KafkaProducer, _cut_off, _State
from streamlib.records import GroupMetadata, OffsetAndMetadata, TaskId, TopicPartition
from streamlib.runtime import assignor, transaction
from streamlib.runtime.calls import CallsUnderWay
from streamlib.runtime.commits import Commits
from streamlib.runtime.restore import Bounds, Restorer
from streamlib.runtime.tasks import TaskSet
from streamlib.runtime.transaction import AtLeastOnce, ExactlyOnce, Work
from streamlib.runtime.worker import Worker
from streamlib.state.overlay import Overlay

Mutation = Callable[[], Any]

MUTATIONS: dict[str, Mutation] = {}
SHOWN_BY: Mapping[str, Sequence[str]] = {
    "offsets_committed_before_the_outputs": ("passthrough", "ledger", "repartition"),  # those that run at least once
    "positions_committed_past_pending_calls": ("enrich",),
    "finished_records_redone_with_pending_ones": ("enrich",),
    "commits_never_wait_for_calls": ("enrich",),
    "calls_of_a_key_all_at_once": ("enrich",),
    "records_of_a_key_overtake_one_that_waits": ("enrich",),
    "answers_that_outlive_their_task": ("enrich",),
}
"""Workloads that a bug has to be looked for in, if not in all of them."""


def mutation(plant: Callable[[], Iterator[None]]) -> Callable[[], Iterator[None]]:
    """Add a bug to the list."""
    MUTATIONS[plant.__name__] = contextmanager(plant)
    return plant


@mutation
def offsets_read_while_a_transaction_is_pending() -> Iterator[None]:
    """Committed offsets are read before the fence: the last owner's transaction may yet commit."""
    ask = KafkaGroup._ask

    async def ask_unstable(self: KafkaGroup, api: str, body: Mapping[str, Any], *rest: Any) -> Any:
        if api == "OffsetFetch":
            body = {**body, "require_stable": False}
        return await ask(self, api, body, *rest)

    with mock.patch.object(KafkaGroup, "_ask", ask_unstable):
        yield


@mutation
def offsets_committed_by_anybody() -> Iterator[None]:
    """Generation -1 in the offset commit: a coordinator accepts that from a zombie, too."""
    commit = KafkaProducer._commit_offsets

    async def as_nobody(
        self: KafkaProducer, group: GroupMetadata, offsets: Mapping[TopicPartition, OffsetAndMetadata]
    ) -> None:
        await commit(self, GroupMetadata(group.group_id, -1, "", None), offsets)

    with mock.patch.object(KafkaProducer, "_commit_offsets", as_nobody):
        yield


@mutation
def stores_written_before_the_transaction_ends() -> Iterator[None]:
    """Uncommitted state on disk: after a crash it is ahead of the offsets."""

    async def commit(self: ExactlyOnce, work: Work) -> None:
        self._begin()
        producer = self._producers[0]
        ends = await transaction._send_and_flush(producer, work)
        transaction._write_stores(work, ends)
        await transaction._with_live_generation(self._membership, producer.add_offsets, work.offsets)
        await producer.end(commit=True)
        self.open = False
        self._producers.reverse()

    with mock.patch.object(ExactlyOnce, "commit", commit):
        yield


@mutation
def revoked_tasks_given_back_before_they_are_closed() -> Iterator[None]:
    """The others hear that a task is free while this worker goes on with it."""

    async def hand_back(self: Worker, revoked: Any) -> None:
        self._membership.release([p for task_id in revoked for p in self._plan.inputs(task_id)])

    with mock.patch.object(Worker, "_hand_back", hand_back):
        yield


@mutation
def aborted_work_not_rewound() -> Iterator[None]:
    """After an abort the task goes on behind the records whose results were thrown away."""

    async def recover(self: Worker, error: KafkaError) -> None:
        await self._committer.abort()
        await self._back_off()
        await self._committer.init()

    with mock.patch.object(Worker, "_recover", recover):
        yield


@mutation
def sequences_not_reset() -> Iterator[None]:
    """A new epoch begins each sequence at 0; this producer goes on counting."""

    def adopt(self: KafkaProducer, producer_id: int, epoch: int) -> None:
        self._producer_id, self._epoch = producer_id, epoch

    with mock.patch.object(KafkaProducer, "_adopt", adopt):
        yield


@mutation
def commit_repeated_after_an_unknown_outcome() -> Iterator[None]:
    """A commit whose answer was lost counts as not done: its results are sent again in a new transaction."""
    send, commit, init = ExactlyOnce.send, ExactlyOnce.commit, ExactlyOnce.init
    outputs: dict[int, list[Any]] = {}

    def remembered(self: ExactlyOnce, sent: Any) -> None:
        outputs.setdefault(id(self), []).append(sent)
        send(self, sent)

    async def commit_again(self: ExactlyOnce, work: Work) -> None:
        try:
            await commit(self, work)
        except KafkaError as error:
            if error.code != ErrorCode.NETWORK_EXCEPTION or error.api != "EndTxn":
                raise
            await init(self)
            for sent in outputs.pop(id(self), ()):
                send(self, sent)
            await commit(self, work)
        outputs.pop(id(self), None)

    async def end_once(self: KafkaProducer, *, commit: bool) -> None:
        self._state = _State.ENDING
        try:
            answer = await self._ask_end(commit=commit)
            if self._version_2:
                self._adopt(answer.producer_id, answer.producer_epoch)
        except BaseException as error:
            self._fail(_cut_off("EndTxn", self._where, error))
            raise
        self._forget_transaction()
        self._state = _State.READY

    with (
        mock.patch.object(ExactlyOnce, "send", remembered),
        mock.patch.object(ExactlyOnce, "commit", commit_again),
        mock.patch.object(KafkaProducer, "_end_transaction", end_once),
    ):
        yield


@mutation
def lost_tasks_committed() -> Iterator[None]:
    """The group went on without this member, and it commits what it has all the same, under the next generation."""

    async def drop_all(self: Worker) -> None:
        self._lost = False
        self._membership.dropped_all()

    with mock.patch.object(Worker, "_drop_all", drop_all):
        yield


@mutation
def restored_to_the_last_stable_offset_only() -> Iterator[None]:
    """A changelog is read up to what is stable now: a committed transaction whose marker is still to come is missed."""
    list_offsets = Restorer.bounds

    async def bounds(self: Restorer, tasks: Sequence[Task]) -> Any:
        found = await list_offsets(self, tasks)
        stable = await self._admin.list_offsets(list(found), "latest_stable")
        return {partition: at._replace(end=stable[partition]) for partition, at in found.items()}

    with mock.patch.object(Restorer, "bounds", bounds):
        yield


@mutation
def overlay_kept_after_a_roll_back() -> Iterator[None]:
    """The state of the aborted transaction is still there when its records are processed again."""
    roll_back = TaskSet.roll_back

    def roll_back_without(self: TaskSet) -> Any:
        with mock.patch.object(Task, "rollback", return_value=None):
            return roll_back(self)

    with mock.patch.object(TaskSet, "roll_back", roll_back_without):
        yield


# Of what is processed during a commit


@mutation
def offsets_committed_of_what_came_during_the_commit() -> Iterator[None]:
    """They are asked for when they are sent: what was processed meanwhile is not in the transaction."""
    commit = ExactlyOnce.commit

    async def with_later_offsets(self: ExactlyOnce, work: Work) -> None:
        with_live_generation = transaction._with_live_generation

        async def later(membership: Any, how: Any, offsets: Any) -> None:
            newer = {partition: at for task, _ in work.parts for partition, at in task.offsets().items()}
            await with_live_generation(membership, how, {**offsets, **newer})

        with mock.patch.object(transaction, "_with_live_generation", later):
            await commit(self, work)

    with mock.patch.object(ExactlyOnce, "commit", with_later_offsets):
        yield


@mutation
def changes_made_during_a_commit_written_with_it() -> Iterator[None]:
    """The stores have them, the changelog never gets them."""

    def seal(self: Overlay) -> dict[bytes, bytes | None]:
        return self.changes

    with mock.patch.object(Overlay, "seal", seal), mock.patch.object(Overlay, "committed", Overlay.clear):
        yield


@mutation
def sealed_changes_not_read() -> Iterator[None]:
    """What is processed during a commit is made of the state before it."""

    def seal(self: Overlay) -> dict[bytes, bytes | None]:
        changes = self.changes
        self.clear()
        return changes

    with mock.patch.object(Overlay, "seal", seal):
        yield


@mutation
def outputs_sent_during_a_commit() -> Iterator[None]:
    """They become visible with it, the offsets of their records do not."""
    begin = Commits.begin

    async def begin_and_send(self: Commits, tasks: Iterable[Task], beside: Any) -> None:
        tasks, committer = list(tasks), self._committer
        producer = committer._producers[0] if isinstance(committer, ExactlyOnce) else committer._producer  # type: ignore[attr-defined]
        await begin(self, tasks, beside)

        async def send() -> None:
            while self.under_way and not self.ended:
                for task in tasks:
                    for partition, records in task.take_outputs().items():
                        producer.send(partition, records)
                await anyio.sleep(0.0001)

        beside.start_soon(send)

    with mock.patch.object(Commits, "begin", begin_and_send):
        yield


@mutation
def next_commit_begun_before_the_last_has_ended() -> Iterator[None]:
    """What the second was made of may never be committed."""

    with mock.patch.object(Commits, "under_way", property(lambda self: False)):
        yield


# Of work that moves


@mutation
def demoted_task_goes_on() -> Iterator[None]:
    """What was given back to be followed from now on is not taken from the tasks that run."""
    with mock.patch.object(TaskSet, "demote", return_value=[]):
        yield


@mutation
def rest_of_the_changelog_skipped_by_a_promotion() -> Iterator[None]:
    """A standby counts as complete wherever it is."""
    hold, begin = TaskSet.hold, Restorer.begin
    promoted: list[Task] = []

    def remember(self: TaskSet, task_ids: Iterable[TaskId]) -> list[Task]:
        task_ids = list(task_ids)
        promoted.extend(task for task in self.standbys if task.id in task_ids)
        return hold(self, task_ids)

    def begin_at_once(self: Restorer, task: Task, bounds: Mapping[TopicPartition, Bounds]) -> None:
        if task in promoted:
            promoted.remove(task)
            ends = {p: at if at is not None else bounds[p].start for p, at in task.restore_positions().items()}
            bounds = {p: Bounds(bounds[p].start, end) for p, end in ends.items()}
        begin(self, task, bounds)

    with mock.patch.object(TaskSet, "hold", remember), mock.patch.object(Restorer, "begin", begin_at_once):
        yield


@mutation
def tasks_handed_over_without_a_commit() -> Iterator[None]:
    """Open work of a revoked task is dropped, and its results, which have been sent, are committed later."""
    hand_back = Worker._hand_back

    async def without_commit(self: Worker, revoked: Sequence[TaskId]) -> None:
        async def nothing() -> None:
            pass

        with mock.patch.object(self, "_commit", nothing):
            await hand_back(self, revoked)

    with mock.patch.object(Worker, "_hand_back", without_commit):
        yield


@mutation
def standbys_read_beyond_what_is_stable() -> Iterator[None]:
    """Stores are filled from changelogs as they are written, results of open transactions among them."""
    follow = Restorer.follow

    def follow_all(self: Restorer, *rest: Any) -> None:
        fetcher: Any = self._fetcher
        fetcher._settings = msgspec.structs.replace(fetcher._settings, read_committed=False)
        follow(self, *rest)

    with mock.patch.object(Restorer, "follow", follow_all):
        yield


@mutation
def tasks_given_away_before_their_owners_let_go() -> Iterator[None]:
    """The leader does not withhold what somebody else has."""

    def at_once(tasks: Any, ends: Any, members: Sequence[Member], policy: Any) -> Decision:
        free = [msgspec.structs.replace(member, owned=frozenset()) for member in members]
        return assign(tasks, ends, free, policy)

    with mock.patch.object(assignor, "assign", at_once):
        yield


# Functions that are awaited


@mutation
def positions_committed_past_pending_calls() -> Iterator[None]:
    """A record that was taken counts as done, whether its call is back or not."""
    low_water = property(lambda self: self.position)
    with (
        mock.patch.object(Input, "_progress", return_value=None),
        mock.patch.object(Input, "low_water", low_water),
    ):
        yield


@mutation
def finished_records_redone_with_pending_ones() -> Iterator[None]:
    """The commit is nothing but a low-water mark, and what is out above it comes again."""
    progress = Input._progress

    def all_unfinished(self: Input) -> Progress | None:
        known = progress(self)
        return known and known._replace(unfinished=tuple(range(known.first, known.until)))

    with mock.patch.object(Input, "_progress", all_unfinished):
        yield


@mutation
def commits_never_wait_for_calls() -> Iterator[None]:
    """A record whose count is in the store is processed again, because its call was pending."""
    with mock.patch.object(task_module, "finishes_at_once", return_value=True):
        yield


@mutation
def records_of_a_key_overtake_one_that_waits() -> Iterator[None]:
    """What failed is tried again later, and nothing waits behind it."""
    with mock.patch.object(calls_module._ByKey, "waits", return_value=False):
        yield


@mutation
def calls_of_a_key_all_at_once() -> Iterator[None]:
    """The quicker call overtakes the slower one."""
    with mock.patch.dict(calls_module._ORDERS, {"key": calls_module._AsTheyCome}):
        yield


@mutation
def answers_that_outlive_their_task() -> Iterator[None]:
    """Calls are not cancelled with their tasks, and go on in whatever the task is by then."""

    async def cancel(self: CallsUnderWay, tasks: Any = None) -> None: ...

    with mock.patch.object(CallsUnderWay, "cancel", cancel):
        yield


# At least once


@mutation
def offsets_committed_before_the_outputs() -> Iterator[None]:
    """What is not written yet when the worker dies is not read again."""

    async def commit(self: AtLeastOnce, work: Work) -> None:
        await transaction._with_live_generation(self._membership, self._group.commit_offsets, work.offsets)
        transaction._write_stores(work, await transaction._send_and_flush(self._producer, work))
        self.open = False

    with mock.patch.object(AtLeastOnce, "commit", commit):
        yield
