"""A topology is checked when it is made, and falls into the subtopologies that Kafka Streams sees."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest

from streamlib import ProcessorContext, Record, StreamsBuilder
from streamlib.errors import TopologyError
from streamlib.policies import DeadLetter
from streamlib.serdes import Serdes
from streamlib.testing import TopologyTestDriver
from streamlib.topology import operators as op
from streamlib.topology.describe import hash_order
from streamlib.topology.nodes import Node, ProcessorNode, RepartitionTopic, SinkNode, SourceNode, StoreSpec
from streamlib.topology.topology import Topology

TEXT = Serdes.string()


class Shout:
    def process(self, record: Any) -> None: ...


class Keeps:
    """Brings its store along."""

    stores = (StoreSpec(name="kept", kind="key_value", key=TEXT, value=TEXT),)

    def init(self, context: ProcessorContext) -> None:
        self.context, self.kept = context, context.state_store("kept")

    def process(self, record: Record[str, str]) -> None:
        self.context.forward(record.with_value(f"{self.kept.get(record.key)} {record.value}"))
        self.kept.put(record.key, record.value)


def source(name: str, *topics: str) -> SourceNode:
    return SourceNode(name=name, topics=topics, key=TEXT, value=TEXT)


def processor(name: str, *parents: str, stores: tuple[str, ...] = ()) -> ProcessorNode:
    return ProcessorNode(name=name, operator=op.PassThrough(), parents=parents, stores=stores)


def sink(name: str, *parents: str) -> SinkNode:
    return SinkNode(name=name, topic="out", key=TEXT, value=TEXT, parents=parents)


def store(name: str) -> StoreSpec:
    return StoreSpec(name=name, kind="key_value", key=TEXT, value=TEXT)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([source("a", "in"), source("a", "other")], "two nodes are called 'a'"),
        ([source("a", "in"), source("b", "in")], "topic 'in' is read by a and by b"),
        ([source("a", "in", "in")], "topic 'in' is read by a and by a"),
        ([source("a", "in"), processor("b", "c")], "b has a parent 'c' that does not exist"),
        ([source("a", "in"), processor("b")], "b has no parent"),
        ([processor("b", "a"), source("a", "in")], "b has a parent 'a' that does not exist: add the parent first"),
        ([source("a", "in"), processor("b", "b")], "b has a parent 'b' that does not exist"),
        ([source("")], "a node has a name, which '' is not"),
        (
            [source("a", "in"), sink("s", "a"), processor("b", "s")],
            "cannot get records from s: a sink forwards nothing",
        ),
    ],
    ids=str,
)
def test_what_cannot_run_is_refused(nodes: Iterable[Node], message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        Topology(tuple(nodes))


def test_what_is_not_complete_cannot_run() -> None:
    with pytest.raises(TopologyError, match="reads no topic: begin with builder"):
        Topology().checked()
    with pytest.raises(TopologyError, match="b uses store 'rows', which does not exist"):
        Topology([source("a", "in"), processor("b", "a", stores=("rows",))]).checked()
    with pytest.raises(TopologyError, match="reads no topic"):
        TopologyTestDriver(Topology())


def test_what_runs_does_not_grow() -> None:
    growing = Topology([source("a", "in")])
    running = growing.checked()
    growing.add_sink("s", "out", "a")
    assert list(running.nodes) == ["a"]
    assert list(growing.nodes) == ["a", "s"]


def test_stores_and_internal_topics_have_names_of_their_own() -> None:
    with pytest.raises(TopologyError, match="two stores are called 'rows'"):
        Topology([source("a", "in")], [store("rows"), msgspec.structs.replace(store("rows"), persistent=False)])
    with pytest.raises(TopologyError, match="two repartition topics are called 'x-repartition'"):
        Topology([source("a", "in")], [], [RepartitionTopic(name="x-repartition")] * 2)


def test_subtopologies_are_what_hangs_together() -> None:
    topology = Topology(
        [
            source("z", "1"),
            source("a", "2"),
            processor("p", "z"),
            processor("q", "a", stores=("rows", "more")),
            source("m", "3"),
            processor("r", "m", stores=("rows",)),
            sink("s", "p"),
        ],
        [store("rows"), store("more")],
    )
    first, second = topology.subtopologies()
    assert (first.id, first.nodes, first.sources, first.sinks) == (0, ("a", "q", "m", "r"), ("a", "m"), ())
    assert first.stores == ("rows", "more")
    assert (second.id, second.nodes, second.sinks, second.stores) == (1, ("z", "p", "s"), ("s",), ())


def test_ids_follow_the_names_of_sources() -> None:
    """As in `InternalTopologyBuilder.makeNodeGroups`, and not the order of adding."""
    topology = Topology([source("b", "1"), source("a", "2"), source("B", "3")])
    assert [each.nodes for each in topology.subtopologies()] == [("B",), ("a",), ("b",)]


def test_names_in_a_java_set_are_in_hash_order() -> None:
    assert hash_order(["open-requests", "open-answers", "open-answers"]) == ["open-answers", "open-requests"]
    assert len(hash_order(map(str, range(100)))) == 100


def test_children_are_listed_in_the_order_of_javas_sets() -> None:
    """Sizes grow while neighbours are linked, so a list is not simply sorted by them."""
    nodes: list[Node] = [
        source("KSTREAM-SOURCE-0000000000", "in"),
        processor("KSTREAM-FILTER-0000000001", "KSTREAM-SOURCE-0000000000"),
        processor("KSTREAM-MAPVALUES-0000000002", "KSTREAM-FILTER-0000000001"),
        processor("KSTREAM-MAPVALUES-0000000003", "KSTREAM-SOURCE-0000000000"),
        processor("KSTREAM-MERGE-0000000004", "KSTREAM-MAPVALUES-0000000003", "KSTREAM-MAPVALUES-0000000002"),
    ]
    assert "<-- KSTREAM-MAPVALUES-0000000003, KSTREAM-MAPVALUES-0000000002" in Topology(nodes).describe()


def test_a_chosen_topic_is_described_as_such() -> None:
    topology = Topology().add_source("a", "in").add_sink("s", lambda k, v, c: "out", "a")
    assert "    Sink: s (extractor class: a lambda)\n" in topology.describe()


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (lambda b: b.add_source("s"), "source s needs the names of topics"),
        (lambda b: b.add_source("s", "a topic"), "source s cannot have the name 'a topic'"),
        (lambda b: b.add_source("a", "other"), "two nodes are called 'a'"),
        (lambda b: b.add_source("b", "other", timestamp_extractor=5), "timestamp_extractor needs a function, not 5"),
        (lambda b: b.add_sink("s", "bad/topic", "a"), "sink s cannot have the name 'bad/topic'"),
        (lambda b: b.add_sink("s", "x" * 250, "a"), "sink s cannot have the name"),
        (lambda b: b.add_sink("s", "out", "a", partitioner="x"), "the partitioner of sink s needs a function"),
        (lambda b: b.add_source("b", "in"), "topic 'in' is read by a and by b"),
        (lambda b: b.add_source("b", "other", on_deserialization_error="drop"), "on_deserialization_error is 'fail'"),
        (lambda b: b.add_source("b", "other", on_deserialization_error=DeadLetter("a b")), "dead letters of source b"),
        (lambda b: b.add_sink("s", "out"), "s has no parent"),
        (lambda b: b.add_sink("s", "out", "a").add_sink("t", "out", "s"), "t cannot get records from s: a sink"),
        (lambda b: b.add_processor("p", Shout, "nowhere"), "p has a parent 'nowhere' that does not exist"),
        (lambda b: b.add_processor("p", Shout, ["a"]), r"a node has a name, which \['a'\] is not"),
        (lambda b: b.add_processor("a", Shout, "a"), "two nodes are called 'a'"),
        (lambda b: b.add_processor("p", Shout(), "a"), "processor p needs what makes a processor for each task"),
        (lambda b: b.connect_processor_and_state_stores("p", "rows"), "rows cannot be connected with 'p'"),
        (
            lambda b: b.add_processor("p", Shout, "a").connect_processor_and_state_stores("p", "rows"),
            "processor p cannot use store 'rows': add the store first",
        ),
        (
            lambda b: b.add_global_store(store("rows"), "rows-source", "in", "p", Shout),
            "topic 'in' is read by a and by rows-source",
        ),
        (lambda b: b.add_state_store(store("rows"), "a"), "store rows cannot be connected with 'a'"),
        (lambda b: b.add_state_store(store("my rows")), "a store cannot have the name 'my rows'"),
        (
            lambda b: b.add_state_store(store("x")).add_state_store(
                StoreSpec(name="x", kind="key_value", key=TEXT, value=Serdes.long())
            ),
            "two stores are called 'x'",
        ),
        (lambda b: b.add_repartition_topic(RepartitionTopic(name="..")), "a repartition topic cannot have the name"),
    ],
)
def test_a_wrong_step_is_refused_where_it_is_made(steps: Callable[[Any], object], message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        steps(Topology().add_source("a", "in"))


def test_a_store_is_connected_once() -> None:
    builder = Topology().add_source("a", "in").add_processor("p", Shout, "a")
    topology = builder.add_state_store(store("rows"), "p").add_state_store(store("rows"), "p").checked()
    node = topology.nodes["p"]
    assert isinstance(node, ProcessorNode)
    assert node.stores == ("rows",)


def emitted(topology: Topology, *values: str) -> list[Any]:
    with TopologyTestDriver(topology) as driver:
        for value in values:
            driver.input_topic("in", key=str, value=str).pipe_input("k", value, 0)
        return driver.output_topic("out", key=str, value=str).read_values()


def by_hand() -> Topology:
    return Topology().add_source("read", "in", key=str, value=str).add_processor("keep", Keeps, "read")


def test_a_topology_made_by_hand_runs() -> None:
    topology = by_hand().add_sink("write", "out", "keep", key=str, value=str)
    assert emitted(topology, "a", "b") == ["None a", "a b"]
    assert topology.describe() == (
        "Topologies:\n   Sub-topology: 0\n    Source: read (topics: [in])\n      --> keep\n"
        "    Processor: keep (stores: [kept])\n      --> write\n      <-- read\n"
        "    Sink: write (topic: out)\n      <-- keep\n\n"
    )


def test_a_store_of_two_processors_brings_them_together() -> None:
    topology = by_hand().add_source("other", "more", key=str, value=str).add_processor("also", Keeps, "other")
    assert len(topology.subtopologies()) == 1
    apart = by_hand().add_source("other", "more").add_processor("also", Shout, "other")
    assert len(apart.subtopologies()) == 2
    assert len(apart.connect_processor_and_state_stores("also", "kept").subtopologies()) == 1


def test_nodes_by_hand_go_beside_those_of_the_dsl() -> None:
    builder = StreamsBuilder()
    builder.stream("in", key=str, value=str).map_values(str.upper, name="upper")
    builder.topology.add_processor("keep", Keeps, "upper").add_sink("write", "out", "keep", key=str, value=str)
    assert emitted(builder.build(), "a", "b") == ["None A", "A B"]
    with pytest.raises(TopologyError, match="two nodes are called 'keep'"):
        builder.stream("more").filter(lambda k, v: True, name="keep")


def test_what_was_built_can_grow_by_hand() -> None:
    builder = StreamsBuilder()
    builder.stream("in", key=str, value=str).filter(lambda k, v: True, name="all")
    topology = builder.build().add_sink("write", "out", "all", key=str, value=str)
    assert emitted(topology, "a") == ["a"]
    assert "write" not in builder.topology.nodes


def test_every_processor_reads_a_global_store_and_none_is_connected() -> None:
    class Fills:
        def init(self, context: ProcessorContext) -> None:
            self.rows = context.state_store("rows")

        def process(self, record: Record[str, str]) -> None:
            self.rows.put(record.key, record.value)

    class Asks:
        def init(self, context: ProcessorContext) -> None:
            self.context, self.rows = context, context.state_store("rows")

        def process(self, record: Record[str, str]) -> None:
            self.context.forward(record.with_value(self.rows.get(record.value)))

    topology = Topology().add_global_store(store("rows"), "rows-in", "all", "fill", Fills, key=str, value=str)
    topology.add_source("read", "in", key=str, value=str).add_processor("ask", Asks, "read")
    topology.add_sink("write", "out", "ask", key=str, value=str)
    with TopologyTestDriver(topology) as driver:
        driver.input_topic("all", key=str, value=str).pipe_input("a", "1")
        driver.input_topic("in", key=str, value=str).pipe_input("k", "a")
        assert driver.output_topic("out", key=str, value=str).read_values() == ["1"]
    with pytest.raises(TopologyError, match="ask cannot be connected with the global store 'rows'"):
        topology.connect_processor_and_state_stores("ask", "rows").checked()


@pytest.mark.parametrize(
    ("brought", "message"),
    [
        (5, "the stores of Supplier are specs such as .*, not 5"),
        (("rows",), "the stores of Supplier are specs such as"),
        (lambda self: (), "make it a static method"),
    ],
)
def test_what_a_supplier_brings_along_has_to_be_stores(brought: Any, message: str) -> None:
    supplier = type("Supplier", (Shout,), {"stores": brought})
    with pytest.raises(TopologyError, match=message):
        Topology().add_source("a", "in").add_processor("p", supplier, "a")
