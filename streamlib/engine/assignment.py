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


class Member(msgspec.Struct, frozen=True):
    """One member: the tasks it owns, the generation in which it came to own them, and the stores on its disk."""

    member_id: str
    owned: frozenset[TaskId] = frozenset()
    generation: int = -1
    stored: frozenset[TaskId] = frozenset()


def assign(tasks: Iterable[TaskId], members: Sequence[Member]) -> dict[str, frozenset[TaskId]]:
    """What each member owns from now on, moving tasks withheld.

    >>> two = [Member("a", frozenset({TaskId(0, 0), TaskId(0, 1)}), 1), Member("b")]
    >>> {m: sorted(map(str, t)) for m, t in assign([TaskId(0, 0), TaskId(0, 1)], two).items()}
    {'a': ['0_0'], 'b': []}
    """
    owners = valid_claims(members)
    target = balance(tasks, members, owners)
    return {
        member: frozenset(task for task in wanted if owners.get(task, member) == member)
        for member, wanted in target.items()
    }


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
    stored = {member.member_id: member.stored for member in members}
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
