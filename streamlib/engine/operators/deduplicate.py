"""Dropping repetitions within a span of time (KIP-655)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.site import Site, store_error, user_error
from streamlib.records import Headers
from streamlib.state.window import WindowRows
from streamlib.topology import operators as op


def compile_deduplicate(operator: op.Deduplicate, site: Site) -> NodeFn:
    """Only what is let through is remembered, so that a record that comes again and again passes from time to time."""
    forward, cursor, within_ms = site.forward, site.work.cursor, operator.within_ms
    rows: WindowRows = site.store(operator.seen).rows
    fetch, put_row, raw_id = rows.fetch, rows.put_row, _encoder(operator, site)

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        identity = raw_id(key, value)
        if identity is not None:
            for _ in fetch(identity, timestamp - within_ms, timestamp + within_ms):
                cursor.dropped += 1
                return
            put_row(identity, timestamp, b"", timestamp)
        forward(key, value, timestamp, headers)

    return node


def _encoder(operator: op.Deduplicate, site: Site) -> Callable[[Any, Any], bytes | None]:
    """f(key, value) -> the bytes that repetitions have in common; None if there is nothing to compare."""
    name, spec, selector = site.name, site.store(operator.seen).spec, operator.id_selector
    encode = spec.key.encode

    def encoded(identity: Any, value: Any) -> bytes:
        try:
            return encode(identity)
        except Exception as error:
            raise store_error(name, spec, identity, value, error) from error

    def of_key(key: Any, value: Any) -> bytes | None:
        return None if key is None else encoded(key, value)

    def of_selected(key: Any, value: Any) -> bytes | None:
        if key is None:
            return None
        assert selector is not None
        try:
            selected = selector(key, value)
        except Exception as error:
            raise user_error(name, key, error) from error
        return None if selected is None else encoded((key, selected), value)

    return of_key if selector is None else of_selected
