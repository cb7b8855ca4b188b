"""Folding a table, regrouped, into another.

    change of a row --select--> changes under group keys --repartition topic--> aggregate: subtract, then add

A row that stays in its group is one change there, one that moves a removal from the old group, then an addition to the
new. A result's time is the later of the change's and the stored row's. Source: `KTableRepartitionMap`,
`KTableAggregate`, `KTableReduce`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.folding import Folded, FoldRow, folding_node
from streamlib.engine.operators.site import Site, store_error, user_error
from streamlib.engine.operators.table import lookup_error
from streamlib.records import Headers
from streamlib.state.codec import pack_timestamp, unpack_timestamp
from streamlib.topology import operators as op
from streamlib.topology.nodes import StoreSpec

Fold: TypeAlias = Callable[[Any, Any, Any], Any]
"""f(key, value, aggregate) -> aggregate."""


def compile_table_select(operator: op.TableSelect, site: Site) -> NodeFn:
    """No pair, a null group key and a null group value count as no row (`KTableRepartitionMap`)."""
    name, forward, selector = site.name, site.forward, operator.selector

    def select(key: Any, value: Any) -> tuple[Any, Any] | None:
        if value is None:
            return None
        try:
            pair = selector(key, value)
            group, selected = (None, None) if pair is None else pair
        except Exception as error:
            raise user_error(name, key, error) from error
        return None if group is None or selected is None else (group, selected)

    def node(key: Any, change: Any, timestamp: int, headers: Headers) -> None:
        new, old = select(key, change[0]), select(key, change[1])
        if old is None:
            if new is not None:
                forward(new[0], (new[1], None), timestamp, headers)
        elif new is not None and new[0] == old[0]:
            forward(old[0], (new[1], old[1]), timestamp, headers)
        else:
            forward(old[0], (None, old[1]), timestamp, headers)
            if new is not None:
                forward(new[0], (new[1], None), timestamp, headers)

    return node


def compile_table_aggregate(operator: op.TableAggregate, site: Site) -> NodeFn:
    return _fold(site, operator.store, operator.initializer, operator.adder, operator.subtractor)


def compile_table_reduce(operator: op.TableReduce, site: Site) -> NodeFn:
    adder, subtractor = operator.adder, operator.subtractor
    first = object()  # a reduction has no initializer: the first value is the first aggregate

    def add(key: Any, value: Any, aggregate: Any) -> Any:
        return value if aggregate is first else adder(aggregate, value)

    def subtract(key: Any, value: Any, aggregate: Any) -> Any:
        return subtractor(aggregate, value)

    return _fold(site, operator.store, lambda: first, add, subtract)


def _fold(site: Site, store_name: str, initializer: Callable[[], Any], adder: Fold, subtractor: Fold) -> NodeFn:
    store, refold = site.store(store_name), _refolder(site.name, initializer, adder, subtractor)
    return folding_node(site, store, _row_refolder(site, store.spec, refold))


def _row_refolder(site: Site, spec: StoreSpec, refold: Fold) -> FoldRow:
    """Folds a change into the row of a timestamped store."""
    name, sends_old, encode, decode = site.name, site.sends_old_values, spec.value.encode, spec.value.decode

    def fold(key: Any, change: Any, timestamp: int, row: bytes | None) -> Folded:
        aggregate = before = None
        if row is not None:
            try:
                aggregate = decode(row[8:])
                # Another object: the functions may change the one they are given.
                before = decode(row[8:]) if sends_old else None
            except Exception as error:
                raise lookup_error(spec, key, error) from error
            timestamp = max(timestamp, unpack_timestamp(row)[0])
        aggregate = refold(key, change, aggregate)
        if aggregate is None:
            return None, (None, before), timestamp
        try:
            raw = encode(aggregate)
        except Exception as error:
            raise store_error(name, spec, key, aggregate, error) from error
        return pack_timestamp(timestamp) + raw, (aggregate, before), timestamp

    return fold


def _refolder(name: str, initializer: Callable[[], Any], adder: Fold, subtractor: Fold) -> Fold:
    """f(key, change, aggregate) -> the aggregate without the old value and with the new one."""

    def refold(key: Any, change: Any, aggregate: Any) -> Any:
        new, old = change
        try:
            if old is not None and aggregate is not None:
                aggregate = subtractor(key, old, aggregate)
            if new is not None:
                aggregate = adder(key, new, initializer() if aggregate is None else aggregate)
        except Exception as error:
            raise user_error(name, key, error) from error
        return aggregate

    return refold
