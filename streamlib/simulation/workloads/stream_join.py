"""Two streams joined within a window, as an inner join and as an outer one.

In which order records of the two topics meet is open, so the windows are such that it makes no difference to the pairs:
records come in any order within a span of time that the grace covers. A record without a match is released by the last
one of its topic and partition, which closes all windows. Only of a record whose match was in the other topic when that
happened, but not read yet, the outer join may say first that there is none, as long as it says so once and before the
match.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

from streamlib.dsl.builder import StreamsBuilder
from streamlib.simulation.differences import Result, Row, in_any_order
from streamlib.simulation.workloads.drawing import START_MS, keys_of
from streamlib.simulation.workloads.reading import Topic
from streamlib.simulation.workloads.workload import PARTITIONS, Input, Seen, Workload
from streamlib.topology.topology import Topology
from streamlib.windows import JoinWindows

SPAN_MS = 1_000
"""All times lie in it but those of the closing records."""
CLOSE_MS = 100
WIDE_MS = 2 * SPAN_MS
CLOSING_MS = START_MS + SPAN_MS + WIDE_MS + 1
"""Behind all windows of the outer join, and not so far that what is in them would be forgotten."""
CLOSE = JoinWindows.of_time_difference(timedelta(milliseconds=CLOSE_MS), grace=timedelta(milliseconds=SPAN_MS))
WIDE = JoinWindows.of_time_difference(timedelta(milliseconds=WIDE_MS), grace=timedelta(0))

LEFT = Topic("left", str, str)
RIGHT = Topic("right", str, str)
INNER = Topic("inner", str, str)
OUTER = Topic("outer", str, str)
CLOSING = {LEFT.name: "closing-left", RIGHT.name: "closing-right"}
"""Keys of the closing records. They match nothing."""


def topology() -> Topology:
    builder = StreamsBuilder()
    left, right = (builder.stream(topic.name, key=str, value=str) for topic in (LEFT, RIGHT))
    open_left, open_right = left.filter(is_open), right.filter(is_open)
    open_left.join(open_right, paired, CLOSE, store="close", result=str).to(INNER.name)
    left.outer_join(right, paired, WIDE, store="wide", result=str).to(OUTER.name)
    return builder.build()


def is_open(key: str, value: str) -> bool:
    """Whether it is no closing record."""
    return key not in CLOSING.values()


def paired(left: str | None, right: str | None) -> str:
    """The names of both records, or a dash."""
    return f"{left or '-'}+{right or '-'}"


def inputs(rng: random.Random, count: int) -> list[Input]:
    """Of the keys some are in one topic alone. All times in any order."""
    drawn: list[Input] = []
    for serial in range(count):
        partition, topic = rng.randrange(PARTITIONS), rng.choice((LEFT, RIGHT))
        both, neither, left, right = keys_of(partition, 4)
        key = rng.choice((both, neither, left if topic is LEFT else right))
        time = START_MS + rng.randint(0, SPAN_MS)
        drawn.append(topic.record(partition, key, f"{topic.name[0]}{serial}", time))
    closing = [(topic, partition) for topic in (LEFT, RIGHT) for partition in range(PARTITIONS)]
    return [
        *drawn,
        *(topic.record(partition, CLOSING[topic.name], "closing", CLOSING_MS) for topic, partition in closing),
    ]


class Expected(NamedTuple):
    """What the outer join makes of one partition.

    Attributes:
        pairs: what comes once: pairs, and records without any match.
        early: records without a match that may come once before it; by result, the name of the record.
    """

    pairs: list[Result]
    early: Mapping[Result, str]


def inner_pairs(left: Sequence[Row], right: Sequence[Row]) -> list[Result]:
    """All pairs of one key that are close to each other, at the later time."""
    return [
        _pair(one, other)
        for one in left
        for other in right
        if one.key == other.key and abs(one.timestamp - other.timestamp) <= CLOSE_MS
    ]


def outer_pairs(left: Sequence[Row], right: Sequence[Row]) -> Expected:
    """All pairs of one key, and all records alone; the closing ones wait for ever."""
    pairs = [_pair(one, other) for one in left for other in right if one.key == other.key]
    shared = {row.key for row in left} & {row.key for row in right}
    alone = [(_alone(row, is_left=True), row) for row in left] + [(_alone(row, is_left=False), row) for row in right]
    unmatched = [result for result, row in alone if row.key not in shared and is_open(row.key, row.value)]
    early = {result: row.value for result, row in alone if row.key in shared}
    return Expected(pairs + unmatched, early)


def check(seen: Seen) -> list[str]:
    left, right = LEFT.inputs(seen), RIGHT.inputs(seen)
    found = INNER.in_any_order(seen, {number: inner_pairs(left[number], right[number]) for number in left})
    for number, rows in OUTER.outputs(seen).items():
        pairs, early = outer_pairs(left[number], right[number])
        in_time = [row for row in rows if row.result not in early]
        found += in_any_order(f"topic {OUTER.name}, partition {number}", pairs, in_time)
        found += _compare_early(rows, early)
    return found


def _compare_early(rows: Sequence[Row], early: Mapping[Result, str]) -> list[str]:
    """Who has met a match, or has been said to have none, is not said to have none any more."""
    told: dict[str, str] = {}
    found: list[str] = []
    for row in rows:
        name = early.get(row.result)
        if name is not None and name in told:
            found.append(f"{row.place}: {row.result} comes after {told[name]}")
        names = (name,) if name is not None else str(row.value).split("+")
        told.update(dict.fromkeys(names, row.place))
    return found


def _pair(left: Row, right: Row) -> Result:
    return Result(left.key, paired(left.value, right.value), max(left.timestamp, right.timestamp))


def _alone(row: Row, *, is_left: bool) -> Result:
    return Result(row.key, paired(row.value, None) if is_left else paired(None, row.value), row.timestamp)


STREAM_JOIN = Workload(
    name="stream_join",
    about="all pairs of two streams once, and each record without a match once",
    topics={topic.name: PARTITIONS for topic in (LEFT, RIGHT, INNER, OUTER)},
    outputs=(INNER.name, OUTER.name),
    topology=topology,
    inputs=inputs,
    check=check,
)
