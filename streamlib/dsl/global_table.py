"""Global tables: whole in every worker, for lookups by any key."""

from __future__ import annotations

from typing import Generic, TypeVar

from streamlib.topology.builder import TopologyBuilder

K = TypeVar("K")
V = TypeVar("V")


class GlobalKTable(Generic[K, V]):
    """All of a topic as a table that each worker has a copy of, filled before it processes its first record.

    Streams join it without being co-partitioned, by any key they can name. It is not in step with the streams: a join
    finds what has been read of the topic by then. Only joins and processors read it; see
    `StreamsBuilder.global_table`.

    Attributes:
        store: the name of its store, for processors and queries.

    >>> from streamlib import StreamsBuilder
    >>> StreamsBuilder().global_table("countries", key=str, value=str, store="countries").store
    'countries'
    """

    def __init__(self, builder: TopologyBuilder, store: str) -> None:
        self.store = store
        self._builder = builder
