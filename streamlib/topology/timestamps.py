"""Timestamp extractors for topics with times that are none: what becomes of a record whose timestamp is not valid.

A timestamp is not valid if it is negative: its producer has set none, or a wrong one. With `max_ahead` one that is so
far ahead of the clock is not valid either: it would move stream time on, and everything after it would be late.

They are what Kafka Streams has under the same names, which knows no `max_ahead`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TypeAlias

import msgspec

from streamlib.windows import duration_ms


class FailOnInvalidTimestamp(msgspec.Struct, frozen=True):
    """Stops the application at a record whose timestamp is not valid, as it does if no extractor is given.

    Attributes:
        max_ahead: how far ahead of the clock a timestamp may be; any if not given.

    >>> from streamlib import StreamsBuilder
    >>> stream = StreamsBuilder().stream(
    ...     "in", key=str, value=str, timestamp_extractor=FailOnInvalidTimestamp(max_ahead=timedelta(hours=1))
    ... )
    """

    max_ahead: timedelta | None = None

    def __post_init__(self) -> None:
        max_ahead_ms(self)


class LogAndSkipOnInvalidTimestamp(msgspec.Struct, frozen=True):
    """Leaves out a record whose timestamp is not valid: it is counted as dropped, and logged now and then.

    Attributes:
        max_ahead: how far ahead of the clock a timestamp may be; any if not given.

    >>> from streamlib import StreamsBuilder
    >>> from streamlib.testing import TopologyTestDriver
    >>> builder = StreamsBuilder()
    >>> skip = LogAndSkipOnInvalidTimestamp(max_ahead=timedelta(hours=1))
    >>> builder.stream("in", key=str, value=str, timestamp_extractor=skip).to("out")
    >>> with TopologyTestDriver(builder.build()) as driver:
    ...     for value, timestamp_ms in (("now", 0), ("never", -1), ("next year", 365 * 24 * 3_600_000)):
    ...         driver.input_topic("in", key=str, value=str).pipe_input("a", value, timestamp_ms)
    ...     driver.output_topic("out", key=str, value=str).read_values(), driver.dropped_records
    (['now'], 2)
    """

    max_ahead: timedelta | None = None

    def __post_init__(self) -> None:
        max_ahead_ms(self)


class UsePartitionTimeOnInvalidTimestamp(msgspec.Struct, frozen=True):
    """Gives a record whose timestamp is not valid the highest time that its partition has had.

    A record before which there was none with a time stops the application.

    Attributes:
        max_ahead: how far ahead of the clock a timestamp may be; any if not given.

    >>> from streamlib import StreamsBuilder
    >>> from streamlib.testing import TopologyTestDriver
    >>> builder = StreamsBuilder()
    >>> extractor = UsePartitionTimeOnInvalidTimestamp()
    >>> builder.stream("in", key=str, value=str, timestamp_extractor=extractor).to("out")
    >>> with TopologyTestDriver(builder.build()) as driver:
    ...     for timestamp_ms in (500, -1):
    ...         driver.input_topic("in", key=str, value=str).pipe_input("a", "b", timestamp_ms)
    ...     [record.timestamp for record in driver.output_topic("out").read_records()]
    [500, 500]
    """

    max_ahead: timedelta | None = None

    def __post_init__(self) -> None:
        max_ahead_ms(self)


class WallclockTimestampExtractor(msgspec.Struct, frozen=True):
    """Gives each record the time at which it is processed, whatever its timestamp is: for processing time.

    A record that is processed again has another time then.

    >>> from streamlib import StreamsBuilder
    >>> from streamlib.testing import TopologyTestDriver
    >>> builder = StreamsBuilder()
    >>> builder.stream("in", key=str, value=str, timestamp_extractor=WallclockTimestampExtractor()).to("out")
    >>> with TopologyTestDriver(builder.build(), wall_clock_start_ms=7_000) as driver:
    ...     driver.input_topic("in", key=str, value=str).pipe_input("a", "b", timestamp_ms=5)
    ...     driver.output_topic("out").read_record().timestamp
    7000
    """


OnInvalidTimestamp: TypeAlias = (
    FailOnInvalidTimestamp | LogAndSkipOnInvalidTimestamp | UsePartitionTimeOnInvalidTimestamp
)
"""What becomes of a record whose timestamp is not valid."""

ReadyExtractor: TypeAlias = OnInvalidTimestamp | WallclockTimestampExtractor
"""Extractors that are no functions: each task makes one of them, with its clock."""


def max_ahead_ms(extractor: OnInvalidTimestamp) -> int | None:
    """How far ahead of the clock a timestamp may be, in ms; None: as far as it likes.

    Raises:
        TopologyError: it is no length of time.
    """
    if extractor.max_ahead is None:
        return None
    return duration_ms(extractor.max_ahead, f"{type(extractor).__name__}: max_ahead")
