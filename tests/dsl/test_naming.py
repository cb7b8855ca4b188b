"""Names under which something is kept: strict naming asks for one's own, optimization shares topics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from streamlib import KStream, StreamsBuilder, TopologyError
from streamlib.testing import TopologyTestDriver

STEPS: dict[str, tuple[Callable[[KStream[str, str]], Any], str]] = {
    "count": (lambda s: s.group_by_key().count(), r"KSTREAM-AGGREGATE-STATE-STORE-0000000001.* by count\(store=...\)"),
    "reduce": (lambda s: s.group_by_key().reduce(max), r"KSTREAM-REDUCE-STATE-STORE-0000000001.* by reduce\(store="),
    "to_table": (
        lambda s: s.to_table().join(s.to_table(store="t"), lambda one, two: one),
        r"KSTREAM-TOTABLE-STATE-STORE-0000000002.* by to_table\(store=",
    ),
    "repartition": (lambda s: s.repartition(), r"KSTREAM-REPARTITION-0000000001-repartition.* by repartition\(name="),
    "join": (
        lambda s: s.select_key(lambda k, v: v).join(s.to_table(store="t"), lambda one, two: one),
        r"KSTREAM-KEY-SELECT-0000000001-repartition.*by group_by\(name=...\), join\(name=...\)",
    ),
}


@pytest.mark.parametrize("step", STEPS)
def test_strict_naming_refuses_a_generated_name_and_says_what_to_give(step: str) -> None:
    attach, message = STEPS[step]
    attach(StreamsBuilder().stream("in", key=str, value=str))
    strict = StreamsBuilder(strict_naming=True).stream("in", key=str, value=str)
    with pytest.raises(TopologyError, match=message):
        attach(strict)


def test_strict_naming_leaves_names_alone_under_which_nothing_is_kept() -> None:
    builder = StreamsBuilder(strict_naming=True)
    table = builder.table("rows", key=str, value=str)
    table.to_stream().map_values(str.upper).to("out")
    grouped = builder.stream("in", key=str, value=str).group_by(lambda k, v: v)
    grouped.count(store="counts").to_stream().to("counts")
    assert list(builder.build().stores) == ["counts"]


def test_a_table_that_has_to_be_kept_needs_a_name() -> None:
    builder = StreamsBuilder(strict_naming=True)
    table = builder.table("rows", key=str, value=str)
    stream = builder.stream("in", key=str, value=str)
    with pytest.raises(TopologyError, match=r"rows-STATE-STORE-0000000000.* by table\(store="):
        stream.join(table, lambda one, two: one)


def shared(*, optimize: bool) -> StreamsBuilder:
    builder = StreamsBuilder(optimize=optimize)
    by_word = builder.stream("in", key=str, value=str).select_key(lambda k, v: v)
    by_word.group_by_key().count(store="c").to_stream().to("counts")
    table = by_word.to_table(store="latest")
    by_word.left_join(table, lambda one, two: f"{one}{two}").to("joined")
    by_word.repartition(name="own").to("own")
    return builder


def test_optimization_shares_a_repartition_topic_among_all_steps_after_a_node() -> None:
    assert len(shared(optimize=False).build().repartition_topics) == 4
    assert list(shared(optimize=True).build().repartition_topics) == ["c-repartition", "own-repartition"]


def test_optimization_changes_no_result() -> None:
    results = []
    for optimize in (False, True):
        with TopologyTestDriver(shared(optimize=optimize).build()) as driver:
            driver.input_topic("in", key=str, value=str).pipe_key_values([("a", "x"), ("b", "y"), ("c", "x")])
            outputs = [driver.output_topic(topic, key=str, value=bytes) for topic in ("counts", "joined", "own")]
            results.append([each.read_records() for each in outputs])
    assert results[0] == results[1]
    assert all(results[0])


def test_steps_that_write_other_types_do_not_share() -> None:
    builder = StreamsBuilder(optimize=True)
    by_word = builder.stream("in", key=str, value=str).select_key(lambda k, v: v)
    by_word.group_by_key().count(store="one")
    by_word.group_by_key(value=bytes).count(store="two")
    assert list(builder.build().repartition_topics) == ["one-repartition", "two-repartition"]
