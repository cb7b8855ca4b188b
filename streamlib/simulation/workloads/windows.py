"""Counts in tumbling and hopping windows, of records that are late at times, some of them too late.

Which records are too late depends on stream time: one that went back would let them in, and a window would count more
than it should.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from datetime import timedelta

from streamlib.dsl.builder import StreamsBuilder
from streamlib.simulation.differences import Result, Row
from streamlib.simulation.workloads.drawing import Draw
from streamlib.simulation.workloads.reading import Topic
from streamlib.simulation.workloads.workload import PARTITIONS, Input, Seen, Workload
from streamlib.topology.topology import Topology
from streamlib.windows import TimeWindows, Windowed, time_windowed

SIZE_MS = 100
ADVANCE_MS = 40
GRACE_MS = 60
TUMBLING = TimeWindows.of_size(timedelta(milliseconds=SIZE_MS), grace=timedelta(milliseconds=GRACE_MS))
HOPPING = TUMBLING.advance_by(timedelta(milliseconds=ADVANCE_MS))

IN = Topic("in", str, str)
TUMBLED = Topic("tumbled", time_windowed(str, SIZE_MS), int)
HOPPED = Topic("hopped", time_windowed(str, SIZE_MS), int)


def topology() -> Topology:
    builder = StreamsBuilder()
    by_key = builder.stream(IN.name, key=str, value=str).group_by_key()
    by_key.windowed_by(TUMBLING).count(store="tumbling-counts").to_stream().to(TUMBLED.name)
    by_key.windowed_by(HOPPING).count(store="hopping-counts").to_stream().to(HOPPED.name)
    return builder.build()


def inputs(rng: random.Random, count: int) -> list[Input]:
    """A third of them late, up to twice as long as a tumbling window stays open."""
    draw = Draw(rng, keys=2)
    times = draw.times(step_ms=40, late_ms=2 * (SIZE_MS + GRACE_MS), late_share=0.35)
    return [IN.record(partition, key, name, times[partition].next()) for partition, key, name in draw.records(count)]


def counted(rows: Iterable[Row], windows: TimeWindows) -> Iterator[list[Result]]:
    """For each record of a partition the windows it counts in, with their counts so far."""
    stream_time = -1
    last: dict[Windowed[str], Result] = {}
    for row in rows:
        stream_time = max(stream_time, row.timestamp)
        updated: list[Result] = []
        for start in _starts(row.timestamp, windows):
            if start + windows.size_ms <= stream_time - windows.grace_ms:
                continue
            window = Windowed(row.key, start, start + windows.size_ms)
            before = last.get(window, Result(window, 0, row.timestamp))
            last[window] = Result(window, before.value + 1, max(before.timestamp, row.timestamp))
            updated.append(last[window])
        yield updated


def _starts(timestamp: int, windows: TimeWindows) -> list[int]:
    """Where the windows start that a time lies in, the earliest first."""
    last = timestamp - timestamp % windows.advance_ms
    return list(range(last, timestamp - windows.size_ms, -windows.advance_ms))[::-1]


def check(seen: Seen) -> list[str]:
    found: list[str] = []
    for topic, windows in ((TUMBLED, TUMBLING), (HOPPED, HOPPING)):
        expected = {
            partition: [result for updated in counted(rows, windows) for result in updated]
            for partition, rows in IN.inputs(seen).items()
        }
        found += topic.in_order(seen, expected)
    return found


WINDOWS = Workload(
    name="windows",
    about="windows count what is not too late, and nothing that is",
    topics={IN.name: PARTITIONS, TUMBLED.name: PARTITIONS, HOPPED.name: PARTITIONS},
    outputs=(TUMBLED.name, HOPPED.name),
    topology=topology,
    inputs=inputs,
    check=check,
)
