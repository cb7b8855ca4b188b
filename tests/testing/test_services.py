"""Services in the test driver: calls are made when the clock, set by hand, gets to their time."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from streamlib import CircuitBreaker, RateLimit, Record, Service, StreamsBuilder, StreamsConfig
from streamlib.errors import ProcessingError
from streamlib.testing import TopologyTestDriver, simulate


class Shop:
    """Answers, or does not; remembers when it was asked."""

    def __init__(self, **options: Any) -> None:
        self.works = True
        self.asked: list[tuple[int, str]] = []
        self.service = Service("shop", **options)
        builder = StreamsBuilder()
        builder.stream("in", key=str, value=str).map_values(self.ask, service=self.service, concurrency=4).to("out")
        config = StreamsConfig(application_id="app", on_processing_error="fail")
        self.driver = TopologyTestDriver(builder.build(), config=config)
        self.source = self.driver.input_topic("in", key=str, value=str)
        self.sink = self.driver.output_topic("out", key=str, value=str)

    async def ask(self, value: str) -> str:
        self.asked.append((self.driver.wall_clock_ms, value))
        if value == "poison":
            raise ValueError(value)
        if not self.works:
            raise ConnectionError("closed")
        return value

    def order(self, *values: str) -> None:
        for value in values:
            self.source.pipe_input(value, value)

    def wait(self, seconds: float) -> None:
        self.driver.advance_wall_clock(timedelta(seconds=seconds))


def breaking() -> Shop:
    return Shop(breaker=CircuitBreaker(failures=3, open_for=timedelta(seconds=10)))


def test_records_wait_while_the_service_is_down_and_nothing_fails() -> None:
    shop = breaking()
    shop.works = False
    shop.order(*"abcdefgh")
    assert shop.driver.services["shop"].breaker == "open"
    assert shop.asked == [(0, "a"), (0, "b"), (0, "c")]
    shop.wait(35)
    assert [at for at, _ in shop.asked[3:]] == [10_000, 20_000, 30_000]
    assert shop.sink.is_empty
    shop.works = True
    shop.wait(4)
    assert shop.sink.is_empty
    shop.wait(1)
    assert sorted(map(str, shop.sink.read_values())) == list("abcdefgh")
    assert shop.driver.services["shop"].breaker == "closed"
    assert shop.driver.dropped_records == 0
    shop.driver.close()


def test_the_same_happens_in_each_run() -> None:
    def run() -> list[tuple[int, str]]:
        shop = breaking()
        shop.works = False
        shop.order(*"abcdef")
        shop.wait(12)
        shop.works = True
        shop.wait(60)
        shop.driver.close()
        return shop.asked

    assert run() == run()


def test_a_record_at_which_the_function_fails_fails_all_the_same() -> None:
    shop = breaking()
    with pytest.raises(ProcessingError, match="ValueError: poison"):
        shop.order("a", "poison")
    shop.driver.close()


def test_calls_are_made_at_the_rate_that_is_allowed() -> None:
    shop = Shop(rate_limit=RateLimit(2, per=timedelta(seconds=1)))
    shop.order(*"abcdefg")
    assert shop.sink.read_values() == ["a", "b"]
    shop.wait(0.9)
    assert shop.sink.is_empty
    shop.wait(10)
    assert shop.sink.read_values() == list("cdefg")
    assert [at for at, _ in shop.asked] == [0, 0, 1000, 1000, 2000, 2000, 3000]
    shop.driver.close()


@pytest.mark.parametrize("seed", range(20))
def test_a_service_that_comes_and_goes_among_faults_costs_nothing(seed: int) -> None:
    """Workers die, networks break, and the service works three seconds of every four."""

    async def ask(value: str) -> str:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.01)
        if loop.time() % 4 < 1:
            raise ConnectionError("closed")
        return value

    service = Service(
        "shop",
        rate_limit=RateLimit(50, per=timedelta(milliseconds=100)),
        breaker=CircuitBreaker(failures=3, open_for=timedelta(milliseconds=300)),
    )
    builder = StreamsBuilder()
    asked = builder.stream("in", key=str, value=str).map_values(ask, service=service, concurrency=8)
    asked.group_by_key().count(store="counts").to_stream().to("out")
    records = [Record(f"k{number % 7}", str(number), number) for number in range(300)]
    found = simulate(builder.build(), {"in": records}, seed=seed).records("out", key=str, value=int)
    assert len(found) == len(records)
