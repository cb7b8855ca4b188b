"""Topologies as pictures: what is on them, and that nothing in a name can spoil one."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from streamlib import StreamsBuilder, Topology
from streamlib.topology.dot import dot
from streamlib.topology.drawing import Arrow, Drawing, Shape, draw
from streamlib.topology.mermaid import mermaid


def word_count() -> Topology:
    builder = StreamsBuilder()
    words = builder.stream("lines", key=str, value=str).flat_map_values(str.split)
    words.group_by(lambda key, word: word, name="by-word").count(store="counts").to_stream().to("counted")
    return builder.build()


def test_topics_are_drawn_once_and_between_the_subtopologies() -> None:
    drawing = draw(word_count())
    assert [topic.text for topic in drawing.topics] == ["lines", "by-word-repartition", "counted"]
    assert [group.text for group in drawing.groups] == ["Sub-topology 0", "Sub-topology 1"]
    through = next(topic.id for topic in drawing.topics if topic.text == "by-word-repartition")
    sink, source = (
        next(shape.id for group in drawing.groups for shape in group.shapes if shape.text == name)
        for name in ("by-word-repartition-sink", "by-word-repartition-source")
    )
    assert Arrow(sink, through) in drawing.arrows
    assert Arrow(through, source) in drawing.arrows


def test_a_store_is_in_its_subtopology_and_tied_to_the_nodes_that_use_it() -> None:
    drawing = draw(word_count())
    assert [shape.text for shape in drawing.groups[1].shapes if shape.kind == "store"] == ["counts"]
    (tie,) = [arrow for arrow in drawing.arrows if arrow.is_store]
    user = next(shape for shape in drawing.groups[1].shapes if shape.id == tie.tail)
    assert user.kind == "processor"
    assert user.text.startswith("KSTREAM-AGGREGATE-")


def test_every_node_and_store_is_drawn_once() -> None:
    topology = word_count()
    shown = [shape.text for group in draw(topology).groups for shape in group.shapes]
    assert sorted(shown) == sorted([*topology.nodes, *topology.stores])


def test_patterns_choosers_and_global_tables() -> None:
    builder = StreamsBuilder()
    builder.global_table("countries", key=str, value=str, store="countries")
    stream = builder.stream(re.compile(r'orders-\d+"'), key=str, value=str)
    stream.to(lambda key, value, context: "somewhere")
    drawing = draw(builder.build())
    assert {topic.text for topic in drawing.topics} == {
        "countries",
        r'topics like orders-\d+"',
        "topics chosen per record",
    }
    assert "Sub-topology 1 (global)" in [group.text for group in drawing.groups] or (
        "Sub-topology 0 (global)" in [group.text for group in drawing.groups]
    )


@pytest.mark.parametrize(
    ("render", "expected"),
    [(mermaid, '[/"a#34;#93;#60;b#62;#35;#92;n"/]'), (dot, '[label="a\\"]<b>#\\\\n", ')],
)
def test_no_name_can_spoil_a_picture(render: Callable[[Drawing], str], expected: str) -> None:
    assert expected in render(Drawing([Shape("topic0", "topic", 'a"]<b>#\\n')], [], []))


def test_dot_groups_subtopologies_as_clusters() -> None:
    text = word_count().to_dot()
    assert text.startswith("digraph topology {\n")
    assert text.count("subgraph cluster_sub") == 2
    assert text.count("shape=cylinder") == 1
    assert text.count("{") == text.count("}")
