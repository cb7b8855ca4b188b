"""One lane: what is found of planted faults, whatever the log has kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlib.verify.bindings import AS_A_SET, LAST, NOTHING
from streamlib.verify.comparing import POSSIBLE, Comparison, Kept, Trait, compare
from streamlib.verify.results import Result
from tests.verify.support import results


def told(comparison: Comparison) -> list[tuple[str, int | None]]:
    """Kinds of what is wrong, and the offsets of what is there."""
    return [
        (each.kind, None if each.found is None or each.found.place is None else each.found.place.offset)
        for each in comparison.differences
    ]


def moved(expected: list[Result], *order: int) -> list[Result]:
    """The same results in another order."""
    return [expected[n] for n in order]


def test_the_same_records_hold_record_by_record() -> None:
    comparison = compare([results("1", "2")], results("1", "2", start=10))
    assert comparison == Comparison((Trait.IN_ORDER,))
    assert comparison.name == "record by record"


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        (("1", "2", "2", "3"), [("duplicate", 12)]),
        (("1", "2", "3", "3"), [("duplicate", 13)]),
        (("1", "2", "3", "1"), [("duplicate", 13)]),
        (("1", "3"), [("missing", None)]),
        ((), [("missing", None)] * 3),
        (("1", "2", "9", "3"), [("unexpected", 12)]),
        (("1", "9", "3"), [("different", 11)]),
        (("9", "2", "3", "3"), [("different", 10), ("duplicate", 12)]),
    ],
)
def test_planted_faults_are_told_with_their_offsets(
    found: tuple[str, ...], wrong: list[tuple[str, int | None]]
) -> None:
    assert told(compare([results("1", "2", "3")], results(*found, start=10))) == wrong


def test_a_missing_record_is_told_with_the_input_it_comes_from() -> None:
    expected = results("1", "2", "3", start=70)
    (missing,) = compare([expected], results("1", "3")).differences
    assert missing.expected == expected[1]


def test_another_timestamp_is_a_difference() -> None:
    (different,) = compare([results("1", at_ms=[5])], results("1", at_ms=[6])).differences
    assert different.kind == "different"


@pytest.mark.parametrize(
    ("kept", "found", "wrong"),
    [
        (Kept.TAIL, ("2", "3"), []),
        (Kept.TAIL, (), []),
        (Kept.TAIL, ("2", "2", "3"), [("duplicate", 10)]),
        (Kept.TAIL, ("1", "3"), [("missing", None)]),
        (Kept.LATEST, ("3",), []),
        (Kept.LATEST, ("1", "3"), []),
        (Kept.LATEST, ("1", "2"), [("different", 11)]),
        (Kept.LATEST, ("1", "1", "3"), [("duplicate", 11)]),
        (Kept.LATEST, (), [("missing", None)]),
        (Kept.SOME, (), []),
        (Kept.SOME, ("2", "3"), []),
        (Kept.SOME, ("3", "3"), [("duplicate", 10)]),
    ],
)
def test_what_the_broker_has_dropped_is_not_missing(
    kept: Kept, found: tuple[str, ...], wrong: list[tuple[str, int | None]]
) -> None:
    assert told(compare([results("1", "2", "3")], results(*found, start=10), kept)) == wrong


def test_a_compacted_delete_is_not_missing() -> None:
    assert told(compare([results("1", None)], results(), Kept.LATEST)) == []


def test_records_of_two_partitions_hold_in_any_order() -> None:
    one = results("a", "b", "c")
    outcomes = [one, moved(one, 2, 0, 1)]
    comparison = compare(outcomes, moved(one, 0, 2, 1), traits=AS_A_SET)
    assert (comparison.name, comparison.differences) == ("records in any order", ())
    assert told(compare(outcomes, results("a", "b", start=10), traits=AS_A_SET)) == [("missing", None)]
    assert told(compare(outcomes, results("c", "a", "b", "a", start=10), traits=AS_A_SET)) == [("duplicate", 13)]
    assert told(compare(outcomes, results("c", "a", "x", start=10), traits=AS_A_SET)) == [
        ("missing", None),
        ("unexpected", 12),
    ]


def test_records_that_are_alike_by_chance_have_no_order() -> None:
    """Two partitions with the same content: only the places they come from tell that their order is not known."""
    outcomes = [results("1", "0", "1", "0"), moved(results("1", "0", "1", "0"), 2, 3, 0, 1)]
    assert Trait.IN_ORDER not in compare(outcomes, results("1", "1", "0", "0")).traits


def test_sums_are_compared_by_number_and_last_value() -> None:
    outcomes = [results("1", "3"), moved(results("3", "2"), 1, 0)]
    comparison = compare(outcomes, results("2", "3"))
    assert (comparison.name, comparison.differences) == ("number and last value", ())
    assert told(compare(outcomes, results("1", "3", "3", start=10))) == [("duplicate", 12)]
    assert told(compare(outcomes, results("3", start=10))) == [("missing", None)]
    assert told(compare(outcomes, results("1", "4", start=10))) == [("different", 11)]


def test_what_differs_from_order_to_order_is_possible_or_undecided() -> None:
    outcomes = [results("1", "2"), results("3")]
    possible = compare(outcomes, results("3"))
    assert (possible.traits, possible.name, possible.differences) == ((), POSSIBLE, ())
    undecided = compare(outcomes, results("4"))
    assert (undecided.traits, told(undecided)) == ((), [("different", 0)])


def test_only_what_counts_is_held_against_it() -> None:
    outcomes = [results("1", "2"), results("1", "2")]
    assert compare(outcomes, results("9", "2"), traits=LAST).differences == ()
    assert compare(outcomes, results("1", "9"), traits=NOTHING).traits == ()


def test_records_beyond_alignment_are_counted() -> None:
    expected = results(*(f"a{n}" for n in range(3000)))
    found = results(*(f"b{n}" for n in range(3000)))
    comparison = compare([expected], found)
    assert [each.kind for each in comparison.differences] == ["missing"] * 3000 + ["unexpected"] * 3000


VALUES = st.lists(st.sampled_from("abc"), max_size=12)


@given(VALUES, VALUES)
def test_differences_account_for_every_record(wanted: list[str], given: list[str]) -> None:
    comparison = compare([results(*wanted)], results(*given))
    kinds = [each.kind for each in comparison.differences]
    surplus = kinds.count("duplicate") + kinds.count("unexpected")
    assert len(given) - len(wanted) == surplus - kinds.count("missing")
    assert (wanted == given) == (not kinds)


@given(VALUES, st.integers(0, 12))
def test_a_tail_is_a_tail(wanted: list[str], cut: int) -> None:
    assert compare([results(*wanted)], results(*wanted[cut:]), Kept.TAIL).differences == ()


@given(VALUES, st.integers(0, 11))
def test_one_record_more_is_one_duplicate(wanted: list[str], at: int) -> None:
    given = [*wanted[:at], *wanted[at : at + 1], *wanted[at:]]
    kinds = [each.kind for each in compare([results(*wanted)], results(*given)).differences]
    assert kinds == ["duplicate"] * (len(given) - len(wanted))
