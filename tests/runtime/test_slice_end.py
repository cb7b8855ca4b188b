"""A slice is over in time, with few looks at the clock."""

from __future__ import annotations

from streamlib.runtime.slice_end import MOST_RECORDS, slice_end


class Clock:
    """Moves on by what each record takes; counts how often somebody looks."""

    def __init__(self) -> None:
        self.ms = 0.0
        self.looks = 0

    def look(self) -> float:
        self.looks += 1
        return self.ms


def records_until_expired(clock: Clock, record_ms: float, ends_ms: float = 10.0) -> int:
    expired = slice_end(clock.look, ends_ms)
    for number in range(1, 100_000):
        clock.ms += record_ms
        if expired():
            return number
    raise AssertionError("it never ends")


def test_quick_records_end_in_time_and_look_seldom() -> None:
    clock = Clock()
    records = records_until_expired(clock, 0.005)
    assert 2_000 <= records <= 2_000 + MOST_RECORDS
    assert clock.looks < records / 8


def test_slow_records_are_looked_at_one_by_one() -> None:
    clock = Clock()
    assert records_until_expired(clock, 3.0) == 4
    assert clock.looks == 5


def test_records_that_become_slow_are_noticed_soon() -> None:
    clock = Clock()
    expired = slice_end(clock.look, 1_000.0)
    for _ in range(200):
        clock.ms += 0.001
        assert not expired()
    looks = clock.looks
    for _ in range(MOST_RECORDS + 10):
        clock.ms += 5.0
        assert not expired()
    assert clock.looks - looks >= 10


def test_once_over_it_stays_over() -> None:
    clock = Clock()
    expired = slice_end(clock.look, 1.0)
    while not expired():
        clock.ms += 0.001
    assert expired()
    assert expired()
