"""A slice is over in time, with few looks at the clock."""

from __future__ import annotations

from streamlib.runtime.slice_end import MOST_RECORDS, SliceEnd


class Clock:
    """Moves on by what each record takes; counts how often somebody looks."""

    def __init__(self) -> None:
        self.ms = 0.0
        self.looks = 0

    def look(self) -> float:
        self.looks += 1
        return self.ms


def records_until_expired(clock: Clock, record_ms: float, ends_ms: float = 10.0) -> int:
    end = SliceEnd(clock.look, ends_ms)
    for number in range(1, 100_000):
        clock.ms += record_ms
        if end.passed(1):
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
    end = SliceEnd(clock.look, 1_000.0)
    for _ in range(200):
        clock.ms += 0.001
        assert not end.passed(1)
    looks = clock.looks
    for _ in range(MOST_RECORDS + 10):
        clock.ms += 5.0
        assert not end.passed(1)
    assert clock.looks - looks >= 10


def test_once_over_it_stays_over() -> None:
    clock = Clock()
    end = SliceEnd(clock.look, 1.0)
    while not end.passed(1):
        clock.ms += 0.001
    assert end.passed(1)
    assert end.passed(1)


def test_nobody_has_to_ask_before_what_is_left_is_done() -> None:
    clock = Clock()
    end = SliceEnd(clock.look, 1.0)
    asked = 0
    while not end.over:
        records = end.left
        clock.ms += 0.005 * records
        end.passed(records)
        asked += 1
    assert 1.0 <= clock.ms <= 1.0 + 0.005 * MOST_RECORDS
    assert asked < 20
