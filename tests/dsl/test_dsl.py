"""What DSL steps build: names, serdes, repartition topics, stores; and what they refuse."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterator
from typing import Any, Literal

import msgspec
import pytest

from streamlib import BranchedKStream, KGroupedStream, KStream, KTable, Stores, StreamsBuilder, Topology, TopologyError
from streamlib.serdes import Serde, Serdes, serde_for
from streamlib.testing import TopologyTestDriver
from streamlib.topology import operators as op
from streamlib.topology.nodes import ProcessorNode, SinkNode, SourceNode


class Order(msgspec.Struct):
    user: str
    amount: float


class Quiet:
    def init(self, context: Any) -> None: ...
    def process(self, record: Any) -> None: ...


def word_stream() -> tuple[StreamsBuilder, KStream[str, str]]:
    builder = StreamsBuilder()
    return builder, builder.stream("in", key=str, value=str)


def sink_serdes(steps: Callable[[KStream[str, str]], KStream[Any, Any]]) -> tuple[Serde[Any], Serde[Any]]:
    """How keys and values are written after these steps."""
    builder, stream = word_stream()
    steps(stream).to("out")
    node = list(builder.build().nodes.values())[-1]
    assert isinstance(node, SinkNode)
    return node.key, node.value


def repartition_names(topology: Topology) -> list[str]:
    return list(topology.repartition_topics)


# -- Serdes ----------------------------------------------------------------------------------------------------------


def to_order(value: str) -> Order:
    return Order(value, 1.0)


def to_order_or_none(value: str) -> Order | None:
    return None


def to_pair(key: str, value: str) -> tuple[int, Order]:
    return 1, Order(value, 1.0)


def to_pairs(key: str, value: str) -> Iterator[tuple[int, Order]]:
    yield 1, Order(value, 1.0)


def to_numbers(value: str) -> list[int]:
    return [len(value)]


def number_key(key: str, value: str) -> int:
    return len(value)


def number_or_text(value: str) -> Any:
    return value


def something(value: str) -> object:
    return value


def colour(value: str) -> Literal["red", "blue"]:
    return "red"


def number_and_text(value: str) -> tuple[int, str]:
    return 1, value


def any_numbers(value: str) -> tuple[int, ...]:
    return (1, 2)


def generated(value: str) -> Generator[int, None, None]:
    yield 1


class Converter:
    def __call__(self, value: str) -> int:
        return len(value)

    def method(self, value: str) -> bytes:
        return value.encode()


@pytest.mark.parametrize(
    ("steps", "key", "value"),
    [
        (lambda s: s.map_values(lambda v: v), str, str),
        (lambda s: s.map_values(lambda v: 1, value=int), str, int),
        (lambda s: s.map_values(to_order, value=str), str, str),
        (lambda s: s.map_values(len), str, str),
        (lambda s: s.map_values(number_or_text), str, str),
        (lambda s: s.map_values(something), str, str),
        (lambda s: s.map_values(colour), str, str),
        (lambda s: s.map_values(int), str, int),
        (lambda s: s.map_values(Converter()), str, int),
        (lambda s: s.map_values(Converter().method), str, bytes),
        (lambda s: s.map_values(functools.partial(Converter())), str, int),
        (lambda s: s.flat_map_values(to_numbers), str, int),
        (lambda s: s.flat_map_values(any_numbers), str, int),
        (lambda s: s.flat_map_values(generated), str, int),
        (lambda s: s.flat_map_values(number_and_text), str, str),
        (lambda s: s.select_key(number_key), int, str),
        (lambda s: s.select_key(lambda k, v: 1, key=int), int, str),
        (lambda s: s.map(lambda k, v: (1, 2), key=int, value=int), int, int),
        (lambda s: s.group_by_key().count().to_stream(), str, int),
        (lambda s: s.group_by(number_key).count().to_stream(), int, int),
        (lambda s: s.group_by_key().reduce(max).to_stream(), str, str),
        (lambda s: s.group_by_key().aggregate(int, lambda k, v, a: a + 1).to_stream(), str, int),
        (lambda s: s.process(Quiet, value=int), str, int),
        (lambda s: s.repartition(value=bytes), str, bytes),
        (lambda s: s.map_values(to_order, value=None), str, None),
    ],
)
def test_types_come_from_hints_then_annotations_then_upstream(
    steps: Callable[[KStream[str, str]], KStream[Any, Any]], key: Any, value: Any
) -> None:
    assert sink_serdes(steps) == (serde_for(key), serde_for(value))


@pytest.mark.parametrize(
    ("steps", "key"),
    [
        (lambda s: s.map_values(to_order), str),
        (lambda s: s.map_values(to_order_or_none), str),
        (lambda s: s.map(to_pair), int),
        (lambda s: s.flat_map(to_pairs), int),
        (lambda s: s.group_by_key().aggregate(lambda: Order("", 0.0), lambda k, v, a: a, value=Order).to_stream(), str),
    ],
)
def test_structs_are_inferred_too(steps: Callable[[KStream[str, str]], KStream[Any, Any]], key: Any) -> None:
    written_key, written_value = sink_serdes(steps)
    assert written_key == serde_for(key)
    assert written_value.encode(Order("a", 1.0)) == b'{"user":"a","amount":1.0}'


def test_a_serde_may_stand_where_a_type_does() -> None:
    assert sink_serdes(lambda s: s.map_values(len, value=Serdes.integer()))[1] is Serdes.integer()


def test_a_wrong_serde_is_named_with_its_node_and_what_to_do() -> None:
    builder, stream = word_stream()
    stream.map_values(len).to("out")
    with TopologyTestDriver(builder.build()) as driver:
        words = driver.input_topic("in", key=str, value=str)
        with pytest.raises(Exception, match=r"KSTREAM-SINK-0000000002.*string cannot encode int.*value=\.\.\."):
            words.pipe_input("a", "b", timestamp_ms=0)


# -- Repartitioning --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps",
    [
        lambda s: s.map(lambda k, v: (k, v)),
        lambda s: s.flat_map(lambda k, v: [(k, v)]),
        lambda s: s.select_key(lambda k, v: k),
        lambda s: s.process(Quiet),
        lambda s: s.select_key(lambda k, v: k).map_values(str.upper).filter(lambda k, v: True).peek(print),
        lambda s: s.merge(s.select_key(lambda k, v: k)),
        lambda s: s.select_key(lambda k, v: k).split().branch(lambda k, v: True).default_branch().popitem()[1],
        lambda s: s.to_table().to_stream(lambda k, v: k),
    ],
)
def test_a_key_that_may_have_changed_is_repartitioned(steps: Callable[[Any], Any]) -> None:
    builder, stream = word_stream()
    steps(stream).group_by_key().count(store="c")
    assert repartition_names(builder.build()) == ["c-repartition"]


@pytest.mark.parametrize(
    "steps",
    [
        lambda s: s.map_values(str.upper).flat_map_values(str.split).filter_not(lambda k, v: False).peek(print),
        lambda s: s.merge(s.map_values(str.upper)),
        lambda s: s.select_key(lambda k, v: v).repartition(name="r"),
        lambda s: s.to_table().map_values(str.upper).to_stream(),
        lambda s: s.select_key(lambda k, v: v).to_table().to_stream(),
        lambda s: s.select_key(lambda k, v: v).group_by_key().reduce(max).to_stream(),
    ],
)
def test_a_key_that_has_not_is_not(steps: Callable[[Any], Any]) -> None:
    builder, stream = word_stream()
    steps(stream).group_by_key().count(store="c")
    assert "c-repartition" not in repartition_names(builder.build())


def test_a_named_group_goes_through_one_topic_an_unnamed_one_through_one_for_each_aggregation() -> None:
    builder, stream = word_stream()
    named, unnamed = stream.group_by(lambda k, v: v, name="by-word"), stream.group_by(lambda k, v: v)
    for grouped, prefix in ((named, "n"), (unnamed, "u")):
        grouped.count(store=f"{prefix}-count")
        grouped.reduce(max, store=f"{prefix}-max")
    assert repartition_names(builder.build()) == ["by-word-repartition", "u-count-repartition", "u-max-repartition"]


def test_a_reused_group_uses_as_many_numbers_up_as_kafka_streams() -> None:
    builder, stream = word_stream()
    grouped = stream.group_by(lambda k, v: v, name="by-word")  # 1
    grouped.count(store="c")  # 2, and 3 to 5 for the topic
    grouped.reduce(max, store="m").to_stream().to("out")  # 6, and 7 to 9 though there is a topic
    assert [name for name in builder.build().nodes if "-" in name and name[-10:].isdigit()] == [
        "KSTREAM-SOURCE-0000000000",
        "KSTREAM-AGGREGATE-0000000002",
        "KSTREAM-REDUCE-0000000006",
        "KTABLE-TOSTREAM-0000000010",
        "KSTREAM-SINK-0000000011",
    ]


def test_a_repartition_writes_what_the_stream_has_become() -> None:
    builder, stream = word_stream()
    stream.map(to_pair).group_by_key().count(store="c")
    source = builder.build().nodes["c-repartition-source"]
    assert isinstance(source, SourceNode)
    assert source.key == serde_for(int)
    assert source.value.type is Order


def test_partitions_can_be_said() -> None:
    builder, stream = word_stream()
    stream.repartition(name="r", partitions=3).to("out")
    assert builder.build().repartition_topics["r-repartition"].partitions == 3


# -- Tables and joins ------------------------------------------------------------------------------------------------


def test_a_table_is_kept_only_if_something_looks_it_up() -> None:
    builder = StreamsBuilder()
    table = builder.table("rows", key=str, value=str)
    assert not builder.build().stores
    builder.stream("in", key=str, value=str).join(table, lambda left, right: left).to("out")
    assert list(builder.build().stores) == ["rows-STATE-STORE-0000000000"]


def test_a_derived_table_is_looked_up_in_what_it_comes_from() -> None:
    builder, stream = word_stream()
    derived = builder.table("rows", key=str, value=str, store="rows").filter(lambda k, v: True).map_values(len)
    stored = derived.map_values(str, store="text")
    assert derived._lookup_stores() == ("rows",)
    assert stored._lookup_stores() == ("text",)
    stream.join(derived, lambda left, right: left).to("out")
    join = next(n for n in builder.build().nodes.values() if n.name.startswith("KSTREAM-JOIN-"))
    assert isinstance(join, ProcessorNode)
    assert join.stores == ("rows",)


def test_joins_without_a_name_share_a_repartition_topic() -> None:
    """`KStreamImpl.repartitionForJoin`: three numbers are used up all the same."""
    builder, stream = word_stream()
    one, other = (builder.table(topic, key=str, value=str) for topic in ("one", "other"))
    rekeyed = stream.select_key(lambda k, v: v)  # 7
    for number, table in enumerate((one, other)):
        rekeyed.join(table, lambda left, right: left).to(f"out{number}")
    rekeyed.join(one, lambda left, right: left, name="named")
    topology = builder.build()
    assert repartition_names(topology) == ["KSTREAM-KEY-SELECT-0000000007-repartition", "named-repartition"]
    assert [name for name in topology.nodes if "JOIN" in name] == [
        "KSTREAM-JOIN-0000000011",
        "KSTREAM-JOIN-0000000016",
    ]


def no_key(key: str, value: str) -> Any:
    return None


@pytest.mark.parametrize("left", [True, False])
def test_only_a_left_join_gets_records_without_a_key_through_topics_before_it(left: bool) -> None:
    builder, stream = word_stream()
    table = builder.table("rows", key=str, value=str)
    through = stream.select_key(no_key).repartition().map(lambda k, v: (k, v)).repartition()
    (through.left_join if left else through.join)(table, lambda mine, row: f"{mine} {row}").to("out")
    with TopologyTestDriver(builder.build()) as driver:
        driver.input_topic("in", key=str, value=str).pipe_input("a", "b")
        found = driver.output_topic("out", key=str, value=str).read_key_values()
    assert found == ([(None, "b None")] if left else [])


def test_both_sides_of_a_join_are_copartitioned() -> None:
    builder, stream = word_stream()
    table = builder.table("rows", key=str, value=str)
    stream.join(table, lambda left, right: left)
    stream.select_key(lambda k, v: v).join(table, lambda left, right: left, name="second")
    assert set(builder.build().copartition_groups) == {
        frozenset({"in", "rows"}),
        frozenset({"second-repartition", "rows"}),
    }


def test_a_join_with_itself_needs_no_group() -> None:
    builder, stream = word_stream()
    stream.join(stream.group_by_key().count(), lambda left, right: left).to("out")
    assert builder.build().copartition_groups == ()


def test_a_merged_stream_comes_from_both() -> None:
    builder, stream = word_stream()
    merged = stream.merge(builder.stream(["more", "most"], key=str, value=str))
    merged.join(builder.table("rows", key=str, value=str), lambda left, right: left)
    assert builder.build().copartition_groups == (frozenset({"in", "more", "most", "rows"}),)


def test_names_of_a_table_are_kafka_streams() -> None:
    builder = StreamsBuilder()
    builder.table("rows", key=str, value=str, name="users")
    builder.stream("in", key=str, value=str, name="orders")
    assert list(builder.build().nodes) == ["users-source", "users", "orders"]


def test_a_store_given_to_process_is_added() -> None:
    builder, stream = word_stream()
    builder.add_state_store(Stores.key_value_store("one", key=str, value=int))
    node = stream.process(Quiet, "one", Stores.key_value_store("two", key=str, value=int), name="p")._point.node
    topology = builder.build()
    processor = topology.nodes[node]
    assert isinstance(processor, ProcessorNode)
    assert processor.stores == tuple(topology.stores) == ("one", "two")


# -- Branches --------------------------------------------------------------------------------------------------------


def test_branches_without_a_name_have_a_number() -> None:
    _, stream = word_stream()
    split = stream.split().branch(lambda k, v: True).branch(lambda k, v: True)
    assert list(split.default_branch()) == [f"KSTREAM-BRANCH-000000000{n}" for n in ("11", "12", "10")]


def test_a_split_left_open_drops_the_rest() -> None:
    builder, stream = word_stream()
    stream.split(name="x-").branch(lambda k, v: v == "a", name="a", then=lambda a: a.to("out"))
    branch = builder.build().nodes["x-"]
    assert isinstance(branch, ProcessorNode)
    assert isinstance(branch.operator, op.Branch)
    assert (branch.operator.children, branch.operator.default) == (("x-a",), None)


def test_nothing_comes_after_the_default_branch() -> None:
    _, stream = word_stream()
    split = stream.split(name="x-").branch(lambda k, v: True)
    split.default_branch()
    with pytest.raises(TopologyError, match="split x- has its default branch"):
        split.branch(lambda k, v: True)


# -- Refusals --------------------------------------------------------------------------------------------------------


async def slow(*_: Any) -> Any: ...


STEPS: dict[str, Callable[[Any, Any], object]] = {
    "filter": lambda s, f: s.filter(f),
    "filter_not": lambda s, f: s.filter_not(f),
    "map": lambda s, f: s.map(f),
    "map_values": lambda s, f: s.map_values(f),
    "flat_map": lambda s, f: s.flat_map(f),
    "flat_map_values": lambda s, f: s.flat_map_values(f),
    "select_key": lambda s, f: s.select_key(f),
    "peek": lambda s, f: s.peek(f),
    "foreach": lambda s, f: s.foreach(f),
    "branch": lambda s, f: s.split().branch(f),
    "group_by": lambda s, f: s.group_by(f),
    "process": lambda s, f: s.process(f),
    "reduce": lambda s, f: s.group_by_key().reduce(f),
    "aggregate": lambda s, f: s.group_by_key().aggregate(f, max),
    "aggregate ": lambda s, f: s.group_by_key().aggregate(int, f),
    "join": lambda s, f: s.join(s.to_table(), f),
    "left_join": lambda s, f: s.left_join(s.to_table(), f),
    "to": lambda s, f: s.to(f),
    "the partitioner of to": lambda s, f: s.to("out", partitioner=f),
    "the partitioner of repartition": lambda s, f: s.repartition(partitioner=f),
    "filter ": lambda s, f: s.to_table().filter(f),
    "filter_not ": lambda s, f: s.to_table().filter_not(f),
    "map_values ": lambda s, f: s.to_table().map_values(f),
    "select_key ": lambda s, f: s.to_table().to_stream(f),
}


AWAITED = ("filter", "filter_not", "map", "map_values", "flat_map", "flat_map_values", "peek", "foreach")


@pytest.mark.parametrize("operator", STEPS)
def test_every_operator_refuses_what_it_cannot_call(operator: str) -> None:
    with pytest.raises(TopologyError, match=f"^{operator.strip()} needs a function, not 5"):
        STEPS[operator](word_stream()[1], 5)


@pytest.mark.parametrize("operator", [step for step in STEPS if step not in AWAITED])
def test_every_operator_that_cannot_await_refuses_what_has_to_be_awaited(operator: str) -> None:
    with pytest.raises(TopologyError, match=f"^{operator.strip()} was given the async function slow"):
        STEPS[operator](word_stream()[1], slow)


@pytest.mark.parametrize("operator", AWAITED)
def test_the_others_take_it(operator: str) -> None:
    builder, stream = word_stream()
    STEPS[operator](stream, slow)
    (node,) = (node for node in builder.build().nodes.values() if isinstance(node, ProcessorNode))
    assert node.operator.calls == op.CallOptions()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (lambda b, s: b.stream([]), "needs the names of topics"),
        (lambda b, s: b.stream("a topic"), "cannot have the name 'a topic'"),
        (lambda b, s: b.stream(7), "needs the name of a topic or several, not 7"),
        (lambda b, s: b.table(["a", "b"]), "a table is read from one topic, not"),
        (lambda b, s: b.stream("x", key=complex | set[object] | frozenset[int]), "no serde for"),
        (lambda b, s: b.stream("x", offset_reset="newest"), "offset_reset is 'earliest' or 'latest', not 'newest'"),
        (lambda b, s: b.add_state_store("seen"), "a store is needed, such as Stores.key_value_store.*, not 'seen'"),
        (lambda b, s: s.filter(bool, name="x").filter(bool, name="x"), "two nodes are called 'x'"),
        (lambda b, s: s.filter(bool, name="my filter"), "a node cannot have the name 'my filter'"),
        (lambda b, s: s.peek(print, name=5), "a node cannot have the name 5"),
        (lambda b, s: s.process(Quiet, name="my processor"), "a node cannot have the name 'my processor'"),
        (lambda b, s: s.to("bad topic"), "to cannot have the name 'bad topic'"),
        (lambda b, s: s.repartition(partitions=0), "repartition needs at least one partition, not 0"),
        (lambda b, s: s.repartition(name="a b"), "a repartition topic cannot have the name 'a b-repartition'"),
        (lambda b, s: s.group_by_key().count(store="a b"), "a store cannot have the name 'a b'"),
        (lambda b, s: s.merge(s.to_table()), "merge needs another stream, not"),
        (lambda b, s: s.merge(word_stream()[1]), "merge of .*: they come from two StreamsBuilders"),
        (lambda b, s: s.join(s, max), "join of .* with the stream .* needs JoinWindows, such as .*, not None"),
        (lambda b, s: s.join("s", max), "join needs a stream, a table or a global table on the right, not 's'"),
        (lambda b, s: s.left_join(word_stream()[1].to_table(), max), "left_join of .*: they come from two"),
        (lambda b, s: s.process(Quiet, 5), "a store is needed, .*, not 5"),
    ],
)
def test_a_wrong_argument_is_refused_where_it_is_given(steps: Callable[[Any, Any], object], message: str) -> None:
    builder, stream = word_stream()
    with pytest.raises(TopologyError, match=message):
        steps(builder, stream)


def test_a_store_that_was_not_added_is_found_when_the_topology_is_built() -> None:
    builder, stream = word_stream()
    stream.process(Quiet, "nowhere")
    with pytest.raises(TopologyError, match="uses store 'nowhere', which does not exist"):
        builder.build()


def test_the_same_topics_read_in_the_same_way_are_the_same_stream() -> None:
    """As in `InternalStreamsBuilder.mergeDuplicateSourceNodes`; a number is used up all the same."""
    builder, first = word_stream()
    first.to("one")
    builder.stream("in", key=str, value=str).to("two")
    names = ["KSTREAM-SOURCE-0000000000", "KSTREAM-SINK-0000000001", "KSTREAM-SINK-0000000003"]
    assert list(builder.build().nodes) == names
    assert [each.parents for each in builder.build().nodes.values() if isinstance(each, SinkNode)] == [(names[0],)] * 2
    pair = builder.stream(["a", "b"], key=str, value=str)
    assert builder.stream(["b", "a"], key=str, value=str)._point == pair._point


def test_a_topic_is_read_once() -> None:
    builder, _ = word_stream()
    with pytest.raises(TopologyError, match="topic 'in' is read by KSTREAM-SOURCE-0000000000 and by"):
        builder.stream("in")


# -- Documentation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [StreamsBuilder, KStream, BranchedKStream, KTable, KGroupedStream], ids=lambda kind: kind.__name__
)
def test_every_method_has_an_example(kind: type) -> None:
    exempt = {"build"}
    methods = {name: each for name, each in vars(kind).items() if not name.startswith("_") and name not in exempt}
    assert [name for name, each in methods.items() if ">>> " not in (each.__doc__ or "")] == []
