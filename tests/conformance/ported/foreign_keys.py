"""Joins of tables by foreign key."""

from __future__ import annotations

from streamlib import KTable, StreamsBuilder
from tests.conformance.ported.registry import dsl, shown


def text_table(b: StreamsBuilder, topic: str) -> KTable[str, str]:
    return b.table(topic, key=str, value=str)


def unless_none(value: str) -> str | None:
    return None if value.startswith("none") else value[:2]


def both(left: str, right: str | None) -> str:
    return f"{left}&{shown(right)}"


@dsl
def foreign_key_inner(b: StreamsBuilder) -> None:
    joined = text_table(b, "left").join(text_table(b, "right"), both, foreign_key=lambda v: v[:2], store="joined")
    joined.to_stream().to("out")


@dsl
def foreign_key_left(b: StreamsBuilder) -> None:
    joined = text_table(b, "left").left_join(text_table(b, "right"), both, foreign_key=unless_none, store="joined")
    joined.to_stream().to("out")


@dsl
def foreign_key_nulls(b: StreamsBuilder) -> None:
    text_table(b, "left").join(text_table(b, "right"), both, foreign_key=unless_none).to_stream().to("out")


@dsl
def foreign_key_from_key_and_value(b: StreamsBuilder) -> None:
    left = b.table("left", key=int, value=str)
    joined = left.join(
        text_table(b, "right"),
        both,
        foreign_key=lambda k, v: f"{v}{k % 2}",
        foreign_key_with_key=True,
        name="fk",
        store="joined",
    )
    joined.to_stream().to("out")


@dsl
def foreign_key_self(b: StreamsBuilder) -> None:
    staff = text_table(b, "staff")
    joined = staff.left_join(staff, lambda e, m: f"{e} under {shown(m)}", foreign_key=lambda v: v[:1])
    joined.to_stream().to("out")


@dsl
def foreign_key_then_sum(b: StreamsBuilder) -> None:
    orders, customers = text_table(b, "orders"), text_table(b, "customers")
    placed = orders.join(customers, lambda o, c: c + o[2:], foreign_key=lambda o: o[:2])

    def by_region(key: str, value: str) -> tuple[str, int]:
        region, _, quantity = value.partition(":")
        return region, int(quantity)

    totals = placed.group_by(by_region).reduce(lambda a, b: a + b, lambda total, old: total - old, store="per-region")
    totals.to_stream().to("out")


@dsl
def foreign_key_chain(b: StreamsBuilder) -> None:
    items, boxes = text_table(b, "items"), text_table(b, "boxes")
    packed = items.join(boxes, lambda i, box: f"{box}<{i}", foreign_key=lambda i: i[:2])
    loaded = packed.left_join(
        text_table(b, "trucks"), lambda p, truck: f"{shown(truck)}<{p}", foreign_key=lambda p: p[:2]
    )
    loaded.to_stream().to("out")
