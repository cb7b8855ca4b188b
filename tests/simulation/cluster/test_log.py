"""One partition's log: what is accepted, what readers see, what is removed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlib.errors import ErrorCode
from streamlib.kafka.batches import AbortedTransaction, BatchBuilder, read_batches
from streamlib.records import TopicPartition
from streamlib.simulation.cluster.basics import Refused
from streamlib.simulation.cluster.log import PartitionLog
from tests.simulation.cluster.producing import batch

T0 = TopicPartition("t", 0)
LARGE = 1 << 20
LAST_SEQUENCE = 2**31 - 1
ANN, BOB = 1, 2


def log(*, compacted: bool = False) -> PartitionLog:
    return PartitionLog(T0, compacted=compacted)


def put(target: PartitionLog, *values: str | None, key: str = "k") -> int:
    return target.append(batch(*values, key=key))


def write(target: PartitionLog, producer_id: int, sequence: int, *values: str, epoch: int = 0) -> int:
    """As part of a transaction."""
    return target.append(batch(*values, who=(producer_id, epoch), sequence=sequence, transactional=True))


def refusal(target: PartitionLog, data: bytes, *, begins_at_zero: bool = False) -> ErrorCode:
    end = target.end_offset
    with pytest.raises(Refused) as caught:
        target.append(data, begins_at_zero=begins_at_zero)
    assert target.end_offset == end, "what is refused leaves nothing behind"
    return caught.value.code


def read(target: PartitionLog, offset: int = 0, *, committed: bool = True, step_bytes: int = LARGE) -> Iterator[str]:
    """What a client finds that fetches up to the end, decoded as the product does it."""
    end = target.readable_end(committed=committed)
    while offset < end:
        found = target.read(offset, step_bytes, committed=committed)
        batches = read_batches(T0, found.data, offset, found.aborted)
        assert batches, f"nothing at {offset}, though reading ends at {end}"
        for each in batches:
            yield from ((record.value or b"").decode() for record in each.records())
        offset = batches[-1].next_offset


def values(target: PartitionLog) -> list[str]:
    return [(record.value or b"").decode() for record in target.committed_records()]


# --- offsets


def test_offsets_go_on_from_batch_to_batch() -> None:
    target = log()
    assert (put(target, "a", "b"), put(target, "c")) == (0, 2)
    assert (target.start_offset, target.last_stable_offset, target.end_offset) == (0, 3, 3)
    assert [record.offset for record in target.committed_records()] == [0, 1, 2]


def test_caller_may_use_its_buffer_again() -> None:
    target, buffer = log(), bytearray(batch("a"))
    target.append(buffer)
    buffer[-2:] = b"??"
    assert list(read(target)) == ["a"]


# --- producers


def test_batch_that_is_sent_again_is_not_written_again() -> None:
    target = log()
    sent = [batch(str(n), who=(ANN, 0), sequence=n) for n in range(6)]
    assert [target.append(each) for each in sent] == [0, 1, 2, 3, 4, 5]
    assert [target.append(each) for each in sent[1:]] == [1, 2, 3, 4, 5]
    assert target.end_offset == 6


def test_only_the_last_five_batches_are_known() -> None:
    target = log()
    sent = [batch(str(n), who=(ANN, 0), sequence=n) for n in range(6)]
    for each in sent:
        target.append(each)
    assert refusal(target, sent[0]) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_batch_of_another_length_is_no_duplicate() -> None:
    target = log()
    target.append(batch("a", "b", who=(ANN, 0), sequence=0))
    assert refusal(target, batch("a", who=(ANN, 0), sequence=0)) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


@pytest.mark.parametrize("sequence", [0, 2, 5])
def test_gap_is_refused(sequence: int) -> None:
    target = log()
    target.append(batch("a", who=(ANN, 0), sequence=0))
    data = batch("b", "c", who=(ANN, 0), sequence=sequence)
    assert refusal(target, data) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert target.append(batch("b", who=(ANN, 0), sequence=1)) == 1


def test_sequence_goes_on_at_zero_after_the_last_one() -> None:
    target = log()
    assert target.append(batch("a", "b", "c", who=(ANN, 0), sequence=LAST_SEQUENCE - 1)) == 0
    assert target.append(batch("a", "b", "c", who=(ANN, 0), sequence=LAST_SEQUENCE - 1)) == 0
    assert target.append(batch("d", who=(ANN, 0), sequence=1)) == 3


def test_last_sequence_is_followed_by_zero() -> None:
    target = log()
    target.append(batch("a", who=(ANN, 0), sequence=LAST_SEQUENCE))
    assert target.append(batch("b", who=(ANN, 0), sequence=0)) == 1


def test_unknown_producer_may_begin_anywhere_unless_it_has_to_at_zero() -> None:
    target = log()
    data = batch("a", who=(ANN, 0), sequence=5, transactional=True)
    assert refusal(target, data, begins_at_zero=True) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert target.append(data) == 0


def test_new_epoch_begins_at_zero_and_ends_the_old_one() -> None:
    target = log()
    target.append(batch("a", who=(ANN, 3), sequence=0))
    skipping = batch("b", who=(ANN, 4), sequence=1)
    assert refusal(target, skipping) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert target.append(batch("b", who=(ANN, 4), sequence=0)) == 1
    late = batch("c", who=(ANN, 3), sequence=1)
    assert refusal(target, late) == ErrorCode.INVALID_PRODUCER_EPOCH
    again = batch("a", who=(ANN, 3), sequence=0)
    assert refusal(target, again) == ErrorCode.INVALID_PRODUCER_EPOCH


def test_plain_write_is_refused_while_the_producer_is_in_a_transaction() -> None:
    target = log()
    write(target, ANN, 0, "a")
    assert refusal(target, batch("b", who=(ANN, 0), sequence=1)) == ErrorCode.INVALID_TXN_STATE
    assert write(target, ANN, 1, "b") == 1


# --- what is no good


def test_damaged_batch_is_refused() -> None:
    data = bytearray(batch("a"))
    data[-1] ^= 1
    assert refusal(log(), bytes(data)) == ErrorCode.CORRUPT_MESSAGE


def test_batch_that_is_too_large_is_refused() -> None:
    target = PartitionLog(T0, max_batch_bytes=100)
    put(target, "a")
    assert refusal(target, batch("a" * 100)) == ErrorCode.MESSAGE_TOO_LARGE


def test_compacted_topic_needs_keys() -> None:
    builder = BatchBuilder(T0, 0, False, LARGE, LARGE)
    builder.extend([(None, b"v", 0, ())])
    data = bytes(builder.build(-1, -1, -1))
    assert refusal(log(compacted=True), data) == ErrorCode.INVALID_RECORD
    assert log().append(data) == 0


# --- transactions


def test_open_transaction_holds_back_what_comes_after_it() -> None:
    target = log()
    put(target, "before")
    write(target, ANN, 0, "mine")
    put(target, "after")
    assert (target.last_stable_offset, target.end_offset) == (1, 3)
    assert list(read(target)) == values(target) == ["before"]
    assert list(read(target, committed=False)) == ["before", "mine", "after"]
    target.append_marker(ANN, 0, True, 9)
    assert (target.last_stable_offset, target.end_offset) == (4, 4)
    assert list(read(target)) == values(target) == ["before", "mine", "after"]


def test_aborted_transaction_is_named_to_readers() -> None:
    target = log()
    write(target, ANN, 0, "mine")
    put(target, "other")
    target.append_marker(ANN, 0, False, 9)
    assert target.read(0, LARGE, committed=True).aborted == [AbortedTransaction(0, ANN)]
    assert target.read(0, LARGE, committed=False).aborted == []
    assert list(read(target)) == values(target) == ["other"]


def test_only_aborted_transactions_that_overlap_are_named() -> None:
    target = log()
    write(target, ANN, 0, "a")  # 0
    target.append_marker(ANN, 0, False, 9)  # 1
    write(target, BOB, 0, "b")  # 2
    put(target, "c")  # 3
    target.append_marker(BOB, 0, False, 9)  # 4
    assert target.read(2, LARGE, committed=True).aborted == [AbortedTransaction(2, BOB)]
    assert target.read(0, 1, committed=True).aborted == [AbortedTransaction(0, ANN)]
    assert target.read(3, LARGE, committed=True).aborted == [AbortedTransaction(2, BOB)]
    put(target, "d")
    assert target.read(5, LARGE, committed=True).aborted == []


def test_oldest_open_transaction_decides() -> None:
    target = log()
    write(target, ANN, 0, "a")
    write(target, BOB, 0, "b")
    assert target.open_transactions == {ANN: 0, BOB: 1}
    target.append_marker(ANN, 0, True, 9)
    assert target.last_stable_offset == 1
    write(target, ANN, 1, "a")
    target.append_marker(BOB, 0, True, 9)
    assert target.last_stable_offset == 3


def test_marker_of_a_new_epoch_shuts_out_the_old_one() -> None:
    target = log()
    write(target, ANN, 0, "a")
    target.append_marker(ANN, 1, True, 9)
    late = batch("late", who=(ANN, 0), sequence=1, transactional=True)
    assert refusal(target, late) == ErrorCode.INVALID_PRODUCER_EPOCH
    skipping = batch("b", who=(ANN, 1), sequence=1, transactional=True)
    assert refusal(target, skipping) == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert write(target, ANN, 0, "b", epoch=1) == 2


def test_marker_of_the_same_epoch_lets_sequences_go_on() -> None:
    target = log()
    write(target, ANN, 0, "a")
    target.append_marker(ANN, 0, True, 9)
    assert write(target, ANN, 0, "a") == 0, "sent again"
    assert target.last_stable_offset == 2
    assert write(target, ANN, 1, "b") == 2


def test_marker_where_nothing_was_written_shuts_out_the_old_epoch_all_the_same() -> None:
    target = log()
    target.append_marker(ANN, 1, False, 9)
    late = batch("late", who=(ANN, 0), sequence=0, transactional=True)
    assert refusal(target, late) == ErrorCode.INVALID_PRODUCER_EPOCH
    assert list(read(target)) == values(target) == []


def test_marker_of_an_old_epoch_ends_nothing() -> None:
    target = log()
    write(target, ANN, 0, "a", epoch=2)
    with pytest.raises(Refused) as caught:
        target.append_marker(ANN, 1, True, 9)
    assert caught.value.code == ErrorCode.INVALID_PRODUCER_EPOCH
    assert target.has_open_transaction(ANN)
    assert target.has_open_transaction(ANN, 2)
    assert not target.has_open_transaction(ANN, 1)
    assert not target.has_open_transaction(BOB)


# --- reading


def test_reader_gets_whole_batches_and_at_least_one() -> None:
    target = log()
    first, second = batch("a" * 100, "b"), batch("c")
    target.append(first)
    target.append(second)
    assert len(target.read(0, 1, committed=True).data) == len(first)
    assert len(target.read(0, len(first) + len(second) - 1, committed=True).data) == len(first)
    assert len(target.read(0, len(first) + len(second), committed=True).data) == len(first) + len(second)
    assert len(target.read(1, 1, committed=True).data) == len(first), "the batch that holds the offset"
    assert target.read(0, 1, committed=True, at_least_one=False).data == b""


def test_reading_at_the_end_gives_nothing() -> None:
    target = log()
    put(target, "a")
    found = target.read(1, LARGE, committed=True)
    assert found == (b"", [], 0, 1, 1)


@pytest.mark.parametrize("offset", [-1, 1, 5])
def test_reading_outside_of_the_log_is_refused(offset: int) -> None:
    target = log()
    for value in "abcd":
        put(target, value)
    target.delete_before(2)
    with pytest.raises(Refused) as caught:
        target.read(offset, LARGE, committed=True)
    assert caught.value.code == ErrorCode.OFFSET_OUT_OF_RANGE


# --- removing


def test_deleted_records_are_gone() -> None:
    target = log()
    put(target, "a", "b", "c")
    put(target, "d")
    assert target.delete_before(2) == 2
    assert list(read(target, 2)) == values(target) == ["c", "d"]
    assert target.delete_before(1) == 2, "a start does not go back"
    assert target.delete_before(4) == 4
    assert values(target) == []
    assert put(target, "e") == 4


@pytest.mark.parametrize("offset", [-1, 2])
def test_what_is_not_there_cannot_be_deleted(offset: int) -> None:
    target = log()
    put(target, "a")
    with pytest.raises(Refused) as caught:
        target.delete_before(offset)
    assert caught.value.code == ErrorCode.OFFSET_OUT_OF_RANGE


def test_producers_are_known_after_their_records_are_deleted() -> None:
    target = log()
    target.append(batch("a", who=(ANN, 0), sequence=0))
    target.delete_before(1)
    assert target.append(batch("b", who=(ANN, 0), sequence=1)) == 1


def test_start_within_an_open_transaction_shows_nothing_of_it() -> None:
    target = log()
    write(target, ANN, 0, "a", "b", "c")
    target.delete_before(1)
    assert target.last_stable_offset == 1
    assert target.read(1, LARGE, committed=True).data == b""
    assert values(target) == []


def test_compaction_keeps_the_newest_of_each_key_where_it_was() -> None:
    target = log(compacted=True)
    for key, value in [("x", "1"), ("y", "1"), ("x", "2"), ("z", "1"), ("y", "2"), ("end", "1")]:
        put(target, value, key=key)
    target.compact()
    assert [(r.offset, r.key, r.value) for r in target.committed_records()] == [
        (2, b"x", b"2"),
        (3, b"z", b"1"),
        (4, b"y", b"2"),
        (5, b"end", b"1"),
    ]
    assert (target.start_offset, target.end_offset) == (0, 6)
    assert list(read(target)) == ["2", "1", "2", "1"]


def test_compaction_thins_batches() -> None:
    target = log(compacted=True)
    put(target, "1", "2", "3", key="x")
    put(target, "end", key="end")
    target.compact()
    assert [record.offset for record in target.committed_records()] == [2, 3]
    assert list(read(target, 1)) == ["3", "end"]


def test_compaction_leaves_the_last_batch_below_the_stable_offset_alone() -> None:
    target = log(compacted=True)
    put(target, "1", key="x")
    put(target, "2", key="x")
    put(target, None, key="x")
    write(target, ANN, 0, "open")
    target.compact(drop_tombstones=True)
    assert [(r.offset, r.value) for r in target.committed_records()] == [(1, b"2"), (2, None)]
    assert list(read(target, committed=False)) == ["2", "", "open"]


def test_tombstones_go_only_when_their_time_is_over() -> None:
    target = log(compacted=True)
    put(target, "1", key="x")
    put(target, None, key="x")
    put(target, "end", key="end")
    target.compact()
    assert [record.offset for record in target.committed_records()] == [1, 2]
    target.compact(drop_tombstones=True)
    assert [record.offset for record in target.committed_records()] == [2]


def test_aborted_records_do_not_count_in_compaction() -> None:
    target = log(compacted=True)
    put(target, "kept")
    write(target, ANN, 0, "aborted")
    target.append_marker(ANN, 0, False, 9)
    put(target, "end", key="end")
    target.compact()
    assert list(read(target)) == values(target) == ["kept", "end"]
    assert target.read(0, LARGE, committed=True).aborted == []


def test_abort_that_reaches_beyond_what_is_compacted_is_still_named() -> None:
    target = log(compacted=True)
    put(target, "kept")  # 0
    write(target, ANN, 0, "aborted")  # 1
    write(target, BOB, 0, "open")  # 2
    write(target, ANN, 1, "aborted")  # 3
    target.append_marker(ANN, 0, False, 9)  # 4
    target.compact()
    target.append_marker(BOB, 0, True, 9)
    assert list(read(target)) == values(target) == ["kept", "open"]


# --- waiting


def test_watchers_hear_of_records_markers_and_deletions_until_they_go() -> None:
    target, heard = log(), []

    def hear() -> None:
        heard.append(target.last_stable_offset)

    target.watch(hear)
    put(target, "a")
    write(target, ANN, 0, "b")
    target.append_marker(ANN, 0, True, 9)
    target.delete_before(1)
    target.unwatch(hear)
    put(target, "c")
    assert heard == [1, 1, 3, 3]


def test_watcher_that_is_sent_away_by_another_hears_nothing() -> None:
    target, heard = log(), []

    def second() -> None:
        heard.append("second")

    def first() -> None:
        heard.append("first")
        target.unwatch(second)

    target.watch(first)
    target.watch(second)
    target.wake()
    assert heard == ["first"]


# --- at random


class Step(NamedTuple):
    """What one producer does next."""

    producer: int
    what: str
    records: int


PRODUCERS = (1, 2, 3)
DOINGS = ["write", "write", "write", "commit", "abort", "again", "delete"]
STEPS = st.lists(
    st.builds(Step, st.sampled_from(PRODUCERS), st.sampled_from(DOINGS), st.integers(1, 3)),
    max_size=40,
)


class Producers:
    """Transactions of three producers that write to one log, and what has to be seen of them."""

    def __init__(self, target: PartitionLog, *, new_epochs: bool) -> None:
        self._log = target
        self._new_epochs = new_epochs
        self._epochs = dict.fromkeys(PRODUCERS, 0)
        self._sequences = dict.fromkeys(PRODUCERS, 0)
        self._last: dict[int, tuple[bytes, int]] = {}  # batch of each producer, and where it is
        self._open: dict[int, dict[int, str]] = {}  # by producer, by offset
        self._committed: dict[int, str] = {}  # by offset
        self._numbers = itertools.count()

    def take(self, step: Step) -> None:
        match step.what:
            case "write":
                self._write(step.producer, step.records)
            case "commit" | "abort" if step.producer in self._open:
                self._end(step.producer, commit=step.what == "commit")
            case "again" if step.producer in self._last:
                data, offset = self._last[step.producer]
                assert self._log.append(data) == offset
            case "delete":
                self._log.delete_before(max(self._log.start_offset, self._log.last_stable_offset // 4))

    @property
    def stable_offset(self) -> int:
        """Where committed reading has to end."""
        first = min((min(written) for written in self._open.values()), default=self._log.end_offset)
        return max(first, self._log.start_offset)

    def visible(self) -> list[str]:
        """What has to be seen."""
        start, end = self._log.start_offset, self.stable_offset
        return [value for offset, value in sorted(self._committed.items()) if start <= offset < end]

    def _write(self, producer: int, count: int) -> None:
        texts = [f"{producer}:{next(self._numbers)}" for _ in range(count)]
        who, sequence = (producer, self._epochs[producer]), self._sequences[producer]
        data = batch(*texts, who=who, sequence=sequence, transactional=True, key=str(count))
        offset = self._log.append(data)
        self._last[producer] = (data, offset)
        self._sequences[producer] += count
        self._open.setdefault(producer, {}).update(enumerate(texts, offset))

    def _end(self, producer: int, *, commit: bool) -> None:
        if self._new_epochs:
            self._epochs[producer] += 1
            self._sequences[producer] = 0
            self._last.pop(producer)
        self._log.append_marker(producer, self._epochs[producer], commit, 0)
        ended = self._open.pop(producer)
        if commit:
            self._committed |= ended


@given(STEPS, st.booleans(), st.sampled_from([1, 150, LARGE]))
def test_committed_reading_gives_exactly_the_committed_transactions(
    steps: list[Step], new_epochs: bool, step_bytes: int
) -> None:
    target = log()
    producers = Producers(target, new_epochs=new_epochs)
    for step in steps:
        producers.take(step)
        assert target.last_stable_offset == producers.stable_offset
    assert values(target) == producers.visible()
    assert list(read(target, target.start_offset, step_bytes=step_bytes)) == producers.visible()


@given(STEPS, st.booleans(), st.data())
def test_compaction_changes_no_newest_value(steps: list[Step], new_epochs: bool, data: st.DataObject) -> None:
    target = log(compacted=True)
    producers = Producers(target, new_epochs=new_epochs)
    for step in steps:
        producers.take(step)
        before = newest(target)
        if data.draw(st.booleans(), label="compact"):
            target.compact()
        assert newest(target) == before
    assert list(read(target, target.start_offset)) == values(target)


def newest(target: PartitionLog) -> dict[bytes | None, tuple[int, bytes | None]]:
    return {record.key: (record.offset, record.value) for record in target.committed_records()}
