"""The model's group coordinator, rule by rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from streamlib.errors import ErrorCode
from streamlib.simulation.cluster.brokers import Brokers
from streamlib.simulation.cluster.coordinators import Coordinators
from streamlib.simulation.cluster.group import NEW_MEMBER_JOIN_TIMEOUT_MS, State
from streamlib.simulation.cluster.groups import GROUP_ID_NOT_FOUND, Groups, GroupSettings
from tests.simulation.cluster.asking import Asked, ask
from tests.simulation.cluster.timers import HandTimers

G = "g"  # coordinated by broker 0
SESSION_MS = 10_000
REBALANCE_MS = 60_000


class Coordinator:
    """The groups of a cluster, and requests to the broker that coordinates `G`."""

    def __init__(self, *, initial_delay_ms: int = 0) -> None:
        self.timers = HandTimers()
        self.coordinators = Coordinators(Brokers(2), self.timers)
        settings = GroupSettings(initial_rebalance_delay_ms=initial_delay_ms)
        self.groups = Groups(self.timers, self.coordinators, settings)

    def ask(self, api: str, body: Mapping[str, Any], *, version: int | None = None, broker: int = 0) -> Asked:
        return ask(self.groups.handlers, api, body, version=version, broker=broker)

    def join(
        self,
        member_id: str = "",
        said: Mapping[str, bytes] | bytes = b"",
        *,
        instance: str | None = None,
        version: int | None = None,
        **fields: Any,
    ) -> Asked:
        protocols = said if isinstance(said, Mapping) else {"p": said}
        body = {
            "group_id": G,
            "session_timeout_ms": SESSION_MS,
            "rebalance_timeout_ms": REBALANCE_MS,
            "member_id": member_id,
            "group_instance_id": instance,
            "protocol_type": "consumer",
            "protocols": [{"name": name, "metadata": data} for name, data in protocols.items()],
        }
        return self.ask("JoinGroup", body | fields, version=version)

    def come(self, said: Mapping[str, bytes] | bytes = b"", **fields: Any) -> Asked:
        """A new dynamic member: asks for an id, and joins with it."""
        return self.join(self.join(said=said, **fields).answer.member_id, said, **fields)

    def sync(
        self,
        generation: int,
        member_id: str,
        assignments: Mapping[str, bytes] | None = None,
        *,
        instance: str | None = None,
        **fields: Any,
    ) -> Asked:
        given = [{"member_id": key, "assignment": value} for key, value in (assignments or {}).items()]
        body = {
            "group_id": G,
            "generation_id": generation,
            "member_id": member_id,
            "group_instance_id": instance,
            "protocol_type": "consumer",
            "protocol_name": "p",
            "assignments": given,
        }
        return self.ask("SyncGroup", body | fields)

    def heartbeat(self, generation: int, member_id: str, *, instance: str | None = None, broker: int = 0) -> int:
        body = {"group_id": G, "generation_id": generation, "member_id": member_id, "group_instance_id": instance}
        return self.ask("Heartbeat", body, broker=broker).code

    def leave(self, *leavers: tuple[str, str | None]) -> list[int]:
        members = [{"member_id": member_id, "group_instance_id": instance} for member_id, instance in leavers]
        answer = self.ask("LeaveGroup", {"group_id": G, "members": members}).answer
        assert answer.error_code == ErrorCode.NONE
        assert [(left.member_id, left.group_instance_id) for left in answer.members] == list(leavers)
        return [left.error_code for left in answer.members]

    def beat_for(self, ms: float, generation: int, *member_ids: str) -> None:
        """Time goes by, and these send their heartbeats."""
        while ms > 0:
            for member_id in member_ids:
                self.heartbeat(generation, member_id)
            self.timers.advance(min(ms, SESSION_MS / 2))
            ms -= SESSION_MS / 2

    # Groups to begin with: stable, of one or two members, the first leads

    def alone(self, **fields: Any) -> str:
        """One dynamic member, in generation 1."""
        joined = self.come(**fields)
        self.timers.advance(0)
        member_id: str = joined.answer.member_id
        assert self.sync(1, member_id, {member_id: b"all"}).code == ErrorCode.NONE
        return member_id

    def pair(self) -> tuple[str, str]:
        """Two dynamic members, in generation 2."""
        first = self.alone()
        joined = self.come()
        assert self.join(first).answer.generation_id == 2
        second: str = joined.answer.member_id
        follower = self.sync(2, second)
        assert self.sync(2, first, {first: b"one", second: b"two"}).answer.assignment == b"one"
        assert follower.answer.assignment == b"two"
        return first, second

    def statics(self, *instances: str, version: int | None = None) -> list[str]:
        """Static members, in generation 1; the first leads."""
        joins = [self.join(instance=instance, version=version) for instance in instances]
        self.timers.advance(0)
        ids = [join.answer.member_id for join in joins]
        assigned = {member_id: instance.encode() for member_id, instance in zip(ids, instances, strict=True)}
        for member_id, instance in reversed(list(zip(ids, instances, strict=True))):
            self.sync(1, member_id, assigned, instance=instance)
        assert self.groups.members(G) == assigned
        return ids


@pytest.fixture
def at() -> Coordinator:
    return Coordinator()


# Joining


def test_new_member_is_given_an_id_first(at: Coordinator) -> None:
    refused = at.join()
    assert refused.code == ErrorCode.MEMBER_ID_REQUIRED
    joined = at.join(refused.answer.member_id, b"said")
    at.timers.advance(0)
    answer = joined.answer
    assert (answer.generation_id, answer.protocol_type, answer.protocol_name) == (1, "consumer", "p")
    assert answer.leader == answer.member_id == refused.answer.member_id
    assert [(member.member_id, member.metadata) for member in answer.members] == [(answer.member_id, b"said")]


def test_ids_are_the_same_in_every_run() -> None:
    def ids() -> list[str]:
        at = Coordinator()
        return [at.join().answer.member_id, at.join().answer.member_id, *at.statics("a")]

    assert ids() == ids()
    assert len(set(ids())) == 3


def test_empty_group_waits_for_more_as_long_as_they_come() -> None:
    at = Coordinator(initial_delay_ms=3_000)
    first = at.come()
    at.timers.advance(2_000)
    second = at.come()
    at.timers.advance(1_000)
    assert first.waits
    at.timers.advance(3_000)
    assert first.answer.generation_id == second.answer.generation_id == 1
    assert len(first.answer.members) == 2
    assert not second.answer.members


def test_initial_delay_ends_with_the_rebalance_timeout() -> None:
    at = Coordinator(initial_delay_ms=3_000)
    joins = [at.come(rebalance_timeout_ms=5_000)]
    for _ in range(4):
        at.timers.advance(1_000)
        joins.append(at.come(rebalance_timeout_ms=5_000))
        assert joins[0].waits
    at.timers.advance(1_000)
    assert {join.answer.generation_id for join in joins} == {1}


def test_join_is_answered_when_all_have_joined(at: Coordinator) -> None:
    first, second = at.pair()
    third = at.come()
    one = at.join(first)
    assert at.groups.state(G) is State.PREPARING_REBALANCE
    assert one.waits
    assert third.waits
    two = at.join(second)
    assert at.groups.state(G) is State.COMPLETING_REBALANCE
    assert [join.answer.generation_id for join in (one, two, third)] == [3, 3, 3]
    assert {join.answer.leader for join in (one, two, third)} == {first}
    assert {member.member_id for member in one.answer.members} == {first, second, third.answer.member_id}


def test_rebalance_waits_for_who_was_given_an_id(at: Coordinator) -> None:
    first = at.alone()
    given = at.join().answer.member_id
    again = at.join(first)
    assert again.waits
    at.join(given)
    assert again.answer.generation_id == 2


def test_id_that_is_not_used_expires_with_its_session(at: Coordinator) -> None:
    first = at.alone()
    given = at.join().answer.member_id
    again = at.join(first)
    at.timers.advance(SESSION_MS)
    assert again.answer.generation_id == 2
    assert at.join(given).code == ErrorCode.UNKNOWN_MEMBER_ID


def test_who_does_not_rejoin_in_time_is_removed(at: Coordinator) -> None:
    first, second = at.pair()
    joined = at.join(first)
    at.beat_for(REBALANCE_MS, 2, second)
    assert joined.answer.generation_id == 3
    assert at.heartbeat(3, second) == ErrorCode.UNKNOWN_MEMBER_ID
    assert list(at.groups.members(G)) == [first]


def test_static_member_that_does_not_rejoin_in_time_stays(at: Coordinator) -> None:
    first, second = at.statics("a", "b")
    joined = at.join(first, instance="a")
    for _ in range(7):
        at.heartbeat(1, second, instance="b")
        at.timers.advance(SESSION_MS - 1)
    assert joined.answer.generation_id == 2
    assert {member.member_id for member in joined.answer.members} == {first, second}


def test_silent_static_members_alone_begin_no_generation(at: Coordinator) -> None:
    first, second = at.statics("a", "b")
    at.groups.storm(G)
    for _ in range(7):
        at.heartbeat(1, first, instance="a")
        at.heartbeat(1, second, instance="b")
        at.timers.advance(SESSION_MS - 1)
    assert at.groups.state(G) is State.PREPARING_REBALANCE
    assert at.groups.generation(G) == 1
    at.join(first, instance="a")
    assert at.join(second, instance="b").answer.generation_id == 2


def test_another_leads_if_the_leader_does_not_join(at: Coordinator) -> None:
    first, second = at.statics("a", "b")
    at.groups.storm(G)
    joined = at.join(second, instance="b")
    for _ in range(7):
        at.heartbeat(1, first, instance="a")
        at.timers.advance(SESSION_MS - 1)
    assert joined.answer.leader == second
    assert len(joined.answer.members) == 2


def test_leader_stays_and_when_it_goes_another_leads(at: Coordinator) -> None:
    first, second = at.pair()
    at.leave((first, None))
    joined = at.join(second)
    assert joined.answer.leader == second
    assert [member.member_id for member in joined.answer.members] == [second]


def test_member_with_something_new_to_say_begins_a_rebalance(at: Coordinator) -> None:
    first, second = at.pair()
    joined = at.join(second, b"new")
    assert joined.waits
    assert at.heartbeat(2, first) == ErrorCode.REBALANCE_IN_PROGRESS
    said = {member.member_id: member.metadata for member in at.join(first).answer.members}
    assert said == {first: b"", second: b"new"}


def test_follower_with_nothing_new_is_told_the_generation(at: Coordinator) -> None:
    first, second = at.pair()
    answer = at.join(second).answer
    assert (answer.generation_id, answer.leader, answer.members) == (2, first, [])
    assert at.groups.state(G) is State.STABLE
    assert at.sync(2, second).answer.assignment == b"two"


def test_leader_of_a_stable_group_begins_a_rebalance_whatever_it_says(at: Coordinator) -> None:
    first, second = at.pair()
    joined = at.join(first)
    assert joined.waits
    assert at.heartbeat(2, second) == ErrorCode.REBALANCE_IN_PROGRESS


def test_join_whose_answer_was_lost_is_answered_again(at: Coordinator) -> None:
    first, second = at.pair()
    at.join(first)
    at.join(second)
    again = at.join(first).answer
    assert (again.generation_id, again.leader, len(again.members)) == (3, first, 2)
    assert not at.join(second).answer.members
    assert at.groups.state(G) is State.COMPLETING_REBALANCE


def test_something_new_before_the_assignment_begins_another_rebalance(at: Coordinator) -> None:
    first, second = at.pair()
    at.join(first)
    at.join(second)
    joined = at.join(second, b"new")
    assert joined.waits
    assert at.join(first).answer.generation_id == 4


def test_join_that_is_made_again_takes_the_place_of_the_first(at: Coordinator) -> None:
    first, second = at.pair()
    lost = at.join(second, b"new")
    again = at.join(second, b"newer")
    assert {member.metadata for member in at.join(first).answer.members} == {b"", b"newer"}
    assert again.answer.generation_id == 3
    assert lost.waits


def test_protocol_that_all_can_speak_is_chosen(at: Coordinator) -> None:
    first = at.alone(said={"p": b"2", "old": b"1"})
    joined = at.come({"new": b"3", "p": b"4"})
    answer = at.join(first, {"p": b"2", "old": b"1"}).answer
    assert answer.protocol_name == joined.answer.protocol_name == "p"
    assert [member.metadata for member in answer.members] == [b"2", b"4"]


def test_protocol_that_most_like_best_is_chosen(at: Coordinator) -> None:
    likes = [{"x": b"", "y": b""}, {"y": b"", "x": b""}, {"y": b"", "x": b""}]
    joins = [at.come(like) for like in likes]
    at.timers.advance(0)
    assert {join.answer.protocol_name for join in joins} == {"y"}


def test_member_that_speaks_nothing_in_common_is_refused(at: Coordinator) -> None:
    first = at.alone()
    assert at.join(said={"q": b""}).code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert at.join(protocol_type="connect").code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert at.join(first, said={"q": b""}).code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert at.groups.state(G) is State.STABLE


@pytest.mark.parametrize("session_timeout_ms", [5_999, 1_800_001])
def test_session_timeout_has_bounds(at: Coordinator, session_timeout_ms: int) -> None:
    assert at.join(session_timeout_ms=session_timeout_ms).code == ErrorCode.INVALID_SESSION_TIMEOUT


def test_group_has_a_name(at: Coordinator) -> None:
    assert at.join(group_id="").code == ErrorCode.INVALID_GROUP_ID


@pytest.mark.parametrize("exists", [False, True])
def test_unknown_member_may_not_join(at: Coordinator, exists: bool) -> None:
    if exists:
        at.alone()
    assert at.join("nobody").code == ErrorCode.UNKNOWN_MEMBER_ID


def test_new_member_that_waits_is_waited_for_five_minutes(at: Coordinator) -> None:
    first = at.alone()
    joined = at.come(rebalance_timeout_ms=2 * NEW_MEMBER_JOIN_TIMEOUT_MS)
    at.beat_for(NEW_MEMBER_JOIN_TIMEOUT_MS, 1, first)
    assert joined.code == ErrorCode.UNKNOWN_MEMBER_ID
    assert at.join(first).answer.generation_id == 2


# Syncing


def test_followers_wait_for_what_the_leader_decides(at: Coordinator) -> None:
    first, second = at.pair()  # asserts it
    assert at.groups.state(G) is State.STABLE
    assert at.groups.members(G) == {first: b"one", second: b"two"}


def test_member_that_the_leader_forgot_has_nothing(at: Coordinator) -> None:
    first, second = at.pair()
    at.join(first)
    at.join(second, b"new")
    follower = at.sync(3, second)
    at.sync(3, first, {first: b"all", "nobody": b"?"})
    assert follower.answer.assignment == b""


def test_sync_is_refused_while_members_join(at: Coordinator) -> None:
    first, second = at.pair()
    at.join(first)
    assert at.sync(2, second).code == ErrorCode.REBALANCE_IN_PROGRESS


def test_waiting_sync_hears_of_the_next_rebalance(at: Coordinator) -> None:
    first, second = at.pair()
    at.join(first)
    at.join(second, b"new")
    follower = at.sync(3, second)
    at.come()
    assert follower.code == ErrorCode.REBALANCE_IN_PROGRESS


def test_who_does_not_sync_in_time_is_removed(at: Coordinator) -> None:
    first, second = at.pair()
    at.join(first)
    at.join(second, b"new")
    follower = at.sync(3, second)
    at.beat_for(REBALANCE_MS, 3, first)
    assert follower.code == ErrorCode.REBALANCE_IN_PROGRESS
    assert list(at.groups.members(G)) == [second]
    assert at.join(second, b"new").answer.leader == second


def test_who_does_not_sync_in_time_is_removed_from_a_stable_group_too(at: Coordinator) -> None:
    first, second = at.pair()
    at.join(first)
    at.join(second, b"new")
    at.sync(3, first, {})
    assert at.groups.state(G) is State.STABLE
    at.beat_for(REBALANCE_MS, 3, first, second)
    assert at.groups.state(G) is State.PREPARING_REBALANCE
    assert list(at.groups.members(G)) == [first]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"generation_id": 1}, ErrorCode.ILLEGAL_GENERATION),
        ({"member_id": "nobody"}, ErrorCode.UNKNOWN_MEMBER_ID),
        ({"group_id": "other"}, ErrorCode.UNKNOWN_MEMBER_ID),
        ({"protocol_name": "q"}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocol_type": "connect"}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocol_name": None, "protocol_type": None}, ErrorCode.NONE),
    ],
)
def test_sync_is_checked(at: Coordinator, fields: dict[str, Any], code: ErrorCode) -> None:
    first, _ = at.pair()
    right = {"group_id": G, "generation_id": 2, "member_id": first, "protocol_name": "p", "protocol_type": "consumer"}
    assert at.ask("SyncGroup", right | fields).code == code


# Heartbeats and sessions


def test_heartbeat_is_checked(at: Coordinator) -> None:
    first, second = at.pair()
    assert at.heartbeat(2, first) == ErrorCode.NONE
    assert at.heartbeat(1, first) == ErrorCode.ILLEGAL_GENERATION
    assert at.heartbeat(2, "nobody") == ErrorCode.UNKNOWN_MEMBER_ID
    at.join(second, b"new")
    assert at.heartbeat(2, first) == ErrorCode.REBALANCE_IN_PROGRESS
    at.join(first)
    assert at.heartbeat(3, first) == ErrorCode.NONE  # before the assignment is known
    assert Coordinator().heartbeat(1, first) == ErrorCode.UNKNOWN_MEMBER_ID


def test_session_ends_without_heartbeats(at: Coordinator) -> None:
    first, second = at.pair()
    at.timers.advance(SESSION_MS - 1)
    assert at.heartbeat(2, first) == ErrorCode.NONE
    at.timers.advance(1)
    assert list(at.groups.members(G)) == [first]
    assert at.heartbeat(2, first) == ErrorCode.REBALANCE_IN_PROGRESS
    assert at.heartbeat(2, second) == ErrorCode.UNKNOWN_MEMBER_ID


def test_group_whose_last_session_ends_is_empty(at: Coordinator) -> None:
    at.alone()
    at.timers.advance(SESSION_MS)
    assert at.groups.state(G) is State.EMPTY
    assert at.groups.generation(G) == 2


def test_waiting_join_keeps_a_member_alive(at: Coordinator) -> None:
    first, second = at.pair()
    joined = at.join(second, b"new")
    at.beat_for(REBALANCE_MS - SESSION_MS, 2, first)
    assert at.join(first).answer.generation_id == joined.answer.generation_id == 3


def test_waiting_sync_keeps_a_member_alive(at: Coordinator) -> None:
    first, second = at.pair()
    at.join(first)
    at.join(second, b"new")
    follower = at.sync(3, second)
    at.beat_for(REBALANCE_MS - SESSION_MS, 3, first)
    at.sync(3, first, {second: b"late"})
    assert follower.answer.assignment == b"late"
    at.timers.advance(SESSION_MS - 1)
    assert at.heartbeat(3, second) == ErrorCode.NONE


def test_rebalance_goes_on_without_a_member_whose_session_ends(at: Coordinator) -> None:
    first, _ = at.pair()
    joined = at.join(first)
    at.timers.advance(SESSION_MS)
    assert joined.answer.generation_id == 3


# Leaving


def test_group_rebalances_without_who_leaves(at: Coordinator) -> None:
    first, second = at.pair()
    assert at.leave((second, None)) == [ErrorCode.NONE]
    assert at.heartbeat(2, second) == ErrorCode.UNKNOWN_MEMBER_ID
    assert at.heartbeat(2, first) == ErrorCode.REBALANCE_IN_PROGRESS
    assert at.join(first).answer.generation_id == 3


def test_group_is_empty_when_the_last_one_leaves(at: Coordinator) -> None:
    first, second = at.pair()
    assert at.leave((second, None), (first, None)) == [ErrorCode.NONE, ErrorCode.NONE]
    assert at.groups.state(G) is State.EMPTY
    assert at.groups.generation(G) == 3


def test_rebalance_goes_on_without_who_leaves(at: Coordinator) -> None:
    first, second = at.pair()
    joined = at.join(first)
    at.leave((second, None))
    assert joined.answer.generation_id == 3


def test_waiting_join_of_who_leaves_is_refused(at: Coordinator) -> None:
    first, second = at.pair()
    joined = at.join(second, b"new")
    at.leave((second, None))
    assert joined.code == ErrorCode.UNKNOWN_MEMBER_ID
    assert at.join(first).answer.generation_id == 3


def test_waiting_sync_of_who_leaves_is_never_answered(at: Coordinator) -> None:
    first, second = at.pair()
    at.join(first)
    at.join(second, b"new")
    follower = at.sync(3, second)
    at.leave((second, None))
    at.sync(3, first, {})
    at.timers.advance(10 * REBALANCE_MS)
    assert follower.waits


def test_static_member_is_sent_away_by_its_instance_id(at: Coordinator) -> None:
    at.statics("a", "b")
    assert at.leave(("", "a"), ("", "c"), ("", None)) == [
        ErrorCode.NONE,
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.UNKNOWN_MEMBER_ID,
    ]
    assert len(at.groups.members(G)) == 1


def test_leave_is_checked(at: Coordinator) -> None:
    first, second = at.statics("a", "b")
    wrong = ((second, "a"), ("nobody", None), (first, "c"))
    assert at.leave(*wrong) == [
        ErrorCode.FENCED_INSTANCE_ID,
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.UNKNOWN_MEMBER_ID,
    ]
    assert at.groups.state(G) is State.STABLE
    assert Coordinator().leave((first, None)) == [ErrorCode.UNKNOWN_MEMBER_ID]


def test_id_that_was_not_used_can_be_given_back(at: Coordinator) -> None:
    first = at.alone()
    given = at.join().answer.member_id
    joined = at.join(first)
    assert at.leave((given, None)) == [ErrorCode.NONE]
    assert joined.answer.generation_id == 2


def test_id_is_given_back_to_a_group_without_members(at: Coordinator) -> None:
    given = at.join().answer.member_id
    assert at.leave((given, None)) == [ErrorCode.NONE]
    assert at.groups.state(G) is State.EMPTY


def test_old_leave_names_one_member(at: Coordinator) -> None:
    first = at.alone()
    assert at.ask("LeaveGroup", {"group_id": G, "member_id": first}, version=2).code == ErrorCode.NONE
    assert at.ask("LeaveGroup", {"group_id": G, "member_id": first}, version=2).code == ErrorCode.UNKNOWN_MEMBER_ID


# Static members


def test_static_member_needs_no_id(at: Coordinator) -> None:
    joined = at.join(instance="a")
    at.timers.advance(0)
    assert joined.answer.generation_id == 1
    assert [member.group_instance_id for member in joined.answer.members] == ["a"]


def test_static_follower_is_back_without_a_rebalance(at: Coordinator) -> None:
    first, second = at.statics("a", "b")
    answer = at.join(instance="b").answer
    assert (answer.generation_id, answer.leader, answer.members, answer.skip_assignment) == (1, first, [], False)
    assert answer.member_id != second
    assert at.sync(1, answer.member_id, instance="b").answer.assignment == b"b"
    assert at.heartbeat(1, first, instance="a") == ErrorCode.NONE


def test_static_leader_is_back_and_has_nothing_to_decide(at: Coordinator) -> None:
    _, second = at.statics("a", "b")
    answer = at.join(instance="a").answer
    assert answer.skip_assignment
    assert answer.leader == answer.member_id
    assert {member.member_id for member in answer.members} == {answer.member_id, second}
    assert at.sync(1, answer.member_id, instance="a").answer.assignment == b"a"


def test_old_client_that_leads_is_made_to_believe_that_another_does(at: Coordinator) -> None:
    first, _ = at.statics("a", "b", version=8)
    answer = at.join(instance="a", version=8).answer
    assert answer.leader == first != answer.member_id
    assert not answer.members


def test_old_process_of_a_static_member_is_fenced(at: Coordinator) -> None:
    first, _ = at.statics("a", "b")
    at.join(instance="a")
    assert at.heartbeat(1, first, instance="a") == ErrorCode.FENCED_INSTANCE_ID
    assert at.heartbeat(1, first) == ErrorCode.UNKNOWN_MEMBER_ID
    assert at.sync(1, first, instance="a").code == ErrorCode.FENCED_INSTANCE_ID
    assert at.join(first, instance="a").code == ErrorCode.FENCED_INSTANCE_ID
    assert at.leave((first, "a")) == [ErrorCode.FENCED_INSTANCE_ID]


def test_instance_that_is_not_there_is_unknown_not_fenced(at: Coordinator) -> None:
    first, _ = at.statics("a", "b")
    at.leave(("", "a"))
    assert at.heartbeat(1, first, instance="a") == ErrorCode.UNKNOWN_MEMBER_ID


def test_waiting_requests_of_the_old_process_are_fenced(at: Coordinator) -> None:
    first, second = at.statics("a", "b")
    joined = at.join(second, b"new", instance="b")
    back = at.join(instance="b")
    assert joined.code == ErrorCode.FENCED_INSTANCE_ID
    at.join(first, instance="a")
    second = back.answer.member_id
    follower = at.sync(2, second, instance="b")
    at.join(instance="b")
    assert follower.code == ErrorCode.FENCED_INSTANCE_ID


def test_static_member_that_is_back_before_the_assignment_begins_a_rebalance(at: Coordinator) -> None:
    first, second = at.statics("a", "b")
    at.join(first, instance="a")
    at.join(second, b"new", instance="b")
    assert at.groups.state(G) is State.COMPLETING_REBALANCE
    back = at.join(instance="b")
    assert back.waits
    assert at.join(first, instance="a").answer.generation_id == 3


def test_static_member_that_is_back_with_another_protocol_begins_a_rebalance(at: Coordinator) -> None:
    said = {"p": b"", "q": b""}
    first = at.join(said=said, instance="a")
    at.timers.advance(0)
    at.sync(1, first.answer.member_id, instance="a")
    back = at.join(said={"q": b""}, instance="a")
    assert back.answer.generation_id == 2
    assert back.answer.protocol_name == "q"


def test_static_member_that_is_back_with_something_new_to_say_is_not_heard(at: Coordinator) -> None:
    first, _ = at.statics("a", "b")
    assert at.join(said=b"new", instance="b").answer.generation_id == 1
    assert at.heartbeat(1, first, instance="a") == ErrorCode.NONE


def test_session_of_a_static_member_that_is_back_begins_anew(at: Coordinator) -> None:
    at.statics("a")
    at.timers.advance(SESSION_MS - 1)
    back = at.join(instance="a").answer.member_id
    at.timers.advance(SESSION_MS - 1)
    assert at.heartbeat(1, back, instance="a") == ErrorCode.NONE


def test_static_member_that_is_gone_is_new_when_it_comes_back(at: Coordinator) -> None:
    first, second = at.statics("a", "b")
    for _ in range(2):
        at.heartbeat(1, first, instance="a")
        at.timers.advance(SESSION_MS - 1)
    assert list(at.groups.members(G)) == [first]
    back = at.join(instance="b")
    at.join(first, instance="a")
    assert back.answer.generation_id == 2
    assert back.answer.member_id != second


# Which broker is asked


def test_another_broker_coordinates_nothing(at: Coordinator) -> None:
    first = at.alone()
    assert at.heartbeat(1, first, broker=1) == ErrorCode.NOT_COORDINATOR
    for api in ("JoinGroup", "SyncGroup", "LeaveGroup"):
        assert at.ask(api, {"group_id": G}, broker=1).code == ErrorCode.NOT_COORDINATOR
    described = at.ask("DescribeGroups", {"groups": [G]}, broker=1).answer.groups
    assert [group.error_code for group in described] == [ErrorCode.NOT_COORDINATOR]
    assert at.ask("ListGroups", {}, broker=1).answer.groups == []


def test_coordinator_that_loads_says_yes_to_heartbeats_only(at: Coordinator) -> None:
    first = at.alone()
    at.coordinators.move("group", G, 0, loading_ms=100)
    assert at.heartbeat(77, "nobody") == ErrorCode.NONE
    assert at.join(first).code == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    at.timers.advance(100)
    assert at.heartbeat(77, first) == ErrorCode.ILLEGAL_GENERATION


# What befalls a group


def test_members_and_assignments_survive_a_move(at: Coordinator) -> None:
    first, second = at.pair()
    at.groups.moved(G)
    assert at.heartbeat(2, first) == at.heartbeat(2, second) == ErrorCode.NONE
    assert at.sync(2, second).answer.assignment == b"two"
    assert at.join(second).answer.generation_id == 2


def test_sessions_begin_anew_with_a_move(at: Coordinator) -> None:
    first, _ = at.pair()
    at.timers.advance(SESSION_MS - 1)
    at.groups.moved(G)
    at.timers.advance(SESSION_MS - 1)
    assert at.heartbeat(2, first) == ErrorCode.NONE
    at.timers.advance(1)
    assert list(at.groups.members(G)) == [first]


def test_who_waits_is_sent_to_the_new_coordinator(at: Coordinator) -> None:
    first, second = at.pair()
    joined = at.join(second, b"new")
    at.groups.moved(G)
    assert joined.code == ErrorCode.NOT_COORDINATOR
    at.join(first)
    at.join(second, b"new")
    follower = at.sync(3, second)
    at.groups.moved(G)
    assert follower.code == ErrorCode.NOT_COORDINATOR


def test_generation_that_was_not_assigned_is_forgotten_by_a_move(at: Coordinator) -> None:
    first, second = at.pair()
    third = at.come()
    at.join(first)
    at.join(second)
    assert third.answer.generation_id == 3
    at.groups.moved(G)
    assert at.groups.generation(G) == 2
    assert at.groups.members(G) == {first: b"one", second: b"two"}
    assert at.heartbeat(3, first) == ErrorCode.ILLEGAL_GENERATION
    assert at.heartbeat(3, third.answer.member_id) == ErrorCode.UNKNOWN_MEMBER_ID


def test_static_member_that_came_back_is_known_after_a_move(at: Coordinator) -> None:
    at.statics("a")
    back = at.join(instance="a").answer.member_id
    at.groups.moved(G)
    assert at.heartbeat(1, back, instance="a") == ErrorCode.NONE


def test_empty_group_and_its_generation_survive_a_move(at: Coordinator) -> None:
    first = at.alone()
    at.leave((first, None))
    at.groups.moved(G)
    assert at.groups.state(G) is State.EMPTY
    assert at.groups.generation(G) == 2


def test_ids_that_were_given_out_do_not_survive_a_move(at: Coordinator) -> None:
    given = at.join().answer.member_id
    at.groups.moved(G)
    assert at.join(given).code == ErrorCode.UNKNOWN_MEMBER_ID


def test_nobodys_session_ends_while_nobody_coordinates(at: Coordinator) -> None:
    first = at.alone()
    at.groups.unload(G)
    at.timers.advance(10 * SESSION_MS)
    at.groups.load(G)
    assert at.heartbeat(1, first) == ErrorCode.NONE


def test_storm_begins_a_rebalance(at: Coordinator) -> None:
    first, second = at.pair()
    at.groups.storm(G)
    assert at.heartbeat(2, first) == ErrorCode.REBALANCE_IN_PROGRESS
    at.join(first)
    at.join(second)
    assert at.groups.state(G) is State.COMPLETING_REBALANCE
    at.groups.storm(G)
    assert at.sync(3, first).code == ErrorCode.REBALANCE_IN_PROGRESS
    at.groups.storm(G)
    at.join(first)
    assert at.join(second).answer.generation_id == 4


def test_removed_member_is_unknown(at: Coordinator) -> None:
    first, second = at.pair()
    at.groups.remove(G, second)
    assert at.heartbeat(2, second) == ErrorCode.UNKNOWN_MEMBER_ID
    assert at.heartbeat(2, first) == ErrorCode.REBALANCE_IN_PROGRESS


def test_what_befalls_a_group_that_is_not_there_has_no_effect(at: Coordinator) -> None:
    at.groups.storm(G)
    at.groups.remove(G, "nobody")
    at.groups.moved(G)
    assert at.groups.names() == []
    assert at.groups.state(G) is State.DEAD
    assert (at.groups.generation(G), at.groups.members(G)) == (0, {})
    at.join()
    at.groups.storm(G)
    at.groups.remove(G, "nobody")
    assert at.groups.state(G) is State.EMPTY


# Telling


def test_stable_group_is_described_with_what_members_say_and_have(at: Coordinator) -> None:
    at.statics("a")
    (group,) = at.ask("DescribeGroups", {"groups": [G]}).answer.groups
    assert (group.error_code, group.group_state, group.protocol_type, group.protocol_data) == (
        ErrorCode.NONE,
        "Stable",
        "consumer",
        "p",
    )
    (member,) = group.members
    assert (member.group_instance_id, member.member_metadata, member.member_assignment) == ("a", b"", b"a")


def test_group_that_is_rebalancing_is_described_with_its_members(at: Coordinator) -> None:
    first, _ = at.pair()
    at.join(first)
    (group,) = at.ask("DescribeGroups", {"groups": [G]}).answer.groups
    assert (group.group_state, group.protocol_data, len(group.members)) == ("PreparingRebalance", "", 2)
    assert {member.member_assignment for member in group.members} == {b""}


@pytest.mark.parametrize(("version", "code"), [(5, ErrorCode.NONE), (6, GROUP_ID_NOT_FOUND)])
def test_group_that_is_not_there_is_dead(at: Coordinator, version: int, code: int) -> None:
    (group,) = at.ask("DescribeGroups", {"groups": [G]}, version=version).answer.groups
    assert (group.group_state, group.error_code) == ("Dead", code)


@pytest.mark.parametrize(
    ("wanted", "listed"),
    [
        ({}, [(G, "consumer", "Stable", "Classic")]),
        ({"states_filter": ["stable", "Empty"]}, [(G, "consumer", "Stable", "Classic")]),
        ({"states_filter": ["Empty"]}, []),
        ({"types_filter": ["classic"]}, [(G, "consumer", "Stable", "Classic")]),
        ({"types_filter": ["consumer"]}, []),
    ],
)
def test_groups_are_listed(at: Coordinator, wanted: dict[str, list[str]], listed: list[tuple[str, ...]]) -> None:
    at.alone()
    groups = at.ask("ListGroups", wanted).answer.groups
    assert [(group.group_id, group.protocol_type, group.group_state, group.group_type) for group in groups] == listed
