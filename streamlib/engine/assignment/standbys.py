"""Copies of the stores of each task, ready to take over where it is lost.

`copies` says where they belong; here, what is done until they are there: a copy that has caught up is only given up
for another that has, which warms up meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from streamlib.engine.assignment.copies import READY, Copies
from streamlib.engine.assignment.group import Member, Policy
from streamlib.engine.assignment.handover import Handover
from streamlib.engine.assignment.stores import Stores
from streamlib.records import TaskId


class Standbys(msgspec.Struct, frozen=True):
    """Who follows each task, and who is to follow it in place of another once it has caught up."""

    followers: Mapping[TaskId, Sequence[str]]
    warmups: Mapping[TaskId, str]


def find_standbys(
    tasks: Iterable[TaskId],
    members: Mapping[str, Member],
    copies: Copies,
    handover: Handover,
    stores: Stores,
    policy: Policy,
) -> Standbys:
    """The next step towards the standbys that these tasks should have.

    Args:
        tasks: those with stores.
        members: those that stay, by id and sorted.
        copies: to arrange; none so far.
        handover: where the tasks are; its warm-ups come first.
        stores: how far they are.
        policy: how many of everything.
    """
    copies.arrange(tasks, policy.num_standby_replicas)
    followers = {task: list(names) for task, names in copies.wanted.items()}
    waiting = []
    for task, names in copies.wanted.items():
        for place, name in enumerate(names):
            if stores.caught_up(task, members[name].directory):
                continue
            substitute = _substitute(task, followers[task], members, copies)
            if substitute is not None:
                followers[task][place] = substitute
                waiting.append((copies.distance(task, name), task, name))
    warmups: dict[TaskId, str] = {}
    room = policy.max_warmup_replicas - handover.limited_warmups(members)
    for _, task, name in sorted(waiting):
        if len(warmups) < room and task not in warmups:
            warmups[task] = name
    return Standbys(followers, warmups)


def _substitute(task: TaskId, followers: Iterable[str], members: Mapping[str, Member], copies: Copies) -> str | None:
    """Who else has a copy that is ready."""
    taken = {members[name].directory for name in followers}
    ready = [
        (copies.distance(task, name), name)
        for name in copies.allowed(task, copies.with_stores(task))
        if copies.distance(task, name) <= READY and members[name].directory not in taken
    ]
    return min(ready)[1] if ready else None


def shortage(stateful: int, members: Mapping[str, Member], policy: Policy) -> tuple[str, ...]:
    """A warning if there are not enough processes for all standbys."""
    directories = len({member.directory for member in members.values()})
    missing = policy.num_standby_replicas - (directories - 1)
    if missing <= 0 or not stateful:
        return ()
    return (
        f"{stateful} stateful tasks lack {missing} of their {policy.num_standby_replicas} standbys each: only "
        f"{directories} processes with state directories of their own are in the group, and a process holds one copy "
        "of a task at most; start more of them or lower num_standby_replicas",
    )
