"""Functions that are awaited, in the test driver."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from streamlib import DeadLetter, ProcessingError, StreamsBuilder, StreamsConfig
from streamlib.testing import TopologyTestDriver
from streamlib.topology.topology import Topology


def topology(function: Any, **options: Any) -> Topology:
    builder = StreamsBuilder()
    builder.stream("in", key=str, value=str).map_values(function, name="call", **options).to("out")
    return builder.build()


def results(driver: TopologyTestDriver, *values: str) -> list[Any]:
    driver.input_topic("in", key=str, value=str).pipe_key_values(("k", value) for value in values)
    return driver.output_topic("out", key=str, value=str).read_values()


async def slowly(value: str) -> str:
    await asyncio.sleep(0.001)
    return value.upper()


def test_what_a_record_causes_is_done_when_it_is_piped() -> None:
    with TopologyTestDriver(topology(slowly)) as driver:
        assert results(driver, "a", "b") == ["A", "B"]


async def test_a_test_that_is_a_coroutine_may_use_it() -> None:
    with TopologyTestDriver(topology(slowly)) as driver:
        assert results(driver, "a", "b") == ["A", "B"]


def test_all_calls_run_on_one_loop() -> None:
    loops = []

    async def note(value: str) -> str:
        loops.append(asyncio.get_running_loop())
        return value

    with TopologyTestDriver(topology(note)) as driver:
        results(driver, "a", "b")
        asyncio.run(_inside(driver))
    assert len(loops) == 3
    assert len(set(loops)) == 1
    assert loops[0].is_closed()


async def _inside(driver: TopologyTestDriver) -> None:
    results(driver, "c")


def test_an_error_is_that_of_a_plain_function() -> None:
    async def fails(value: str) -> str:
        raise ValueError("no")

    with (
        TopologyTestDriver(topology(fails)) as driver,
        pytest.raises(ProcessingError, match=r"node call: ValueError: no \(key 'k'\) .*offset 0"),
    ):
        results(driver, "a")


def test_a_call_that_takes_too_long_is_a_dead_letter() -> None:
    async def hangs(value: str) -> str:
        if value == "never":
            await asyncio.Event().wait()
        return value

    config = StreamsConfig(application_id="app", on_processing_error=DeadLetter("dead"))
    made = topology(hangs, timeout=timedelta(milliseconds=10))
    with TopologyTestDriver(made, config=config) as driver:
        assert results(driver, "a", "never", "b") == ["a", "b"]
        assert driver.output_topic("dead", value=str).read_values() == ["never"]


@pytest.mark.parametrize("cached", [0, 10_000_000])
def test_calls_below_a_table_see_what_its_cache_lets_go(cached: int) -> None:
    async def text(count: int) -> str:
        return str(count)

    builder = StreamsBuilder()
    counts = builder.stream("in", key=str, value=str).group_by_key().count(store="counts").to_stream()
    counts.map_values(text).group_by_key().count(store="again").to_stream().map_values(text).to("out")
    config = StreamsConfig(application_id="app", statestore_cache_max_bytes=cached)
    with TopologyTestDriver(builder.build(), config=config) as driver:
        assert results(driver, "a", "b", "c") == ["1", "2", "3"]
