"""Tables: joined, regrouped, transformed; which of them send old values; what is refused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from operator import add, sub
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlib import KTable, Materialized, Stores, StreamsBuilder, Topology, TopologyError
from streamlib.errors import ProcessingError
from streamlib.testing import TopologyTestDriver
from streamlib.topology.nodes import ProcessorNode

Update = tuple[str, str | None, str | None, int]
"""Topic, key, value, timestamp."""
Emitted = tuple[str | None, Any, int]


def text_table(builder: StreamsBuilder, topic: str, **options: Any) -> KTable[str, str]:
    return builder.table(topic, key=str, value=str, **options)


def emitted(steps: Callable[[StreamsBuilder], KTable[Any, Any]], *updates: Update) -> list[list[Emitted]]:
    """What the table's changes are, for each update of text topics."""
    builder = StreamsBuilder()
    table = steps(builder)
    table.to_stream().to("out")
    with TopologyTestDriver(builder.build()) as driver:
        out = driver.output_topic("out", key=table._point.key, value=table._point.value)
        steps_out = []
        for topic, key, value, timestamp in updates:
            driver.input_topic(topic, key=str, value=str).pipe_input(key, value, timestamp_ms=timestamp)
            steps_out.append([(record.key, record.value, record.timestamp) for record in out.read_records()])
        return steps_out


# -- Joins: the two inputs of Kafka Streams' own join tests, one record after the other ------------------------------

LEFT_AND_RIGHT: list[tuple[str, str | None, int]] = [
    ("L", None, 1), ("R", None, 2), ("L", "A", 3), ("R", "a", 4), ("L", "B", 5), ("R", "b", 6), ("L", None, 7),
    ("R", None, 8), ("L", "C", 9), ("R", "c", 10), ("R", None, 11), ("L", None, 12), ("R", None, 13), ("R", "d", 7),
    ("L", "D", 6), ("L", None, 2), ("R", None, 3), ("R", "e", 14), ("L", "E", 15), ("L", None, 10), ("R", None, 9),
    ("L", "F", 4), ("R", "f", 3),
]  # fmt: skip


def joined_by(method: str, **options: Any) -> Callable[[StreamsBuilder], KTable[Any, Any]]:
    def steps(builder: StreamsBuilder) -> KTable[Any, Any]:
        left, right = text_table(builder, "L"), text_table(builder, "R")
        return getattr(left, method)(right, lambda x, y: f"{x or 'null'}-{y or 'null'}", **options)  # type: ignore[no-any-return]

    return steps


@pytest.mark.parametrize("store", [None, "joined", Materialized(persistent=False)])
@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (
            "join",
            "- - - A-a@4 B-a@5 B-b@6 null@7 - - C-c@10 null@11 - - - D-d@7 null@7 - - E-e@15 null@14 - - F-f@4",
        ),
        (
            "left_join",
            "- - A-null@3 A-a@4 B-a@5 B-b@6 null@7 - C-null@9 C-c@10 C-null@11 null@12 - - D-d@7 null@7 - - E-e@15 "
            "null@14 - F-null@4 F-f@4",
        ),
        (
            "outer_join",
            "- - A-null@3 A-a@4 B-a@5 B-b@6 null-b@7 null@8 C-null@9 C-c@10 C-null@11 null@12 - null-d@7 D-d@7 "
            "null-d@7 null@3 null-e@14 E-e@15 null-e@14 null@9 F-null@4 F-f@4",
        ),
    ],
)
def test_joins_of_tables_emit_what_kafka_streams_does(method: str, expected: str, store: Any) -> None:
    updates = [(side, "0", value, timestamp) for side, value, timestamp in LEFT_AND_RIGHT]
    got = emitted(joined_by(method, store=store), *updates)
    shown = [
        f"{value or 'null'}@{timestamp}" for [(_, value, timestamp)] in ([*step] or [("", "-", 0)] for step in got)
    ]
    assert [text.removesuffix("@0") if text == "-@0" else text for text in shown] == expected.split()


TEXTS = st.none() | st.sampled_from("abc")
SIDES = st.lists(st.tuples(st.sampled_from("LR"), st.sampled_from("kq"), TEXTS, st.integers(0, 9)), max_size=30)


@given(SIDES, st.sampled_from(["join", "left_join", "outer_join"]), st.sampled_from([None, "joined"]))
def test_a_joined_table_has_the_rows_of_a_join_by_hand(
    updates: list[tuple[str, str, str | None, int]], method: str, store: str | None
) -> None:
    got = emitted(joined_by(method, store=store), *updates)
    final = {key: value for step in got for key, value, _ in step if value is not None}
    sides: dict[str, dict[str, str]] = {"L": {}, "R": {}}
    for side, key, value, _ in updates:
        if value is None:
            sides[side].pop(key, None)
        else:
            sides[side][key] = value
    left, right = sides["L"], sides["R"]
    keys = {"join": left.keys() & right.keys(), "left_join": left.keys(), "outer_join": left.keys() | right.keys()}
    last = {key: value for step in got for key, value, _ in step}
    assert {key for key, value in last.items() if value is not None} == keys[method]
    assert {key: final[key] for key in keys[method]} == {
        key: f"{left.get(key, 'null')}-{right.get(key, 'null')}" for key in keys[method]
    }


@given(SIDES, st.sampled_from(["join", "left_join", "outer_join"]), st.sampled_from([None, "joined"]))
def test_old_values_of_a_joined_table_keep_a_sum_right(
    updates: list[tuple[str, str, str | None, int]], method: str, store: str | None
) -> None:
    """Only if each change says what it replaces do the counts by value come out."""

    def steps(builder: StreamsBuilder) -> KTable[Any, Any]:
        return joined_by(method, store=store)(builder).group_by(lambda key, row: (row, key)).count()

    counts = {key: value for step in emitted(steps, *updates) for key, value, _ in step}
    rows = {key: value for step in emitted(joined_by(method), *updates) for key, value, _ in step}
    expected: dict[str | None, int] = defaultdict(int)
    for row in rows.values():
        expected[row] += row is not None
    assert {row: count for row, count in counts.items() if count} == {row: n for row, n in expected.items() if n}


def test_a_joined_table_without_a_store_can_be_looked_up() -> None:
    def steps(builder: StreamsBuilder) -> KTable[Any, Any]:
        joined = joined_by("outer_join")(builder)
        return joined.filter(lambda key, row: "x" not in row).left_join(
            text_table(builder, "third"), lambda row, third: f"{row}+{third}"
        )

    third = ("third", "k", "t", 9)
    assert emitted(steps, ("L", "k", "a", 5), ("R", "k", "b", 7), third)[2] == [("k", "a-b+t", 9)]
    assert emitted(steps, ("L", "k", "a", 5), third)[1] == [("k", "a-null+t", 9)]
    assert emitted(steps, ("L", "k", "x", 5), third)[1] == []
    assert emitted(steps, third) == [[]]


def test_both_sides_of_a_join_may_be_the_same_table() -> None:
    def steps(builder: StreamsBuilder) -> KTable[Any, Any]:
        table = text_table(builder, "in")
        return table.join(table, lambda x, y: f"{x}{y}")

    assert emitted(steps, ("in", "k", "a", 5)) == [[("k", "aa", 5), ("k", "aa", 5)]]


def test_a_named_join_names_its_nodes() -> None:
    builder = StreamsBuilder()
    joined_by("join", name="pair")(builder)
    assert list(builder.build().nodes)[-3:] == ["pair-join-this", "pair-join-other", "pair"]


# -- Groups ----------------------------------------------------------------------------------------------------------


def log(group: Callable[[str, str], tuple[Any, Any]]) -> Callable[[StreamsBuilder], KTable[str, str]]:
    """Writes down what is added to a group and taken from it."""

    def steps(builder: StreamsBuilder) -> KTable[str, str]:
        return (
            text_table(builder, "in")
            .group_by(group)
            .aggregate(lambda: "0", lambda key, v, text: f"{text}+{v}", lambda key, v, text: f"{text}-{v}", value=str)
        )

    return steps


def changes(got: list[list[Emitted]]) -> str:
    return " ".join(f"{key}:{value}@{timestamp}" for step in got for key, value, timestamp in step)


def test_a_group_that_stays_gets_one_change() -> None:
    updates: list[Update] = [
        ("in", "A", "1", 10), ("in", "B", "2", 15), ("in", "A", "3", 20), ("in", "B", "4", 18), ("in", "C", "5", 5),
        ("in", "D", "6", 25), ("in", "B", "7", 15), ("in", "C", "8", 10),
    ]  # fmt: skip
    assert changes(emitted(log(lambda key, v: (key, v)), *updates)) == (
        "A:0+1@10 B:0+2@15 A:0+1-1+3@20 B:0+2-2+4@18 C:0+5@5 D:0+6@25 B:0+2-2+4-4+7@18 C:0+5-5+8@10"
    )


def test_a_group_that_changes_loses_the_old_value_first_and_nulls_belong_to_none() -> None:
    def group(key: str, value: str) -> tuple[str | None, str | None]:
        return None if key == "null" else value, None if key == "NULL" else value

    updates: list[Update] = [
        ("in", "A", "1", 10), ("in", "A", None, 15), ("in", "A", "1", 12), ("in", "B", "2", 20),
        ("in", "null", "3", 25), ("in", "B", "4", 23), ("in", "NULL", "5", 24), ("in", "B", "7", 22),
    ]  # fmt: skip
    assert changes(emitted(log(group), *updates)) == (
        "1:0+1@10 1:0+1-1@15 1:0+1-1+1@15 2:0+2@20 2:0+2-2@23 4:0+4@23 4:0+4-4@23 7:0+7@22"
    )


def test_rows_are_counted_by_value() -> None:
    updates: list[Update] = [
        ("in", "A", "green", 10), ("in", "B", "green", 9), ("in", "A", "blue", 12), ("in", "C", "yellow", 15),
        ("in", "D", "green", 11),
    ]  # fmt: skip
    got = emitted(lambda b: text_table(b, "in").group_by(lambda key, value: (value, key)).count(), *updates)
    assert changes(got) == "green:1@10 green:2@10 green:1@12 blue:1@12 yellow:1@15 green:2@12"


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("filter", "A:None@10 B:2@5 C:None@8 D:4@14 A:None@18 B:None@15"),
        ("filter_not", "A:1@10 B:None@5 C:3@8 D:None@14 A:None@18 B:None@15"),
    ],
)
def test_rows_that_fail_a_filter_become_deletes(method: str, expected: str) -> None:
    updates: list[Update] = [
        ("in", "A", "1", 10), ("in", "B", "2", 5), ("in", "C", "3", 8), ("in", "D", "4", 14), ("in", "A", None, 18),
        ("in", "B", None, 15),
    ]  # fmt: skip
    got = emitted(lambda b: getattr(text_table(b, "in"), method)(lambda key, v: int(v) % 2 == 0), *updates)
    assert changes(got) == expected


ROWS = st.lists(st.tuples(st.sampled_from("abcd"), st.none() | st.integers(0, 9)), max_size=40)


@given(ROWS)
def test_an_aggregate_kept_up_to_date_is_one_made_anew(updates: list[tuple[str, int | None]]) -> None:
    builder = StreamsBuilder()
    table = builder.table("in", key=str, value=int).filter(lambda key, value: value != 5)
    parity = table.group_by(lambda key, value: (value % 2, value), key=int, name="by-parity")
    parity.reduce(add, sub, store="sums")
    parity.count(store="counts")
    parity.aggregate(list, lambda key, v, all_: sorted([*all_, v]), without, store="members", value=list[int])
    with TopologyTestDriver(builder.build()) as driver:
        driver.input_topic("in", key=str, value=int).pipe_key_values(updates)
        rows = {key: value for key, value in dict(updates).items() if value is not None and value != 5}
        groups = {group: sorted(v for v in rows.values() if v % 2 == group) for group in (0, 1)}
        for group, members in groups.items():
            if members:
                assert driver.store("sums").get(group) == sum(members)
                assert driver.store("members").get(group) == members
            assert (driver.store("counts").get(group) or 0) == len(members)


def without(key: int, value: int, members: list[int]) -> list[int]:
    members.remove(value)  # changes the list it is given, which must not change the old value
    return members


def test_an_aggregator_may_change_the_aggregate_it_is_given() -> None:
    def steps(builder: StreamsBuilder) -> KTable[Any, Any]:
        def put(key: str, value: str, members: list[str]) -> list[str]:
            members.append(value)
            return members

        def drop(key: str, value: str, members: list[str]) -> list[str]:
            members.remove(value)
            return members

        members = text_table(builder, "in").group_by(lambda key, v: ("all", v)).aggregate(list, put, drop)
        return members.group_by(lambda key, v: (len(v), key), key=int, value=str).count()

    got = emitted(steps, ("in", "a", "x", 1), ("in", "b", "y", 2), ("in", "a", None, 3))
    assert changes(got) == "1:1@1 1:0@2 2:1@2 2:0@3 1:1@3"


def test_aggregations_of_a_named_group_share_its_topic() -> None:
    builder = StreamsBuilder()
    grouped = text_table(builder, "in").group_by(lambda key, v: (v, key), name="by-value")
    grouped.count()
    grouped.count(name="again")
    topology = builder.build()
    assert list(topology.repartition_topics) == ["by-value-repartition"]
    counts = ["KTABLE-AGGREGATE-STATE-STORE-0000000004", "KTABLE-AGGREGATE-STATE-STORE-0000000008"]
    assert list(topology.stores) == ["in-STATE-STORE-0000000000", *counts]
    assert list(topology.nodes)[-2:] == ["KTABLE-AGGREGATE-0000000007", "again"]


def test_a_named_aggregation_names_its_nodes() -> None:
    builder = StreamsBuilder()
    text_table(builder, "in").group_by(lambda key, v: (v, key)).count(name="counted", store="counts")
    assert list(builder.build().nodes)[-3:] == ["counted-sink", "counted-source", "counted"]


def test_what_a_selector_or_an_aggregator_raises_names_the_node() -> None:
    def fail(*arguments: Any) -> Any:
        raise ValueError("no")

    with pytest.raises(ProcessingError, match=r"node KTABLE-SELECT-\d+: ValueError: no \(key 'k'\)"):
        emitted(lambda b: text_table(b, "in").group_by(fail).count(), ("in", "k", "v", 0))
    updates: list[Update] = [("in", "k", "v", 0), ("in", "q", "v", 0)]
    with pytest.raises(ProcessingError, match=r"node KTABLE-REDUCE-\d+: ValueError: no \(key 'g'\)"):
        emitted(lambda b: text_table(b, "in").group_by(lambda k, v: ("g", v)).reduce(fail, fail), *updates)


# -- Transformed values ----------------------------------------------------------------------------------------------


class Numbered:
    """Appends how often the key was seen."""

    def init(self, context: Any) -> None:
        self.seen = context.state_store("seen")

    def transform(self, key: str, value: str | None) -> str | None:
        self.seen.put(key, (self.seen.get(key) or 0) + 1)
        return None if value is None else f"{value}#{self.seen.get(key)}"


SEEN = Stores.key_value_store("seen", key=str, value=int)


def test_a_transformer_is_asked_about_deletes_too() -> None:
    updates: list[Update] = [("in", "k", "a", 1), ("in", "k", None, 2), ("in", "k", "b", 3)]
    got = emitted(lambda b: text_table(b, "in").transform_values(Numbered, SEEN, store="numbered"), *updates)
    assert got == [[("k", "a#1", 1)], [("k", None, 2)], [("k", "b#3", 3)]]


def test_rows_that_are_not_stored_are_transformed_when_they_are_looked_up() -> None:
    made: list[str] = []

    class Shout:
        def init(self, context: Any) -> None:
            made.append(context.application_id)

        def transform(self, key: str, value: str | None) -> str:
            return "nobody" if value is None else value.upper()

    def steps(builder: StreamsBuilder) -> KTable[Any, Any]:
        shouted = text_table(builder, "in").transform_values(Shout)
        return text_table(builder, "other").left_join(shouted, lambda x, y: f"{x}&{y}")

    got = emitted(steps, ("other", "k", "a", 3), ("in", "k", "b", 1), ("other", "k", "c", 2))
    assert got == [[("k", "a&nobody", 3)], [("k", "a&B", 3)], [("k", "c&B", 2)]]
    assert made == ["app", "app"]  # one for the changes, one for the look-ups


def test_a_transformer_cannot_forward() -> None:
    class Forwarding:
        def init(self, context: Any) -> None:
            self.context = context

        def transform(self, key: str, value: str | None) -> str:
            self.context.forward(self.context.record_metadata)
            return ""

    with pytest.raises((ProcessingError, TopologyError), match="node KTABLE-TRANSFORMVALUES"):
        emitted(lambda b: text_table(b, "in").transform_values(Forwarding), ("in", "k", "a", 1))


# -- Old values ------------------------------------------------------------------------------------------------------


def senders(topology: Topology) -> set[str]:
    """The kinds of nodes that send old values."""
    nodes = topology.nodes.values()
    return {type(node.operator).__name__ for node in nodes if isinstance(node, ProcessorNode) and node.sends_old_values}


@pytest.mark.parametrize(
    ("source_store", "map_store", "expected"),
    [
        (None, None, set()),
        ("rows", None, {"TableSource", "TableMapValues", "TableFilter"}),
        (None, "mapped", {"TableMapValues", "TableFilter"}),
        ("rows", "mapped", {"TableMapValues", "TableFilter"}),
    ],
)
def test_a_filter_gets_old_values_where_the_table_it_filters_knows_them(
    source_store: str | None, map_store: str | None, expected: set[str]
) -> None:
    builder = StreamsBuilder()
    mapped = text_table(builder, "in", store=source_store).map_values(str, store=map_store)
    mapped.filter(lambda key, value: True).map_values(str)
    assert senders(builder.build()) == expected


def test_grouping_makes_a_source_table_keep_its_rows() -> None:
    builder = StreamsBuilder()
    text_table(builder, "in").map_values(str).group_by(lambda key, value: (value, key)).count()
    topology = builder.build()
    assert senders(topology) == {"TableSource", "TableMapValues"}
    assert "in-STATE-STORE-0000000000" in topology.stores


def test_a_filter_over_a_join_gets_old_values_from_both_sides() -> None:
    builder = StreamsBuilder()
    joined_by("join")(builder).filter(lambda key, value: True)
    assert senders(builder.build()) == {"TableSource", "TableJoin", "TableJoinMerge", "TableFilter"}


# -- Stores ----------------------------------------------------------------------------------------------------------

IN_MEMORY = Materialized(name="kept", persistent=False, changelog=False, changelog_config={"segment.bytes": "1"})


@pytest.mark.parametrize(
    "steps",
    [
        lambda b: text_table(b, "in", store=IN_MEMORY),
        lambda b: b.stream("in", key=str, value=str).to_table(store=IN_MEMORY),
        lambda b: text_table(b, "in").filter(lambda key, value: True, store=IN_MEMORY),
        lambda b: text_table(b, "in").map_values(str, store=IN_MEMORY),
        lambda b: text_table(b, "in").transform_values(Numbered, SEEN, store=IN_MEMORY),
        lambda b: text_table(b, "in").join(text_table(b, "other"), add, store=IN_MEMORY),
        lambda b: text_table(b, "in").group_by(lambda key, value: (value, key)).count(store=IN_MEMORY),
        lambda b: b.stream("in", key=str, value=str).group_by_key().count(store=IN_MEMORY),
        lambda b: b.stream("in", key=str, value=str).group_by_key().reduce(add, store=IN_MEMORY),
    ],
)
def test_a_store_is_kept_as_materialized_says(steps: Callable[[StreamsBuilder], object]) -> None:
    builder = StreamsBuilder()
    steps(builder)
    spec = builder.build().stores["kept"]
    assert (spec.persistent, spec.changelog, spec.changelog_config) == (False, False, {"segment.bytes": "1"})


def test_a_source_table_without_a_name_is_kept_as_it_says_once_something_needs_it() -> None:
    builder = StreamsBuilder()
    table = text_table(builder, "in", store=Materialized(persistent=False))
    assert not builder.build().stores
    table.group_by(lambda key, value: (value, key)).count()
    assert not builder.build().stores["in-STATE-STORE-0000000000"].persistent


# -- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (lambda t: t.filter(lambda k, v: 1, store=Materialized(persistent=False)), r"filter: .* needs a name here"),
        (lambda t: t.map_values(str, store=7), r"store= is a name or Materialized\(\.\.\.\), not 7"),
        (
            lambda t: t.map_values(str, store=Materialized(name="s", retention=timedelta(days=1))),
            "store s: retention= is for windows and sessions",
        ),
        (lambda t: t.join("other", add), "join of tables needs a table on the right, not 'other'"),
        (lambda t: t.left_join(text_table(StreamsBuilder(), "b"), add), "left_join .* two StreamsBuilders"),
        (lambda t: t.outer_join(t, "joiner"), "outer_join needs a function, not 'joiner'"),
        (lambda t: t.group_by(7), "group_by needs a function, not 7"),
        (lambda t: t.group_by(lambda k, v: (v, k)).reduce(add, None), "reduce needs a function, not None"),
        (lambda t: t.group_by(lambda k, v: (v, k), name="no/slash"), "cannot have the name 'no/slash'"),
        (lambda t: t.transform_values(Numbered()), "needs what makes a transformer for each task"),
        (lambda t: t.transform_values(7), "transform_values needs a function, not 7"),
    ],
)
def test_what_does_not_fit_is_refused_when_the_topology_is_built(
    steps: Callable[[KTable[str, str]], object], message: str
) -> None:
    with pytest.raises(TopologyError, match=message):
        steps(text_table(StreamsBuilder(), "in"))
