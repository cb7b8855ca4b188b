"""What an application can be told while it lives: to pause, to close, to share its work with another beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from streamlib import (
    HealthStatus,
    KafkaStreams,
    LifespanError,
    ProcessorContext,
    PunctuationType,
    Record,
    State,
    StreamsBuilder,
    StreamsConfig,
)
from streamlib.errors import StreamsNotStartedError
from streamlib.runtime.worker import WorkerStatus
from streamlib.testing.plugin import KafkaTarget
from streamlib.topology.topology import Topology
from tests.exactly_once.harness import PATIENCE_S, Bench, check_counts, numbered, opened
from tests.exactly_once.topologies import counter


@pytest.fixture
async def bench(kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(Bench(kafka_broker, unique_name("life"), tmp_path)) as ready:
        yield ready


@pytest.fixture
def application(bench: Bench, kafka_broker: KafkaTarget) -> Callable[..., KafkaStreams]:
    """Makes workers of one application that run in this process, each on a disk of its own if it is named."""

    def make(disk: str = "one", *, topology: Any = counter, **options: Any) -> KafkaStreams:
        options = {"heartbeat_interval_ms": 300, "watchdog_timeout_ms": 1_000} | options
        config = StreamsConfig(
            application_id=bench.name,
            bootstrap_servers=kafka_broker.bootstrap_servers,
            processing_guarantee="exactly_once_v2",
            state_dir=bench.disk(disk),
            **options,
        )
        return KafkaStreams(topology(bench.source, bench.sink), config)

    return make


async def eventually(holds: Callable[[], bool | Awaitable[bool]]) -> None:
    with anyio.fail_after(PATIENCE_S):
        while True:
            with suppress(StreamsNotStartedError):
                found = holds()
                if found if isinstance(found, bool) else await found:
                    return
            await anyio.sleep(0.02)


def ticking(tick: Callable[[], Any]) -> Callable[[str, str], Topology]:
    """A topology whose one node is called by the wall clock."""

    class Ticking:
        def init(self, context: ProcessorContext) -> None:
            context.schedule(timedelta(milliseconds=20), PunctuationType.WALL_CLOCK_TIME, lambda now_ms: tick())

        def process(self, record: Record[str, str]) -> None: ...

        def close(self) -> None: ...

    def topology(source: str, sink: str) -> Topology:
        builder = StreamsBuilder()
        builder.stream(source, key=str, value=str).process(Ticking)
        return builder.build()

    return topology


def mapping(function: Callable[[str], Any]) -> Callable[[str, str], Topology]:
    """A topology that calls a function for each record."""

    def topology(source: str, sink: str) -> Topology:
        builder = StreamsBuilder()
        builder.stream(source, key=str, value=str).map_values(function, value=str).to(sink)
        return builder.build()

    return topology


async def test_nothing_is_processed_while_paused_and_nothing_is_missing_after_it(
    bench: Bench, application: Any
) -> None:
    app = application()
    async with app:
        await bench.produce(numbered(40))
        await bench.until_all_committed()
        app.pause()
        app.pause()
        before = await bench.committed()
        await bench.produce(numbered(40, start=40))
        # Longer than the watchdog waits, and several rounds of the fetcher: nothing moves, and nobody calls that stuck.
        await eventually(lambda: app.status.lag > 0)
        await anyio.sleep(1.5)
        assert await bench.committed() == before
        assert app.status.paused
        assert app.state is State.RUNNING
        health = app.health()
        assert health.status is HealthStatus.OK
        assert "paused" in health.reasons[0]
        app.resume()
        await bench.until_all_committed()
        assert app.health().reasons == ()
    check_counts(numbered(80), await bench.read())


async def test_a_paused_worker_calls_no_punctuators(application: Any) -> None:
    ticks: list[None] = []
    app = application(topology=ticking(lambda: ticks.append(None)))
    async with app:
        await eventually(lambda: len(ticks) > 2)
        app.pause()
        await anyio.sleep(0.05)
        before = len(ticks)
        await anyio.sleep(0.5)
        assert len(ticks) == before
        app.resume()
        await eventually(lambda: len(ticks) > before)


async def test_a_worker_can_begin_paused_and_keeps_its_place_in_the_group(bench: Bench, application: Any) -> None:
    await bench.produce(numbered(20))
    first, second = application("one"), application("two", heartbeat_interval_ms=300)
    first.pause()
    async with first:
        await first.wait_running()
        async with second:
            await eventually(lambda: len(first.status.tasks) == len(second.status.tasks) == 1)
            await eventually(lambda: second.status.records_in == 10)
            assert first.status.records_in == 0
            first.resume()
            await bench.until_all_committed()
    check_counts(numbered(20), await bench.read())


async def test_standbys_go_on_beside_a_paused_worker_and_on_it(bench: Bench, application: Any) -> None:
    """The paused one follows what the other does, so that it can take over at once."""
    goes_on, paused = (application(disk, num_standby_replicas=1) for disk in ("one", "two"))

    def covered(status: WorkerStatus, other: WorkerStatus) -> bool:
        return len(status.tasks) == 1 and set(status.standbys) == set(other.tasks)

    async with goes_on, paused:
        await eventually(lambda: covered(goes_on.status, paused.status) and covered(paused.status, goes_on.status))
        paused.pause()
        await bench.produce(numbered(40))
        await eventually(lambda: goes_on.status.records_in == 20)
        followed = goes_on.status.tasks[0]

        async def all_committed() -> bool:
            committed, ends = await bench.committed(), await bench.ends()
            return any(committed[p] == ends[p] > 0 for p in ends)

        await eventually(all_committed)
        changelog = f"{bench.name}-counts-changelog"
        await eventually(lambda: paused.status.standbys.get(followed) == 0)
        assert paused.status.records_in == 0
        rows = [seen for seen in await bench.read(changelog) if seen.partition == int(followed[-1])]
        assert rows, "the standby had something to follow"
        goes_on.close()
        await eventually(lambda: len(paused.status.tasks) == 2)
        paused.resume()
        await bench.until_all_committed()
    check_counts(numbered(40), await bench.read())


@pytest.mark.parametrize("leave", [True, False], ids=["leaves", "stays"])
async def test_who_leaves_is_not_waited_for(bench: Bench, application: Any, leave: bool) -> None:
    """A member that only closes keeps its tasks until its session has expired, or it is back."""
    first, second = application("one", session_timeout_ms=60_000), application("two", session_timeout_ms=60_000)
    async with second:
        async with first:
            await eventually(lambda: len(first.status.tasks) == len(second.status.tasks) == 1)
            first.close(leave_group=leave)
            first.close(leave_group=leave)
        assert first.state is State.NOT_RUNNING
        first.close()
        assert first.state is State.NOT_RUNNING
        await bench.produce(numbered(20))
        if leave:
            await bench.until_all_committed()
            check_counts(numbered(20), await bench.read())
        else:
            await eventually(lambda: second.status.records_in == 10)
            await anyio.sleep(1)
            assert len(second.status.tasks) == 1
        second.close(leave_group=False)


def with_client(told: list[str], opens: Callable[[], Awaitable[None]]) -> Callable[[str, str], Topology]:
    """A topology with something that is open around its calls."""

    @asynccontextmanager
    async def client() -> AsyncIterator[None]:
        await opens()
        told.append("open")
        yield
        told.append("close")

    async def call(value: str) -> str:
        told.append("call")
        return value

    def topology(source: str, sink: str) -> Topology:
        builder = StreamsBuilder()
        builder.add_lifespan(client)
        builder.stream(source, key=str, value=str).map_values(call).to(sink)
        return builder.build()

    return topology


async def test_a_lifespan_is_open_from_before_the_first_record_until_all_is_committed(
    bench: Bench, application: Any
) -> None:
    told: list[str] = []
    await bench.produce(numbered(10))
    app = application(topology=with_client(told, anyio.lowlevel.checkpoint))
    async with app:
        await bench.until_all_committed()
        assert told == ["open", *["call"] * 10]
        await bench.produce(numbered(10, start=10))  # and while some of these are called, it is to end
    assert told == ["open", *["call"] * (len(told) - 2), "close"]
    assert 10 <= sum((await bench.committed()).values()) <= len(told) - 2


async def test_what_cannot_be_opened_ends_the_application_before_it_joins(bench: Bench, application: Any) -> None:
    async def fail() -> None:
        raise ConnectionRefusedError("nobody there")

    told: list[str] = []
    app = application(topology=with_client(told, fail))
    with pytest.raises(LifespanError, match=r"with_client.*client could not be opened: ConnectionRefusedError: nobody"):
        await app.run()
    assert app.state is State.ERROR
    assert told == []
    groups = await bench.connection.admin().describe_groups([bench.name])
    assert groups[bench.name].state == "Dead"  # there has never been one


async def test_an_application_that_is_still_opening_may_be_closed(application: Any) -> None:
    app = application(topology=with_client([], anyio.sleep_forever))
    with anyio.fail_after(PATIENCE_S):
        async with app:
            await anyio.sleep(0.05)
    assert app.state is State.NOT_RUNNING


@pytest.mark.parametrize("where", ["function", "awaited function", "punctuator"])
async def test_an_application_may_be_closed_by_its_own_functions(bench: Bench, application: Any, where: str) -> None:
    """Nothing waits for itself."""

    def close(what: str = "") -> str:
        app.close()
        return what

    async def close_awaited(what: str) -> str:
        return close(what)

    topologies = {
        "function": mapping(close),
        "awaited function": mapping(close_awaited),
        "punctuator": ticking(close),
    }
    app = application(topology=topologies[where])
    await bench.produce([("a", "1"), ("b", "2")])
    with anyio.fail_after(PATIENCE_S):
        await app.run()
    assert app.state is State.NOT_RUNNING
    if where != "punctuator":
        async with application(topology=mapping(str)):
            await bench.until_all_committed()
        assert [(seen.key, seen.value) for seen in await bench.read(value=str)] == [("b", "2"), ("a", "1")]


async def test_workers_come_and_go_while_the_others_go_on(bench: Bench, application: Any) -> None:
    """One process may have as many workers as it likes: each is an application object of the same id (KIP-663)."""
    async with application("one") as first:
        await bench.produce(numbered(40))
        for start in (40, 80):
            async with application("two") as second:
                await eventually(lambda: len(first.status.tasks) == len(second.status.tasks) == 1)
                await bench.produce(numbered(40, start=start))
                await bench.until_all_committed()
            await eventually(lambda: len(first.status.tasks) == 2)
    check_counts(numbered(120), await bench.read())
