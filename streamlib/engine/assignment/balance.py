"""Where each task belongs once everything has come to rest.

Of each subtopology a member gets its part, in proportion to its capacity and rounded down or up; and so it is over
the tasks with stores, and over all tasks. Within that as few tasks as possible change their owner, and those that do
go where least has to be restored. All of this at once is one cheapest flow through

    tasks alike --> owner ---------------------------+
        |                                            v
        +--> members with stores of them --> (member, subtopology) --> (member, stateful or not) --> (member, all)
        |                                            ^
        +--> anywhere -------------------------------+

where the edges to the right have room for what a member has to get, and dear room for one more.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from streamlib.engine.assignment.flow import Flow
from streamlib.engine.assignment.group import Member
from streamlib.engine.assignment.stores import Stores
from streamlib.records import TaskId

# What a place costs a task. Anything that has caught up is far cheaper than what has not.
_NO_STORE = 6
_BEHIND = 32
# Places further down are not told apart.
_TOLD_APART = 5
_UNLIMITED = 1 << 40


def find_homes(
    tasks: Sequence[TaskId], members: Mapping[str, Member], owners: Mapping[TaskId, str], stores: Stores
) -> dict[TaskId, str]:
    """The member each task belongs to, disregarding that moves take time.

    Args:
        tasks: all, sorted.
        members: those that stay, by id and sorted.
        owners: of each owned task; one that is not among the members has to give its tasks away.
        stores: how far they are.
    """
    quotas = _Quotas(tasks, members, stores)
    kept: dict[tuple[str, int], list[TaskId]] = defaultdict(list)
    for task in tasks:
        if owners.get(task) in members:
            kept[owners[task], task.subtopology].append(task)
    homes = {}
    for (member, sub), mine in kept.items():
        # Who has no more than what it must get keeps it all: any other task it got would have had to move, too.
        if len(mine) <= quotas.least(member, sub):
            homes.update(dict.fromkeys(mine, member))
    if len(homes) < len(tasks):
        network = _Network(members, quotas, homes)
        homes |= network.place([task for task in tasks if task not in homes], owners, stores)
    return homes


class _Quotas:
    """How many tasks a member gets: what its part of the capacity amounts to, rounded down or up.

    All of these ranges can be kept at once, since the parts before rounding do.
    """

    def __init__(self, tasks: Sequence[TaskId], members: Mapping[str, Member], stores: Stores) -> None:
        self._capacities = {name: member.capacity for name, member in members.items()}
        self._capacity = sum(self._capacities.values())
        self._counts: Counter[object] = Counter()
        self.stateful: dict[int, bool] = {}
        for task in tasks:
            kind = stores.stateful(task)
            self.stateful[task.subtopology] = self.stateful.get(task.subtopology, False) or kind
        for task in tasks:
            self._counts.update(self.groups(task.subtopology))

    def groups(self, subtopology: int) -> tuple[object, object, object]:
        """In which a task of it counts: its subtopology, those with or without stores, and all."""
        return subtopology, ("stateful", self.stateful[subtopology]), "all"

    def least(self, member: str, group: object) -> int:
        """What it gets of the group in any case."""
        return self._counts[group] * self._capacities[member] // self._capacity

    def most(self, member: str, group: object) -> int:
        """What it gets at most: one more, or the same where it comes out even."""
        return -(-self._counts[group] * self._capacities[member] // self._capacity)


class _Sort(NamedTuple):
    """Tasks that do not differ in anything that matters here."""

    subtopology: int
    owner: str | None
    places: tuple[tuple[tuple[str, ...], bool], ...]  # members that have stores, best first, and whether caught up
    at_once: bool  # it needs to restore nothing, or not much, anywhere


class _Network:
    """The flow from tasks to members, for the tasks that are not settled yet."""

    def __init__(self, members: Mapping[str, Member], quotas: _Quotas, settled: Mapping[TaskId, str]) -> None:
        self._members = members
        self._quotas = quotas
        self._flow = Flow()
        self._source = self._flow.node()
        self._sink = self._flow.node()
        self._settled = Counter((name, group) for task, name in settled.items() for group in quotas.groups(task[0]))
        self._slots: dict[tuple[str, object], int] = {}
        self._exits: dict[int, list[tuple[int, str]]] = defaultdict(list)  # of a place: edges to the members there
        self._places: dict[tuple[tuple[str, ...], int], int] = {}
        self._anywhere = tuple(members)
        self._directories: dict[str, tuple[str, ...]] = defaultdict(tuple)
        for name, each in members.items():
            self._directories[each.directory] += (name,)

    def place(self, tasks: Sequence[TaskId], owners: Mapping[TaskId, str], stores: Stores) -> dict[TaskId, str]:
        """A member for each of them."""
        # A move outweighs all choices between places, being out of balance outweighs all moves.
        self._a_move = 2 * _BEHIND * (len(tasks) + 1)
        self._too_many = 2 * self._a_move * (len(tasks) + 1)
        sorts: dict[_Sort, list[TaskId]] = defaultdict(list)
        for task in tasks:
            sorts[self._sort(task, owners.get(task), stores)].append(task)
        edges = {sort: self._enter(sort, len(alike)) for sort, alike in sorts.items()}
        self._flow.fill(self._source, self._sink)
        homes: dict[TaskId, str] = {}
        arrived: dict[int, list[TaskId]] = defaultdict(list)
        for sort, alike in sorts.items():
            queue = iter(alike)
            for edge, node in edges[sort]:
                arrived[node] += islice(queue, self._flow.sent(edge))
        for node, waiting in arrived.items():
            queue = iter(waiting)
            for edge, member in self._exits[node]:
                homes |= dict.fromkeys(islice(queue, self._flow.sent(edge)), member)
        return homes

    def _sort(self, task: TaskId, owner: str | None, stores: Stores) -> _Sort:
        places: list[tuple[tuple[str, ...], bool]] = []
        for directory, ready in stores.places(task):
            names = self._directories.get(directory, ())
            # Who follows it need not wait until another closes its stores.
            following = tuple(name for name in names if task in self._members[name].followed)
            places += ((choice, ready) for choice in dict.fromkeys((following, names)) if choice)
        at_once = stores.caught_up(task, "")  # nothing is stored in a directory without a name
        return _Sort(task.subtopology, owner if owner in self._members else None, tuple(places), at_once)

    def _enter(self, sort: _Sort, count: int) -> list[tuple[int, int]]:
        """The edges from these tasks to the places they can go to."""
        node = self._flow.node()
        self._flow.edge(self._source, node, count, 0)
        edges = []
        # A task without owner that begins elsewhere, since its stores are ready there, has to move later.
        now = self._a_move if sort.owner is not None else 0
        later = now or (self._a_move if any(ready for _, ready in sort.places) else 0)
        if sort.owner is not None:
            place = self._place((sort.owner,), sort.subtopology)
            edges.append((self._flow.edge(node, place, count, 0), place))
        for rank, (names, ready) in enumerate(sort.places):
            price = min(rank, _TOLD_APART) + (now if ready else later + _BEHIND)
            place = self._place(names, sort.subtopology)
            edges.append((self._flow.edge(node, place, count, price), place))
        place = self._place(self._anywhere, sort.subtopology)
        price = _NO_STORE + (now if sort.at_once else later + _BEHIND)
        edges.append((self._flow.edge(node, place, count, price), place))
        return edges

    def _place(self, members: tuple[str, ...], subtopology: int) -> int:
        """A choice between members."""
        key = members, subtopology
        if key not in self._places:
            self._places[key] = node = self._flow.node()
            for member in members:
                edge = self._flow.edge(node, self._slot(member, self._quotas.groups(subtopology)), _UNLIMITED, 0)
                self._exits[node].append((edge, member))
        return self._places[key]

    def _slot(self, member: str, groups: tuple[object, ...]) -> int:
        """Where all that a member gets of a group of tasks passes, on its way to the larger groups."""
        if not groups:
            return self._sink
        group, *larger = groups
        key = member, group
        if key not in self._slots:
            self._slots[key] = node = self._flow.node()
            next_node = self._slot(member, tuple(larger))
            least, most = self._quotas.least(member, group), self._quotas.most(member, group)
            self._flow.edge(node, next_node, least - self._settled[key], 0)
            self._flow.edge(node, next_node, most - least, self._too_many)
        return self._slots[key]
