"""Punctuators of a whole worker over fakes: they are called when due, and what they do is committed exactly once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count

import anyio
import anyio.lowlevel
import pytest

from streamlib import ProcessorContext, PunctuationType, Record, Stores, StreamsBuilder
from streamlib.engine.plan import Plan, make_plan
from streamlib.errors import ErrorCode
from streamlib.runtime import worker as worker_module
from tests.runtime.fakes import IN0, T0, Bench, others_run, until


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for pause in ("FIRST_BACKOFF_MS", "LONGEST_BACKOFF_MS"):
        monkeypatch.setattr(worker_module, pause, 0)


class Ticker:
    """Numbers its punctuations, in its store and in its output; forgets records."""

    def __init__(self, hold: Callable[[], object]) -> None:
        self._hold = hold

    def init(self, context: ProcessorContext) -> None:
        self.context, self.counts = context, context.state_store("counts")
        context.schedule(timedelta(seconds=1), PunctuationType.WALL_CLOCK_TIME, self.tick)

    def tick(self, now_ms: int) -> None:
        number = (self.counts.get("ticks") or 0) + 1
        self.counts.put("ticks", number)
        self.context.forward(Record("ticks", number, now_ms))
        self._hold()

    def process(self, record: Record[str, str]) -> None:
        if record.key == "commit":
            self.context.commit()


def ticking(hold: Callable[[], object] = lambda: None) -> Plan:
    builder = StreamsBuilder()
    counts = Stores.key_value_store("counts", key=str, value=int)
    builder.stream("in", key=str, value=str).process(lambda: Ticker(hold), counts, value=int).to("out")
    return make_plan(builder.build(), "app", {"in": 2, "out": 2})


@asynccontextmanager
async def working(bench: Bench) -> AsyncIterator[None]:
    bench.group.assigned = (IN0,)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as children:

            async def run() -> None:
                await bench.worker.run(leave=True)

            children.start_soon(run)
            await until(lambda: bench.tasks.running)
            yield
            bench.worker.stop()


def advance(bench: Bench, ms: int) -> None:
    bench.clock.ms += ms
    bench.wakeup.set()


async def test_a_punctuator_s_work_is_committed_without_any_record() -> None:
    bench = Bench(plan=ticking())
    async with working(bench):
        advance(bench, 1_000)
        await until(lambda: len(bench.counts()) == 1)
        advance(bench, 1_000)
        await until(lambda: len(bench.counts()) == 2)
    assert bench.counts() == [("ticks", 1), ("ticks", 2)]
    assert bench.committed(IN0) == 0, "without an offset no zombie would be refused"
    assert bench.directory.rows(T0) == {b"ticks": (2).to_bytes(8, "big")}
    commits = [step for step in bench.journal if step.startswith(("offsets", "commit", "write"))]
    assert commits.count("write 0_0") == 2
    assert commits.count("offsets") == 2


async def test_nothing_is_committed_before_it_is_due() -> None:
    bench = Bench(plan=ticking())
    async with working(bench):
        advance(bench, 999)
        await others_run()
    assert bench.counts() == []
    assert bench.committed(IN0) == -1


@pytest.mark.parametrize("step", ["flush even", "offsets", "commit even", "ended even"])
async def test_after_a_failed_commit_no_tick_is_missing_or_there_twice(step: str) -> None:
    bench = Bench(plan=ticking())
    bench.script.fail(step, ErrorCode.NETWORK_EXCEPTION)
    async with working(bench):
        advance(bench, 1_000)
        await until(lambda: bench.script.done("init even") == 2 and bench.tasks.running)
        while len(bench.counts()) < 3:
            advance(bench, 1_000)
            await anyio.lowlevel.checkpoint()
    numbers = [number for _, number in bench.counts()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert bench.directory.rows(T0) == {b"ticks": len(numbers).to_bytes(8, "big")}


async def test_a_slow_punctuator_does_not_starve_records() -> None:
    """It takes longer than its interval, so that it is always due again."""
    ticks = count(1)
    bench: Bench

    def hold() -> None:
        if next(ticks) < 1_000:
            bench.clock.ms += 2_000

    bench = Bench(plan=ticking(hold))
    bench.broker.write(IN0, *"abcdefgh")
    async with working(bench):
        advance(bench, 1_000)
        await until(lambda: bench.committed(IN0) == 8)
    assert next(ticks) < 1_000


async def test_an_idle_worker_sleeps_until_the_next_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(plan=ticking())
    slept: list[float | None] = []
    wait = bench.wakeup.wait

    async def recorded(timeout_ms: float | None = None) -> None:
        slept.append(timeout_ms)
        await wait(timeout_ms)

    monkeypatch.setattr(bench.wakeup, "wait", recorded)
    async with working(bench):
        advance(bench, 930)
        await until(lambda: 70 in slept)


async def test_a_requested_commit_does_not_wait_for_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker is always busy, and the clock stands: no other reason makes a commit due."""
    bench = Bench(plan=ticking())
    bench.broker.write(IN0, "commit")
    monkeypatch.setattr(bench.worker, "_work_waits", lambda: True)
    async with working(bench):
        await until(lambda: bench.committed(IN0) == 1)
        bench.broker.write(IN0, "a")
        await until(lambda: bench.tasks.running[T0].positions()[IN0] == 2)
        assert bench.committed(IN0) == 1
