"""Joins of streams with tables."""

from __future__ import annotations

from streamlib import StreamsBuilder
from tests.conformance.ported.registry import dsl, shown, texts


@dsl
def stream_table_inner(b: StreamsBuilder) -> None:
    table = b.table("table", key=str, value=str, store="rows")
    texts(b, "stream").join(table, lambda s, t: f"{s}*{t}").to("out")


@dsl
def stream_table_left(b: StreamsBuilder) -> None:
    stream, table = texts(b, "stream"), b.table("table", key=str, value=str)
    stream.left_join(table, lambda k, s, t: f"{shown(k)}:{s}*{shown(t)}", with_key=True).to("out")


@dsl
def stream_table_rekeyed(b: StreamsBuilder) -> None:
    stream = texts(b, "stream").select_key(lambda k, v: v[:1])
    stream.join(b.table("table", key=str, value=str), lambda s, t: f"{s}*{t}", name="enrich").to("out")


@dsl
def stream_table_own_count(b: StreamsBuilder) -> None:
    stream = texts(b, "in")
    counts = stream.group_by_key().count()
    stream.join(counts, lambda v, n: f"{v}#{n}").to("out")


@dsl
def stream_table_derived(b: StreamsBuilder) -> None:
    table = b.table("table", key=str, value=int).filter(lambda k, v: v > 3).map_values(lambda v: f"t{v}", value=str)
    texts(b, "stream").left_join(table, lambda s, t: f"{s}*{shown(t)}").to("out")
