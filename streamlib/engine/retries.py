"""Which steps call their function again, in place, and what waits meanwhile.

What raised can be done again only if nothing of it has been done: no store was changed, no record forwarded. So it is
with operators that call one function first, and then do the rest. Processors of the user are watched: once they have
stored or forwarded something, and raise then, it is too late. Others, which may have done a part (windows, joins of
streams), do what is to be done in the end at once.

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
_WRITES = frozenset({"put", "put_all", "put_if_absent", "delete", "remove"})


class Done:
    """Whether a user's processor has done anything yet for the record that it has."""

    __slots__ = ("anything",)

    def __init__(self) -> None:
        self.anything = False

    def noted(self, node: NodeFn) -> NodeFn:
        """A node, where to forward to it is to do something."""

        def noting(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
            self.anything = True
            node(key, value, timestamp, headers)

        return noting


class NotedStore:
    """A store as a processor sees it, where to write to it is to do something."""

    def __init__(self, store: object, done: Done) -> None:
        self._store = store
        self._done = done

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in _WRITES:
            return found

        def write(*arguments: Any, **options: Any) -> Any:
            self._done.anything = True
            return found(*arguments, **options)

        return write


def can_retry(node: ProcessorNode) -> bool:
    """Whether what the node's function raised has left nothing behind."""
    operator = node.operator
    if isinstance(operator, op.StreamTableJoin) and operator.buffer is not None:
        return False  # the record that comes lets others go
    return isinstance(operator, (*_FUNCTION_FIRST, op.Process))


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
