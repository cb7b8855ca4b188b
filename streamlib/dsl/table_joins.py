"""Joins of two tables by their keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from streamlib.dsl.functions import Hint, returns, serde_of
from streamlib.dsl.graph import check_same_builder
from streamlib.dsl.ktable import KTable
from streamlib.dsl.materialized import Materialized, StoreOption
from streamlib.errors import TopologyError
from streamlib.serdes import Serde
from streamlib.topology import operators as op
from streamlib.topology.nodes import ProcessorNode, StoreSpec


class TableJoinOptions(msgspec.Struct, frozen=True):
    """What the user said about a join of tables. `step` is the method; a side that is `outer` need not have a row."""

    step: str
    joiner: Callable[[Any, Any], Any]
    left_outer: bool
    right_outer: bool
    result: Hint
    store: StoreOption
    name: str | None


def join_tables(left: KTable[Any, Any], right: object, options: TableJoinOptions) -> KTable[Any, Any]:
    """Adds three nodes: one for the changes of each side, and where they meet (`KTableImpl.doJoin`).

    Raises:
        TopologyError: the right side is no table, or comes from another builder.
    """
    other = _checked(left, right, options.step)
    builder, point = left._point.builder, left._point
    spec = _spec(left, options)
    merge = builder.name("KTABLE-MERGE-", options.name)
    sources = point.sources | other._point.sources
    builder.copartition(sources)
    if options.left_outer:
        left._send_old_values(force=True)
    if options.right_outer:
        other._send_old_values(force=True)
    this = _side(left, other, options, is_right=False)
    that = _side(other, left, options, is_right=True)
    store = None if spec is None else spec.name
    builder.add(
        ProcessorNode(
            name=merge,
            operator=op.TableJoinMerge(this._point.node, store),
            parents=(this._point.node, that._point.node),
            stores=() if store is None else (store,),
        )
    )
    if spec is not None:
        builder.add_store(spec)
    joined = msgspec.structs.replace(point, node=merge, value=_result_serde(left, options), sources=sources)
    return KTable(joined, store, parents=(this,), old_from=(this, that))


def _checked(left: KTable[Any, Any], right: object, step: str) -> KTable[Any, Any]:
    if not isinstance(right, KTable):
        raise TopologyError(f"{step} of tables needs a table on the right, not {right!r}: to_table() makes one")
    check_same_builder(left._point, right._point, step)
    return right


def _spec(left: KTable[Any, Any], options: TableJoinOptions) -> StoreSpec | None:
    if options.store is None:
        return None
    materialized = Materialized.of(options.store)
    name = left._point.builder.store_name("KTABLE-MERGE-", materialized.name)
    return materialized.table_spec(name, left._point.key, _result_serde(left, options))


def _result_serde(left: KTable[Any, Any], options: TableJoinOptions) -> Serde[Any]:
    return serde_of(options.result, left._point.value, returns(options.joiner))


def _side(
    table: KTable[Any, Any], other: KTable[Any, Any], options: TableJoinOptions, *, is_right: bool
) -> KTable[Any, Any]:
    """The node that joins the changes of `table`, as the table that it is."""
    prefix, suffix = ("KTABLE-JOINOTHER-", "join-other") if is_right else ("KTABLE-JOINTHIS-", "join-this")
    name = table._point.builder.name(prefix, None if options.name is None else f"{options.name}-{suffix}")
    needs_left, needs_right = not options.right_outer, not options.left_outer
    operator = op.TableJoin(
        table._point.node,
        other._point.node,
        options.joiner,
        needs_own=needs_right if is_right else needs_left,
        needs_other=needs_left if is_right else needs_right,
        reversed=is_right,
    )
    return KTable(table._point.then(name, operator, *other._lookup_stores()), parents=(table, other))
