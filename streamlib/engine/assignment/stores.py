"""How far the stores of each task are, wherever there are any."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from streamlib.engine.assignment.group import Member
from streamlib.records import TaskId

NO_STORE = float("inf")

# More places than this are not told apart when a task looks for a new one: old directories are many and worthless.
_MOST_PLACES = 8


class Stores:
    """Positions and lags by state directory: what one member of it has stored, the others can open.

    A lag is counted in offsets of the task's changelogs. It is 0 for its owner, whatever it says: its position may be
    from the last commit. If the ends of the changelogs are unknown, every store counts as caught up and none as none.
    """

    def __init__(
        self,
        members: Iterable[Member],
        owners: Mapping[TaskId, str],
        ends: Mapping[TaskId, int | None],
        acceptable_lag: int,
    ) -> None:
        self._ends = ends
        self._acceptable_lag = acceptable_lag
        self._lags: dict[TaskId, dict[str, float]] = defaultdict(dict)
        for member in members:
            self._add(member, owners)
        self._places: dict[TaskId, tuple[tuple[str, bool], ...]] = {}

    def _add(self, member: Member, owners: Mapping[TaskId, str]) -> None:
        directory = member.directory
        for task, position in member.positions.items():
            if task in self._ends:
                end = self._ends[task]
                # Without an end there is no lag, but the furthest store is to be the first all the same.
                lag = max(0, end - position) if end is not None else -position
                known = self._lags[task]
                known[directory] = min(lag, known.get(directory, NO_STORE))
        for task in member.warmed_up:
            if self.stored(task, directory):
                self._lags[task][directory] = min(0, self._lags[task][directory])
        for task in member.owned:
            if task in self._ends and owners.get(task) == member.member_id:
                self._lags[task][directory] = -NO_STORE

    def stateful(self, task: TaskId) -> bool:
        """Whether it has stores with changelogs."""
        return task in self._ends

    def stored(self, task: TaskId, directory: str) -> bool:
        """Whether there is anything of it."""
        return task in self._lags and directory in self._lags[task]

    def lag(self, task: TaskId, directory: str) -> float:
        """How much would have to be restored there."""
        known = self._lags[task].get(directory) if task in self._lags else None
        if known is not None:
            return max(0, known)
        end = self._ends.get(task, 0)
        return NO_STORE if end is None else end

    def caught_up(self, task: TaskId, directory: str) -> bool:
        """Whether the task could run there at once. One without stores can anywhere."""
        return self.lag(task, directory) <= self._acceptable_lag

    def closer(self, task: TaskId, directory: str, other: str) -> bool:
        """Whether it is worth it to begin in `directory` rather than in `other`."""
        if self.caught_up(task, other):
            return False
        if self.caught_up(task, directory):
            return True
        return self.lag(task, directory) + self._acceptable_lag < self.lag(task, other)

    def places(self, task: TaskId) -> tuple[tuple[str, bool], ...]:
        """Directories with stores of it, the furthest first, and whether they have caught up."""
        if task not in self._lags:
            return ()
        if task not in self._places:
            known = self._lags[task]
            order = sorted(known, key=lambda directory: (known[directory], directory))[:_MOST_PLACES]
            self._places[task] = tuple((directory, self.caught_up(task, directory)) for directory in order)
        return self._places[task]
