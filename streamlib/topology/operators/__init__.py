"""What a processor node does, as data; one frozen struct for each kind.

`engine/operators/` compiles each kind into a closure; a test holds that none is forgotten.
Stream operators receive plain values, table operators receive changes (new value, old value).
User callables are called positionally; arity is fixed by the kind, never guessed.
"""

from __future__ import annotations

from typing import TypeAlias

from streamlib.topology.operators.aggregations import StreamAggregate, StreamCount, StreamReduce
from streamlib.topology.operators.joins import StreamTableJoin
from streamlib.topology.operators.stateless import (
    Branch,
    DropNullKeys,
    Filter,
    FlatMap,
    FlatMapValues,
    Foreach,
    MapRecords,
    MapValues,
    PassThrough,
    Peek,
    Process,
    SelectKey,
)
from streamlib.topology.operators.tables import StreamToTable, TableFilter, TableMapValues, TableSource, TableToStream

__all__ = [
    "Branch",
    "DropNullKeys",
    "Filter",
    "FlatMap",
    "FlatMapValues",
    "Foreach",
    "MapRecords",
    "MapValues",
    "Operator",
    "PassThrough",
    "Peek",
    "Process",
    "SelectKey",
    "StreamAggregate",
    "StreamCount",
    "StreamReduce",
    "StreamTableJoin",
    "StreamToTable",
    "TableFilter",
    "TableMapValues",
    "TableSource",
    "TableToStream",
]

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
