"""How long outputs stood still, by the times at which the brokers took in what was committed in the end."""

from __future__ import annotations

import statistics
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec

from tests.chaos.faults import Done
from tests.chaos.readback import Row
from tests.chaos.verdict import by_partition


class Stall(msgspec.Struct, frozen=True):
    """The longest span without a committed output of a partition, while input came in, and what was broken in it."""

    partition: int = 0
    began_ms: int = 0
    length_ms: int = 0
    faults: tuple[str, ...] = ()


class Recovery(msgspec.Struct, frozen=True):
    """How long it took from the end of faults of a kind until every partition had committed output again.

    Faults overlap, so some of it may be due to another one; `alone` counts those that nothing else fell into.
    """

    median_ms: int
    worst_ms: int
    alone: int
    worst_alone_ms: int


def longest_stall(outputs: Iterable[Row], faults: Sequence[Done]) -> Stall:
    """Of all partitions; rows carry the time at which they were appended."""
    longest = Stall()
    for number, times in _times(outputs).items():
        for before, after in pairwise(times):
            if after - before > longest.length_ms:
                hits = tuple(done.kind for done in faults if done.began_ms < after and done.ended_ms > before)
                longest = Stall(number, before, after - before, hits)
    return longest


def recoveries(outputs: Iterable[Row], faults: Sequence[Done]) -> dict[str, Recovery]:
    """By kind of fault."""
    partitions = list(_times(outputs).values())
    spans: dict[str, list[int]] = defaultdict(list)
    alone: dict[str, list[int]] = defaultdict(list)
    for done in faults:
        firsts = [times[bisect_right(times, done.ended_ms)] for times in partitions if times[-1] > done.ended_ms]
        if len(firsts) < len(partitions):
            continue  # it went on to the end
        over_ms = max(firsts)
        spans[done.kind].append(over_ms - done.ended_ms)
        if not any(other.began_ms < over_ms and other.ended_ms > done.began_ms for other in faults if other != done):
            alone[done.kind].append(over_ms - done.ended_ms)
    return {
        kind: Recovery(round(statistics.median(ms)), max(ms), len(alone[kind]), max(alone[kind], default=0))
        for kind, ms in sorted(spans.items())
    }


def _times(outputs: Iterable[Row]) -> dict[int, list[int]]:
    return {number: sorted(row.timestamp_ms for row in rows) for number, rows in by_partition(outputs).items()}
