"""Ready aggregations on grouped, windowed and session streams."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlib import (
    Aggregation,
    Collect,
    Earliest,
    KGroupedStream,
    KTable,
    Latest,
    Max,
    Mean,
    Min,
    SessionWindows,
    StreamsBuilder,
    Sum,
    TimeWindows,
    TopologyError,
)
from streamlib.serdes import Serdes
from streamlib.testing import TopologyTestDriver


class Order(msgspec.Struct):
    item: str
    amount: float | None


def amount_of(order: Order) -> float | None:
    return order.amount


def ms(milliseconds: int) -> timedelta:
    return timedelta(milliseconds=milliseconds)


Steps = Callable[[KGroupedStream[str, Any]], KTable[Any, Any]]


def results(steps: Steps, records: list[tuple[Any, int]], value: Any = int) -> list[Any]:
    """What comes out when these values come in at these times, all under one key."""
    builder = StreamsBuilder()
    table = steps(builder.stream("in", key=str, value=value).group_by_key())
    table.to_stream().to("out")
    with TopologyTestDriver(builder.build()) as driver:
        topic = driver.input_topic("in", key=str, value=value)
        for each, timestamp in records:
            topic.pipe_input("k", each, timestamp)
        return driver.output_topic("out", key=table._point.key, value=table._point.value).read_values()


def plainly(aggregation: Aggregation[Any, Any]) -> Steps:
    return lambda group: group.aggregate(aggregation)


def in_a_window(aggregation: Aggregation[Any, Any]) -> Steps:
    return lambda group: group.windowed_by(TimeWindows.of_size(ms(1000), grace=ms(0))).aggregate(aggregation)


def in_a_session(aggregation: Aggregation[Any, Any]) -> Steps:
    sessions = SessionWindows.of_inactivity_gap(ms(1000), grace=ms(1000))
    return lambda group: group.windowed_by(sessions).aggregate(aggregation)


def earliest(records: list[tuple[int, int]]) -> int:
    return min(records, key=lambda record: record[1])[0]


def latest(records: list[tuple[int, int]]) -> int:
    return max(reversed(records), key=lambda record: record[1])[0]


EXPECTED: list[tuple[Callable[[], Aggregation[Any, Any]], Callable[[list[tuple[int, int]]], Any]]] = [
    (Sum, lambda records: sum(value for value, _ in records)),
    (Mean, lambda records: sum(value for value, _ in records) / len(records)),
    (Min, lambda records: min(value for value, _ in records)),
    (Max, lambda records: max(value for value, _ in records)),
    (Earliest, earliest),
    (Latest, latest),
    (Collect, lambda records: [value for value, _ in records]),
]
CASES = pytest.mark.parametrize(("make", "expected"), EXPECTED, ids=lambda each: getattr(each, "__name__", ""))
RECORDS = st.lists(st.tuples(st.integers(-100, 100), st.integers(0, 500)), min_size=1, max_size=12)


@CASES
@given(RECORDS)
def test_the_last_result_is_that_of_all_values(
    make: Callable[[], Aggregation[Any, Any]], expected: Callable[[Any], Any], records: list[tuple[int, int]]
) -> None:
    for steps in (plainly(make()), in_a_window(make())):
        assert results(steps, records) == [expected(records[: n + 1]) for n in range(len(records))]


@CASES
@given(RECORDS)
def test_sessions_that_become_one_have_the_result_of_all_their_values(
    make: Callable[[], Aggregation[Any, Any]], expected: Callable[[Any], Any], records: list[tuple[int, int]]
) -> None:
    apart_then_joined = [(7, 10_000), (3, 11_500), (5, 10_750)]
    assert results(in_a_session(make()), apart_then_joined)[-1] == expected(apart_then_joined)
    ordered = sorted(records, key=lambda record: record[1])
    assert results(in_a_session(make()), ordered)[-1] == expected(ordered)


@CASES
def test_null_values_do_not_count(make: Callable[[], Aggregation[Any, Any]], expected: Callable[[Any], Any]) -> None:
    values = results(in_a_window(make()), [(None, 1), (5, 2), (None, 3)])
    assert values[1:] == [expected([(5, 2)])] * 2


@CASES
def test_all_can_be_of_a_part(make: Callable[..., Aggregation[Any, Any]], expected: Callable[[Any], Any]) -> None:
    orders = [(Order("a", 2.0), 20), (Order("b", None), 30), (Order("c", 4.0), 10)]
    counted = [(2.0, 20), (4.0, 10)]
    values = results(plainly(make(amount_of)), orders, Order)
    assert values == [expected(counted[:1]), expected(counted[:1]), expected(counted)]


def test_types_come_from_the_stream_the_function_or_the_user() -> None:
    def value_of(steps: Steps, value: Any) -> Any:
        return steps(StreamsBuilder().stream("in", key=str, value=value).group_by_key())._point.value

    assert value_of(plainly(Sum()), int) == Serdes.long()
    assert value_of(plainly(Sum(of=amount_of)), Order) == Serdes.double()
    assert value_of(plainly(Sum(of=lambda order: order.amount, type=Decimal)), Order).type is Decimal
    assert value_of(plainly(Sum(of=lambda order: order.amount)), Order).type == int | float
    assert value_of(plainly(Latest(of=lambda order: order.item, type=str)), Order) == Serdes.string()
    assert value_of(plainly(Collect()), Order).type == list[Order]
    assert value_of(plainly(Mean(of=lambda order: order.amount)), Order) == Serdes.double()


def test_the_latest_order_is_an_order() -> None:
    orders = [(Order("a", 2.0), 20), (Order("b", 3.0), 10)]
    assert results(plainly(Latest()), orders, Order) == [orders[0][0]] * 2


@pytest.mark.parametrize("make", [Earliest, Latest, Collect])
def test_a_part_of_unknown_type_is_refused(make: Callable[..., Aggregation[Any, Any]]) -> None:
    with pytest.raises(TopologyError, match=rf"{make.__name__}\(of=\.\.\., type=str\), or annotate the function"):
        results(plainly(make(lambda order: order.item)), [], Order)


def test_what_is_no_aggregation_is_refused() -> None:
    with pytest.raises(TopologyError, match=r"or an aggregation such as Sum\(\), not 5 alone"):
        results(plainly(5), [])  # type: ignore[arg-type]
    with pytest.raises(TopologyError, match=r"Sum\(of=\) needs a function, not 5"):
        Sum(of=5)  # type: ignore[call-overload]
