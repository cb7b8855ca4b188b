"""Processors, their stores, and topologies made node by node."""

from __future__ import annotations

from typing import Any

from streamlib import (
    FixedKeyProcessorContext,
    FixedKeyRecord,
    Materialized,
    ProcessorContext,
    Record,
    Stores,
    StreamsBuilder,
    Topology,
)
from tests.conformance.ported.registry import dsl, longs, raw, shown, supplier, texts
from tests.conformance.ported.times_and_errors import value_time


@dsl
def store_key_value(b: StreamsBuilder) -> None:
    def process(context: ProcessorContext, record: Record[str, str]) -> None:
        kv = context.state_store("kv")
        match record.value.split(" "):
            case ["put", value]:
                kv.put(record.key, None if value == "null" else value)
            case ["get"]:
                context.forward(record.with_value(f"get {shown(kv.get(record.key))}"))
            case ["del"]:
                context.forward(record.with_value(f"deleted {shown(kv.delete(record.key))}"))
            case [_, value]:
                context.forward(record.with_value(f"was {shown(kv.put_if_absent(record.key, value))}"))

    b.add_state_store(Stores.key_value_store("kv", key=str, value=str))
    texts(b, "in").process(supplier(process), "kv").to("out")


@dsl
def store_ranges(b: StreamsBuilder) -> None:
    class Ranges:
        def init(self, context: ProcessorContext) -> None:
            self.context, self.kv = context, context.state_store("kv")
            self.puts = 0

        def process(self, record: Record[str, str]) -> None:
            if record.value == "put":
                self.kv.put(record.key, f"v{self.puts}")
                self.puts += 1
                return
            found = "".join(f"{key}={value} " for key, value in self.rows(record))
            self.context.forward(record.with_value(f"{record.value}: {found}"))

        def rows(self, record: Record[str, str]) -> Any:
            kv = self.kv
            return {
                "range": lambda: kv.range("a5", "b"),
                "rrange": lambda: kv.reverse_range("a", "c"),
                "all": kv.all,
                "rall": kv.reverse_all,
                "prefix": lambda: kv.prefix_scan(record.key[:1]),
                "from": lambda: kv.range(record.key, None),
                "to": lambda: kv.range(None, record.key),
            }[record.value]()

    b.add_state_store(Stores.key_value_store("kv", key=str, value=str))
    texts(b, "in").process(Ranges, "kv").to("out")


@dsl
def store_ranges_long_keys(b: StreamsBuilder) -> None:
    def process(context: ProcessorContext, record: Record[int, str]) -> None:
        kv = context.state_store("kv")
        if record.value == "put":
            kv.put(record.key, f"x{record.key}")
            return
        ways = {"all": kv.all, "rall": kv.reverse_all, "range": lambda: kv.range(1, 300)}
        found = "".join(f"{key} " for key, _ in ways[record.value]())
        context.forward(record.with_value(f"{record.value}: {found}"))

    b.add_state_store(Stores.key_value_store("kv", key=int, value=str, persistent=False))
    b.stream("in", key=int, value=str).process(supplier(process), "kv").to("out")


@dsl
def store_timestamped_key_value(b: StreamsBuilder) -> None:
    def process(context: ProcessorContext, record: Record[str, int | None]) -> None:
        store = context.state_store("tkv")
        old = store.get(record.key)
        if record.value is None:
            store.delete(record.key)
            said = "deleted"
        elif old is None or old.timestamp <= record.timestamp:
            store.put(record.key, record.value, record.timestamp)
            said = f"kept {record.value} over {'none' if old is None else old.value}"
        else:
            said = f"refused {record.value} for {old.value}"
        context.forward(record.with_value(said))

    b.add_state_store(Stores.timestamped_key_value_store("tkv", key=str, value=int))
    longs(b).process(supplier(process), "tkv", value=str).to("out")


@dsl
def store_shared(b: StreamsBuilder) -> None:
    def put(context: ProcessorContext, record: Record[str, str]) -> None:
        context.state_store("shared").put(record.key, record.value)

    def ask(context: ProcessorContext, record: Record[str, str]) -> None:
        found = context.state_store("shared").get(record.key)
        context.forward(record.with_value(f"{record.value} -> {shown(found)}"))

    b.add_state_store(Stores.key_value_store("shared", key=str, value=str))
    texts(b, "set").process(supplier(put), "shared")
    texts(b, "ask").process(supplier(ask), "shared").to("out")


@dsl
def hand_made_join(b: StreamsBuilder) -> None:
    def process(context: ProcessorContext, record: Record[str, str]) -> None:
        assert context.record_metadata is not None
        request = context.record_metadata.topic == "requests"
        requests, answers = (context.state_store(f"open-{name}") for name in ("requests", "answers"))
        mine, others = (requests, answers) if request else (answers, requests)
        other = others.delete(record.key)
        if other is None:
            mine.put(record.key, record.value)
        else:
            pair = (record.value, other) if request else (other, record.value)
            context.forward(record.with_value("/".join(pair)))

    stores = [f"open-{name}" for name in ("requests", "answers")]
    for name in stores:
        b.add_state_store(Stores.key_value_store(name, key=str, value=str))
    texts(b, "requests").merge(texts(b, "answers")).process(supplier(process), *stores).to("out")


@dsl
def process_values_fixed_key(b: StreamsBuilder) -> None:
    class Lengths:
        def init(self, context: FixedKeyProcessorContext) -> None:
            self.context = context

        def process(self, record: FixedKeyRecord[str, str]) -> None:
            self.context.forward(record.with_value(f"{record.key}{len(record.value)}"))
            if record.value == "red":
                self.context.forward(record.with_value("again").with_timestamp(record.timestamp + 5))

    texts(b, "in").process_values(Lengths).to("out")


@dsl
def store_from_supplier(b: StreamsBuilder) -> None:
    class Changes:
        stores = (Stores.key_value_store("last", key=str, value=str, persistent=False),)

        def init(self, context: FixedKeyProcessorContext) -> None:
            self.context, self.last = context, context.state_store("last")

        def process(self, record: FixedKeyRecord[str, str]) -> None:
            if record.value != self.last.get(record.key):
                self.last.put(record.key, record.value)
                self.context.forward(record)

    texts(b, "in").process_values(Changes).to("out")


@dsl
def in_memory_and_persistent(b: StreamsBuilder) -> None:
    grouped = longs(b).group_by_key()
    for store, persistent, topic in (("m", False, "memory"), ("d", True, "disk")):
        kept = Materialized(name=store, persistent=persistent)
        grouped.reduce(lambda one, two: one + two, store=kept).to_stream().to(topic)


@dsl
def top_three(b: StreamsBuilder) -> None:
    def process(context: ProcessorContext, record: Record[str, int]) -> None:
        top = context.state_store("top")
        old = top.get("top")
        values = sorted([*map(int, old.split(",") if old else ()), record.value])
        text = ",".join(str(each) for each in values[:-4:-1])
        if text != old:
            top.put("top", text)
            context.forward(record.with_key("top").with_value(text))

    b.add_state_store(Stores.key_value_store("top", key=str, value=str, persistent=False))
    longs(b).process(supplier(process), "top", value=str).to("out")


@raw
def raw_topology(t: Topology) -> None:
    def tag(context: ProcessorContext, record: Record[str, str]) -> None:
        assert context.record_metadata is not None
        context.forward(record.with_value(f"{record.value}@{context.record_metadata.topic}"))

    def check(context: ProcessorContext, record: Record[str, str]) -> None:
        seen = context.state_store("seen")
        context.forward(record, "sink-all")
        if record.value == seen.get(record.key):
            context.forward(record, "sink-repeats")
        seen.put(record.key, record.value)

    (
        t.add_source("source-a", "a", key=str, value=str)
        .add_source("source-b", "b", key=str, value=str)
        .add_processor("tag", supplier(tag), "source-a", "source-b")
        .add_processor("check", supplier(check), "tag")
        .add_state_store(Stores.key_value_store("seen", key=str, value=str, persistent=False), "check")
        .add_sink("sink-all", "all", "check", key=str, value=str)
        .add_sink("sink-repeats", "repeats", "check", key=str, value=str)
    )


@raw
def raw_topology_extractors(t: Topology) -> None:
    def even_or_odd(key: str, value: str, context: Any) -> str:
        return "even" if context.timestamp % 2 == 0 else "odd"

    t.add_source("source", "in", key=str, value=str, timestamp_extractor=value_time)
    t.add_sink("sink", even_or_odd, "source", key=str, value=str)
