from __future__ import annotations

from collections import Counter

import pytest

from streamlib.cli.demo.lines import text_lines
from streamlib.cli.demo.verdict import examples, first_fault, judge

LINES = ["to be or not", "To be"]
GOOD = {"to": [1, 2], "be": [1, 2], "or": [1], "not": [1]}


def test_counts_that_equal_the_lines_hold() -> None:
    verdict = judge(LINES, GOOD)
    assert verdict.holds
    assert (verdict.words, verdict.expected, verdict.records) == (4, 6, 6)


@pytest.mark.parametrize(
    ("counts", "fault"),
    [
        ([1, 1, 2], "1 after 1 (repeated)"),
        ([1, 2, 2], "2 after 2 (repeated)"),
        ([2], "2 after 0 (gap)"),
        ([1, 2, 1, 2], "1 after 2 (repeated)"),
    ],
)
def test_a_gap_or_a_repeat_does_not_hold_even_if_the_total_is_right(counts: list[int], fault: str) -> None:
    verdict = judge(LINES, {**GOOD, "be": counts})
    assert not verdict.holds
    assert verdict.wrong_totals == {}
    assert verdict.broken_sequences == {"be": fault}


@pytest.mark.parametrize(
    ("seen", "wrong"),
    [
        ({word: counts for word, counts in GOOD.items() if word != "or"}, {"or": "0, not 1"}),
        ({**GOOD, "be": [1]}, {"be": "1, not 2"}),
        ({**GOOD, "be": [1, 2, 3]}, {"be": "3, not 2"}),
        ({**GOOD, "that": [1]}, {"that": "1, not 0"}),
    ],
)
def test_a_total_that_is_not_that_of_the_lines_does_not_hold(seen: dict[str, list[int]], wrong: dict[str, str]) -> None:
    verdict = judge(LINES, seen)
    assert not verdict.holds
    assert verdict.wrong_totals == wrong


def test_nothing_at_all_does_not_hold() -> None:
    assert not judge([], {}).holds


def test_only_some_faults_are_shown() -> None:
    assert examples({f"w{i}": "gap" for i in range(7)}).endswith("'w4': gap and 2 more")
    assert first_fault([1, 2, 3]) is None


def test_lines_are_the_same_for_a_seed_and_skewed() -> None:
    lines = list(text_lines(500))
    assert lines == list(text_lines(500))
    words = Counter(word for line in lines for word in line.split())
    assert words.most_common(1)[0][1] > 10 * words.most_common()[-1][1]
