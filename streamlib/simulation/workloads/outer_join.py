"""An outer join of two streams that come out of one topic, so that the order of all records is known.

What is a match, what waits, and when it has waited long enough all depend on the join's stream time and on what it has
kept: the results tell if either went back.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import timedelta
from typing import NamedTuple

from streamlib.dsl.builder import StreamsBuilder
from streamlib.simulation.differences import Result, Row
from streamlib.simulation.workloads.drawing import Draw
from streamlib.simulation.workloads.reading import Topic
from streamlib.simulation.workloads.stream_join import paired
from streamlib.simulation.workloads.workload import PARTITIONS, Input, Seen, Workload
from streamlib.topology.topology import Topology
from streamlib.windows import JoinWindows

DIFFERENCE_MS = 60
GRACE_MS = 40
KEPT_MS = 2 * DIFFERENCE_MS + GRACE_MS
"""Records are found as long as they are less than this behind the latest of their side."""
WINDOWS = JoinWindows.of_time_difference(timedelta(milliseconds=DIFFERENCE_MS), grace=timedelta(milliseconds=GRACE_MS))
RIGHT, LEFT = 0, 1

IN = Topic("in", str, str)
OUT = Topic("out", str, str)


def topology() -> Topology:
    builder = StreamsBuilder()
    records = builder.stream(IN.name, key=str, value=str)
    left = records.filter(lambda key, value: side_of(value) == LEFT)
    right = records.filter(lambda key, value: side_of(value) == RIGHT)
    left.outer_join(right, paired, WINDOWS, store="pairs", result=str).to(OUT.name)
    return builder.build()


def side_of(name: str) -> int:
    """To which stream a record belongs."""
    return LEFT if name.startswith("l") else RIGHT


def inputs(rng: random.Random, count: int) -> list[Input]:
    """A third of them late, some after all that could match them is forgotten."""
    draw = Draw(rng, keys=2)
    times = draw.times(step_ms=40, late_ms=2 * KEPT_MS, late_share=0.35)
    return [
        IN.record(partition, key, f"{rng.choice('lr')}{name}", times[partition].next())
        for partition, key, name in draw.records(count)
    ]


class Side(NamedTuple):
    """What came on one side, in order, as far as it was kept."""

    kept: list[Row]

    @property
    def first_found(self) -> int:
        """From when on records are found."""
        return max((row.timestamp for row in self.kept), default=0) - KEPT_MS + 1

    def keep(self, row: Row) -> None:
        """Unless it is forgotten at once."""
        if row.timestamp >= self.first_found:
            self.kept.append(row)

    def near(self, row: Row) -> list[Row]:
        """What matches a record of the other side, in the order of time."""
        found = [
            each
            for each in self.kept
            if each.key == row.key
            and abs(each.timestamp - row.timestamp) <= DIFFERENCE_MS
            and each.timestamp >= self.first_found
        ]
        return sorted(found, key=lambda each: each.timestamp)


class Recount:
    """The join of one partition, as Kafka Streams does it (`KStreamKStreamJoin`)."""

    def __init__(self) -> None:
        self._stream_time = -1
        self._sides = (Side([]), Side([]))
        self._waiting: list[Row] = []
        self._looked_at = -1  # the time of the last record that a release came to; it is not always the earliest

    def results(self, row: Row) -> list[Result]:
        """What comes of a record."""
        self._stream_time = max(self._stream_time, row.timestamp)
        closed_before = row.timestamp - DIFFERENCE_MS - GRACE_MS
        results = []
        if row.timestamp == self._stream_time and -1 < self._looked_at < closed_before:
            results = self._release(closed_before)
        side = side_of(row.value)
        matches = self._sides[1 - side].near(row)
        results += [_pair(row, match) for match in matches]
        self._forget(matches)
        if not matches:
            results += self._alone(row)
        self._sides[side].keep(row)
        return results

    def _alone(self, row: Row) -> list[Result]:
        if row.timestamp + DIFFERENCE_MS < self._stream_time:
            return [_unmatched(row)]
        self._waiting.append(row)
        self._looked_at = row.timestamp if self._looked_at == -1 else min(self._looked_at, row.timestamp)
        return []

    def _forget(self, matches: list[Row]) -> None:
        """Who has a match waits no more, nor does who came at the same time with the same key on the same side."""
        gone = {_place(match) for match in matches}
        self._waiting = [row for row in self._waiting if _place(row) not in gone]

    def _release(self, closed_before: int) -> list[Result]:
        """Up to where there is one of each side that still has to wait."""
        released: list[Row] = []
        open_sides: set[int] = set()
        self._looked_at = -1
        for row in sorted(self._waiting, key=_place):
            self._looked_at = row.timestamp
            if len(open_sides) == len(self._sides):
                break
            if row.timestamp < closed_before:
                released.append(row)
            else:
                open_sides.add(side_of(row.value))
        self._waiting = [row for row in self._waiting if row not in released]
        return [_unmatched(row) for row in released]


def joined(rows: Iterable[Row]) -> list[Result]:
    """What comes of the records of one partition."""
    recount = Recount()
    return [result for row in rows for result in recount.results(row)]


def _place(row: Row) -> tuple[int, int, bytes]:
    return row.timestamp, side_of(row.value), IN.key.encode(row.key)


def _pair(row: Row, match: Row) -> Result:
    left, right = (row, match) if side_of(row.value) == LEFT else (match, row)
    return Result(row.key, paired(left.value, right.value), max(row.timestamp, match.timestamp))


def _unmatched(row: Row) -> Result:
    value = paired(row.value, None) if side_of(row.value) == LEFT else paired(None, row.value)
    return Result(row.key, value, row.timestamp)


def check(seen: Seen) -> list[str]:
    return OUT.in_order(seen, {partition: joined(rows) for partition, rows in IN.inputs(seen).items()})


OUTER_JOIN = Workload(
    name="outer_join",
    about="pairs, and records that have waited in vain, in the order that one topic gives",
    topics={IN.name: PARTITIONS, OUT.name: PARTITIONS},
    outputs=(OUT.name,),
    topology=topology,
    inputs=inputs,
    check=check,
)
