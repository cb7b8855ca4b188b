"""A topology is checked when it is made, and falls into the subtopologies that Kafka Streams sees."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from streamlib.errors import TopologyError
from streamlib.serdes import Serdes
from streamlib.topology import operators as op
from streamlib.topology.builder import TopologyBuilder
from streamlib.topology.describe import hash_order
from streamlib.topology.nodes import Node, ProcessorNode, RepartitionTopic, SinkNode, SourceNode, StoreSpec
from streamlib.topology.topology import Topology

TEXT = Serdes.string()


class Shout:
    def process(self, record: Any) -> None: ...


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
        ([], "reads no topic"),
        ([source("a", "in"), source("a", "other")], "two nodes are called 'a'"),
        ([source("a", "in"), source("b", "in")], "topic 'in' is read by a and by b"),
        ([source("a", "in", "in")], "topic 'in' is read by a and by a"),
        ([source("a", "in"), processor("b", "c")], "b has a parent 'c' that does not exist"),
        ([source("a", "in"), processor("b")], "b has no parent"),
        ([processor("b", "a"), source("a", "in")], "b was added before its parent a"),
        (
            [source("a", "in"), sink("s", "a"), processor("b", "s")],
            "cannot get records from s: a sink forwards nothing",
        ),
        ([source("a", "in"), processor("b", "a", stores=("rows",))], "b uses store 'rows', which does not exist"),
    ],
    ids=str,
)
def test_what_cannot_run_is_refused(nodes: Iterable[Node], message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        Topology(tuple(nodes))


def test_stores_and_internal_topics_have_names_of_their_own() -> None:
    with pytest.raises(TopologyError, match="two stores are called 'rows'"):
        Topology([source("a", "in")], [store("rows"), store("rows")])
    with pytest.raises(TopologyError, match="two topics are called 'x-repartition'"):
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
    topology = TopologyBuilder().add_source("a", "in").add_sink("s", lambda k, v, c: "out", "a").build()
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
        (lambda b: b.add_processor("p", Shout(), "a"), "processor p needs what makes a processor for each task"),
        (lambda b: b.add_state_store(store("rows"), "a"), "store rows cannot be connected with 'a'"),
        (lambda b: b.add_state_store(store("my rows")), "a store cannot have the name 'my rows'"),
        (
            lambda b: b.add_state_store(store("x")).add_store(
                StoreSpec(name="x", kind="key_value", key=TEXT, value=Serdes.long())
            ),
            "two stores are called 'x'",
        ),
        (lambda b: b.add_repartition_topic(RepartitionTopic(name="..")), "a repartition topic cannot have the name"),
    ],
)
def test_a_wrong_step_is_refused_where_it_is_made(steps: Callable[[Any], object], message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        steps(TopologyBuilder().add_source("a", "in"))


def test_a_store_is_connected_once() -> None:
    builder = TopologyBuilder().add_source("a", "in").add_processor("p", Shout, "a")
    topology = builder.add_state_store(store("rows"), "p").add_state_store(store("rows"), "p").build()
    node = topology.nodes["p"]
    assert isinstance(node, ProcessorNode)
    assert node.stores == ("rows",)
