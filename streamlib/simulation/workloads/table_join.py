"""Two tables joined by key.

In which order changes of the two topics meet is open, but each key's results have to be those of one such order, from
the first change to the last.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from streamlib.dsl.builder import StreamsBuilder
from streamlib.simulation.differences import Result, Row
from streamlib.simulation.workloads.drawing import Draw
from streamlib.simulation.workloads.reading import Store, Topic
from streamlib.simulation.workloads.workload import PARTITIONS, Input, Seen, Workload
from streamlib.topology.topology import Topology

LEFT = Topic("left", str, str)
RIGHT = Topic("right", str, str)
OUT = Topic("out", str, str)
LEFT_ROWS = Store("left-rows", str, str)
RIGHT_ROWS = Store("right-rows", str, str)
JOINED = Store("joined", str, str)


def topology() -> Topology:
    builder = StreamsBuilder()
    left = builder.table(LEFT.name, key=str, value=str, store=LEFT_ROWS.name)
    right = builder.table(RIGHT.name, key=str, value=str, store=RIGHT_ROWS.name)
    left.join(right, joined, store=JOINED.name, result=str).to_stream().to(OUT.name)
    return builder.build()


def joined(left: str, right: str) -> str:
    """The names of both rows."""
    return f"{left}+{right}"


def inputs(rng: random.Random, count: int) -> list[Input]:
    """Changes of few rows; a fifth are deletes, of rows that are not there, too."""
    draw = Draw(rng, keys=2)
    times = {topic.name: draw.times(step_ms=50, late_ms=200, late_share=0.3) for topic in (LEFT, RIGHT)}
    drawn: list[Input] = []
    for partition, key, name in draw.records(count):
        topic = rng.choice((LEFT, RIGHT))
        value = f"{topic.name[0]}{name}" if rng.random() < 0.8 else None
        drawn.append(topic.record(partition, key, value, times[topic.name][partition].next()))
    return drawn


Change: TypeAlias = Row
"""A record of either topic."""


class Changes(NamedTuple):
    """What happened to the two rows of one key."""

    left: Sequence[Change]
    right: Sequence[Change]

    def results(self, done: Done) -> Iterator[tuple[Done, Result | None]]:
        """What may be done next, and what comes of it; nothing as long as the other side has no row."""
        if done.left < len(self.left):
            row, other = self.left[done.left], _row(self.right, done.right)
            yield Done(done.left + 1, done.right), _result(row, other, joined_by=(row, other))
        if done.right < len(self.right):
            row, other = self.right[done.right], _row(self.left, done.left)
            yield Done(done.left, done.right + 1), _result(row, other, joined_by=(other, row))


class Done(NamedTuple):
    """How many changes of each side are done."""

    left: int
    right: int


def _row(changes: Sequence[Change], done: int) -> Change | None:
    """The row there is after so many changes."""
    return changes[done - 1] if done > 0 and changes[done - 1].value is not None else None


def _result(change: Change, other: Change | None, joined_by: tuple[Change | None, Change | None]) -> Result | None:
    if other is None:
        return None
    left, right = joined_by
    assert left is not None
    assert right is not None
    value = None if change.value is None else joined(left.value, right.value)
    return Result(change.key, value, max(change.timestamp, other.timestamp))


def unexplained(changes: Changes, rows: Iterable[Row]) -> list[str]:
    """The first result that no order of the changes leads to, or that not all changes were done; in words."""
    where, number = _after_silence(changes, {Done(0, 0)}), 0
    for row in rows:
        where = {then for done in where for then, result in changes.results(done) if result == row.result}
        if not where:
            return [f"{row.place}: no order of the changes leads to {row.result} as result {number + 1} of its key"]
        where, number = _after_silence(changes, where), number + 1
    end = Done(len(changes.left), len(changes.right))
    if end in where:
        return []
    key = (changes.left or changes.right)[0].key
    return [f"topic {OUT.name}: results of {key!r} are missing: its changes lead to more than the {number} there are"]


def _after_silence(changes: Changes, where: set[Done]) -> set[Done]:
    """And where one may be after changes that nothing comes of."""
    reached, left = set(where), list(where)
    while left:
        for then, result in changes.results(left.pop()):
            if result is None and then not in reached:
                reached.add(then)
                left.append(then)
    return reached


def check(seen: Seen) -> list[str]:
    left, right, rows = _by_key(LEFT.inputs(seen)), _by_key(RIGHT.inputs(seen)), OUT.outputs_by_key(seen)
    found: list[str] = []
    for key in sorted({*left, *right}):
        found += unexplained(Changes(left.get(key, []), right.get(key, [])), rows.pop(key, []))
    found += [f"{row.place}: {row.result} is of no key there is" for strange in rows.values() for row in strange]
    last_left, last_right = _last(left), _last(right)
    last = {
        key: (joined(last_left[key][0], last_right[key][0]), max(last_left[key][1], last_right[key][1]))
        for key in last_left.keys() & last_right.keys()
    }
    return [
        *found,
        *LEFT_ROWS.holds(seen, last_left),
        *RIGHT_ROWS.holds(seen, last_right),
        *JOINED.holds(seen, last),
    ]


def _by_key(partitions: dict[int, list[Row]]) -> dict[str, list[Row]]:
    by_key: dict[str, list[Row]] = {}
    for rows in partitions.values():
        for row in rows:
            by_key.setdefault(row.key, []).append(row)
    return by_key


def _last(by_key: dict[str, list[Row]]) -> dict[str, tuple[str, int]]:
    """The rows at the end: value and time."""
    last = {key: rows[-1] for key, rows in by_key.items()}
    return {key: (row.value, row.timestamp) for key, row in last.items() if row.value is not None}


TABLE_JOIN = Workload(
    name="table_join",
    about="results of a join of tables are those of one order of the changes, the stores those of the last ones",
    topics={topic.name: PARTITIONS for topic in (LEFT, RIGHT, OUT)},
    outputs=(OUT.name,),
    topology=topology,
    inputs=inputs,
    check=check,
)
