"""Ids of records: what a `flat_map` makes of one record is told apart by its number, where somebody below may ask.

Nobody else pays for it: without an operator below that asks, a `flat_map` is compiled as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.async_calls import is_awaited
from streamlib.engine.operators.site import Site
from streamlib.records import Headers, RecordMetadata
from streamlib.topology import operators as op
from streamlib.topology.nodes import Node, ProcessorNode

_ASK = (op.Process, op.TableTransformValues, op.AddRecordId)
MAKE_MANY = (op.FlatMap, op.FlatMapValues)


def nodes_that_tell_ids(nodes: Mapping[str, Node], children: Mapping[str, Sequence[str]]) -> frozenset[str]:
    """Those at or below which something may ask for ids, by name. `nodes`: parents before children."""
    found: set[str] = set()
    for name, node in reversed(list(nodes.items())):
        asks = isinstance(node, ProcessorNode) and (isinstance(node.operator, _ASK) or is_awaited(node))
        if asks or not found.isdisjoint(children[name]):
            found.add(name)
    return frozenset(found)


def compile_numbered(compile_node: Callable[[Any, Site], NodeFn], operator: Any, site: Site) -> NodeFn:
    """Compiles a node that makes many records of one: below it each has its number."""
    cursor, forward = site.work.cursor, site.forward
    above: tuple[int, ...] = ()
    number = 0

    def forward_numbered(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        nonlocal number
        cursor.derived = (*above, number)
        number += 1
        forward(key, value, timestamp, headers)

    make_many = compile_node(operator, msgspec.structs.replace(site, forward=forward_numbered))

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        # A node is never entered twice at once (no cycles within a task).
        nonlocal above, number
        above, number = cursor.derived, 0
        try:
            make_many(key, value, timestamp, headers)
        finally:
            cursor.derived = above

    return node


def compile_add_record_id(operator: op.AddRecordId, site: Site) -> NodeFn:
    """A record that has an id keeps it: it is that of the first record."""
    forward, cursor, header = site.forward, site.work.cursor, operator.header

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        record = cursor.record
        if cursor.partition is not None and record is not None and not any(name == header for name, _ in headers):
            place = RecordMetadata(*cursor.partition, record.offset, cursor.derived)
            headers = (*headers, (header, place.id.encode()))
        forward(key, value, timestamp, headers)

    return node
