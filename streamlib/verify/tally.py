"""What is counted of one topic while its lanes are compared."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from streamlib.records import TopicPartition
from streamlib.verify.bindings import AS_A_SET, NUMBER, ORDERED
from streamlib.verify.comparing import Comparison, Difference
from streamlib.verify.results import Lane, Place

_TELLS_ORIGINS = ORDERED | AS_A_SET - NUMBER


class Entry(NamedTuple):
    """A record that is not as it should be. `origin_known`: the same input leads to it in any order."""

    lane: Lane
    difference: Difference
    certain: bool
    origin_known: bool

    @property
    def place(self) -> tuple[bool, Place]:
        """Where to list it: what is certain first, then by the record, or by the input if there is none."""
        results = (self.difference.found, self.difference.expected)
        places = (result.place for result in results if result is not None and result.place is not None)
        return not self.certain, next(places, Place(TopicPartition(self.lane.topic, self.lane.partition), 0))


class Tally:
    """See the module."""

    def __init__(self) -> None:
        self.expected = 0
        self.found = 0
        self.undecided = 0
        self.kinds: Counter[str] = Counter()
        self.compared: Counter[str] = Counter()
        self._entries: list[Entry] = []

    def add(self, lane: Lane, comparison: Comparison, certain: bool) -> None:
        """One more lane; `certain`: if it is not as it should be, something is wrong."""
        certain = certain and bool(comparison.traits)
        origin_known = bool(comparison.traits) and comparison.traits[0] in _TELLS_ORIGINS
        self._entries += [Entry(lane, each, certain, origin_known) for each in comparison.differences]
        if comparison.differences and not certain:
            self.undecided += 1
            return
        self.compared[comparison.name] += 1
        self.kinds.update(difference.kind for difference in comparison.differences)

    def first(self, count: int) -> list[Entry]:
        """A few of what is wrong, in the order of places."""
        return sorted(self._entries, key=lambda entry: entry.place)[:count]
