"""What members and their leader say to each other in bytes, read by members of this and of other releases."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import anyio
import pytest

from streamlib.engine.assignment import Decision, Member, Policy, assign
from streamlib.errors import ErrorCode
from streamlib.records import TaskId, TopicPartition
from streamlib.runtime import assignor
from streamlib.runtime.assignor import Assignor, Instructions, Place, instructions_of, introduction
from streamlib.runtime.ports import Assignment, MemberSubscription, MemberTasks, Subscription
from streamlib.runtime.topic_watch import TopicWatch
from streamlib.runtime.wakeup import Wakeup
from tests.runtime.fakes import IN0, IN1, LOG0, LOG1, T0, T1, FakeAdmin, FakeBroker, Script, counting_plan

HERE = Place("disk-1", "host-1", {"zone": "a"})


class Disk:
    """What a worker has."""

    def __init__(
        self,
        positions: dict[TaskId, int],
        standby_ids: frozenset[TaskId] = frozenset(),
        warmed_up: frozenset[TaskId] = frozenset(),
    ) -> None:
        self._positions = positions
        self.standby_ids = standby_ids
        self.warmed_up = warmed_up

    def positions(self) -> dict[TaskId, int]:
        return self._positions


class Leader:
    """An assignor over a broker in memory; what it makes of the members is kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plan = counting_plan()
        self.script = Script()
        self.broker = FakeBroker()
        self.members: dict[str, Member] = {}
        self.ends: Mapping[TaskId, int | None] = {}
        admin = FakeAdmin(self.script, self.broker)
        watch = TopicWatch(self.plan, admin, 1_000_000, Wakeup())
        self._assignor = Assignor(self.plan, admin, Policy(), watch)
        monkeypatch.setattr(assignor, "assign", self._assign)

    async def decide(self, *members: MemberSubscription) -> dict[str, Assignment]:
        return dict(await self._assignor(members))

    def _assign(
        self, tasks: Iterable[TaskId], ends: Mapping[TaskId, int | None], members: Sequence[Member], policy: Policy
    ) -> Decision:
        self.members = {member.member_id: member for member in members}
        self.ends = ends
        return assign(tasks, ends, members, policy)


@pytest.fixture
def leader(monkeypatch: pytest.MonkeyPatch) -> Leader:
    return Leader(monkeypatch)


def member(
    name: str, user_data: bytes = b"", *owned: TopicPartition, generation: int = -1, instance_id: str | None = None
) -> MemberSubscription:
    return MemberSubscription(name, instance_id, Subscription(("in",), owned, generation, user_data))


def said(**fields: Any) -> bytes:
    return json.dumps({"version": 2, "fingerprint": counting_plan().fingerprint, **fields}).encode()


async def test_what_a_member_says_arrives(leader: Leader) -> None:
    introduce = introduction(leader.plan, HERE, Disk({T1: 17, T0: 4}, frozenset({T0, T1}), frozenset({T0})))
    await leader.decide(member("a", introduce(False), IN1, generation=3), member("b", introduce(True)))
    a, b = leader.members["a"], leader.members["b"]
    assert (a.process, a.host, a.tags, a.capacity) == ("disk-1", "host-1", {"zone": "a"}, 1)
    assert a.positions == {T0: 4, T1: 17}
    assert a.followed == {T0, T1}
    assert a.warmed_up == {T0}
    assert a.owned == {T1}
    assert a.generation == 3
    assert (a.leaving, b.leaving) == (False, True)


async def test_positions_are_those_of_the_moment_it_joins(leader: Leader) -> None:
    positions = {T0: 4}
    introduce = introduction(leader.plan, HERE, Disk(positions))
    positions[T0] = 5
    await leader.decide(member("a", introduce(False)))
    assert leader.members["a"].positions == {T0: 5}


async def test_what_the_leader_says_arrives(leader: Leader) -> None:
    """One of two tasks moves: its owner gives it back, both wait for the follow-up."""
    introduce = introduction(leader.plan, HERE, Disk({}))
    assignments = await leader.decide(
        member("a", introduce(False), IN0, IN1, generation=3), member("b-1", introduce(False), instance_id="b")
    )
    told = {name: instructions_of(assignment) for name, assignment in assignments.items()}
    kept = assignments["a"].partitions
    assert len(kept) == 1
    assert assignments["b-1"].partitions == ()
    assert (told["a"].join_again, told["b-1"].join_again) == (True, False)
    for instructions in told.values():
        assert instructions.follow_up
        assert instructions.members == ["a", "b"]  # of a static member, its own name
        assert (instructions.moving, instructions.tasks) == (1, 2)


async def test_nobody_waits_where_nothing_moves(leader: Leader) -> None:
    introduce = introduction(leader.plan, HERE, Disk({}))
    members = (member("a", introduce(False), IN0, generation=3), member("b", introduce(False), IN1, generation=3))
    for assignment in (await leader.decide(*members)).values():
        instructions = instructions_of(assignment)
        assert (instructions.join_again, instructions.follow_up, instructions.moving) == (False, False, 0)


async def test_fields_that_a_later_release_adds_are_passed_over(
    leader: Leader, caplog: pytest.LogCaptureFixture
) -> None:
    await leader.decide(member("a", said(version=9, positions=[[0, 1, 17]], mood="good")))
    assert leader.members["a"].positions == {T1: 17}
    assert instructions_of(Assignment((), b'{"join_again":true,"mood":"good"}')) == Instructions(join_again=True)
    assert not caplog.records


async def test_a_member_of_the_release_before_stores_nothing_that_counts(
    leader: Leader, caplog: pytest.LogCaptureFixture
) -> None:
    """It names the tasks it has stores of, not how far they are; what it owns it says as ever."""
    assignments = await leader.decide(member("a", said(version=1, stored=[[0, 0]]), IN0, IN1, generation=3))
    assert leader.members["a"].positions == {}
    assert leader.members["a"].process == "a"  # it shares its disk with nobody, as far as is known
    assert assignments["a"].partitions == (IN0, IN1)
    assert not caplog.records


@pytest.mark.parametrize("garbage", [b"\xff\x00", b"[]", b"{}", b'{"version":"x"}', said(positions=[[0, 1]])])
async def test_a_member_that_cannot_be_read_keeps_what_it_owns(
    leader: Leader, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    assignments = await leader.decide(member("a", garbage, IN0, IN1, generation=3))
    assert assignments["a"].partitions == (IN0, IN1)
    assert leader.members["a"].positions == {}
    assert "cannot read what member a says" in caplog.text


@pytest.mark.parametrize("garbage", [b"\xff\x00", b"[]", b'{"standby":[7]}'])
def test_a_leader_that_cannot_be_read_has_said_nothing(garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert instructions_of(Assignment((IN0,), garbage)) == Instructions()
    assert "cannot read what the leader" in caplog.text


def test_a_leader_that_says_nothing_is_no_reason_for_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert instructions_of(Assignment((IN0,))) == Instructions()
    assert not caplog.records


async def test_what_is_said_of_tasks_and_topics_that_do_not_exist_is_passed_over(leader: Leader) -> None:
    """Of a topology that was different yesterday, say."""
    await leader.decide(member("a", said(positions=[[7, 0, 1], [0, 1, 2]]), TopicPartition("gone", 0), IN1))
    assert leader.members["a"].positions == {T1: 2}
    assert leader.members["a"].owned == {T1}


async def test_another_topology_is_named_with_its_member(leader: Leader, caplog: pytest.LogCaptureFixture) -> None:
    await leader.decide(member("a", said()), member("b", said(fingerprint="0123456789abcdef")))
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        "member b runs a different topology than the leader of the group"
    ]


@pytest.mark.parametrize("capacity", [0, -3])
async def test_a_member_takes_at_least_one_share(leader: Leader, capacity: int) -> None:
    await leader.decide(member("a", said(capacity=capacity)))
    assert leader.members["a"].capacity == 1


async def test_how_far_stores_can_be_is_the_end_of_their_changelogs(leader: Leader) -> None:
    leader.broker.write(LOG0, "a", "b", "c")
    leader.broker.write(LOG1, "a")
    await leader.decide(member("a", said()), member("b", said()))
    assert leader.ends == {T0: 3, T1: 1}


async def test_a_member_that_is_alone_does_not_ask_how_far(leader: Leader) -> None:
    await leader.decide(member("a", said()))
    assert leader.ends == {T0: None, T1: None}
    assert leader.script.journal == []


async def test_ends_that_are_not_there_in_time_are_done_without(
    leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All members wait for the leader, and none of them beats meanwhile."""
    monkeypatch.setattr(assignor, "_LONGEST_LOOK_MS", 1)
    leader.script.hold("list_offsets latest")
    with anyio.fail_after(10):
        assignments = await leader.decide(member("a", said()), member("b", said()))
    assert leader.ends == {T0: None, T1: None}
    assert {p for each in assignments.values() for p in each.partitions} == {IN0, IN1}


async def test_ends_that_cannot_be_had_are_done_without(leader: Leader, caplog: pytest.LogCaptureFixture) -> None:
    leader.script.fail("list_offsets latest", ErrorCode.NETWORK_EXCEPTION)
    assignments = await leader.decide(member("a", said()), member("b", said()))
    assert leader.ends == {T0: None, T1: None}
    assert {p for each in assignments.values() for p in each.partitions} == {IN0, IN1}
    assert "without knowing how far stores are behind" in caplog.text


async def test_who_runs_what_is_told_to_all_as_soon_as_somebody_can_be_asked(leader: Leader) -> None:
    with_server = Place("disk-1", "host-1", {}, "10.0.0.1:8080", "worker-1")
    a, b = introduction(leader.plan, with_server, Disk({})), introduction(leader.plan, HERE, Disk({}))
    assignments = await leader.decide(
        member("a", a(False), IN0, generation=3), member("b-1", b(False), IN1, generation=3, instance_id="b")
    )
    for assignment in assignments.values():
        assert instructions_of(assignment).hosts == [
            MemberTasks("a", "worker-1", "10.0.0.1:8080", (T0,)),
            MemberTasks("b", active=(T1,)),
        ]


async def test_members_without_servers_say_and_hear_the_same_bytes_as_before(leader: Leader) -> None:
    introduce = introduction(leader.plan, Place("disk-1", worker="worker-1"), Disk({}))
    assert json.loads(introduce(False)).keys() == {"version", "fingerprint", "process"}
    for assignment in (await leader.decide(member("a", introduce(False)), member("b", said()))).values():
        assert b"hosts" not in assignment.user_data


async def test_a_task_on_its_way_is_nobodys_but_is_told_with_who_follows_it(leader: Leader) -> None:
    with_server = introduction(leader.plan, Place("disk-1", endpoint="10.0.0.1:8080"), Disk({}))
    other = introduction(leader.plan, Place("disk-2", endpoint="10.0.0.2:8080"), Disk({}))
    assignments = await leader.decide(
        member("a", with_server(False), IN0, IN1, generation=3), member("b", other(False))
    )
    a, b = instructions_of(assignments["a"]).hosts
    assert len(a.active) == 1
    assert b.active == ()
    assert b.standby == tuple({T0, T1} - set(a.active))


@pytest.mark.parametrize("hosts", ["7", '[{"endpoint":7}]', '[{"active":[[1]]}]'])
def test_hosts_that_cannot_be_read_cost_nothing_but_a_warning(hosts: str, caplog: pytest.LogCaptureFixture) -> None:
    told = f'{{"hosts":{hosts}}}'.encode()
    assert instructions_of(Assignment((IN0,), told)) == Instructions()
    assert "cannot read what the leader" in caplog.text
