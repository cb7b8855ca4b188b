"""Rows of tables, looked up: in the table's store, or by working them out of the tables it is made from.

A new kind of table that keeps its rows in a store needs nothing here, unless the store is of a new kind: then `STORED`.
One that can be looked up without a store goes into `DERIVED`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from streamlib.engine.operators import in_window, sessions, suppress, table, table_join, transform_values
from streamlib.engine.operators.site import OpenStore, Site, TableRows, Work, fan_out
from streamlib.errors import TopologyError
from streamlib.topology import operators as op
from streamlib.topology.nodes import Node, ProcessorNode, StoreKind

STORED: Mapping[StoreKind, Callable[[OpenStore], TableRows]] = {
    "timestamped_key_value": table.stored_rows,
    "versioned": table.stored_rows,
    "timestamped_window": in_window.windowed_rows,
    "session": sessions.stored_sessions,
}
"""How rows are looked up in a store, by its kind."""

DERIVED: Mapping[type[Any], Callable[[Any, Site], TableRows]] = {
    op.TableFilter: table.filtered_rows,
    op.TableMapValues: table.mapped_rows,
    op.TableTransformValues: transform_values.transformed_rows,
    op.TableJoin: table_join.joined_rows,
    op.TableJoinMerge: table_join.merged_rows,
    op.Suppress: suppress.suppressed_rows,
}
"""How rows of a table without a store are worked out, by its operator. The site is the table's, without children; the
rows of the tables above come from `site.work.getter`."""


def table_rows(nodes: Mapping[str, Node], work: Work, name: str) -> TableRows:
    """The rows of the table that the node `name` makes. Its operator's field `store` names the store they are in, or
    is None.

    Raises:
        TopologyError: somewhere on the way no rows are kept.
    """
    node = nodes.get(name)
    operator = node.operator if isinstance(node, ProcessorNode) else None
    store = getattr(operator, "store", None)
    if store is not None:
        opened = work.stores[store]
        if opened.spec.kind not in STORED:
            raise TopologyError(f"table {name}: rows of its store {store} ({opened.spec.kind}) cannot be looked up")
        return STORED[opened.spec.kind](opened)
    if not isinstance(node, ProcessorNode) or type(operator) not in DERIVED:
        raise TopologyError(f"table {name} keeps no rows to look up: give it a store (store=...) where it is made")
    return DERIVED[type(operator)](operator, Site(name, {}, fan_out(()), node.stores, False, work))
