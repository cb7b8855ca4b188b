"""What a processor node does, as data; one frozen struct for each kind.

`engine/operators/` compiles each kind into a closure; a test holds that none is forgotten.
Stream operators receive plain values, table operators receive changes (new value, old value).
User callables are called positionally; arity is fixed by the kind, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

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
    """A user's processor: `supplier()` makes one instance per task (see `streamlib.dsl.processor.Processor`)."""

    supplier: Callable[[], Any]


class StreamAggregate(msgspec.Struct, frozen=True):
    """Folds a stream into a table: `aggregator(key, value, aggregate)`, starting from `initializer()`.

    Emits changes. Records with a null key or value are dropped, as Kafka Streams does.
    """

    store: str
    initializer: Callable[[], Any]
    aggregator: Callable[[Any, Any, Any], Any]


class StreamReduce(msgspec.Struct, frozen=True):
    """Folds a stream into a table: `reducer(aggregate, value)`; the first value is the first aggregate."""

    store: str
    reducer: Callable[[Any, Any], Any]


class StreamCount(msgspec.Struct, frozen=True):
    """Counts records per key; apart from `StreamAggregate` so that the commonest aggregation can be the quickest."""

    store: str


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


class StreamTableJoin(msgspec.Struct, frozen=True):
    """Looks up `table` (the name of a table node) by the record's key.

    Calls `joiner(left, right)`, or `joiner(key, left, right)` if `with_key`.

    `left=True`: a record without a match is joined with None. Never emits when the table changes.
    """

    table: str
    joiner: Callable[..., Any]
    left: bool = False
    with_key: bool = False


Operator: TypeAlias = (
    PassThrough
    | DropNullKeys
    | Filter
    | MapRecords
    | MapValues
    | FlatMap
    | FlatMapValues
    | SelectKey
    | Peek
    | Foreach
    | Branch
    | Process
    | StreamAggregate
    | StreamReduce
    | StreamCount
    | TableSource
    | StreamToTable
    | TableFilter
    | TableMapValues
    | TableToStream
    | StreamTableJoin
)
