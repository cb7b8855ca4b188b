"""`examples/sensors.py`: results are final, late readings are counted, and a clock that is ahead harms nobody."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from examples.sensors import LATE, Reading, Told, topology
from streamlib.testing import TopologyTestDriver

SECOND, MINUTE = 1_000, 60_000
NOON_MS = 12 * 60 * MINUTE


class Building:
    def __init__(self, driver: TopologyTestDriver) -> None:
        self._readings = driver.input_topic("readings", key=str, value=Reading)
        self._told = {name: driver.output_topic(name, key=str, value=Told) for name in ("minutes", "halls")}

    def read(self, at_ms: int, celsius: float, device: str = "hall-1/1") -> None:
        self._readings.pipe_input(device, Reading(celsius), NOON_MS + at_ms)

    def told(self, topic: str) -> list[tuple[str | None, int, float]]:
        """Key, number of readings, mean."""
        records = self._told[topic].read_records()
        return [(each.key, each.value.readings, each.value.mean) for each in records if each.value is not None]


@pytest.fixture
def building() -> Iterator[Building]:
    LATE.clear()
    with TopologyTestDriver(topology().build(), wall_clock_start_ms=NOON_MS + 10 * MINUTE) as driver:
        yield Building(driver)


def test_minute_is_told_once_when_it_and_its_grace_are_over(building: Building) -> None:
    building.read(5 * SECOND, 20.0)
    building.read(69 * SECOND, 30.0)
    building.read(59 * SECOND, 22.0)  # late by nine seconds: counts
    assert building.told("minutes") == []
    building.read(70 * SECOND, 30.0, "hall-1/2")
    assert building.told("minutes") == [("hall-1/1", 2, 21.0)]
    assert LATE == {}


def test_reading_that_is_too_late_is_counted_and_its_minute_stays(building: Building) -> None:
    building.read(5 * SECOND, 20.0)
    building.read(70 * SECOND, 30.0, "hall-1/2")
    assert building.told("minutes") == [("hall-1/1", 1, 20.0)]
    building.read(50 * SECOND, 99.0)
    building.read(51 * SECOND, 99.0)
    building.read(200 * SECOND, 30.0, "hall-1/2")
    assert building.told("minutes") == [("hall-1/2", 1, 30.0)]
    assert LATE == {"hall-1/1": 2}


def test_halls_are_told_once_with_all_of_their_devices(building: Building) -> None:
    for number in range(6):
        building.read(number * 30 * SECOND, 20.0 + number % 2, f"hall-1/{number}")
    building.read(5 * MINUTE + 9 * SECOND, 1.0, "hall-2/1")
    assert building.told("halls") == []
    building.read(5 * MINUTE + 10 * SECOND, 1.0, "hall-2/1")
    assert building.told("halls") == [("hall-1", 6, 20.5)]


def test_device_whose_clock_is_ahead_closes_no_windows(building: Building) -> None:
    building.read(9 * MINUTE, 20.0)
    building.read(365 * 24 * 60 * MINUTE, 22.0, "hall-1/2")  # taken for 12:09
    building.read(9 * MINUTE + 1, 21.0)
    assert building.told("minutes") == []
    building.read(10 * MINUTE + 10 * SECOND, 20.0)
    assert building.told("minutes") == [("hall-1/1", 2, 20.5), ("hall-1/2", 1, 22.0)]
