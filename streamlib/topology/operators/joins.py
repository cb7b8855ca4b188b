"""Joins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec


class StreamTableJoin(msgspec.Struct, frozen=True):
    """Looks up `table` (the name of a table node) by the record's key.

    Calls `joiner(left, right)`, or `joiner(key, left, right)` if `with_key`.

    `left=True`: a record without a match is joined with None. Never emits when the table changes.
    """

    table: str
    joiner: Callable[..., Any]
    left: bool = False
    with_key: bool = False
