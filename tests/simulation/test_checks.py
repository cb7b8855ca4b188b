"""Checks of any topology: of offsets, of stores against their changelogs, of outputs against those of another run."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest

from streamlib.dsl.builder import StreamsBuilder
from streamlib.dsl.materialized import Materialized
from streamlib.dsl.processor import ProcessorContext
from streamlib.dsl.stores import Stores
from streamlib.dsl.suppressed import BufferConfig, Suppressed
from streamlib.dsl.windowed import EmitStrategy
from streamlib.engine.task import Task
from streamlib.records import OutRecord, Record, TaskId, TopicPartition
from streamlib.serdes import serde_for
from streamlib.simulation.checks import (
    StoreCopy,
    drained,
    no_hanging_transaction,
    same_by_key,
    store_follows_changelog,
)
from streamlib.simulation.workloads import WORKLOADS, Input, Workload
from streamlib.simulation.workloads.drawing import Draw
from streamlib.simulation.workloads.reading import Topic
from streamlib.state.stores import KINDS
from streamlib.topology.nodes import StoreSpec
from streamlib.topology.topology import Topology
from streamlib.windows import JoinWindows, SessionWindows, TimeWindows
from tests.simulation.tasks import Tasks

A, B = TopicPartition("in", 0), TopicPartition("in", 1)
IN = Topic("in", str, str)


# -- Offsets ---------------------------------------------------------------------------------------------------------


def test_a_group_is_done_when_it_has_committed_all_ends() -> None:
    assert drained({A: 3, B: 7}, {A: 3, B: 7}) == []
    assert drained({}, {A: 0}) == [], "nothing was ever written"
    assert drained({A: 3}, {A: 4, B: 7}) == [
        "topic in, partition 0: the group has committed offset 3, the end is 4",
        "topic in, partition 1: the group has committed nothing, the end is 7",
    ]
    assert drained({A: 5}, {A: 4}) == ["topic in, partition 0: the group has committed offset 5, the end is 4"]


def test_a_transaction_hangs_when_readers_cannot_get_to_the_end() -> None:
    assert no_hanging_transaction({A: 3, B: 0}, {A: 3, B: 0}) == []
    found = "topic in, partition 0: a transaction from offset 2 on is still open, the end is 3"
    assert no_hanging_transaction({A: 2, B: 7}, {A: 3, B: 7}) == [found]


# -- Stores ----------------------------------------------------------------------------------------------------------


def _ms(duration: int) -> timedelta:
    return timedelta(milliseconds=duration)


def _all_kinds_of_stores() -> Topology:
    builder = StreamsBuilder()
    stream = builder.stream(IN.name, key=str, value=str)
    by_key = stream.group_by_key()
    by_key.count(store=Materialized(name="latest-used", max_entries=2))
    by_key.count(store=Materialized(name="expiring", ttl=_ms(100)))
    by_key.reduce(max, store="plain").group_by(lambda key, value: (value[:1], value), key=str, value=str).count()
    versions = stream.to_table(store=Materialized(name="versions", history_retention=_ms(200)))
    stream.join(versions, max, grace=_ms(50), name="graced")
    windows = TimeWindows.of_size(_ms(100), grace=_ms(20))
    counts = by_key.windowed_by(windows).count(store="windows")
    counts.suppress(Suppressed.until_window_closes())
    counts.suppress(Suppressed.until_time_limit(_ms(40), BufferConfig.unbounded()))
    closing = EmitStrategy.on_window_close()
    by_key.windowed_by(windows).emit_strategy(closing).count(store="closing-windows")
    sessions = SessionWindows.of_inactivity_gap(_ms(30), grace=_ms(40))
    by_key.windowed_by(sessions).count(store="sessions")
    by_key.windowed_by(sessions).emit_strategy(closing).count(store="closing-sessions")
    stream.outer_join(
        stream.filter(lambda key, value: key > "c"), _pair, JoinWindows.of_time_difference(_ms(20), grace=_ms(0))
    )
    stream.deduplicate(_ms(50), store="seen")
    builder.add_state_store(Stores.key_value_store("kept", key=str, value=str))
    builder.add_state_store(Stores.key_value_store("kept-for-a-while", key=str, value=str, ttl=_ms(100)))
    stream.process(Keep, "kept", "kept-for-a-while")
    return builder.build()


class Keep:
    """Keeps the last value of each key."""

    def init(self, context: ProcessorContext) -> None:
        self._stores = [context.state_store(name) for name in ("kept", "kept-for-a-while")]

    def process(self, record: Record[str, str]) -> None:
        for store in self._stores:
            store.put(record.key, record.value)


def _pair(left: str | None, right: str | None) -> str:
    return f"{left}+{right}"


def _inputs(rng: random.Random, count: int) -> list[Input]:
    """Times go far enough for windows to be forgotten."""
    draw = Draw(rng, keys=4)
    times = draw.times(step_ms=20_000, late_ms=300, late_share=0.6)
    return [
        IN.record(p, key, name if rng.random() < 0.9 else None, times[p].next()) for p, key, name in draw.records(count)
    ]


ALL_KINDS = Workload(
    name="all-kinds",
    about="one store of each kind",
    topics={IN.name: 2},
    outputs=(),
    topology=_all_kinds_of_stores,
    inputs=_inputs,
    check=lambda seen: [],
)


def _copy(task: Task, spec: StoreSpec, **changes: Any) -> StoreCopy:
    rows = dict(task.backend.scan(spec.name, None, None))
    return StoreCopy(
        task.id, spec, changes.get("rows", rows), changes.get("position", task.backend.positions().get(spec.name, 0))
    )


@pytest.mark.parametrize("workload", [*WORKLOADS.values(), ALL_KINDS], ids=lambda workload: workload.name)
def test_stores_follow_their_changelogs_through_crashes(workload: Workload) -> None:
    for seed in range(15):
        tasks = Tasks(workload, seed, inputs=50)
        tasks.run()
        for task, spec, partition in tasks.stores():
            log = tasks.log(partition)
            assert store_follows_changelog(_copy(task, spec), log.records, log.end) == [], f"seed {seed}"
            if spec.kind != "versioned":  # whose history is kept from compaction
                compacted = sorted({record[0]: (offset, record) for offset, record in log.records}.values())
                assert store_follows_changelog(_copy(task, spec), compacted, log.end) == [], f"seed {seed}"


def _full() -> Tasks:
    """A run in which every store has rows."""
    tasks = Tasks(ALL_KINDS, 2, inputs=80)
    tasks.run()
    return tasks


def test_all_kinds_of_stores_are_among_them() -> None:
    kinds = {spec.kind for task, spec, _ in _full().stores() if dict(task.backend.scan(spec.name, None, None))}
    assert kinds == set(KINDS)


def _last_of(records: list[tuple[int, OutRecord]]) -> dict[bytes, tuple[int, OutRecord]]:
    """The last record of each key that is no delete."""
    last = {record[0]: (offset, record) for offset, record in records if record[0] is not None}
    return {key: found for key, found in last.items() if found[1][1] is not None}


def test_a_changelog_that_says_something_else_than_the_store_is_told() -> None:
    """The newest record of each store with another value: that of a state behind or ahead."""
    tasks = _full()
    told = set()
    for task, spec, partition in tasks.stores():
        log = tasks.log(partition)
        last = _last_of(log.records)
        if not last:
            continue
        newest = max(last.values())
        offset, (key, value, timestamp, headers) = newest
        assert value is not None
        other = [each for each in log.records if each != newest]
        changed = [*other, (offset, (key, b"!" + value[1:], timestamp, headers))]
        missing = [*other, (offset, (key, None, timestamp, headers))]
        for records in (changed, missing):
            (found, *_) = store_follows_changelog(_copy(task, spec), records, log.end)
            assert found.startswith(f"store {spec.name} of task {task.id}: {key!r} has "), found
        told.add(spec.kind)
    assert told == set(KINDS)


PLAIN = StoreSpec(name="plain", kind="key_value", key=serde_for(str), value=serde_for(str))
TIMED = StoreSpec(name="timed", kind="timestamped_key_value", key=serde_for(str), value=serde_for(str))
LOG: list[tuple[int, OutRecord]] = [
    (0, (b"a", b"1", 10, ())),
    (1, (b"b", b"1", 10, ())),
    (3, (b"a", b"2", 20, ())),
    (4, (b"b", None, 20, ())),
]


def _plain(rows: dict[bytes, bytes], position: int) -> list[str]:
    return store_follows_changelog(StoreCopy(TaskId(0, 1), PLAIN, rows, position), LOG, 6)


def test_a_store_behind_its_changelog_has_what_was_there_at_its_position() -> None:
    assert _plain({b"a": b"2"}, 6) == []
    assert _plain({}, 0) == []


def test_what_may_have_been_compacted_away_is_not_compared() -> None:
    """Both keys come again behind the position."""
    assert _plain({b"a": b"1", b"b": b"1"}, 3) == []
    assert _plain({b"c": b"1"}, 3) == ["store plain of task 0_1: b'c' has b'1', the changelog says no row"]


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ({b"a": b"1"}, "b'a' has b'1', the changelog says b'2'"),
        ({}, "b'a' has no row, the changelog says b'2'"),
        ({b"a": b"2", b"b": b"1"}, "b'b' has b'1', the changelog says no row"),
    ],
    ids=["behind", "lost", "tombstone lost"],
)
def test_rows_that_are_not_those_of_the_changelog_are_told(rows: dict[bytes, bytes], found: str) -> None:
    assert _plain(rows, 6) == [f"store plain of task 0_1: {found}"]


def test_a_position_beyond_the_changelog_is_told() -> None:
    assert _plain({b"a": b"2"}, 7) == ["store plain of task 0_1 is at offset 7 of its changelog, which ends at 6"]


def test_times_of_rows_are_compared_where_they_have_one() -> None:
    rows = {b"a": (21).to_bytes(8, "big") + b"2"}
    assert store_follows_changelog(StoreCopy(TaskId(0, 1), TIMED, rows, 6), LOG, 6) == [
        "store timed of task 0_1: b'a' has b'2' at 21 ms, the changelog says b'2' at 20 ms"
    ]


# -- Outputs ---------------------------------------------------------------------------------------------------------

OUT = TopicPartition("out", 0)
OTHER = TopicPartition("out", 1)


def _log(*results: tuple[str, str, int], first: int = 0) -> list[tuple[int, OutRecord]]:
    return [(first + n, (key.encode(), value.encode(), time, ())) for n, (key, value, time) in enumerate(results)]


REFERENCE = {OUT: _log(("a", "1", 10), ("b", "1", 11), ("a", "2", 20), ("a", "3", 30))}


def test_the_order_of_different_keys_and_the_offsets_do_not_matter() -> None:
    assert (
        same_by_key(REFERENCE, {OUT: _log(("a", "1", 10), ("a", "2", 20), ("a", "3", 30), ("b", "1", 11), first=5)})
        == []
    )


def test_another_number_of_partitions_does_not_matter() -> None:
    assert (
        same_by_key(REFERENCE, {OUT: _log(("b", "1", 11)), OTHER: _log(("a", "1", 10), ("a", "2", 20), ("a", "3", 30))})
        == []
    )


@pytest.mark.parametrize(
    ("results", "found"),
    [
        (
            [("a", "1", 10), ("a", "3", 30)],
            "topic out, partition 0, offset 1: b'a' = b'2' at 20 ms is missing in front of b'a' = b'3' at 30 ms",
        ),
        (
            [("a", "1", 10), ("a", "2", 20)],
            "topic out, key b'a': b'a' = b'3' at 30 ms is missing; 2 of 3 records are there",
        ),
        (
            [("a", "1", 10), ("a", "1", 10), ("a", "2", 20), ("a", "3", 30)],
            "topic out, partition 0, offset 1: b'a' = b'1' at 10 ms comes twice, instead of b'a' = b'2' at 20 ms",
        ),
        (
            [("a", "1", 10), ("a", "2", 20), ("a", "3", 30), ("a", "3", 30)],
            "topic out, partition 0, offset 3: b'a' = b'3' at 30 ms comes twice",
        ),
        (
            [("a", "1", 10), ("a", "2", 21), ("a", "3", 30)],
            "topic out, partition 0, offset 1: b'a' = b'2' at 21 ms instead of b'a' = b'2' at 20 ms",
        ),
        (
            [("a", "2", 20), ("a", "1", 10), ("a", "3", 30)],
            "topic out, partition 0, offset 0: b'a' = b'2' at 20 ms comes before b'a' = b'1' at 10 ms, which should "
            "come first",
        ),
        (
            [("a", "1", 10), ("a", "2", 20), ("a", "3", 30), ("a", "4", 30)],
            "topic out, partition 0, offset 3: b'a' = b'4' at 30 ms should not be there",
        ),
    ],
    ids=["lost", "lost at the end", "twice", "twice at the end", "other time", "other order", "one too many"],
)
def test_the_first_difference_of_a_key_is_told(results: list[tuple[str, str, int]], found: str) -> None:
    reference = {OUT: [record for record in REFERENCE[OUT] if record[1][0] == b"a"]}
    assert same_by_key(reference, {OUT: _log(*results)}) == [found]


def test_records_of_one_key_in_several_partitions_have_no_order() -> None:
    scattered = {OUT: _log(("a", "3", 30)), OTHER: _log(("a", "2", 20), ("a", "1", 10), ("b", "1", 11))}
    assert same_by_key(REFERENCE, scattered) == []
    scattered[OUT] = []
    scattered[TopicPartition("out", 2)] = _log(("a", "1", 10))
    assert same_by_key(REFERENCE, scattered) == [
        "topic out, partition 2, offset 0: b'a' = b'1' at 10 ms comes twice",
        "topic out, key b'a': b'a' = b'3' at 30 ms is missing",
    ]


@pytest.mark.parametrize("name", ["counter", "transfer", "windows", "sessions", "suppress", "deduplicate", "punctuate"])
def test_runs_with_and_without_crashes_are_the_same_by_key(name: str) -> None:
    workload = WORKLOADS[name]

    def outputs(*, crashes: bool) -> dict[TopicPartition, list[tuple[int, OutRecord]]]:
        seen = Tasks(workload, 4, inputs=50, crashes=crashes).run()
        return {at: records for at, records in seen.outputs.items() if at.topic in workload.outputs}

    assert same_by_key(outputs(crashes=False), outputs(crashes=True)) == []
