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


class TableTransformValues(msgspec.Struct, frozen=True):
    """Maps each row's value with an object of the user's that may use stores: `supplier()` makes one per task, and
    another for each place that looks rows up where they are not stored. It is called for deletes too."""

    table: str
    supplier: Callable[[], Any]
    store: str | None = None


class TableSelect(msgspec.Struct, frozen=True):
    """In front of the repartition topic of a grouped table: `selector(key, value) -> (group key, group value)`.

    Forwards changes under the group key: one if the group stays, a removal and an addition if it moves.
    """

    selector: Callable[[Any, Any], tuple[Any, Any] | None]


class TableAggregate(msgspec.Struct, frozen=True):
    """Folds the rows of each group: `subtractor(key, old, aggregate)`, then `adder(key, new, aggregate)`."""

    store: str
    initializer: Callable[[], Any]
    adder: Callable[[Any, Any, Any], Any]
    subtractor: Callable[[Any, Any, Any], Any]


class TableReduce(msgspec.Struct, frozen=True):
    """Folds the rows of each group: `subtractor(aggregate, old)`, then `adder(aggregate, new)`; the first value is the
    first aggregate."""

    store: str
    adder: Callable[[Any, Any], Any]
    subtractor: Callable[[Any, Any], Any]


class TableToStream(msgspec.Struct, frozen=True):
    """Forwards the new value of each change; optionally under a new key."""
