"""How a user's processor becomes a node of the DSL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from streamlib.dsl.graph import Called, Point
from streamlib.topology import operators as op
from streamlib.topology.checks import check_policy, check_topic_name
from streamlib.topology.functions import processor_supplier, supplied_stores
from streamlib.topology.nodes import StoreSpec


def processed(
    point: Point,
    supplier: Callable[[], Any],
    stores: Sequence[str | StoreSpec],
    called: Called,
    *,
    keeps_key: bool,
    **changes: Any,
) -> Point:
    """Attach a processor to a point, with the stores it is given and those its supplier brings along.

    Raises:
        TopologyError: it is no supplier, or something else than stores was given.
    """
    method, prefix = ("process_values", "PROCESSVALUES") if keeps_key else ("process", "PROCESSOR")
    name, on_error = called
    check_policy(on_error, f"{method}: on_error", retry=True)
    operator = op.Process(processor_supplier(supplier, method), keeps_key)
    used = [store_name(point, store) for store in (*stores, *supplied_stores(supplier, method))]
    # A given name uses no number up here, unlike elsewhere (`KStreamImpl.process`).
    if name is not None:
        check_topic_name(name, "a node")
    node = name if name is not None else point.builder.name(f"KSTREAM-{prefix}-")
    return point.then(node, operator, *dict.fromkeys(used), on_error=on_error, **changes)


def store_name(point: Point, store: str | StoreSpec) -> str:
    """The name of a store that was added before, or is now."""
    if isinstance(store, str):
        return store
    point.builder.add_store(store)
    return store.name
