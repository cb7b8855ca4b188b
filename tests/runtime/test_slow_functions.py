"""The watch over functions that hold the worker's loop: when it beats, warns, gives up, and what it says is at work.

The stand-in here has no thread: the function that holds the loop lets it look.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from datetime import timedelta

import anyio
import pytest

from streamlib import ProcessorContext, PunctuationType, Record, StreamsBuilder
from streamlib.engine.inputs import ConsumedRecord
from streamlib.engine.plan import make_plan
from streamlib.errors import TaskMigratedError
from streamlib.records import TopicPartition
from streamlib.runtime import worker as worker_module
from streamlib.runtime.membership import State
from streamlib.runtime.ports import Beat, Leave, LoopWatch
from streamlib.runtime.slow_functions import SlowFunctions
from streamlib.topology.topology import Topology
from tests.runtime.fakes import IN0, IN1, Bench, until
from tests.runtime.test_worker import assert_each_once, assert_let_go, fails, in_order, working

Steps = list[Beat | Leave]
LOOK_MS = 250  # at the default heartbeat interval
LIMIT_MS = 300_000


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for pause in ("FIRST_BACKOFF_MS", "LONGEST_BACKOFF_MS", "LOCK_RETRY_MS", "SLICE_MS"):
        monkeypatch.setattr(worker_module, pause, 0)


class Bystander:
    """A stand-in that looks when it is told that time has passed."""

    def __init__(self) -> None:
        self.watch: SlowFunctions | None = None
        self.steps: Steps = []
        self.closed = 0

    def start(self, watch: LoopWatch) -> None:
        assert isinstance(watch, SlowFunctions)
        self.watch = watch

    async def close(self) -> None:
        self.closed += 1

    def time_passes(self, ms: float) -> None:
        assert self.watch is not None
        assert self.watch.look_every_ms == LOOK_MS
        self.watch._turns += 1  # the loop has turned until now
        self.watch.look(0)
        for _ in range(round(ms / LOOK_MS)):
            if step := self.watch.look(LOOK_MS):
                self.steps.append(step)


def holding(ms: float, *values: str, times: int = 1_000) -> tuple[Bench, Bystander]:
    """A worker whose function holds it for so long, the first times it sees one of the values."""
    bystander = Bystander()
    left = [times]

    def hold(value: str) -> str:
        if value in values and left[0]:
            left[0] -= 1
            bystander.time_passes(ms)
        return value

    return Bench(hold, stand_in=bystander), bystander


def write(bench: Bench, partition: TopicPartition, *keys: str) -> None:
    bench.broker.write(partition, *keys)


async def test_a_loop_that_turns_needs_nobody() -> None:
    bench, bystander = holding(2 * LOOK_MS, "x")
    write(bench, IN0, "a", "b")
    async with working(bench, IN0):
        await until(lambda: bench.committed(IN0) == 2)
    assert bystander.steps == []
    assert bystander.closed == 1


async def test_it_beats_at_the_interval_as_long_as_a_function_holds_the_loop() -> None:
    bench, bystander = holding(3000, "x", times=1)
    write(bench, IN0, "a")
    async with working(bench, IN0):
        await until(lambda: bench.committed(IN0) == 1)
    assert bystander.steps == [Beat("m", (1,))] * 5  # at 1000, 1500, 2000, 2500 and 3000 ms
    assert bench.script.done("join") == 1


async def test_while_a_join_is_under_way_the_next_generation_may_have_begun() -> None:
    bench = Bench()
    async with working(bench, IN0):
        await until(lambda: bench.worker.running)
        assert bench.membership.beat == Beat("m", (1,))
        gate = bench.script.hold("join")
        bench.group.rebalance(IN0)
        await until(lambda: bench.membership.state is State.JOINING)
        assert bench.membership.beat == Beat("m", (1, 2))
        gate.set()
    assert bench.membership.beat is None


async def test_it_warns_once_at_half_of_the_time(caplog: pytest.LogCaptureFixture) -> None:
    bench, bystander = holding(LIMIT_MS - LOOK_MS, "x", times=1)
    write(bench, IN0, "a", "b")
    async with working(bench, IN0):
        await until(lambda: bench.committed(IN0) == 2)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "topic in, partition 0, offset 0 (key 'a') at node KSTREAM-MAPVALUES-0000000001, function " in warning
    assert "hold (" in warning
    assert "has held this worker for 150.0 s" in warning
    assert not any(isinstance(step, Leave) for step in bystander.steps)
    assert_each_once(bench, "a", "b")


async def test_it_leaves_when_the_time_is_over_and_nothing_of_it_is_committed(caplog: pytest.LogCaptureFixture) -> None:
    bench, bystander = holding(2 * LIMIT_MS, "x", times=1)
    write(bench, IN0, "a", "b")
    async with working(bench, IN0):
        await until(lambda: bench.committed(IN0) == 2)
    assert bystander.steps.index(Leave("m")) == len(bystander.steps) - 1  # from then on it says nothing
    assert bench.group.claims == [(), ()]
    assert in_order(bench.journal, "join", "close 0_0", "init even", "join", "commit even")
    (error,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "offset 0 (key 'a') at node KSTREAM-MAPVALUES-0000000001" in error
    assert "held this worker for 300.0 s, longer than max_poll_interval_ms (300000)" in error
    assert_each_once(bench, "a", "b")


async def test_a_record_that_takes_too_long_three_times_ends_the_worker() -> None:
    bench, _ = holding(LIMIT_MS, "x")
    write(bench, IN0, "a")
    error = await fails(bench, IN0)
    assert isinstance(error, TaskMigratedError)
    assert "topic in, partition 0, offset 0 (key 'a')" in str(error)
    assert "longer than max_poll_interval_ms (300000), 3 times" in str(error)
    assert bench.committed(IN0) == -1
    assert_let_go(bench)


async def test_after_a_slow_record_other_tasks_wait_for_the_next_slice() -> None:
    """So each can be committed by itself; and none waits for ever."""

    def slow(value: str) -> str:
        bench.clock.ms += 400
        return value

    bench = Bench(slow)
    write(bench, IN0, "a", "b", "c")
    write(bench, IN1, "d", "e", "f")
    async with working(bench, IN0, IN1):
        await until(lambda: (bench.committed(IN0), bench.committed(IN1)) == (3, 3))
    assert [step for step in bench.journal if step.startswith("write")] == ["write 0_0", "write 0_1"] * 3
    assert_each_once(bench, *"abcdef")


async def test_a_transaction_is_not_begun_before_functions_as_slow_as_it_may_last() -> None:
    """Once such a one was seen, outputs wait for the commit; 10 minutes later they may leave early again."""
    takes_ms = [6000.0, *[20.0] * 7]
    begun: list[bool] = []

    def function(value: str) -> str:
        begun.append(bench.committer.open)
        bench.clock.ms += takes_ms[len(begun) - 1]
        return value

    bench = Bench(function)
    write(bench, IN0, *"abcde")
    async with working(bench, IN0):
        await until(lambda: bench.committed(IN0) == 5)
        assert begun == [False] * 5
        bench.clock.ms += worker_module.LATE_OUTPUTS_MS
        write(bench, IN0, *"fgh")
        await until(lambda: bench.committed(IN0) == 8)
        assert begun[5:] == [False, True, True]
    assert_each_once(bench, *"abcdefgh")


@pytest.mark.parametrize("place", ["process", "punctuate", "flush", "extractor"])
async def test_what_is_at_work_is_named_wherever_it_is(place: str, caplog: pytest.LogCaptureFixture) -> None:
    bystander = Bystander()
    hold = functools.partial(bystander.time_passes, LIMIT_MS / 2)
    topology, said = PLACES[place](hold)
    plan = make_plan(topology, "app", {"in": 2, "out": 2})
    bench = Bench(plan=plan, stand_in=bystander, cache_max_bytes=10_000)
    write(bench, IN0, "a")
    async with working(bench, IN0):
        await until(lambda: bench.committed(IN0) == 1)
        bench.clock.ms += 1000
        bench.wakeup.set()
        await until(lambda: caplog.records)
    warning = caplog.records[0].getMessage()
    assert warning.startswith(said)
    assert "test_slow_functions.py, line " in warning


def _in_process(hold: Callable[[], None]) -> tuple[Topology, str]:
    class Slow:
        def init(self, context: ProcessorContext) -> None: ...

        def process(self, record: Record[str, str]) -> None:
            hold()

    builder = StreamsBuilder()
    builder.stream("in", key=str, value=str).process(Slow, name="slow")
    return builder.build(), "topic in, partition 0, offset 0 (key 'a') at node slow, function "


def _in_punctuate(hold: Callable[[], None]) -> tuple[Topology, str]:
    class Slow:
        def init(self, context: ProcessorContext) -> None:
            context.schedule(timedelta(seconds=1), PunctuationType.WALL_CLOCK_TIME, lambda now_ms: hold())

        def process(self, record: Record[str, str]) -> None: ...

    builder = StreamsBuilder()
    builder.stream("in", key=str, value=str).process(Slow, name="ticks")
    return builder.build(), "node ticks, function "


def _in_flush(hold: Callable[[], None]) -> tuple[Topology, str]:
    """Record caches let go at the commit."""
    builder = StreamsBuilder()
    counts = builder.stream("in", key=str, value=str).group_by_key().count(store="counts")
    counts.to_stream().peek(lambda key, value: hold(), name="slow").to("out")
    return builder.build(), "topic in, partition 0, offset 0 (key 'a') at node slow, function "


def _in_extractor(hold: Callable[[], None]) -> tuple[Topology, str]:
    def extract(record: ConsumedRecord, partition_time: int) -> int:
        hold()
        return 0

    builder = StreamsBuilder()
    builder.stream("in", key=str, value=str, timestamp_extractor=extract, name="slow").to("out")
    return builder.build(), "topic in, partition 0, offset 0 (key 'a') at node slow, function "


PLACES = {"process": _in_process, "punctuate": _in_punctuate, "flush": _in_flush, "extractor": _in_extractor}


async def test_without_a_stand_in_nothing_is_watched() -> None:
    bench = Bench()
    with anyio.fail_after(10):
        await bench.worker._slow_functions.run()


@pytest.mark.parametrize("answered", [True, False])
async def test_the_worker_vouches_for_its_tasks_as_long_as_the_group_answers_the_stand_in(answered: bool) -> None:
    """For those who ask for what is in the stores: nobody else can have been given the tasks by then."""
    bystander = Bystander()
    vouched: list[bool] = []

    def hold(value: str) -> str:
        if not vouched:
            for _ in range(3):
                bench.clock.ms += 5_000
                bystander.time_passes(3_000)
                assert bystander.watch is not None
                if answered:
                    bystander.watch.answered()
                vouched.append(bench.membership.vouches)
        return value

    bench = Bench(hold, stand_in=bystander)
    write(bench, IN0, "a")
    async with working(bench, IN0):
        await until(lambda: bench.committed(IN0) == 1)
    assert vouched == ([True, True, True] if answered else [True, True, False])


async def test_who_is_about_to_be_made_to_leave_vouches_for_nothing() -> None:
    bystander = Bystander()
    vouched: list[bool] = []

    def hold(value: str) -> str:
        if not vouched:
            vouched.append(bench.membership.vouches)
            bystander.time_passes(2 * LIMIT_MS)
            assert bystander.watch is not None
            bystander.watch.answered()  # a beat that was still under way
            vouched.append(bench.membership.vouches)
        return value

    bench = Bench(hold, stand_in=bystander)
    write(bench, IN0, "a")
    async with working(bench, IN0):
        await until(lambda: bench.committed(IN0) == 1)
    assert vouched == [True, False]
