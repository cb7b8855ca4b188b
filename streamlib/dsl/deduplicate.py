"""Dropping repetitions: how the step and its store are made."""

from __future__ import annotations

from struct import Struct
from typing import Any, NamedTuple

from streamlib.dsl.graph import Point, RepartitionOptions, repartitioned
from streamlib.dsl.materialized import Materialized, StoreOption
from streamlib.errors import TopologyError
from streamlib.serdes import Serde, Serdes, placed_with
from streamlib.topology import operators as op
from streamlib.topology.nodes import WindowStoreSpec
from streamlib.windows import duration_ms

_LENGTH = Struct(">i")


class DeduplicateOptions(NamedTuple):
    """What a user says about it: `id` is the serde of what `id_selector` gives."""

    within: object
    id_selector: Any
    id: Serde[Any]
    store: StoreOption
    name: str | None


def deduplicated(point: Point, options: DeduplicateOptions) -> Point:
    """The point after the step, behind a repartition topic if the key may have changed.

    Raises:
        TopologyError: the span of time is none, or the store would forget too soon.
    """
    within_ms = duration_ms(options.within, "within= of deduplicate")
    materialized, builder = Materialized.of(options.store), point.builder
    store = builder.store_name("KSTREAM-DEDUPLICATE-", materialized.name)
    node = builder.name("KSTREAM-DEDUPLICATE-", options.name)
    if point.rekeyed:
        point = repartitioned(point, RepartitionOptions(options.name or store))
    key = point.key if options.id_selector is None else _pair(point.key, options.id)
    builder.add_store(
        WindowStoreSpec(
            name=store,
            kind="window",
            key=key,
            value=Serdes.bytes(),
            persistent=materialized.persistent,
            changelog=materialized.changelog,
            changelog_config=dict(materialized.changelog_config),
            retention_ms=_retention_ms(materialized, within_ms, node),
            window_size_ms=within_ms,
        )
    )
    return point.then(node, op.Deduplicate(store, within_ms, options.id_selector), store)


def _retention_ms(materialized: Materialized, within_ms: int, node: str) -> int:
    """Long enough that a record that is as late as `within` still meets all it has to be compared with."""
    retention_ms = materialized.retention_ms(node, 0)
    if materialized.retention is None:
        return 2 * within_ms + 1
    if retention_ms <= within_ms:
        raise TopologyError(
            f"{node}: a retention of {retention_ms} ms forgets records that repetitions may follow for {within_ms} ms: "
            "make it more than within="
        )
    return retention_ms


def _pair(key: Serde[Any], identity: Serde[Any]) -> Serde[tuple[Any, Any]]:
    """A key and an id: the length of the key's bytes, both one after the other."""
    return placed_with(_joined, key, identity)


def _joined(key: Serde[Any], identity: Serde[Any]) -> Serde[tuple[Any, Any]]:
    encode_key, encode_id = key.encode, identity.encode

    def encode(pair: tuple[Any, Any]) -> bytes:
        raw = encode_key(pair[0])
        return _LENGTH.pack(len(raw)) + raw + encode_id(pair[1])

    def decode(data: bytes) -> tuple[Any, Any]:
        end = _LENGTH.size + _LENGTH.unpack_from(data)[0]
        return key.decode(data[_LENGTH.size : end]), identity.decode(data[end:])

    return Serde(f"pair of {key.name} and {identity.name}", tuple, encode, decode)
