"""Sums that a punctuator says whenever stream time passes a multiple of its interval: once each, over all so far."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import timedelta

import msgspec

from streamlib.dsl.builder import StreamsBuilder
from streamlib.dsl.processor import ProcessorContext, PunctuationType
from streamlib.dsl.stores import Stores
from streamlib.records import Record
from streamlib.simulation.differences import Result, Row
from streamlib.simulation.workloads.drawing import Draw
from streamlib.simulation.workloads.reading import Store, Topic
from streamlib.simulation.workloads.workload import PARTITIONS, Input, Seen, Workload
from streamlib.topology.topology import Topology

INTERVAL_MS = 100


class Total(msgspec.Struct, frozen=True):
    """How many records a partition has had, and what their values come to."""

    partition: int
    count: int = 0
    sum: int = 0

    def plus(self, value: int) -> Total:
        """With one more."""
        return Total(self.partition, self.count + 1, self.sum + value)


IN = Topic("in", str, int)
OUT = Topic("out", int, Total)
TOTALS = Store("totals", int, Total, timed=False)


class Teller:
    """Keeps the total of its partition, and tells it from time to time."""

    def init(self, context: ProcessorContext) -> None:
        self._context = context
        self._partition = context.task_id.partition
        self._totals = context.state_store(TOTALS.name)
        context.schedule(timedelta(milliseconds=INTERVAL_MS), PunctuationType.STREAM_TIME, self.tell)

    def tell(self, stream_time_ms: int) -> None:
        """Forward the total."""
        self._context.forward(Record(self._partition, self._total(), stream_time_ms))

    def process(self, record: Record[str, int]) -> None:
        """Add a value."""
        self._totals.put(self._partition, self._total().plus(record.value))

    def _total(self) -> Total:
        return self._totals.get(self._partition) or Total(self._partition)


def topology() -> Topology:
    builder = StreamsBuilder()
    builder.add_state_store(Stores.key_value_store(TOTALS.name, key=int, value=Total))
    totals = builder.stream(IN.name, key=str, value=int).process(Teller, TOTALS.name, key=int, value=Total)
    totals.to(OUT.name, partitioner=lambda topic, key, total, partitions: total.partition)
    return builder.build()


def inputs(rng: random.Random, count: int) -> list[Input]:
    """Of which about every second or third makes the punctuator due."""
    draw = Draw(rng, keys=3)
    times = draw.times(step_ms=INTERVAL_MS, late_ms=INTERVAL_MS, late_share=0.3)
    return [
        IN.record(partition, key, rng.randint(1, 1000), times[partition].next())
        for partition, key, _ in draw.records(count)
    ]


def told(partition: int, rows: Iterable[Row]) -> tuple[list[Result], Total]:
    """What is told of one partition, and the total at the end."""
    total, stream_time, due = Total(partition), -1, 0
    results: list[Result] = []
    for row in rows:
        total = total.plus(row.value)
        stream_time = max(stream_time, row.timestamp)
        if stream_time >= due:
            results.append(Result(partition, total, stream_time))
            due = (stream_time // INTERVAL_MS + 1) * INTERVAL_MS
    return results, total


def check(seen: Seen) -> list[str]:
    expected = {partition: told(partition, rows) for partition, rows in IN.inputs(seen).items()}
    totals = {partition: total for partition, (_, total) in expected.items() if total.count > 0}
    results = {partition: told for partition, (told, _) in expected.items()}
    return OUT.in_order(seen, results) + TOTALS.holds(seen, totals)


PUNCTUATE = Workload(
    name="punctuate",
    about="a stream-time punctuator tells the sum of all so far, once for each interval",
    topics={IN.name: PARTITIONS, OUT.name: PARTITIONS},
    outputs=(OUT.name,),
    topology=topology,
    inputs=inputs,
    check=check,
)
