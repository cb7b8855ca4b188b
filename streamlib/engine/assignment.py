"""Which member runs which task: a pure function of what the members say of themselves.

Rules, in order of precedence:

1. Each task has exactly one owner; a claim from an older generation than another member's is void (KIP-792).
2. Balance: of each subtopology no member has more than one task more than another, and so it is over all tasks.
3. Least movement: within balance a task stays where it is; a free one goes where its stores already are.
4. Cooperation: a task that moves is withheld until its owner has let go of it (KIP-429), so that no task ever has
   two owners. The owner sees it missing from its assignment, closes it and joins again; then it is handed out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import msgspec

from streamlib.records import TaskId


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One member, as it describes itself when it joins.

    Args:
        member_id: its id in the group.
        process: members with the same one share a state directory, so stores of one are stores of all.
        host: the machine it runs on.
        tags: where it runs otherwise (rack, zone ...); standbys avoid their active's.
        capacity: how many shares of the tasks it takes.
        owned: the active tasks it holds now.
        generation: in which it came to own them.
        positions: for each stateful task whose stores its process has: the sum of their changelog positions.
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
    leaving: bool = False


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration asks for (`StreamsConfig`, KIP-441, KIP-708)."""

    num_standby_replicas: int = 0
    acceptable_recovery_lag: int = 10_000
    max_warmup_replicas: int = 2
    rack_tags: tuple[str, ...] = ()


class Share(msgspec.Struct, frozen=True):
    """What one member runs from now on. Warm-ups are standbys that become active once they have caught up."""

    active: frozenset[TaskId] = frozenset()
    standby: frozenset[TaskId] = frozenset()
    warmup: frozenset[TaskId] = frozenset()


class Decision(msgspec.Struct, frozen=True):
    """Who runs what. `withheld` are tasks on their way: nobody's until their owner has let go of them."""

    shares: Mapping[str, Share]
    withheld: frozenset[TaskId] = frozenset()
    warnings: tuple[str, ...] = ()


def assign(
    tasks: Iterable[TaskId], ends: Mapping[TaskId, int | None], members: Sequence[Member], policy: Policy
) -> Decision:
    """What each member runs from now on, moving tasks withheld.

    Args:
        tasks: all of them.
        ends: for each stateful task the sum of its changelogs' log ends; None if that could not be found out.
        members: the group.
        policy: the rules it can choose.

    >>> two = [Member(member_id="a", owned=frozenset({TaskId(0, 0), TaskId(0, 1)}), generation=1), Member(member_id="b")]
    >>> decision = assign([TaskId(0, 0), TaskId(0, 1)], {}, two, Policy())
    >>> {member: sorted(map(str, share.active)) for member, share in decision.shares.items()}
    {'a': ['0_0'], 'b': []}
    >>> sorted(map(str, decision.withheld))
    ['0_1']
    """
    owners = valid_claims(members)
    target = balance(tasks, members, owners)
    shares = {
        member: Share(frozenset(task for task in wanted if owners.get(task, member) == member))
        for member, wanted in target.items()
    }
    withheld = frozenset(t for member, wanted in target.items() for t in wanted if owners.get(t, member) != member)
    return Decision(shares, withheld)


def valid_claims(members: Sequence[Member]) -> dict[TaskId, str]:
    """The owner of each owned task. Of two claims the later generation's holds; of two equal ones neither can be
    trusted, and the task counts as free."""
    best: dict[TaskId, tuple[int, str | None]] = {}
    for member in members:
        for task in member.owned:
            generation, _ = best.get(task, (-2, None))
            if member.generation > generation:
                best[task] = (member.generation, member.member_id)
            elif member.generation == generation:
                best[task] = (generation, None)
    return {task: owner for task, (_, owner) in best.items() if owner is not None}


def balance(tasks: Iterable[TaskId], members: Sequence[Member], owners: Mapping[TaskId, str]) -> dict[str, set[TaskId]]:
    """Where each task belongs, disregarding that moves take two steps."""
    target: dict[str, set[TaskId]] = {member.member_id: set() for member in members}
    if not members:
        return target
    stored = {member.member_id: frozenset(member.positions) for member in members}
    for _, group in groupby(sorted(tasks), key=lambda task: task.subtopology):
        _balance_subtopology(list(group), target, owners, stored)
    return target


def _balance_subtopology(
    tasks: Sequence[TaskId],
    target: dict[str, set[TaskId]],
    owners: Mapping[TaskId, str],
    stored: Mapping[str, frozenset[TaskId]],
) -> None:
    share = _shares(tasks, target, owners, stored)
    given: dict[str, int] = dict.fromkeys(target, 0)
    free = []
    for task in tasks:
        owner = owners.get(task)
        if owner in given and given[owner] < share[owner]:
            target[owner].add(task)
            given[owner] += 1
        else:
            free.append(task)
    # Tasks whose stores lie somewhere choose first, so that no store-less task takes that place.
    free.sort(key=lambda task: (not any(task in tasks_on_disk for tasks_on_disk in stored.values()), task))
    for task in free:
        open_members = [member for member in target if given[member] < share[member]]
        chosen = min(
            open_members,
            key=lambda member: (task not in stored[member], given[member] - share[member], member),
        )
        target[chosen].add(task)
        given[chosen] += 1


def _shares(
    tasks: Sequence[TaskId],
    target: Mapping[str, set[TaskId]],
    owners: Mapping[TaskId, str],
    stored: Mapping[str, frozenset[TaskId]],
) -> dict[str, int]:
    """How many of these tasks each member gets. Who has least so far gets one of the rest, so that the totals stay
    within one of each other; among equals who would have to give one away otherwise, then who owns least elsewhere."""
    each, rest = divmod(len(tasks), len(target))
    owned = {member: sum(owners.get(task) == member for task in tasks) for member in target}
    elsewhere = {member: sum(owner == member for owner in owners.values()) - owned[member] for member in target}
    kept = {member: sum(task in stored[member] for task in tasks) for member in target}

    def precedence(member: str) -> tuple[object, ...]:
        return len(target[member]), owned[member] <= each, elsewhere[member], -kept[member], member

    order = sorted(target, key=precedence)
    return {member: each + (place < rest) for place, member in enumerate(order)}
