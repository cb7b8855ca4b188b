"""What comes in goes out: the least that can be lost or repeated."""

from __future__ import annotations

import random

from streamlib.dsl.builder import StreamsBuilder
from streamlib.simulation.workloads.drawing import Draw
from streamlib.simulation.workloads.reading import Topic
from streamlib.simulation.workloads.workload import PARTITIONS, Input, Seen, Workload
from streamlib.topology.topology import Topology

IN = Topic("in", str, str)
OUT = Topic("out", str, str)


def topology() -> Topology:
    builder = StreamsBuilder()
    builder.stream(IN.name, key=str, value=str).to(OUT.name)
    return builder.build()


def inputs(rng: random.Random, count: int) -> list[Input]:
    """Some without a value, some with headers."""
    draw = Draw(rng, keys=3)
    times = draw.times(step_ms=50, late_ms=200, late_share=0.3)
    drawn: list[Input] = []
    for partition, key, name in draw.records(count):
        value = name if rng.random() < 0.9 else None
        headers = (("name", name.encode()), ("none", None)) if rng.random() < 0.2 else ()
        drawn.append(IN.record(partition, key, value, times[partition].next(), headers))
    return drawn


def check(seen: Seen) -> list[str]:
    expected = {partition: [row.result for row in rows] for partition, rows in IN.inputs(seen).items()}
    return OUT.in_order(seen, expected)


def check_repeated(seen: Seen) -> list[str]:
    expected = {partition: [row.result for row in rows] for partition, rows in IN.inputs(seen).items()}
    return OUT.repeated(seen, expected)


PASSTHROUGH = Workload(
    name="passthrough",
    about="each input once, in order, with its time and headers",
    topics={IN.name: PARTITIONS, OUT.name: PARTITIONS},
    outputs=(OUT.name,),
    topology=topology,
    inputs=inputs,
    check=check,
    check_repeated=check_repeated,
)
