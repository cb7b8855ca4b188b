"""What this worker has of stores, and who has the others, for those who ask from outside: any thread may.

    who asks        task runs here, membership is sure      what is committed
                    on its way here, or a roll-back         not available: ask again
                    standby                                 only if stale answers will do
                    elsewhere                               who has it, as the group told last

Nothing is answered from the overlay: what is uncommitted may be undone, and then nobody has ever known it. A missing
row is only ever reported by who is sure to have the task: so no answer while stores are restored, and none from a
worker whose coordinator has not answered for a session, for others may have the task by then (`Membership.vouches`).

Nothing here is changed by asking, and what is read of the worker are attributes that its loop replaces as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from streamlib.engine.plan import Plan
from streamlib.engine.task import Task
from streamlib.errors import (
    InvalidStateStoreError,
    InvalidStateStorePartitionError,
    StateStoreNotAvailableError,
    StreamsRebalancingError,
)
from streamlib.records import TaskId
from streamlib.runtime.assignor import Place
from streamlib.runtime.global_stores import GlobalStores
from streamlib.runtime.membership import Membership
from streamlib.runtime.ports import MemberTasks
from streamlib.runtime.restore import Restorer
from streamlib.runtime.tasks import TaskSet
from streamlib.state.backend import Backend
from streamlib.topology.nodes import StoreSpec


class LagInfo(msgspec.Struct, frozen=True):
    """How far a store of this worker is behind its changelog, in offsets.

    Attributes:
        current_offset_position: up to where, exclusive, it is complete.
        end_offset_position: where the changelog ends, as last heard; of a task that runs the same.
        offset_lag: how many offsets are between the two: about as many records, less markers and what was compacted.

    >>> LagInfo(40, 42).offset_lag
    2
    """

    current_offset_position: int
    end_offset_position: int

    @property
    def offset_lag(self) -> int:
        """How many changelog offsets it is behind."""
        return max(self.end_offset_position - self.current_offset_position, 0)


class StoreCopy(msgspec.Struct, frozen=True):
    """A part of a store that can be read here.

    Attributes:
        spec: the store.
        task: whose part it is; None of a global store.
        backend: the committed bytes; any thread may `peek` and `page`.
        is_active: whether it is kept up to date by its owner, this worker.
        lag: how far behind it is, if that is known.
    """

    spec: StoreSpec
    task: Task | None
    backend: Backend
    is_active: bool = True
    lag: LagInfo | None = None

    @property
    def partition(self) -> int | None:
        return None if self.task is None else self.task.id.partition

    @property
    def stream_time(self) -> int:
        """As of what is in the store; -1 if that is not known."""
        return -1 if self.task is None else self.task.committed_stream_time


class LocalStores:
    """See the module. For one worker.

    Args:
        plan: its plan.
        place: where it runs, and what it is called.
        membership: its place in the group.
        tasks: what it runs and follows.
        restorer: how far it is with what it restores and follows.
        global_stores: its copies of those; None if there are none.
        hears_of_all: whether the group tells of all members, or only of those that have a server (KIP-1071).
    """

    def __init__(
        self,
        plan: Plan,
        place: Place,
        membership: Membership,
        tasks: TaskSet,
        restorer: Restorer,
        global_stores: GlobalStores | None = None,
        *,
        hears_of_all: bool = True,
    ) -> None:
        self.plan = plan
        self._place = place
        self._membership = membership
        self._tasks = tasks
        self._restorer = restorer
        self._global_stores = global_stores
        self._hears_of_all = hears_of_all

    @property
    def me(self) -> MemberTasks:
        """This worker, as it knows itself."""
        return MemberTasks(
            self._membership.name,
            self._place.worker,
            self._place.endpoint,
            tuple(sorted(self._tasks.ids)),
            tuple(sorted(self._tasks.standby_ids)),
        )

    @property
    def others(self) -> tuple[MemberTasks, ...]:
        """The other members that are known, as the group told last."""
        name, endpoint = self._membership.name, self._place.endpoint
        return tuple(
            each
            for each in self._membership.hosts
            if not (each.member == name if each.member else each.endpoint == endpoint)
        )

    def copy(self, spec: StoreSpec, task_id: TaskId, *, stale: bool) -> StoreCopy:
        """What this worker has of a task's part of a store.

        Raises:
            StreamsRebalancingError: tasks are changing hands; nobody here can tell who has it.
            StateStoreNotAvailableError: the task is on its way to running here.
            InvalidStateStorePartitionError: another worker has it; or only a copy is here, and none will do.
        """
        task = self._tasks.find(task_id)
        if task is not None and stale:
            is_active = task_id in self._tasks.running and self._membership.vouches
            return StoreCopy(spec, task, task.backend, is_active, self._lag(spec, task))
        where = f"store {spec.name}, partition {task_id.partition}"
        if task_id not in self._tasks.ids:
            raise self._not_here(where, task_id, has_copy=task is not None)
        if not self._membership.vouches:
            raise self._out_of_touch(where, task_id)
        if task is None or task_id not in self._tasks.running:
            raise StateStoreNotAvailableError(
                f"{where}: task {task_id} does not run here yet, {self._progress(task_id)}: ask again in a moment, or "
                "ask for what may be out of date (stale)"
            )
        return StoreCopy(spec, task, task.backend, lag=self._lag(spec, task))

    def global_copy(self, spec: StoreSpec, *, stale: bool) -> StoreCopy:
        """This worker's copy of a global store.

        Raises:
            StateStoreNotAvailableError: it has not read all of the topic yet.
        """
        stores = self._global_stores
        assert stores is not None, f"store {spec.name} is global"
        if not stores.filled and not stale:
            raise StateStoreNotAvailableError(
                f"store {spec.name} is global, and this worker has not read all of its topic yet: ask again in a moment"
            )
        return StoreCopy(spec, None, stores.backend, is_active=stores.filled)

    def lags(self) -> dict[str, dict[int, LagInfo]]:
        """How far each part of a store is that is open here: by store, by partition."""
        found: dict[str, dict[int, LagInfo]] = {}
        for task_id in sorted(self._tasks.ids | self._tasks.standby_ids):
            task = self._tasks.find(task_id)
            for spec in () if task is None else self.plan.stores(task_id):
                assert task is not None
                if (lag := self._lag(spec, task)) is not None:
                    found.setdefault(spec.name, {})[task_id.partition] = lag
        return found

    def tasks_here(self, task_ids: Iterable[TaskId], *, stale: bool) -> list[TaskId]:
        """Which of them this worker has; copies, too, if these will do."""
        here = self._tasks.ids | (self._tasks.standby_ids if stale else frozenset())
        return [task_id for task_id in task_ids if task_id in here]

    def owner(self, task_id: TaskId) -> MemberTasks | None:
        """The other member that a task is assigned to, as far as is known."""
        return next((each for each in self.others if task_id in each.active), None)

    def _not_here(self, where: str, task_id: TaskId, *, has_copy: bool) -> InvalidStateStoreError:
        owner = self.owner(task_id)
        if owner is None and not self._membership.vouches:
            return self._out_of_touch(where, task_id)
        if owner is None and not self._membership.hosts and not self._membership.alone:
            return InvalidStateStorePartitionError(
                f"{where}: task {task_id} runs on another worker, and none says where it can be asked: set "
                "application_server on each"
            )
        if owner is None:
            silent = "" if self._hears_of_all else ", or runs on one that has no application_server"
            return StreamsRebalancingError(
                f"{where}: task {task_id} is on its way from one worker to another{silent}: ask again in a moment"
            )
        place = owner.endpoint or owner.worker or owner.member
        copy = "; here is a copy, which may be out of date (stale)" if has_copy else ""
        return InvalidStateStorePartitionError(
            f"{where}: task {task_id} runs on {place}: ask there{copy}", owner=owner.endpoint or None
        )

    def _out_of_touch(self, where: str, task_id: TaskId) -> StreamsRebalancingError:
        return StreamsRebalancingError(
            f"{where}: this worker has lost touch with its group, or has not joined it yet, and others may have task "
            f"{task_id}: ask again in a moment, or ask for what may be out of date (stale)"
        )

    def _progress(self, task_id: TaskId) -> str:
        restoration = self._restorer.find(task_id)
        if restoration is None:
            return "its stores are about to be opened"
        return f"about {restoration.remaining:,} records are to be restored"

    def _lag(self, spec: StoreSpec, task: Task) -> LagInfo | None:
        partition = next((p for p, store in task.changelogs.items() if store == spec.name), None)
        if partition is None:
            return None
        if task.id not in self._tasks.running and (restoration := self._restorer.find(task.id)) is not None:
            progress = restoration.changelogs.get(partition)
            return None if progress is None else LagInfo(progress.position, max(progress.end, progress.position))
        if task.id not in self._tasks.running:
            return None
        position = task.positions_stored()[partition] or 0
        return LagInfo(position, position)
