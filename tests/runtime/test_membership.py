"""The membership's rules against a scripted coordinator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest

from streamlib.errors import ErrorCode, KafkaError
from streamlib.records import GroupMetadata, OffsetAndMetadata, TopicPartition
from streamlib.runtime.assignor import Instructions
from streamlib.runtime.membership import (
    FOLLOW_UP_BEAT_MS,
    FOLLOW_UP_MS,
    Assigned,
    Lost,
    Membership,
    MembershipSettings,
    Rebalance,
    State,
)
from streamlib.runtime.ports import Assignment, JoinResult, MemberSubscription, Subscription
from streamlib.runtime.wakeup import Wakeup

P0, P1, P2 = (TopicPartition("in", partition) for partition in range(3))


class ScriptedGroup:
    """Answers joins and syncs with what the test puts in; a heartbeat succeeds unless told otherwise."""

    def __init__(self) -> None:
        self.joins: list[tuple[str, Subscription]] = []
        self.join_sender, self._joins = anyio.create_memory_object_stream[JoinResult | KafkaError](10)
        self.sync_sender, self._syncs = anyio.create_memory_object_stream[Assignment | KafkaError](10)
        self.heartbeat_error: KafkaError | None = None
        self.beats = 0
        self.left: list[str] = []

    async def join(self, member_id: str, subscription: Subscription) -> JoinResult:
        self.joins.append((member_id, subscription))
        answer = await self._joins.receive()
        if isinstance(answer, KafkaError):
            raise answer
        return answer

    async def sync(self, generation: int, member_id: str, assignments: Mapping[str, Assignment]) -> Assignment:
        answer = await self._syncs.receive()
        if isinstance(answer, KafkaError):
            raise answer
        return answer

    async def heartbeat(self, generation: int, member_id: str) -> None:
        self.beats += 1
        error, self.heartbeat_error = self.heartbeat_error, None
        if error is not None:
            raise error

    async def leave(self, member_id: str) -> None:
        self.left.append(member_id)

    async def fetch_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        raise NotImplementedError

    async def commit_offsets(self, group: GroupMetadata, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        for stream in (self.join_sender, self.sync_sender, self._joins, self._syncs):
            stream.close()


class HandClock:
    """Stands where it is put."""

    ms = 0.0

    def now_ms(self) -> int:
        return int(self.ms)

    def monotonic_ms(self) -> float:
        return self.ms


class Bench:
    """A membership that runs, and its coordinator."""

    def __init__(self, heartbeat_interval_ms: int = 1) -> None:
        self.group = ScriptedGroup()
        self.clock = HandClock()
        settings = MembershipSettings(group_id="app", topics=("in",), heartbeat_interval_ms=heartbeat_interval_ms)
        self.membership = Membership(
            self.group,
            self.clock,
            settings,
            self._assign,
            lambda leaving: b"leaving" if leaving else b"",
            on_change=Wakeup(),
        )

    async def _assign(self, members: Iterable[MemberSubscription]) -> Mapping[str, Assignment]:
        return {}

    async def admit(
        self, generation: int, *partitions: TopicPartition, member_id: str = "m", **instructions: Any
    ) -> None:
        """Let one join and sync through; the instructions are the leader's."""
        told = msgspec.json.encode(Instructions(**instructions)) if instructions else b""
        await self.group.join_sender.send(JoinResult(generation, member_id, leads=False))
        await self.group.sync_sender.send(Assignment(partitions, told))
        await self.until(
            lambda: self.membership.state is State.STABLE and self.membership.metadata.generation == generation
        )

    async def until(self, holds: object) -> None:
        assert callable(holds)
        with anyio.fail_after(10):
            while not holds():
                await anyio.lowlevel.checkpoint()

    def refuse_heartbeat(self, code: ErrorCode) -> None:
        self.group.heartbeat_error = KafkaError(code, "Heartbeat")


@asynccontextmanager
async def running(heartbeat_interval_ms: int = 1) -> AsyncIterator[Bench]:
    bench = Bench(heartbeat_interval_ms)
    async with anyio.create_task_group() as children:
        children.start_soon(bench.membership.run)
        yield bench
        children.cancel_scope.cancel()
    await bench.group.close()


async def test_an_assignment_is_held_from_the_moment_it_is_taken() -> None:
    async with running() as bench:
        await bench.admit(1, P0, P1)
        assert bench.membership.held == frozenset()
        assert bench.membership.take_event() == Assigned(frozenset({P0, P1}))
        assert bench.membership.held == {P0, P1}
        assert bench.membership.take_event() is None


async def test_nothing_can_be_taken_while_a_join_is_under_way() -> None:
    async with running() as bench:
        await bench.admit(1, P0)
        bench.refuse_heartbeat(ErrorCode.REBALANCE_IN_PROGRESS)
        await bench.until(lambda: len(bench.group.joins) == 2)
        assert bench.membership.take_event() is None
        assert bench.group.joins[1][1].owned == ()
        await bench.admit(2, P1)
        assert bench.membership.take_event() == Assigned(frozenset({P1}))


async def test_released_partitions_are_given_back_with_a_join_of_their_own() -> None:
    async with running() as bench:
        await bench.admit(1, P0, P1)
        bench.membership.take_event()
        bench.membership.release([P1])
        await bench.until(lambda: len(bench.group.joins) == 2)
        member_id, subscription = bench.group.joins[1]
        assert (member_id, subscription.owned, subscription.generation) == ("m", (P0,), 1)


async def test_a_new_generation_counts_as_soon_as_the_join_is_answered() -> None:
    async with running() as bench:
        await bench.admit(1, P0)
        bench.membership.take_event()
        bench.refuse_heartbeat(ErrorCode.REBALANCE_IN_PROGRESS)
        await bench.group.join_sender.send(JoinResult(2, "m", leads=False))
        await bench.until(lambda: bench.membership.metadata.generation == 2)
        assert bench.membership.state is State.SYNCING
        assert not bench.membership.settled


@pytest.mark.parametrize(
    "code",
    [
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.ILLEGAL_GENERATION,
        ErrorCode.FENCED_MEMBER_EPOCH,
        ErrorCode.GROUP_ID_NOT_FOUND,
    ],
)
async def test_after_a_loss_nobody_joins_or_commits_before_the_tasks_are_dropped(code: ErrorCode) -> None:
    async with running() as bench:
        await bench.admit(1, P0)
        bench.membership.take_event()
        bench.refuse_heartbeat(code)
        await bench.until(lambda: bench.membership.metadata.generation == -1)
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        assert len(bench.group.joins) == 1
        assert isinstance(bench.membership.take_event(), Lost)
        bench.membership.dropped_all()
        await bench.until(lambda: len(bench.group.joins) == 2)
        assert bench.group.joins[1][1].owned == ()
        expected = "" if code in (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.GROUP_ID_NOT_FOUND) else "m"
        assert bench.group.joins[1][0] == expected


@pytest.mark.parametrize("code", [ErrorCode.NETWORK_EXCEPTION, ErrorCode.COORDINATOR_NOT_AVAILABLE])
async def test_what_is_held_stays_so_while_nobody_answers(code: ErrorCode) -> None:
    async with running() as bench:
        await bench.admit(1, P0)
        bench.membership.take_event()
        for _ in range(3):
            bench.refuse_heartbeat(code)
            await bench.until(lambda: bench.group.heartbeat_error is None)
        assert bench.membership.settled
        assert bench.membership.held == {P0}
        assert len(bench.group.joins) == 1


async def test_a_generation_that_went_by_without_us_means_all_is_lost() -> None:
    async with running() as bench:
        await bench.admit(1, P0)
        bench.membership.take_event()
        bench.refuse_heartbeat(ErrorCode.REBALANCE_IN_PROGRESS)
        await bench.group.join_sender.send(JoinResult(3, "m", leads=False))
        await bench.until(lambda: bench.membership.metadata.generation == -1)
        assert isinstance(bench.membership.take_event(), Lost)


async def test_generations_that_are_this_members_own_may_jump() -> None:
    async with running() as bench:
        await bench.admit(1, P0)
        bench.membership.take_event()
        bench.refuse_heartbeat(ErrorCode.REBALANCE_IN_PROGRESS)
        await bench.group.join_sender.send(JoinResult(7, "m", leads=False, consecutive=False))
        await bench.group.sync_sender.send(Assignment((P0,)))
        await bench.until(lambda: bench.membership.settled and bench.membership.metadata.generation == 7)
        assert bench.membership.take_event() == Assigned(frozenset({P0}))


async def test_a_join_whose_sync_failed_does_not_count_as_a_missed_generation() -> None:
    async with running() as bench:
        await bench.admit(1, P0)
        bench.membership.take_event()
        bench.refuse_heartbeat(ErrorCode.REBALANCE_IN_PROGRESS)
        await bench.group.join_sender.send(JoinResult(2, "m", leads=False))
        await bench.group.sync_sender.send(KafkaError(ErrorCode.REBALANCE_IN_PROGRESS, "SyncGroup"))
        await bench.admit(3, P0)
        assert bench.membership.take_event() == Assigned(frozenset({P0}))


async def test_a_static_member_that_a_moved_coordinator_does_not_know_yet_joins_anew() -> None:
    """Its sync goes to a coordinator that only knows what it was before."""
    async with running() as bench:
        for _ in range(2):
            await bench.group.join_sender.send(JoinResult(1, "m", leads=False))
            await bench.group.sync_sender.send(KafkaError(ErrorCode.FENCED_INSTANCE_ID, "SyncGroup"))
        await bench.admit(2, P0)
        assert [member_id for member_id, _ in bench.group.joins] == ["", "", ""]
        assert bench.membership.take_event() == Assigned(frozenset({P0}))


async def test_a_static_member_that_its_coordinator_forgot_joins_anew_though_a_rebalance_came_between() -> None:
    """The sync was told to join again, and that came to another coordinator."""
    async with running() as bench:
        await bench.group.join_sender.send(JoinResult(1, "m", leads=False))
        await bench.group.sync_sender.send(KafkaError(ErrorCode.REBALANCE_IN_PROGRESS, "SyncGroup"))
        await bench.group.join_sender.send(KafkaError(ErrorCode.FENCED_INSTANCE_ID, "JoinGroup"))
        await bench.admit(2, P0)
        assert [member_id for member_id, _ in bench.group.joins] == ["", "m", ""]
        assert bench.membership.take_event() == Assigned(frozenset({P0}))


async def test_a_static_member_that_was_known_stops_when_its_join_is_fenced() -> None:
    bench = Bench()
    await bench.group.join_sender.send(JoinResult(1, "m", leads=False))
    await bench.group.sync_sender.send(Assignment((P0,), b""))
    bench.group.heartbeat_error = KafkaError(ErrorCode.REBALANCE_IN_PROGRESS, "Heartbeat")
    await bench.group.join_sender.send(KafkaError(ErrorCode.FENCED_INSTANCE_ID, "JoinGroup"))
    with pytest.raises(KafkaError, match="FENCED_INSTANCE_ID"), anyio.fail_after(10):
        await bench.membership.run()
    await bench.group.close()


async def test_a_static_member_that_is_refused_again_and_again_stops() -> None:
    bench = Bench()
    for _ in range(3):
        await bench.group.join_sender.send(JoinResult(1, "m", leads=False))
        await bench.group.sync_sender.send(KafkaError(ErrorCode.FENCED_INSTANCE_ID, "SyncGroup"))
    with pytest.raises(KafkaError, match="FENCED_INSTANCE_ID"), anyio.fail_after(10):
        await bench.membership.run()
    assert len(bench.group.joins) == 3
    await bench.group.close()


async def test_a_static_member_that_holds_something_stops_when_its_sync_is_fenced() -> None:
    bench = Bench()
    bench.membership.held = frozenset({P0})
    await bench.group.join_sender.send(JoinResult(0, "m", leads=False))
    await bench.group.sync_sender.send(KafkaError(ErrorCode.FENCED_INSTANCE_ID, "SyncGroup"))
    with pytest.raises(KafkaError, match="FENCED_INSTANCE_ID"), anyio.fail_after(10):
        await bench.membership.run()
    await bench.group.close()


async def test_a_fenced_static_member_stops() -> None:
    bench = Bench()
    await bench.group.join_sender.send(KafkaError(ErrorCode.FENCED_INSTANCE_ID, "JoinGroup"))
    with pytest.raises(KafkaError, match="FENCED_INSTANCE_ID"):
        await bench.membership.run()
    await bench.group.close()


async def test_leaving_says_so_to_the_coordinator() -> None:
    async with running() as bench:
        await bench.admit(1, P0)
        await bench.membership.leave()
        assert bench.group.left == ["m"]


async def test_a_member_that_hands_over_holds_its_tasks_until_it_has_let_go_of_them() -> None:
    async with running() as bench:
        await bench.admit(1, P0, P1)
        bench.membership.take_event()
        bench.membership.hand_over()
        await bench.until(lambda: len(bench.group.joins) == 2)
        _, subscription = bench.group.joins[1]
        assert (subscription.owned, subscription.user_data) == ((P0, P1), b"leaving")
        await bench.admit(2, join_again=True)
        assert isinstance(bench.membership.take_event(), Assigned)
        assert bench.membership.held == {P0, P1}
        assert len(bench.group.joins) == 2  # nothing to say before the tasks are closed
        bench.membership.release([P1])
        await bench.until(lambda: len(bench.group.joins) == 3)
        assert bench.group.joins[2][1].owned == (P0,)
        await bench.admit(3, join_again=True)
        bench.membership.take_event()
        bench.membership.release([P0])
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        assert len(bench.group.joins) == 3  # leaving says the rest


async def test_a_member_that_leaves_with_nothing_joins_no_more() -> None:
    """It is asked to join again for what it gives back; leaving tells the others as well, without a further round."""
    async with running() as bench:
        await bench.admit(1)
        bench.membership.take_event()
        bench.membership.hand_over()
        await bench.until(lambda: len(bench.group.joins) == 2)
        await bench.admit(2, join_again=True)
        bench.membership.take_event()
        beats = bench.group.beats
        await bench.until(lambda: bench.group.beats > beats)
        assert len(bench.group.joins) == 2


async def test_a_member_that_gave_everything_back_before_it_was_asked_to_joins_again() -> None:
    """A static member that was killed gets its old assignment again, with the instruction, and holds no more."""
    async with running() as bench:
        await bench.admit(1, P0, join_again=True)
        assert len(bench.group.joins) == 1
        bench.membership.take_event()
        await bench.until(lambda: len(bench.group.joins) == 2)
        assert bench.group.joins[1][1].owned == (P0,)


async def test_warm_ups_that_have_caught_up_are_claimed_with_a_join() -> None:
    async with running() as bench:
        await bench.admit(1, P0)
        bench.membership.take_event()
        bench.membership.claim_warmed_up()
        await bench.until(lambda: len(bench.group.joins) == 2)
        assert bench.group.joins[1][1].owned == (P0,)


async def test_while_tasks_are_on_their_way_it_looks_often_whether_they_were_let_go_of() -> None:
    """The usual heartbeat would come in an hour."""
    async with running(heartbeat_interval_ms=3_600_000) as bench:
        await bench.admit(1, P0, follow_up=True)
        bench.refuse_heartbeat(ErrorCode.REBALANCE_IN_PROGRESS)
        await bench.until(lambda: len(bench.group.joins) == 2)


@pytest.mark.parametrize("follow_up", [False, True])
async def test_quick_heartbeats_end_with_the_wait_for_tasks(follow_up: bool) -> None:
    """With the next assignment that expects no more, or after a while if that never comes."""
    async with running(heartbeat_interval_ms=3_600_000) as bench:
        await bench.admit(1, P0, follow_up=True)
        if not follow_up:
            bench.refuse_heartbeat(ErrorCode.REBALANCE_IN_PROGRESS)
            await bench.until(lambda: len(bench.group.joins) == 2)
            await bench.admit(2, P0)
        bench.clock.ms = FOLLOW_UP_MS * follow_up
        beats = bench.group.beats
        with anyio.move_on_after(FOLLOW_UP_BEAT_MS * 4 / 1000):
            await bench.until(lambda: bench.group.beats > beats + 1)  # one may have been under way
        assert bench.group.beats <= beats + 1


async def test_a_rebalance_is_told_by_who_came_who_went_and_what_moves(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with running() as bench:
        await bench.admit(1, P0, members=["a", "b"], tasks=24, moving=3)
        bench.refuse_heartbeat(ErrorCode.REBALANCE_IN_PROGRESS)
        await bench.until(lambda: len(bench.group.joins) == 2)
        bench.clock.ms = 180
        await bench.admit(2, P0, members=["a", "c", "d"], tasks=24)
        bench.refuse_heartbeat(ErrorCode.REBALANCE_IN_PROGRESS)
        await bench.until(lambda: len(bench.group.joins) == 3)
        await bench.admit(3, P0, members=["a", "c", "d"], tasks=24)
        assert [r.getMessage() for r in caplog.records if r.getMessage().startswith("rebalance")] == [
            "rebalance 1: a, b joined, 3 of 24 tasks move, 0.00 s",
            "rebalance 2: c, d joined; b left, 0 of 24 tasks move, 0.18 s",
            "rebalance 3: tasks change hands, 0 of 24 tasks move, 0.00 s",
        ]
        assert bench.membership.rebalances == 3
        assert bench.membership.last_rebalance == Rebalance(3, (), (), 0, 24, 0.0)


@pytest.mark.parametrize(("members", "alone"), [([], True), (["a"], True), (["a", "b"], False)])
async def test_a_member_is_alone_as_long_as_it_knows_of_nobody(members: list[str], alone: bool) -> None:
    async with running() as bench:
        await bench.admit(1, P0, members=members, tasks=1)
        assert bench.membership.alone == alone
