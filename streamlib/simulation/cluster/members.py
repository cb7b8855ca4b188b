"""Who is in a consumer group: members, the ids of static ones, who leads, what all can speak."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from streamlib.errors import ErrorCode
from streamlib.simulation.cluster.basics import Refused, Reply


class Join(NamedTuple):
    """A JoinGroup request and where its answer goes."""

    request: Any
    version: int
    reply: Reply


class Member(msgspec.Struct, kw_only=True, eq=False):
    """A member, and those of its requests that wait. A request that comes again takes the place of the one before."""

    member_id: str
    instance_id: str | None
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocols: dict[str, bytes]  # what it can speak, best first, with what it says in each
    assignment: bytes = b""
    is_new: bool = True  # no join of it has been answered yet
    join: Reply | None = None
    sync: Reply | None = None

    @classmethod
    def of(cls, join: Join, member_id: str) -> Member:
        """Who joins."""
        return cls(
            member_id=member_id,
            instance_id=join.request.group_instance_id,
            session_timeout_ms=join.request.session_timeout_ms,
            rebalance_timeout_ms=join.request.rebalance_timeout_ms,
            protocols=protocols_of(join.request),
            join=join.reply,
        )

    def take(self, join: Join) -> None:
        """It says again who it is, and waits."""
        self.session_timeout_ms = join.request.session_timeout_ms
        self.rebalance_timeout_ms = join.request.rebalance_timeout_ms
        self.protocols = protocols_of(join.request)
        self.join = join.reply

    def taken_join(self) -> Reply | None:
        """The waiting join, to be answered: it waits no more."""
        reply, self.join = self.join, None
        return reply

    def taken_sync(self) -> Reply | None:
        """The same of the sync."""
        reply, self.sync = self.sync, None
        return reply

    @property
    def excused(self) -> bool:
        """Whether its silence is ours: it waits for an answer."""
        return not self.is_new and (self.join is not None or self.sync is not None)

    def says_what(self, request: Any) -> bool:
        """Whether a join says nothing new."""
        return list(self.protocols.items()) == list(protocols_of(request).items())

    def written(self, protocol: str | None) -> Member:
        """What is kept of it in the log: what waits is not."""
        said = {protocol: self.protocols[protocol]} if protocol is not None else {}
        return msgspec.structs.replace(self, protocols=said, is_new=False, join=None, sync=None)


class Members:
    """All members of a group, in the order in which they came."""

    def __init__(self, members: Iterable[Member] = (), protocol_type: str = "", leader: str | None = None) -> None:
        self._members = {member.member_id: msgspec.structs.replace(member) for member in members}
        self.protocol_type = protocol_type
        self.leader = leader  # the first that came, as long as it stays; None if there are no members
        self.pending: dict[str, None] = {}  # ids that were given out; who has them has not joined yet

    def __iter__(self) -> Iterator[Member]:
        """A copy: members may go meanwhile."""
        return iter(list(self._members.values()))

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, member_id: str) -> bool:
        return member_id in self._members

    def __getitem__(self, member_id: str) -> Member:
        return self._members[member_id]

    def static_id(self, instance_id: str | None) -> str | None:
        """The present member id of a static member."""
        if instance_id is None:
            return None
        return next((member.member_id for member in self if member.instance_id == instance_id), None)

    def check(self, member_id: str, instance_id: str | None) -> Member:
        """The member, if that is who it says it is; raises `Refused`."""
        if instance_id is not None and self.static_id(instance_id) is None:
            raise Refused(ErrorCode.UNKNOWN_MEMBER_ID)
        if instance_id is not None and self.static_id(instance_id) != member_id:
            raise Refused(ErrorCode.FENCED_INSTANCE_ID)
        if member_id not in self._members:
            raise Refused(ErrorCode.UNKNOWN_MEMBER_ID)
        return self._members[member_id]

    def add(self, member: Member, protocol_type: str) -> None:
        """One more; the first one leads."""
        if not self._members:
            self.protocol_type, self.leader = protocol_type, member.member_id
        self._members[member.member_id] = member
        self.pending.pop(member.member_id, None)

    def replace(self, old: Member, new_id: str) -> Member:
        """The same static member under another id, in the same place."""
        new = msgspec.structs.replace(old, member_id=new_id, is_new=False, join=None, sync=None)
        each = (new if member is old else member for member in self)
        self._members = {member.member_id: member for member in each}
        self.leader = new_id if self.leader == old.member_id else self.leader
        return new

    def remove(self, member_id: str) -> None:
        """Nothing if it is not there."""
        self._members.pop(member_id, None)
        self.pending.pop(member_id, None)
        if self.leader == member_id:
            self.leader = next(iter(self._members), None)

    def elect(self) -> bool:
        """The leader stays if it has joined, otherwise the first that has leads; False if nobody has."""
        joined = [member.member_id for member in self if member.join is not None]
        if joined and self.leader not in joined:
            self.leader = joined[0]
        return bool(joined)

    @property
    def all_joined(self) -> bool:
        """Whether everybody waits for the next generation."""
        return not self.pending and all(member.join is not None for member in self)

    @property
    def rebalance_timeout_ms(self) -> int:
        """The longest of all members' in milliseconds."""
        return max((member.rebalance_timeout_ms for member in self), default=0)

    def speak(self, request: Any) -> bool:
        """Whether who joins and all members have a protocol in common."""
        if not self._members:
            return bool(request.protocol_type and request.protocols)
        return request.protocol_type == self.protocol_type and not self._common().isdisjoint(protocols_of(request))

    def selected_protocol(self) -> str:
        """The one that most members like best, of those that all can speak."""
        common = self._common()
        votes = Counter(next(name for name in member.protocols if name in common) for member in self)
        return votes.most_common(1)[0][0]

    def _common(self) -> set[str]:
        spoken = [set(member.protocols) for member in self]
        return spoken[0].intersection(*spoken[1:])


def protocols_of(request: Any) -> dict[str, bytes]:
    """What a joining member says in each protocol."""
    return {protocol.name: bytes(protocol.metadata) for protocol in request.protocols}
