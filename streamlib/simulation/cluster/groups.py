"""The consumer groups of the cluster: who asks what of which group, and what befalls groups."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

import msgspec

from streamlib.errors import ErrorCode
from streamlib.simulation.cluster.basics import Body, Handler, Refused, Reply, Timers
from streamlib.simulation.cluster.coordinators import Coordinators
from streamlib.simulation.cluster.group import Group, Leaver, State
from streamlib.simulation.cluster.members import Join

# Codes that streamlib itself decides nothing on.
NON_EMPTY_GROUP = 68
GROUP_ID_NOT_FOUND = 69

_LEAVE_MANY = 3  # the first version of LeaveGroup that names several members
_NOT_FOUND_IS_SAID = 6  # the first version of DescribeGroups that does
_TYPE = "Classic"


class GroupSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The brokers' `group.*` settings, with the defaults of Kafka but for the first.

    Attributes:
        initial_rebalance_delay_ms: how long a group that was empty waits for more members (Kafka: 3,000).
        min_session_timeout_ms: shorter sessions are refused.
        max_session_timeout_ms: longer ones, too.
    """

    initial_rebalance_delay_ms: int = 0
    min_session_timeout_ms: int = 6_000
    max_session_timeout_ms: int = 1_800_000


_DEFAULTS = GroupSettings()


class Groups:
    """All groups. Methods for the simulation and for the offsets do not ask which broker coordinates a group."""

    def __init__(self, timers: Timers, coordinators: Coordinators, settings: GroupSettings = _DEFAULTS) -> None:
        self._timers = timers
        self._coordinators = coordinators
        self._settings = settings
        self._groups: dict[str, Group] = {}
        self._numbers = count(1)  # of member ids
        self.handlers: Mapping[str, Handler] = {
            "JoinGroup": self._join_group,
            "SyncGroup": self._sync_group,
            "Heartbeat": self._heartbeat,
            "LeaveGroup": self._leave_group,
            "DescribeGroups": self._describe_groups,
            "ListGroups": self._list_groups,
        }

    # For the simulation

    def storm(self, group_id: str) -> None:
        """Force a rebalance, as if a member had come; nothing if there is no such group, or one is on."""
        if group_id in self._groups:
            self._groups[group_id].force_rebalance()

    def remove(self, group_id: str, member_id: str) -> None:
        """Send a member away, as an administrator does; nothing if it is not there."""
        if group_id in self._groups:
            self._groups[group_id].remove(member_id)

    def moved(self, group_id: str) -> None:
        """Another broker coordinates the group from now on: it knows what was written down, and begins sessions anew.

        So a group that was rebalancing is stable again, in the generation and with the members it had before;
        whoever has joined since is not known.
        """
        self.unload(group_id)
        self.load(group_id)

    def unload(self, group_id: str) -> None:
        """The first half of `moved`: the broker gives up. While nobody coordinates a group, nobody's session ends."""
        if group_id not in self._groups:
            return
        old = self._groups[group_id]
        self._groups[group_id] = Group(self._timers, self._settings.initial_rebalance_delay_ms, old.stored)
        old.close()

    def load(self, group_id: str) -> None:
        """The second half: another broker, or the same again, takes over."""
        if group_id in self._groups:
            self._groups[group_id].begin_sessions()

    # For checkers

    def names(self) -> list[str]:
        """All groups, in order of creation."""
        return list(self._groups)

    def state(self, group_id: str) -> State:
        """Where the group stands."""
        group = self._groups.get(group_id)
        return group.state if group is not None else State.DEAD

    def generation(self, group_id: str) -> int:
        """The number of the generation; 0 before the first one."""
        group = self._groups.get(group_id)
        return group.generation if group is not None else 0

    def members(self, group_id: str) -> dict[str, bytes]:
        """Each member's id with what it was assigned in this generation (nothing before the leader has said so)."""
        group = self._groups.get(group_id)
        if group is None:
            return {}
        stable = group.state is State.STABLE
        return {member.member_id: member.assignment if stable else b"" for member in group.members}

    # For the offsets

    def find(self, group_id: str) -> Group | None:
        """The group, if there is one."""
        return self._groups.get(group_id)

    def create(self, group_id: str) -> Group:
        """The group, a new one if there is none."""
        if group_id not in self._groups:
            self._groups[group_id] = Group(self._timers, self._settings.initial_rebalance_delay_ms)
        return self._groups[group_id]

    def delete(self, group_id: str) -> int:
        """Delete a group without members; returns the code."""
        group = self._groups.get(group_id)
        if group is None:
            return GROUP_ID_NOT_FOUND
        if group.state is not State.EMPTY:
            return NON_EMPTY_GROUP
        del self._groups[group_id]
        group.close()
        return ErrorCode.NONE

    # Requests

    def _join_group(self, broker: int, request: Any, version: int, reply: Reply) -> None:
        try:
            self._check(broker, request.group_id)
            self._check_session(request.session_timeout_ms)
            group = self._known(request.group_id) if request.member_id else self.create(request.group_id)
            group.join(Join(request, version, reply), self._new_id(request))
        except Refused as refused:
            reply({"error_code": refused.code, "member_id": request.member_id})

    def _new_id(self, request: Any) -> str:
        """For a member that has none; Kafka takes the client's name and a random UUID."""
        return "" if request.member_id else f"{request.group_instance_id or 'member'}-{next(self._numbers)}"

    def _sync_group(self, broker: int, request: Any, version: int, reply: Reply) -> None:
        try:
            self._check(broker, request.group_id)
            self._known(request.group_id).sync(request, reply)
        except Refused as refused:
            reply({"error_code": refused.code})

    def _heartbeat(self, broker: int, request: Any, version: int, reply: Reply) -> None:
        code = ErrorCode.NONE
        try:
            self._check(broker, request.group_id)
            self._known(request.group_id).heartbeat(request)
        except Refused as refused:
            # A coordinator that is still loading knows no member; it says yes to everybody.
            code = ErrorCode.NONE if refused.code == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS else refused.code
        reply({"error_code": code})

    def _leave_group(self, broker: int, request: Any, version: int, reply: Reply) -> None:
        try:
            self._check(broker, request.group_id)
        except Refused as refused:
            reply({"error_code": refused.code})
            return
        if version < _LEAVE_MANY:
            reply({"error_code": self._leave(request.group_id, [Leaver(request.member_id, None)])[0]})
            return
        leavers = [Leaver(member.member_id, member.group_instance_id) for member in request.members]
        codes = self._leave(request.group_id, leavers)
        reply({"members": [_left(leaver, code) for leaver, code in zip(leavers, codes, strict=True)]})

    def _leave(self, group_id: str, leavers: list[Leaver]) -> list[ErrorCode]:
        group = self._groups.get(group_id)
        return group.leave(leavers) if group is not None else [ErrorCode.UNKNOWN_MEMBER_ID for _ in leavers]

    def _describe_groups(self, broker: int, request: Any, version: int, reply: Reply) -> None:
        reply({"groups": [self._described(broker, group_id, version) for group_id in request.groups]})

    def _described(self, broker: int, group_id: str, version: int) -> Body:
        try:
            self._check(broker, group_id)
        except Refused as refused:
            return {"group_id": group_id, "error_code": refused.code}
        group = self._groups.get(group_id)
        if group is not None:
            return {"group_id": group_id, **group.described()}
        code = GROUP_ID_NOT_FOUND if version >= _NOT_FOUND_IS_SAID else ErrorCode.NONE
        return {"group_id": group_id, "error_code": code, "group_state": State.DEAD.value}

    def _list_groups(self, broker: int, request: Any, version: int, reply: Reply) -> None:
        states = {state.lower() for state in request.states_filter}
        types = {kind.lower() for kind in request.types_filter}
        wanted = [
            {
                "group_id": group_id,
                "protocol_type": group.members.protocol_type,
                "group_state": group.state.value,
                "group_type": _TYPE,
            }
            for group_id, group in self._groups.items()
            if self._coordinates(broker, group_id)
            and (not states or group.state.value.lower() in states)
            and (not types or _TYPE.lower() in types)
        ]
        reply({"groups": wanted})

    def _check(self, broker: int, group_id: str) -> None:
        if not group_id:
            raise Refused(ErrorCode.INVALID_GROUP_ID)
        self._coordinators.check(broker, "group", group_id)

    def _coordinates(self, broker: int, group_id: str) -> bool:
        try:
            self._check(broker, group_id)
        except Refused:
            return False
        return True

    def _check_session(self, session_timeout_ms: int) -> None:
        settings = self._settings
        if not settings.min_session_timeout_ms <= session_timeout_ms <= settings.max_session_timeout_ms:
            raise Refused(ErrorCode.INVALID_SESSION_TIMEOUT)

    def _known(self, group_id: str) -> Group:
        if group_id not in self._groups:
            raise Refused(ErrorCode.UNKNOWN_MEMBER_ID)
        return self._groups[group_id]


def _left(leaver: Leaver, code: ErrorCode) -> Body:
    return {"member_id": leaver.member_id, "group_instance_id": leaver.instance_id, "error_code": code}
