"""From operators (data) to nodes (closures): one compile function for each kind, one table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators import aggregate, join, process, stateless, table
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
    op.Process: process.compile_process,
    op.StreamAggregate: aggregate.compile_aggregate,
    op.StreamReduce: aggregate.compile_reduce,
    op.StreamCount: aggregate.compile_count,
    op.TableSource: table.compile_table_source,
    op.StreamToTable: table.compile_table_source,
    op.TableFilter: table.compile_table_filter,
    op.TableMapValues: table.compile_table_map_values,
    op.TableToStream: table.compile_table_to_stream,
    op.StreamTableJoin: join.compile_stream_table_join,
}
"""Every kind of `Operator`; a test holds that none is missing."""


def compile_operator(operator: Operator, site: Site) -> NodeFn:
    """The node that does what `operator` says and calls the site's children."""
    return COMPILERS[type(operator)](operator, site)
