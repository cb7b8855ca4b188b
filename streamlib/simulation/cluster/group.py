"""One consumer group of the classic protocol: the state machine of its generations.

    EMPTY --somebody joins--> PREPARING_REBALANCE --all have joined, or time is up--> COMPLETING_REBALANCE
      ^                         |           ^                                           |             |
      +-----nobody is left------+           +-- a member comes, changes, goes ----------+     the leader's sync
                                            |                                                         |
                                            +--------------------------- STABLE <---------------------+

What is not obvious:

- A generation begins when joins are answered: members know of it before there is an assignment.
- Only what was written down survives a move to another broker: members and generation as of the last assignment, of
  the last static member that came back, or of the moment when nobody was left. A generation that was begun and not
  assigned is forgotten, and its number given out again.
- A request that the same member makes again takes the place of the one that waits, and that is never answered; nor
  is the sync of a member that is sent away while it waits. Clients have a timeout for this.

Sources: `GroupMetadataManager` and `ClassicGroup` (Kafka 4), `GroupCoordinator` and `GroupMetadata` (3.9); KIP-394
(member ids), KIP-345 and KIP-814 (static members).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from enum import Enum
from functools import partial
from typing import Any, NamedTuple

from streamlib.errors import ErrorCode
from streamlib.records import GroupMetadata
from streamlib.simulation.cluster.basics import Body, Refused, Reply, Timer, Timers
from streamlib.simulation.cluster.members import Join, Member, Members

NEW_MEMBER_JOIN_TIMEOUT_MS = 300_000
"""How long a member that has not had an answer yet is waited for: it cannot send heartbeats."""

_SKIPS_ASSIGNMENT = 9
"""From this version of JoinGroup on a leader can be told that there is nothing to decide."""


class State(Enum):
    """Where a group stands, in the words of DescribeGroups; one that does not exist is DEAD."""

    EMPTY = "Empty"
    PREPARING_REBALANCE = "PreparingRebalance"
    COMPLETING_REBALANCE = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


_BEFORE: Mapping[State, tuple[State, ...]] = {
    State.EMPTY: (State.PREPARING_REBALANCE,),
    State.PREPARING_REBALANCE: (State.EMPTY, State.COMPLETING_REBALANCE, State.STABLE),
    State.COMPLETING_REBALANCE: (State.PREPARING_REBALANCE,),
    State.STABLE: (State.COMPLETING_REBALANCE,),
}


class Leaver(NamedTuple):
    """Whom a LeaveGroup request means: an instance id without a member id is whoever has it."""

    member_id: str
    instance_id: str | None


class Stored(NamedTuple):
    """What is in the log, for the broker that coordinates the group next."""

    generation: int = 0
    protocol_type: str = ""
    protocol: str | None = None
    leader: str | None = None
    members: tuple[Member, ...] = ()


NOTHING_STORED = Stored()


class Group:
    """A group in the hands of one broker. What cannot be done raises `Refused`."""

    def __init__(self, timers: Timers, initial_delay_ms: int, stored: Stored = NOTHING_STORED) -> None:
        self._alarms = Alarms(timers)
        self._initial_delay_ms = initial_delay_ms
        self.stored = stored
        self.members = Members(stored.members, stored.protocol_type, stored.leader)
        self.generation = stored.generation
        self.protocol = stored.protocol
        self.state = State.STABLE if stored.members else State.EMPTY
        self._initial = False  # the rebalance that is on is the first one since the group was empty
        self._more_came = False  # ... and somebody has joined since its delay began
        self._unsynced: dict[str, None] = {}  # members of this generation that have not asked for their assignment

    # What members ask

    def join(self, join: Join, new_id: str) -> None:
        """A member comes or comes back; `new_id` is for one that has no member id."""
        request = join.request
        if not self.members.speak(request):
            raise Refused(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
        if request.member_id:
            self._join_known(join)
        elif request.group_instance_id is not None:
            self._join_static(join, new_id)
        else:
            self._hand_out_id(join, new_id)

    def sync(self, request: Any, reply: Reply) -> None:
        """A member asks for its assignment; the leader brings all of them."""
        member = self._current_member(request.member_id, request.group_instance_id, request.generation_id)
        if _differs(request.protocol_type, self.members.protocol_type) or _differs(
            request.protocol_name, self.protocol
        ):
            raise Refused(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
        if self.state is State.PREPARING_REBALANCE:
            raise Refused(ErrorCode.REBALANCE_IN_PROGRESS)
        self._has_synced(member.member_id)
        if self.state is State.STABLE:
            reply(self._assigned(member))
            return
        member.sync = reply
        if member.member_id == self.members.leader:
            self._assign({given.member_id: bytes(given.assignment) for given in request.assignments})

    def heartbeat(self, request: Any) -> None:
        """A member is alive."""
        member = self._current_member(request.member_id, request.group_instance_id, request.generation_id)
        self._begin_session(member)
        if self.state is State.PREPARING_REBALANCE:
            raise Refused(ErrorCode.REBALANCE_IN_PROGRESS)

    def leave(self, leavers: Iterable[Leaver]) -> list[ErrorCode]:
        """Members go; one code for each."""
        codes = [self._leave_one(leaver) for leaver in leavers]
        if ErrorCode.NONE in codes and self.state is not State.EMPTY:
            self._rebalance()
        return codes

    def check_commit(self, who: GroupMetadata) -> None:
        """Whether offsets may be committed; between a join and its sync they may not. Keeps the session alive."""
        if who.generation < 0 and self.state is State.EMPTY:
            return  # by somebody outside of the group
        if not _names_a_member(who):
            raise Refused(ErrorCode.UNKNOWN_MEMBER_ID)
        member = self._current_member(who.member_id, who.instance_id, who.generation)
        if self.state is State.COMPLETING_REBALANCE:
            raise Refused(ErrorCode.REBALANCE_IN_PROGRESS)
        self._begin_session(member)

    def check_transactional_commit(self, who: GroupMetadata) -> None:
        """Whether a transaction may commit offsets: in every state; and clients that say nothing may at any time.

        They cannot: before KIP-447 the request had no place for it.
        """
        outside = who.generation < 0 and self.state is State.EMPTY
        if _names_a_member(who) and not outside:
            self._current_member(who.member_id, who.instance_id, who.generation)

    # What befalls a group

    def force_rebalance(self) -> None:
        """As if a member had something new to say; nothing in an empty group or while a rebalance is on."""
        if self.state in (State.COMPLETING_REBALANCE, State.STABLE):
            self._prepare_rebalance()

    def remove(self, member_id: str) -> None:
        """Send a member away; nothing if it is not there."""
        if member_id in self.members:
            self._drop(self.members[member_id])
            self._rebalance()

    def begin_sessions(self) -> None:
        """A broker has become the coordinator: it gives everybody a whole session."""
        for member in self.members:
            self._begin_session(member)

    def close(self) -> None:
        """The broker is not the coordinator any more, or the group is deleted: whoever waits is told."""
        self._alarms.cancel_all()
        for member in self.members:
            _send(member.taken_join(), {"error_code": ErrorCode.NOT_COORDINATOR, "member_id": member.member_id})
            _send(member.taken_sync(), {"error_code": ErrorCode.NOT_COORDINATOR})

    def described(self) -> Body:
        """As in DescribeGroups; what members say and have is told of a stable group only."""
        stable = self.state is State.STABLE
        return {
            "group_state": self.state.value,
            "protocol_type": self.members.protocol_type,
            "protocol_data": self.protocol if stable else "",
            "members": [self._described(member, stable) for member in self.members],
        }

    # Joining

    def _hand_out_id(self, join: Join, new_id: str) -> None:
        """A new member joins with an id, so that a lost answer leaves no member that nobody is (KIP-394)."""
        self.members.pending[new_id] = None
        self._alarms.set(_session(new_id), join.request.session_timeout_ms, partial(self._expire, new_id))
        join.reply({"error_code": ErrorCode.MEMBER_ID_REQUIRED, "member_id": new_id})

    def _join_known(self, join: Join) -> None:
        request = join.request
        if request.member_id in self.members.pending:
            self._add(join, request.member_id)
            return
        member = self.members.check(request.member_id, request.group_instance_id)
        if self.state is not State.PREPARING_REBALANCE and not self._matters(member, request):
            join.reply(self._joined(member))  # its first answer was lost, perhaps
            return
        member.take(join)
        self._rebalance()

    def _matters(self, member: Member, request: Any) -> bool:
        """Whether the join of somebody who is in the generation calls for the next one.

        The leader of a stable group joins when something that nobody says has changed, such as a topic.
        """
        leads = self.state is State.STABLE and member.member_id == self.members.leader
        return leads or not member.says_what(request)

    def _add(self, join: Join, member_id: str) -> None:
        self.members.add(Member.of(join, member_id), join.request.protocol_type)
        self._more_came = True
        self._alarms.set(_session(member_id), NEW_MEMBER_JOIN_TIMEOUT_MS, partial(self._expire, member_id))
        self._rebalance()

    def _join_static(self, join: Join, new_id: str) -> None:
        old_id = self.members.static_id(join.request.group_instance_id)
        if old_id is None:
            self._add(join, new_id)
            return
        old_leader = self.members.leader
        member = self._replace(self.members[old_id], new_id)
        member.take(join)
        self._begin_session(member)
        if self.state is State.STABLE and self.members.selected_protocol() == self.protocol:
            self._store()
            _send(member.taken_join(), self._welcome_back(member, join.version, old_leader))
        else:
            # In COMPLETING_REBALANCE, too: the leader may know the old id already, and would assign to that.
            self._rebalance()

    def _replace(self, old: Member, new_id: str) -> Member:
        """The same static member in another process: who still speaks with the old id is fenced.

        That the old id has not synced is not forgotten: it costs a rebalance later on, in Kafka, too.
        """
        new = self.members.replace(old, new_id)
        self._alarms.cancel(_session(old.member_id))
        _send(old.taken_join(), {"error_code": ErrorCode.FENCED_INSTANCE_ID, "member_id": old.member_id})
        _send(old.taken_sync(), {"error_code": ErrorCode.FENCED_INSTANCE_ID})
        return new

    # Generations

    def _rebalance(self) -> None:
        """Begin a rebalance; or the one that is on may have waited for just this."""
        if self.state is State.PREPARING_REBALANCE:
            self._complete_if_all_joined()
        else:
            self._prepare_rebalance()

    def _prepare_rebalance(self) -> None:
        in_vain = [reply for member in self.members if (reply := self._taken_sync(member))]
        self._unsynced = {}
        self._alarms.cancel(_SYNC)
        self._initial = self.state is State.EMPTY
        self._go(State.PREPARING_REBALANCE)
        if self._initial:
            self._wait_for_more(self.members.rebalance_timeout_ms)
        elif self.members.all_joined:
            self._complete_join()
        else:
            self._alarms.set(_JOIN, self.members.rebalance_timeout_ms, self._complete_join)
        for reply in in_vain:
            reply({"error_code": ErrorCode.REBALANCE_IN_PROGRESS})

    def _wait_for_more(self, left_ms: int) -> None:
        """The initial delay, and another one as long as members come and the rebalance timeout is not over."""
        self._more_came = False
        delay_ms = min(self._initial_delay_ms, left_ms)
        self._alarms.set(_JOIN, delay_ms, partial(self._waited_for_more, left_ms - delay_ms))

    def _waited_for_more(self, left_ms: int) -> None:
        if self._more_came and left_ms > 0:
            self._wait_for_more(left_ms)
        else:
            self._complete_join()

    def _complete_if_all_joined(self) -> None:
        # A group that was empty waits for its initial delay in any case.
        if self.state is State.PREPARING_REBALANCE and not self._initial and self.members.all_joined:
            self._complete_join()

    def _complete_join(self) -> None:
        """The next generation begins, with those that have joined and with static members that have not."""
        self._alarms.cancel(_JOIN)
        for member in self.members:
            if member.join is None and member.instance_id is None:
                self._forget(member.member_id)
        if not self.members:
            self._become_empty()
        elif self.members.elect():
            self._begin_generation()
        else:
            # Static members only, all of them silent: until one is back, or their sessions are over.
            self._alarms.set(_JOIN, self.members.rebalance_timeout_ms, self._complete_join)

    def _become_empty(self) -> None:
        self.generation += 1
        self.protocol = None
        self._go(State.EMPTY)
        self._store()

    def _begin_generation(self) -> None:
        self.generation += 1
        self.protocol = self.members.selected_protocol()
        self._unsynced = dict.fromkeys(member.member_id for member in self.members)
        self._go(State.COMPLETING_REBALANCE)
        self._alarms.set(_SYNC, self.members.rebalance_timeout_ms, self._expire_syncs)
        answers = [(member.taken_join(), self._joined(member)) for member in self.members]
        for member in self.members:
            member.is_new = False
            self._begin_session(member)
        for reply, body in answers:
            _send(reply, body)

    def _assign(self, given: Mapping[str, bytes]) -> None:
        for member in self.members:
            member.assignment = given.get(member.member_id, b"")
        self._go(State.STABLE)
        self._store()
        for reply, body in [(self._taken_sync(member), self._assigned(member)) for member in self.members]:
            _send(reply, body)

    def _taken_sync(self, member: Member) -> Reply | None:
        """The waiting sync, to be answered. A session begins: while it waited, none could end."""
        reply = member.taken_sync()
        if reply is not None:
            self._begin_session(member)
        return reply

    def _has_synced(self, member_id: str) -> None:
        self._unsynced.pop(member_id, None)
        if not self._unsynced:
            self._alarms.cancel(_SYNC)

    def _expire_syncs(self) -> None:
        """Who has joined and does not ask for its assignment is sent away, also when the others have theirs."""
        for member_id in list(self._unsynced):
            self._forget(member_id)
        self._prepare_rebalance()

    def _go(self, state: State) -> None:
        assert self.state in _BEFORE[state], f"{self.state} -> {state}"
        self.state = state

    def _store(self) -> None:
        members = tuple(member.written(self.protocol) for member in self.members)
        self.stored = Stored(self.generation, self.members.protocol_type, self.protocol, self.members.leader, members)

    # Coming and going

    def _current_member(self, member_id: str, instance_id: str | None, generation: int) -> Member:
        member = self.members.check(member_id, instance_id)
        if generation != self.generation:
            raise Refused(ErrorCode.ILLEGAL_GENERATION)
        return member

    def _begin_session(self, member: Member) -> None:
        member_id = member.member_id
        self._alarms.set(_session(member_id), member.session_timeout_ms, partial(self._expire, member_id))

    def _expire(self, member_id: str) -> None:
        if member_id in self.members.pending:
            self._forget(member_id)
            self._complete_if_all_joined()
        elif not self.members[member_id].excused:
            self.remove(member_id)

    def _leave_one(self, leaver: Leaver) -> ErrorCode:
        member_id = leaver.member_id or self.members.static_id(leaver.instance_id) or ""
        if member_id in self.members.pending:
            self._forget(member_id)
            return ErrorCode.NONE
        try:
            self._drop(self.members.check(member_id, leaver.instance_id))
        except Refused as refused:
            return refused.code
        return ErrorCode.NONE

    def _drop(self, member: Member) -> None:
        """It is a member no more; if it waits for a generation, it hears of that."""
        self._forget(member.member_id)
        _send(member.taken_join(), {"error_code": ErrorCode.UNKNOWN_MEMBER_ID})

    def _forget(self, member_id: str) -> None:
        self.members.remove(member_id)
        self._unsynced.pop(member_id, None)
        self._alarms.cancel(_session(member_id))

    # Answers

    def _joined(self, member: Member) -> Body:
        leads = member.member_id == self.members.leader
        subscriptions = [self._subscription(each) for each in self.members] if leads else []
        return {**self._generation_of(member, self.members.leader), "members": subscriptions}

    def _welcome_back(self, member: Member, version: int, old_leader: str | None) -> Body:
        """A static member is back in time: it gets what it had, and has nothing to decide (KIP-814).

        A client that cannot be told so is made to believe that another one leads.
        """
        if version < _SKIPS_ASSIGNMENT:
            return self._generation_of(member, old_leader)
        return {**self._joined(member), "skip_assignment": member.member_id == self.members.leader}

    def _generation_of(self, member: Member, leader: str | None) -> Body:
        return {
            "generation_id": self.generation,
            "protocol_type": self.members.protocol_type,
            "protocol_name": self.protocol,
            "leader": leader,
            "member_id": member.member_id,
        }

    def _subscription(self, member: Member) -> Body:
        assert self.protocol is not None, "a generation has a protocol"
        return {
            "member_id": member.member_id,
            "group_instance_id": member.instance_id,
            "metadata": member.protocols[self.protocol],
        }

    def _assigned(self, member: Member) -> Body:
        return {
            "protocol_type": self.members.protocol_type,
            "protocol_name": self.protocol,
            "assignment": member.assignment,
        }

    def _described(self, member: Member, stable: bool) -> Body:
        described: dict[str, Any] = {"member_id": member.member_id, "group_instance_id": member.instance_id}
        if stable:
            described["member_metadata"] = self._subscription(member)["metadata"]
            described["member_assignment"] = member.assignment
        return described


class Alarms:
    """Timers with names; one that is set again replaces the one before."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._set: dict[Hashable, Timer] = {}

    def set(self, name: Hashable, delay_ms: float, action: Callable[[], None]) -> None:
        self.cancel(name)
        self._set[name] = self._timers.call_later(delay_ms, action)

    def cancel(self, name: Hashable) -> None:
        timer = self._set.pop(name, None)
        if timer is not None:
            timer.cancel()

    def cancel_all(self) -> None:
        for name in list(self._set):
            self.cancel(name)


_JOIN, _SYNC = "join", "sync"


def _session(member_id: str) -> Hashable:
    return ("session", member_id)


def _names_a_member(who: GroupMetadata) -> bool:
    return who.generation >= 0 or bool(who.member_id) or who.instance_id is not None


def _differs(said: str | None, known: str | None) -> bool:
    return said is not None and said != known


def _send(reply: Reply | None, body: Body) -> None:
    if reply is not None:
        reply(body)
