"""One lane: what of it is determined, whether it is so, and what is wrong if it is not.

outcomes of the replay, one for each order tried --the same in all--> traits that are determined
records that are there --have these traits? --> holds
                         --do not?------------> violated: missing, duplicate, unexpected, different
nothing is determined  --as in one outcome?---> possible, else undecided
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Sequence
from difflib import SequenceMatcher
from enum import Enum
from typing import Literal, TypeAlias, assert_never, get_args

import msgspec

from streamlib.verify.results import Content, Result


class Trait(Enum):
    """What can be said of a lane's records, the strongest first; the value is how it is called in reports.

    IN_ORDER and VALUES_IN_ORDER are agreed on if the records also come from the same inputs; values that are the same
    in any order of the inputs are COUNTS.
    """

    IN_ORDER = "record by record"
    VALUES_IN_ORDER = "values in order"
    COUNTS = "counts in order"
    ANY_ORDER = "records in any order"
    VALUES_ANY_ORDER = "values in any order"
    NUMBER = "number"
    LAST = "last value"


POSSIBLE = "one of several possibilities"
"""What is said of records that are as one of the orders gives them, and might be otherwise."""


class Kept(Enum):
    """What the broker has kept of a log.

    WHOLE: all that was written. TAIL: retention has cut off its start. LATEST: of a key's records, earlier ones may
    have been compacted away. SOME: both.
    """

    WHOLE = "whole"
    TAIL = "tail"
    LATEST = "latest"
    SOME = "some"


Kind = Literal["missing", "duplicate", "unexpected", "different"]
_KINDS: tuple[Kind, ...] = get_args(Kind)


class Difference(msgspec.Struct, frozen=True):
    """What is wrong with one record.

    missing: it should be there. duplicate: it is there once more than it should be. unexpected: nothing in the inputs
    leads to it. different: something else should be there. `expected` is not known of what is unexpected, `found` is
    not there of what is missing.
    """

    kind: Kind
    expected: Result | None
    found: Result | None


class Comparison(msgspec.Struct, frozen=True):
    """What became of one lane. `traits` are those that are determined, the strongest first; if there are none, there is
    a difference if the records are as none of the orders gives them."""

    traits: tuple[Trait, ...]
    differences: tuple[Difference, ...] = ()

    @property
    def name(self) -> str:
        """How the records could be compared, in words."""
        if self.traits[:2] == (Trait.NUMBER, Trait.LAST):
            return "number and last value"
        return self.traits[0].value if self.traits else POSSIBLE


Results: TypeAlias = Sequence[Result]

_ENOUGH = frozenset(Trait) - {Trait.NUMBER}
"""One of these has to be determined; the number of records alone says too little."""

_MOST_TO_ALIGN = 4_000_000
"""Beyond so many pairs of records, what is too many and too few is counted instead of aligned."""


def compare(
    outcomes: Sequence[Results], found: Results, kept: Kept = Kept.WHOLE, traits: Collection[Trait] = frozenset(Trait)
) -> Comparison:
    """Compare a lane's records with the outcomes of its replays.

    Args:
        outcomes: what each order that was tried has led to; the first is the likeliest.
        found: the records that are there.
        kept: what the log still has.
        traits: those that count if all outcomes agree on them.
    """
    allowed = [trait for trait in Trait if trait in traits]
    if Trait.IN_ORDER in allowed and _contents(found) == _contents(outcomes[0]) and _agree(outcomes, Trait.IN_ORDER):
        return Comparison((Trait.IN_ORDER,))
    determined = tuple(trait for trait in allowed if _agree(outcomes, trait))
    for trait in determined:
        if not _has(trait, outcomes[0], found, kept):
            return Comparison(determined, tuple(_differences(trait, outcomes[0], found, kept)))
    if not _ENOUGH.isdisjoint(determined):
        return Comparison(determined)
    if any(_could_be(outcome, found, kept) for outcome in outcomes):
        return Comparison(())
    return Comparison((), (_replaced(_last(outcomes[0]), _last(found)),))


def _agree(outcomes: Sequence[Results], trait: Trait) -> bool:
    """Whether all outcomes have the trait in common."""
    first, others = outcomes[0], outcomes[1:]
    if trait in (Trait.IN_ORDER, Trait.VALUES_IN_ORDER):
        places = [result.place for result in first]
        if any([result.place for result in other] != places for other in others):
            return False
    wanted = _of(trait, first)
    return all(_of(trait, other) == wanted for other in others)


def _of(trait: Trait, results: Results) -> object:
    """The trait of these records."""
    match trait:
        case Trait.IN_ORDER:
            return _contents(results)
        case Trait.VALUES_IN_ORDER | Trait.COUNTS:
            return _values(results)
        case Trait.ANY_ORDER:
            return Counter(_contents(results))
        case Trait.VALUES_ANY_ORDER:
            return Counter(_values(results))
        case Trait.NUMBER:
            return len(results)
        case Trait.LAST:
            return results[-1].content.value if results else None
        case _:
            assert_never(trait)


def _contents(results: Results) -> list[Content]:
    return [result.content for result in results]


def _values(results: Results) -> list[bytes | None]:
    return [result.content.value for result in results]


def _has(trait: Trait, expected: Results, found: Results, kept: Kept) -> bool:
    """Whether the records that are there have the trait, as far as can be told from what was kept."""
    if kept in (Kept.TAIL, Kept.SOME) and not found:
        return True
    match trait:
        case Trait.IN_ORDER:
            return _in_order(_contents(expected), _contents(found), kept)
        case Trait.VALUES_IN_ORDER | Trait.COUNTS:
            return _in_order(_values(expected), _values(found), kept)
        case Trait.ANY_ORDER:
            return _in_any_order(_contents(expected), _contents(found), kept)
        case Trait.VALUES_ANY_ORDER:
            return _in_any_order(_values(expected), _values(found), kept)
        case Trait.NUMBER:
            return len(found) == len(expected) or (kept is not Kept.WHOLE and len(found) < len(expected))
        case Trait.LAST:
            return _of(trait, expected) == _of(trait, found)
        case _:
            assert_never(trait)


def _in_order(expected: Sequence[Hashable], found: Sequence[Hashable], kept: Kept) -> bool:
    match kept:
        case Kept.WHOLE:
            return expected == found
        case Kept.TAIL:
            return expected[-len(found) :] == found
        case Kept.LATEST | Kept.SOME:
            left = iter(expected)
            return all(any(each == item for each in left) for item in found)  # the last one is LAST's concern
        case _:
            assert_never(kept)


def _in_any_order(expected: Sequence[Hashable], found: Sequence[Hashable], kept: Kept) -> bool:
    return Counter(found) == Counter(expected) if kept is Kept.WHOLE else Counter(found) <= Counter(expected)


def _could_be(outcome: Results, found: Results, kept: Kept) -> bool:
    """Whether this order explains what is there; values in between may depend on it in finer ways than were tried."""
    if _has(Trait.VALUES_ANY_ORDER, outcome, found, kept):
        return True
    return _has(Trait.NUMBER, outcome, found, kept) and _has(Trait.LAST, outcome, found, kept)


def _differences(trait: Trait, expected: Results, found: Results, kept: Kept) -> list[Difference]:
    """What is wrong. Of a log that is not whole, nothing can be said to be missing but the last value, and what is
    between two records that are there."""
    differences = _all_differences(trait, expected, found, paired=kept is Kept.WHOLE)
    if kept is Kept.WHOLE or trait is Trait.LAST:
        return differences
    surplus = [difference for difference in differences if difference.kind != "missing"]
    return surplus or _all_differences(trait, _tail(expected, found), found, paired=False)


def _all_differences(trait: Trait, expected: Results, found: Results, *, paired: bool) -> list[Difference]:
    match trait:
        case Trait.IN_ORDER:
            return _aligned(_contents(expected), _contents(found), expected, found, paired=paired)
        case Trait.VALUES_IN_ORDER | Trait.COUNTS:
            return _aligned(_values(expected), _values(found), expected, found, paired=paired)
        case Trait.ANY_ORDER:
            return _counted(_contents(expected), _contents(found), expected, found)
        case Trait.VALUES_ANY_ORDER:
            return _counted(_values(expected), _values(found), expected, found)
        case Trait.NUMBER:
            return _by_number(expected, found)
        case Trait.LAST:
            return [_replaced(_last(expected), _last(found))]
        case _:
            assert_never(trait)


def _tail(expected: Results, found: Results) -> Results:
    """What is expected from the first record on that is still there: there is a hole after it."""
    return expected[_values(expected).index(found[0].content.value) :]


def _last(results: Results) -> Result | None:
    return results[-1] if results else None


def _replaced(expected: Result | None, found: Result | None) -> Difference:
    if found is None:
        return Difference("missing", expected, None)
    return Difference("unexpected" if expected is None else "different", expected, found)


def _aligned(
    wanted: Sequence[Hashable], given: Sequence[Hashable], expected: Results, found: Results, *, paired: bool
) -> list[Difference]:
    """What has to be put in, taken out and replaced to get from one sequence to the other; nothing is replaced unless
    `paired`."""
    start = _common(wanted, given)
    end = _common(wanted[start:][::-1], given[start:][::-1])
    wanted_middle, given_middle = wanted[start : len(wanted) - end], given[start : len(given) - end]
    if len(wanted_middle) * len(given_middle) > _MOST_TO_ALIGN:
        return _counted(wanted, given, expected, found)
    origins = dict(zip(reversed(wanted), reversed(expected), strict=True))
    differences: list[Difference] = []
    steps = SequenceMatcher(None, wanted_middle, given_middle, autojunk=False).get_opcodes()
    for step, first, last, from_, to in steps:
        if step == "equal":
            continue
        lacking = expected[start + first : start + last]
        surplus = found[start + from_ : start + to]
        pairs = min(len(lacking), len(surplus)) if paired else 0
        differences += map(_replaced, lacking[:pairs], surplus[:pairs])
        differences += [Difference("missing", result, None) for result in lacking[pairs:]]
        items = given[start + from_ + pairs : start + to]
        differences += map(_surplus, surplus[pairs:], (origins.get(item) for item in items))
    return differences


def _common(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """How many are the same from the start."""
    shorter = min(len(one), len(other))
    return next((n for n in range(shorter) if one[n] != other[n]), shorter)


def _surplus(found: Result, expected: Result | None) -> Difference:
    return Difference("unexpected" if expected is None else "duplicate", expected, found)


def _counted(
    wanted: Sequence[Hashable], given: Sequence[Hashable], expected: Results, found: Results
) -> list[Difference]:
    """What is there too often and too seldom; of several that are the same, the last ones."""
    origins = dict(zip(reversed(wanted), reversed(expected), strict=True))
    lacking, surplus = Counter(wanted) - Counter(given), Counter(given) - Counter(wanted)
    missing = [Difference("missing", each, None) for _, each in _last_of(lacking, wanted, expected)]
    extra = [_surplus(each, origins.get(item)) for item, each in _last_of(surplus, given, found)]
    return [*missing, *extra]


def _last_of(
    counts: Counter[Hashable], items: Sequence[Hashable], results: Results
) -> Iterable[tuple[Hashable, Result]]:
    left = counts.copy()
    chosen = []
    for item, result in zip(reversed(items), reversed(results), strict=True):
        if left[item] > 0:
            left[item] -= 1
            chosen.append((item, result))
    return reversed(chosen)


def _by_number(expected: Results, found: Results) -> list[Difference]:
    """Values differ from order to order; those that are nowhere else are the likeliest to be too many or too few."""
    too_many = len(found) - len(expected)
    candidates = _counted(_values(expected), _values(found), expected, found)
    of_kind = {kind: [each for each in candidates if each.kind == kind] for kind in _KINDS}
    if too_many < 0:
        return [*of_kind["missing"], *(Difference("missing", result, None) for result in expected)][:-too_many]
    return [*of_kind["unexpected"], *of_kind["duplicate"], *(_surplus(result, None) for result in found)][:too_many]
