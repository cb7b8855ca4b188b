"""What goes into the decision and what comes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from streamlib.records import TaskId


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One member, as it describes itself when it joins.

    Args:
        member_id: its id in the group.
        process: members with the same one share a state directory, so stores of one are stores of all; if empty, it
            shares with nobody.
        host: the machine it runs on; if empty, no other member is taken to run there.
        tags: where it runs otherwise (rack, zone ...); standbys avoid their active's.
        capacity: how many shares of the tasks it takes.
        owned: the active tasks it holds now.
        generation: in which it came to own them.
        positions: for each stateful task whose stores its process has: the sum of their changelog positions.
        followed: the tasks whose changelogs it follows now, as standby or warm-up. Members that share a state
            directory cannot be told apart by their positions.
        warmed_up: those of them that it has seen caught up. They count as such from then on: on a busy task somebody
            else's look at the same moment finds it behind again, and it would warm up for ever.
        leaving: it is about to stop, and holds its tasks only until others can take them.
    """

    member_id: str
    process: str = ""
    host: str = ""
    tags: Mapping[str, str] = {}
    capacity: int = 1
    owned: frozenset[TaskId] = frozenset()
    generation: int = -1
    positions: Mapping[TaskId, int] = {}
    followed: frozenset[TaskId] = frozenset()
    warmed_up: frozenset[TaskId] = frozenset()
    leaving: bool = False

    @property
    def directory(self) -> str:
        """Tells whose stores it shares."""
        return self.process or self.member_id


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration asks for (`StreamsConfig`, KIP-441, KIP-708). Lags are offsets of changelogs."""

    num_standby_replicas: int = 0
    acceptable_recovery_lag: int = 10_000
    max_warmup_replicas: int = 2
    rack_tags: tuple[str, ...] = ()


class Share(msgspec.Struct, frozen=True):
    """What one member runs from now on.

    Warm-ups are standbys that take the task's place here once they have caught up, for which the member joins again.
    """

    active: frozenset[TaskId] = frozenset()
    standby: frozenset[TaskId] = frozenset()
    warmup: frozenset[TaskId] = frozenset()


class Decision(msgspec.Struct, frozen=True):
    """Who runs what. `withheld` are tasks on their way: nobody's until their owner has let go of them."""

    shares: Mapping[str, Share]
    withheld: frozenset[TaskId] = frozenset()
    warnings: tuple[str, ...] = ()


def valid_claims(members: Iterable[Member]) -> dict[TaskId, str]:
    """The owner of each owned task. Of two claims the later generation's holds; of two equal ones neither (KIP-792).

    >>> late = Member(member_id="late", owned=frozenset({TaskId(0, 0)}), generation=3)
    >>> soon = Member(member_id="soon", owned=frozenset({TaskId(0, 0)}), generation=4)
    >>> valid_claims([late, soon])
    {TaskId(subtopology=0, partition=0): 'soon'}
    """
    return {task: owners[0] for task, owners in _latest_claims(members).items() if len(owners) == 1}


def disputed(members: Iterable[Member]) -> frozenset[TaskId]:
    """Tasks that several members claim with the same right. All of them have to let go before anybody may have it."""
    return frozenset(task for task, owners in _latest_claims(members).items() if len(owners) > 1)


def _latest_claims(members: Iterable[Member]) -> dict[TaskId, list[str]]:
    generations: dict[TaskId, int] = {}
    owners: dict[TaskId, list[str]] = {}
    for member in members:
        for task in member.owned:
            known = generations.get(task)
            if known is None or member.generation > known:
                generations[task] = member.generation
                owners[task] = [member.member_id]
            elif member.generation == known:
                owners[task].append(member.member_id)
    return owners


def by_id(members: Sequence[Member]) -> dict[str, Member]:
    """The members in the order of their ids, so that nothing depends on the order in which they joined."""
    return {member.member_id: member for member in sorted(members, key=lambda member: member.member_id)}
