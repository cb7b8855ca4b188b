"""What a worker with more to do does while a commit is under way: it goes on, and keeps what comes apart."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from streamlib.errors import ErrorCode, ProcessingError
from tests.runtime.fakes import IN0, IN1, T0, T1, Bench, others_run, until
from tests.runtime.test_worker import (
    assert_each_once,
    assert_let_go,
    fails,
    in_order,
    no_pauses,
    raise_on_poison,
    working,
)

__all__ = ["no_pauses"]  # a fixture for all of them

A_WHILE_MS = 150
"""Longer than a slice and than the commit interval: with records left, a commit is due after each."""


def bench_with(function: Callable[[str], str] = str, *, takes_ms: float = A_WHILE_MS) -> Bench:
    """One whose function takes time."""

    def slow(value: str) -> str:
        bench.clock.ms += takes_ms
        return function(value)

    bench = Bench(slow)
    return bench


async def test_records_are_processed_during_a_commit_and_leave_after_it() -> None:
    bench = bench_with()
    gate = bench.script.hold("commit even")
    bench.broker.write(IN0, "a", "a", "b")
    async with working(bench, IN0):
        await until(lambda: bench.script.done("commit even"))
        await until(lambda: bench.worker.status.records_in == 3)
        await others_run()
        assert bench.tasks.running[T0].dirty
        assert "begin odd" not in bench.journal
        assert bench.directory.rows(T0) == {}
        gate.set()
        await until(lambda: bench.committed(IN0) == 3)
    assert in_order(bench.journal, "ended even", "write 0_0", "begin odd", "ended odd", "write 0_0")
    assert bench.counts() == [("a", 1), ("a", 2), ("b", 1)]
    assert_each_once(bench, "a", "a", "b")


async def test_with_nothing_left_to_do_a_commit_is_waited_for() -> None:
    """So that what comes meanwhile is taken all at once."""
    bench = bench_with()
    gate = bench.script.hold("commit even")
    bench.broker.write(IN0, "a")
    async with working(bench, IN0):
        await until(lambda: bench.script.done("commit even"))
        bench.broker.write(IN0, "b")
        await others_run()
        assert bench.worker.status.records_in == 1
        gate.set()
        await until(lambda: bench.committed(IN0) == 2)
    assert_each_once(bench, "a", "b")


@pytest.mark.parametrize("step", ["flush even", "offsets", "commit even", "ended even"])
async def test_what_was_processed_during_a_commit_that_fails_is_redone_with_it(step: str) -> None:
    bench = bench_with()
    gate = bench.script.hold(step)
    bench.script.fail(step, ErrorCode.NETWORK_EXCEPTION)
    bench.broker.write(IN0, "a", "a", "b")
    async with working(bench, IN0):
        await until(lambda: bench.script.done(step))
        await until(lambda: bench.worker.status.records_in == 3)
        gate.set()
        await until(lambda: bench.committed(IN0) == 3)
    assert bench.worker.status.redone == 1
    assert_each_once(bench, "a", "a", "b")


async def test_a_task_revoked_during_a_commit_goes_with_what_came_meanwhile() -> None:
    bench = bench_with()
    gate = bench.script.hold("commit even")
    bench.broker.write(IN1, "b", "b")
    async with working(bench, IN0, IN1):
        await until(lambda: bench.script.done("commit even"))
        await until(lambda: bench.worker.status.records_in == 2)
        bench.group.rebalance(IN0)
        await until(lambda: bench.worker._target == {T0})
        await others_run()
        assert T1 in bench.tasks.ids, "it is not given back before all of it is committed"
        gate.set()
        await until(lambda: bench.tasks.ids == {T0})
        assert bench.committed(IN1) == 2
    assert in_order(bench.journal, "ended even", "ended odd", "close 0_1", "join")
    assert_each_once(bench, "b", "b")


async def test_a_membership_lost_during_a_commit_drops_what_came_meanwhile() -> None:
    bench = bench_with()
    gate = bench.script.hold("commit even")
    bench.broker.write(IN0, "a", "a")
    async with working(bench, IN0):
        await until(lambda: bench.script.done("commit even"))
        await until(lambda: bench.worker.status.records_in == 2)
        bench.script.fail("heartbeat", ErrorCode.UNKNOWN_MEMBER_ID)
        await until(lambda: bench.membership.metadata.generation == -1)
        await others_run()
        assert "close 0_0" not in bench.journal, "its outcome decides what is on disk"
        gate.set()
        await until(lambda: bench.committed(IN0) == 2)
    assert in_order(bench.journal, "ended even", "write 0_0", "close 0_0", "join", "ended odd")
    assert_each_once(bench, "a", "a")


async def test_a_function_that_fails_during_a_commit_does_not_take_that_down() -> None:
    bench = bench_with(raise_on_poison)
    gate = bench.script.hold("commit even")
    bench.broker.write(IN0, "a", "p")
    bench.broker.logs[IN0][1] = bench.broker.logs[IN0][1]._replace(record=(b"p", b"poison", 0, ()))

    async def end_the_commit() -> None:
        await until(lambda: bench.script.done("commit even"))
        await others_run()
        gate.set()

    async with anyio.create_task_group() as others:
        others.start_soon(end_the_commit)
        assert isinstance(await fails(bench, IN0), ProcessingError)
    assert bench.counts() == [("a", 1)]
    assert bench.committed(IN0) == 1
    assert bench.directory.rows(T0).keys() == {b"a"}
    assert_let_go(bench)


async def test_during_a_commit_no_more_is_processed_than_fits_into_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_with()
    async with working(bench, IN0):
        await until(lambda: bench.tasks.running)
        monkeypatch.setattr(type(bench.tasks.running[T0]), "uncommitted_bytes", property(lambda task: 1 << 40))
        gate = bench.script.hold("commit even")
        bench.broker.write(IN0, "a", "a", "b")
        await until(lambda: bench.script.done("commit even"))
        await others_run()
        assert bench.worker.status.records_in == 2, "the one that filled it, and no other"
        gate.set()
        await until(lambda: bench.committed(IN0) == 3)
    assert_each_once(bench, "a", "a", "b")


async def test_after_a_slow_function_the_commit_is_waited_for() -> None:
    """The next slow one would keep its transaction open."""
    bench = bench_with(takes_ms=1_000)
    gate = bench.script.hold("commit even")
    bench.broker.write(IN0, "a", "b")
    async with working(bench, IN0):
        await until(lambda: bench.script.done("commit even"))
        await others_run()
        assert bench.worker.status.records_in == 1
        gate.set()
        await until(lambda: bench.committed(IN0) == 2)
    assert_each_once(bench, "a", "b")
