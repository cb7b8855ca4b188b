"""Kafka Streams' topologies of the case files, written with our DSL; the name is the file's."""

from __future__ import annotations

from tests.conformance.ported import (
    aggregations,
    processors,
    stateless,
    stream_table_joins,
    tables,
    times_and_errors,
)
from tests.conformance.ported.registry import TOPOLOGIES

PORTED = (aggregations, processors, stateless, stream_table_joins, tables, times_and_errors)
"""Importing them fills `TOPOLOGIES`."""

__all__ = ["PORTED", "TOPOLOGIES"]
