"""Tables whose rows expire: that a row is gone is passed on like any other delete.

Before a record is processed the row of its key is looked at: the nodes below hear of the delete before they hear of the
new row. Other rows are found by sweeps, from time to time by stream time. A delete has the time at which the row
expired.
"""

from __future__ import annotations

from typing import Any

from streamlib.dsl.processor import PunctuationType
from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.site import Site
from streamlib.records import Headers
from streamlib.state.ttl import Expired, TtlOverlay
from streamlib.topology.nodes import TtlStoreSpec

SWEEPS_WITHIN_TTL = 256
"""A sweep each time stream time has moved by this part of the time to live."""


def expiring(node: NodeFn, spec: TtlStoreSpec, overlay: TtlOverlay, site: Site) -> NodeFn:
    """The node of a table, and what has to be done before each of its records."""
    forward, sends_old, expire = site.forward, site.sends_old_values, overlay.expire
    encode_key, decode_key, decode = spec.key.encode, spec.key.decode, spec.value.decode
    cursor, ttl_ms = site.work.cursor, spec.ttl_ms
    overlay.sweeps_itself = False

    def pass_on(expired: Expired) -> None:
        old = decode(expired.row[8:]) if sends_old else None
        forward(decode_key(expired.key), (None, old), expired.at, ())

    def sweep(stream_time: int) -> None:
        for expired in overlay.sweep():
            pass_on(expired)

    def look(key: Any) -> None:
        if (expired := expire(encode_key(key))) is not None:
            pass_on(expired)

    def looking_around(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        if key is None:
            node(key, value, timestamp, headers)
            return
        look(key)
        node(key, value, timestamp, headers)
        if timestamp <= cursor.stream_time - ttl_ms:
            look(key)  # the record was so late that its row has expired already

    site.schedule(PunctuationType.STREAM_TIME, max(spec.ttl_ms // SWEEPS_WITHIN_TTL, 1), sweep)
    return looking_around
