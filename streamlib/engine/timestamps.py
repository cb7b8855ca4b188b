"""Ready timestamp extractors at work: with a clock, and a log that a flood of bad records does not flood."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, assert_never

from streamlib.engine.error_handling import RateLimitedLog
from streamlib.engine.inputs import ConsumedRecord
from streamlib.errors import SerializationError
from streamlib.records import TopicPartition
from streamlib.topology.nodes import TimestampExtractor
from streamlib.topology.timestamps import (
    FailOnInvalidTimestamp,
    LogAndSkipOnInvalidTimestamp,
    OnInvalidTimestamp,
    UsePartitionTimeOnInvalidTimestamp,
    WallclockTimestampExtractor,
    max_ahead_ms,
)

DROP = -1
"""What an extractor returns for a record that is to be left out."""

Extract: TypeAlias = Callable[[Any, int], int]


def extract_function(extractor: TimestampExtractor | None, node: str, now_ms: Callable[[], int]) -> Extract | None:
    """`f(record, partition time) -> ms`; None if records keep their timestamps, which is much faster."""
    match extractor:
        case None | FailOnInvalidTimestamp(max_ahead=None):
            return None
        case WallclockTimestampExtractor():
            return lambda record, partition_time: now_ms()
        case FailOnInvalidTimestamp() | LogAndSkipOnInvalidTimestamp() | UsePartitionTimeOnInvalidTimestamp():
            return _checked(extractor, node, now_ms)
        case _:
            return extractor


def _checked(extractor: OnInvalidTimestamp, node: str, now_ms: Callable[[], int]) -> Extract:
    otherwise, ahead_ms = _otherwise(extractor, node, now_ms), max_ahead_ms(extractor)

    def extract(record: ConsumedRecord, partition_time: int) -> int:
        timestamp = record.timestamp
        if timestamp >= 0 and (ahead_ms is None or timestamp <= now_ms() + ahead_ms):
            return timestamp
        return otherwise(record, partition_time)

    return extract


def _otherwise(extractor: OnInvalidTimestamp, node: str, now_ms: Callable[[], int]) -> Extract:
    """What is done with a record whose timestamp is not valid."""
    match extractor:
        case FailOnInvalidTimestamp():
            return lambda record, partition_time: _fail(record, node, "")
        case UsePartitionTimeOnInvalidTimestamp():
            nothing = ", and there was none before it to take the time of"
            return lambda record, time: time if time >= 0 else _fail(record, node, nothing)
        case LogAndSkipOnInvalidTimestamp():
            log = RateLimitedLog(now_ms)

            def skip(record: ConsumedRecord, partition_time: int) -> int:
                log.warn(f"source {node} leaves out a record: {_told(record)}")
                return DROP

            return skip
        case _:
            assert_never(extractor)


def _fail(record: ConsumedRecord, node: str, more: str) -> int:
    raise SerializationError(
        f"{_told(record)}{more}: write it with a producer that sets a right one, or give source {node} another "
        "timestamp_extractor, such as LogAndSkipOnInvalidTimestamp",
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        node=node,
    )


def _told(record: ConsumedRecord) -> str:
    place = TopicPartition(record.topic, record.partition).at(record.offset)
    return f"{place}: the record has no valid timestamp ({record.timestamp})"
