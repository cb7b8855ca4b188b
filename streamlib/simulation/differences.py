"""Where what came out is not what should have come out, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from streamlib.records import Headers, TopicPartition


class Result(NamedTuple):
    """A record by its content alone."""

    key: Any
    value: Any
    timestamp: int
    headers: tuple[tuple[str, bytes | None], ...] = ()

    def __str__(self) -> str:
        with_headers = f" with headers {list(self.headers)}" if self.headers else ""
        return f"{self.key!r} = {self.value!r} at {self.timestamp} ms{with_headers}"


class Row(NamedTuple):
    """A record in a topic. Key and value are bytes where they could not be decoded."""

    partition: TopicPartition
    offset: int
    key: Any
    value: Any
    timestamp: int
    headers: Headers = ()

    @property
    def result(self) -> Result:
        """Its content."""
        return Result(self.key, self.value, self.timestamp, tuple(self.headers))

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return self.partition.at(self.offset)


def in_order(where: str, expected: Sequence[Result], rows: Sequence[Row]) -> list[str]:
    """The first difference, if there is one: what follows it is mostly its consequence.

    Args:
        where: what the records have in common, in words.
        expected: what should be there.
        rows: what is there.

    >>> partition = TopicPartition("counts", 0)
    >>> rows = [Row(partition, 7, "a", 1, 10), Row(partition, 8, "a", 1, 10)]
    >>> in_order("topic counts", [Result("a", 1, 10), Result("a", 2, 20)], rows)
    ["topic counts, partition 0, offset 8: 'a' = 1 at 10 ms comes twice, instead of 'a' = 2 at 20 ms"]
    """
    for place, (wanted, row) in enumerate(zip(expected, rows, strict=False)):
        if row.result != wanted:
            return [_mismatch(expected, rows, place)]
    if len(rows) > len(expected):
        return [_surplus(expected, rows[len(expected)])]
    if len(rows) < len(expected):
        return [f"{where}: {expected[len(rows)]} is missing; {len(rows)} of {len(expected)} records are there"]
    return []


def in_any_order(where: str, expected: Iterable[Result], rows: Sequence[Row]) -> list[str]:
    """What is missing, and what is there too often or should not be. Keys and values have to be hashable.

    >>> row = Row(TopicPartition("pairs", 0), 3, "a", "x+y", 10)
    >>> in_any_order("topic pairs", [row.result], [row, row._replace(offset=4)])
    ["topic pairs, partition 0, offset 4: 'a' = 'x+y' at 10 ms comes twice"]
    >>> in_any_order("topic pairs", [row.result], [])
    ["topic pairs: 'a' = 'x+y' at 10 ms is missing"]
    """
    missing = Counter(expected)
    due = frozenset(missing)
    found: list[str] = []
    for row in rows:
        if missing[row.result] > 0:
            missing[row.result] -= 1
        else:
            found.append(_surplus(due, row))
    found += [f"{where}: {result} is missing" for result in missing.elements()]
    return found


def _mismatch(expected: Sequence[Result], rows: Sequence[Row], place: int) -> str:
    wanted, row = expected[place], rows[place]
    result = row.result
    if result in expected[:place]:
        return f"{row.place}: {result} comes twice, instead of {wanted}"
    if result not in expected:
        return f"{row.place}: {result} instead of {wanted}"
    if any(later.result == wanted for later in rows[place:]):
        return f"{row.place}: {result} comes before {wanted}, which should come first"
    return f"{row.place}: {wanted} is missing in front of {result}"


def _surplus(expected: Iterable[Result], row: Row) -> str:
    if row.result in expected:
        return f"{row.place}: {row.result} comes twice"
    return f"{row.place}: {row.result} should not be there"
