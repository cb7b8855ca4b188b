"""Joining a table with another by keys taken from its rows, in five steps.

    left table --> subscribe ==> keep --> respond ==> resolve --> joined table
                                 right table --> notify ==^

`==>` goes through an internal topic: to the task that has the right row, and back to the one that has the left row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from streamlib.serdes import Serde


class JoinedTable(msgspec.Struct, frozen=True):
    """One side of a join: the name of the table's node, and how its keys and rows are written."""

    node: str
    key: Serde[Any]
    value: Serde[Any]


class ForeignKeySubscribe(msgspec.Struct, frozen=True):
    """Has each row of `table` follow the row of `other` whose key is `extractor(value)`, or `extractor(key, value)` if
    `with_key`; None is no key.

    `left=True`: rows without a match have a result, too.
    """

    table: JoinedTable
    other: JoinedTable
    extractor: Callable[..., Any]
    with_key: bool
    left: bool


class ForeignKeyKeep(msgspec.Struct, frozen=True):
    """Puts subscriptions into `subscriptions`, and takes them out."""

    subscriptions: str


class ForeignKeyRespond(msgspec.Struct, frozen=True):
    """Answers a subscription with the row of `table` that it is to."""

    table: JoinedTable


class ForeignKeyNotify(msgspec.Struct, frozen=True):
    """Tells all subscribers of a row of `table` that it has changed."""

    table: JoinedTable
    subscriptions: str


class ForeignKeyResolve(msgspec.Struct, frozen=True):
    """Makes the result of a response: `joiner(row of table, row of other)`, unless the response is stale."""

    table: JoinedTable
    other: JoinedTable
    joiner: Callable[[Any, Any], Any]
    left: bool
