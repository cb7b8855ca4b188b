"""This worker's place in the consumer group: join, heartbeat, hand over, leave.

        +-----------------------------------------------------------------+
        v                                                                 |
    UNJOINED --> JOINING --> SYNCING --> STABLE --heartbeat: rebalance--> JOINING
        ^            |           |          |
        +------------+-----------+----------+--- unknown member, old generation: Lost

Two parties move here, and the rules between them are what keeps a task from having two owners:

- `run` talks to the coordinator; the worker takes what has been decided with `take_event` and reports what it has let
  go of with `release`.
- `held` is what the worker may be working on. It grows at the moment an assignment is taken, before any task exists,
  and shrinks only after tasks are closed. Joins claim exactly `held`.
- While a join is under way nothing can be taken: the claim in flight would not know of it. An assignment that was not
  taken before the next join is void.
- A generation that went by without us means that we were thrown out in between: all is lost, whatever we think we hold.

The cooperative protocol is KIP-429; stale claims are KIP-792; static members are KIP-345.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import TypeAlias

import anyio
import msgspec

from streamlib.errors import ErrorCode, KafkaError
from streamlib.records import GroupMetadata, TopicPartition
from streamlib.runtime.assignor import Instructions, instructions_of
from streamlib.runtime.complaints import Complaints
from streamlib.runtime.ports import Assignment, Beat, Clock, Group, MemberSubscription, MemberTasks, Subscription
from streamlib.runtime.wakeup import Wakeup

log = logging.getLogger(__name__)

Decide: TypeAlias = Callable[[Sequence[MemberSubscription]], Awaitable[Mapping[str, Assignment]]]
"""What the leader does: from what all members say to what each of them is told."""

# While tasks are on their way, the members look this often whether their owners have let go, and for so long.
FOLLOW_UP_BEAT_MS = 50
FOLLOW_UP_MS = 10_000
MOST_FORGOTTEN = 2

_NO_COORDINATOR = frozenset(
    {
        ErrorCode.NETWORK_EXCEPTION,
        ErrorCode.REQUEST_TIMED_OUT,
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,
    }
)


class State(Enum):
    """Where the member stands with its coordinator."""

    UNJOINED = "unjoined"
    JOINING = "joining"
    SYNCING = "syncing"
    STABLE = "stable"
    LEFT = "left"


class Assigned(msgspec.Struct, frozen=True):
    """The partitions this member owns from now on; what it held beyond them is to be closed and released.

    `instructions` are what the leader says beyond that: the standbys, and whether others wait for what it gives back.
    """

    partitions: frozenset[TopicPartition]
    instructions: Instructions = Instructions()


class Lost(msgspec.Struct, frozen=True):
    """The group went on without this member. Everything held is someone else's; nothing may be committed."""

    reason: str


Event: TypeAlias = Assigned | Lost


class Rebalance(msgspec.Struct, frozen=True):
    """One rebalance, as this member saw it.

    Args:
        number: of those since the worker's start.
        joined: members that were not there before; all of them in the first.
        left: members that were.
        moving: how many tasks get another owner.
        tasks: how many there are.
        took_ms: from the join to the assignment.
    """

    number: int
    joined: tuple[str, ...]
    left: tuple[str, ...]
    moving: int
    tasks: int
    took_ms: float

    def __str__(self) -> str:
        came = [f"{', '.join(names)} {what}" for names, what in ((self.joined, "joined"), (self.left, "left")) if names]
        return (
            f"rebalance {self.number}: {'; '.join(came) or 'tasks change hands'}, "
            f"{self.moving} of {self.tasks} tasks move, {self.took_ms / 1000:.2f} s"
        )


class MembershipSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Who the member is and how often it says so."""

    group_id: str
    topics: tuple[str, ...]
    instance_id: str | None = None
    heartbeat_interval_ms: int = 1000
    session_timeout_ms: int = 10_000


class Membership:
    """The state machine above. `on_change` is set whenever an event may be waiting or the generation moved."""

    def __init__(
        self,
        group: Group,
        clock: Clock,
        settings: MembershipSettings,
        decide: Decide,
        introduce: Callable[[bool], bytes],
        on_change: Wakeup,
    ) -> None:
        self._group = group
        self._clock = clock
        self._settings = settings
        self._decide = decide
        self._introduce = introduce
        self._on_change = on_change
        self._complaints = Complaints(log)
        self._turn = Wakeup()
        self._moved = anyio.Event()  # set once, at the next change of state or generation
        self._member_id = ""
        self._joined_generation = -1
        self._generation = -1
        self._event: Event | None = None
        self._rejoin = True
        self._lost = False  # a Lost was raised and the worker has not dropped its tasks yet
        self._leaving = False
        self._members: frozenset[str] = frozenset()
        self._follow_up_until_ms = 0.0
        self._forgotten = 0  # times in a row
        self._synced_id = ""  # the member id that the coordinator is known to have kept
        self.state = State.UNJOINED
        self.held: frozenset[TopicPartition] = frozenset()
        self.rebalances = 0
        self.last_rebalance: Rebalance | None = None
        self.rebalance_ms = 0.0  # all of them together
        self.heard = 0  # answers of the coordinator
        self._heard_ms = -math.inf  # when something was said that the coordinator has answered
        self.hosts: tuple[MemberTasks, ...] = ()  # who runs what, as told last

    @property
    def has_event(self) -> bool:
        """Whether the worker has still to act on something."""
        return self._event is not None

    @property
    def name(self) -> str:
        """What the others call this member; empty before it has joined."""
        return self._settings.instance_id or self._member_id

    @property
    def alone(self) -> bool:
        """Whether there is nobody else in the group, as far as is known."""
        return len(self._members) <= 1

    @property
    def metadata(self) -> GroupMetadata:
        """What a commit has to carry now. Changes as soon as a join is answered, before the sync."""
        generation = -1 if self._lost else self._generation
        return GroupMetadata(self._settings.group_id, generation, self._member_id, self._settings.instance_id)

    @property
    def settled(self) -> bool:
        """Whether the generation is known to be current: no join or sync is under way and nothing was lost."""
        return self.state is State.STABLE and not self._rejoin and not self._lost

    @property
    def vouches(self) -> bool:
        """Whether nobody else can have been given what this member holds. Any thread may ask.

        The coordinator gives it to others a session after it has heard of this member last, at the earliest. If it
        cannot be reached nobody here can tell, so this ends by itself; in a join, too, that takes longer than that.
        """
        if self._lost or self.state in (State.UNJOINED, State.LEFT):
            return False
        return self.now_ms - self._heard_ms <= self._settings.session_timeout_ms

    @property
    def now_ms(self) -> float:
        """On the scale of `heard_at`."""
        return self._clock.monotonic_ms()

    def heard_at(self, said_ms: float) -> None:
        """The coordinator has answered what was said then. Another thread may call it, while the loop is held."""
        self._heard_ms = max(self._heard_ms, said_ms)

    def disown(self) -> None:
        """Somebody is about to leave the group for this member. Another thread may call it, while the loop is held."""
        self._heard_ms = -math.inf

    @property
    def beat(self) -> Beat | None:
        """What a stand-in has to say to keep this member alive; None if it is not in the group. Any thread may ask.

        A join under way may have been answered while the loop did not turn: then the next generation has begun.
        """
        generation, member_id = self.metadata.generation, self._member_id
        if generation < 0 or not member_id or self.state is State.LEFT:
            return None
        joining = self.state is State.JOINING
        return Beat(member_id, (generation, generation + 1) if joining else (generation,))

    def take_event(self) -> Event | None:
        """What the worker has to act on, once. After an `Assigned` its partitions count as held."""
        if self.state in (State.JOINING, State.SYNCING) and not isinstance(self._event, Lost):
            return None
        event, self._event = self._event, None
        if isinstance(event, Assigned):
            self.held |= event.partitions
            if event.instructions.join_again and self.held == event.partitions and not self._leaving:
                self._join_again()  # otherwise `release` does
        return event

    def release(self, partitions: Iterable[TopicPartition]) -> None:
        """The worker has closed the tasks of these partitions: give them back with a join of their own."""
        gone = self.held & frozenset(partitions)
        if not gone:
            return
        self.held -= gone
        if self.held or not self._leaving:  # otherwise the others hear of it by our leaving
            self._join_again()

    def hand_over(self) -> None:
        """Ask the others to take over: tasks are held until they can, the worker leaves when it has none."""
        self._leaving = True
        self._join_again()

    def claim_warmed_up(self) -> None:
        """Warm-ups have caught up: join again, so that they become this member's."""
        self._join_again()

    def dropped_all(self) -> None:
        """The worker has dropped every task, after `Lost` or on its own: join again from nothing."""
        self.held = frozenset()
        self._event = None
        self._lost = False
        self._join_again()

    def gave_up(self, reason: str) -> None:
        """This member was made to leave while it was held up: it joins again as another."""
        self._member_id = ""
        self.lose(reason)

    def lose(self, reason: str) -> None:
        """The group refused a commit as not ours: everything held is void."""
        log.warning("lost the membership in %s: %s", self._settings.group_id, reason)
        self._heard_ms = -math.inf
        self._generation = self._joined_generation = -1
        self.state = State.UNJOINED
        self._rejoin = True
        self._lost = True
        self._event = Lost(reason)
        self._tell()

    async def moved(self) -> None:
        """Return at the next change of state or generation."""
        await self._moved.wait()

    async def run(self) -> None:
        """Join, and keep the membership alive until `leave`. Raises what no retry can mend."""
        while self.state is not State.LEFT:
            if self._lost:
                await self._turn.wait()  # nothing is claimed or joined before the worker has let go
                continue
            try:
                if self._rejoin:
                    await self._join()
                else:
                    await self._turn.wait(self._beat_ms())
                    await self._heartbeat()
            except KafkaError as error:
                self._refused(error)

    async def leave(self) -> None:
        """Leave the group, so that nobody has to wait for the session to expire."""
        member_id, self.state = self._member_id, State.LEFT
        self._turn.set()
        if member_id and not self._lost:
            await self._group.leave(member_id)

    def _tell(self) -> None:
        self._moved.set()
        self._moved = anyio.Event()
        self._on_change.set()

    def _join_again(self) -> None:
        self._rejoin = True
        self._turn.set()

    def _beat_ms(self) -> float:
        """Everybody has to join before a task that was let go of runs again, so nobody lets the others wait."""
        usual_ms = self._settings.heartbeat_interval_ms
        expects = self._clock.monotonic_ms() < self._follow_up_until_ms
        return min(FOLLOW_UP_BEAT_MS, usual_ms) if expects else usual_ms

    async def _join(self) -> None:
        started_ms = self._clock.monotonic_ms()
        self._rejoin = False
        self.state = State.JOINING
        self._event = None
        subscription = Subscription(
            self._settings.topics, tuple(sorted(self.held)), self._generation, self._introduce(self._leaving)
        )
        result = await self._group.join(self._member_id, subscription)
        if self._over():
            return  # while the join was under way
        self._member_id = result.member_id
        if result.consecutive and self._went_by(result.generation):
            self.lose(f"generations up to {result.generation} passed without this member")
            return
        self._generation = self._joined_generation = result.generation
        self.state = State.SYNCING
        self.heard_at(self.now_ms)
        self._tell()
        decided = await self._decide(result.members) if result.leads else {}
        assignment = await self._group.sync(result.generation, result.member_id, decided)
        if self._over():
            return  # while the sync was under way
        self.state = State.STABLE
        self._synced_id = self._member_id
        self._forgotten = 0
        instructions = instructions_of(assignment)
        self._event = Assigned(frozenset(assignment.partitions), instructions)
        self._note(instructions, self._clock.monotonic_ms() - started_ms)
        self._tell()

    def _note(self, instructions: Instructions, took_ms: float) -> None:
        self.rebalances += 1
        members = frozenset(instructions.members)
        self.last_rebalance = Rebalance(
            self.rebalances,
            tuple(sorted(members - self._members)),
            tuple(sorted(self._members - members)),
            instructions.moving,
            instructions.tasks,
            took_ms,
        )
        self._members = members
        self.hosts = tuple(instructions.hosts)
        self.rebalance_ms += took_ms
        self.heard += 1
        follow_up_ms = FOLLOW_UP_MS if instructions.follow_up else 0
        self._follow_up_until_ms = self._clock.monotonic_ms() + follow_up_ms
        log.info("%s", self.last_rebalance)

    def _is_forgotten(self) -> bool:
        """Whether a refusal as not ours to use means the name we had before rather than another process.

        A static member that comes back gets a new member id, which its coordinator keeps in memory until the sync. If
        the group moves in between, the new coordinator knows it only as what it was before, and calls that a process
        of its own (seen on Kafka 4.3). Nothing is held at that point, so to join again cannot hurt; two processes that
        really have the same name do not come here more than a few times.
        """
        return self._member_id != self._synced_id and not self.held and self._forgotten < MOST_FORGOTTEN

    def _over(self) -> bool:
        return self._lost or self.state is State.LEFT

    def _went_by(self, generation: int) -> bool:
        return bool(self.held) and generation > self._joined_generation + 1

    async def _heartbeat(self) -> None:
        if self._rejoin or self._lost or self.state is not State.STABLE:
            return
        said_ms = self.now_ms
        hosts = await self._group.heartbeat(self._generation, self._member_id)
        if hosts is not None:
            self.hosts = hosts
        self.heard_at(said_ms)
        self.heard += 1

    def _refused(self, error: KafkaError) -> None:
        """Act on a refusal of join, sync or heartbeat."""
        match error.code:
            case ErrorCode.REBALANCE_IN_PROGRESS:
                self._rejoin = True
            case ErrorCode.UNKNOWN_MEMBER_ID | ErrorCode.GROUP_ID_NOT_FOUND:
                self._member_id = ""
                self.lose("the session expired")
            case ErrorCode.ILLEGAL_GENERATION | ErrorCode.FENCED_MEMBER_EPOCH:
                self.lose("the group is in a later generation")
            case ErrorCode.FENCED_INSTANCE_ID if self._is_forgotten():
                self._forgotten += 1
                self._member_id = ""
                self._rejoin = True
            case code if code in _NO_COORDINATOR:
                # It may be gone for long; what we hold stays held until it says otherwise.
                self._complaints.warn(code, self._clock.monotonic_ms(), "%s; trying again", error)
                self._rejoin = self._rejoin or self.state is not State.STABLE
            case _:
                self.lose(str(error))  # nothing may be committed any more, and nobody is to wait for us
                raise error
