"""Versioned stores, and what is built on tables kept in them."""

from __future__ import annotations

from datetime import timedelta
from operator import add, sub
from typing import Any

from streamlib import KTable, Materialized, ProcessorContext, Record, Stores, StreamsBuilder, VersionedRecord
from tests.conformance.ported.registry import dsl, shown, texts


def versioned(name: str, **history: float) -> Materialized:
    return Materialized(name=name, history_retention=timedelta(**history))


def versioned_texts(builder: StreamsBuilder, topic: str, store: Materialized) -> KTable[str, str]:
    return builder.table(topic, key=str, value=str, store=store)


@dsl
def versioned_table_to_stream(b: StreamsBuilder) -> None:
    versioned_texts(b, "in", versioned("rows", seconds=20)).to_stream().to("out")


@dsl
def versioned_table_group_by(b: StreamsBuilder) -> None:
    rows = versioned_texts(b, "in", versioned("rows", seconds=60))
    rows.group_by(lambda k, v: (v, k)).count(store="counts").to_stream().to("out")


@dsl
def versioned_table_filter_then_sum(b: StreamsBuilder) -> None:
    rows = b.table("in", key=str, value=int, store=versioned("rows", seconds=60)).filter(lambda k, v: v > 2)
    grouped = rows.group_by(lambda k, v: ("odd" if v % 2 else "even", v))
    grouped.reduce(add, sub, store="sums").to_stream().to("out")


@dsl
def versioned_count(b: StreamsBuilder) -> None:
    texts(b, "in").group_by_key().count(store=versioned("counts", seconds=60)).to_stream().to("out")


@dsl
def versioned_store_processor(b: StreamsBuilder) -> None:
    def told(version: VersionedRecord[str] | None) -> str:
        return "none" if version is None else f"{version.value} from {version.timestamp}"

    class Commanded:
        def init(self, context: ProcessorContext) -> None:
            self.context, self.store = context, context.state_store("v")

        def process(self, record: Record[str, str]) -> None:
            self.context.forward(record.with_value(self.answer(record, *record.value.split(" "))))

        def answer(self, record: Record[str, str], command: str, *words: Any) -> str:
            key, store = record.key, self.store
            match command:
                case "put":
                    return f"put {store.put(key, f'p{words[0]}', record.timestamp)}"
                case "putat":
                    return f"put {store.put(key, f'q{words[1]}', int(words[0]))}"
                case "get":
                    return told(store.get(key))
                case "asof":
                    return told(store.get(key, int(words[0])))
                case _:
                    return f"deleted {told(store.delete(key, record.timestamp))}"

    history = timedelta(seconds=25)
    b.add_state_store(Stores.versioned_key_value_store("v", key=str, value=str, history_retention=history))
    texts(b, "in").process(Commanded, "v").to("out")


@dsl
def stream_table_versioned(b: StreamsBuilder) -> None:
    table = versioned_texts(b, "table", versioned("rows", seconds=30))
    texts(b, "stream").join(table, lambda s, t: f"{s}*{t}").to("out")


@dsl
def table_join_versioned(b: StreamsBuilder) -> None:
    left = versioned_texts(b, "left", versioned("l", minutes=1))
    right = versioned_texts(b, "right", versioned("r", minutes=1))
    left.left_join(right, lambda x, y: f"{x}&{shown(y)}").to_stream().to("out")


@dsl
def stream_table_grace(b: StreamsBuilder) -> None:
    table = versioned_texts(b, "table", versioned("rows", minutes=1))
    texts(b, "stream").join(table, lambda s, t: f"{s}*{t}", grace=timedelta(seconds=5), name="buffered").to("out")


@dsl
def stream_table_grace_left(b: StreamsBuilder) -> None:
    table = versioned_texts(b, "table", versioned("rows", minutes=1))
    joined = texts(b, "stream").left_join(
        table, lambda s, t: f"{s}*{shown(t)}", grace=timedelta(seconds=4), name="buffered"
    )
    joined.to("out")
