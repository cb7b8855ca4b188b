"""Calls that take their time: each record once, those of a key in order, whatever is under way when a worker goes.

Nothing of a record of the first topic is out before its call is back, so commits go past it. Those of the second are
counted before they are called for, and commits wait. Functions of both, plain and awaited ones, raise now and then, and
are tried again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from zlib import crc32

from streamlib.dsl.builder import StreamsBuilder
from streamlib.policies import Retry
from streamlib.simulation.differences import Result, Row, in_order
from streamlib.simulation.workloads.counter import counted
from streamlib.simulation.workloads.drawing import Draw
from streamlib.simulation.workloads.reading import Topic
from streamlib.simulation.workloads.workload import PARTITIONS, Input, Seen, Workload
from streamlib.topology.topology import Topology

IN = Topic("in", str, str)
OUT = Topic("out", str, str)
COUNTED_IN = Topic("counted-in", str, str)
COUNTED_OUT = Topic("counted-out", str, int)

PATIENT = Retry([timedelta(milliseconds=100), timedelta(seconds=2)])

MOST_MS = 200
SLOW_MS = 1_500
"""About one call in thirty takes so long."""


def topology() -> Topology:
    builder = StreamsBuilder()
    stream = builder.stream(IN.name, key=str, value=str).peek(moody(), on_error=PATIENT)
    stream.map_values(look_up(), concurrency=5, on_error=PATIENT).to(OUT.name)
    counts = builder.stream(COUNTED_IN.name, key=str, value=str).group_by_key().count().to_stream()
    counts = counts.peek(moody(), on_error=PATIENT)
    counts.map_values(pass_on, with_key=True, concurrency=5).to(COUNTED_OUT.name)
    return builder.build()


def moody() -> Callable[[str, object], None]:
    """A function that raises the first time that it is called for some things."""
    known: set[str] = set()

    def function(key: str, value: object) -> None:
        what = f"{key}{value}"
        if what not in known and crc32(what.encode()) % 7 == 0:
            known.add(what)
            raise ConnectionError(f"not now: {what}")

    return function


def look_up() -> Callable[[str], Awaitable[str]]:
    """A function that takes its time, and raises now and then after that."""
    fails = moody()

    async def function(value: str) -> str:
        await asyncio.sleep(duration_s(value))
        fails("look up ", value)
        return value

    return function


async def pass_on(key: str, count: int) -> int:
    await asyncio.sleep(duration_s(f"{key}{count}"))
    return count


def duration_s(what: str) -> float:
    """The same each time, and nothing that grows with anything.

    >>> [duration_s(name) for name in ("a", "b", "c")]
    [0.164, 0.112, 0.15]
    """
    number = crc32(what.encode())
    return (SLOW_MS if number % 31 == 0 else number // 31 % MOST_MS) / 1000


def inputs(rng: random.Random, count: int) -> list[Input]:
    draw = Draw(rng, keys=4)
    times = draw.times(step_ms=50, late_ms=200, late_share=0.3)
    return [
        (IN if rng.random() < 0.6 else COUNTED_IN).record(partition, key, name, times[partition].next())
        for partition, key, name in draw.records(count)
    ]


def check(seen: Seen) -> list[str]:
    found = by_key_in_order(OUT, seen, [row.result for row in _all(IN.inputs(seen))])
    return found + by_key_in_order(COUNTED_OUT, seen, counted(_all(COUNTED_IN.inputs(seen))))


def by_key_in_order(topic: Topic, seen: Seen, expected: Iterable[Result]) -> list[str]:
    """Whether the topic holds just these results, those of each key in this order."""
    wanted: dict[str, list[Result]] = {}
    for result in expected:
        wanted.setdefault(result.key, []).append(result)
    there = topic.outputs_by_key(seen)
    found: list[str] = []
    for key in [*wanted, *(key for key in there if key not in wanted)]:
        found += in_order(f"topic {topic.name}, key {key!r}", wanted.get(key, ()), there.get(key, []))
    return found


def _all(rows: Mapping[int, Sequence[Row]]) -> list[Row]:
    return [row for number in sorted(rows) for row in rows[number]]


ENRICH = Workload(
    name="enrich",
    about="each input once after a call, those of a key in order; commits wait for some calls, some fail at first",
    topics=dict.fromkeys((IN.name, OUT.name, COUNTED_IN.name, COUNTED_OUT.name), PARTITIONS),
    outputs=(OUT.name, COUNTED_OUT.name),
    topology=topology,
    inputs=inputs,
    check=check,
)
