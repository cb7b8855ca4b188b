"""Sensors: readings of a thousand devices become one summary of each minute, final when it is told.

Shows results that are told once, in two ways: windows that emit on close, and a table of them that is suppressed until
its windows close. Readings may be ten seconds late; what comes later is counted. A device whose clock is ahead would
close the windows of all others: its readings get the time of those before them.

    streamlib broker topic readings minutes halls --partitions 1
    streamlib run examples/sensors.py
    streamlib produce readings --json --recent --value json < examples/data/sensors/readings.jsonl
    streamlib consume minutes --from-beginning --max 5
    streamlib consume halls --from-beginning --max 2

With one partition the last reading of the sample closes the windows of all before it; partitions have clocks of their
own.
"""

import logging
from collections import Counter
from datetime import UTC, datetime, timedelta

import msgspec

from streamlib import (
    BufferConfig,
    EmitStrategy,
    LateRecord,
    StreamsBuilder,
    Suppressed,
    TimeWindows,
    UsePartitionTimeOnInvalidTimestamp,
    Windowed,
)

log = logging.getLogger(__name__)

A_MINUTE = TimeWindows.of_size(timedelta(minutes=1), grace=timedelta(seconds=10))
FIVE_MINUTES = TimeWindows.of_size(timedelta(minutes=5), grace=timedelta(seconds=10))


class Reading(msgspec.Struct):
    """A reading; its key is the hall and the device, as in "hall-1/7"."""

    celsius: float


class Summary(msgspec.Struct, frozen=True):
    """What a window has had so far."""

    readings: int = 0
    total: float = 0.0
    lowest: float = float("inf")
    highest: float = float("-inf")

    def plus(self, celsius: float) -> "Summary":
        """With one more reading."""
        return Summary(
            self.readings + 1,
            self.total + celsius,
            min(self.lowest, celsius),
            max(self.highest, celsius),
        )


class Told(msgspec.Struct):
    """A summary of a window that has closed."""

    begin: datetime
    readings: int
    mean: float
    lowest: float
    highest: float


LATE: Counter[str] = Counter()
"""Readings by device that were too late, in this process. A record that is processed again is counted again."""


def too_late(reading: LateRecord[str, Reading]) -> None:
    """The window's summary has been told."""
    LATE[reading.key] += 1
    log.warning("%s was %d ms too late", reading.key, reading.stream_time - reading.window.end)


def add(_: str, reading: Reading, summary: Summary) -> Summary:
    """A summary with one more reading."""
    return summary.plus(reading.celsius)


def told(window: Windowed[str], summary: Summary) -> tuple[str, Told]:
    """The record that goes out."""
    begin, mean = datetime.fromtimestamp(window.start / 1000, UTC), summary.total / summary.readings
    return window.key, Told(begin, summary.readings, round(mean, 2), summary.lowest, summary.highest)


def topology() -> StreamsBuilder:
    """Readings in; minutes of devices, and five minutes of halls, out."""
    builder = StreamsBuilder()
    clock = UsePartitionTimeOnInvalidTimestamp(max_ahead=timedelta(seconds=30))
    readings = builder.stream("readings", key=str, value=Reading, timestamp_extractor=clock)
    (
        readings.group_by_key()
        .windowed_by(A_MINUTE, on_late=too_late)
        .emit_strategy(EmitStrategy.on_window_close())
        .aggregate(Summary, add, value=Summary, store="minutes")
        .to_stream()
        .map(told)
        .to("minutes")
    )
    (
        readings.group_by(lambda device, _: device.split("/")[0], key=str, name="by-hall")
        .windowed_by(FIVE_MINUTES)
        .aggregate(Summary, add, value=Summary, store="halls")
        .suppress(Suppressed.until_window_closes(BufferConfig.unbounded()), name="final-halls")
        .to_stream()
        .map(told)
        .to("halls")
    )
    return builder


config = {"application_id": "sensors", "processing_guarantee": "exactly_once_v2"}
