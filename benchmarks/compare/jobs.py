"""The jobs, and for each an oracle: what a run has written is right, or the run counts for nothing.

An oracle is fed the output record by record, each key's in the order they were written. It holds against it:

- a record that should not be there, a wrong one, one out of the order of its key
- anything missing at the end

Repeated records it only counts: at least once may repeat, exactly once may not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from benchmarks.compare.data import Data, city
from benchmarks.keyed_count import Event
from streamlib.errors import StreamsError


class WrongOutputError(StreamsError):
    """What a peer has written is not what its input leads to."""


class WindowCount(msgspec.Struct):
    """The output of the window count: how many records of its key a window has so far."""

    start: int
    count: int


class Enriched(msgspec.Struct):
    """The output of the join."""

    number: int
    amount: float
    city: str


class Oracle(Protocol):
    """Knows the right output. `repeated`: how many records had been there before."""

    repeated: int

    def take(self, key: bytes, value: bytes) -> None:
        """The next record.

        Raises:
            WrongOutputError: it is wrong.
        """

    def finish(self) -> None:
        """The output is over.

        Raises:
            WrongOutputError: something is missing.
        """


Row = tuple[str, int]  # key, start of the window or 0


class CountOracle:
    """The counts of a row go up from 1 to its last. With a cache some are left out, but never the last."""

    def __init__(self, expected: Mapping[Row, int], read: Callable[[bytes], tuple[int, int]], *, cached: bool) -> None:
        self._expected = expected
        self._counted: Counter[Row] = Counter()
        self._read = read  # a value -> start, count
        self._cached = cached
        self.repeated = 0

    def take(self, key: bytes, value: bytes) -> None:
        start, count = self._read(value)
        row = (key.decode(), start)
        last = self._counted[row]
        if not 0 < count <= self._expected.get(row, 0):
            raise WrongOutputError(
                f"{row} is said to be there {count} times, and is {self._expected.get(row, 0)} times"
            )
        if count <= last:
            self.repeated += 1
            return
        if count > last + 1 and not self._cached:
            raise WrongOutputError(f"the count of {row} goes from {last} to {count}")
        self._counted[row] = count

    def finish(self) -> None:
        short = [row for row, count in self._expected.items() if self._counted[row] != count]
        if short:
            last, count = self._counted[short[0]], self._expected[short[0]]
            raise WrongOutputError(f"{len(short):,} counts stay short, that of {short[0]} at {last} instead of {count}")


class CopyOracle:
    """Each input record leads to one output record, in the order of its key."""

    def __init__(self, data: Data, read: Callable[[bytes], int]) -> None:
        self._data = data
        self._read = read  # a value -> the number of its record; raises if anything else in it is wrong
        self._next = {data.user(number): number for number in range(min(data.keys, data.records))}
        self._taken = 0
        self.repeated = 0

    def take(self, key: bytes, value: bytes) -> None:
        user, number = key.decode(), self._read(value)
        due = self._next.get(user)
        if due is None or number >= self._data.records or self._data.user(number) != user:
            raise WrongOutputError(f"record {number} is none of {user}")
        if number < due:
            self.repeated += 1
            return
        if number > due:
            raise WrongOutputError(f"record {number} of {user} came where {due} should")
        self._next[user] = due + self._data.keys
        self._taken += 1

    def finish(self) -> None:
        if self._taken != self._data.records:
            raise WrongOutputError(f"{self._data.records - self._taken:,} records are missing")


class Job(msgspec.Struct, frozen=True):
    """What all peers do. `cacheable`: it has a table whose updates a record cache can leave out."""

    name: str
    title: str
    oracle: Callable[[Data, bool], Oracle]
    cacheable: bool = False
    has_table: bool = False


def _passed_through(data: Data, cached: bool) -> Oracle:
    decode = msgspec.json.Decoder(Event).decode

    def read(value: bytes) -> int:
        event = decode(value)
        if event != decode(data.event(event.number)):
            raise WrongOutputError(f"record {event.number} was changed to {value!r}")
        return event.number

    return CopyOracle(data, read)


def _counted(data: Data, cached: bool) -> Oracle:
    expected = Counter((data.user(number), 0) for number in range(data.records))
    return CountOracle(expected, lambda value: (0, int.from_bytes(value, "big")), cached=cached)


def _counted_in_windows(data: Data, cached: bool) -> Oracle:
    expected = Counter((data.user(number), data.window(number)) for number in range(data.records))
    decode = msgspec.json.Decoder(WindowCount).decode

    def read(value: bytes) -> tuple[int, int]:
        result = decode(value)
        return result.start, result.count

    return CountOracle(expected, read, cached=cached)


def _joined(data: Data, cached: bool) -> Oracle:
    decode_input = msgspec.json.Decoder(Event).decode
    decode = msgspec.json.Decoder(Enriched).decode

    def read(value: bytes) -> int:
        result = decode(value)
        event = decode_input(data.event(result.number))
        if result != Enriched(event.number, event.amount, city(event.user)):
            raise WrongOutputError(f"record {event.number} of {event.user} was joined to {value!r}")
        return result.number

    return CopyOracle(data, read)


JOBS = {
    job.name: job
    for job in (
        Job("passthrough", "decode JSON, encode it again", _passed_through),
        Job("keyed-count", "decode JSON, count by key", _counted, cacheable=True),
        Job("window-count", "decode JSON, count by key and minute", _counted_in_windows, cacheable=True),
        Job("table-join", "decode JSON, join with a table by key", _joined, has_table=True),
    )
}
