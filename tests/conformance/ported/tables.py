"""Tables and what is made of them."""

from __future__ import annotations

from streamlib import StreamsBuilder
from tests.conformance.ported.registry import dsl, texts


@dsl
def table_to_stream(b: StreamsBuilder) -> None:
    b.table("in", key=str, value=str, store="table").to_stream().to("out")


@dsl
def table_not_materialized(b: StreamsBuilder) -> None:
    b.table("in", key=str, value=str).to_stream().to("out")


@dsl
def table_out_of_order(b: StreamsBuilder) -> None:
    b.table("in", key=str, value=str, store="table").map_values(lambda v: f"{v}!").to_stream().to("out")


@dsl
def table_filter(b: StreamsBuilder) -> None:
    b.table("in", key=str, value=int).filter(lambda k, v: v >= 5).to_stream().to("out")


@dsl
def table_filter_materialized(b: StreamsBuilder) -> None:
    b.table("in", key=str, value=int).filter(lambda k, v: v >= 5, store="big").to_stream().to("out")


@dsl
def table_map_values(b: StreamsBuilder) -> None:
    table = b.table("in", key=str, value=str)
    table.map_values(lambda k, v: f"{k}-{v}", with_key=True, store="mapped").to_stream().to("out")


@dsl
def table_to_stream_rekeyed(b: StreamsBuilder) -> None:
    def key(old: str, value: int | None) -> str:
        return f"{old}-gone" if value is None else f"{old}{value % 2}"

    b.table("in", key=str, value=int).to_stream(key).to("out")


@dsl
def stream_to_table(b: StreamsBuilder) -> None:
    texts(b, "in").to_table(store="latest").to_stream().to("out")


@dsl
def stream_to_table_rekeyed(b: StreamsBuilder) -> None:
    rekeyed = texts(b, "in").select_key(lambda k, v: None if v.startswith("none") else v.partition(":")[0])
    rekeyed.to_table(store="latest").to_stream().to("out")


@dsl
def table_chain(b: StreamsBuilder) -> None:
    counts = texts(b, "in").group_by_key().count(store="counts")
    counts.filter(lambda k, n: n % 3 != 0).map_values(lambda n: f"n{n}", value=str).to_stream().to("out")


@dsl
def table_through_topic(b: StreamsBuilder) -> None:
    b.table("in", key=str, value=str).to_stream().to("mid")
    b.table("mid", key=str, value=str, store="second").map_values(lambda v: f"{v}?").to_stream().to("out")


@dsl
def table_materialized_chain(b: StreamsBuilder) -> None:
    table = b.table("in", key=str, value=int, store="src")
    odd = table.filter(lambda k, v: v % 2 == 1, store="odd")
    odd.map_values(lambda v: f"odd{v}", value=str, store="text").to_stream().to("out")
