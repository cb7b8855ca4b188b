"""No false alarm: a run whose records met in any order at all is never said to have violated anything.

And no silence: what is taken away from such a run, or put into it, is never said to hold where it can be told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlib import (
    BufferConfig,
    JoinWindows,
    KStream,
    SessionWindows,
    SlidingWindows,
    StreamsBuilder,
    Suppressed,
    TimeWindows,
)
from streamlib.engine.task import Task
from streamlib.partitioning import partitioner_for
from streamlib.records import FetchedBatch, TopicPartition
from streamlib.verify.history import one_by_one
from streamlib.verify.replay import Trial
from tests.engine.support import Fetched
from tests.verify.support import Application, Define, Line, faults

PARTITIONS = 3
GRACE = timedelta(seconds=2)


class Shuffled:
    """Records of all partitions in any order."""

    def __init__(self, seed: int) -> None:
        self._chance = Random(seed)
        self._waiting: dict[TopicPartition, tuple[Task, deque[FetchedBatch]]] = {}
        self._current: Task | None = None

    def put(self, task: Task, batch: FetchedBatch) -> None:
        self._waiting.setdefault(batch.partition, (task, deque()))[1].extend(one_by_one(batch))

    def next(self) -> Task | None:
        while self._current is None or self._current.head_timestamp is None:
            ready = sorted(partition for partition, (_, batches) in self._waiting.items() if batches)
            if not ready:
                return None
            self._current, batches = self._waiting[self._chance.choice(ready)]
            self._current.enqueue(batches.popleft())
        return self._current


def stream(builder: StreamsBuilder, topic: str = "in") -> KStream[str, str]:
    return builder.stream(topic, key=str, value=str)


def letters(builder: StreamsBuilder) -> KStream[str, str]:
    return stream(builder).select_key(lambda _, value: value[0])


def count(b: StreamsBuilder) -> None:
    letters(b).group_by_key(key=str).count(store="c").to_stream().to("out")


def joined_text(b: StreamsBuilder) -> None:
    letters(b).group_by_key(key=str).aggregate(str, lambda _, v, all_: all_ + v, value=str).to_stream().to("out")


def total(b: StreamsBuilder) -> None:
    letters(b).group_by_key(key=str).aggregate(
        lambda: 0, lambda _, value, sum_: sum_ + int(value[1:]), value=int, store="c"
    ).to_stream().to("out")


def largest(b: StreamsBuilder) -> None:
    letters(b).group_by_key(key=str).reduce(max).filter(lambda _, value: value[1] > "0").to_stream().to("out")


def count_of_counts(b: StreamsBuilder) -> None:
    counts = letters(b).group_by_key(key=str).count().to_stream()
    counts.group_by(lambda _, value: value % 3, key=int).count().to_stream().to("out")


def tumbling(b: StreamsBuilder) -> None:
    windows = TimeWindows.of_size(timedelta(seconds=3), grace=GRACE)
    letters(b).group_by_key(key=str).windowed_by(windows).count().to_stream().to("out")


def sliding(b: StreamsBuilder) -> None:
    windows = SlidingWindows.of_time_difference(timedelta(seconds=1), grace=GRACE)
    letters(b).group_by_key(key=str).windowed_by(windows).count().to_stream().to("out")


def closed(b: StreamsBuilder) -> None:
    windows = TimeWindows.of_size(timedelta(seconds=3), grace=GRACE)
    counts = letters(b).group_by_key(key=str).windowed_by(windows).count()
    counts.suppress(Suppressed.until_window_closes(BufferConfig.unbounded())).to_stream().to("out")


def sessions(b: StreamsBuilder) -> None:
    windows = SessionWindows.of_inactivity_gap(timedelta(seconds=1), grace=GRACE)
    letters(b).group_by_key(key=str).windowed_by(windows).count().to_stream().to("out")


def repetitions(b: StreamsBuilder) -> None:
    letters(b).repartition(key=str, value=str).deduplicate(within=timedelta(seconds=2)).to("out")


def merged(b: StreamsBuilder) -> None:
    stream(b).merge(stream(b, "rows")).filter(lambda _, value: value > "y").to("out")


def looked_up(b: StreamsBuilder) -> None:
    stream(b).left_join(b.table("rows", key=str, value=str), lambda v, row: f"{v}{row}").to("out")


def looked_up_anywhere(b: StreamsBuilder) -> None:
    rows = b.global_table("rows", key=str, value=str)
    stream(b).left_join(rows, lambda v, row: f"{v}{row}", key_selector=lambda _, v: v[0]).to("out")


def tables(b: StreamsBuilder) -> None:
    left, right = (b.table(topic, key=str, value=str) for topic in ("in", "rows"))
    left.outer_join(right, lambda v, row: f"{v}{row}").to_stream().to("out")


def by_foreign_key(b: StreamsBuilder) -> None:
    left, right = (b.table(topic, key=str, value=str) for topic in ("in", "rows"))
    left.left_join(right, lambda v, row: f"{v}{row}", foreign_key=lambda v: v[0]).to_stream().to("out")


def regrouped(b: StreamsBuilder) -> None:
    b.table("in", key=str, value=str).group_by(lambda _, v: (v[0], v), key=str).count().to_stream().to("out")


def pairs(b: StreamsBuilder) -> None:
    windows = JoinWindows.of_time_difference(timedelta(seconds=2), grace=timedelta(seconds=1))
    stream(b).join(stream(b, "rows"), lambda v, row: f"{v}{row}", windows).to("out")


def pairs_and_singles(b: StreamsBuilder) -> None:
    windows = JoinWindows.of_time_difference(timedelta(seconds=2), grace=timedelta(seconds=1))
    stream(b).outer_join(stream(b, "rows"), lambda v, row: f"{v}{row}", windows).to("out")


TOPOLOGIES: tuple[Define, ...] = (
    count,
    joined_text,
    total,
    largest,
    count_of_counts,
    tumbling,
    sliding,
    closed,
    sessions,
    repetitions,
    merged,
    looked_up,
    looked_up_anywhere,
    tables,
    by_foreign_key,
    regrouped,
    pairs,
    pairs_and_singles,
)
TABLES = (tables, by_foreign_key, regrouped)
COUNTED = (count, merged, regrouped)

VALUES = st.builds(lambda letter, number: f"{letter}{number}", st.sampled_from("xyz"), st.integers(0, 2))
TIMES = st.integers(0, 20).map(lambda n: 400 * n)
KEYS = st.sampled_from("abcdef")


def lines(values: st.SearchStrategy[str | None], keys: st.SearchStrategy[str] = KEYS) -> st.SearchStrategy[list[Line]]:
    return st.lists(st.tuples(keys, values, TIMES), max_size=20)


def spread(topic: str, records: Sequence[Line]) -> dict[TopicPartition, list[Line]]:
    """By key, as joins and tables need it; keys of all partitions lead to the same letters."""
    partition_of = partitioner_for(PARTITIONS)
    found: dict[TopicPartition, list[Line]] = {TopicPartition(topic, n): [] for n in range(PARTITIONS)}
    for line in records:
        assert line[0] is not None
        found[TopicPartition(topic, partition_of(line[0].encode()))].append(line)
    return found


def application(define: Define, data: st.DataObject, *, cached: bool = False) -> Application:
    """Has run in an order of its own, and has committed now and then."""
    values = st.one_of(st.none(), VALUES) if define in TABLES else VALUES
    inputs = spread("in", data.draw(lines(values)))
    builder = StreamsBuilder()
    define(builder)
    if any("rows" in getattr(node, "topics", ()) for node in builder.build().nodes.values()):
        rows = VALUES if define in (merged, pairs, pairs_and_singles) else st.one_of(st.none(), VALUES)
        inputs |= spread("rows", data.draw(lines(rows, st.sampled_from("abcdefxyz"))))
    counts = {"in": PARTITIONS, "rows": PARTITIONS, "out": PARTITIONS}
    app = Application(define, inputs, counts, statestore_cache_max_bytes=200 if cached else 0)
    seed, every = data.draw(st.integers(0, 1 << 32)), data.draw(st.sampled_from([1, 3, 100]))
    app.run(Trial(lambda: Shuffled(seed), clock_ms=5, first_offset=7, cached=cached, commit_every=every))
    return app


@pytest.mark.parametrize("define", TOPOLOGIES, ids=lambda define: define.__name__)
@pytest.mark.parametrize("cached", [False, True], ids=["", "cached"])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_no_order_is_a_violation(define: Define, cached: bool, data: st.DataObject) -> None:
    for report in application(define, data, cached=cached).verify().values():
        assert faults(report).keys() <= {"undecided"}, report


Plant = Callable[[list[Fetched], int], object]

PLANTS: dict[str, Plant] = {
    "missing": lambda records, at: records.pop(at),
    "duplicates": lambda records, at: records.append(records[at]._replace(offset=len(records))),
    "unexpected": lambda records, at: records.append(
        Fetched(len(records), records[at].timestamp, records[at].key, b"nonsense")
    ),
}


@pytest.mark.parametrize("define", COUNTED, ids=lambda define: define.__name__)
@pytest.mark.parametrize("kind", PLANTS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_what_is_planted_is_found(define: Define, kind: str, data: st.DataObject) -> None:
    app = application(define, data)
    partitions = [partition for partition, records in app.output.items() if records]
    if not partitions:
        return
    records = app.output[data.draw(st.sampled_from(partitions))]
    PLANTS[kind](records, data.draw(st.integers(0, len(records) - 1)))
    found = faults(app.verify()["out"]).keys()
    # Of what counts by its number alone, it can only be guessed which record is the one.
    assert found & ({kind, "different"} if define is not regrouped else {"missing", *PLANTS, "different"})
