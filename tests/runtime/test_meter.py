"""What is counted and timed of a worker, on a clock that is set by hand and with real tasks over fakes."""

from __future__ import annotations

import pytest

from streamlib.engine.counts import Counts
from streamlib.engine.record_cache import CacheBudget
from streamlib.engine.task import Task
from streamlib.errors import ErrorCode
from streamlib.records import TaskId
from streamlib.runtime.meter import HISTORY, Meter, Timing
from streamlib.runtime.metered_backend import MeteredBackend
from streamlib.state.memory import InMemoryBackend
from tests.runtime.fakes import IN0, T0, Bench, until
from tests.runtime.test_worker import no_pauses, raise_on_poison, working

__all__ = ["no_pauses"]


class Clock:
    def __init__(self) -> None:
        self.ms = 0.0

    def __call__(self) -> float:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


def looked_each_second(timing: Timing, clock: Clock, seconds: int, took: float, count: int = 1) -> None:
    for _ in range(seconds):
        timing.record(took, count)
        clock.ms += 1000
        timing.look(clock.ms)


def test_a_rate_is_that_of_the_last_half_minute(clock: Clock) -> None:
    timing = Timing(clock.ms)
    looked_each_second(timing, clock, 100, took=10, count=5)
    assert timing.rate(clock.ms) == pytest.approx(5)
    assert timing.ratio(clock.ms) == pytest.approx(0.01)
    looked_each_second(timing, clock, HISTORY + 1, took=0, count=0)
    assert timing.rate(clock.ms) == 0
    assert timing.average is None
    assert timing.count == 500


def test_averages_and_extremes_forget_what_is_long_past(clock: Clock) -> None:
    timing = Timing(clock.ms)
    assert (timing.average, timing.least, timing.most) == (None, None, None)
    timing.record(100)
    looked_each_second(timing, clock, 5, took=4, count=2)
    assert timing.most == 100
    assert timing.least == 2
    assert timing.average == pytest.approx(120 / 11)
    looked_each_second(timing, clock, HISTORY + 1, took=4, count=2)
    assert timing.most == 2


def test_what_has_just_begun_is_not_said_to_go_on_at_that_rate(clock: Clock) -> None:
    timing = Timing(clock.ms)
    timing.record(1, 1_000)
    clock.ms += 1
    assert timing.rate(clock.ms) == 1_000


async def test_commits_are_timed_from_their_sealing_and_from_their_first_record() -> None:
    bench = Bench()
    meter, clock = bench.worker.meter, Clock()
    meter.elapsed_ms = clock
    gate = bench.script.hold("commit even")
    async with working(bench, IN0):
        bench.broker.write(IN0, "a", "a")
        await until(lambda: bench.script.done("commit even"))
        assert bench.worker.observe().open_transaction_ms == 0
        clock.ms += 300
        assert bench.worker.observe().open_transaction_ms == 300
        gate.set()
        await until(lambda: bench.committed(IN0) == 2)
        await until(lambda: meter.commit.count == 1)
        assert bench.worker.observe().open_transaction_ms == 0
    assert meter.commit.total == 300
    assert meter.visible.total >= 300
    assert meter.process.count == 2
    assert meter.commits_failed == 0


async def test_an_aborted_transaction_is_counted_and_its_records_are_not_timed_as_visible() -> None:
    bench = Bench()
    bench.script.fail("commit even", ErrorCode.REQUEST_TIMED_OUT)
    async with working(bench, IN0):
        bench.broker.write(IN0, "a")
        await until(lambda: bench.committed(IN0) == 1)
    meter = bench.worker.meter
    assert (meter.commits_failed, meter.aborted) == (1, 1)
    assert meter.visible.count == 1
    assert meter.process.count == 2
    assert meter.commit.count == bench.worker.status.commits


async def test_dropped_records_stay_counted_when_a_task_is_rolled_back() -> None:
    bench = Bench(raise_on_poison)
    task = Task(bench.plan, T0, InMemoryBackend(), now_ms=bench.clock.now_ms)
    task.start({}, dict.fromkeys(task.inputs, 0))
    task._cursor.dropped += 3
    task.rollback()
    task.start({}, dict.fromkeys(task.inputs, 0))
    assert (task.dropped, task.dropped_total) == (0, 3)


async def test_nodes_are_counted_only_if_asked_for() -> None:
    bench = Bench()
    bench.broker.write(IN0, "a", "b", "a")
    batch = bench.broker.read(IN0, 0)
    assert batch is not None
    counts = Counts()
    for each in (None, counts):
        task = Task(bench.plan, T0, InMemoryBackend(), now_ms=bench.clock.now_ms, counts=each)
        task.start({}, dict.fromkeys(task.inputs, 0))
        task.enqueue(batch)
        assert task.process(10) == 3
    assert set(counts.nodes) == set(bench.plan.nodes(T0))
    assert set(counts.nodes.values()) == {3}


async def test_updates_that_take_the_place_of_others_are_hits_of_the_record_cache() -> None:
    bench, counts = Bench(), Counts()
    bench.broker.write(IN0, "a", "b", "a", "a")
    batch = bench.broker.read(IN0, 0)
    assert batch is not None
    task = Task(
        bench.plan, T0, InMemoryBackend(), now_ms=bench.clock.now_ms, cache_budget=CacheBudget(1 << 20), counts=counts
    )
    task.start({}, dict.fromkeys(task.inputs, 0))
    task.enqueue(batch)
    task.process(10)
    of_cache = counts.caches["counts"]
    assert (of_cache.added, of_cache.passed, task.cached_updates) == (4, 0, {"counts": 2})
    assert task.cache_bytes > 0
    task.flush()
    assert (of_cache.passed, task.cached_updates, task.cache_bytes) == (2, {"counts": 0}, 0)


def test_accesses_to_a_store_are_timed_until_it_is_closed(clock: Clock) -> None:
    meter = Meter(clock)

    class Slow(InMemoryBackend):
        def get(self, store: str, key: bytes) -> bytes | None:
            clock.ms += 2
            return super().get(store, key)

    backend = MeteredBackend(Slow(), TaskId(0, 0), meter)
    backend.write({"counts": {b"a": b"1", b"b": b"2"}}, {})
    assert backend.get("counts", b"a") == b"1"
    assert list(backend.scan("counts", None, None)) == [(b"a", b"1"), (b"b", b"2")]
    of_store = meter.of_store(TaskId(0, 0), "counts")
    assert (of_store.put.count, of_store.flush.count, of_store.range.count) == (2, 1, 1)
    assert (of_store.get.count, of_store.get.average) == (1, 2)
    backend.close()
    assert meter.stores == {}
