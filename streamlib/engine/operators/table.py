"""Tables: sources, filters, mapped values, and back to streams. A change is `(new value, old value)`; None is no row.

Old values are only worked out where a node downstream asks for them (`enableSendingOldValues`), else they are None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.site import OpenStore, RawRow, Site, TableRow, TableRows, short, store_error, user_error
from streamlib.engine.operators.versioned import versioned_storing
from streamlib.errors import SerializationError, TopologyError
from streamlib.records import Headers
from streamlib.state.codec import pack_timestamp, unpack_timestamp
from streamlib.topology import operators as op
from streamlib.topology.nodes import StoreSpec

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
    cursor, keep = site.work.cursor, storing(site, store)
    look_up = stored_rows(store).value if site.sends_old_values else _no_value

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        if key is None:
            cursor.dropped += 1
            return
        keep(key, (value, look_up(key)), timestamp, headers)

    return node


def compile_table_filter(operator: op.TableFilter, site: Site) -> NodeFn:
    """`KTableFilter`: what fails becomes a delete. Where old values are asked for, a row that failed before and fails
    now is no change, but below a versioned table, whose old values need not be those from just before."""
    passing = _keeper(site.name, operator)
    sends_old, silent = site.sends_old_values, not site.below_versioned
    store = None if operator.store is None else site.store(operator.store)
    keep, stored_old = storing(site, store), None if store is None else stored_rows(store).value

    def node(key: Any, change: Any, timestamp: int, headers: Headers) -> None:
        new, old = passing(key, change[0]), None
        if sends_old:
            old = passing(key, change[1]) if stored_old is None else stored_old(key)
            if silent and new is None and old is None:
                return
        keep(key, (new, old), timestamp, headers)

    return node


def compile_table_map_values(operator: op.TableMapValues, site: Site) -> NodeFn:
    """`KTableMapValues`: the mapper is not called for deletes."""
    convert, sends_old = _converter(site.name, operator), site.sends_old_values
    store = None if operator.store is None else site.store(operator.store)
    keep, stored_old = storing(site, store), None if store is None else stored_rows(store).value

    def node(key: Any, change: Any, timestamp: int, headers: Headers) -> None:
        new, old = convert(key, change[0]), None
        if sends_old:
            old = convert(key, change[1]) if stored_old is None else stored_old(key)
        keep(key, (new, old), timestamp, headers)

    return node


def compile_table_to_stream(operator: op.TableToStream, site: Site) -> NodeFn:
    forward = site.forward

    def node(key: Any, change: Any, timestamp: int, headers: Headers) -> None:
        forward(key, change[0], timestamp, headers)

    return node


def filtered_rows(operator: op.TableFilter, site: Site) -> TableRows:
    """Rows of a filtered table that is not stored: the parent's, judged when they are looked up."""
    return converted_rows(site.work.getter(operator.table), _keeper(site.name, operator))


def mapped_rows(operator: op.TableMapValues, site: Site) -> TableRows:
    """Rows of a mapped table that is not stored: the parent's, mapped when they are looked up."""
    return converted_rows(site.work.getter(operator.table), _converter(site.name, operator))


def converted_rows(parent: TableRows, convert: Callable[[Any, Any], Any]) -> TableRows:
    """The rows of another table, each with `convert(key, value)` as value; they keep their times."""
    parent_value, parent_row, parent_as_of = parent.value, parent.row, parent.as_of

    def value(key: Any) -> Any:
        return convert(key, parent_value(key))

    def converted(key: Any, found: TableRow | None) -> TableRow | None:
        if found is None:
            return None
        value = convert(key, found[0])
        return None if value is None else (value, found[1])

    def row(key: Any) -> TableRow | None:
        return converted(key, parent_row(key))

    if parent_as_of is None:
        return TableRows(value, row)
    return TableRows(value, row, lambda key, timestamp: converted(key, parent_as_of(key, timestamp)))


def stored_rows(store: OpenStore) -> TableRows:
    """The rows of a timestamped store, or the newest ones of a versioned store and those as of a time."""
    spec, get = store.spec, store.rows.newest if store.spec.kind == "versioned" else store.overlay.get
    encode_key, decode, timestamp_of = spec.key.encode, spec.value.decode, unpack_timestamp

    def value(key: Any) -> Any:
        try:
            row = get(encode_key(key))
            return None if row is None else decode(row[8:])
        except Exception as error:
            raise lookup_error(spec, key, error) from error

    def row(key: Any) -> TableRow | None:
        try:
            row = get(encode_key(key))
            return None if row is None else (decode(row[8:]), timestamp_of(row)[0])
        except Exception as error:
            raise lookup_error(spec, key, error) from error

    def raw(key: bytes) -> RawRow | None:
        row = get(key)
        return None if row is None else (row[8:], timestamp_of(row)[0])

    return TableRows(value, row, _as_of(store) if spec.kind == "versioned" else None, raw)


def _as_of(store: OpenStore) -> Callable[[Any, int], TableRow | None]:
    spec, look_up = store.spec, store.rows.as_of
    encode_key, decode = spec.key.encode, spec.value.decode

    def as_of(key: Any, timestamp: int) -> TableRow | None:
        try:
            found = look_up(encode_key(key), timestamp)
            return None if found is None or found[0] is None else (decode(found[0]), found[1])
        except Exception as error:
            raise lookup_error(spec, key, error) from error

    return as_of


def lookup_error(spec: StoreSpec, key: object, error: Exception) -> SerializationError:
    """A key that a store cannot encode, or a row that it cannot decode."""
    return SerializationError(
        f"store {spec.name}: cannot look up key {short(key)}: {error}; it holds keys {spec.key.name} and values "
        f"{spec.value.name}"
    )


def storing(site: Site, store: OpenStore | None) -> NodeFn:
    """Writes the new value of each change to the table's store, then forwards the change; without a store it only
    forwards it."""
    forward = site.forward
    if store is None:
        return forward
    if store.spec.kind == "versioned":
        return versioned_storing(site, store)
    write = _writer(site, store)

    def node(key: Any, change: Any, timestamp: int, headers: Headers) -> None:
        write(key, change[0], timestamp)
        forward(key, change, timestamp, headers)

    return node


def _writer(site: Site, store: OpenStore) -> Write:
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
