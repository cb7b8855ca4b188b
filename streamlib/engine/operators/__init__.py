"""From operators (data) to nodes (closures): one compile function for each kind, one table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators import (
    aggregate,
    deduplicate,
    foreign_key,
    global_join,
    join,
    process,
    record_ids,
    sessions,
    stateless,
    stream_join,
    suppress,
    table,
    table_aggregate,
    table_join,
    transform_values,
    versioned,
    windows,
)
from streamlib.engine.operators.site import Site
from streamlib.topology import operators as op
from streamlib.topology.operators import Operator

COMPILERS: Mapping[type[Any], Callable[[Any, Site], NodeFn]] = {
    op.PassThrough: stateless.compile_pass_through,
    op.DropNullKeys: stateless.compile_drop_null_keys,
    op.Filter: stateless.compile_filter,
    op.MapRecords: stateless.compile_map,
    op.MapValues: stateless.compile_map_values,
    op.FlatMap: stateless.compile_flat_map,
    op.FlatMapValues: stateless.compile_flat_map_values,
    op.SelectKey: stateless.compile_select_key,
    op.Peek: stateless.compile_peek,
    op.Foreach: stateless.compile_foreach,
    op.Branch: stateless.compile_branch,
    op.AddRecordId: record_ids.compile_add_record_id,
    op.Process: process.compile_process,
    op.StreamAggregate: aggregate.compile_fold,
    op.StreamReduce: aggregate.compile_fold,
    op.StreamCount: aggregate.compile_count,
    op.WindowedFold: windows.compile_windowed_fold,
    op.SessionFold: sessions.compile_session_fold,
    op.CogroupMerge: aggregate.compile_cogroup_merge,
    op.TableSource: table.compile_table_source,
    op.StreamToTable: table.compile_table_source,
    op.TableFilter: table.compile_table_filter,
    op.TableMapValues: table.compile_table_map_values,
    op.TableTransformValues: transform_values.compile_table_transform_values,
    op.TableSelect: table_aggregate.compile_table_select,
    op.TableAggregate: table_aggregate.compile_table_aggregate,
    op.TableReduce: table_aggregate.compile_table_reduce,
    op.TableJoin: table_join.compile_table_join,
    op.TableJoinMerge: table_join.compile_table_join_merge,
    op.TableToStream: table.compile_table_to_stream,
    op.Suppress: suppress.compile_suppress,
    op.Deduplicate: deduplicate.compile_deduplicate,
    op.ForeignKeySubscribe: foreign_key.compile_foreign_key_subscribe,
    op.ForeignKeyKeep: foreign_key.compile_foreign_key_keep,
    op.ForeignKeyRespond: foreign_key.compile_foreign_key_respond,
    op.ForeignKeyNotify: foreign_key.compile_foreign_key_notify,
    op.ForeignKeyResolve: foreign_key.compile_foreign_key_resolve,
    op.StreamGlobalTableJoin: global_join.compile_stream_global_table_join,
    op.StreamJoinWindow: stream_join.compile_stream_join_window,
    op.StreamSelfJoin: stream_join.compile_stream_self_join,
    op.StreamStreamJoin: stream_join.compile_stream_stream_join,
    op.StreamTableJoin: join.compile_stream_table_join,
}
"""Every kind of `Operator`; a test holds that none is missing."""


def compile_operator(operator: Operator, site: Site) -> NodeFn:
    """The node that does what `operator` says and calls the site's children."""
    compile_node = COMPILERS[type(operator)]
    if site.tells_ids and isinstance(operator, record_ids.MAKE_MANY):
        return record_ids.compile_numbered(compile_node, operator, site)
    if site.below_versioned:
        return versioned.compile_below_versioned(compile_node, operator, site)
    return compile_node(operator, site)
