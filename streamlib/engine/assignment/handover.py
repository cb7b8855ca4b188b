"""The way of each task from where it is to where it belongs.

              caught up or stateless                 owner has let go
    at owner -----------------------> withheld ---------------------------> at home
        |                                ^
        | home has far to go             | it has caught up, and joined again
        +--------------------> at owner, warm-up at home

A task without owner, or whose owner is leaving, begins where its stores are ready if they are not at home; that is
its owner then. What a leaving owner has, and nobody is ready for, stays until home has caught up (KIP-441).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from streamlib.engine.assignment.group import Member, Policy
from streamlib.engine.assignment.stores import Stores
from streamlib.records import TaskId


class Handover(msgspec.Struct, frozen=True):
    """Where each task is active, or is going to be next, and where it gets ready.

    Args:
        active: who runs it from now on.
        receivers: of withheld tasks, who get them as soon as their owners have let go.
        warmups: for those that are not at home yet, the home if it is to catch up now.
    """

    active: dict[TaskId, str]
    receivers: dict[TaskId, str]
    warmups: dict[TaskId, str]

    def runner(self, task: TaskId) -> str:
        """Who runs it, or is about to."""
        return self.active.get(task) or self.receivers[task]

    def limited_warmups(self, members: Mapping[str, Member]) -> int:
        """How many count; those that a member waits for that is leaving do not."""
        return sum(self.runner(task) in members for task in self.warmups)


class Route:
    """Decides how far each task gets in this rebalance.

    Args:
        members: those that stay, by id and sorted.
        owners: of each owned task; those not among the members are leaving.
        stores: how far they are.
    """

    def __init__(self, members: Mapping[str, Member], owners: Mapping[TaskId, str], stores: Stores) -> None:
        self._members = members
        self._owners = owners
        self._stores = stores
        self._load: Counter[str] = Counter()
        self._directories: dict[str, list[str]] = {}
        for name, member in members.items():
            self._directories.setdefault(member.directory, []).append(name)

    def plan(self, homes: Mapping[TaskId, str], disputed: Iterable[TaskId], policy: Policy) -> Handover:
        """The next step of each task. Nobody gets a disputed one before all have let go of it."""
        handover = Handover({}, {}, {})
        away = []
        disputed = frozenset(disputed)
        for task, home in sorted(homes.items()):
            runner = self._runner(task, home)
            self._load[runner] += 1
            waits = task in disputed or self._owners.get(task, runner) != runner
            (handover.receivers if waits else handover.active)[task] = runner
            if runner != home:
                away.append(task)
        self._warm_up(away, homes, handover, policy.max_warmup_replicas)
        return handover

    def _runner(self, task: TaskId, home: str) -> str:
        """Home if it is ready, else the owner if it stays, else who is ready; else the owner, or home."""
        owner = self._owners.get(task)
        at_home = self._members[home].directory
        if owner == home or self._stores.caught_up(task, at_home):
            return home
        if owner is not None and owner in self._members:
            return owner
        closest = self._closest(task) or home
        directory = self._members[closest].directory
        if owner is not None and not self._stores.caught_up(task, directory):
            return owner
        return closest if self._stores.closer(task, directory, at_home) else home

    def _closest(self, task: TaskId) -> str | None:
        """Who has least to restore; among those that have caught up, who has least to do."""
        names = [n for directory, _ in self._stores.places(task) for n in self._directories.get(directory, ())]

        def distance(name: str) -> tuple[object, ...]:
            member = self._members[name]
            lag = 0 if self._stores.caught_up(task, member.directory) else self._stores.lag(task, member.directory)
            return lag, task not in member.followed, self._load[name] / member.capacity, name

        return min(names, key=distance, default=None)

    def _warm_up(self, away: Iterable[TaskId], homes: Mapping[TaskId, str], handover: Handover, most: int) -> None:
        """All that is waited for by a member that leaves; of the rest only some, those in progress first."""

        def turn(task: TaskId) -> tuple[object, ...]:
            home = self._members[homes[task]]
            stored = self._stores.stored(task, home.directory)
            return task not in home.followed, not stored, self._stores.lag(task, home.directory), task

        for task in sorted(away, key=turn):
            if handover.runner(task) not in self._members:
                handover.warmups[task] = homes[task]
            elif most > 0:
                handover.warmups[task] = homes[task]
                most -= 1
