"""Joins of streams with global tables: nothing is repartitioned, the table is there whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamlib.dsl.functions import Hint, returns, serde_of
from streamlib.dsl.global_table import GlobalKTable
from streamlib.dsl.graph import Point
from streamlib.errors import TopologyError
from streamlib.topology import operators as op
from streamlib.topology.functions import user_function


def join_with_global_table(
    point: Point,
    table: GlobalKTable[Any, Any],
    joiner: Callable[..., Any],
    key_selector: Callable[[Any, Any], Any] | None,
    *,
    left: bool,
    with_key: bool,
    result: Hint,
    name: str | None,
) -> Point:
    """A stream's point after the join.

    Raises:
        TopologyError: there is no key selector, or the table grows in another builder.
    """
    operator = "left_join" if left else "join"
    if key_selector is None:
        raise TopologyError(
            f"{operator} of {point.node} with the global table {table.store} needs key_selector=: "
            "f(key, value) -> the key to look up"
        )
    if point.builder is not table._builder:
        raise TopologyError(
            f"{operator} of {point.node} with the global table {table.store}: they come from two StreamsBuilders; "
            "use one"
        )
    join = op.StreamGlobalTableJoin(
        table.store,
        user_function(key_selector, operator),
        user_function(joiner, operator),
        left=left,
        with_key=with_key,
    )
    node = point.builder.name("KSTREAM-LEFTJOIN-", name)  # whether left or inner (`KStreamImpl.globalTableJoin`)
    return point.then(node, join, value=serde_of(result, point.value, returns(joiner)))
