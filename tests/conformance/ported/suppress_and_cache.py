"""Suppression, the record cache, stores that keep the latest used."""

from __future__ import annotations

from datetime import timedelta
from operator import add

from streamlib import (
    BufferConfig,
    Materialized,
    SessionWindows,
    SlidingWindows,
    StreamsBuilder,
    Suppressed,
    TimeWindows,
)
from tests.conformance.ported.registry import dsl, longs, texts


@dsl
def suppress_time_limit(b: StreamsBuilder) -> None:
    table = b.table("in", key=str, value=str)
    limit = Suppressed.until_time_limit(timedelta(seconds=6), BufferConfig.unbounded())
    table.suppress(limit).to_stream().to("out")


@dsl
def suppress_emit_early_when_full(b: StreamsBuilder) -> None:
    counts = texts(b, "in").group_by_key().count(store="counts")
    limit = Suppressed.until_time_limit(timedelta(seconds=30), BufferConfig.max_records(2))
    counts.suppress(limit).to_stream().to("out")


@dsl
def suppress_time_limit_zero(b: StreamsBuilder) -> None:
    limit = Suppressed.until_time_limit(timedelta(0), BufferConfig.unbounded())
    texts(b, "in").group_by_key().count().suppress(limit).to_stream().to("out")


@dsl
def suppress_then_group_by(b: StreamsBuilder) -> None:
    limit = Suppressed.until_time_limit(timedelta(seconds=5), BufferConfig.unbounded())
    released = b.table("in", key=str, value=str).suppress(limit)
    released.group_by(lambda k, v: (v, k)).count(store="counts").to_stream().to("out")


FINAL = Suppressed.until_window_closes(BufferConfig.unbounded())


@dsl
def suppress_tumbling(b: StreamsBuilder) -> None:
    windows = TimeWindows.of_size(timedelta(seconds=10), grace=timedelta(seconds=3))
    counts = texts(b, "in").group_by_key().windowed_by(windows).count(store="w")
    counts.suppress(FINAL).to_stream().to("out")


@dsl
def suppress_hopping(b: StreamsBuilder) -> None:
    windows = TimeWindows.of_size(timedelta(seconds=10), grace=timedelta(0)).advance_by(timedelta(seconds=5))
    sums = longs(b).group_by_key().windowed_by(windows).reduce(add)
    sums.suppress(FINAL).to_stream().to("out")


@dsl
def suppress_session(b: StreamsBuilder) -> None:
    windows = SessionWindows.of_inactivity_gap(timedelta(seconds=4), grace=timedelta(seconds=3))
    counts = texts(b, "in").group_by_key().windowed_by(windows).count()
    counts.suppress(FINAL).to_stream().to("out")


@dsl
def suppress_sliding(b: StreamsBuilder) -> None:
    windows = SlidingWindows.of_time_difference(timedelta(seconds=4), grace=timedelta(seconds=3))
    counts = texts(b, "in").group_by_key().windowed_by(windows).count()
    counts.suppress(FINAL).to_stream().to("out")


@dsl
def suppress_shut_down_when_full(b: StreamsBuilder) -> None:
    windows = TimeWindows.of_size(timedelta(seconds=10), grace=timedelta(0))
    strict = Suppressed.until_window_closes(BufferConfig.max_records(3).shut_down_when_full())
    counts = texts(b, "in").group_by_key().windowed_by(windows).count()
    counts.suppress(strict).to_stream().to("out")


@dsl
def cached_count(b: StreamsBuilder) -> None:
    words = texts(b, "in").flat_map_values(lambda v: v.split(" "))
    words.group_by_key().count(store="counts").to_stream().to("out")


@dsl
def lru_count(b: StreamsBuilder) -> None:
    lru = Materialized(name="lru", max_entries=3)
    texts(b, "in").group_by_key().count(store=lru).to_stream().to("out")


@dsl
def window_cached(b: StreamsBuilder) -> None:
    words = texts(b, "in").flat_map_values(lambda v: v.split(" "))
    windows = TimeWindows.of_size(timedelta(seconds=10), grace=timedelta(seconds=5))
    words.group_by_key().windowed_by(windows).count(store="w").to_stream().to("out")
