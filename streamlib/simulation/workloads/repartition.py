"""Words on their way through a repartition topic: each is counted, and the names of its records are collected.

In which order the records of several tasks meet is open. The collected names say which it was: all else follows from
them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from streamlib.dsl.builder import StreamsBuilder
from streamlib.serdes import Serdes
from streamlib.simulation.differences import Result, Row, in_order
from streamlib.simulation.workloads.drawing import Draw, keys_of
from streamlib.simulation.workloads.reading import Store, Topic
from streamlib.simulation.workloads.workload import PARTITIONS, Input, Seen, Workload
from streamlib.topology.topology import Topology


class Item(msgspec.Struct, frozen=True):
    """A word, and the name of its record, which no other has."""

    word: str
    name: str


NAMES = Serdes.json(list[str])
WORDS = (*keys_of(0, 2), *keys_of(1, 2))

IN = Topic("in", str, Item)
COUNTED = Topic("counted", str, int)
COLLECTED = Topic("collected", str, NAMES)
COUNTS = Store("counts", str, int)
COLLECTION = Store("names", str, NAMES)


def topology() -> Topology:
    builder = StreamsBuilder()
    items = builder.stream(IN.name, key=str, value=Item)
    words = items.group_by(lambda _, item: item.word, key=str, value=Item, name="words")
    words.count(store=COUNTS.name).to_stream().to(COUNTED.name)
    names = words.aggregate(list, lambda _, item, names: [*names, item.name], value=NAMES, store=COLLECTION.name)
    names.to_stream().to(COLLECTED.name)
    return builder.build()


def inputs(rng: random.Random, count: int) -> list[Input]:
    """Any word in any partition."""
    draw = Draw(rng, keys=3)
    times = draw.times(step_ms=50, late_ms=200, late_share=0.3)
    return [
        IN.record(partition, key, Item(rng.choice(WORDS), name), times[partition].next())
        for partition, key, name in draw.records(count)
    ]


def check(seen: Seen) -> list[str]:
    """By word: the names that were collected last are all, and the results before them lead there."""
    rows = [row for partition in IN.inputs(seen).values() for row in partition]
    by_word: dict[str, list[Row]] = {}
    for row in rows:
        by_word.setdefault(row.value.word, []).append(row)
    counted, collected = COUNTED.outputs_by_key(seen), COLLECTED.outputs_by_key(seen)
    found: list[str] = []
    counts: dict[str, tuple[int, int]] = {}
    names: dict[str, tuple[list[str], int]] = {}
    for word in sorted({*by_word, *counted, *collected}, key=str):
        last = _last_names(collected.get(word, []))
        found += _compare_names(word, last, by_word.get(word, []))
        times = _times(last, {row.value.name: row.timestamp for row in rows})
        steps = [Result(word, last[: n + 1], time) for n, time in enumerate(times)]
        found += in_order(f"topic {COLLECTED.name}, word {word!r}", steps, collected.get(word, []))
        steps = [Result(word, n + 1, time) for n, time in enumerate(times)]
        found += in_order(f"topic {COUNTED.name}, word {word!r}", steps, counted.get(word, []))
        if last:
            counts[word], names[word] = (len(last), times[-1]), (last, times[-1])
    return found + COUNTS.holds(seen, counts) + COLLECTION.holds(seen, names) + _misplaced(counted, collected)


def _last_names(rows: Sequence[Row]) -> list[str]:
    return list(rows[-1].value) if rows and isinstance(rows[-1].value, list) else []


def _times(names: Sequence[str], time_of: Mapping[str, int]) -> list[int]:
    """The time of the result after each name: the highest so far."""
    times: list[int] = []
    for name in names:
        times.append(max(time_of.get(name, 0), times[-1] if times else 0))
    return times


def _compare_names(word: str, names: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Whether these are the names of a word's records, those of each partition in their order."""
    where, times = f"topic {COLLECTED.name}, word {word!r}", Counter(names)
    found = [f"{where}: {name} of {row.place} is missing" for row in rows if (name := row.value.name) not in times]
    found += [f"{where}: {name} was collected {number} times" for name, number in times.items() if number > 1]
    known = {row.value.name for row in rows}
    found += [f"{where}: {name} is no name of one of its records" for name in times if name not in known]
    for partition in {row.partition for row in rows}:
        sent = [row.value.name for row in rows if row.partition == partition and row.value.name in times]
        came = [name for name in dict.fromkeys(names) if name in sent]
        if came != sent:
            found.append(f"{where}: records of {partition} came as {came}, not in their order, {sent}")
    return found


def _misplaced(*topics: Mapping[Any, Sequence[Row]]) -> list[str]:
    """Results in a partition that is not their word's."""
    return [
        f"{row.place}: {word!r} does not belong there"
        for rows_of in topics
        for word, rows in rows_of.items()
        for row in rows
        if isinstance(word, str) and row.partition.partition != COUNTED.partition_of(word)
    ]


def check_repeated(seen: Seen) -> list[str]:
    """Each name was collected; whatever was done again came behind an older collection, so that is open."""
    collected = {row.value[-1] for rows in COLLECTED.outputs(seen).values() for row in rows}
    inputs = [row for rows in IN.inputs(seen).values() for row in rows]
    return [f"{row.value.name} of {row.place} is lost" for row in inputs if row.value.name not in collected]


REPARTITION = Workload(
    name="repartition",
    about="behind a repartition topic each word is counted 1 to n, and the names of its records are all collected",
    topics={IN.name: PARTITIONS, COUNTED.name: PARTITIONS, COLLECTED.name: PARTITIONS},
    outputs=(COUNTED.name, COLLECTED.name),
    topology=topology,
    inputs=inputs,
    check=check,
    check_repeated=check_repeated,
)
