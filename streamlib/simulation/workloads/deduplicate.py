"""Records that may come again: of those close to each other in time only the first goes on.

State that was lost lets a record through again; state that is ahead of the offsets keeps the first one back.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import timedelta

from streamlib.dsl.builder import StreamsBuilder
from streamlib.simulation.differences import Result, Row
from streamlib.simulation.workloads.drawing import Draw
from streamlib.simulation.workloads.reading import Topic
from streamlib.simulation.workloads.workload import PARTITIONS, Input, Seen, Workload
from streamlib.topology.topology import Topology

WITHIN_MS = 100
REMEMBERED_MS = 2 * WITHIN_MS
"""How far behind the latest that went on a record is still known."""

IN = Topic("in", str, str)
OUT = Topic("out", str, str)


def topology() -> Topology:
    builder = StreamsBuilder()
    records = builder.stream(IN.name, key=str, value=str)
    within = timedelta(milliseconds=WITHIN_MS)
    records.deduplicate(within, id_selector=lambda key, value: value, id=str, store="passed").to(OUT.name)
    return builder.build()


def inputs(rng: random.Random, count: int) -> list[Input]:
    """A handful of ids, so that most come again, some after their time."""
    draw = Draw(rng, keys=2)
    times = draw.times(step_ms=40, late_ms=WITHIN_MS * 3, late_share=0.3)
    return [
        IN.record(partition, key, rng.choice("xyz"), times[partition].next())
        for partition, key, _ in draw.records(count)
    ]


def passed(rows: Iterable[Row]) -> list[Result]:
    """What goes on of the records of one partition. What is behind all others by more than what is remembered goes on,
    and is forgotten at once."""
    results: list[Result] = []
    remembered: list[Result] = []
    latest = -1
    for row in rows:
        known = [
            each
            for each in remembered
            if each.timestamp >= latest - REMEMBERED_MS and abs(each.timestamp - row.timestamp) <= WITHIN_MS
        ]
        if any((each.key, each.value) == (row.key, row.value) for each in known):
            continue
        results.append(row.result)
        latest = max(latest, row.timestamp)
        remembered.append(row.result)
    return results


def check(seen: Seen) -> list[str]:
    return OUT.in_order(seen, {partition: passed(rows) for partition, rows in IN.inputs(seen).items()})


DEDUPLICATE = Workload(
    name="deduplicate",
    about="of records that repeat one another only the first goes on",
    topics={IN.name: PARTITIONS, OUT.name: PARTITIONS},
    outputs=(OUT.name,),
    topology=topology,
    inputs=inputs,
    check=check,
)
