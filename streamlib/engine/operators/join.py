"""Joins."""

from __future__ import annotations

from typing import Any

from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.site import Site, user_error
from streamlib.records import Headers
from streamlib.topology import operators as op


def compile_stream_table_join(operator: op.StreamTableJoin, site: Site) -> NodeFn:
    """`KStreamKTableJoinProcessor`: a null value is dropped always, a null key unless the join is left (KIP-962)."""
    joiner, left, with_key = operator.joiner, operator.left, operator.with_key
    name, forward, cursor = site.name, site.forward, site.work.cursor
    look_up = site.work.getter(operator.table)

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        if value is None or (key is None and not left):
            cursor.dropped += 1
            return
        row = None if key is None else look_up(key)
        if row is None and not left:
            return
        try:
            joined = joiner(key, value, row) if with_key else joiner(value, row)
        except Exception as error:
            raise user_error(name, key, error) from error
        forward(key, joined, timestamp, headers)

    return node
