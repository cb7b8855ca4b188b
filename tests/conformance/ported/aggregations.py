"""Aggregations of streams."""

from __future__ import annotations

import re

from streamlib import StreamsBuilder
from tests.conformance.ported.registry import dsl, longs, texts


@dsl
def count_by_key(b: StreamsBuilder) -> None:
    texts(b, "in").group_by_key().count(store="counts").to_stream().to("out")


@dsl
def count_by_word(b: StreamsBuilder) -> None:
    grouped = texts(b, "in").group_by(lambda k, v: None if v == "none" else v)
    grouped.count(store="counts").to_stream().to("out")


@dsl
def word_count(b: StreamsBuilder) -> None:
    (
        b.stream("in", key=None, value=str)
        .flat_map_values(lambda v: v.split(" "))
        .group_by(lambda k, w: w, key=str, name="by-word")
        .count(store="counts")
        .to_stream()
        .to("out")
    )


@dsl
def group_by_key_after_rekey(b: StreamsBuilder) -> None:
    stream = longs(b)
    rekeyed = stream.select_key(lambda k, v: f"{k}{v % 2}")
    rekeyed.group_by_key().count(store="r").to_stream().to("rekeyed")
    stream.map_values(lambda v: v + 1).group_by_key().count(store="p").to_stream().to("plain")


@dsl
def reduce_sum(b: StreamsBuilder) -> None:
    longs(b).group_by_key().reduce(lambda total, v: total + v, store="sums").to_stream().to("out")


@dsl
def reduce_tail(b: StreamsBuilder) -> None:
    def tail(old: str, value: str) -> str:
        return ",".join([*old.split(","), value][-3:])

    texts(b, "in").group_by_key().reduce(tail, store="tails").to_stream().to("out")


def member(json: str, name: str) -> str:
    """Text of one member of a flat JSON object, without quotes."""
    found = re.search(rf'"{name}":"?([^",}}]*)', json)
    assert found is not None
    return found[1]


@dsl
def aggregate_stats(b: StreamsBuilder) -> None:
    def stats(n: int, total: int, largest: int) -> str:
        return f'{{"n":{n},"sum":{total},"max":{largest}}}'

    def add(_: str, value: str, old: str) -> str:
        quantity = int(member(value, "qty"))
        total, largest = int(member(old, "sum")) + quantity, max(int(member(old, "max")), quantity)
        return stats(int(member(old, "n")) + 1, total, largest)

    grouped = texts(b, "in").group_by(lambda k, v: member(v, "item"))
    grouped.aggregate(lambda: stats(0, 0, 0), add, store="stats").to_stream().to("out")


@dsl
def aggregate_to_null(b: StreamsBuilder) -> None:
    def add(_: str, value: int, total: int) -> int | None:
        return None if total + value > 12 else total + value

    longs(b).group_by_key().aggregate(lambda: 0, add, store="sums").to_stream().to("out")


@dsl
def two_aggregations_of_one_group(b: StreamsBuilder) -> None:
    grouped = longs(b).group_by_key()
    grouped.count(store="c").to_stream().to("counts")
    grouped.reduce(max, store="m").to_stream().to("maxima")


@dsl
def two_hop_aggregation(b: StreamsBuilder) -> None:
    (
        texts(b, "in")
        .group_by(lambda k, v: k + v)
        .count()
        .to_stream()
        .group_by(lambda k, n: k[:1])
        .reduce(max, store="last")
        .to_stream()
        .to("out")
    )


@dsl
def uncached_count(b: StreamsBuilder) -> None:
    words = texts(b, "in").flat_map_values(lambda v: v.split(" "))
    words.group_by_key().count(store="counts").to_stream().to("out")
