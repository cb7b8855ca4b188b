"""The membership's rules against a scripted coordinator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import anyio
import pytest

from streamlib.errors import ErrorCode, KafkaError
from streamlib.records import GroupMetadata, OffsetAndMetadata, TopicPartition
from streamlib.runtime.membership import Assigned, Lost, Membership, MembershipSettings, State
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


class StillClock:
    def now_ms(self) -> int:
        return 0

    def monotonic_ms(self) -> float:
        return 0.0


class Bench:
    """A membership that runs, and its coordinator."""

    def __init__(self) -> None:
        self.group = ScriptedGroup()
        settings = MembershipSettings(group_id="app", topics=("in",), heartbeat_interval_ms=1)
        self.membership = Membership(
            self.group, StillClock(), settings, self._assign, lambda leaving: b"", on_change=Wakeup()
        )

    async def _assign(self, members: Iterable[MemberSubscription]) -> Mapping[str, Assignment]:
        return {}

    async def admit(self, generation: int, *partitions: TopicPartition, member_id: str = "m") -> None:
        """Let one join and sync through."""
        await self.group.join_sender.send(JoinResult(generation, member_id, leads=False))
        await self.group.sync_sender.send(Assignment(partitions))
        await self.until(
            lambda: self.membership.state is State.STABLE and self.membership.metadata.generation == generation
        )

    async def until(self, holds: object) -> None:
        assert callable(holds)
        with anyio.fail_after(2):
            while not holds():
                await anyio.lowlevel.checkpoint()

    def refuse_heartbeat(self, code: ErrorCode) -> None:
        self.group.heartbeat_error = KafkaError(code, "Heartbeat")


@asynccontextmanager
async def running() -> AsyncIterator[Bench]:
    bench = Bench()
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


@pytest.mark.parametrize("code", [ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.ILLEGAL_GENERATION])
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
        expected = "" if code is ErrorCode.UNKNOWN_MEMBER_ID else "m"
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


async def test_a_join_whose_sync_failed_does_not_count_as_a_missed_generation() -> None:
    async with running() as bench:
        await bench.admit(1, P0)
        bench.membership.take_event()
        bench.refuse_heartbeat(ErrorCode.REBALANCE_IN_PROGRESS)
        await bench.group.join_sender.send(JoinResult(2, "m", leads=False))
        await bench.group.sync_sender.send(KafkaError(ErrorCode.REBALANCE_IN_PROGRESS, "SyncGroup"))
        await bench.admit(3, P0)
        assert bench.membership.take_event() == Assigned(frozenset({P0}))


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
