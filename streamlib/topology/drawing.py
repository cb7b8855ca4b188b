"""A topology as shapes and arrows, for whatever draws them.

Topics are outside of the subtopologies, for they are what these have in common; stores are inside, as are the nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from streamlib.policies import RetryTopics
from streamlib.topology.nodes import Node, ProcessorNode, SinkNode, SourceNode, retry_topics

if TYPE_CHECKING:
    from streamlib.topology.topology import Topology

ShapeKind: TypeAlias = Literal["topic", "source", "processor", "sink", "store"]


class Shape(msgspec.Struct, frozen=True):
    """Something with a text on it. The id is made of letters and digits, whatever the name."""

    id: str
    kind: ShapeKind
    text: str


class Arrow(msgspec.Struct, frozen=True):
    """Where records go; if `is_store`, which store a node uses."""

    tail: str
    head: str
    is_store: bool = False


class Group(msgspec.Struct, frozen=True):
    """A subtopology."""

    id: str
    text: str
    shapes: Sequence[Shape]


class Drawing(msgspec.Struct, frozen=True):
    """See the module."""

    topics: Sequence[Shape]
    groups: Sequence[Group]
    arrows: Sequence[Arrow]


def draw(topology: Topology) -> Drawing:
    """The shapes of a topology, in the order of its subtopologies and nodes."""
    nodes = {name: f"node{number}" for number, name in enumerate(topology.nodes)}
    stores = {name: f"store{number}" for number, name in enumerate(topology.stores)}
    topics = {
        text: f"topic{number}"
        for number, text in enumerate(dict.fromkeys(text for node in topology.nodes.values() for text in _topics(node)))
    }
    groups = [
        Group(
            f"sub{each.id}",
            f"Sub-topology {each.id}" + (" (global)" if each.is_global else ""),
            (
                *(Shape(nodes[name], _kind(topology.nodes[name]), name) for name in each.nodes),
                *(Shape(stores[name], "store", name) for name in each.stores),
            ),
        )
        for each in topology.subtopologies()
    ]
    arrows = [arrow for node in topology.nodes.values() for arrow in _arrows(node, nodes, stores, topics)]
    return Drawing([Shape(topic, "topic", text) for text, topic in topics.items()], groups, arrows)


def _arrows(node: Node, nodes: dict[str, str], stores: dict[str, str], topics: dict[str, str]) -> Iterator[Arrow]:
    """Those that lead to a node, and on to the topics it writes."""
    here, around = nodes[node.name], [topics[text] for text in _topics(node)]
    match node:
        case SourceNode():
            yield from (Arrow(topic, here) for topic in around)
        case ProcessorNode():
            yield from (Arrow(nodes[parent], here) for parent in node.parents)
            yield from (Arrow(here, topic) for topic in around)
            yield from (Arrow(here, stores[store], is_store=True) for store in node.stores)
        case SinkNode():
            yield from (Arrow(nodes[parent], here) for parent in node.parents)
            yield from (Arrow(here, topic) for topic in around)


def _topics(node: Node) -> tuple[str, ...]:
    """The topics a node reads or writes, as they are shown."""
    match node:
        case SourceNode(pattern=str(pattern)):
            return (f"topics like {pattern}",)
        case SourceNode(topics=topics):
            return topics
        case SinkNode(topic=str(topic)):
            return (topic,)
        case SinkNode():
            return ("topics chosen per record",)
        case ProcessorNode(name=name, on_error=RetryTopics(delays=delays)):
            return tuple(retry_topics(name, len(delays)))
        case ProcessorNode():
            return ()


def _kind(node: Node) -> ShapeKind:
    match node:
        case SourceNode():
            return "source"
        case ProcessorNode():
            return "processor"
        case SinkNode():
            return "sink"
