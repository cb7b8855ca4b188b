"""Workloads: topologies whose outputs betray every loss and every repeat by their structure.

workload.py   what a workload is
reading.py    its topics and stores: writing inputs, and reading back what is there at the end
drawing.py    random keys and times
others        one workload each
"""

from __future__ import annotations

from collections.abc import Mapping

from streamlib.simulation.workloads.counter import COUNTER
from streamlib.simulation.workloads.deduplicate import DEDUPLICATE
from streamlib.simulation.workloads.enrich import ENRICH
from streamlib.simulation.workloads.foreign_key import FOREIGN_KEY
from streamlib.simulation.workloads.global_table import GLOBAL_TABLE
from streamlib.simulation.workloads.ledger import LEDGER
from streamlib.simulation.workloads.outer_join import OUTER_JOIN
from streamlib.simulation.workloads.passthrough import PASSTHROUGH
from streamlib.simulation.workloads.punctuate import PUNCTUATE
from streamlib.simulation.workloads.repartition import REPARTITION
from streamlib.simulation.workloads.sessions import SESSIONS
from streamlib.simulation.workloads.stream_join import STREAM_JOIN
from streamlib.simulation.workloads.suppress import SUPPRESS
from streamlib.simulation.workloads.table_join import TABLE_JOIN
from streamlib.simulation.workloads.transfer import TRANSFER
from streamlib.simulation.workloads.windows import WINDOWS
from streamlib.simulation.workloads.workload import Input, Seen, Workload

__all__ = ["WORKLOADS", "Input", "Seen", "Workload"]

_ALL = (
    PASSTHROUGH,
    COUNTER,
    LEDGER,
    TRANSFER,
    REPARTITION,
    WINDOWS,
    SESSIONS,
    SUPPRESS,
    STREAM_JOIN,
    OUTER_JOIN,
    TABLE_JOIN,
    FOREIGN_KEY,
    GLOBAL_TABLE,
    DEDUPLICATE,
    PUNCTUATE,
    ENRICH,
)

WORKLOADS: Mapping[str, Workload] = {workload.name: workload for workload in _ALL}
"""By name."""
