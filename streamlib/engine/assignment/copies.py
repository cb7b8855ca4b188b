"""Where the standbys of each task belong.

A copy is never in a directory with the task itself or another copy, and if it can be avoided not on the same host,
rack or zone either (KIP-708). Within that it stays where it is; a new one goes where the stores are furthest, then
to who has least to do, then to who has least in common with the task's owner, so that the tasks of a lost member are
taken over by many. Finally copies move from members with much to do to those with little, actives and standbys counted
together. Each of these steps makes a sum smaller and the next one does not undo it, so an arrangement that was found
once is found again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from streamlib.engine.assignment.group import Member
from streamlib.engine.assignment.handover import Handover
from streamlib.engine.assignment.stores import Stores
from streamlib.records import TaskId

# The largest `distance` of a copy that has caught up.
READY = 1


class Copies:
    """An arrangement of copies that gets better step by step.

    Args:
        members: those that stay, by id and sorted.
        owners: of each owned task, whoever it is.
        homes: where each task belongs.
        handover: where it is and is going to be.
        stores: how far they are.
        rack_tags: what tells places apart, besides hosts.
    """

    def __init__(
        self,
        members: Mapping[str, Member],
        owners: Mapping[TaskId, str],
        homes: Mapping[TaskId, str],
        handover: Handover,
        stores: Stores,
        rack_tags: Sequence[str],
    ) -> None:
        self._members = members
        self._owners = owners
        self._homes = homes
        self._handover = handover
        self._stores = stores
        self._map = _Map(members, rack_tags)
        self._directory = {name: member.directory for name, member in members.items()}
        self._in_directory: dict[str, list[str]] = defaultdict(list)
        self._followers: dict[TaskId, list[str]] = defaultdict(list)
        for name, member in members.items():
            self._in_directory[member.directory].append(name)
            for task in member.followed:
                self._followers[task].append(name)
        self._order = {name: number for number, name in enumerate(members)}
        self._load = Counter(homes.values())
        self._kept_by: dict[str, set[TaskId]] = defaultdict(set)
        self._in_common: dict[str, Counter[str]] = defaultdict(Counter)  # tasks that two members have, in any role
        self.wanted: dict[TaskId, list[str]] = {}

    def arrange(self, tasks: Iterable[TaskId], copies: int) -> None:
        """Find places, in `wanted`."""
        for task in tasks:
            self._keep(task, copies)
            self._add(task, copies)
            self._spread(task)
        self._even_out()

    def with_stores(self, task: TaskId) -> list[str]:
        """Members that have something of it, or wait to."""
        places = (name for directory, _ in self._stores.places(task) for name in self._in_directory.get(directory, ()))
        return list(dict.fromkeys((*places, *self._followers.get(task, ()))))

    def allowed(self, task: TaskId, names: Iterable[str], instead_of: str | None = None) -> list[str]:
        """Which of them may have a copy, beside the others and beside the one that is active."""
        holders = [self._handover.runner(task), *self.wanted[task]]
        if task in self._handover.warmups:
            holders.append(self._handover.warmups[task])
        barred = {self._directory.get(holder) for holder in holders if holder != instead_of}
        # An owner that lets go still has its stores open, so only itself can go on with them.
        owner = self._owners.get(task, "")
        locked = self._directory.get(owner)
        directory = self._directory
        return [
            name for name in names if directory[name] not in barred and (directory[name] != locked or name == owner)
        ]

    def distance(self, task: TaskId, name: str) -> int:
        """How far it is from being a good copy: followed now, stored, or nothing; caught up or not."""
        directory = self._directory[name]
        behind = not self._stores.caught_up(task, directory)
        if not self._stores.stored(task, directory):
            return 4 + behind
        follows = task in self._members[name].followed or self._owners.get(task) == name
        return 2 * behind + (not follows)

    # --- one task -----------------------------------------------------------------------------------------------------

    def _keep(self, task: TaskId, copies: int) -> None:
        """What is there stays."""
        self.wanted[task] = []
        for name in sorted(self.with_stores(task), key=lambda name: self._worth(task, name)):
            if len(self.wanted[task]) < copies and self.allowed(task, [name]):
                self._put(task, name)

    def _add(self, task: TaskId, copies: int) -> None:
        """New copies, as far as there are members that may have one."""
        while len(self.wanted[task]) < copies:
            name = self._choose(task, self._members)
            if name is None:
                return
            self._put(task, name)

    def _spread(self, task: TaskId) -> None:
        """Replace copies while that makes for more different hosts, racks ..."""
        for name in list(self.wanted[task]):
            others = self._map.around([other for other in self._all(task) if other != name])
            clashes = self._map.clashes(name, others)
            if not clashes:
                continue
            further = [other for other in self._members if self._map.clashes(other, others) < clashes]
            if further := self.allowed(task, further, name):
                self._remove(task, name)
                self._put(task, self._choose(task, further) or name)

    def _choose(self, task: TaskId, names: Iterable[str]) -> str | None:
        """The best of them for one more copy."""
        names = self.allowed(task, names)
        if not names:
            return None
        neighbourhood = self._map.around(self._all(task))
        clashes = {name: self._map.clashes(name, neighbourhood) for name in names}
        fewest = min(clashes.values())
        names = [name for name in names if clashes[name] == fewest]
        stored = set(names).intersection(self.with_stores(task))
        if stored:
            return min(stored, key=lambda name: self._worth(task, name))
        active = self._active(task)
        in_common, first, count = self._in_common[active], self._order[active], len(self._order)
        # Going round from the active one leaves no pair over that could only take from each other.
        return min(names, key=lambda n: (self._full(n), in_common[n], (self._order[n] - first) % count))

    def _worth(self, task: TaskId, name: str) -> tuple[object, ...]:
        """Less is better."""
        distance = self.distance(task, name)
        lag = self._stores.lag(task, self._directory[name]) if distance > READY else 0
        return distance, lag, self._full(name), self._in_common[self._active(task)][name], name

    def _all(self, task: TaskId) -> list[str]:
        """Who is going to have it, in any role."""
        return [self._active(task), *self.wanted[task]]

    def _active(self, task: TaskId) -> str:
        """Home if the task is on its way there; until then a copy may well be there."""
        home, runner = self._homes[task], self._handover.runner(task)
        return home if task in self._handover.warmups or runner not in self._members else runner

    def _put(self, task: TaskId, name: str) -> None:
        self.wanted[task].append(name)
        self._kept_by[name].add(task)
        self._count(task, name, 1)

    def _remove(self, task: TaskId, name: str) -> None:
        self.wanted[task].remove(name)
        self._kept_by[name].remove(task)
        self._count(task, name, -1)

    def _count(self, task: TaskId, name: str, change: int) -> None:
        active = self._active(task)
        self._load[name] += change
        self._in_common[active][name] += change
        self._in_common[name][active] += change

    def _full(self, name: str) -> float:
        return self._load[name] / self._members[name].capacity

    # --- all of them --------------------------------------------------------------------------------------------------

    def _even_out(self) -> None:
        """Move copies from those that have more to those that have less, until no move makes a difference."""
        stuck: set[str] = set()
        while len(stuck) < len(self._members):
            receiver = min((name for name in self._members if name not in stuck), key=lambda n: (self._full(n), n))
            move = self._best_move(receiver)
            if move is None:
                stuck.add(receiver)
                continue
            task, giver = move
            self._remove(task, giver)
            self._put(task, receiver)
            self._spread(task)
            stuck.clear()

    def _best_move(self, receiver: str) -> tuple[TaskId, str] | None:
        """What the receiver has stores of; else of those who have most to do."""
        givers = [name for name in self._members if self._kept_by[name] and self._gives(name, receiver)]
        directory = self._directory[receiver]
        at_hand = [
            (self.distance(task, receiver), -self._full(giver), task, giver)
            for giver in givers
            for task in self._kept_by[giver]
            if self._stores.stored(task, directory) and self._may_move(task, giver, receiver)
        ]
        if at_hand:
            _, _, task, giver = min(at_hand)
            return task, giver
        for giver in sorted(givers, key=lambda name: (-self._full(name), name)):
            movable = [task for task in self._kept_by[giver] if self._may_move(task, giver, receiver)]
            if movable:
                in_common = self._in_common[receiver]
                return min(movable, key=lambda task: (in_common[self._active(task)], task)), giver
        return None

    def _gives(self, giver: str, receiver: str) -> bool:
        """Whether it would still have at least as much for each unit of its capacity."""
        theirs, ours = self._members[giver].capacity, self._members[receiver].capacity
        return self._load[giver] * ours > (self._load[receiver] + 1) * theirs

    def _may_move(self, task: TaskId, giver: str, receiver: str) -> bool:
        if not self.allowed(task, [receiver], giver):
            return False
        others = self._map.around([name for name in self._all(task) if name != giver])
        return self._map.clashes(receiver, others) <= self._map.clashes(giver, others)


class _Map:
    """Who is on the same host, in the same rack ... What all have in common is left out: it tells nobody apart."""

    def __init__(self, members: Mapping[str, Member], tags: Sequence[str]) -> None:
        respects = [
            {name: member.host or f"({member.directory})" for name, member in members.items()},
            *({name: member.tags.get(tag, "") for name, member in members.items()} for tag in tags),
        ]
        self._respects = [places for places in respects if len(set(places.values())) > 1]

    def around(self, names: Sequence[str]) -> list[set[str]]:
        """Their hosts, their racks ..."""
        return [{places[name] for name in names} for places in self._respects]

    def clashes(self, name: str, neighbourhood: Sequence[set[str]]) -> int:
        """In how many respects it is in that neighbourhood."""
        count = 0
        for places, taken in zip(self._respects, neighbourhood, strict=True):
            count += places[name] in taken
        return count
