"""A whole worker over fakes whose functions are awaited: what is committed, and what becomes of calls under way."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from streamlib import StreamsBuilder
from streamlib.engine.inputs import decode_metadata
from streamlib.engine.plan import Plan, make_plan
from streamlib.engine.progress import Progress
from streamlib.errors import ErrorCode, ProcessingError
from streamlib.records import TopicPartition
from streamlib.runtime import calls as calls_module
from streamlib.runtime import worker as worker_module
from tests.runtime.fakes import IN0, IN1, T0, T1, Bench, others_run, until
from tests.runtime.test_worker import assert_let_go, fails, working

OUT = [TopicPartition("out", number) for number in (0, 1)]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for pause in ("FIRST_BACKOFF_MS", "LONGEST_BACKOFF_MS", "CALLS_COMMIT_MS"):
        monkeypatch.setattr(worker_module, pause, 0)


class Service:
    """Answers a call when the test says so."""

    def __init__(self) -> None:
        self.asked: dict[str, asyncio.Event] = {}
        self.calls: list[str] = []
        self.cancelled: list[str] = []
        self.stubborn = False  # a cancelled call goes on

    async def ask(self, key: str, value: str) -> str:
        self.calls.append(key)
        event = self.asked[key] = asyncio.Event()
        try:
            await event.wait()
        except asyncio.CancelledError:
            self.cancelled.append(key)
            if not self.stubborn:
                raise
            await event.wait()
        return value

    async def answer(self, *keys: str) -> None:
        for key in keys:
            await until(partial(self.asked.__contains__, key))
            self.asked.pop(key).set()


def plan_of(make: Callable[[Any], Any]) -> Plan:
    builder = StreamsBuilder()
    make(builder.stream("in", key=str, value=str)).to("out")
    return make_plan(builder.build(), "app", {"in": 2, "out": 2})


def enriching(service: Service, **options: Any) -> Bench:
    """Nothing of a record is out before its call is back."""

    def make(stream: Any) -> Any:
        return stream.map_values(service.ask, with_key=True, name="ask", **options)

    return Bench(plan=plan_of(make))


def counting(service: Service, **options: Any) -> Bench:
    """The count of a record is written before it is called for."""

    def make(stream: Any) -> Any:
        counts = stream.group_by_key().count(store="counts").to_stream().map_values(str, value=str)
        return counts.map_values(service.ask, with_key=True, name="ask", **options)

    return Bench(plan=plan_of(make))


def results(bench: Bench) -> list[str]:
    return sorted((key or b"").decode() for partition in OUT for key, _ in bench.broker.values(partition))


async def test_a_commit_takes_what_is_finished_and_says_what_is_not() -> None:
    service = Service()
    bench = enriching(service)
    bench.broker.write(IN0, "a", "b", "c", "d")
    async with working(bench, IN0):
        await service.answer("b", "d")
        await until(lambda: results(bench) == ["b", "d"])
        at = bench.broker.committed[IN0]
        assert at.offset == 0
        assert decode_metadata(at.metadata).progress == Progress(0, 4, (0, 2))
        assert bench.worker.status.calls_in_flight == 2
        await service.answer("a", "c")
        await until(lambda: bench.committed(IN0) == 4)
        assert bench.worker.status.commits_held == 0
    assert results(bench) == ["a", "b", "c", "d"]
    assert service.calls == ["a", "b", "c", "d"]


async def test_a_stop_commits_what_is_finished_at_once_and_cancels_the_rest() -> None:
    service = Service()
    bench = enriching(service)
    bench.broker.write(IN0, "a", "b", "c")
    async with working(bench, IN0):
        await service.answer("b")
        await until(lambda: results(bench) == ["b"])
    assert service.cancelled == ["a", "c"]
    assert_let_go(bench)
    assert bench.committed(IN0) == 0


async def test_the_next_owner_calls_only_for_what_was_not_finished() -> None:
    service = Service()
    bench = enriching(service)
    bench.broker.write(IN0, "a", "b", "c")
    async with working(bench, IN0):
        await service.answer("b")
        await until(lambda: results(bench) == ["b"])
        bench.group.rebalance(IN1)
        await until(lambda: bench.tasks.running.keys() == {T1})
        assert service.cancelled == ["a", "c"]
        bench.group.rebalance(IN0, IN1)
        await until(lambda: service.calls[3:] == ["a", "c"])
        await service.answer("a", "c")
        await until(lambda: bench.committed(IN0) == 3)
    assert results(bench) == ["a", "b", "c"]


async def test_a_revoked_task_leaves_the_calls_of_others_alone() -> None:
    service = Service()
    bench = enriching(service)
    bench.broker.write(IN0, "a")
    bench.broker.write(IN1, "b")
    async with working(bench, IN0, IN1):
        await until(lambda: service.asked.keys() == {"a", "b"})
        bench.group.rebalance(IN1)
        await until(lambda: service.cancelled == ["a"])
        await service.answer("b")
        await until(lambda: results(bench) == ["b"])


async def test_a_redone_transaction_calls_again() -> None:
    service = Service()
    bench = enriching(service)
    bench.broker.write(IN0, "a", "b")
    bench.script.fail("commit even", ErrorCode.NETWORK_EXCEPTION)
    async with working(bench, IN0):
        await service.answer("a")
        await until(lambda: service.cancelled == ["b"])
        await service.answer("a", "b")
        await until(lambda: bench.committed(IN0) == 2)
    assert service.calls == ["a", "b", "a", "b"]
    assert results(bench) == ["a", "b"]


async def test_a_lost_membership_cancels_all_calls() -> None:
    service = Service()
    bench = enriching(service)
    bench.broker.write(IN0, "a")
    async with working(bench, IN0):
        await until(lambda: service.asked.keys() == {"a"})
        bench.script.fail("heartbeat", ErrorCode.UNKNOWN_MEMBER_ID)
        await until(lambda: service.calls == ["a", "a"])
        assert service.cancelled == ["a"]
        await service.answer("a")
        await until(lambda: bench.committed(IN0) == 1)
    assert results(bench) == ["a"]


async def test_an_answer_that_is_waiting_when_its_task_goes_is_dropped() -> None:
    service = Service()
    bench = enriching(service)
    bench.broker.write(IN0, "a", "b")
    gate = bench.script.hold("commit even")
    async with working(bench, IN0):
        await service.answer("a")
        await until(lambda: "commit even" in bench.journal)
        bench.group.rebalance()  # while the commit is under way
        await service.answer("b")
        await until(lambda: bench.membership.has_event and bench.worker._calls.answered)
        gate.set()
        await until(lambda: not bench.tasks.ids)
    assert results(bench) == ["a"]
    assert bench.committed(IN0) == 1


async def test_a_commit_waits_for_calls_whose_records_have_led_to_something() -> None:
    service = Service()
    bench = counting(service)
    bench.broker.write(IN0, "a", "b")
    async with working(bench, IN0):
        await service.answer("a")
        await others_run()
        bench.clock.ms += 1_000  # a commit is due
        bench.wakeup.set()
        await until(lambda: bench.worker.status.commits_held == 1)
        bench.broker.write(IN0, "c")
        await others_run()
        assert bench.committed(IN0) == -1
        assert service.calls == ["a", "b"]  # nothing new while it waits
        await service.answer("b")
        await until(lambda: bench.committed(IN0) == 2)
        await service.answer("c")
        await until(lambda: bench.committed(IN0) == 3)
    assert results(bench) == ["a", "b", "c"]


async def test_a_revoked_task_waits_for_such_calls() -> None:
    service = Service()
    bench = counting(service)
    bench.broker.write(IN0, "a")
    async with working(bench, IN0):
        await until(lambda: service.asked)
        bench.group.rebalance(IN1)
        await until(lambda: bench.worker.status.commits_held == 1)
        await others_run()
        assert bench.tasks.running.keys() == {T0}
        await service.answer("a")
        await until(lambda: bench.tasks.running.keys() == {T1})
    assert service.cancelled == []
    assert bench.committed(IN0) == 1
    assert results(bench) == ["a"]


async def test_a_stop_waits_for_such_calls() -> None:
    service = Service()
    bench = counting(service)
    bench.broker.write(IN0, "a")
    async with working(bench, IN0):
        await until(lambda: service.asked)
        bench.worker.stop()
        await others_run()
        await service.answer("a")
    assert bench.committed(IN0) == 1
    assert results(bench) == ["a"]


async def test_a_call_that_a_commit_waits_for_cannot_last_longer_than_the_transaction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = Service()
    bench = counting(service)
    bench.worker._calls._longest_hold_ms = 20
    bench.broker.write(IN0, "a")
    error = await fails(bench, IN0)
    assert isinstance(error, ProcessingError)
    assert str(error) == (
        "node ask: TimeoutError: no answer within 0.02 s, half of transaction_timeout_ms, and the transaction has to "
        "wait for it (key 'a') [while processing topic in, partition 0, offset 0]"
    )
    assert bench.committed(IN0) == -1
    assert_let_go(bench)


async def test_a_call_that_takes_too_long_has_failed() -> None:
    service = Service()
    bench = enriching(service, timeout=timedelta(milliseconds=20))
    bench.broker.write(IN0, "a")
    error = await fails(bench, IN0)
    assert "node ask: TimeoutError: no answer within 0.02 s (key 'a')" in str(error)
    assert service.cancelled == ["a"]
    assert_let_go(bench)


async def test_a_process_that_was_stopped_does_not_take_its_calls_for_failed() -> None:
    async def slow(value: str) -> str:
        asyncio.get_running_loop().call_soon(time.sleep, 0.3)  # everything stands still, longer than the timeout
        await asyncio.sleep(0.01)
        return value

    bench = Bench(plan=plan_of(lambda s: s.map_values(slow, timeout=timedelta(milliseconds=200))))
    bench.broker.write(IN0, "a")
    async with working(bench, IN0):
        await until(lambda: bench.committed(IN0) == 1)
    assert results(bench) == ["a"]


async def test_a_function_that_cannot_be_cancelled_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(calls_module, "CANCEL_PATIENCE_S", 0.01)
    service = Service()
    service.stubborn = True
    bench = enriching(service)
    bench.broker.write(IN0, "a")
    with caplog.at_level(logging.WARNING):
        async with working(bench, IN0):
            await until(lambda: service.asked)
    assert "1 calls were cancelled and go on all the same" in caplog.text
    assert_let_go(bench)
    await service.answer("a")
    await others_run()
    assert results(bench) == []


async def test_a_function_that_is_cancelled_by_itself_has_failed() -> None:
    async def gives_up(value: str) -> str:
        raise asyncio.CancelledError

    bench = Bench(plan=plan_of(lambda s: s.map_values(gives_up, name="ask")))
    bench.broker.write(IN0, "a")
    error = await fails(bench, IN0)
    assert "node ask: RuntimeError: the function was cancelled" in str(error)


async def test_a_call_that_fails_ends_the_worker_and_its_calls() -> None:
    service = Service()

    async def picky(key: str, value: str) -> str:
        if key == "bad":
            raise ValueError("no")
        return await service.ask(key, value)

    bench = Bench(plan=plan_of(lambda s: s.map_values(picky, with_key=True, name="ask")))
    bench.broker.write(IN0, "a", "bad", "b")
    error = await fails(bench, IN0)
    assert str(error) == "node ask: ValueError: no (key 'bad') [while processing topic in, partition 0, offset 1]"
    assert service.cancelled == ["a", "b"]
    assert bench.committed(IN0) == -1
    assert_let_go(bench)


async def test_at_least_once_commits_the_same_offsets() -> None:
    service = Service()
    plan = plan_of(lambda s: s.map_values(service.ask, with_key=True))
    bench = Bench(plan=plan, guarantee="at_least_once")
    bench.broker.write(IN0, "a", "b")
    async with working(bench, IN0):
        await service.answer("b")
        await until(lambda: results(bench) == ["b"])
        await until(lambda: bench.committed(IN0) == 0)
        await service.answer("a")
        await until(lambda: bench.committed(IN0) == 2)
    assert results(bench) == ["a", "b"]
