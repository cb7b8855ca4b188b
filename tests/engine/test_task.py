"""The task as a value machine: what goes in, what comes out, and what never happens."""

from __future__ import annotations

import struct
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlib.engine.inputs import Metadata, decode_metadata, encode_metadata
from streamlib.engine.task import Task
from streamlib.errors import ProcessingError, SerializationError, StateStoreError
from streamlib.records import OffsetAndMetadata, TaskId, TopicPartition
from streamlib.state.memory import InMemoryBackend
from streamlib.topology import operators as op
from streamlib.topology.topology import Topology
from tests.engine.support import (
    INPUT,
    LONG,
    OUTPUT,
    TEXT,
    Batch,
    Clock,
    Fetched,
    batch,
    build,
    markers,
    outputs,
    pairs,
    plan_of,
    processor,
    sink,
    source,
    task_of,
    timestamped,
)

OTHER = TopicPartition("other", 0)
CHANGELOG = TopicPartition("app-counts-changelog", 0)


def copy() -> Topology:
    return build([source(), sink("source")])


def two_inputs() -> Topology:
    return build([source("source", "in", "other"), sink("source")])


def counter() -> Topology:
    nodes = [
        source(),
        processor("count", op.StreamCount("counts"), "source", "counts"),
        processor("stream", op.TableToStream(), "count"),
        sink("stream", value=LONG),
    ]
    return build(nodes, [timestamped("counts")])


def started(topology: Topology, counts: dict[str, int] | None = None, **options: Any) -> Task:
    plan = plan_of(topology, **{"other": 1, **(counts or {})})
    task = Task(plan, TaskId(0, 0), InMemoryBackend(), **{"now_ms": Clock(), "max_task_idle_ms": -1, **options})
    task.start({}, dict.fromkeys(task.inputs, 0))
    return task


def commit(task: Task, end: int | None = None) -> dict[TopicPartition, OffsetAndMetadata]:
    sealed = task.seal()
    task.commit({} if end is None else {CHANGELOG: end})
    return sealed.offsets


# -- Positions -------------------------------------------------------------------------------------------------------


def test_offsets_are_of_the_next_record_not_processed() -> None:
    task = started(copy())
    task.enqueue(batch(INPUT, 5, ("a", "1", 10), ("a", "2", 20), ("a", "3", 15)))
    assert task.process(2) == 2
    assert task.offsets() == {INPUT: OffsetAndMetadata(7, encode_metadata(Metadata(20)))}
    assert task.positions() == {INPUT: 7}


def test_offsets_move_past_control_markers_once_all_before_them_is_processed() -> None:
    task = started(copy())
    task.enqueue(batch(INPUT, 0, ("a", "1", 10)))
    task.enqueue(markers(INPUT, 3))
    assert task.offsets() == {}
    task.process(1)
    assert task.offsets()[INPUT].offset == 3


def test_markers_alone_move_the_offset() -> None:
    task = started(copy())
    task.enqueue(markers(INPUT, 4))
    assert [task.dirty, commit(task)[INPUT].offset, task.dirty] == [True, 4, False]
    assert task.offsets() == {}


def test_records_before_the_position_are_not_processed_again() -> None:
    plan = plan_of(copy())
    task = Task(plan, TaskId(0, 0), InMemoryBackend(), now_ms=Clock())
    task.start({INPUT: OffsetAndMetadata(2)}, {})
    task.enqueue(batch(INPUT, 0, ("a", "0", 0), ("a", "1", 0), ("a", "2", 0)))
    task.process(10)
    assert pairs(task) == [(b"a", b"2")]


def test_a_committed_offset_wins_over_the_reset_one() -> None:
    task = Task(plan_of(two_inputs(), other=1), TaskId(0, 0), InMemoryBackend(), now_ms=Clock())
    task.start({INPUT: OffsetAndMetadata(7)}, {OTHER: 3})
    assert task.positions() == {INPUT: 7, OTHER: 3}


def test_buffered_bytes_are_those_of_batches_not_finished() -> None:
    task = started(copy())
    task.enqueue(batch(INPUT, 0, ("a", "1", 0), ("a", "2", 0)))
    task.enqueue(batch(INPUT, 2, ("a", "3", 0)))
    assert task.buffered_bytes == task.buffered_bytes_of(INPUT) == 21 + 11
    task.process(2)
    assert task.buffered_bytes == 11


# -- Order and time --------------------------------------------------------------------------------------------------


def test_the_oldest_record_goes_first_across_inputs() -> None:
    task = started(two_inputs())
    task.enqueue(batch(INPUT, 0, ("i", "1", 1), ("i", "5", 5), ("i", "3", 3)))
    task.enqueue(batch(OTHER, 0, ("o", "2", 2), ("o", "4", 4), ("o", "9", 9)))
    assert task.process(100) == 6
    assert [value for _, value in pairs(task)] == [b"1", b"2", b"4", b"5", b"3", b"9"]


@given(st.lists(st.integers(0, 20), max_size=20), st.lists(st.integers(0, 20), max_size=20), st.integers(1, 7))
def test_slices_do_not_change_the_order(left: list[int], right: list[int], size: int) -> None:
    def run(slice_records: int) -> list[tuple[bytes | None, bytes | None]]:
        task = started(two_inputs())
        task.enqueue(batch(INPUT, 0, *(("i", str(n), t) for n, t in enumerate(left))))
        task.enqueue(batch(OTHER, 0, *(("o", str(n), t) for n, t in enumerate(right))))
        result = []
        while task.process(slice_records):
            result += pairs(task)
        return result

    assert run(size) == run(1000)


class Slice:
    """Over after so many records; to be told of each `stride`."""

    def __init__(self, records: int, stride: int) -> None:
        self.records = records
        self.left = self.stride = stride

    @property
    def over(self) -> bool:
        return self.records <= 0

    def passed(self, records: int) -> bool:
        assert records <= self.left
        self.records -= records
        self.left -= records
        if self.left == 0:
            self.left = self.stride
        return self.over


@pytest.mark.parametrize(("records", "stride", "processed"), [(3, 1, 3), (3, 2, 4), (4, 4, 4), (10, 3, 10)])
def test_a_task_ends_with_its_slice(records: int, stride: int, processed: int) -> None:
    task = started(copy())
    task.enqueue(batch(INPUT, 0, *(("a", str(n), 0) for n in range(7))))
    task.enqueue(batch(INPUT, 7, *(("a", str(n), 0) for n in range(3))))
    assert task.process(100, Slice(records, stride)) == processed


def test_a_slice_is_told_of_records_of_inputs_in_turn() -> None:
    task = started(two_inputs())
    task.enqueue(batch(INPUT, 0, *(("i", str(n), 2 * n) for n in range(50))))
    task.enqueue(batch(OTHER, 0, *(("o", str(n), 2 * n + 1) for n in range(50))))
    assert task.process(100, Slice(10, 4)) == 10


def test_stream_time_is_the_highest_timestamp_and_survives_a_restart() -> None:
    task = started(two_inputs())
    task.enqueue(batch(INPUT, 0, ("a", "1", 70), ("a", "2", 50)))
    task.enqueue(batch(OTHER, 0, ("a", "1", 60)))
    task.process(10)
    assert task.stream_time == 70
    offsets = task.offsets()
    again = Task(plan_of(two_inputs(), other=1), TaskId(0, 0), InMemoryBackend(), now_ms=Clock())
    again.start(offsets, {})
    assert again.stream_time == 70
    assert decode_metadata(offsets[OTHER].metadata) == Metadata(60)


@pytest.mark.parametrize("metadata", ["", "from somebody else", "AAAA", "AwAAAAAAAAAB"])
def test_metadata_of_others_tells_no_time(metadata: str) -> None:
    assert decode_metadata(metadata) == Metadata()


def test_partition_time_is_written_as_kafka_streams_does() -> None:
    # TopicPartitionMetadata: version 1, then the time as a long, base64.
    assert encode_metadata(Metadata(1)) == "AQAAAAAAAAAB"
    assert decode_metadata("AgAAAAAAAAABAAAAAA==") == Metadata(1)


def test_extractors_see_the_record_and_the_partition_time() -> None:
    seen: list[tuple[Any, ...]] = []

    def extractor(record: Any, partition_time: int) -> int:
        seen.append((record.topic, record.partition, record.offset, record.key, record.value, partition_time))
        return int(record.value)

    task = started(build([source(timestamp_extractor=extractor), sink("source")]))
    task.enqueue(batch(INPUT, 0, ("a", "7", 1), ("b", "-1", 1), ("c", "3", 1)))
    assert task.process(10) == 3
    assert [(key, timestamp) for key, _, timestamp, _ in outputs(task)] == [(b"a", 7), (b"c", 3)]
    assert seen == [("in", 0, 0, "a", "7", -1), ("in", 0, 1, "b", "-1", 7), ("in", 0, 2, "c", "3", 7)]
    assert task.dropped == 1
    assert task.offsets()[INPUT].offset == 3


# -- Waiting for empty inputs (KIP-695) ------------------------------------------------------------------------------


def test_an_input_the_broker_was_not_asked_about_is_waited_for() -> None:
    task = started(two_inputs(), max_task_idle_ms=0)
    task.enqueue(batch(INPUT, 0, ("a", "1", 1)))
    assert not task.ready(0)
    assert task.process(10) == 0
    task.learn_end_offsets({OTHER: 2, INPUT: 1})  # known to have more
    assert not task.ready(0)
    task.enqueue(batch(OTHER, 0, ("b", "0", 0), ("b", "2", 2)))
    assert task.process(10) == 3
    assert [value for _, value in pairs(task)] == [b"0", b"1", b"2"]


def test_an_input_that_is_known_to_be_at_its_end_is_not_waited_for() -> None:
    task = started(two_inputs(), max_task_idle_ms=0)
    task.enqueue(batch(INPUT, 0, ("a", "1", 1)))
    task.learn_end_offsets({OTHER: 0})
    assert task.ready(0)
    assert task.process(10) == 1


def test_an_input_at_its_end_is_waited_for_as_long_as_asked() -> None:
    clock = Clock()
    task = started(two_inputs(), max_task_idle_ms=100, now_ms=clock)
    task.enqueue(batch(INPUT, 0, ("a", "1", 1)))
    task.learn_end_offsets({OTHER: 0})
    assert not task.ready(0)
    clock.now_ms = 99
    assert task.process(10) == 0
    clock.now_ms = 100
    assert task.ready(100)
    assert task.process(10) == 1


def test_with_minus_one_nothing_is_waited_for() -> None:
    task = started(two_inputs(), max_task_idle_ms=-1)
    task.enqueue(batch(INPUT, 0, ("a", "1", 1)))
    assert task.process(10) == 1


def test_a_single_input_is_never_waited_for() -> None:
    task = started(copy(), max_task_idle_ms=0)
    assert not task.ready(0)
    task.enqueue(batch(INPUT, 0, ("a", "1", 1)))
    assert task.ready(0)


# -- Errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (Fetched(1, 5, b"a", b"\xff\xfe"), r"topic in, partition 0, offset 1: the record cannot be decoded"),
        (Fetched(1, 5, b"\xff\xfe", b"a"), r"topic in, partition 0, offset 1: the record cannot be decoded"),
        (Fetched(1, -1, b"a", b"a"), r"topic in, partition 0, offset 1: the record has no valid timestamp \(-1\)"),
    ],
)
def test_a_poisonous_record_stops_the_task_and_stays_unprocessed(record: Fetched, message: str) -> None:
    task = started(copy())
    task.enqueue(Batch(INPUT, 2, [Fetched(0, 5, b"a", b"a"), record]))
    with pytest.raises(SerializationError, match=message) as raised:
        task.process(10)
    assert (raised.value.topic, raised.value.partition, raised.value.offset) == ("in", 0, 1)
    assert task.positions() == {INPUT: 1}


def test_a_failed_task_commits_nothing_until_it_is_rolled_back() -> None:
    task = started(build([source(), processor("it", op.MapValues(lambda v: 1 / 0)), sink("it")]))
    task.enqueue(batch(INPUT, 0, ("a", "1", 0)))
    with pytest.raises(ProcessingError):
        task.process(1)
    for step in (task.seal, task.offsets, lambda: task.process(1), lambda: task.commit({})):
        with pytest.raises(AssertionError):
            step()
    task.rollback()
    task.start({}, {INPUT: 0})
    assert task.positions() == {INPUT: 0}


def test_a_row_over_the_limit_names_store_and_record() -> None:
    operator = op.StreamAggregate("counts", lambda: "", lambda k, v, total: total + v)
    topology = build([source(), processor("sum", operator, "source", "counts")], [timestamped("counts", TEXT)])
    task = started(topology, max_value_bytes=20)
    task.enqueue(batch(INPUT, 0, ("a", "x" * 12, 0), ("a", "y", 0)))
    expected = r"store counts: the value of key b'a'.*processing topic in, partition 0, offset 1"
    with pytest.raises(StateStoreError, match=expected):
        task.process(10)


# -- Commits ---------------------------------------------------------------------------------------------------------


def test_a_commit_writes_stores_and_positions_in_one_write() -> None:
    class Counting(InMemoryBackend):
        writes = 0

        def write(self, changes: Any, positions: Any) -> None:
            self.writes += 1
            super().write(changes, positions)

    backend = Counting()
    task = task_of(counter(), backend)
    task.enqueue(batch(INPUT, 0, ("a", "x", 5), ("b", "x", 6), ("a", "x", 7)))
    task.process(10)
    assert [value for _, value in pairs(task)] == [struct.pack(">q", n) for n in (1, 1, 2)]
    assert task.seal().changelog == {
        CHANGELOG: [(b"a", struct.pack(">q", 2), 7, ()), (b"b", struct.pack(">q", 1), 6, ())]
    }
    assert backend.writes == 0
    task.commit({CHANGELOG: 2})
    assert backend.writes == 1
    assert dict(backend.scan("counts", None, None)) == {b"a": struct.pack(">qq", 7, 2), b"b": struct.pack(">qq", 6, 1)}
    assert backend.positions() == {"counts": 2}
    assert task.restore_positions() == {CHANGELOG: 2}
    assert not task.dirty
    assert task.uncommitted_bytes == 0


def test_what_is_processed_during_a_commit_belongs_to_the_next() -> None:
    backend = InMemoryBackend()
    task = task_of(counter(), backend)
    task.enqueue(batch(INPUT, 0, ("a", "x", 5), ("b", "x", 6), ("a", "x", 7), ("a", "x", 8)))
    task.process(2)
    task.take_outputs()
    first = task.seal()
    assert [task.dirty, task.process(1), task.dirty] == [False, 1, True]
    assert [value for _, value in pairs(task)] == [struct.pack(">q", 2)], "it is made of what is being committed"
    with pytest.raises(AssertionError, match="one commit at a time"):
        task.seal()
    assert first.offsets[INPUT].offset == first.low_water_marks[INPUT] == 2
    assert [key for key, _, _, _ in first.changelog[CHANGELOG]] == [b"a", b"b"]
    task.commit({CHANGELOG: 2})
    assert dict(backend.scan("counts", None, None)) == {b"a": struct.pack(">qq", 5, 1), b"b": struct.pack(">qq", 6, 1)}
    assert task.process(1) == 1
    assert [value for _, value in pairs(task)] == [struct.pack(">q", 3)]
    second = task.seal()
    assert second.offsets[INPUT].offset == 4
    assert second.changelog == {CHANGELOG: [(b"a", struct.pack(">q", 3), 8, ())]}
    task.commit({CHANGELOG: 3})
    assert dict(backend.scan("counts", None, None)) == {b"a": struct.pack(">qq", 8, 3), b"b": struct.pack(">qq", 6, 1)}


def test_a_roll_back_during_a_commit_drops_what_came_after_it_too() -> None:
    backend = InMemoryBackend()
    task = task_of(counter(), backend)
    task.enqueue(batch(INPUT, 0, ("a", "x", 5), ("a", "x", 7)))
    task.process(1)
    task.take_outputs()
    task.seal()
    task.process(1)
    task.rollback()
    with pytest.raises(AssertionError, match="nothing is being committed"):
        task.commit({CHANGELOG: 1})
    task.start({}, {INPUT: 0})
    task.enqueue(batch(INPUT, 0, ("a", "x", 5)))
    task.process(1)
    assert [value for _, value in pairs(task)] == [struct.pack(">q", 1)]
    assert backend.positions() == {}


def test_a_commit_ends_though_the_task_has_failed_meanwhile() -> None:
    """What was sealed before is in the transaction, so it has to be in the stores."""
    fails = processor("it", op.MapValues(lambda v: 1 // (v != "bad")), "source")
    count = processor("count", op.StreamCount("counts"), "it", "counts")
    backend = InMemoryBackend()
    task = task_of(build([source(), fails, count], [timestamped("counts")]), backend)
    task.enqueue(batch(INPUT, 0, ("a", "good", 5), ("a", "bad", 7)))
    task.process(1)
    sealed = task.seal()
    with pytest.raises(ProcessingError):
        task.process(1)
    task.commit({CHANGELOG: 1})
    assert sealed.offsets[INPUT].offset == 1
    assert backend.positions() == {"counts": 1}


def test_what_arrives_during_a_commit_is_not_taken_for_committed() -> None:
    task = started(copy())
    task.enqueue(batch(INPUT, 0, ("a", "1", 0)))
    task.process(1)
    task.take_outputs()
    assert task.seal().offsets[INPUT].offset == 1
    task.enqueue(markers(INPUT, 2))
    task.commit({})
    assert task.offsets()[INPUT].offset == 2


def test_outputs_have_to_be_taken_before_a_commit() -> None:
    task = started(copy())
    task.enqueue(batch(INPUT, 0, ("a", "1", 0)))
    task.process(1)
    with pytest.raises(AssertionError, match="outputs have to be taken"):
        task.seal()


def test_a_changelog_position_never_goes_back() -> None:
    task = task_of(counter())
    for end, ok in ((5, True), (4, False)):
        task.enqueue(batch(INPUT, task.positions()[INPUT], ("a", "x", 5)))
        task.process(1)
        task.take_outputs()
        if ok:
            commit(task, end)
        else:
            with pytest.raises(AssertionError, match="goes back"):
                commit(task, end)


def test_a_change_without_its_changelog_is_not_written() -> None:
    task = task_of(counter())
    task.enqueue(batch(INPUT, 0, ("a", "x", 5)))
    task.process(1)
    task.take_outputs()
    with pytest.raises(AssertionError, match="its changelog did not"):
        commit(task)


def test_rollback_leaves_the_stores_untouched_and_processing_again_gives_the_same() -> None:
    task = task_of(counter())
    task.enqueue(batch(INPUT, 0, ("a", "x", 5)))
    task.process(1)
    task.take_outputs()
    committed = commit(task, 1)
    before = dict(task.backend.scan("counts", None, None))
    results = []
    for _ in range(2):
        task.enqueue(batch(INPUT, 1, ("a", "x", 5), ("b", "x", 5)))
        task.process(10)
        results.append(pairs(task))
        task.rollback()
        assert dict(task.backend.scan("counts", None, None)) == before
        assert task.backend.positions() == {"counts": 1}
        assert task.uncommitted_bytes == task.buffered_bytes == 0
        assert not task.dirty
        task.start(committed, {})
    assert results[0] == results[1]


KEYS = st.sampled_from(["a", "b", "c", "d"])
STEPS = st.lists(st.lists(st.tuples(KEYS, st.just("x"), st.integers(0, 99)), min_size=1, max_size=4), max_size=6)


@given(STEPS, st.data())
def test_restoring_the_changelog_gives_the_store(steps: list[list[tuple[str, str, int]]], data: Any) -> None:
    task = task_of(counter())
    changelog: list[Fetched] = []
    for step in steps:
        task.enqueue(batch(INPUT, task.positions()[INPUT], *step))
        task.process(100)
        task.take_outputs()
        for key, value, timestamp, _ in task.seal().changelog[CHANGELOG]:
            changelog.append(Fetched(len(changelog), timestamp, key, value))
        task.commit({CHANGELOG: len(changelog)})
    restored = task_of(counter(), start=False)
    # In pieces, and some of them again from before the position, as fetches come.
    cut = data.draw(st.integers(0, len(changelog)))
    overlap = data.draw(st.integers(0, cut))
    restored.restore(Batch(CHANGELOG, cut, changelog[:cut]))
    restored.restore(Batch(CHANGELOG, len(changelog), changelog[overlap:]))
    assert dict(restored.backend.scan("counts", None, None)) == dict(task.backend.scan("counts", None, None))
    assert restored.restore_positions() == {CHANGELOG: len(changelog)}
    assert restored.records_restored == len(changelog)


def test_a_tombstone_in_the_changelog_deletes() -> None:
    task = task_of(counter(), start=False)
    assert task.restore_positions() == {CHANGELOG: None}
    task.restore(Batch(CHANGELOG, 2, [Fetched(0, 5, b"a", struct.pack(">q", 1)), Fetched(1, 6, b"a", None)]))
    assert dict(task.backend.scan("counts", None, None)) == {}


def test_restore_continues_at_the_position_another_task_object_left() -> None:
    backend = InMemoryBackend()
    first = task_of(counter(), backend, start=False)
    first.restore(Batch(CHANGELOG, 3, [Fetched(0, 5, b"a", struct.pack(">q", 1))]))
    second = task_of(counter(), backend, start=False)
    assert second.restore_positions() == {CHANGELOG: 3}
    with pytest.raises(AssertionError, match="goes back"):
        second.restore(Batch(CHANGELOG, 2, []))


def test_clearing_a_store_lets_it_be_restored_from_the_start() -> None:
    task = task_of(counter(), start=False)
    task.restore(Batch(CHANGELOG, 30, [Fetched(29, 5, b"a", struct.pack(">q", 1))]))
    task.backend.clear("counts")
    assert task.restore_positions() == {CHANGELOG: None}
    assert task.restore(Batch(CHANGELOG, 1, [Fetched(0, 5, b"b", struct.pack(">q", 1))])) == 1


# -- Outputs ---------------------------------------------------------------------------------------------------------


def test_a_key_goes_to_the_partition_of_its_bytes() -> None:
    task = started(copy(), {"out": 8})
    task.enqueue(batch(INPUT, 0, *((key, "v", 0) for key in ("a", "b", "c", "d") * 2)))
    task.process(100)
    taken = task.take_outputs()
    homes = {key: partition for partition, records in taken.items() for key, _, _, _ in records}
    assert sum(len(records) for records in taken.values()) == 8
    assert all([key for key, *_ in records if homes[key] != p] == [] for p, records in taken.items())
    assert len(set(homes.values())) > 1
    assert task.take_outputs() == {}
    assert task.records_out == 8


def test_records_without_a_key_stick_to_a_partition_for_a_while() -> None:
    task = started(copy(), {"out": 3})
    task.enqueue(batch(INPUT, 0, *((None, str(n), 0) for n in range(300))))
    task.process(1000)
    assert [len(records) for records in task.take_outputs().values()] == [100, 100, 100]


def test_a_partitioner_has_the_last_word_within_bounds() -> None:
    def by_value(topic: str, key: str, value: str, count: int) -> int:
        assert (topic, count) == ("out", 4)
        return int(value)

    task = started(build([source(), sink("source", partitioner=by_value)]), {"out": 4})
    task.enqueue(batch(INPUT, 0, ("a", "3", 0), ("a", "4", 0)))
    task.process(1)
    assert list(task.take_outputs()) == [TopicPartition("out", 3)]
    with pytest.raises(ProcessingError, match="chose partition 4 of out, which has 4"):
        task.process(1)


def test_records_for_a_topic_chosen_at_run_time_wait_until_it_is_known() -> None:
    def choose(key: str, value: str, context: Any) -> str:
        return f"{value}-{context.topic}-{context.offset % 2}"

    task = started(build([source(), sink("source", choose)]))
    task.enqueue(batch(INPUT, 0, *(("a", "x", n) for n in range(4))))
    task.process(10)
    assert task.missing_topics() == {"x-in-0", "x-in-1"}
    assert task.take_outputs() == {}
    assert task.dirty
    assert task.uncommitted_bytes > 0
    task.learn_partitions({"x-in-1": 1})
    assert task.missing_topics() == {"x-in-0"}
    with pytest.raises(AssertionError, match="outputs have to be taken"):
        task.seal()
    task.learn_partitions({"x-in-0": 1})
    taken = task.take_outputs()
    assert [t for _, _, t, _ in taken[TopicPartition("x-in-0", 0)]] == [0, 2]
    assert [t for _, _, t, _ in taken[TopicPartition("x-in-1", 0)]] == [1, 3]


def test_a_sink_topic_whose_partitions_were_not_given_is_learnt_too() -> None:
    task = started(build([source(), sink("source", "elsewhere")]))
    task.enqueue(batch(INPUT, 0, ("a", "x", 1)))
    task.process(1)
    assert task.missing_topics() == {"elsewhere"}
    task.learn_partitions({"elsewhere": 1})
    assert outputs(task, TopicPartition("elsewhere", 0)) == [(b"a", b"x", 1, ())]
    task.seal()
    task.commit({})
    task.rollback()
    task.start({}, {INPUT: 0})
    task.enqueue(batch(INPUT, 0, ("a", "x", 1)))
    task.process(1)
    assert task.missing_topics() == set()


def test_two_sinks_of_one_topic_keep_their_order() -> None:
    nodes = [source(), sink("source", name="one"), processor("up", op.MapValues(str.upper)), sink("up", name="two")]
    task = started(build(nodes))
    task.enqueue(batch(INPUT, 0, ("k", "a", 0), ("k", "b", 0)))
    task.process(10)
    assert [value for _, value in pairs(task)] == [b"a", b"A", b"b", b"B"]


def test_uncommitted_bytes_weigh_overlay_and_outbox() -> None:
    task = task_of(counter())
    task.enqueue(batch(INPUT, 0, ("a", "x", 5), ("a", "x", 5)))
    task.process(10)
    overlay = 1 + 16 + 100
    record = 1 + 8 + 100
    assert task.uncommitted_bytes == overlay + 2 * record
    task.take_outputs()
    assert task.uncommitted_bytes == overlay


# -- Life ------------------------------------------------------------------------------------------------------------


class Witness:
    """Writes down its life; may refuse to end it."""

    def __init__(self, log: list[str], name: str, *, refuse: bool = False) -> None:
        self.log = log
        self.name = name
        self.refuse = refuse

    def init(self, context: Any) -> None:
        self.log.append(f"init {self.name}")

    def process(self, record: Any) -> None:
        self.log.append(f"process {self.name}")

    def close(self) -> None:
        self.log.append(f"close {self.name}")
        if self.refuse:
            raise OSError("no")


def test_processors_are_made_anew_with_each_start_and_closed_with_each_end() -> None:
    log: list[str] = []
    nodes = [source(), *(processor(name, op.Process(partial(Witness, log, name))) for name in ("p", "q"))]
    task = started(build(nodes))
    task.rollback()
    task.start({}, {INPUT: 0})
    task.close()
    assert log == ["init p", "init q", "close p", "close q"] * 2


def test_what_close_raises_is_reported_after_all_is_closed() -> None:
    log: list[str] = []
    nodes = [source(), *(processor(n, op.Process(partial(Witness, log, n, refuse=n == "p"))) for n in ("p", "q"))]
    task = started(build(nodes))
    with pytest.raises(ProcessingError, match="node p: close raised OSError: no"):
        task.close()
    assert log[-2:] == ["close p", "close q"]
    with pytest.raises(AssertionError, match="closed backend"):
        task.backend.write({}, {})
    task.close()


def test_a_task_that_was_never_started_closes() -> None:
    task = task_of(counter(), start=False)
    task.close()


def test_counters() -> None:
    task = task_of(counter())
    task.enqueue(batch(INPUT, 0, ("a", "x", 5), (None, "x", 5)))
    task.process(10)
    task.take_outputs()
    assert (task.records_in, task.records_out, task.dropped, task.stream_time) == (2, 1, 1, 5)
    assert OUTPUT.topic in task._plan.partition_counts


def test_a_starting_point_that_is_not_the_beginning_is_committed_before_anything_comes() -> None:
    """Else, after a crash, "latest" would be further on, and what came in between lost."""
    task = task_of(build([source(), sink("source")]), start=False)
    task.start({}, {INPUT: 100})
    assert task.offsets()[INPUT].offset == 100
