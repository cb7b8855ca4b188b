"""Tables: their sources, what is made of them, and back to streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec


class TableSource(msgspec.Struct, frozen=True):
    """Turns a topic's records into changes of a table. `store=None`: nothing needs to look rows up, none is kept."""

    store: str | None = None


class StreamToTable(msgspec.Struct, frozen=True):
    """`to_table`: like `TableSource`, fed by a stream."""

    store: str | None = None


class TableFilter(msgspec.Struct, frozen=True):
    """Keeps rows that `predicate(key, value)` accepts (refuses if `negate`); what fails becomes a delete."""

    table: str
    predicate: Callable[[Any, Any], object]
    negate: bool = False
    store: str | None = None


class TableMapValues(msgspec.Struct, frozen=True):
    """Maps each row's value; deletes stay deletes."""

    table: str
    mapper: Callable[..., Any]
    with_key: bool = False
    store: str | None = None


class TableToStream(msgspec.Struct, frozen=True):
    """Forwards the new value of each change; optionally under a new key."""
