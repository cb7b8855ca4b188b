"""Joins of two streams."""

from __future__ import annotations

from datetime import timedelta

from streamlib import JoinWindows, Materialized, StreamsBuilder, TimeWindows
from tests.conformance.ported.registry import dsl, longs, shown, texts


def ms(milliseconds: int) -> timedelta:
    return timedelta(milliseconds=milliseconds)


def within(difference: int, grace: int) -> JoinWindows:
    return JoinWindows.of_time_difference(ms(difference), grace=ms(grace))


def plus(left: str | None, right: str | None) -> str:
    return f"{shown(left)}+{shown(right)}"


@dsl
def stream_join_inner(b: StreamsBuilder) -> None:
    texts(b, "left").join(texts(b, "right"), plus, within(5_000, 10_000)).to("out")


@dsl
def stream_join_no_grace(b: StreamsBuilder) -> None:
    texts(b, "left").join(texts(b, "right"), plus, within(5_000, 0)).to("out")


@dsl
def stream_join_asymmetric(b: StreamsBuilder) -> None:
    texts(b, "left").join(texts(b, "right"), plus, within(2_000, 8_000).after(ms(6_000))).to("out")


@dsl
def stream_join_same_time(b: StreamsBuilder) -> None:
    texts(b, "left").join(texts(b, "right"), plus, within(0, 5_000)).to("out")


@dsl
def stream_join_future_only(b: StreamsBuilder) -> None:
    texts(b, "left").join(texts(b, "right"), plus, within(6_000, 6_000).before(ms(-2_000))).to("out")


@dsl
def stream_join_left(b: StreamsBuilder) -> None:
    texts(b, "left").left_join(texts(b, "right"), plus, within(4_000, 6_000)).to("out")


@dsl
def stream_join_left_no_grace(b: StreamsBuilder) -> None:
    texts(b, "left").left_join(texts(b, "right"), plus, within(4_000, 0)).to("out")


@dsl
def stream_join_left_asymmetric(b: StreamsBuilder) -> None:
    texts(b, "left").left_join(texts(b, "right"), plus, within(5_000, 3_000).before(ms(1_000))).to("out")


@dsl
def stream_join_outer(b: StreamsBuilder) -> None:
    texts(b, "left").outer_join(texts(b, "right"), plus, within(4_000, 5_000)).to("out")


@dsl
def stream_join_outer_asymmetric(b: StreamsBuilder) -> None:
    texts(b, "left").outer_join(texts(b, "right"), plus, within(6_000, 0).after(ms(2_000))).to("out")


@dsl
def stream_join_null_keys(b: StreamsBuilder) -> None:
    left, right = texts(b, "left"), texts(b, "right")
    left.left_join(right, plus, within(4_000, 4_000)).to("left-out")
    left.outer_join(right, plus, within(4_000, 4_000)).to("outer-out")


@dsl
def stream_join_left_eager(b: StreamsBuilder) -> None:
    texts(b, "left").left_join(texts(b, "right"), plus, JoinWindows.eager(ms(4_000))).to("out")


@dsl
def stream_join_rekeyed(b: StreamsBuilder) -> None:
    left, right = (texts(b, topic).select_key(lambda k, v: v.partition(":")[0]) for topic in ("left", "right"))
    left.join(right, lambda k, x, y: f"{k}/{x}/{y}", within(6_000, 6_000), with_key=True).to("out")


@dsl
def stream_join_left_rekeyed_null(b: StreamsBuilder) -> None:
    def word(_: str, value: str) -> str | None:
        return None if value.startswith("none") else value.partition(":")[0]

    left = texts(b, "left").select_key(word)
    left.left_join(texts(b, "right").select_key(word), plus, within(4_000, 4_000)).to("out")


@dsl
def stream_self_join(b: StreamsBuilder) -> None:
    stream = texts(b, "in")
    stream.join(stream, plus, within(4_000, 4_000)).to("out")


@dsl
def stream_self_join_optimized(b: StreamsBuilder) -> None:
    stream_self_join(b)


@dsl
def stream_join_in_memory(b: StreamsBuilder) -> None:
    stores = tuple(Materialized(name=f"{side}-store", persistent=False) for side in ("left", "right"))
    joined = longs(b, "left").join(
        longs(b, "right"), lambda x, y: x * 10 + y, within(5_000, 7_000), store=(stores[0], stores[1])
    )
    joined.to("out")


@dsl
def stream_join_then_windowed_count(b: StreamsBuilder) -> None:
    joined = texts(b, "left").join(texts(b, "right"), lambda x, y: x + y, within(4_000, 8_000))
    windows = TimeWindows.of_size(ms(10_000), grace=ms(10_000))
    joined.group_by_key().windowed_by(windows).count(store="w").to_stream().to("out")


@dsl
def stream_join_chain(b: StreamsBuilder) -> None:
    def both(one: str, other: str | None) -> str:
        return one + shown(other)

    pairs = texts(b, "one").join(texts(b, "two"), both, within(5_000, 5_000))
    pairs.left_join(texts(b, "three"), both, within(3_000, 3_000)).to("out")


@dsl
def stream_join_headers(b: StreamsBuilder) -> None:
    texts(b, "left").outer_join(texts(b, "right"), plus, within(4_000, 3_000)).to("out")
