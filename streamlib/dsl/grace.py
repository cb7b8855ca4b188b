"""Joins of streams with versioned tables in which records wait for rows that come late."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from streamlib.dsl.graph import Point
from streamlib.errors import TopologyError
from streamlib.topology import operators as op
from streamlib.topology.nodes import BufferStoreSpec
from streamlib.windows import duration_ms


def with_grace(join: op.StreamTableJoin, point: Point, node: str, grace: timedelta) -> op.StreamTableJoin:
    """The join with a buffer, `<node>-Buffer`, in which records of the stream at `point` wait (`Joined.gracePeriod`).

    Raises:
        TopologyError: the grace is negative or no timedelta, the table has no versions, or forgets them earlier.
    """
    grace_ms = duration_ms(grace, f"grace of the join {node}")
    history_ms = point.builder.history_ms(join.table)
    if history_ms is None:
        raise TopologyError(
            f"join {node}: grace= needs a table that knows its rows of earlier times, and {join.table} does not: "
            "give it store=Materialized(history_retention=...)"
        )
    if grace_ms > history_ms:
        raise TopologyError(
            f"join {node}: records would wait {grace_ms} ms, but table {join.table} forgets its rows of earlier times "
            f"after {history_ms} ms: give it a history_retention at least as long as the grace"
        )
    buffer = BufferStoreSpec(name=f"{node}-Buffer", key=point.key, value=point.value, retain_duplicates=True)
    point.builder.add_store(buffer)
    return msgspec.structs.replace(join, grace_ms=grace_ms, buffer=buffer.name)
