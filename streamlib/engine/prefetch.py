"""Which rows the records of a source will ask for: those can be read together, before the records are processed.

Many reads in one go cost a database much less than one at a time (RocksDB's MultiGet). It only helps where rows are not
in memory, which is the backend's to know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streamlib.topology import operators as op
from streamlib.topology.nodes import Node, ProcessorNode, SourceNode

_KEEP_KEYS = (
    op.PassThrough,
    op.DropNullKeys,
    op.Filter,
    op.MapValues,
    op.FlatMapValues,
    op.Peek,
    op.Branch,
    op.StreamTableJoin,
)
_READ_BY_KEY = (
    op.StreamCount,
    op.StreamReduce,
    op.StreamAggregate,
    op.StreamTableJoin,
    op.StreamToTable,
    op.TableSource,
)


def stores_read_by_key(
    source: SourceNode, nodes: Mapping[str, Node], children: Mapping[str, Sequence[str]]
) -> set[str]:
    """The stores whose rows are looked up under the keys of the source's records."""
    stores: set[str] = set()
    waiting = list(children[source.name])
    while waiting:
        node = nodes[waiting.pop()]
        if not isinstance(node, ProcessorNode):
            continue
        if isinstance(node.operator, _KEEP_KEYS):
            waiting += children[node.name]
        if isinstance(node.operator, _READ_BY_KEY):
            stores.update(node.stores)
    return stores
