"""Known bugs, each planted into the production code: what a simulator is worth is what it finds.

Every one of them is in some stream processor that people run, or was in a draft of this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

from streamlib.engine.task import Task
from streamlib.errors import ErrorCode, KafkaError
from streamlib.kafka.group import KafkaGroup
from streamlib.kafka.producer import KafkaProducer, _cut_off, _State
from streamlib.records import GroupMetadata, OffsetAndMetadata, TopicPartition
from streamlib.runtime import transaction
from streamlib.runtime.restore import Restorer
from streamlib.runtime.tasks import TaskSet
from streamlib.runtime.transaction import ExactlyOnce
from streamlib.runtime.worker import Worker

Mutation = Callable[[], Any]

MUTATIONS: dict[str, Mutation] = {}


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

    async def commit(self: ExactlyOnce, tasks: Sequence[Task]) -> None:
        self._begin()
        producer = self._producers[0]
        ends = await transaction._send_and_flush(producer, tasks)
        offsets = transaction.merged_offsets(tasks)
        transaction._write_stores(tasks, ends)
        await transaction._with_live_generation(self._membership, producer.add_offsets, offsets)
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

    async def commit_again(self: ExactlyOnce, tasks: Sequence[Task]) -> None:
        try:
            await commit(self, tasks)
        except KafkaError as error:
            if error.code != ErrorCode.NETWORK_EXCEPTION or error.api != "EndTxn":
                raise
            await init(self)
            for sent in outputs.pop(id(self), ()):
                send(self, sent)
            await commit(self, tasks)
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
