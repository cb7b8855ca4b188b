"""A whole worker over fakes with functions that are tried again: it goes on meanwhile, and what bounds the time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from streamlib import DeadLetter, Retry, StreamsBuilder
from streamlib.engine.inputs import decode_metadata
from streamlib.engine.plan import make_plan
from streamlib.engine.progress import Progress
from streamlib.errors import ErrorCode, ProcessingError
from streamlib.runtime import worker as worker_module
from tests.runtime.fakes import IN0, IN1, T1, Bench, others_run, until
from tests.runtime.test_calls import results
from tests.runtime.test_worker import assert_let_go, fails, working

LONG = timedelta(hours=1)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for pause in ("FIRST_BACKOFF_MS", "LONGEST_BACKOFF_MS", "CALLS_COMMIT_MS"):
        monkeypatch.setattr(worker_module, pause, 0)


class Broken:
    """Raises for some keys until it is mended."""

    def __init__(self, *keys: str) -> None:
        self.keys = set(keys)
        self.calls: Counter[str] = Counter()

    def __call__(self, key: str, value: str) -> str:
        self.calls[key] += 1
        if key in self.keys:
            raise ValueError(f"no {key}")
        return value

    async def awaited(self, key: str, value: str) -> str:
        return self(key, value)


def retrying(ask: Any, *delays: timedelta, then: Any = "fail") -> Bench:
    """Nothing of a record is out before the function has returned."""
    return _bench(lambda stream: stream, ask, Retry(delays, then=then, jitter=0))


def counting(ask: Any, *delays: timedelta, then: Any = "fail") -> Bench:
    """The count of a record is kept before the function is called."""
    counted: Callable[[Any], Any] = lambda s: s.group_by_key().count().to_stream().map_values(str, value=str)  # noqa: E731
    return _bench(counted, ask, Retry(delays, then=then, jitter=0))


def _bench(above: Callable[[Any], Any], ask: Any, retry: Retry) -> Bench:
    builder = StreamsBuilder()
    stream = above(builder.stream("in", key=str, value=str))
    stream.map_values(ask, with_key=True, value=str, name="ask", on_error=retry).to("out")
    return Bench(plan=make_plan(builder.build(), "app", {"in": 2, "out": 2, "dead": 2}))


@pytest.mark.parametrize("awaited", [False, True])
async def test_others_go_on_and_commits_go_past_what_waits(awaited: bool) -> None:
    broken = Broken("bad")
    bench = retrying(broken.awaited if awaited else broken, LONG)
    bench.broker.write(IN0, "a", "bad", "b", "bad")
    async with working(bench, IN0):
        await until(lambda: results(bench) == ["a", "b"])
        await until(lambda: bench.committed(IN0) == 1)
        assert decode_metadata(bench.broker.committed[IN0].metadata).progress == Progress(1, 4, (1, 3))
        assert bench.worker.status.calls_in_flight == 1
        assert bench.worker.status.commits_held == 0
    assert bench.committed(IN0) == 1
    assert broken.calls["bad"] == 1
    assert_let_go(bench)


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("make", [retrying, counting])
async def test_what_failed_goes_on_after_its_delay_and_those_behind_it(make: Any, awaited: bool) -> None:
    broken = Broken("bad")
    bench = make(broken.awaited if awaited else broken, timedelta(milliseconds=1), timedelta(milliseconds=20))
    bench.broker.write(IN0, "bad", "a", "bad")
    async with working(bench, IN0):
        await until(lambda: broken.calls["bad"] == 2)
        broken.keys.clear()
        await until(lambda: bench.committed(IN0) == 3)
    assert results(bench) == ["a", "bad", "bad"]
    assert broken.calls["bad"] == 4
    assert bench.worker.status.redone == 0


@pytest.mark.parametrize("awaited", [False, True])
async def test_when_the_last_try_has_failed_the_error_is_that_of_the_function(awaited: bool) -> None:
    broken = Broken("bad")
    bench = retrying(broken.awaited if awaited else broken, timedelta(milliseconds=1))
    bench.broker.write(IN0, "bad")
    error = await fails(bench, IN0)
    assert isinstance(error, ProcessingError)
    assert str(error) == "node ask: ValueError: no bad (key 'bad') [while processing topic in, partition 0, offset 0]"
    assert_let_go(bench)


@pytest.mark.parametrize("awaited", [False, True])
async def test_where_a_commit_waits_it_does_not_wait_longer_than_a_transaction_may_last(awaited: bool) -> None:
    """What would be too late is tried for the last time when half of the time is over."""
    broken = Broken("bad")
    bench = counting(broken.awaited if awaited else broken, LONG, LONG, LONG, then="skip")
    bench.worker._calls._longest_hold_ms = 100
    bench.broker.write(IN0, "bad", "a", "bad", "bad")
    started = asyncio.get_running_loop().time()
    async with working(bench, IN0):
        await until(lambda: bench.committed(IN0) == 4)
    assert asyncio.get_running_loop().time() - started < 5
    assert results(bench) == ["a"]
    assert broken.calls["bad"] <= 6


async def test_a_revoked_task_leaves_what_waits_to_the_next_owner() -> None:
    broken = Broken("bad")
    bench = retrying(broken, LONG)
    bench.broker.write(IN0, "bad", "a")
    async with working(bench, IN0):
        await until(lambda: results(bench) == ["a"])
        bench.group.rebalance(IN1)
        await until(lambda: bench.tasks.running.keys() == {T1})
        assert bench.worker.status.calls_in_flight == 0
        broken.keys.clear()
        bench.group.rebalance(IN0, IN1)
        await until(lambda: bench.committed(IN0) == 2)
    assert results(bench) == ["a", "bad"]


async def test_a_redone_transaction_tries_anew() -> None:
    broken = Broken("bad")
    bench = retrying(broken, LONG)
    bench.broker.write(IN0, "bad", "a")
    bench.script.fail("commit even", ErrorCode.NETWORK_EXCEPTION)
    async with working(bench, IN0):
        await until(lambda: broken.calls["bad"] == 2)
        await until(lambda: results(bench) == ["a"])
        assert bench.worker.status.calls_in_flight == 1
    assert_let_go(bench)


async def test_a_stop_does_not_wait_for_what_waits() -> None:
    broken = Broken("bad")
    bench = retrying(broken, LONG, then=DeadLetter("dead"))
    bench.broker.write(IN0, "bad")
    async with working(bench, IN0):
        await until(lambda: bench.worker.status.calls_in_flight == 1)
        bench.worker.stop()
        await others_run()
    assert bench.committed(IN0) <= 0
    assert_let_go(bench)
