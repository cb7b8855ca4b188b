"""A topology's description, character by character as Kafka Streams' `TopologyDescription` prints it.

Nodes come by size, the number of paths that lead on from them, then by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streamlib.topology.nodes import Node, ProcessorNode, SinkNode, SourceNode


def describe(subtopologies: Sequence[Sequence[Node]]) -> str:
    """The text for subtopologies in the order of their ids."""
    parts = [f"  Sub-topology: {number}\n{_nodes(nodes)}\n" for number, nodes in enumerate(subtopologies)]
    return "Topologies:\n " + "".join(parts)


def _nodes(nodes: Sequence[Node]) -> str:
    children: dict[str, list[str]] = {node.name: [] for node in nodes}
    for node in nodes:
        for parent in () if isinstance(node, SourceNode) else node.parents:
            children[parent].append(node.name)
    sizes: dict[str, int] = {}
    for node in reversed(nodes):  # children were added after their parents
        sizes[node.name] = 1 + sum(sizes[child] for child in children[node.name])
    ordered = sorted(nodes, key=lambda node: (-sizes[node.name], node.name))
    return "".join(_node(node, children, sizes) for node in ordered)


def _node(node: Node, children: Mapping[str, list[str]], sizes: Mapping[str, int]) -> str:
    after = f"      --> {_names(children[node.name], sizes)}\n"
    match node:
        case SourceNode():
            return f"    Source: {node.name} (topics: [{', '.join(node.topics)}])\n{after}"
        case ProcessorNode():
            before = f"      <-- {_names(node.parents, sizes)}\n"
            return f"    Processor: {node.name} (stores: [{', '.join(node.stores)}])\n{after}{before}"
        case SinkNode():
            topic = f"topic: {node.topic}" if isinstance(node.topic, str) else "extractor class: a lambda"
            return f"    Sink: {node.name} ({topic})\n      <-- {_names(node.parents, sizes)}\n"


def _names(names: Sequence[str], sizes: Mapping[str, int]) -> str:
    return ", ".join(sorted(names, key=lambda name: (-sizes[name], name))) or "none"
