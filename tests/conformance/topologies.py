"""Kafka Streams' topologies of the case files, written with our DSL; the name is the file's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from streamlib import (
    KStream,
    ProcessorContext,
    Record,
    Serdes,
    Stores,
    StreamsBuilder,
    Topology,
)
from streamlib.topology.builder import TopologyBuilder

TOPOLOGIES: dict[str, Callable[[], Topology]] = {}
INTEGER = Serdes.integer()


def dsl(steps: Callable[[StreamsBuilder], object]) -> Callable[[StreamsBuilder], object]:
    """Registers a topology under the function's name."""

    def make() -> Topology:
        builder = StreamsBuilder()
        steps(builder)
        return builder.build()

    TOPOLOGIES[steps.__name__] = make
    return steps


def raw(steps: Callable[[TopologyBuilder], object]) -> Callable[[TopologyBuilder], object]:
    """The same for topologies made node by node."""

    def make() -> Topology:
        builder = TopologyBuilder()
        steps(builder)
        return builder.build()

    TOPOLOGIES[steps.__name__] = make
    return steps


def texts(builder: StreamsBuilder, *topics: str) -> KStream[str, str]:
    return builder.stream(topics, key=str, value=str)


def longs(builder: StreamsBuilder, topic: str = "in") -> KStream[str, int]:
    return builder.stream(topic, key=str, value=int)


def supplier(process: Callable[[ProcessorContext, Record[Any, Any]], object]) -> Callable[[], Any]:
    """A processor of nothing but this function."""

    class Function:
        def init(self, context: ProcessorContext) -> None:
            self.context = context

        def process(self, record: Record[Any, Any]) -> None:
            process(self.context, record)

    return Function


def shown(value: object) -> str:
    """A value as Java joins it into text."""
    return "null" if value is None else str(value)


# -- Stateless -------------------------------------------------------------------------------------------------------


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


# -- Bad records and timestamps --------------------------------------------------------------------------------------


@dsl
def poison_fails(b: StreamsBuilder) -> None:
    longs(b).map_values(lambda v: v + 1).to("out")


@dsl
def processing_error_fails(b: StreamsBuilder) -> None:
    def upper(value: str) -> str:
        if value == "boom":
            raise ValueError("boom")
        return value.upper()

    texts(b, "in").map_values(upper).to("out")


def value_time(record: Any, partition_time: int) -> int:
    return int(record.value.partition("@")[2])


def value_or_partition_time(record: Any, partition_time: int) -> int:
    return value_time(record, partition_time) if "@" in record.value else partition_time


@dsl
def extractor_from_value(b: StreamsBuilder) -> None:
    stream = b.stream("in", key=str, value=str, timestamp_extractor=value_time)
    stream.map_values(lambda v: v.partition("@")[0]).to("out")


@dsl
def extractor_partition_time(b: StreamsBuilder) -> None:
    b.stream("in", key=str, value=str, timestamp_extractor=value_or_partition_time).to("out")


@dsl
def negative_timestamp_skipped(b: StreamsBuilder) -> None:
    b.stream("in", key=str, value=str, timestamp_extractor=lambda record, _: record.timestamp).to("out")


@dsl
def negative_timestamp_partition_time(b: StreamsBuilder) -> None:
    def time(record: Any, partition_time: int) -> int:
        if record.timestamp >= 0:
            return int(record.timestamp)
        assert partition_time >= 0
        return partition_time

    one, two = (b.stream(topic, key=str, value=str, timestamp_extractor=time) for topic in ("one", "two"))
    one.merge(two).to("out")


@dsl
def negative_timestamp_fails(b: StreamsBuilder) -> None:
    texts(b, "in").to("out")


# -- Aggregations of streams -----------------------------------------------------------------------------------------


@dsl
def count_by_key(b: StreamsBuilder) -> None:
    texts(b, "in").group_by_key().count(store="counts").to_stream().to("out")


@dsl
def count_by_word(b: StreamsBuilder) -> None:
    grouped = texts(b, "in").group_by(lambda k, v: None if v == "none" else v)
    grouped.count(store="counts").to_stream().to("out")


@dsl
def word_count(b: StreamsBuilder) -> None:
    (
        b.stream("in", key=None, value=str)
        .flat_map_values(lambda v: v.split(" "))
        .group_by(lambda k, w: w, key=str, name="by-word")
        .count(store="counts")
        .to_stream()
        .to("out")
    )


@dsl
def group_by_key_after_rekey(b: StreamsBuilder) -> None:
    stream = longs(b)
    rekeyed = stream.select_key(lambda k, v: f"{k}{v % 2}")
    rekeyed.group_by_key().count(store="r").to_stream().to("rekeyed")
    stream.map_values(lambda v: v + 1).group_by_key().count(store="p").to_stream().to("plain")


@dsl
def reduce_sum(b: StreamsBuilder) -> None:
    longs(b).group_by_key().reduce(lambda total, v: total + v, store="sums").to_stream().to("out")


@dsl
def reduce_tail(b: StreamsBuilder) -> None:
    def tail(old: str, value: str) -> str:
        return ",".join([*old.split(","), value][-3:])

    texts(b, "in").group_by_key().reduce(tail, store="tails").to_stream().to("out")


def member(json: str, name: str) -> str:
    """Text of one member of a flat JSON object, without quotes."""
    found = re.search(rf'"{name}":"?([^",}}]*)', json)
    assert found is not None
    return found[1]


@dsl
def aggregate_stats(b: StreamsBuilder) -> None:
    def stats(n: int, total: int, largest: int) -> str:
        return f'{{"n":{n},"sum":{total},"max":{largest}}}'

    def add(_: str, value: str, old: str) -> str:
        quantity = int(member(value, "qty"))
        total, largest = int(member(old, "sum")) + quantity, max(int(member(old, "max")), quantity)
        return stats(int(member(old, "n")) + 1, total, largest)

    grouped = texts(b, "in").group_by(lambda k, v: member(v, "item"))
    grouped.aggregate(lambda: stats(0, 0, 0), add, store="stats").to_stream().to("out")


@dsl
def aggregate_to_null(b: StreamsBuilder) -> None:
    def add(_: str, value: int, total: int) -> int | None:
        return None if total + value > 12 else total + value

    longs(b).group_by_key().aggregate(lambda: 0, add, store="sums").to_stream().to("out")


@dsl
def two_aggregations_of_one_group(b: StreamsBuilder) -> None:
    grouped = longs(b).group_by_key()
    grouped.count(store="c").to_stream().to("counts")
    grouped.reduce(max, store="m").to_stream().to("maxima")


@dsl
def two_hop_aggregation(b: StreamsBuilder) -> None:
    (
        texts(b, "in")
        .group_by(lambda k, v: k + v)
        .count()
        .to_stream()
        .group_by(lambda k, n: k[:1])
        .reduce(max, store="last")
        .to_stream()
        .to("out")
    )


@dsl
def uncached_count(b: StreamsBuilder) -> None:
    words = texts(b, "in").flat_map_values(lambda v: v.split(" "))
    words.group_by_key().count(store="counts").to_stream().to("out")


# -- Tables ----------------------------------------------------------------------------------------------------------


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


# -- Joins of streams with tables ------------------------------------------------------------------------------------


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


# -- Processors with stores ------------------------------------------------------------------------------------------


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


# -- Node by node ----------------------------------------------------------------------------------------------------


@raw
def raw_topology(t: TopologyBuilder) -> None:
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
def raw_topology_extractors(t: TopologyBuilder) -> None:
    def even_or_odd(key: str, value: str, context: Any) -> str:
        return "even" if context.timestamp % 2 == 0 else "odd"

    t.add_source("source", "in", key=str, value=str, timestamp_extractor=value_time)
    t.add_sink("sink", even_or_odd, "source", key=str, value=str)
