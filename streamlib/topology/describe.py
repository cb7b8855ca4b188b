"""A topology's description, character by character as Kafka Streams' `TopologyDescription` prints it.

Nodes come by size, the number of paths that lead on from them, then by name. Names in a list are in an order that
Kafka Streams leaves to Java's collections: neighbours are sorted by the sizes they have when they are linked, while
these still grow, and nodes are linked in the order of Java's hash sets, as are stores and topics.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence

import msgspec

from streamlib.topology.nodes import Node, ProcessorNode, SinkNode, SourceNode


def describe(subtopologies: Sequence[Sequence[Node]]) -> str:
    """The text for subtopologies in the order of their ids."""
    parts = [_group(number, nodes) for number, nodes in enumerate(subtopologies)]
    return "Topologies:\n " + "".join(parts)


def _group(number: int, nodes: Sequence[Node]) -> str:
    if any(isinstance(node, SourceNode) and node.is_global for node in nodes):
        return f"  Sub-topology: {number} for global store (will not generate tasks)\n{_subtopology(nodes)}"
    return f"  Sub-topology: {number}\n{_subtopology(nodes)}\n"


class _Linked(msgspec.Struct):
    """A node that is being linked to its neighbours."""

    node: Node
    size: int = 1
    before: list[_Linked] = []
    after: list[_Linked] = []

    def link(self, parent: _Linked) -> None:
        """As `InternalTopologyBuilder.describeSubtopology` does it."""
        _insert(self.before, parent)
        _insert(parent.after, self)
        parent.grow(self.size)

    def grow(self, more: int) -> None:
        """There are more paths from here, so there are from all before."""
        self.size += more
        for parent in self.before:
            parent.grow(more)


def _insert(neighbours: list[_Linked], one: _Linked) -> None:
    if not any(each is one for each in neighbours):
        insort(neighbours, one, key=_order)


def _order(linked: _Linked) -> tuple[int, str]:
    return -linked.size, linked.node.name


def _subtopology(nodes: Sequence[Node]) -> str:
    linked = {node.name: _Linked(node) for node in nodes}
    sources = sorted(node.name for node in nodes if isinstance(node, SourceNode))
    others = [name for name in linked if name not in sources]
    for name in hash_order([*sources, *others]):
        node = linked[name].node
        for parent in () if isinstance(node, SourceNode) else node.parents:
            linked[name].link(linked[parent])
    return "".join(_text(each) for each in sorted(linked.values(), key=_order))


def _text(linked: _Linked) -> str:
    after, before = f"      --> {_names(linked.after)}\n", f"      <-- {_names(linked.before)}\n"
    match linked.node:
        case SourceNode(name=name, pattern=str(pattern)):
            return f"    Source: {name} (topics: {pattern})\n{after}"
        case SourceNode(name=name, topics=topics):
            return f"    Source: {name} (topics: [{', '.join(hash_order(topics))}])\n{after}"
        case ProcessorNode(name=name, stores=stores):
            return f"    Processor: {name} (stores: [{', '.join(hash_order(stores))}])\n{after}{before}"
        case SinkNode(name=name, topic=topic):
            target = f"topic: {topic}" if isinstance(topic, str) else "extractor class: a lambda"
            return f"    Sink: {name} ({target})\n{before}"


def _names(neighbours: Iterable[_Linked]) -> str:
    return ", ".join(each.node.name for each in neighbours) or "none"


def hash_order(names: Iterable[str]) -> list[str]:
    """Names in the order of a java.util.HashSet they were added to one after the other.

    >>> hash_order(["one", "two", "three"])
    ['one', 'two', 'three']
    """
    unique = list(dict.fromkeys(names))
    buckets = 16
    while len(unique) > buckets * 3 // 4:
        buckets *= 2
    return sorted(unique, key=lambda name: _spread_hash(name) & (buckets - 1))


def _spread_hash(text: str) -> int:
    """`String.hashCode` as `HashMap` spreads it."""
    units = text.encode("utf-16-be")
    value = 0
    for high, low in zip(units[::2], units[1::2], strict=True):
        value = (31 * value + (high << 8 | low)) & 0xFFFFFFFF
    return value ^ value >> 16
