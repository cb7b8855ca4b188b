"""Dropping repetitions: which records pass, across restarts too, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlib import KStream, Materialized, StreamsBuilder, Topology, TopologyError
from streamlib.testing import TopologyTestDriver
from streamlib.topology.nodes import WindowStoreSpec
from tests.testing.restarts import keep_disks, lose_disks

Input = tuple[str | None, str, int]
TEN = timedelta(seconds=10)


def topology(steps: Callable[[KStream[str, str]], KStream[Any, Any]]) -> Topology:
    builder = StreamsBuilder()
    steps(builder.stream("in", key=str, value=str)).to("out")
    return builder.build()


class Run:
    def __init__(self, steps: Callable[[KStream[str, str]], KStream[Any, Any]]) -> None:
        self.driver = TopologyTestDriver(topology(steps))
        self.out = self.driver.output_topic("out", key=str, value=str)

    def passed(self, *records: Input) -> list[Input]:
        topic = self.driver.input_topic("in", key=str, value=str)
        for key, value, timestamp in records:
            topic.pipe_input(key, value, timestamp)
        return [(record.key, record.value or "", record.timestamp) for record in self.out.read_records()]


def test_a_key_passes_once_in_ten_seconds() -> None:
    run = Run(lambda stream: stream.deduplicate(TEN))
    first = run.passed(("k1", "v1", 0), ("k1", "v2", 5000), ("k1", "v3", 9999), ("k2", "end", 9999))
    assert first == [("k1", "v1", 0), ("k2", "end", 9999)]
    assert run.passed(("k1", "v4", 10_000), ("k1", "v5", 10_001)) == [("k1", "v5", 10_001)]
    assert run.driver.dropped_records == 3


def test_an_earlier_record_that_comes_later_is_a_repetition_too() -> None:
    run = Run(lambda stream: stream.deduplicate(TEN))
    assert run.passed(("a", "1", 20_000), ("a", "2", 10_000), ("a", "3", 9_999)) == [
        ("a", "1", 20_000),
        ("a", "3", 9_999),
    ]


def test_ids_are_compared_among_records_of_a_key() -> None:
    run = Run(lambda stream: stream.deduplicate(TEN, id_selector=lambda key, value: value[:1]))
    records: list[Input] = [("a", "x1", 0), ("a", "y1", 0), ("b", "x1", 0), ("a", "x2", 1), ("b", "y2", 1)]
    assert run.passed(*records) == [("a", "x1", 0), ("a", "y1", 0), ("b", "x1", 0), ("b", "y2", 1)]


def test_keys_and_ids_do_not_run_into_each_other() -> None:
    run = Run(lambda stream: stream.deduplicate(TEN, id_selector=lambda key, value: value, id=str))
    assert len(run.passed(("a", "bc", 0), ("ab", "c", 0))) == 2


def test_what_has_no_key_or_no_id_passes() -> None:
    run = Run(lambda stream: stream.deduplicate(TEN, id_selector=lambda key, value: value or None))
    records: list[Input] = [(None, "x", 0), (None, "x", 0), ("a", "", 0), ("a", "", 0)]
    assert run.passed(*records) == records


def test_behind_a_change_of_key_it_goes_through_a_topic() -> None:
    by_value = topology(lambda stream: stream.select_key(lambda key, value: value).deduplicate(TEN, name="once"))
    assert list(by_value.repartition_topics) == ["once-repartition"]
    run = Run(lambda stream: stream.select_key(lambda key, value: value).deduplicate(TEN))
    assert run.passed(("a", "x", 0), ("b", "x", 1)) == [("x", "x", 0)]


def test_the_store_is_a_window_store_that_forgets() -> None:
    spec = topology(lambda stream: stream.deduplicate(TEN, store="seen")).stores["seen"]
    assert isinstance(spec, WindowStoreSpec)
    assert (spec.kind, spec.retention_ms) == ("window", 20_001)
    longer = Materialized(name="seen", retention=timedelta(hours=1), persistent=False)
    spec = topology(lambda stream: stream.deduplicate(TEN, store=longer)).stores["seen"]
    assert isinstance(spec, WindowStoreSpec)
    assert (spec.retention_ms, spec.persistent) == (3_600_000, False)


@pytest.mark.parametrize("within", [10, timedelta(seconds=-1), None])
def test_the_span_of_time_is_a_timedelta(within: Any) -> None:
    with pytest.raises(TopologyError, match="within= of deduplicate"):
        topology(lambda stream: stream.deduplicate(within))


def test_a_store_must_not_forget_too_soon() -> None:
    short = Materialized(retention=TEN)
    with pytest.raises(TopologyError, match="KSTREAM-DEDUPLICATE-0000000002: a retention of 10000 ms"):
        topology(lambda stream: stream.deduplicate(TEN, store=short))


records = st.lists(st.tuples(st.sampled_from("ab"), st.just("v"), st.integers(0, 12)), max_size=30)


@given(records, st.integers(0, 5), st.integers(0, 30), st.sampled_from([keep_disks, lose_disks]))
def test_it_does_what_it_says(
    sent: list[Input], within_ms: int, restart_at: int, restart: Callable[[TopologyTestDriver], None]
) -> None:
    store = Materialized(retention=timedelta(seconds=1))
    run = Run(lambda stream: stream.deduplicate(timedelta(milliseconds=within_ms), store=store))
    let_through: list[Input] = []
    for number, record in enumerate(sent):
        if number == restart_at:
            restart(run.driver)
        key, _, timestamp = record
        repeats = any(k == key and abs(t - timestamp) <= within_ms for k, _, t in let_through)
        assert run.passed(record) == ([] if repeats else [record])
        if not repeats:
            let_through.append(record)
