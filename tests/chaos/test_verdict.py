"""The verdict has to see what it is there for: a loss, a repeat, a wrong order, in outputs, changelogs and on disks."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

import pytest

from tests.chaos import verdict
from tests.chaos.faults import Done
from tests.chaos.readback import Row
from tests.chaos.stalls import longest_stall, recoveries
from tests.chaos.stores import Stored

long = Struct(">q").pack


def row(key: str, value: bytes | None, offset: int = 0, timestamp_ms: int = 0, partition: int = 0) -> Row:
    return Row(partition, offset, key.encode(), value, timestamp_ms)


def counts(values: Sequence[int]) -> list[Row]:
    return [row("a", long(value), offset) for offset, value in enumerate(values)]


def test_counts_from_one_to_the_number_of_inputs_are_exact() -> None:
    tally = verdict.check_counts(counts([1, 2, 3]), {b"a": 3})
    assert tally.exact
    assert tally.records == 3


@pytest.mark.parametrize(
    ("values", "lost", "duplicated"),
    [([1, 3], 1, 0), ([1, 2], 1, 0), ([], 3, 0), ([1, 2, 2, 3], 0, 1), ([1, 2, 3, 4], 0, 1), ([1, 2, 3, 1], 0, 1)],
)
def test_a_gap_is_a_loss_and_a_repeat_a_duplicate(values: list[int], lost: int, duplicated: int) -> None:
    tally = verdict.check_counts(counts(values), {b"a": 3})
    assert (tally.lost, tally.duplicated) == (lost, duplicated)
    assert not tally.exact


def test_counts_out_of_order_are_not_exact() -> None:
    tally = verdict.check_counts(counts([2, 1, 3]), {b"a": 3})
    assert (tally.lost, tally.duplicated, tally.exact) == (0, 0, False)


def test_counts_of_a_key_that_was_never_put_in_are_too_many() -> None:
    assert verdict.check_counts(counts([1]), {}).duplicated == 1


def test_the_ledger_has_every_input_once_and_in_order() -> None:
    inputs = [row("a", b"x", 0), row("b", b"y", 2), row("a", b"z", 3)]
    lines = [row(r.key.decode(), b"0:%d:%s" % (r.offset, r.value or b""), n) for n, r in enumerate(inputs)]
    assert verdict.check_ledger(lines, inputs).exact
    assert verdict.check_ledger(lines[:2], inputs).lost == 1
    assert verdict.check_ledger([*lines, lines[0]], inputs).duplicated == 1
    assert not verdict.check_ledger(lines[::-1], inputs).exact


def test_windows_take_records_until_the_grace_is_over() -> None:
    inputs = [row("a", b"", n, ms) for n, ms in enumerate([0, 4_999, 5_999, 4_000, 6_000, 4_000])]
    assert verdict.named_windows(verdict.count_windows(inputs)) == {b"a@0": 3, b"a@5000": 2}


def test_words_are_counted_one_by_one() -> None:
    assert verdict.count_words([row("k", b"x y x"), row("k", b"y")]) == {b"x": 2, b"y": 2}


def test_a_table_that_differs_from_the_recount_is_named() -> None:
    assert list(verdict.check_table("counts", {b"a": 1}, {b"a": 1})) == []
    assert "b'a' is 1, recounted 2" in next(verdict.check_table("counts", {b"a": 1}, {b"a": 2}))
    assert "b'b' is None, recounted 1" in next(verdict.check_table("counts", {}, {b"b": 1}))


def test_the_last_record_of_a_key_makes_the_table() -> None:
    assert verdict.table([row("a", long(1)), row("b", long(1)), row("a", long(2)), row("b", None)]) == {b"a": 2}


class TestDisks:
    changelog = (row("a", long(1), 0), row("b", long(1), 1), row("a", long(2), 3))

    def check(self, position: int, **rows: int) -> list[str]:
        held = {key.encode(): long(value) for key, value in rows.items()}
        store = Stored("w", "counts", 0, position, held)
        return list(verdict.check_disks([store], {"counts": self.changelog}))

    def test_a_store_at_the_end_is_the_changelog(self) -> None:
        assert self.check(5, a=2, b=1) == []

    def test_a_store_that_differs_is_named(self) -> None:
        assert "its changelog says" in self.check(5, a=1, b=1)[0]
        assert "its changelog says" in self.check(5, a=2)[0]
        assert "does not have" in self.check(5, a=2, b=1, c=1)[0]

    def test_a_store_behind_is_compared_as_far_as_the_changelog_tells(self) -> None:
        (nobody,) = self.check(2, a=1, b=1)
        assert "nobody has store counts of partition 0" in nobody
        assert len(self.check(2, a=1, b=7)) == 2

    def test_somebody_has_to_have_every_partition(self) -> None:
        assert "nobody has" in next(verdict.check_disks([], {"counts": self.changelog}))


def test_a_cluster_that_lost_what_it_acknowledged_is_no_proof() -> None:
    inputs = {"events": [row("a", b"1"), row("a", b"2")]}
    assert list(verdict.check_inputs(inputs, {"events": {"1", "2"}})) == []
    assert "lost 1 acknowledged" in next(verdict.check_inputs(inputs, {"events": {"1", "3"}}))
    twice = {"events": [row("a", b"1"), row("a", b"1")]}
    assert "twice" in next(verdict.check_inputs(twice, {"events": {"1"}}))


OUTPUTS = [row("a", b"", n, ms) for n, ms in enumerate([0, 100, 5_100, 5_200])]
FAULTS = [Done("kill: worker", 50, 2_000), Done("cut: network", 3_000, 4_000), Done("late: worker", 6_000, 7_000)]


def test_the_longest_stall_names_what_was_broken_in_it() -> None:
    stall = longest_stall(OUTPUTS, FAULTS)
    assert (stall.began_ms, stall.length_ms) == (100, 5_000)
    assert stall.faults == ("kill: worker", "cut: network")


def test_recovery_is_over_when_every_partition_has_output() -> None:
    other = [row("b", b"", n, ms, partition=1) for n, ms in enumerate([0, 2_100, 4_050, 5_300])]
    found = recoveries([*OUTPUTS, *other], [*FAULTS, Done("cut: network", 5_100, 5_120)])
    assert {kind: (r.worst_ms, r.alone) for kind, r in found.items()} == {
        "kill: worker": (3_100, 0),
        "cut: network": (1_100, 2),
    }
