"""From a subtopology to closures: each node is compiled after its children, which it calls directly."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from streamlib.engine.inputs import CompiledSource, NodeFn
from streamlib.engine.operators import compile_operator
from streamlib.engine.operators.sink import compile_sink
from streamlib.engine.operators.site import Site, ValueGetter, Work, fan_out
from streamlib.engine.operators.table import filtered_getter, mapped_getter
from streamlib.errors import TopologyError
from streamlib.topology import operators as op
from streamlib.topology.nodes import Node, ProcessorNode, SinkNode, SourceNode

FullName = Callable[[str], str]


class Compiler(msgspec.Struct):
    """Compiles the nodes of one task.

    `nodes` in the order they were added to the topology, parents before children; `full_name` turns a topic's name as
    written by the user into the one in Kafka.
    """

    nodes: Mapping[str, Node]
    full_name: FullName
    work: Work

    def compile(self) -> dict[str, CompiledSource]:
        """For each source topic, by its full name, where its records go."""
        children = _children(self.nodes)
        sends_old = nodes_that_send_old_values(self.nodes)
        compiled: dict[str, NodeFn] = {}
        sources: dict[str, CompiledSource] = {}
        for name, node in reversed(list(self.nodes.items())):
            below = {child: compiled[child] for child in children[name]}
            forward = fan_out(list(below.values()))
            match node:
                case SourceNode():
                    source = CompiledSource(name, forward, node.key, node.value, node.timestamp_extractor)
                    sources.update((self.full_name(topic), source) for topic in node.topics)
                case ProcessorNode():
                    site = Site(name, below, forward, node.stores, name in sends_old, self.work)
                    compiled[name] = compile_operator(node.operator, site)
                case SinkNode():
                    topic = self.full_name(node.topic) if isinstance(node.topic, str) else None
                    compiled[name] = compile_sink(node, topic, self.work)
        return sources


def _children(nodes: Mapping[str, Node]) -> dict[str, list[str]]:
    """The children of each node, in the order they were attached."""
    children: dict[str, list[str]] = {name: [] for name in nodes}
    for name, node in nodes.items():
        if not isinstance(node, SourceNode):
            for parent in node.parents:
                children[parent].append(name)
    return children


def nodes_that_send_old_values(nodes: Mapping[str, Node]) -> set[str]:
    """Table nodes whose changes carry the old value, because something asks for it and it can be had.

    So far only filters ask, where it costs nothing: over a stored table they leave out deletes of rows that never
    passed (constructor of `KTableFilter`).
    """
    sending: set[str] = set()
    for name, node in nodes.items():
        if not isinstance(node, ProcessorNode) or not isinstance(node.operator, op.TableFilter):
            continue
        if _enable_old_values(nodes, node.parents[0], sending):
            sending.add(name)
    return sending


def _enable_old_values(nodes: Mapping[str, Node], table: str, sending: set[str]) -> bool:
    """Let a table send old values, if it knows them (`KTableImpl.enableSendingOldValues`)."""
    node = nodes[table]
    assert isinstance(node, ProcessorNode), f"{table} is not a table"
    match node.operator:
        case op.StreamAggregate() | op.StreamReduce() | op.StreamCount():
            known = True
        case op.TableSource(store=store) | op.StreamToTable(store=store):
            known = store is not None
        case op.TableFilter(store=store) | op.TableMapValues(store=store):
            known = store is not None or _enable_old_values(nodes, node.parents[0], sending)
        case _:
            known = False
    if known:
        sending.add(table)
    return known


def table_getter(nodes: Mapping[str, Node], stored: Callable[[str], ValueGetter], table: str) -> ValueGetter:
    """Looks rows of a table up: in its store, or through the tables it is made from.

    Raises:
        TopologyError: somewhere on the way no rows are kept.
    """
    node = nodes.get(table)
    match node.operator if isinstance(node, ProcessorNode) else None:
        case (
            op.TableSource(store=str(store))
            | op.StreamToTable(store=str(store))
            | op.TableFilter(store=str(store))
            | op.TableMapValues(store=str(store))
            | op.StreamAggregate(store=store)
            | op.StreamReduce(store=store)
            | op.StreamCount(store=store)
        ):
            return stored(store)
        case op.TableFilter() as operator:
            return filtered_getter(table, operator, table_getter(nodes, stored, operator.table))
        case op.TableMapValues() as operator:
            return mapped_getter(table, operator, table_getter(nodes, stored, operator.table))
        case _:
            raise TopologyError(f"table {table} keeps no rows to look up: give it a store (store=...) where it is made")
