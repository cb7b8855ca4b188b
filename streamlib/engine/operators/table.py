"""Tables: sources, filters, mapped values, and back to streams. A change is `(new value, old value)`; None is no row.

Old values are only worked out where a node downstream asks for them (`enableSendingOldValues`), else they are None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.site import OpenStore, Site, ValueGetter, store_error, user_error
from streamlib.errors import SerializationError, TopologyError
from streamlib.records import Headers
from streamlib.state.codec import pack_timestamp
from streamlib.topology import operators as op

Write: TypeAlias = Callable[[Any, Any, int], None]
"""Puts a row, or deletes it: f(key, value, timestamp)."""


def compile_table_source(operator: op.TableSource | op.StreamToTable, site: Site) -> NodeFn:
    """`KTableSource`: the last update by offset wins, whatever its time. Null keys are dropped."""
    if operator.store is None:
        return _unstored_source(site)
    return _stored_source(site, site.store(operator.store))


def _unstored_source(site: Site) -> NodeFn:
    forward, cursor = site.forward, site.work.cursor

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        if key is None:
            cursor.dropped += 1
            return
        forward(key, (value, None), timestamp, headers)

    return node


def _stored_source(site: Site, store: OpenStore) -> NodeFn:
    forward, cursor, write = site.forward, site.work.cursor, writer(site, store)
    look_up = value_getter(store) if site.sends_old_values else _no_value

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        if key is None:
            cursor.dropped += 1
            return
        old = look_up(key)
        write(key, value, timestamp)
        forward(key, (value, old), timestamp, headers)

    return node


def compile_table_filter(operator: op.TableFilter, site: Site) -> NodeFn:
    """`KTableFilter`: what fails becomes a delete. Where old values are asked for, a row that failed before and fails
    now is no change."""
    keep = _keeper(site.name, operator)
    forward, sends_old = site.forward, site.sends_old_values
    store = None if operator.store is None else site.store(operator.store)
    write = _no_write if store is None else writer(site, store)
    stored_old = None if store is None else value_getter(store)

    def node(key: Any, change: Any, timestamp: int, headers: Headers) -> None:
        new, old = keep(key, change[0]), None
        if sends_old:
            old = keep(key, change[1]) if stored_old is None else stored_old(key)
            if new is None and old is None:
                return
        write(key, new, timestamp)
        forward(key, (new, old), timestamp, headers)

    return node


def compile_table_map_values(operator: op.TableMapValues, site: Site) -> NodeFn:
    """`KTableMapValues`: the mapper is not called for deletes."""
    convert = _converter(site.name, operator)
    forward, sends_old = site.forward, site.sends_old_values
    store = None if operator.store is None else site.store(operator.store)
    write = _no_write if store is None else writer(site, store)
    stored_old = None if store is None else value_getter(store)

    def node(key: Any, change: Any, timestamp: int, headers: Headers) -> None:
        new, old = convert(key, change[0]), None
        if sends_old:
            old = convert(key, change[1]) if stored_old is None else stored_old(key)
        write(key, new, timestamp)
        forward(key, (new, old), timestamp, headers)

    return node


def compile_table_to_stream(operator: op.TableToStream, site: Site) -> NodeFn:
    forward = site.forward

    def node(key: Any, change: Any, timestamp: int, headers: Headers) -> None:
        forward(key, change[0], timestamp, headers)

    return node


def filtered_getter(name: str, operator: op.TableFilter, parent: ValueGetter) -> ValueGetter:
    """Rows of a filtered table that is not stored: the parent's, judged when they are looked up."""
    keep = _keeper(name, operator)
    return lambda key: keep(key, parent(key))


def mapped_getter(name: str, operator: op.TableMapValues, parent: ValueGetter) -> ValueGetter:
    """Rows of a mapped table that is not stored: the parent's, mapped when they are looked up."""
    convert = _converter(name, operator)
    return lambda key: convert(key, parent(key))


def value_getter(store: OpenStore) -> ValueGetter:
    """Looks rows up in a timestamped store."""
    spec, get = store.spec, store.overlay.get
    encode_key, decode = spec.key.encode, spec.value.decode

    def getter(key: Any) -> Any:
        try:
            row = get(encode_key(key))
            return None if row is None else decode(row[8:])
        except Exception as error:
            raise SerializationError(
                f"store {spec.name}: cannot look up key {key!r:.80}: {error}; it holds keys {spec.key.name} and values "
                f"{spec.value.name}"
            ) from error

    return getter


def writer(site: Site, store: OpenStore) -> Write:
    """Writes rows of a timestamped store."""
    if store.spec.kind != "timestamped_key_value":
        raise TopologyError(f"node {site.name}: a table's store {store.spec.name} has to keep timestamps")
    name, spec, put, delete = site.name, store.spec, store.overlay.put, store.overlay.delete
    encode_key, encode = spec.key.encode, spec.value.encode

    def write(key: Any, value: Any, timestamp: int) -> None:
        try:
            raw_key = encode_key(key)
            row = None if value is None else pack_timestamp(timestamp) + encode(value)
        except Exception as error:
            raise store_error(name, spec, key, value, error) from error
        if row is None:
            delete(raw_key, timestamp)
        else:
            put(raw_key, row)

    return write


def _keeper(name: str, operator: op.TableFilter) -> Callable[[Any, Any], Any]:
    """f(key, value) -> the value if the filter lets it through, else None. No row is never asked about."""
    predicate, negate = operator.predicate, operator.negate

    def keep(key: Any, value: Any) -> Any:
        if value is None:
            return None
        try:
            accepted = bool(predicate(key, value))
        except Exception as error:
            raise user_error(name, key, error) from error
        return value if accepted is not negate else None

    return keep


def _converter(name: str, operator: op.TableMapValues) -> Callable[[Any, Any], Any]:
    mapper, with_key = operator.mapper, operator.with_key

    def convert(key: Any, value: Any) -> Any:
        if value is None:
            return None
        try:
            return mapper(key, value) if with_key else mapper(value)
        except Exception as error:
            raise user_error(name, key, error) from error

    return convert


def _no_value(key: Any) -> None:
    return None


def _no_write(key: Any, value: Any, timestamp: int) -> None:
    return None
