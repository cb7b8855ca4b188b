"""Joins of two streams within a window of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec


class StreamJoinWindow(msgspec.Struct, frozen=True):
    """Forwards each record to the join, then keeps it in `store` for records of the other side that are to come."""

    store: str


class StreamStreamJoin(msgspec.Struct, frozen=True):
    """One side of a join of streams: each record is joined with those in the other side's store.

    Calls `joiner(left, right)`, or `joiner(key, left, right)` if `with_key`. Records of the other side match from
    `before_ms` before to `after_ms` after.

    `outer`: a record of this side that finds no match is emitted alone: at once, or if `waiting` names a store, when
    its window and grace have passed without one. `other_outer`: so is one of the other side.
    """

    left_store: str
    right_store: str
    is_left: bool
    joiner: Callable[..., Any]
    with_key: bool
    outer: bool
    other_outer: bool
    before_ms: int
    after_ms: int
    grace_ms: int
    waiting: str | None = None


class StreamSelfJoin(msgspec.Struct, frozen=True):
    """A stream joined with itself by way of one store: what both sides of `StreamStreamJoin` emit, in their order."""

    store: str
    joiner: Callable[..., Any]
    with_key: bool
    before_ms: int
    after_ms: int
