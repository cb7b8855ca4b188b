"""Which tables have versions: rows that can be asked for as of a time, and changes that may come out of order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamlib.topology.nodes import Node, ProcessorNode, StoreSpec, VersionedStoreSpec
from streamlib.topology.operators import TableFilter, TableMapValues, TableTransformValues

ROW_BY_ROW = (TableFilter, TableMapValues, TableTransformValues)
"""What makes a table of another row by row: without a store of its own it has the versions of that."""


def history_ms(nodes: Mapping[str, Node], stores: Mapping[str, StoreSpec], table: str) -> int | None:
    """How far back the rows of the table that a node makes can be asked for; None if it has no versions.

    Joins of versioned tables have none (KIP-914).
    """
    node = nodes[table]
    if not isinstance(node, ProcessorNode):
        return None
    operator: Any = node.operator
    store = getattr(operator, "store", None)
    if store is not None:
        spec = stores.get(store)
        return spec.history_retention_ms if isinstance(spec, VersionedStoreSpec) else None
    return history_ms(nodes, stores, node.parents[0]) if isinstance(operator, ROW_BY_ROW) else None
