"""Tables under new keys, and folded by them."""

from __future__ import annotations

from datetime import timedelta
from operator import add, sub

from streamlib import StreamsBuilder
from streamlib.windows import TimeWindows
from tests.conformance.ported.registry import dsl, texts


def group_and_number(key: str, value: str) -> tuple[str, int]:
    """`"group:5"` counts 5 towards its group."""
    group, _, number = value.partition(":")
    return group, int(number)


@dsl
def table_filter_then_count(b: StreamsBuilder) -> None:
    table = b.table("in", key=str, value=int).filter_not(lambda k, v: v < 5)
    table.group_by(lambda k, v: ("big", v)).count(store="count").to_stream().to("out")


@dsl
def table_group_by_count(b: StreamsBuilder) -> None:
    rows = b.table("in", key=str, value=str, store="rows")
    rows.group_by(lambda k, v: (v, k)).count(store="counts").to_stream().to("out")


@dsl
def table_group_by_members(b: StreamsBuilder) -> None:
    def joined(group: str, member: str, members: str) -> str:
        return ",".join(sorted([*(members.split(",") if members else ()), member]))

    def gone(group: str, member: str, members: str) -> str:
        rest = members.split(",")
        rest.remove(member)
        return ",".join(rest)

    grouped = b.table("in", key=str, value=str).group_by(lambda k, v: (v, k))
    grouped.aggregate(str, joined, gone, store="members").to_stream().to("out")


@dsl
def table_group_by_reduce(b: StreamsBuilder) -> None:
    grouped = b.table("in", key=str, value=str).group_by(group_and_number)
    grouped.reduce(add, sub, store="sums").to_stream().to("out")


@dsl
def table_group_by_same_key(b: StreamsBuilder) -> None:
    def added(key: str, value: int, log: str) -> str | None:
        return None if value == 7 else f"{log}+{value}"

    def removed(key: str, value: int, log: str) -> str:
        return "cut" if len(log) > 12 else f"{log}-{value}"

    grouped = b.table("in", key=str, value=int).group_by(lambda k, v: (k, None if v == 9 else v))
    grouped.aggregate(lambda: "0", added, removed, store="log").to_stream().to("out")


@dsl
def count_of_counts(b: StreamsBuilder) -> None:
    counts = texts(b, "in").group_by_key().count(store="per-key")
    counts.group_by(lambda k, n: (n, k), key=int, value=str).count(store="per-count").to_stream().to("out")


@dsl
def windowed_table_regrouped(b: StreamsBuilder) -> None:
    windows = TimeWindows.of_size(timedelta(seconds=8), grace=timedelta(seconds=8))
    busy = texts(b, "in").group_by_key().windowed_by(windows).count().filter(lambda k, n: n >= 2)
    busy.group_by(lambda k, n: (k.key, n), key=str).count(store="busy").to_stream().to("out")
