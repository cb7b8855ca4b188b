"""Topologies built with `StreamsBuilder(optimize=True)`, as `topology.optimization=all` in their configuration asks."""

from __future__ import annotations

from streamlib import StreamsBuilder
from tests.conformance.ported.registry import dsl, texts


@dsl
def merged_repartition(b: StreamsBuilder) -> None:
    by_word = texts(b, "in").map(lambda k, v: (v, k))
    by_word.group_by_key().count(store="c").to_stream().to("counts")
    by_word.group_by_key().reduce(lambda one, two: one + two, store="l").to_stream().to("lasts")
