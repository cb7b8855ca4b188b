"""What this worker has of stores, and who has the others, for those who ask from outside: any thread may.

Nothing here is changed by asking, and what is read of the worker are attributes that its loop replaces as a whole.
"""

from __future__ import annotations

from streamlib.engine.plan import Plan
from streamlib.runtime.assignor import Place
from streamlib.runtime.membership import Membership
from streamlib.runtime.ports import MemberTasks
from streamlib.runtime.tasks import TaskSet


class LocalStores:
    """See the module. For one worker.

    Args:
        plan: its plan.
        place: where it runs, and what it is called.
        membership: its place in the group.
        tasks: what it runs and follows.
    """

    def __init__(self, plan: Plan, place: Place, membership: Membership, tasks: TaskSet) -> None:
        self.plan = plan
        self._place = place
        self._membership = membership
        self._tasks = tasks

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
