"""Operators without state of their own: filters, maps, branches, user processors.

Those with `calls` await their function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import msgspec

from streamlib.topology.services import Service

Ordered: TypeAlias = Literal["key", "partition", "none"]
"""In which order the results of calls go on."""

MOST_CONCURRENT = 1_000
"""The most calls of one operator and task that may be under way."""


class CallOptions(msgspec.Struct, frozen=True):
    """How an operator awaits its function.

    Attributes:
        concurrency: how many calls of one task may be under way.
        ordered: "key": of each key one call after the other; "partition": results in the order of the records;
            "none": as they come.
        timeout_ms: after how long a call counts as failed; None: never.
        service: what is called, if anything is to be known of it.
    """

    concurrency: int = 64
    ordered: Ordered = "key"
    timeout_ms: int | None = None
    service: Service | None = None


class PassThrough(msgspec.Struct, frozen=True):
    """Forwards each record as it is: merge points and the children of a branch."""


class DropNullKeys(msgspec.Struct, frozen=True):
    """In front of a repartition topic: a record without a key has no partition to go to."""


class Filter(msgspec.Struct, frozen=True):
    """Keeps what `predicate(key, value)` accepts, or refuses if `negate`."""

    predicate: Callable[[Any, Any], object]
    negate: bool = False
    calls: CallOptions | None = None


class MapRecords(msgspec.Struct, frozen=True):
    """`mapper(key, value) -> (key, value)`."""

    mapper: Callable[[Any, Any], Any]
    calls: CallOptions | None = None


class MapValues(msgspec.Struct, frozen=True):
    """`mapper(value)`, or `mapper(key, value)` if `with_key`."""

    mapper: Callable[..., Any]
    with_key: bool = False
    calls: CallOptions | None = None


class FlatMap(msgspec.Struct, frozen=True):
    """`mapper(key, value) -> iterable of (key, value)`."""

    mapper: Callable[[Any, Any], Any]
    calls: CallOptions | None = None


class FlatMapValues(msgspec.Struct, frozen=True):
    """`mapper(value) -> iterable of values`, or `mapper(key, value)` if `with_key`."""

    mapper: Callable[..., Any]
    with_key: bool = False
    calls: CallOptions | None = None


class SelectKey(msgspec.Struct, frozen=True):
    """`selector(key, value) -> new key`."""

    selector: Callable[[Any, Any], Any]


class Peek(msgspec.Struct, frozen=True):
    """Calls `action(key, value)`, then forwards the record unchanged."""

    action: Callable[[Any, Any], object]
    calls: CallOptions | None = None


class Foreach(msgspec.Struct, frozen=True):
    """Calls `action(key, value)`; the end of the line."""

    action: Callable[[Any, Any], object]
    calls: CallOptions | None = None


class AddRecordId(msgspec.Struct, frozen=True):
    """Puts the record's id into a header, unless it has that header."""

    header: str


class Branch(msgspec.Struct, frozen=True):
    """Forwards to the first child whose predicate accepts; `predicates[i]` belongs to `children[i]`.

    `default` is the child for what no predicate accepts, or None: then it is dropped.
    """

    predicates: tuple[Callable[[Any, Any], object], ...]
    children: tuple[str, ...]
    default: str | None = None


class Process(msgspec.Struct, frozen=True):
    """A user's processor: `supplier()` makes one instance per task (see `streamlib.dsl.processor.Processor`).

    `keeps_key`: it gets and forwards records whose key cannot be changed.
    """

    supplier: Callable[[], Any]
    keeps_key: bool = False
