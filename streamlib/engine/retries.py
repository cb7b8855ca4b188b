"""Which steps call their function again, in place, and what waits meanwhile.

What raised can be done again only if nothing of it has been done: no store was changed, no record forwarded. So it is
with operators that call one function first, and then do the rest. Others, which may have done a part (processors of the
user, windows, joins of streams), do what is to be done in the end at once.

A record waits as a call does (`engine/calls.py`), with the records of its key behind it: the task goes on with other
keys, nothing is blocked, and commits go past it or wait for it by the same rules (`engine/reach.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamlib.engine.calls import Calls, Line, Wait
from streamlib.engine.inputs import NodeFn
from streamlib.policies import Resolved, Retry
from streamlib.records import Headers
from streamlib.topology import operators as op
from streamlib.topology.nodes import ProcessorNode

Attempt = Callable[[Any, Any, int, Headers], Wait | None]
"""A node that says whether, and after how long, it is to be tried again."""

_FUNCTION_FIRST = (
    op.Filter,
    op.MapRecords,
    op.MapValues,
    op.FlatMap,
    op.FlatMapValues,
    op.SelectKey,
    op.Peek,
    op.Foreach,
    op.Branch,
    op.StreamAggregate,
    op.StreamReduce,
    op.StreamTableJoin,
    op.StreamGlobalTableJoin,
)


def can_retry(node: ProcessorNode) -> bool:
    """Whether what the node's function raised has left nothing behind."""
    operator = node.operator
    if isinstance(operator, op.StreamTableJoin) and operator.buffer is not None:
        return False  # the record that comes lets others go
    return isinstance(operator, _FUNCTION_FIRST)


def may_retry(node: ProcessorNode, policy: Resolved) -> bool:
    """Whether the node's function may be called again for a record, with this policy."""
    return can_retry(node) and (isinstance(policy, Retry) or callable(policy))


def waiting_in_line(calls: Calls, line: Line, attempt: Attempt) -> NodeFn:
    """The node that tries each record, and has those wait that are to be tried again."""
    line.resume = attempt
    register, order = calls.register, line.order

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        if order.waits(key):
            register(line, key, value, timestamp, headers)
            return
        wait = attempt(key, value, timestamp, headers)
        if wait is not None:
            register(line, key, value, timestamp, headers, wait)

    return node
