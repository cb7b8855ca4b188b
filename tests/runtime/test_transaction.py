"""What is committed together, in which order, and under which generation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from streamlib.engine.task import Task
from streamlib.errors import ErrorCode, KafkaError
from streamlib.runtime.transaction import seal
from tests.runtime.fakes import IN0, LOG0, T0, Bench, others_run, until


@asynccontextmanager
async def joined(bench: Bench) -> AsyncIterator[None]:
    """A member in generation 1, producers that are initialised."""
    await bench.committer.init()
    async with anyio.create_task_group() as children:
        children.start_soon(bench.membership.run)
        await until(lambda: bench.membership.settled)
        bench.membership.take_event()
        bench.journal.clear()
        yield
        children.cancel_scope.cancel()


async def started(bench: Bench) -> Task:
    """Task 0_0, running."""
    tasks = bench.tasks.hold([T0])
    await bench.tasks.open(tasks)
    assert bench.tasks.start_restored() == tasks
    bench.journal.clear()
    return tasks[0]


def process(bench: Bench, task: Task, *keys: str) -> None:
    """Let the task count these keys and hand its outputs over."""
    bench.broker.write(IN0, *keys)
    for batch in bench.fetcher.take(1 << 20):
        task.enqueue(batch)
    assert task.process(100) == len(keys)
    bench.committer.send(task.take_outputs())


async def test_a_commit_goes_through_its_steps_in_order() -> None:
    bench = Bench()
    async with joined(bench):
        task = await started(bench)
        process(bench, task, "a", "b", "a")
        await bench.committer.commit(seal([task]))
        assert bench.journal == [
            "begin even", "flush even", "offsets even in 1", "offsets", "commit even", "ended even", "write 0_0",
        ]  # fmt: skip
        assert bench.counts() == [("a", 1), ("b", 1), ("a", 2)]
        assert bench.committed(IN0) == 3


async def test_the_stores_get_exactly_the_overlay_and_the_position_after_it() -> None:
    bench = Bench()
    async with joined(bench):
        task = await started(bench)
        process(bench, task, "a", "b", "a")
        assert bench.directory.rows(T0) == {}
        await bench.committer.commit(seal([task]))
        assert len(bench.broker.values(LOG0)) == 2  # two updates of one key are one record
        assert bench.directory.rows(T0).keys() == {b"a", b"b"}
        assert bench.directory.disks["0_0"].positions() == {"counts": 2}
        assert task.uncommitted_bytes == 0


async def test_the_two_producers_take_turns_and_never_overlap() -> None:
    bench = Bench()
    async with joined(bench):
        task = await started(bench)
        for _ in range(3):
            process(bench, task, "a")
            await bench.committer.commit(seal([task]))
    turns = [step for step in bench.journal if step.startswith(("begin", "ended"))]
    assert turns == ["begin even", "ended even", "begin odd", "ended odd", "begin even", "ended even"]


@pytest.mark.parametrize("step", ["flush even", "offsets", "commit even"])
async def test_a_commit_that_fails_leaves_the_stores_alone(step: str) -> None:
    bench = Bench()
    async with joined(bench):
        task = await started(bench)
        process(bench, task, "a")
        bench.script.fail(step, ErrorCode.NETWORK_EXCEPTION)
        with pytest.raises(KafkaError, match="NETWORK_EXCEPTION"):
            await bench.committer.commit(seal([task]))
        assert bench.committer.open, "there is something to abort"
        await bench.committer.abort()
        assert "write 0_0" not in bench.journal
        assert "begin odd" not in bench.journal
        assert bench.directory.rows(T0) == {}
        assert bench.counts() == []
        assert not bench.broker.open


async def test_a_cancelled_commit_leaves_the_stores_alone() -> None:
    bench = Bench()
    async with joined(bench):
        task = await started(bench)
        process(bench, task, "a")
        bench.script.hold("commit even")
        async with anyio.create_task_group() as children:
            children.start_soon(bench.committer.commit, seal([task]))
            await until(lambda: bench.script.done("commit even"))
            children.cancel_scope.cancel()
        assert bench.committer.open
        assert "write 0_0" not in bench.journal


async def test_an_abort_that_cannot_be_told_is_left_to_init() -> None:
    bench = Bench()
    async with joined(bench):
        task = await started(bench)
        process(bench, task, "a")
        bench.script.fail("abort even", ErrorCode.NETWORK_EXCEPTION)
        await bench.committer.abort()
        await bench.committer.init()
        assert bench.journal[-2:] == ["init even", "init odd"]
        assert not bench.broker.open


async def test_a_moved_generation_is_not_a_refusal() -> None:
    """Our JoinGroup is answered at the broker, not yet here: the offsets wait for it and go under the new one."""
    bench = Bench()
    async with joined(bench):
        task = await started(bench)
        process(bench, task, "a")
        answered = bench.script.hold("join answered")
        bench.group.rebalance()
        await until(lambda: bench.script.done("join answered"))
        async with anyio.create_task_group() as children:
            children.start_soon(bench.committer.commit, seal([task]))
            await until(lambda: bench.script.done("offsets even in 1"))
            await others_run()
            assert "commit even" not in bench.journal
            answered.set()
        assert "offsets even in 2" in bench.journal
        assert bench.committed(IN0) == 1


async def test_a_refusal_under_a_generation_that_is_ours_is_one() -> None:
    bench = Bench()
    async with joined(bench):
        task = await started(bench)
        process(bench, task, "a")
        bench.group.generation = 7  # went on without us
        with pytest.raises(KafkaError, match="ILLEGAL_GENERATION"):
            await bench.committer.commit(seal([task]))
        assert bench.journal.count("offsets") == 1
        assert "commit even" not in bench.journal


async def test_a_join_that_shows_that_generations_went_by_ends_the_wait_with_a_refusal() -> None:
    bench = Bench()
    bench.group.assigned = (IN0,)
    async with joined(bench):
        task = await started(bench)
        process(bench, task, "a")
        answered = bench.script.hold("join answered")
        bench.group.rebalance()
        await until(lambda: bench.script.done("join answered"))
        async with anyio.create_task_group() as children:
            children.start_soon(_refused, bench, task, "ILLEGAL_GENERATION")
            await until(lambda: bench.script.done("offsets even in 1"))
            bench.group.generation = 7
            answered.set()
        assert "commit even" not in bench.journal


async def _refused(bench: Bench, task: Task, why: str) -> None:
    with anyio.fail_after(10), pytest.raises(KafkaError, match=why):
        await bench.committer.commit(seal([task]))


@pytest.mark.parametrize("guarantee", ["exactly_once_v2", "at_least_once"])
async def test_nothing_is_committed_without_a_live_generation(guarantee: str) -> None:
    bench = Bench(guarantee=guarantee)  # type: ignore[arg-type]
    async with joined(bench):
        task = await started(bench)
        process(bench, task, "a")
        bench.membership.lose("a test")
        with pytest.raises(KafkaError, match="no live generation"):
            await bench.committer.commit(seal([task]))
        assert bench.committed(IN0) == -1
        assert not {"commit even", "commit_offsets"} & set(bench.journal)


async def test_at_least_once_commits_offsets_after_everything_else() -> None:
    bench = Bench(guarantee="at_least_once")
    async with joined(bench):
        task = await started(bench)
        process(bench, task, "a")
        await bench.committer.commit(seal([task]))
        assert bench.journal == ["flush plain", "write 0_0", "commit_offsets"]
        assert bench.committed(IN0) == 1


async def test_at_least_once_commits_no_offsets_of_outputs_that_failed() -> None:
    bench = Bench(guarantee="at_least_once")
    async with joined(bench):
        task = await started(bench)
        process(bench, task, "a")
        bench.script.fail("flush plain", ErrorCode.REQUEST_TIMED_OUT)
        with pytest.raises(KafkaError):
            await bench.committer.commit(seal([task]))
        assert bench.committed(IN0) == -1
        assert bench.directory.rows(T0) == {}


async def test_at_least_once_waits_for_the_sync_that_the_coordinator_waits_for() -> None:
    """Between join and sync a coordinator refuses plain commits of its own members (`validateOffsetCommit`)."""
    bench = Bench(guarantee="at_least_once")
    async with joined(bench):
        task = await started(bench)
        process(bench, task, "a")
        synced = bench.script.hold("sync")
        bench.group.rebalance(IN0)
        await until(lambda: bench.membership.metadata.generation == 2)
        bench.script.fail("commit_offsets", ErrorCode.REBALANCE_IN_PROGRESS)
        async with anyio.create_task_group() as children:
            children.start_soon(bench.committer.commit, seal([task]))
            await until(lambda: bench.script.done("commit_offsets"))
            await others_run()
            synced.set()
        assert bench.script.done("commit_offsets") == 2
        assert bench.committed(IN0) == 1


async def test_at_least_once_takes_a_refusal_outside_of_a_rebalance_at_its_word() -> None:
    bench = Bench(guarantee="at_least_once")
    async with joined(bench):
        task = await started(bench)
        process(bench, task, "a")
        bench.script.fail("commit_offsets", ErrorCode.REBALANCE_IN_PROGRESS)
        with pytest.raises(KafkaError, match="REBALANCE_IN_PROGRESS"):
            await bench.committer.commit(seal([task]))


async def test_a_refusal_that_finds_the_membership_lost_waits_for_nothing() -> None:
    bench = Bench(guarantee="at_least_once")
    async with joined(bench):
        task = await started(bench)
        process(bench, task, "a")
        bench.script.hold("sync")
        bench.group.rebalance(IN0)
        await until(lambda: bench.script.done("sync"))
        answer = bench.script.hold("commit_offsets")
        bench.script.fail("commit_offsets", ErrorCode.REBALANCE_IN_PROGRESS)
        async with anyio.create_task_group() as children:
            children.start_soon(_refused, bench, task, "REBALANCE_IN_PROGRESS")
            await until(lambda: bench.script.done("commit_offsets"))
            bench.membership.lose("a test")
            answer.set()
