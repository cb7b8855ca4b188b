"""What a processor node does, as data; one frozen struct for each kind.

`engine/operators/` compiles each kind into a closure; a test holds that none is forgotten.
Stream operators receive plain values, table operators receive changes (new value, old value).
User callables are called positionally; arity is fixed by the kind, never guessed.
"""

from __future__ import annotations

from typing import TypeAlias

from streamlib.topology.operators.aggregations import CogroupMerge, StreamAggregate, StreamCount, StreamReduce
from streamlib.topology.operators.deduplicate import Deduplicate
from streamlib.topology.operators.foreign_key import (
    ForeignKeyKeep,
    ForeignKeyNotify,
    ForeignKeyResolve,
    ForeignKeyRespond,
    ForeignKeySubscribe,
    JoinedTable,
)
from streamlib.topology.operators.joins import StreamGlobalTableJoin, StreamTableJoin, TableJoin, TableJoinMerge
from streamlib.topology.operators.sessions import SessionFold
from streamlib.topology.operators.stateless import (
    MOST_CONCURRENT,
    AddRecordId,
    Branch,
    CallOptions,
    DropNullKeys,
    Filter,
    FlatMap,
    FlatMapValues,
    Foreach,
    MapRecords,
    MapValues,
    Ordered,
    PassThrough,
    Peek,
    Process,
    SelectKey,
)
from streamlib.topology.operators.stream_joins import StreamJoinWindow, StreamSelfJoin, StreamStreamJoin
from streamlib.topology.operators.suppress import Suppress
from streamlib.topology.operators.tables import (
    StreamToTable,
    TableAggregate,
    TableFilter,
    TableMapValues,
    TableReduce,
    TableSelect,
    TableSource,
    TableToStream,
    TableTransformValues,
)
from streamlib.topology.operators.windows import WindowedFold

__all__ = [
    "MOST_CONCURRENT",
    "AddRecordId",
    "Branch",
    "CallOptions",
    "CogroupMerge",
    "Deduplicate",
    "DropNullKeys",
    "Filter",
    "FlatMap",
    "FlatMapValues",
    "Foreach",
    "ForeignKeyKeep",
    "ForeignKeyNotify",
    "ForeignKeyResolve",
    "ForeignKeyRespond",
    "ForeignKeySubscribe",
    "JoinedTable",
    "MapRecords",
    "MapValues",
    "Operator",
    "Ordered",
    "PassThrough",
    "Peek",
    "Process",
    "SelectKey",
    "SessionFold",
    "StreamAggregate",
    "StreamCount",
    "StreamGlobalTableJoin",
    "StreamJoinWindow",
    "StreamReduce",
    "StreamSelfJoin",
    "StreamStreamJoin",
    "StreamTableJoin",
    "StreamToTable",
    "Suppress",
    "TableAggregate",
    "TableFilter",
    "TableJoin",
    "TableJoinMerge",
    "TableMapValues",
    "TableReduce",
    "TableSelect",
    "TableSource",
    "TableToStream",
    "TableTransformValues",
    "WindowedFold",
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
    | AddRecordId
    | Process
    | StreamAggregate
    | StreamReduce
    | StreamCount
    | WindowedFold
    | SessionFold
    | CogroupMerge
    | TableSource
    | StreamToTable
    | TableFilter
    | TableMapValues
    | TableTransformValues
    | TableSelect
    | TableAggregate
    | TableReduce
    | TableJoin
    | TableJoinMerge
    | TableToStream
    | ForeignKeySubscribe
    | ForeignKeyKeep
    | ForeignKeyRespond
    | ForeignKeyNotify
    | ForeignKeyResolve
    | Suppress
    | Deduplicate
    | StreamGlobalTableJoin
    | StreamTableJoin
    | StreamJoinWindow
    | StreamSelfJoin
    | StreamStreamJoin
)
