"""Joins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec


class StreamGlobalTableJoin(msgspec.Struct, frozen=True):
    """Looks up `selector(key, value)` in a global store.

    Calls `joiner(left, right)`, or `joiner(key, left, right)` if `with_key`, with the stream's key.

    `left=True`: a record without a match is joined with None.
    """

    store: str
    selector: Callable[[Any, Any], Any]
    joiner: Callable[..., Any]
    left: bool = False
    with_key: bool = False


class StreamTableJoin(msgspec.Struct, frozen=True):
    """Looks up `table` (the name of a table node) by the record's key.

    Calls `joiner(left, right)`, or `joiner(key, left, right)` if `with_key`.

    `left=True`: a record without a match is joined with None. Never emits when the table changes. With `grace_ms`,
    records wait in the store `buffer` until stream time is so much later than they are.
    """

    table: str
    joiner: Callable[..., Any]
    left: bool = False
    with_key: bool = False
    grace_ms: int = 0
    buffer: str | None = None


class TableJoin(msgspec.Struct, frozen=True):
    """One side of a join of two tables by key: each change of `table` is joined with the row of `other`.

    `joiner(left, right)`; `table` is the left one unless `reversed`. There is no result without a row of `table` if
    `needs_own`, none without a row of `other` if `needs_other`, and none without either in any case.
    """

    table: str
    other: str
    joiner: Callable[[Any, Any], Any]
    needs_own: bool
    needs_other: bool
    reversed: bool = False


class TableJoinMerge(msgspec.Struct, frozen=True):
    """Where the two sides of a join of tables meet: the joined table. `side` is the left side's node."""

    side: str
    store: str | None = None
