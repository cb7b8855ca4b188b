"""Counts of sessions, which grow together when a late record comes in between, and are taken back then."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import timedelta
from typing import TypeAlias

from streamlib.dsl.builder import StreamsBuilder
from streamlib.dsl.materialized import Materialized
from streamlib.simulation.differences import Result, Row
from streamlib.simulation.workloads.drawing import Draw
from streamlib.simulation.workloads.reading import Topic
from streamlib.simulation.workloads.workload import PARTITIONS, Input, Seen, Workload
from streamlib.topology.topology import Topology
from streamlib.windows import SessionWindows, Windowed, session_windowed

GAP_MS = 30
GRACE_MS = 100

Sessions: TypeAlias = dict[tuple[int, int], int]
"""Of one key: start and end of each session, and how many records it has."""

IN = Topic("in", str, str)
OUT = Topic("out", session_windowed(str), int)


def topology() -> Topology:
    """The store forgets nothing that a record could still reach."""
    builder = StreamsBuilder()
    windows = SessionWindows.of_inactivity_gap(timedelta(milliseconds=GAP_MS), grace=timedelta(milliseconds=GRACE_MS))
    store = Materialized(name="sessions", retention=timedelta(minutes=10))
    by_key = builder.stream(IN.name, key=str, value=str).group_by_key()
    by_key.windowed_by(windows).count(store=store).to_stream().to(OUT.name)
    return builder.build()


def inputs(rng: random.Random, count: int) -> list[Input]:
    """A third of them late, some of these too late."""
    draw = Draw(rng, keys=2)
    times = draw.times(step_ms=30, late_ms=2 * (GAP_MS + GRACE_MS), late_share=0.35)
    return [IN.record(partition, key, name, times[partition].next()) for partition, key, name in draw.records(count)]


def counted(rows: Iterable[Row]) -> list[Result]:
    """What comes of the records of one partition: sessions that are swallowed, without a value, before what they have
    become."""
    stream_time = -1
    sessions_of: dict[str, Sessions] = {}
    results: list[Result] = []
    for row in rows:
        stream_time = max(stream_time, row.timestamp)
        sessions = sessions_of.setdefault(row.key, {})
        results += _add(row.key, row.timestamp, sessions, stream_time - GRACE_MS - GAP_MS)
    return results


def _add(key: str, timestamp: int, sessions: Sessions, first_open_end: int) -> list[Result]:
    swallowed = sorted(
        (span for span in sessions if span[0] - GAP_MS <= timestamp <= span[1] + GAP_MS), key=lambda span: span[::-1]
    )
    start = min([timestamp, *(first for first, _ in swallowed)])
    end = max([timestamp, *(last for _, last in swallowed)])
    if end < first_open_end:
        return []
    count = 1 + sum(sessions.pop(span) for span in swallowed)
    sessions[start, end] = count
    results = [Result(Windowed(key, *span), None, span[1]) for span in swallowed if start < end]
    return [*results, Result(Windowed(key, start, end), count, end)]


def check(seen: Seen) -> list[str]:
    return OUT.in_order(seen, {partition: counted(rows) for partition, rows in IN.inputs(seen).items()})


SESSIONS = Workload(
    name="sessions",
    about="sessions count their records, and are taken back when they grow together",
    topics={IN.name: PARTITIONS, OUT.name: PARTITIONS},
    outputs=(OUT.name,),
    topology=topology,
    inputs=inputs,
    check=check,
)
