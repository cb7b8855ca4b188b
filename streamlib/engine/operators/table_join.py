"""Joining two tables by key: each side looks its changes up in the other, a third node takes both sides' results.

A result's time is the later of the change's and the other row's. Whether there was a result before is not looked at,
so deletes can repeat. Source: `KTableKTableInnerJoin`, `KTableKTableLeftJoin`, `KTableKTableRightJoin`,
`KTableKTableOuterJoin`, `KTableKTableJoinMerger`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.site import Site, TableRow, TableRows, user_error
from streamlib.engine.operators.table import stored_rows, storing
from streamlib.records import Headers
from streamlib.topology import operators as op


def compile_table_join(operator: op.TableJoin, site: Site) -> NodeFn:
    """One side. Null keys are dropped."""
    forward, cursor, sends_old = site.forward, site.work.cursor, site.sends_old_values
    look_up, joined, needs_other = (
        site.work.getter(operator.other).row,
        _joiner(operator, site.name),
        operator.needs_other,
    )

    def node(key: Any, change: Any, timestamp: int, headers: Headers) -> None:
        if key is None:
            cursor.dropped += 1
            return
        new, old = change
        row, other = look_up(key), None
        if row is not None:
            other = row[0]
            if row[1] > timestamp:
                timestamp = row[1]
        elif needs_other or (new is None and old is None):
            return
        before = joined(key, old, other) if sends_old else None
        forward(key, (joined(key, new, other), before), timestamp, headers)

    return node


def compile_table_join_merge(operator: op.TableJoinMerge, site: Site) -> NodeFn:
    """Costs nothing if the joined table is not stored: the children take its place."""
    if operator.store is None:
        return site.forward
    store = site.store(operator.store)
    keep, look_up = storing(site, store), stored_rows(store).value

    def cached(key: Any, change: Any, timestamp: int, headers: Headers) -> None:
        keep(key, (change[0], look_up(key)), timestamp, headers)

    return cached if site.cached else keep


def joined_rows(operator: op.TableJoin, site: Site) -> TableRows:
    """Rows of a joined table that is not stored, joined when they are looked up."""
    own_row, other_row = site.work.getter(operator.table).row, site.work.getter(operator.other).row
    joined = _joiner(operator, site.name)

    def row(key: Any) -> TableRow | None:
        own, other = own_row(key), other_row(key)
        times = [found[1] for found in (own, other) if found is not None]
        value = joined(key, None if own is None else own[0], None if other is None else other[0])
        return None if value is None else (value, max(times))

    def value(key: Any) -> Any:
        found = row(key)
        return None if found is None else found[0]

    return TableRows(value, row)


def merged_rows(operator: op.TableJoinMerge, site: Site) -> TableRows:
    """Rows of a joined table that is not stored: those of either side."""
    return site.work.getter(operator.side)


def _joiner(operator: op.TableJoin, name: str) -> Callable[[Any, Any, Any], Any]:
    """f(key, own value, other value) -> the joined value; None where the join has no row."""
    joiner, is_right = operator.joiner, operator.reversed
    needs_own, needs_other = operator.needs_own, operator.needs_other

    def joined(key: Any, own: Any, other: Any) -> Any:
        if own is None and (needs_own or other is None):
            return None
        if other is None and needs_other:
            return None
        try:
            return joiner(other, own) if is_right else joiner(own, other)
        except Exception as error:
            raise user_error(name, key, error) from error

    return joined
