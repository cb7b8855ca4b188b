"""Global tables and stores, and topics found by a pattern."""

from __future__ import annotations

import re
from typing import Any

from streamlib import ProcessorContext, Record, Stores, StreamsBuilder
from tests.conformance.ported.registry import dsl, shown, supplier, texts


def first_letter(key: str, value: str) -> str | None:
    return None if value.startswith("none") else value[:1]


@dsl
def global_inner(b: StreamsBuilder) -> None:
    table = b.global_table("global", key=str, value=str, store="g")
    texts(b, "stream").join(table, lambda v, g: f"{v}*{g}", key_selector=first_letter).to("out")


@dsl
def global_left(b: StreamsBuilder) -> None:
    def join(key: str, value: str, row: int | None) -> str:
        return f"{shown(key)}:{value}*{shown(row)}"

    table = b.global_table("global", key=str, value=int, store="g")
    texts(b, "stream").left_join(table, join, key_selector=first_letter, with_key=True).to("out")


@dsl
def global_store_processor(b: StreamsBuilder) -> None:
    class Keep:
        def init(self, context: ProcessorContext) -> None:
            self.rules = context.state_store("rules-store")

        def process(self, record: Record[str, str]) -> None:
            self.rules.put(record.key, record.value)

    def ask(context: ProcessorContext, record: Record[str, str]) -> None:
        rule = context.state_store("rules-store").get(record.key)
        context.forward(record.with_value(f"{record.value}*{shown(rule)}"))

    rules = Stores.key_value_store("rules-store", key=str, value=str, persistent=False)
    b.add_global_store(rules, "rules", Keep, key=str, value=str)
    texts(b, "stream").process(supplier(ask)).to("out")


@dsl
def stream_of_pattern(b: StreamsBuilder) -> None:
    def tell(context: ProcessorContext, record: Record[str, str]) -> Any:
        assert context.record_metadata is not None
        context.forward(record.with_value(f"{record.value} {context.record_metadata.topic}"))

    b.stream(re.compile("log-.*"), key=str, value=str).process(supplier(tell)).to("out")
