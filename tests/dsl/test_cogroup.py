"""Several streams folded into one table: what comes out, in windows too, how it is named, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlib import CogroupedKStream, KTable, SessionWindows, SlidingWindows, StreamsBuilder, TimeWindows
from streamlib import TopologyError as Refused
from streamlib.testing import TopologyTestDriver
from streamlib.topology.nodes import ProcessorNode
from tests.testing.restarts import keep_disks, lose_disks

Records = list[tuple[str, str, str | None, int]]
"""Topic, key, value, timestamp."""


def ms(milliseconds: int) -> timedelta:
    return timedelta(milliseconds=milliseconds)


def appended(key: str, value: str, text: str) -> str:
    return text + value


def both(builder: StreamsBuilder) -> CogroupedKStream[str, str]:
    one, two = (builder.stream(topic, key=str, value=str).group_by_key() for topic in ("one", "two"))
    return one.cogroup(appended).cogroup(two, lambda key, value, text: text + value.upper())


class Run:
    """A driver of a table made of the topics `one` and `two`."""

    def __init__(self, make_table: Callable[[StreamsBuilder], KTable[Any, Any]]) -> None:
        builder = StreamsBuilder()
        table = make_table(builder)
        table.to_stream().to("out")
        self.driver = TopologyTestDriver(builder.build())
        self.inputs = {topic: self.driver.input_topic(topic, key=str, value=str) for topic in ("one", "two")}
        self.out = self.driver.output_topic("out", key=table._point.key, value=table._point.value)

    def emitted(self, records: Records) -> list[tuple[Any, Any]]:
        for topic, key, value, timestamp in records:
            self.inputs[topic].pipe_input(key, value, timestamp)
        return self.out.read_key_values()


def test_c34_each_stream_goes_into_the_same_rows() -> None:
    run = Run(lambda builder: both(builder).aggregate(str, store="texts"))
    records: Records = [("one", "k1", "A", 0), ("one", "k2", "B", 0), ("two", "k2", "b", 0), ("two", "k1", "a", 0)]
    assert run.emitted(records) == [("k1", "A"), ("k2", "B"), ("k2", "BB"), ("k1", "AA")]
    assert run.emitted([("one", "k1", None, 0)]) == []
    assert dict(run.driver.store("texts").items()) == {"k1": "AA", "k2": "BB"}


def test_a_cogroup_of_one_stream_is_an_aggregation() -> None:
    run = Run(
        lambda builder: (
            builder.stream(["one", "two"], key=str, value=str).group_by_key().cogroup(appended).aggregate(str)
        )
    )
    assert run.emitted([("one", "k", "a", 0), ("two", "k", "b", 0)]) == [("k", "a"), ("k", "ab")]


STEPS = st.lists(
    st.tuples(st.sampled_from(["one", "two"]), st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(0, 60)),
    max_size=25,
)
WINDOWED: list[Callable[[StreamsBuilder], KTable[Any, Any]]] = [
    lambda builder: both(builder).aggregate(str),
    lambda builder: both(builder).windowed_by(TimeWindows.of_size(ms(10), grace=ms(5))).aggregate(str),
    lambda builder: both(builder).windowed_by(SlidingWindows.of_time_difference(ms(9), grace=ms(5))).aggregate(str),
    lambda builder: (
        both(builder)
        .windowed_by(SessionWindows.of_inactivity_gap(ms(9), grace=ms(5)))
        .aggregate(str, lambda key, one, other: one + other)
    ),
]


@pytest.mark.parametrize("make_table", WINDOWED)
@given(STEPS)
def test_with_one_stream_for_both_inputs_the_results_are_the_same(
    make_table: Callable[[StreamsBuilder], KTable[Any, Any]], records: Records
) -> None:
    """In time order no record is late, so which of the inputs a record comes from only shows in its letter."""
    ordered = sorted(records, key=lambda record: record[3])
    mixed = Run(make_table).emitted(ordered)
    alone = Run(make_table).emitted([("one", key, value, timestamp) for _, key, value, timestamp in ordered])
    assert [(key, value and value.lower()) for key, value in mixed] == alone


@pytest.mark.parametrize("restart", [keep_disks, lose_disks])
@pytest.mark.parametrize("make_table", WINDOWED)
@given(STEPS, st.integers(0, 25))
def test_a_restart_changes_nothing(
    restart: Callable[[TopologyTestDriver], None],
    make_table: Callable[[StreamsBuilder], KTable[Any, Any]],
    records: Records,
    at_number: int,
) -> None:
    steady, shaken = Run(make_table), Run(make_table)
    for number, record in enumerate(records):
        if number == at_number:
            restart(shaken.driver)
        assert shaken.emitted([record]) == steady.emitted([record])


def test_a_group_of_a_cogrouped_table_counts_each_row_once() -> None:
    def lengths(builder: StreamsBuilder) -> KTable[int, int]:
        table = both(builder).aggregate(str)
        return table.group_by(lambda key, text: (len(text), text), key=int, value=str).count()

    run = Run(lengths)
    assert run.emitted([("one", "k", "a", 0), ("two", "k", "b", 0)])[-2:] == [(1, 0), (2, 1)]


def test_a_cogrouped_table_can_be_joined_with_the_windows_of_another() -> None:
    def joined(builder: StreamsBuilder) -> KTable[str, str]:
        texts = both(builder).aggregate(str)
        return texts.join(texts.map_values(len), lambda text, length: f"{text}{length}", result=str)

    assert Run(joined).emitted([("one", "k", "a", 0)])[-1] == ("k", "a1")


# -- Names -----------------------------------------------------------------------------------------------------------


def node_names(builder: StreamsBuilder) -> list[str]:
    nodes = builder.build().nodes.values()
    return [node.name for node in nodes if isinstance(node, ProcessorNode)]


def test_a_name_is_that_of_all_nodes() -> None:
    builder = StreamsBuilder()
    both(builder).aggregate(str, name="texts", store="s")
    assert node_names(builder) == ["texts-cogroup-agg-0", "texts-cogroup-agg-1", "texts-cogroup-merge"]


def test_a_store_without_a_name_is_called_after_the_cogroup() -> None:
    builder = StreamsBuilder()
    both(builder).aggregate(str)
    assert list(builder.build().stores) == ["COGROUPKSTREAM-AGGREGATE-STATE-STORE-0000000002"]


def test_further_aggregations_of_a_cogroup_use_the_topics_of_the_first() -> None:
    builder = StreamsBuilder()
    one = builder.stream("one", key=str, value=str).group_by(lambda key, value: value)
    two = builder.stream("two", key=str, value=str).group_by_key()
    cogrouped = one.cogroup(appended).cogroup(two, appended)
    cogrouped.aggregate(str, store="all")
    cogrouped.windowed_by(TimeWindows.of_size(ms(10), grace=ms(0))).aggregate(str, store="windows")
    topology = builder.build()
    assert list(topology.repartition_topics) == ["all-repartition"]
    assert topology.copartition_groups[0] == {"all-repartition", "two"}


# -- What is refused -------------------------------------------------------------------------------------------------


def test_a_group_can_only_be_in_it_once() -> None:
    group = StreamsBuilder().stream("in", key=str, value=str).group_by_key()
    with pytest.raises(Refused, match="cogroup has the group of KSTREAM-SOURCE-0000000000 twice"):
        group.cogroup(appended).cogroup(group, appended)


def test_streams_grow_in_one_topology() -> None:
    one, two = (StreamsBuilder().stream("in", key=str, value=str).group_by_key() for _ in range(2))
    with pytest.raises(Refused, match="two StreamsBuilders"):
        one.cogroup(appended).cogroup(two, appended)


def test_two_streams_that_go_through_topics_need_names() -> None:
    builder = StreamsBuilder()
    one, two = (
        builder.stream(topic, key=str, value=str).group_by(lambda key, value: value) for topic in ("one", "two")
    )
    with pytest.raises(Refused, match="two repartition topics are called 's-repartition'"):
        one.cogroup(appended).cogroup(two, appended).aggregate(str, store="s")


@pytest.mark.parametrize("windows", [5, ms(5), None])
def test_windows_are_windows(windows: Any) -> None:
    cogrouped = both(StreamsBuilder())
    with pytest.raises(Refused, match="windowed_by needs windows"):
        cogrouped.windowed_by(windows)


def test_functions_are_functions() -> None:
    group: Any = StreamsBuilder().stream("in", key=str, value=str).group_by_key()
    with pytest.raises(Refused, match="cogroup needs a function, not 5"):
        group.cogroup(5)
    with pytest.raises(Refused, match="aggregate needs a function, not 0"):
        group.cogroup(appended).aggregate(0)
