"""Each output names the input it was made of and, from a store, the one before it.

A record that is done twice, or on a state that is ahead of its offset or behind it, names another predecessor than the
log has.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

import msgspec

from streamlib.dsl.builder import StreamsBuilder
from streamlib.dsl.processor import ProcessorContext
from streamlib.dsl.stores import Stores
from streamlib.records import Record
from streamlib.simulation.differences import Result, Row
from streamlib.simulation.workloads.drawing import Draw
from streamlib.simulation.workloads.reading import Store, Topic
from streamlib.simulation.workloads.workload import PARTITIONS, Input, Seen, Workload
from streamlib.topology.topology import Topology


class Entry(msgspec.Struct, frozen=True):
    """Where an input was, and the offset of the one that was processed before it."""

    topic: str
    partition: int
    offset: int
    after: int | None


IN = Topic("in", str, str)
OUT = Topic("out", str, Entry)
LAST = Store("last", int, int, timed=False)


class Bookkeeper:
    """Keeps the offset of the last record of each partition."""

    def init(self, context: ProcessorContext) -> None:
        self._context = context
        self._last = context.state_store(LAST.name)

    def process(self, record: Record[str, str]) -> None:
        """Enter a record."""
        place = self._context.record_metadata
        assert place is not None, "a record has a place"
        entry = Entry(*place[:3], after=self._last.get(place.partition))
        self._last.put(place.partition, place.offset)
        self._context.forward(record.with_value(entry))


def topology() -> Topology:
    """Entries go to the partition that their records came from, so that each task writes one alone."""
    builder = StreamsBuilder()
    builder.add_state_store(Stores.key_value_store(LAST.name, key=int, value=int))
    entries = builder.stream(IN.name, key=str, value=str).process(Bookkeeper, LAST.name, key=str, value=Entry)
    entries.to(OUT.name, partitioner=lambda topic, key, entry, partitions: entry.partition)
    return builder.build()


def inputs(rng: random.Random, count: int) -> list[Input]:
    """Any key in any partition, some records without key or value."""
    draw = Draw(rng, keys=3)
    times = draw.times(step_ms=50, late_ms=200, late_share=0.3)
    drawn: list[Input] = []
    for _, key, name in draw.records(count):
        partition = rng.randrange(PARTITIONS)
        value = name if rng.random() < 0.9 else None
        drawn.append(IN.record(partition, key if rng.random() < 0.9 else None, value, times[partition].next()))
    return drawn


def entered(rows: Iterable[Row]) -> list[Result]:
    """The entries of one partition."""
    results: list[Result] = []
    after: int | None = None
    for row in rows:
        results.append(Result(row.key, Entry(*row.partition, row.offset, after), row.timestamp))
        after = row.offset
    return results


def check(seen: Seen) -> list[str]:
    records = IN.inputs(seen)
    expected = {partition: entered(rows) for partition, rows in records.items()}
    last = {partition: rows[-1].offset for partition, rows in records.items() if rows}
    return OUT.in_order(seen, expected) + LAST.holds(seen, last)


def check_repeated(seen: Seen) -> list[str]:
    """Each input is named; after which one is open."""
    named = {
        (row.value.topic, row.value.partition, row.value.offset) for rows in OUT.outputs(seen).values() for row in rows
    }
    inputs = [row for rows in IN.inputs(seen).values() for row in rows]
    return [f"{row.place} is lost" for row in inputs if (*row.partition, row.offset) not in named]


LEDGER = Workload(
    name="ledger",
    about="outputs name their inputs' offsets, each once and in order, and the offset before, from a store",
    topics={IN.name: PARTITIONS, OUT.name: PARTITIONS},
    outputs=(OUT.name,),
    topology=topology,
    inputs=inputs,
    check=check,
    check_repeated=check_repeated,
)
