"""Tables in versioned stores, and what is different below them (KIP-889, KIP-914).

put is refused, too old       nothing is forwarded
put, but not as the newest    an `OutOfOrder` change is forwarded
below                         filters and the like pass the order on; aggregations and joins ignore what is not the
                              newest; a store without versions takes any change as the last
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from streamlib.engine.cursor import Cursor
from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.change import OutOfOrder
from streamlib.engine.operators.site import OpenStore, Site, store_error
from streamlib.records import Headers
from streamlib.state.versioned import IS_NEWEST, NOT_PUT, VersionedRows
from streamlib.topology import operators as op
from streamlib.topology.nodes import Node
from streamlib.topology.versions import ROW_BY_ROW, history_ms

IGNORE_LATE_CHANGES = (op.TableSelect, op.TableJoin, op.ForeignKeySubscribe, op.ForeignKeyNotify)


def versioned_tables(nodes: Mapping[str, Node], stores: Mapping[str, OpenStore]) -> frozenset[str]:
    """The nodes whose changes may be out of order, by name."""
    specs = {name: store.spec for name, store in stores.items()}
    return frozenset(name for name in nodes if history_ms(nodes, specs, name) is not None)


def compile_below_versioned(compile_node: Callable[[Any, Site], NodeFn], operator: Any, site: Site) -> NodeFn:
    """Compiles a node that changes come to which may be out of order."""
    if isinstance(operator, IGNORE_LATE_CHANGES):
        # Grouping does not count what it ignores, neither in Kafka Streams.
        return _only_newest(
            compile_node(operator, site), site.work.cursor, 0 if type(operator) is op.TableSelect else 1
        )
    if isinstance(operator, ROW_BY_ROW) and operator.store is None:
        return _passing_the_order_on(compile_node, operator, site)
    return compile_node(operator, site)


def _only_newest(node: NodeFn, cursor: Cursor, counts: int) -> NodeFn:
    def in_order(key: Any, change: Any, timestamp: int, headers: Headers) -> None:
        if type(change) is OutOfOrder:
            cursor.dropped += counts
            return
        node(key, change, timestamp, headers)

    return in_order


def _passing_the_order_on(compile_node: Callable[[Any, Site], NodeFn], operator: Any, site: Site) -> NodeFn:
    """What comes of a change that is out of order is so, too."""
    forward, late = site.forward, False

    def marked(key: Any, change: Any, timestamp: int, headers: Headers) -> None:
        forward(key, OutOfOrder(change) if late else change, timestamp, headers)

    node = compile_node(operator, msgspec.structs.replace(site, forward=marked))

    def noting(key: Any, change: Any, timestamp: int, headers: Headers) -> None:
        # A node is never entered twice at once, so this holds until the change is forwarded.
        nonlocal late
        late = type(change) is OutOfOrder
        node(key, change, timestamp, headers)

    return noting


def versioned_storing(site: Site, store: OpenStore) -> NodeFn:
    """Writes the new value of each change, then forwards it if it was put."""
    name, spec, cursor = site.name, store.spec, site.work.cursor
    rows: VersionedRows = store.rows
    put, forward, encode_key, encode = rows.put, site.forward, spec.key.encode, spec.value.encode

    def node(key: Any, change: Any, timestamp: int, headers: Headers) -> None:
        value = change[0]
        try:
            raw_key, raw = encode_key(key), None if value is None else encode(value)
        except Exception as error:
            raise store_error(name, spec, key, value, error) from error
        followed_at = put(raw_key, raw, timestamp)
        if followed_at == IS_NEWEST:
            forward(key, change, timestamp, headers)
        elif followed_at == NOT_PUT:
            cursor.dropped += 1
        else:
            forward(key, OutOfOrder(change), timestamp, headers)

    return node
