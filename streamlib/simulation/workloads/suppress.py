"""The final count of each window, once, when it closes."""

from __future__ import annotations

import random
from collections.abc import Iterable

from streamlib.dsl.builder import StreamsBuilder
from streamlib.dsl.suppressed import Suppressed
from streamlib.simulation.differences import Result, Row
from streamlib.simulation.workloads import windows
from streamlib.simulation.workloads.reading import Topic
from streamlib.simulation.workloads.windows import GRACE_MS, SIZE_MS, TUMBLING
from streamlib.simulation.workloads.workload import PARTITIONS, Input, Seen, Workload
from streamlib.topology.topology import Topology
from streamlib.windows import Windowed, time_windowed

CLOSING = "closing"
"""The key of the last record in each partition. Its own window stays open."""

IN = Topic("in", str, str)
OUT = Topic("final", time_windowed(str, SIZE_MS), int)


def topology() -> Topology:
    builder = StreamsBuilder()
    counts = builder.stream(IN.name, key=str, value=str).group_by_key().windowed_by(TUMBLING).count(store="counts")
    counts.suppress(Suppressed.until_window_closes(), name="final").to_stream().to(OUT.name)
    return builder.build()


def inputs(rng: random.Random, count: int) -> list[Input]:
    """Those of the windows, and one at the end that closes all of them."""
    drawn = windows.inputs(rng, count)
    last = max((item.record[2] for item in drawn), default=0) + SIZE_MS + GRACE_MS
    return [*drawn, *(IN.record(partition, CLOSING, CLOSING, last) for partition in range(PARTITIONS))]


def closed(rows: list[Row]) -> list[Result]:
    """The last counts of the windows of one partition, as they close, in the order of end, key and start."""
    waiting: dict[Windowed[str], Result] = {}
    stream_time = -1
    results: list[Result] = []
    for updated in windows.counted(rows, TUMBLING):
        for result in updated:
            waiting[result.key] = result
            stream_time = max(stream_time, result.timestamp)
        due = [window for window in waiting if window.end + GRACE_MS <= stream_time]
        results += [waiting.pop(window) for window in sorted(due, key=_order)]
    return results


def _order(window: Windowed[str]) -> tuple[int, bytes]:
    return window.end, OUT.key.encode(window)


def check(seen: Seen) -> list[str]:
    expected = {partition: closed(rows) for partition, rows in IN.inputs(seen).items()}
    return OUT.in_order(seen, expected) + _final_twice(row for rows in OUT.outputs(seen).values() for row in rows)


def _final_twice(rows: Iterable[Row]) -> list[str]:
    """A window closes once, whatever it holds."""
    closed_at: dict[object, str] = {}
    found: list[str] = []
    for row in rows:
        if row.key in closed_at:
            found.append(f"{row.place}: {row.key!r} closes again, after {closed_at[row.key]}")
        closed_at[row.key] = row.place
    return found


SUPPRESS = Workload(
    name="suppress",
    about="each window has one result, when it closes, and that is its count",
    topics={IN.name: PARTITIONS, OUT.name: PARTITIONS},
    outputs=(OUT.name,),
    topology=topology,
    inputs=inputs,
    check=check,
)
