"""Operators whose function is awaited: the node notes the call, what comes back goes through the plain operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from streamlib.engine.calls import Line
from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.site import Work
from streamlib.errors import TopologyError
from streamlib.topology import operators as op
from streamlib.topology.functions import is_async_generator
from streamlib.topology.nodes import ProcessorNode

FUNCTIONS: Mapping[type[Any], str] = {
    op.Filter: "predicate",
    op.MapRecords: "mapper",
    op.MapValues: "mapper",
    op.FlatMap: "mapper",
    op.FlatMapValues: "mapper",
    op.Peek: "action",
    op.Foreach: "action",
}
"""Where operators that may await their function have it."""


def is_awaited(node: ProcessorNode) -> bool:
    """Whether the node's function is awaited."""
    return getattr(node.operator, "calls", None) is not None


def compile_awaited(node: ProcessorNode, work: Work, compile_plain: Callable[[ProcessorNode, Line], NodeFn]) -> NodeFn:
    """The node that notes calls. What comes after one is the plain operator with a function that says what is known.

    Raises:
        TopologyError: nothing can be awaited here.
    """
    calls = work.calls
    if calls is None:
        raise TopologyError(f"node {node.name}: functions cannot be awaited where a global store is filled")
    operator: Any = node.operator
    field = FUNCTIONS[type(operator)]
    line = calls.line(node.name, _called(operator, getattr(operator, field)), operator.calls)
    line.traced = None if work.tracing is None else work.tracing.call
    plain = msgspec.structs.replace(operator, **{field: line.answered, "calls": None})
    line.resume = compile_plain(msgspec.structs.replace(node, operator=plain), line)
    return partial(calls.register, line)


def _called(operator: Any, function: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """`f(key, value)` that calls the user's function with what it takes, and gives something to await."""
    called = partial(_collected, function) if is_async_generator(function) else function
    if getattr(operator, "with_key", True):
        return called
    return lambda key, value: called(value)


async def _collected(function: Callable[..., Any], *arguments: Any) -> list[Any]:
    return [each async for each in function(*arguments)]
