"""A topology without what would reach out of it: functions that are only called for their effect are left out.

The functions of maps, aggregations and processors are called again; whether they have effects, nobody can tell.
"""

from __future__ import annotations

import msgspec

from streamlib.topology import operators as op
from streamlib.topology.nodes import Node, ProcessorNode
from streamlib.topology.operators import Operator
from streamlib.topology.topology import Topology


def without_effects(topology: Topology) -> Topology:
    """The same nodes, stores and topics; `peek`, `foreach` and `print` do nothing, nobody is told of late records."""
    return Topology(
        [_without_effects(node) for node in topology.nodes.values()],
        topology.stores.values(),
        topology.repartition_topics.values(),
        topology.copartition_groups,
    )


def _without_effects(node: Node) -> Node:
    if not isinstance(node, ProcessorNode):
        return node
    operator = _silent(node.operator)
    return node if operator is node.operator else msgspec.structs.replace(node, operator=operator)


def _silent(operator: Operator) -> Operator:
    match operator:
        case op.Peek() | op.Foreach():
            return op.PassThrough()
        case op.WindowedFold() | op.SessionFold() if operator.on_late is not None:
            return msgspec.structs.replace(operator, on_late=None)
        case _:
            return operator
