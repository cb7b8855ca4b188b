"""Records that fail at a step come back to it from its retry topics, when they are due."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from streamlib import (
    ConfigError,
    DeadLetter,
    Fail,
    ProcessingError,
    Retry,
    RetryTopics,
    SerializationError,
    Skip,
    StreamsBuilder,
    StreamsConfig,
    TopologyError,
    record_metadata,
)
from streamlib.dsl.kstream import KStream
from streamlib.engine.plan import is_internal, make_plan
from streamlib.testing import TopologyTestDriver
from streamlib.topology.nodes import ProcessorNode, SourceNode

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


class Shop:
    """A function that is out of order for what is in `broken`, and notes what it was called with, and when."""

    def __init__(self, *broken: str) -> None:
        self.broken = set(broken)
        self.calls: list[str] = []

    def __call__(self, value: str) -> str:
        self.calls.append(value)
        if value in self.broken:
            raise ConnectionError(f"{value} is out")
        return value.upper()

    async def awaited(self, value: str) -> str:
        return self(value)


Build = Callable[[KStream[str, str]], Any]


class Bench:
    """A stream of text with whatever is built on it, in a driver."""

    def __init__(self, driver: TopologyTestDriver) -> None:
        self.driver = driver
        self.source = driver.input_topic("in", key=str, value=str)
        self.out = driver.output_topic("out", key=str, value=str)

    def pipe(self, *pairs: tuple[str | None, str]) -> None:
        for key, value in pairs:
            self.source.pipe_input(key, value)

    def wait(self, by: timedelta) -> list[Any]:
        self.driver.advance_wall_clock(by)
        return self.out.read_values()


@contextmanager
def bench(build: Build, **options: Any) -> Iterator[Bench]:
    builder = StreamsBuilder()
    build(builder.stream("in", key=str, value=str))
    with TopologyTestDriver(builder.build(), **options) as driver:
        yield Bench(driver)


def step(shop: Shop, policy: RetryTopics, *, awaited: bool = False) -> Build:
    function: Any = shop.awaited if awaited else shop
    return lambda s: s.map_values(function, value=str, name="ask", on_error=policy).to("out")


@pytest.fixture(params=[False, True], ids=["plain", "awaited"])
def awaited(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_a_record_comes_back_when_it_is_due_and_not_before(awaited: bool) -> None:
    shop = Shop("b")
    with bench(step(shop, RetryTopics([HOUR]), awaited=awaited)) as b:
        b.pipe(("k", "a"), ("k", "b"), ("k", "c"))
        assert b.out.read_values() == ["A", "C"]
        shop.broken.clear()
        assert b.wait(HOUR - timedelta(milliseconds=1)) == []
        assert b.wait(timedelta(milliseconds=1)) == ["B"]
        assert shop.calls == ["a", "b", "c", "b"]


def test_each_failure_has_its_delay_and_then_the_last_resort_holds(awaited: bool) -> None:
    shop = Shop("b")
    with bench(step(shop, RetryTopics([SECOND, MINUTE], then=Skip()), awaited=awaited)) as b:
        b.pipe(("k", "b"))
        for by, calls in [(SECOND, 2), (MINUTE - SECOND, 2), (SECOND, 3), (HOUR, 3)]:
            b.wait(by)
            assert len(shop.calls) == calls, by
        assert b.driver.dropped_records == 1


def test_steps_before_it_are_not_run_again() -> None:
    before, shop = Shop(), Shop("B")
    policy = RetryTopics([SECOND])

    def build(s: KStream[str, str]) -> None:
        s.map_values(before, value=str).map_values(shop, value=str, name="ask", on_error=policy).to("out")

    with bench(build) as b:
        b.pipe(("k", "b"))
        shop.broken.clear()
        assert b.wait(SECOND) == ["B"]
        assert before.calls == ["b"]
        assert shop.calls == ["B", "B"]


def test_it_comes_back_with_its_time_and_headers_and_without_those_of_the_way() -> None:
    shop = Shop("b")
    with bench(step(shop, RetryTopics([HOUR]))) as b:
        b.source.pipe_input("k", "b", timestamp_ms=77, headers=(("trace", b"7f"),))
        parked = b.driver.output_topic("app-ask-retry-1", key=str, value=str).read_record()
        told = {name: (text or b"").decode(errors="replace") for name, text in parked.headers}
        assert (parked.key, parked.value, parked.timestamp) == ("k", "b", 77)
        assert (
            told.items()
            >= {
                "__streams.retry.failures": "1",
                "__streams.retry.due": "3600000",
                "__streams.retry.exception": "builtins.ConnectionError",
                "__streams.retry.message": "b is out",
                "__streams.retry.topic": "in",
                "__streams.retry.partition": "0",
                "__streams.retry.offset": "0",
            }.items()
        )
        shop.broken.clear()
        b.driver.advance_wall_clock(HOUR)
        record = b.out.read_record()
        assert (record.key, record.value, record.timestamp, record.headers) == ("k", "B", 77, (("trace", b"7f"),))


def test_a_dead_letter_is_the_record_as_it_was_read_first(awaited: bool) -> None:
    """Two steps with retry topics: it fails at the first one once, then at the second one for good."""
    first, second = Shop("b"), Shop("Bx")
    dead = RetryTopics([SECOND, SECOND], then=DeadLetter("dead"))

    def build(s: KStream[str, str]) -> None:
        for_second: Any = second.awaited if awaited else second
        changed = s.map(lambda key, value: (f"{key}2", value), key=str, value=str)
        asked = changed.map_values(first, value=str, name="first", on_error=RetryTopics([SECOND]))
        asked.map_values(lambda v: f"{v}x").map_values(for_second, value=str, name="second", on_error=dead).to("out")

    with bench(build) as b:
        b.pipe(("k", "other"))
        b.source.pipe_input("k", "b", timestamp_ms=5, headers=(("trace", b"7f"),))
        first.broken.clear()
        for _ in range(3):
            b.wait(SECOND)
        assert first.calls == ["other", "b", "b"]
        assert second.calls == ["OTHERx", "Bx", "Bx", "Bx"]
        letter = b.driver.output_topic("dead", key=str, value=str).read_record()
        told = dict(letter.headers)
        assert (letter.key, letter.value, letter.timestamp) == ("k", "b", 5)
        assert told["trace"] == b"7f"
        assert (told["__streams.errors.topic"], told["__streams.errors.offset"]) == (b"in", b"1")
        assert told["__streams.errors.node"] == b"second"
        assert not [name for name in told if name.startswith("__streams.retry.")]


def test_the_id_of_a_record_stays() -> None:
    ids: list[str] = []
    shop = Shop("b2")

    async def ask(value: str) -> str:
        metadata = record_metadata()
        assert metadata is not None
        ids.append(metadata.id)
        return shop(value)

    def build(s: KStream[str, str]) -> None:
        many = s.flat_map_values(lambda value: [f"{value}{n}" for n in range(3)])
        many.map_values(ask, name="ask", on_error=RetryTopics([SECOND])).to("out")

    with bench(build) as b:
        b.pipe(("k", "a"), ("k", "b"))
        shop.broken.clear()
        b.wait(SECOND)
        assert ids == ["in-0-0-0", "in-0-0-1", "in-0-0-2", "in-0-1-0", "in-0-1-1", "in-0-1-2", "in-0-1-2"]


def test_fail_stops_after_the_last_delay() -> None:
    with bench(step(Shop("b"), RetryTopics([SECOND], then=Fail()))) as b:
        b.pipe(("k", "b"))
        with pytest.raises(ProcessingError, match=r"b is out.*topic in, partition 0, offset 0"):
            b.wait(SECOND)


def test_what_cannot_be_written_in_the_types_of_the_step_says_so() -> None:
    def build(s: KStream[str, str]) -> None:
        s.map_values(lambda value: 5).map_values(lambda value: 1 / 0, name="ask", on_error=RetryTopics([SECOND]))

    with bench(build) as b, pytest.raises(SerializationError, match=r"cannot park the record.*value="):
        b.pipe(("k", "b"))


def test_what_is_too_large_to_be_parked_goes_by_the_policy_for_results() -> None:
    config = StreamsConfig(application_id="app", max_request_size=2_000, on_production_error="skip")
    shop = Shop("b" * 1_800)
    with bench(step(shop, RetryTopics([SECOND])), config=config) as b:
        b.pipe(("k", "b" * 1_800), ("k", "c"))
        assert b.wait(SECOND) == ["C"]
        assert len(shop.calls) == 2
        assert b.driver.dropped_records == 1


def test_parked_records_hold_nothing_up_that_waits_for_idle_inputs() -> None:
    """The wall clock closes windows although records are parked."""
    shop = Shop("b")
    with bench(step(shop, RetryTopics([HOUR]))) as b:
        b.pipe(("k", "b"))
        task = next(iter(b.driver._tasks.values()))
        assert not task._behind()
        assert not task.ready(0)
        assert task.next_retry_ms == HOUR.total_seconds() * 1000


@pytest.mark.parametrize("delays", [[], [1], [-SECOND]])
def test_delays_are_lengths_of_time(delays: Any) -> None:
    with pytest.raises(ConfigError, match="RetryTopics"):
        RetryTopics(delays)


def test_it_is_refused_where_there_is_no_step_for_it() -> None:
    policy = RetryTopics([SECOND])
    stream = StreamsBuilder().stream("in", key=str, value=str)
    with pytest.raises(TopologyError, match="cannot be RetryTopics"):
        stream.group_by_key().reduce(lambda a, b: a + b, on_error=policy)
    with pytest.raises(TopologyError, match="cannot be RetryTopics"):
        stream.to("out", on_error=policy)
    with pytest.raises(ConfigError, match="on_processing_error"):
        StreamsConfig(application_id="app", on_processing_error=policy)
    in_order = RetryTopics([SECOND], keep_order=True)
    with pytest.raises(TopologyError, match="ordered='key'"):
        stream.map_values(Shop().awaited, ordered="none", on_error=in_order)


def test_topics_have_as_many_partitions_as_the_step_has_tasks_and_tasks_keep_their_numbers() -> None:
    builder = StreamsBuilder()
    small, large = builder.stream("small", key=str, value=str), builder.stream("a-large", key=str, value=str)
    builder.stream("z", key=str, value=str).to("out")
    merged = small.merge(large).map_values(str, name="A", on_error=RetryTopics([SECOND, MINUTE], keep_order=True))
    merged.group_by(lambda key, value: value, key=str, name="by").count(store="counts")
    topology = builder.build()
    plan = make_plan(topology, "app", {"small": 2, "a-large": 4, "z": 1, "out": 1})
    assert plan.repartition_topics == {"app-A-retry-1": 4, "app-A-retry-2": 4, "app-by-repartition": 4}
    assert plan.changelog_topics["app-A-retry-changelog"][0] == 4
    assert [each.id for each in topology.subtopologies() if "A-retry" in each.sources] == [0]
    assert all(is_internal("app", topic) for topic in plan.repartition_topics)
    assert {p.topic for p in plan.inputs(plan.tasks[3])} == {"a-large", "app-A-retry-1", "app-A-retry-2"}
    assert "Source: A-retry (topics: [A-retry-" in topology.describe()
    assert isinstance(topology.nodes["A"], ProcessorNode)
    assert isinstance(topology.nodes["A-retry"], SourceNode)


def test_pictures_show_the_way_out_and_back() -> None:
    builder = StreamsBuilder()
    builder.stream("in", key=str, value=str).map_values(str, name="ask", on_error=RetryTopics([SECOND])).to("out")
    picture = builder.build().to_mermaid()
    names = dict(re.findall(r"(\w+)(?:\[/|\(\[|\[)\"([\w-]+)\"", picture))
    arrows = {(names[tail], names[head]) for tail, head in re.findall(r"(\w+) --> (\w+)", picture)}
    assert {("ask", "ask-retry-1"), ("ask-retry-1", "ask-retry"), ("ask-retry", "ask")} <= arrows


def test_another_policy_for_a_step_with_topics_is_refused() -> None:
    builder = StreamsBuilder()
    stream = builder.stream("in", key=str, value=str)
    stream.map_values(str, name="ask", on_error=RetryTopics([SECOND])).to("out")
    with pytest.raises(TopologyError, match="has RetryTopics"):
        builder.topology.on_error("ask", Retry([SECOND]))


# -- Order -------------------------------------------------------------------------------------------------------------


IN_ORDER = RetryTopics([SECOND, MINUTE], then=Skip(), keep_order=True)


def test_records_of_a_key_stay_behind_those_that_are_parked(awaited: bool) -> None:
    shop = Shop("b")
    with bench(step(shop, IN_ORDER, awaited=awaited)) as b:
        b.pipe(("k", "a"), ("k", "b"), ("k", "c"), ("other", "x"), ("k", "d"))
        assert b.out.read_values() == ["A", "X"]
        assert b.wait(SECOND) == []  # again, and now for a minute
        b.pipe(("k", "e"))
        shop.broken.clear()
        assert b.wait(MINUTE + SECOND) == ["B", "C", "D", "E"]
        assert shop.calls == ["a", "b", "x", "b", "b", "c", "d", "e"]
        assert len(b.driver.store("ask-retry")) == 0
        b.pipe(("k", "f"))
        assert b.out.read_values() == ["F"]


def test_the_next_of_a_key_goes_on_when_the_first_is_given_up(awaited: bool) -> None:
    shop = Shop("b", "c")
    with bench(step(shop, IN_ORDER, awaited=awaited)) as b:
        b.pipe(("k", "b"), ("k", "c"), ("k", "d"))
        for _ in range(200):
            b.wait(SECOND)
        assert shop.calls == ["b"] * 3 + ["c"] * 3 + ["d"]
        assert len(b.driver.store("ask-retry")) == 0


def test_records_without_a_key_have_no_order(awaited: bool) -> None:
    shop = Shop("b")
    with bench(step(shop, IN_ORDER, awaited=awaited)) as b:
        b.pipe((None, "b"), (None, "c"))
        shop.broken.clear()
        assert b.out.read_values() == ["C"]
        assert b.wait(SECOND) == ["B"]


@pytest.mark.parametrize("seed", range(30))
def test_the_order_of_each_key_holds_whatever_fails(seed: int, awaited: bool) -> None:
    """Functions that fail by chance, with records that come all the time, and delays that overtake each other."""
    rng = random.Random(seed)
    calls: list[str] = []
    policy = RetryTopics([MINUTE, SECOND, 10 * SECOND], then=DeadLetter("dead"), keep_order=True)

    def ask(value: str) -> str:
        calls.append(value)
        if rng.random() < 0.5:
            raise ConnectionError("no")
        return value

    async def ask_later(value: str) -> str:
        return ask(value)

    def build(s: KStream[str, str]) -> None:
        s.map_values(ask_later if awaited else ask, name="ask", on_error=policy).to("out")

    with bench(build) as b:
        sent: dict[str, list[str]] = {"a": [], "b": [], "c": []}
        for number in range(60):
            key = rng.choice("abc")
            sent[key].append(f"{key}{number}")
            b.pipe((key, f"{key}{number}"))
            if rng.random() < 0.3:
                b.driver.advance_wall_clock(rng.choice([SECOND, 5 * SECOND, MINUTE]))
        for _ in range(200):
            b.driver.advance_wall_clock(MINUTE)
        assert len(b.driver.store("ask-retry")) == 0
        dead = set(b.driver.output_topic("dead", key=str, value=str).read_values())
        passed = b.out.read_values()
        for key, values in sent.items():
            assert [value for value in passed if value and value[0] == key] == [
                value for value in values if value not in dead
            ]
            in_order = [value for value in calls if value[0] == key]
            assert list(dict.fromkeys(in_order)) == values
            assert in_order == sorted(in_order, key=values.index)  # never one between two calls of another
        counts = {value: calls.count(value) for values in sent.values() for value in values}
        assert all(count == 4 for value, count in counts.items() if value in dead)


def test_values_of_data_types_come_back_as_they_are() -> None:
    class Order(msgspec.Struct):
        item: str

    seen: list[Any] = []

    def ask(order: Order) -> str:
        seen.append(order)
        if len(seen) == 1:
            raise ValueError("no")
        return order.item

    builder = StreamsBuilder()
    stream = builder.stream("in", key=int, value=Order)
    stream.map_values(ask, value=str, name="ask", on_error=RetryTopics([SECOND])).to("out")
    with TopologyTestDriver(builder.build()) as driver:
        driver.input_topic("in", key=int, value=Order).pipe_input(7, Order("pear"))
        driver.advance_wall_clock(SECOND)
        assert driver.output_topic("out", key=int, value=str).read_key_values() == [(7, "pear")]
    assert seen == [Order("pear")] * 2
