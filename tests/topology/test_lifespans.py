"""What is open while a topology runs: when, in what order, and what becomes of it if something fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from streamlib import LifespanError, ProcessorContext, Record, StreamsBuilder, Topology
from streamlib.errors import TopologyError
from streamlib.simulation.faults import KilledAtRequest
from streamlib.testing import TopologyTestDriver, simulate
from streamlib.topology.lifespans import opened

Opening = Callable[[], AbstractAsyncContextManager[None]]


@pytest.fixture
def told() -> list[str]:
    return []


def telling(told: list[str], name: str, fails: str = "") -> Opening:
    """A lifespan that tells what happens to it."""

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        await anyio.lowlevel.checkpoint()
        if fails == "opening":
            raise ConnectionRefusedError(f"{name} is not there")
        told.append(f"open {name}")
        yield
        await anyio.lowlevel.checkpoint()
        if fails == "closing":
            raise OSError(f"{name} does not close")
        told.append(f"close {name}")

    return lifespan


def upper(told: list[str], *lifespans: Any) -> Topology:
    """Calls an awaited function."""

    async def shout(value: str) -> str:
        told.append(f"call {value}")
        return value.upper()

    builder = StreamsBuilder()
    for lifespan in lifespans:
        builder.add_lifespan(lifespan)
    builder.stream("in", key=str, value=str).map_values(shout).to("out")
    return builder.build()


async def test_the_last_one_opened_is_closed_first(told: list[str]) -> None:
    async with opened([telling(told, "a"), telling(told, "b")]):
        told.append("run")
    assert told == ["open a", "open b", "run", "close b", "close a"]


async def test_they_are_not_told_of_an_error_and_do_not_swallow_it(told: list[str]) -> None:
    with pytest.raises(KeyError):
        async with opened([telling(told, "a")]):
            raise KeyError("mine")
    assert told == ["open a", "close a"]


async def test_what_was_open_is_closed_if_the_next_cannot_be_opened(told: list[str]) -> None:
    with pytest.raises(LifespanError, match=r"lifespan .*telling.* ConnectionRefusedError: b is not there") as raised:
        async with opened([telling(told, "a"), telling(told, "b", "opening"), telling(told, "c")]):
            told.append("run")
    assert isinstance(raised.value.__cause__, ConnectionRefusedError)
    assert told == ["open a", "close a"]


async def test_one_that_does_not_close_is_logged_and_the_others_are_closed(
    told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with opened([telling(told, "a"), telling(told, "b", "closing")]):
        pass
    assert told == ["open a", "open b", "close a"]
    assert "could not be closed" in caplog.text
    assert "b does not close" in caplog.text


async def coroutine() -> None: ...


async def generator() -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize(
    "nothing",
    [None, "client", telling([], "a")(), coroutine, generator],
    ids=["none", "text", "made", "def", "gen"],
)
def test_what_cannot_be_opened_is_refused(nothing: Any) -> None:
    with pytest.raises(TopologyError, match=r"add_lifespan needs a function .*@asynccontextmanager"):
        StreamsBuilder().add_lifespan(nothing)


def test_topologies_made_by_hand_have_them_too(told: list[str]) -> None:
    lifespan = telling(told, "a")
    assert Topology().add_source("read", "in").add_lifespan(lifespan).checked().lifespans == (lifespan,)


# -- The driver ------------------------------------------------------------------------------------------------------


def test_the_driver_opens_them_before_the_first_call_and_closes_them_at_its_end(told: list[str]) -> None:
    with TopologyTestDriver(upper(told, telling(told, "a"), telling(told, "b"))) as driver:
        driver.input_topic("in", key=str, value=str).pipe_input("k", "x")
        assert driver.output_topic("out", key=str, value=str).read_value() == "X"
    assert told == ["open a", "open b", "call x", "close b", "close a"]


async def test_the_driver_opens_them_within_a_test_that_is_a_coroutine(told: list[str]) -> None:
    with TopologyTestDriver(upper(told, telling(told, "a"))) as driver:
        driver.input_topic("in", key=str, value=str).pipe_input("k", "x")
    assert told == ["open a", "call x", "close a"]


def test_calls_use_what_is_open_in_the_same_loop(told: list[str]) -> None:
    """A task group has to be left by the task that entered it."""
    send: Any = None

    @asynccontextmanager
    async def worker() -> AsyncIterator[None]:
        nonlocal send
        send, receive = anyio.create_memory_object_stream[str](10)

        async def work() -> None:
            async with receive:
                told.extend([f"worked on {item}" async for item in receive])

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            yield
            send.close()

    async def pass_on(value: str) -> str:
        await send.send(value)
        return value

    builder = StreamsBuilder()
    builder.add_lifespan(worker)
    builder.stream("in", key=str, value=str).map_values(pass_on).to("out")
    with TopologyTestDriver(builder.build()) as driver:
        driver.input_topic("in", key=str, value=str).pipe_input("k", "x")
    assert told == ["worked on x"]


def test_the_driver_says_what_cannot_be_opened(told: list[str]) -> None:
    with pytest.raises(LifespanError, match="b is not there"):
        TopologyTestDriver(upper(told, telling(told, "a"), telling(told, "b", "opening")))
    assert told == ["open a", "close a"]


def test_the_driver_closes_them_if_it_cannot_start(told: list[str]) -> None:
    class Fails:
        def init(self, context: ProcessorContext) -> None:
            raise KeyError("mine")

        def process(self, record: Record[str, str]) -> None: ...

    builder = StreamsBuilder()
    builder.add_lifespan(telling(told, "a"))
    builder.stream("in", key=str, value=str).process(Fails)
    with pytest.raises(Exception, match="mine"):
        TopologyTestDriver(builder.build())
    assert told == ["open a", "close a"]


# -- Simulation ------------------------------------------------------------------------------------------------------


def test_each_simulated_worker_opens_its_own(told: list[str]) -> None:
    """One that is killed closes nothing, and opens it anew when it comes back."""
    records = [Record(f"k{number}", "x", 1_000) for number in range(20)]
    killed = KilledAtRequest("w0", "EndTxn", 1, "sent", 500.0)
    simulate(upper(told, telling(told, "a")), {"in": records}, faults=[killed], seed=1)
    assert told[0] == "open a"
    assert told.count("call x") >= len(records)
    assert told.count("open a") > told.count("close a") >= 1
