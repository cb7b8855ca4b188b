"""Aggregations by windows of time: tumbling, hopping, sliding, unlimited."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from streamlib import (
    EmitStrategy,
    Materialized,
    SlidingWindows,
    StreamsBuilder,
    TimeWindows,
    UnlimitedWindows,
    Windowed,
)
from tests.conformance.ported.aggregations import member
from tests.conformance.ported.registry import dsl, longs, shown, texts
from tests.conformance.ported.times_and_errors import value_time

ON_CLOSE = EmitStrategy.on_window_close()
LONG_KEPT = Materialized(name="w", retention=timedelta(minutes=10))


def tumbling(size: float, *, grace: float = 0) -> TimeWindows:
    """In seconds."""
    return TimeWindows.of_size(timedelta(seconds=size), grace=timedelta(seconds=grace))


def hopping(size: float, advance: float, *, grace: float = 0) -> TimeWindows:
    return tumbling(size, grace=grace).advance_by(timedelta(seconds=advance))


def sliding(difference: float, *, grace: float = 0) -> SlidingWindows:
    return SlidingWindows.of_time_difference(timedelta(seconds=difference), grace=timedelta(seconds=grace))


def joined(texts_before: str, value: str | None) -> str:
    return f"{texts_before},{shown(value)}"


@dsl
def tumbling_concat(b: StreamsBuilder) -> None:
    windows = texts(b, "in").group_by_key().windowed_by(tumbling(8, grace=8))
    windows.reduce(joined, store="w").to_stream().to("out")


@dsl
def tumbling_emit_on_close(b: StreamsBuilder) -> None:
    windows = texts(b, "in").group_by_key().windowed_by(tumbling(10, grace=3)).emit_strategy(ON_CLOSE)
    windows.count(store=LONG_KEPT).to_stream().to("out")


@dsl
def tumbling_grace(b: StreamsBuilder) -> None:
    texts(b, "in").group_by_key().windowed_by(tumbling(10, grace=5)).count(store="w").to_stream().to("out")


@dsl
def tumbling_no_grace(b: StreamsBuilder) -> None:
    texts(b, "in").group_by_key().windowed_by(tumbling(10)).count(store="w").to_stream().to("out")


@dsl
def tumbling_stats(b: StreamsBuilder) -> None:
    def add(_: str, value: str, old: str) -> str:
        total = int(member(old, "sum")) + int(member(value, "qty"))
        return f'{{"n":{int(member(old, "n")) + 1},"sum":{total}}}'

    windows = texts(b, "in").group_by(lambda k, v: member(v, "item")).windowed_by(tumbling(20, grace=10))
    windows.aggregate(lambda: '{"n":0,"sum":0}', add, store="w").to_stream().to("out")


@dsl
def hopping_count(b: StreamsBuilder) -> None:
    texts(b, "in").group_by_key().windowed_by(hopping(10, 4, grace=3)).count(store="w").to_stream().to("out")


@dsl
def hopping_emit_on_close(b: StreamsBuilder) -> None:
    windows = longs(b).group_by_key().windowed_by(hopping(10, 5)).emit_strategy(ON_CLOSE)
    windows.reduce(lambda total, v: total + v, store=LONG_KEPT).to_stream().to("out")


@dsl
def hopping_emit_on_close_short_retention(b: StreamsBuilder) -> None:
    windows = longs(b).group_by_key().windowed_by(hopping(10, 5)).emit_strategy(ON_CLOSE)
    windows.reduce(lambda total, v: total + v, store="w").to_stream().to("out")


@dsl
def hopping_max(b: StreamsBuilder) -> None:
    longs(b).group_by_key().windowed_by(hopping(9, 3)).reduce(max, store="w").to_stream().to("out")


@dsl
def sliding_count(b: StreamsBuilder) -> None:
    texts(b, "in").group_by_key().windowed_by(sliding(5, grace=20)).count(store="w").to_stream().to("out")


@dsl
def sliding_early(b: StreamsBuilder) -> None:
    windows = texts(b, "in").group_by_key().windowed_by(sliding(6, grace=10))
    windows.reduce(joined, store="w").to_stream().to("out")


@dsl
def sliding_emit_on_close(b: StreamsBuilder) -> None:
    windows = texts(b, "in").group_by_key().windowed_by(sliding(5, grace=2)).emit_strategy(ON_CLOSE)
    windows.count(store=LONG_KEPT).to_stream().to("out")


@dsl
def sliding_sum_short_grace(b: StreamsBuilder) -> None:
    windows = longs(b).group_by_key().windowed_by(sliding(4, grace=2))
    windows.aggregate(lambda: 0, lambda k, v, total: total + v, store="w").to_stream().to("out")


@dsl
def unlimited_count(b: StreamsBuilder) -> None:
    windows = texts(b, "in").group_by_key().windowed_by(UnlimitedWindows.of(start_ms=10_000))
    windows.count().to_stream(lambda window, n: f"{window.key}@{window.start}", key=str).to("out")


@dsl
def window_in_memory_and_persistent(b: StreamsBuilder) -> None:
    windows = longs(b).group_by_key().windowed_by(tumbling(10, grace=5))
    windows.reduce(lambda total, v: total + v, store=Materialized(name="m", persistent=False)).to_stream().to("memory")
    windows.reduce(lambda total, v: total + v, store="d").to_stream().to("disk")


@dsl
def window_retention(b: StreamsBuilder) -> None:
    kept = Materialized(name="w", retention=timedelta(minutes=2))
    texts(b, "in").group_by_key().windowed_by(tumbling(5)).count(store=kept).to_stream().to("out")


@dsl
def windowed_aggregate_to_null(b: StreamsBuilder) -> None:
    def add(_: str, value: int, total: int) -> int | None:
        return None if total + value > 12 else total + value

    windows = longs(b).group_by_key().windowed_by(tumbling(15, grace=15))
    windows.aggregate(lambda: 0, add, store="w").to_stream().to("out")


@dsl
def windowed_count_null_values(b: StreamsBuilder) -> None:
    grouped = texts(b, "in").group_by_key()
    grouped.windowed_by(tumbling(10, grace=5)).count(store="w").to_stream().to("windowed")
    grouped.count(store="p").to_stream().to("plain")


@dsl
def windowed_to_plain_keys(b: StreamsBuilder) -> None:
    def at(window: Windowed[Any]) -> str:
        return f"{window.key}@{window.start}-{window.end}"

    windows = texts(b, "in").group_by(lambda k, v: v).windowed_by(tumbling(10, grace=2))
    windows.count(store="w").to_stream(lambda window, n: at(window), key=str).to("out")


@dsl
def extractor_per_source(b: StreamsBuilder) -> None:
    timed = b.stream("timed", key=str, value=str, timestamp_extractor=value_time)
    merged = timed.merge(texts(b, "plain"))
    merged.group_by_key().windowed_by(tumbling(10, grace=5)).count().to_stream().to("out")
