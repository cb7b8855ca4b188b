"""Tables joined with tables by key, and tables transformed."""

from __future__ import annotations

from operator import add, sub

from streamlib import KTable, ProcessorContext, Stores, StreamsBuilder
from tests.conformance.ported.registry import dsl, shown, texts
from tests.conformance.ported.table_groups import group_and_number


def text_table(builder: StreamsBuilder, topic: str) -> KTable[str, str]:
    return builder.table(topic, key=str, value=str)


def both(left: object, right: object) -> str:
    return f"{shown(left)}&{shown(right)}"


def together(left: str, right: str | None) -> str:
    return left + shown(right)


@dsl
def table_join_inner(b: StreamsBuilder) -> None:
    text_table(b, "left").join(text_table(b, "right"), both, store="joined").to_stream().to("out")


@dsl
def table_join_inner_plain(b: StreamsBuilder) -> None:
    text_table(b, "left").join(text_table(b, "right"), both).to_stream().to("out")


@dsl
def table_join_left(b: StreamsBuilder) -> None:
    text_table(b, "left").left_join(text_table(b, "right"), both, store="joined").to_stream().to("out")


@dsl
def table_join_outer(b: StreamsBuilder) -> None:
    text_table(b, "left").outer_join(text_table(b, "right"), both, store="joined").to_stream().to("out")


@dsl
def table_join_chain(b: StreamsBuilder) -> None:
    first = text_table(b, "one").join(text_table(b, "two"), together)
    first.left_join(text_table(b, "three"), together).to_stream().to("out")


@dsl
def table_join_outer_chain(b: StreamsBuilder) -> None:
    first = text_table(b, "one").outer_join(text_table(b, "two"), lambda x, y: f"{shown(x)},{shown(y)}")
    all_three = first.outer_join(text_table(b, "three"), lambda x, y: f"{shown(x)};{shown(y)}", store="all")
    all_three.to_stream().to("out")


@dsl
def table_join_filtered(b: StreamsBuilder) -> None:
    left = b.table("left", key=str, value=int).filter(lambda k, v: v > 2)
    right = b.table("right", key=str, value=int).filter(lambda k, v: v % 2 == 0)
    left.left_join(right, both, store="joined").to_stream().to("out")


@dsl
def table_join_then_sum(b: StreamsBuilder) -> None:
    left, right = text_table(b, "left"), b.table("right", key=str, value=int)
    joined = left.join(right, lambda text, number: f"{text}:{number}")
    joined.group_by(group_and_number).reduce(add, sub, store="sums").to_stream().to("out")


@dsl
def table_join_with_count(b: StreamsBuilder) -> None:
    def named(count: int | None, name: str | None) -> str:
        return f"{shown(name)}={shown(count)}"

    counts = texts(b, "events").group_by_key().count(store="counts")
    counts.outer_join(text_table(b, "names"), named).to_stream().to("out")


@dsl
def table_self_join(b: StreamsBuilder) -> None:
    table = b.table("in", key=str, value=int)
    table.join(table.map_values(lambda v: v * 10), both).to_stream().to("out")


@dsl
def table_transform_values(b: StreamsBuilder) -> None:
    class Numbered:
        def init(self, context: ProcessorContext) -> None:
            self.revisions = context.state_store("revs")

        def transform(self, key: str, value: str | None) -> str | None:
            self.revisions.put(key, (self.revisions.get(key) or 0) + 1)
            return None if value is None else f"{value}#{self.revisions.get(key)}"

    b.add_state_store(Stores.key_value_store("revs", key=str, value=int))
    text_table(b, "in").transform_values(Numbered, "revs", store="numbered").to_stream().to("out")
