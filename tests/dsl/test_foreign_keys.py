"""Joins of tables by foreign key: what Kafka Streams' own integration test sees, and what is refused.

Source of the cases: `KTableKTableForeignKeyJoinIntegrationTest`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from streamlib import KTable, Materialized, StreamsBuilder, TopologyError
from streamlib.errors import ProcessingError, SerializationError
from streamlib.foreign_keys import CombinedKey, Instruction
from streamlib.testing import TopologyTestDriver
from streamlib.topology.nodes import SinkNode


def key_in(value: str) -> str | None:
    return value.partition("|")[2] or None


def both(left: str, right: str | None) -> str:
    return f"({left},{right})"


class Join:
    """Two tables joined, record by record: `left("k", "v|fk")` gives what comes out."""

    def __init__(self, *, is_left: bool, **options: Any) -> None:
        builder = StreamsBuilder()
        left, right = (builder.table(topic, key=str, value=str) for topic in ("left", "right"))
        join: Callable[..., KTable[str, str]] = left.left_join if is_left else left.join
        join(right, both, **{"foreign_key": key_in, **options}).to_stream().to("out")
        self.driver = TopologyTestDriver(builder.build())
        self._inputs = {side: self.driver.input_topic(side, key=str, value=str) for side in ("left", "right")}
        self._out = self.driver.output_topic("out", key=str, value=str)

    def left(self, key: str, value: str | None) -> list[tuple[str | None, str | None]]:
        return self._pipe("left", key, value)

    def right(self, key: str, value: str | None) -> list[tuple[str | None, str | None]]:
        return self._pipe("right", key, value)

    def _pipe(self, side: str, key: str, value: str | None) -> list[tuple[str | None, str | None]]:
        self._inputs[side].pipe_input(key, value, timestamp_ms=0)
        return self._out.read_key_values()


either = pytest.mark.parametrize("is_left", [False, True])


@either
def test_joins_from_the_left(is_left: bool) -> None:
    join = Join(is_left=is_left)
    for number in "123":
        assert join.right(f"rhs{number}", f"rhsValue{number}") == []
    assert join.left("lhs1", "lhsValue1|rhs1") == [("lhs1", "(lhsValue1|rhs1,rhsValue1)")]
    assert join.left("lhs2", "lhsValue2|rhs2") == [("lhs2", "(lhsValue2|rhs2,rhsValue2)")]
    assert join.left("lhs3", "lhsValue3|rhs1") == [("lhs3", "(lhsValue3|rhs1,rhsValue1)")]
    assert join.left("lhs1", None) == [("lhs1", None)]


@either
def test_joins_from_the_right(is_left: bool) -> None:
    join = Join(is_left=is_left)
    for key, value in (("lhs1", "lhsValue1|rhs1"), ("lhs2", "lhsValue2|rhs2"), ("lhs3", "lhsValue3|rhs1")):
        assert join.left(key, value) == ([(key, f"({value},None)")] if is_left else [])
    assert join.right("rhs1", "rhsValue1") == [
        ("lhs1", "(lhsValue1|rhs1,rhsValue1)"),
        ("lhs3", "(lhsValue3|rhs1,rhsValue1)"),
    ]
    assert join.right("rhs2", "rhsValue2") == [("lhs2", "(lhsValue2|rhs2,rhsValue2)")]
    assert join.right("rhs3", "rhsValue3") == []
    assert join.right("rhs1", None) == [
        ("lhs1", "(lhsValue1|rhs1,None)" if is_left else None),
        ("lhs3", "(lhsValue3|rhs1,None)" if is_left else None),
    ]


@either
def test_a_delete_is_passed_on_once(is_left: bool) -> None:
    join = Join(is_left=is_left)
    join.left("lhs1", "lhsValue1|rhs1")
    assert join.left("lhs1", None) == [("lhs1", None)]
    assert join.left("lhs1", None) == []
    assert join.left("lhs2", None) == []


@either
def test_a_left_row_moves_between_keys_without_a_row(is_left: bool) -> None:
    join = Join(is_left=is_left)
    join.left("lhs1", "lhsValue1|rhs1")
    for foreign_key in ("rhs2", "rhs3"):
        moved = f"lhsValue1|{foreign_key}"
        assert join.left("lhs1", moved) == [("lhs1", f"({moved},None)" if is_left else None)]
    assert join.right("rhs1", "rhsValue1") == []
    assert join.left("lhs1", "lhsValue1|rhs1") == [("lhs1", "(lhsValue1|rhs1,rhsValue1)")]
    assert join.left("lhs1", "lhsValue1|rhs2") == [("lhs1", "(lhsValue1|rhs2,None)" if is_left else None)]


@either
def test_a_left_row_that_moved_hears_no_more_of_the_old_key(is_left: bool) -> None:
    join = Join(is_left=is_left)
    join.right("rhs1", "rhsValue1")
    join.right("rhs2", "rhsValue2")
    join.left("lhs1", "lhsValue1|rhs1")
    assert join.left("lhs1", "lhsValue1|rhs2") == [("lhs1", "(lhsValue1|rhs2,rhsValue2)")]
    assert join.right("rhs1", "new") == []


@either
def test_no_foreign_key(is_left: bool) -> None:
    join = Join(is_left=is_left)
    assert join.left("lhs1", "lhsValue1") == ([("lhs1", "(lhsValue1,None)")] if is_left else [])
    assert join.left("lhs1", "lhsValue1|rhs1") == ([("lhs1", "(lhsValue1|rhs1,None)")] if is_left else [])
    assert join.left("lhs1", "lhsValue1") == [("lhs1", "(lhsValue1,None)" if is_left else None)]
    assert join.driver.dropped_records == (0 if is_left else 2)


def test_subscriptions_can_be_looked_at() -> None:
    join = Join(is_left=False, name="fk")
    join.left("lhs1", "lhsValue1|rhs1")
    ((key, subscription),) = join.driver.store("fk-subscription-store").items()
    assert key == CombinedKey("rhs1", "lhs1")
    assert subscription[0] is Instruction.SUBSCRIBE
    assert subscription[2:] == (b"lhs1", 0)
    join.left("lhs1", None)
    assert list(join.driver.store("fk-subscription-store").items()) == []


def test_the_key_can_help_to_find_the_foreign_key() -> None:
    join = Join(is_left=False, foreign_key=lambda key, value: key[-1], foreign_key_with_key=True)
    join.right("1", "one")
    assert join.left("lhs1", "value") == [("lhs1", "(value,one)")]


def test_rows_that_are_worked_out_when_needed_are_joined_too() -> None:
    builder = StreamsBuilder()
    left = builder.table("left", key=str, value=int).filter(lambda key, value: value > 1).map_values(str)
    right = builder.table("right", key=int, value=str).map_values(str.upper)
    joined = left.join(right, both, foreign_key=lambda value: int(value) % 10)
    joined.to_stream().to("out", value=str)
    with TopologyTestDriver(builder.build()) as driver:
        out = driver.output_topic("out", key=str, value=str)
        driver.input_topic("left", key=str, value=int).pipe_key_values([("a", 12), ("b", 1), ("c", 32)])
        driver.input_topic("right", key=int, value=str).pipe_key_values([(2, "two"), (1, "one")])
        assert out.read_key_values() == [("a", "(12,TWO)"), ("c", "(32,TWO)")]
        driver.input_topic("left", key=str, value=int).pipe_input("a", 0)
        assert out.read_key_values() == [("a", None)]


def test_changes_of_versioned_tables_that_come_late_are_ignored() -> None:
    builder = StreamsBuilder()
    history = timedelta(minutes=1)
    left, right = (
        builder.table(topic, key=str, value=str, store=Materialized(name=topic, history_retention=history))
        for topic in ("left", "right")
    )
    left.join(right, both, foreign_key=key_in).to_stream().to("out")
    with TopologyTestDriver(builder.build()) as driver:
        out = driver.output_topic("out", key=str, value=str)
        inputs = {topic: driver.input_topic(topic, key=str, value=str) for topic in ("left", "right")}
        inputs["left"].pipe_input("a", "new|x", 20)
        inputs["right"].pipe_input("x", "X", 30)
        assert out.read_key_values() == [("a", "(new|x,X)")]
        inputs["left"].pipe_input("a", "late|y", 10)
        inputs["right"].pipe_input("x", "late", 25)
        assert out.is_empty
        inputs["left"].pipe_input("a", "newer|x", 40)
        assert out.read_key_values() == [("a", "(newer|x,X)")]


def test_the_topic_of_the_other_table_can_have_a_partitioner_of_its_own() -> None:
    asked: list[tuple[str, Any, Any, int]] = []

    def partitioner(topic: str, key: Any, value: Any, partitions: int) -> int:
        asked.append((topic, key, value, partitions))
        return 0

    join = Join(is_left=True, name="fk", other_partitioner=partitioner)
    assert join.left("lhs1", "lhsValue1|rhs1") == [("lhs1", "(lhsValue1|rhs1,None)")]
    assert join.left("lhs1", "lhsValue1") == [("lhs1", "(lhsValue1,None)")]
    topic = "app-fk-subscription-registration-topic"
    assert asked == [(topic, "rhs1", None, 1), (topic, "rhs1", None, 1)]  # come, and gone


def test_a_name_is_what_names_begin_with() -> None:
    topology = Join(is_left=False, name="fk").driver._topology
    assert list(topology.repartition_topics) == [
        "fk-subscription-registration-topic",
        "fk-subscription-response-topic",
    ]
    assert "fk-subscription-store" in topology.stores
    assert {name for name in topology.nodes if name.startswith("fk")} == {
        "fk-foreign-join-subscription",
        "fk-result",
        "fk-subscription-join-foreign",
        "fk-subscription-receive",
        "fk-subscription-registration-processor",
        "fk-subscription-registration-sink",
        "fk-subscription-registration-source",
        "fk-subscription-response-resolver",
        "fk-subscription-response-sink",
        "fk-subscription-response-source",
    }


def test_the_result_has_the_type_its_function_names() -> None:
    def length(left: str, right: str) -> int:
        return len(left)

    builder = StreamsBuilder()
    left, right = (builder.table(topic, key=str, value=str) for topic in ("left", "right"))
    left.join(right, length, foreign_key=key_in).to_stream().to("out")
    node = list(builder.build().nodes.values())[-1]
    assert isinstance(node, SinkNode)
    assert node.value.type is int


# -- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"foreign_key": "name"}, "foreign_key= of join needs a function, not 'name'"),
        ({"foreign_key_with_key": True, "foreign_key": None}, "go with foreign_key="),
        ({"other_partitioner": lambda *_: 0, "foreign_key": None}, "go with foreign_key="),
        ({"other_partitioner": 1}, "other_partitioner= of join needs a function, not 1"),
        ({"name": "no good"}, "cannot have the name"),
    ],
)
def test_misuse_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        Join(is_left=False, **arguments)


def test_something_else_than_a_table_is_refused() -> None:
    builder = StreamsBuilder()
    table, stream = builder.table("left", key=str, value=str), builder.stream("right", key=str, value=str)
    with pytest.raises(TopologyError, match=r"needs a table on the right, .*to_table"):
        table.join(stream, both, foreign_key=key_in)  # type: ignore[call-overload]


def test_tables_of_two_builders_are_refused() -> None:
    one, other = (StreamsBuilder().table("t", key=str, value=str) for _ in range(2))
    with pytest.raises(TopologyError, match="two StreamsBuilders"):
        one.join(other, both, foreign_key=key_in)


def test_a_name_used_twice_is_refused() -> None:
    builder = StreamsBuilder()
    left, right = (builder.table(topic, key=str, value=str) for topic in ("left", "right"))
    left.join(right, both, foreign_key=key_in, name="fk")
    with pytest.raises(TopologyError, match="fk-subscription-registration-topic"):
        left.join(right, both, foreign_key=key_in, name="fk")


def test_a_foreign_key_of_another_type_names_the_node_and_what_to_return() -> None:
    join = Join(is_left=False, name="fk", foreign_key=len)
    with pytest.raises(
        SerializationError, match=r"node fk-subscription-registration-processor: 3, .*'k'.* foreign_key= has to return"
    ):
        join.left("k", "abc")


def test_what_the_functions_raise_names_node_and_key() -> None:
    with pytest.raises(ProcessingError, match=r"node fk-subscription-registration-processor: ZeroDivision.*'k'"):
        Join(is_left=False, name="fk", foreign_key=lambda value: 1 // 0).left("k", "abc")

    builder = StreamsBuilder()
    table = builder.table("t", key=str, value=str)
    table.join(table, lambda left, right: 1 // 0, foreign_key=lambda value: value, name="fk")
    driver = TopologyTestDriver(builder.build())
    with pytest.raises(ProcessingError, match=r"node fk-subscription-response-resolver: ZeroDivision.*'k'"):
        driver.input_topic("t", key=str, value=str).pipe_input("k", "k")
