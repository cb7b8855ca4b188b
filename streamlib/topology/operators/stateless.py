"""Operators without state of their own: filters, maps, branches, user processors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec


class PassThrough(msgspec.Struct, frozen=True):
    """Forwards each record as it is: merge points and the children of a branch."""


class DropNullKeys(msgspec.Struct, frozen=True):
    """In front of a repartition topic: a record without a key has no partition to go to."""


class Filter(msgspec.Struct, frozen=True):
    """Keeps what `predicate(key, value)` accepts, or refuses if `negate`."""

    predicate: Callable[[Any, Any], object]
    negate: bool = False


class MapRecords(msgspec.Struct, frozen=True):
    """`mapper(key, value) -> (key, value)`."""

    mapper: Callable[[Any, Any], tuple[Any, Any]]


class MapValues(msgspec.Struct, frozen=True):
    """`mapper(value)`, or `mapper(key, value)` if `with_key`."""

    mapper: Callable[..., Any]
    with_key: bool = False


class FlatMap(msgspec.Struct, frozen=True):
    """`mapper(key, value) -> iterable of (key, value)`."""

    mapper: Callable[[Any, Any], Any]


class FlatMapValues(msgspec.Struct, frozen=True):
    """`mapper(value) -> iterable of values`, or `mapper(key, value)` if `with_key`."""

    mapper: Callable[..., Any]
    with_key: bool = False


class SelectKey(msgspec.Struct, frozen=True):
    """`selector(key, value) -> new key`."""

    selector: Callable[[Any, Any], Any]


class Peek(msgspec.Struct, frozen=True):
    """Calls `action(key, value)`, then forwards the record unchanged."""

    action: Callable[[Any, Any], object]


class Foreach(msgspec.Struct, frozen=True):
    """Calls `action(key, value)`; the end of the line."""

    action: Callable[[Any, Any], object]


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
