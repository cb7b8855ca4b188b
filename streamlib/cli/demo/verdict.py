"""Did the word count hold? Every count a reader saw is compared with a plain count of the same lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

_EXAMPLES = 5


class Verdict(msgspec.Struct, frozen=True):
    """What was found, word by word. Nothing in `wrong_totals`, `broken_sequences` means that it held."""

    words: int
    expected: int
    records: int
    wrong_totals: dict[str, str]
    broken_sequences: dict[str, str]

    @property
    def holds(self) -> bool:
        """Whether every word was counted exactly once each time."""
        return not self.wrong_totals and not self.broken_sequences and self.words > 0


def judge(lines: Iterable[str], seen: Mapping[str, Sequence[int]]) -> Verdict:
    """Compare the counts that a reader saw, in the order it saw them, with the lines.

    Args:
        lines: every line that was produced.
        seen: for each word, all counts read from the output topic, oldest first.
    """
    expected = Counter(word for line in lines for word in words_of(line))
    wrong, broken = {}, {}
    for word in sorted(expected.keys() | seen.keys()):
        counts = seen.get(word, ())
        last = counts[-1] if counts else 0
        if last != expected[word]:
            wrong[word] = f"{last}, not {expected[word]}"
        if fault := first_fault(counts):
            broken[word] = fault
    return Verdict(len(expected), expected.total(), sum(map(len, seen.values())), wrong, broken)


def words_of(line: str) -> list[str]:
    """The words of a line, as the topology splits it."""
    return line.lower().split()


def first_fault(counts: Sequence[int]) -> str | None:
    """Where a sequence first differs from 1, 2, 3 ...; None if it does not.

    >>> first_fault([1, 2, 2])
    '2 after 2 (repeated)'
    """
    for want, count in enumerate(counts, start=1):
        if count != want:
            kind = "repeated" if count < want else "gap"
            return f"{count} after {want - 1} ({kind})"
    return None


def examples(faults: Mapping[str, str]) -> str:
    """A few faults as text."""
    shown = [f"{word!r}: {fault}" for word, fault in list(faults.items())[:_EXAMPLES]]
    more = len(faults) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
