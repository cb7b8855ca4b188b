"""From what members say when they join to what the leader tells them.

The group speaks of partitions, `engine/assignment.py` decides about tasks; this is the way between the two.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import msgspec

from streamlib.engine.assignment import Member, assign
from streamlib.engine.plan import Plan
from streamlib.records import TaskId, TopicPartition
from streamlib.runtime.ports import Assignment, MemberSubscription, Subscription

log = logging.getLogger(__name__)

PROTOCOL = "streamlib-sticky"
VERSION = 1
_JOIN_AGAIN = b'{"join_again":true}'


class UserData(msgspec.Struct, frozen=True):
    """What a member says beyond the consumer protocol; JSON, so that a stranger can read it.

    Unknown fields are ignored, which lets members of neighbouring releases share a group.
    """

    version: int
    fingerprint: str
    stored: list[tuple[int, int]]


def user_data(plan: Plan, stored_tasks: Callable[[], frozenset[TaskId]]) -> Callable[[], bytes]:
    """What this member says when it joins."""

    def encode() -> bytes:
        return msgspec.json.encode(UserData(VERSION, plan.fingerprint, sorted(stored_tasks())))

    return encode


def assignor(plan: Plan) -> Callable[[Sequence[MemberSubscription]], Mapping[str, Assignment]]:
    """The leader's decision for a topology."""

    def decide(subscriptions: Sequence[MemberSubscription]) -> Mapping[str, Assignment]:
        members = [_member(plan, each.member_id, each.subscription) for each in subscriptions]
        assigned = assign(plan.tasks, members)
        return {member.member_id: _assignment(plan, member, assigned[member.member_id]) for member in members}

    return decide


def _assignment(plan: Plan, member: Member, tasks: frozenset[TaskId]) -> Assignment:
    partitions = tuple(p for task in sorted(tasks) for p in plan.inputs(task))
    return Assignment(partitions, _JOIN_AGAIN if member.owned - tasks else b"")


def joins_again(assignment: Assignment) -> bool:
    """Whether the member is to join again once it holds no more than it was assigned.

    It is the one that others wait for. A static member that was killed before it heard of that is not waited for by
    its coordinator when it comes back, and gets this assignment again: it has nothing to give back by then, and has
    to join all the same, or what was withheld stays nobody's.
    """
    return assignment.user_data == _JOIN_AGAIN


def _member(plan: Plan, member_id: str, subscription: Subscription) -> Member:
    said = _decode(member_id, subscription.user_data)
    if said is not None and said.fingerprint != plan.fingerprint:
        log.warning("member %s runs a different topology than the leader of the group", member_id)
    known = set(plan.tasks)
    stored = frozenset(TaskId(*task) for task in said.stored) & known if said else frozenset()
    return Member(member_id, _owned_tasks(plan, subscription.owned), subscription.generation, stored)


def _owned_tasks(plan: Plan, owned: Sequence[TopicPartition]) -> frozenset[TaskId]:
    """A member that claims any input of a task may be working on it."""
    return frozenset(plan.task_of(p) for p in owned if p.topic in plan.topics) & frozenset(plan.tasks)


def _decode(member_id: str, data: bytes) -> UserData | None:
    try:
        return msgspec.json.decode(data, type=UserData)
    except msgspec.DecodeError:
        log.warning("cannot read what member %s says of itself; it is taken to store nothing", member_id)
        return None
