"""Counts by key: 1, 2, 3 ... A gap is a loss, a repeat a duplicate, in the output or in the state before it."""

from __future__ import annotations

import random
from collections.abc import Iterable

from streamlib.dsl.builder import StreamsBuilder
from streamlib.simulation.differences import Result, Row
from streamlib.simulation.workloads.drawing import Draw
from streamlib.simulation.workloads.reading import Store, Topic
from streamlib.simulation.workloads.workload import PARTITIONS, Input, Seen, Workload
from streamlib.topology.topology import Topology

IN = Topic("in", str, str)
OUT = Topic("out", str, int)
COUNTS = Store("counts", str, int)


def topology() -> Topology:
    builder = StreamsBuilder()
    counts = builder.stream(IN.name, key=str, value=str).group_by_key().count(store=COUNTS.name)
    counts.to_stream().to(OUT.name)
    return builder.build()


def inputs(rng: random.Random, count: int) -> list[Input]:
    """Some without a value, which do not count."""
    draw = Draw(rng, keys=3)
    times = draw.times(step_ms=50, late_ms=200, late_share=0.3)
    return [
        IN.record(partition, key, name if rng.random() < 0.9 else None, times[partition].next())
        for partition, key, name in draw.records(count)
    ]


def counted(rows: Iterable[Row]) -> list[Result]:
    """A result for each record, at the highest time of its key so far."""
    last: dict[str, Result] = {}
    results: list[Result] = []
    for row in rows:
        if row.value is None:
            continue
        before = last.get(row.key, Result(row.key, 0, row.timestamp))
        last[row.key] = Result(row.key, before.value + 1, max(before.timestamp, row.timestamp))
        results.append(last[row.key])
    return results


def check(seen: Seen) -> list[str]:
    expected = {partition: counted(rows) for partition, rows in IN.inputs(seen).items()}
    rows = {result.key: (result.value, result.timestamp) for results in expected.values() for result in results}
    return OUT.in_order(seen, expected) + COUNTS.holds(seen, rows)


COUNTER = Workload(
    name="counter",
    about="counts by key are 1 to n in order, and n in the store",
    topics={IN.name: PARTITIONS, OUT.name: PARTITIONS},
    outputs=(OUT.name,),
    topology=topology,
    inputs=inputs,
    check=check,
)
