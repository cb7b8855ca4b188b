"""Operators without state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from streamlib import KStream, ProcessorContext, Record, Stores, StreamsBuilder
from tests.conformance.ported.registry import INTEGER, dsl, longs, supplier, texts


@dsl
def filter_keep(b: StreamsBuilder) -> None:
    def keep(_: str, value: int | None) -> bool:
        return value is None or value >= 5

    longs(b).filter(keep).to("out")


@dsl
def filter_not_word(b: StreamsBuilder) -> None:
    texts(b, "in").filter_not(lambda k, v: v.startswith("b") or k == "a").to("out")


@dsl
def map_key_and_value(b: StreamsBuilder) -> None:
    longs(b).map(lambda k, v: (v * 2, f"{k}:{v}"), key=int, value=str).to("out")


@dsl
def map_values_upper(b: StreamsBuilder) -> None:
    def upper(value: str | None) -> str:
        return "none" if value is None else value.upper()

    texts(b, "in").map_values(upper).to("out")


@dsl
def map_values_with_key(b: StreamsBuilder) -> None:
    longs(b).map_values(lambda k, v: None if v == 0 else f"{k}{v}", with_key=True, value=str).to("out")


@dsl
def flat_map_words(b: StreamsBuilder) -> None:
    def words(_: str, sentence: str) -> Iterator[tuple[str, int]]:
        return ((word, len(word)) for word in sentence.split(" ") if word)

    texts(b, "in").flat_map(words).to("out")


@dsl
def flat_map_values_split(b: StreamsBuilder) -> None:
    texts(b, "in").flat_map_values(lambda v: v.split(" ") if v else []).to("out")


@dsl
def flat_map_values_with_key(b: StreamsBuilder) -> None:
    numbers = b.stream("in", key=str, value=INTEGER)
    numbers.flat_map_values(lambda k, v: [f"{k}{v}"] * v, with_key=True, value=str).to("out")


@dsl
def select_key_from_value(b: StreamsBuilder) -> None:
    texts(b, "in").select_key(lambda k, v: None if v == "none" else v[:1]).to("out")


@dsl
def split_with_default(b: StreamsBuilder) -> None:
    branches = (
        longs(b)
        .split(name="by-")
        .branch(lambda k, v: v < 3, name="small")
        .branch(lambda k, v: v % 2 == 0, name="even")
        .default_branch(name="rest")
    )
    for name in ("small", "even", "rest"):
        branches[f"by-{name}"].to(name)


@dsl
def split_no_default(b: StreamsBuilder) -> None:
    split = texts(b, "in").split(name="c-")
    split.branch(lambda k, v: v == "red", name="red").branch(lambda k, v: v == "blue", name="blue")
    branches = split.no_default_branch()
    branches["c-red"].to("reds")
    branches["c-blue"].to("blues")


@dsl
def split_in_place(b: StreamsBuilder) -> None:
    def low(stream: KStream[str, int]) -> None:
        stream.map_values(lambda v: v * 100).to("low")

    branches = (
        longs(b)
        .split(name="x-")
        .branch(lambda k, v: v < 5, name="low", then=low)
        .default_branch(name="high", then=lambda stream: stream.map_values(lambda v: v + 1))
    )
    assert list(branches) == ["x-high"]
    branches["x-high"].map_values(lambda v: f"high{v}", value=str).to("high")


@dsl
def merge_two(b: StreamsBuilder) -> None:
    texts(b, "left").merge(texts(b, "right")).to("out")


@dsl
def peek_and_terminal_process(b: StreamsBuilder) -> None:
    def count(context: ProcessorContext, record: Record[str, str]) -> None:
        seen = context.state_store("seen")
        seen.put(record.key, (seen.get(record.key) or 0) + 1)

    b.add_state_store(Stores.key_value_store("seen", key=str, value=int, persistent=False))
    stream = texts(b, "in").peek(lambda k, v: None)
    stream.process(supplier(count), "seen")
    stream.to("out")


@dsl
def stream_of_several_topics(b: StreamsBuilder) -> None:
    texts(b, "one", "two", "three").map_values(lambda k, v: f"{k}/{v}", with_key=True).to("out")


@dsl
def numeric_types(b: StreamsBuilder) -> None:
    numbers = b.stream("in", key=int, value=INTEGER)
    numbers.map(lambda k, v: (v, v * v), key=INTEGER).to("ints")
    numbers.map_values(lambda k, v: k + v, with_key=True, value=int).to("longs")
    numbers.map(lambda k, v: (f"k{k}", f"v{v}"), key=str, value=str).to("text")


@dsl
def fan_out_order(b: StreamsBuilder) -> None:
    stream = longs(b)
    plus = stream.map_values(lambda v: v + 1)
    plus.to("first")
    stream.to("second")
    plus.map_values(lambda v: v * 10).to("third")
    stream.flat_map_values(lambda v: [v, -v]).to("first")


@dsl
def diamond_merge(b: StreamsBuilder) -> None:
    stream = longs(b)
    big = stream.filter(lambda k, v: v > 4).map_values(lambda v: f"big{v}", value=str)
    everything = stream.map_values(lambda v: f"all{v}", value=str)
    everything.merge(big).to("out")


@dsl
def through_topic(b: StreamsBuilder) -> None:
    longs(b).map_values(lambda v: v + 100).to("mid")
    longs(b, "mid").map_values(lambda k, v: f"{k}={v}", with_key=True, value=str).to("out")


@dsl
def repartition_named(b: StreamsBuilder) -> None:
    (
        texts(b, "in")
        .select_key(lambda k, v: None if v == "none" else v)
        .repartition(name="by-word", partitions=1)
        .map_values(lambda k, v: f"{k}<{v}", with_key=True)
        .to("out")
    )


@dsl
def dynamic_topic(b: StreamsBuilder) -> None:
    def choose(_: str, value: int, context: Any) -> str:
        if context.offset % 10 == 9:
            return "out-late"
        return "out-even" if value % 2 == 0 else "out-odd"

    longs(b).to(choose)


@dsl
def headers_pass_through(b: StreamsBuilder) -> None:
    (
        longs(b)
        .filter(lambda k, v: v > 0)
        .map(lambda k, v: (f"{k}{v}", v))
        .flat_map_values(lambda v: [f"x{v}", f"y{v}"], value=str)
        .select_key(lambda k, v: v)
        .to("out")
    )


@dsl
def headers_through_repartition_and_count(b: StreamsBuilder) -> None:
    by_word = texts(b, "in").select_key(lambda k, v: v).repartition()
    by_word.to("out")
    by_word.group_by_key().count(store="counts-store").to_stream().to("counts")


@dsl
def process_headers_and_timestamp(b: StreamsBuilder) -> None:
    def process(context: ProcessorContext, record: Record[str, int]) -> None:
        if record.value == 0:
            return
        traces = [value for name, value in record.headers if name == "trace"]
        trace = "absent" if not traces else "null" if traces[-1] is None else traces[-1].decode()
        context.forward(record.with_value(f"{trace}{record.value}").with_timestamp(record.timestamp + 1000))
        if record.value > 6:
            kept = [(name, value) for name, value in record.headers if name != "kind"]
            second = record.with_value("second").with_timestamp(0)
            context.forward(second.with_headers([*kept, ("added", record.key.encode())]))

    longs(b).process(supplier(process), value=str).to("out")


@dsl
def record_metadata(b: StreamsBuilder) -> None:
    def process(context: ProcessorContext, record: Record[str, str]) -> None:
        meta = context.record_metadata
        assert meta is not None
        context.forward(record.with_value(f"{record.value} {meta.topic}-{meta.partition}@{meta.offset}"))

    texts(b, "one", "two").process(supplier(process)).to("out")


@dsl
def stream_time_and_wall_clock(b: StreamsBuilder) -> None:
    def process(context: ProcessorContext, record: Record[str, str]) -> None:
        context.forward(record.with_value(f"{context.stream_time_ms} {context.system_time_ms}"))

    texts(b, "one", "two").process(supplier(process)).to("out")


@dsl
def forward_to_named_child(b: StreamsBuilder) -> None:
    def process(context: ProcessorContext, record: Record[str, int]) -> None:
        context.forward(record, "go-left" if record.value < 4 else "go-right" if record.value < 8 else None)

    routed = longs(b).process(supplier(process), name="router")
    routed.map_values(lambda v: f"l{v}", value=str, name="go-left").to("left")
    routed.map_values(lambda v: f"r{v}", value=str, name="go-right").to("right")
