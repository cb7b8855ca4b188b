"""Mapping a table's values with an object of the user's that may use stores (`KTableTransformValues`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from streamlib.engine.context import OpenProcessor, ProcessorContext
from streamlib.engine.cursor import NO_TIME
from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.site import Site, TableRow, TableRows, user_error
from streamlib.engine.operators.table import stored_rows, storing
from streamlib.errors import StreamsError, TopologyError
from streamlib.records import Headers
from streamlib.topology import operators as op

Transform: TypeAlias = Callable[[Any, Any, int], Any]
"""f(key, value, timestamp) -> the new value."""


def compile_table_transform_values(operator: op.TableTransformValues, site: Site) -> NodeFn:
    """The old value is what the store had, or the old row transformed once more, as in Kafka Streams."""
    transform = _open(operator, site)
    return _unstored(transform, site) if operator.store is None else _stored(transform, operator.store, site)


def _unstored(transform: Transform, site: Site) -> NodeFn:
    forward, sends_old = site.forward, site.sends_old_values

    def node(key: Any, change: Any, timestamp: int, headers: Headers) -> None:
        new = transform(key, change[0], timestamp)
        old = transform(key, change[1], timestamp) if sends_old else None
        forward(key, (new, old), timestamp, headers)

    return node


def _stored(transform: Transform, store_name: str, site: Site) -> NodeFn:
    sends_old, store = site.sends_old_values, site.store(store_name)
    keep, look_up = storing(site, store), stored_rows(store).value

    def node(key: Any, change: Any, timestamp: int, headers: Headers) -> None:
        new = transform(key, change[0], timestamp)
        old = look_up(key) if sends_old else None
        keep(key, (new, old), timestamp, headers)

    return node


def transformed_rows(operator: op.TableTransformValues, site: Site) -> TableRows:
    """Rows of a table that is not stored: the parent's, transformed by an object of its own when they are looked up;
    rows that are not there as well."""
    transform, parent = _open(operator, site), site.work.getter(operator.table)
    parent_row, parent_as_of = parent.row, parent.as_of

    def transformed(key: Any, found: TableRow | None) -> TableRow | None:
        value, timestamp = (None, NO_TIME) if found is None else found
        result = transform(key, value, timestamp)
        return None if result is None else (result, timestamp)

    def row(key: Any) -> TableRow | None:
        return transformed(key, parent_row(key))

    def value(key: Any) -> Any:
        found = row(key)
        return None if found is None else found[0]

    if parent_as_of is None:
        return TableRows(value, row)
    return TableRows(value, row, lambda key, timestamp: transformed(key, parent_as_of(key, timestamp)))


def _open(operator: op.TableTransformValues, site: Site) -> Transform:
    """A transformer of the user's, to be initialised when all of the task is compiled."""
    name, work = site.name, site.work
    try:
        transformer = operator.supplier()
    except Exception as error:
        raise user_error(name, None, error) from error
    stores = {**work.global_stores, **{store: site.store(store) for store in site.stores}}
    rows = {store: opened.rows for store, opened in stores.items()}
    context = ProcessorContext(msgspec.structs.replace(site, forward=_no_forwarding(name), children={}), rows)
    work.processors.append(OpenProcessor(name, transformer, context))
    function = transformer.transform

    def transform(key: Any, value: Any, timestamp: int) -> Any:
        context.timestamp = timestamp
        try:
            return function(key, value)
        except StreamsError:
            raise  # from a store: it names its place already
        except Exception as error:
            raise user_error(name, key, error) from error

    return transform


def _no_forwarding(name: str) -> NodeFn:
    def forward(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        raise TopologyError(f"node {name}: a transformer of values returns the new value, it cannot forward records")

    return forward
