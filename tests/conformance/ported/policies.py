"""Records that fail, and what becomes of them; the policies are in the cases' configurations."""

from __future__ import annotations

from streamlib import StreamsBuilder
from tests.conformance.ported.registry import dsl, longs, texts


@dsl
def poison_skipped(b: StreamsBuilder) -> None:
    longs(b).group_by_key().reduce(lambda one, two: one + two, store="sums").to_stream().to("out")


@dsl
def poison_to_dead_letters(b: StreamsBuilder) -> None:
    longs(b).map_values(lambda v: v + 1).to("out")


@dsl
def processing_error_skipped(b: StreamsBuilder) -> None:
    def upper(value: str) -> str:
        if value == "boom":
            raise ValueError("boom")
        return value.upper()

    stream = texts(b, "in")
    stream.to("before")
    stream.map_values(upper).to("out")
    stream.map_values(lambda v: f"{v}!").to("after")
