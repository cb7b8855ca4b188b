"""Bad records and timestamps."""

from __future__ import annotations

from typing import Any

from streamlib import StreamsBuilder
from tests.conformance.ported.registry import dsl, longs, texts


@dsl
def poison_fails(b: StreamsBuilder) -> None:
    longs(b).map_values(lambda v: v + 1).to("out")


@dsl
def processing_error_fails(b: StreamsBuilder) -> None:
    def upper(value: str) -> str:
        if value == "boom":
            raise ValueError("boom")
        return value.upper()

    texts(b, "in").map_values(upper).to("out")


def value_time(record: Any, partition_time: int) -> int:
    return int(record.value.partition("@")[2])


def value_or_partition_time(record: Any, partition_time: int) -> int:
    return value_time(record, partition_time) if "@" in record.value else partition_time


@dsl
def extractor_from_value(b: StreamsBuilder) -> None:
    stream = b.stream("in", key=str, value=str, timestamp_extractor=value_time)
    stream.map_values(lambda v: v.partition("@")[0]).to("out")


@dsl
def extractor_partition_time(b: StreamsBuilder) -> None:
    b.stream("in", key=str, value=str, timestamp_extractor=value_or_partition_time).to("out")


@dsl
def negative_timestamp_skipped(b: StreamsBuilder) -> None:
    b.stream("in", key=str, value=str, timestamp_extractor=lambda record, _: record.timestamp).to("out")


@dsl
def negative_timestamp_partition_time(b: StreamsBuilder) -> None:
    def time(record: Any, partition_time: int) -> int:
        if record.timestamp >= 0:
            return int(record.timestamp)
        assert partition_time >= 0
        return partition_time

    one, two = (b.stream(topic, key=str, value=str, timestamp_extractor=time) for topic in ("one", "two"))
    one.merge(two).to("out")


@dsl
def negative_timestamp_fails(b: StreamsBuilder) -> None:
    texts(b, "in").to("out")
