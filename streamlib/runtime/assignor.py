"""From what members say when they join to what the leader tells them.

The group speaks of partitions, `engine/assignment/` decides about tasks; this is the way between the two.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import anyio
import msgspec

from streamlib.engine.assignment import Decision, Member, Policy, assign
from streamlib.engine.plan import Plan
from streamlib.errors import KafkaError
from streamlib.records import TaskId, TopicPartition
from streamlib.runtime.ports import Admin, Assignment, MemberSubscription, MemberTasks, Subscription
from streamlib.runtime.topic_watch import TopicWatch

log = logging.getLogger(__name__)

PROTOCOL = "streamlib-sticky"
VERSION = 2
# All members wait for the leader, none of them beats meanwhile.
_LONGEST_LOOK_MS = 2_000


class UserData(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a member says beyond the consumer protocol; JSON, so that a stranger can read it.

    Unknown fields are ignored, which lets members of neighbouring releases share a group.
    """

    version: int
    fingerprint: str
    positions: list[tuple[int, int, int]] = []
    process: str = ""
    host: str = ""
    tags: dict[str, str] = {}
    capacity: int = 1
    leaving: bool = False
    followed: list[TaskId] = []
    warmed_up: list[TaskId] = []
    worker: str = ""
    endpoint: str = ""


class Instructions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the leader tells a member beyond its partitions; JSON, too.

    Args:
        join_again: others wait for what the member held beyond its partitions. It is to join again once it holds no
            more than these. A static member that was killed before it heard of that is not waited for by its
            coordinator when it comes back, and gets this assignment again: it has nothing to give back by then, and
            has to join all the same, or what was withheld stays nobody's.
        follow_up: tasks are on their way, so the next rebalance is due as soon as their owners have let go.
        standby: tasks whose changelogs it follows, so that it can take over at once.
        warmup: the same; they become its own when they have caught up, for which it joins again.
        members: everybody in the group.
        tasks: how many there are.
        moving: how many of them get another owner.
        hosts: who runs what, and where to ask for it. Only if some member says where.
    """

    join_again: bool = False
    follow_up: bool = False
    standby: list[TaskId] = []
    warmup: list[TaskId] = []
    members: list[str] = []
    tasks: int = 0
    moving: int = 0
    hosts: list[MemberTasks] = []


# Here, not where they are used: msgspec 0.22 crashes where two threads are the first to read a type.
_USER_DATA = msgspec.json.Decoder(UserData)
_INSTRUCTIONS = msgspec.json.Decoder(Instructions)


class Place(msgspec.Struct, frozen=True):
    """Where a worker runs: which state directory, which machine, and what else tells places apart.

    `endpoint` is where others reach its HTTP server, `worker` what it is called there; said only if there is one.
    """

    process: str = ""
    host: str = ""
    tags: Mapping[str, str] = {}
    endpoint: str = ""
    worker: str = ""


class Stored(Protocol):
    """What a worker has of tasks' stores (`TaskSet`)."""

    @property
    def standby_ids(self) -> frozenset[TaskId]: ...

    @property
    def warmed_up(self) -> frozenset[TaskId]: ...

    def positions(self) -> Mapping[TaskId, int]: ...


def introduction(plan: Plan, place: Place, stored: Stored) -> Callable[[bool], bytes]:
    """What this member says when it joins; whether it is leaving is only known then."""

    def encode(leaving: bool) -> bytes:
        return msgspec.json.encode(
            UserData(
                VERSION,
                plan.fingerprint,
                [(*task, position) for task, position in sorted(stored.positions().items())],
                place.process,
                place.host,
                dict(place.tags),
                leaving=leaving,
                followed=sorted(stored.standby_ids),
                warmed_up=sorted(stored.warmed_up),
                worker=place.worker if place.endpoint else "",
                endpoint=place.endpoint,
            )
        )

    return encode


class Assignor:
    """The leader's decision for a topology."""

    def __init__(self, plan: Plan, admin: Admin, policy: Policy, topic_watch: TopicWatch) -> None:
        self._plan = plan
        self._admin = admin
        self._policy = policy
        self._topic_watch = topic_watch

    async def __call__(self, subscriptions: Sequence[MemberSubscription]) -> Mapping[str, Assignment]:
        said = {each.member_id: _decode(each.member_id, each.subscription.user_data) for each in subscriptions}
        self._topic_watch.heard_of(topic for each in subscriptions for topic in each.subscription.topics)
        members = [self._member(each.member_id, each.subscription, said[each.member_id]) for each in subscriptions]
        ends = await self._ends(members)
        decision = assign(self._plan.tasks, ends, members, self._policy)
        for warning in decision.warnings:
            log.warning("%s", warning)
        names = sorted(each.instance_id or each.member_id for each in subscriptions)
        hosts = _hosts(subscriptions, said, decision)
        return {member.member_id: self._assignment(member, decision, names, hosts) for member in members}

    def _assignment(self, member: Member, decision: Decision, names: list[str], hosts: list[MemberTasks]) -> Assignment:
        share = decision.shares[member.member_id]
        partitions = tuple(p for task in sorted(share.active) for p in self._plan.inputs(task))
        instructions = Instructions(
            join_again=bool(member.owned - share.active),
            follow_up=bool(decision.withheld),
            standby=sorted(share.standby),
            warmup=sorted(share.warmup),
            members=names,
            tasks=len(self._plan.tasks),
            moving=len(decision.withheld),
            hosts=hosts,
        )
        return Assignment(partitions, msgspec.json.encode(instructions))

    async def _ends(self, members: Sequence[Member]) -> dict[TaskId, int | None]:
        """The sum of the log ends of each stateful task's changelogs; None where they could not be had in time."""
        changelogs = {task: self._plan.changelogs(task) for task in self._plan.tasks}
        stateful = {task: partitions for task, partitions in changelogs.items() if partitions}
        unknown: dict[TaskId, int | None] = dict.fromkeys(stateful)
        if not stateful or len(members) == 1:
            return unknown
        try:
            with anyio.move_on_after(_LONGEST_LOOK_MS / 1000):
                ends = await self._admin.list_offsets([p for each in stateful.values() for p in each], "latest")
                return {task: sum(ends[p] for p in partitions) for task, partitions in stateful.items()}
        except KafkaError as error:
            log.warning("tasks are assigned without knowing how far stores are behind: %s", error)
        return unknown

    def _member(self, member_id: str, subscription: Subscription, said: UserData) -> Member:
        if said.fingerprint and said.fingerprint != self._plan.fingerprint:
            log.warning("member %s runs a different topology than the leader of the group", member_id)
        known = frozenset(self._plan.tasks)
        stored = {TaskId(sub, partition): position for sub, partition, position in said.positions}
        return Member(
            member_id=member_id,
            process=said.process or member_id,
            host=said.host,
            tags=said.tags,
            capacity=max(said.capacity, 1),
            owned=self._owned_tasks(subscription.owned),
            generation=subscription.generation,
            positions={task: position for task, position in stored.items() if task in known},
            leaving=said.leaving,
            followed=known.intersection(said.followed),
            warmed_up=known.intersection(said.warmed_up),
        )

    def _owned_tasks(self, owned: Iterable[TopicPartition]) -> frozenset[TaskId]:
        """A member that claims any input of a task may be working on it."""
        plan = self._plan
        return frozenset(plan.task_of(p) for p in owned if p.topic in plan.topics) & frozenset(plan.tasks)


def _hosts(
    subscriptions: Sequence[MemberSubscription], said: Mapping[str, UserData], decision: Decision
) -> list[MemberTasks]:
    """Who runs what from now on; nothing if nobody can be asked for it."""
    if not any(each.endpoint for each in said.values()):
        return []
    return [
        MemberTasks(
            each.instance_id or each.member_id,
            said[each.member_id].worker,
            said[each.member_id].endpoint,
            tuple(sorted(share.active)),
            tuple(sorted(share.standby | share.warmup)),
        )
        for each in sorted(subscriptions, key=lambda each: each.instance_id or each.member_id)
        for share in (decision.shares[each.member_id],)
    ]


def instructions_of(assignment: Assignment) -> Instructions:
    """What the leader said to this member; nothing, if it cannot be read."""
    if not assignment.user_data:
        return Instructions()
    try:
        return _INSTRUCTIONS.decode(assignment.user_data)
    except msgspec.DecodeError:
        log.warning("cannot read what the leader of the group says beyond the partitions")
        return Instructions()


def _decode(member_id: str, data: bytes) -> UserData:
    try:
        return _USER_DATA.decode(data)
    except msgspec.DecodeError:
        log.warning("cannot read what member %s says of itself; it is taken to store nothing", member_id)
        return UserData(VERSION, "")
