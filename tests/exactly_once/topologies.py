"""Topologies whose outputs betray every loss and every repeat by their structure."""

from __future__ import annotations

import asyncio
import operator
import os
import re
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from streamlib import (
    DeadLetter,
    JoinWindows,
    ProcessorContext,
    PunctuationType,
    Record,
    Retry,
    RetryTopics,
    Stores,
    StreamsBuilder,
    Suppressed,
    TimeWindows,
    Windowed,
)
from streamlib.topology.topology import Topology


def counter(source: str, sink: str) -> Topology:
    """Per key 1, 2, 3 ...: a gap is a loss, a repeat a duplicate, in the state or in the output."""
    builder = StreamsBuilder()
    builder.stream(source, key=str, value=str).group_by_key().count(store="counts").to_stream().to(sink)
    return builder.build()


def copy(source: str, sink: str) -> Topology:
    """The output is the input."""
    builder = StreamsBuilder()
    builder.stream(source, key=str, value=str).to(sink)
    return builder.build()


def merged(source: str, sink: str) -> Topology:
    """A count over two topics."""
    builder = StreamsBuilder()
    other = builder.stream(f"{source}-2", key=str, value=str)
    builder.stream(source, key=str, value=str).merge(other).group_by_key().count(store="counts").to_stream().to(sink)
    return builder.build()


def regrouped(source: str, sink: str) -> Topology:
    """Two subtopologies: words are counted behind a repartition topic."""
    builder = StreamsBuilder()
    (
        builder.stream(source, key=str, value=str)
        .flat_map_values(str.split)
        .group_by(lambda _, word: word, key=str, value=str, name="word")
        .count(store="counts")
        .to_stream()
        .to(sink)
    )
    return builder.build()


def counted_twice(source: str, sink: str) -> Topology:
    """A count, and behind a repartition topic one of the even and the odd counts of each key: two tasks a partition."""
    builder = StreamsBuilder()
    counts = builder.stream(source, key=str, value=str).group_by_key().count(store="counts").to_stream()
    counts.to(sink)
    parities = counts.group_by(lambda key, count: f"{key}{count % 2}", key=str, value=int, name="parity")
    parities.count(store="parities").to_stream().to(f"{sink}-parities")
    return builder.build()


def fails_on_poison(source: str, sink: str) -> Topology:
    """A count whose mapper raises at the value `poison`."""
    builder = StreamsBuilder()
    (
        builder.stream(source, key=str, value=str)
        .map_values(refuse_poison, value=str, name="refuse-poison")
        .group_by_key()
        .count(store="counts")
        .to_stream()
        .to(sink)
    )
    return builder.build()


def refuse_poison(value: str) -> str:
    if value == "poison":
        raise ValueError("this value is poison")
    return value


def slow_counter(source: str, sink: str) -> Topology:
    """A count that takes its time: a value `slow:1.5` holds the worker for 1.5 s; see `hold`."""
    builder = StreamsBuilder()
    held = builder.stream(source, key=str, value=str).peek(hold, name="hold-up")
    held.group_by_key().count(store="counts").to_stream().to(sink)
    return builder.build()


class Ticker:
    """Numbers its punctuations on the wall clock, task by task, in its store and in its output."""

    def init(self, context: ProcessorContext) -> None:
        self.context, self.ticks = context, context.state_store("ticks")
        context.schedule(timedelta(milliseconds=50), PunctuationType.WALL_CLOCK_TIME, self.tick)

    def tick(self, now_ms: int) -> None:
        task = str(self.context.task_id)
        number = (self.ticks.get(task) or 0) + 1
        self.ticks.put(task, number)
        self.context.forward(Record(task, number, now_ms))

    def process(self, record: Record[str, str]) -> None: ...


def ticking(source: str, sink: str) -> Topology:
    """Per task 1, 2, 3 ..., one more every 50 ms, whether records come or not."""
    builder = StreamsBuilder()
    store = Stores.key_value_store("ticks", key=str, value=int)
    builder.stream(source, key=str, value=str).process(Ticker, store, value=int).to(sink)
    return builder.build()


def hold(_: str, value: str) -> None:
    """`latch:FILE` holds the worker that sees it first, whose process id is then in FILE.pid, until there is FILE."""
    if value.startswith("slow:"):
        time.sleep(float(value.removeprefix("slow:")))
    if value.startswith("latch:"):
        latch = Path(value.removeprefix("latch:"))
        pid = latch.with_suffix(".pid")
        if not pid.exists():
            pid.write_text(str(os.getpid()))
            while not latch.exists():
                time.sleep(0.02)


def by_rules(source: str, sink: str) -> Topology:
    """Each record with what a global store holds for its key: a `?` betrays a record processed before it was filled."""

    class Keep:
        def init(self, context: ProcessorContext) -> None:
            self.rules = context.state_store("rules")

        def process(self, record: Record[str, str]) -> None:
            self.rules.put(record.key, record.value)

    class Look:
        def init(self, context: ProcessorContext) -> None:
            self.context, self.rules = context, context.state_store("rules")

        def process(self, record: Record[str, str]) -> None:
            self.context.forward(record.with_value(f"{record.value} {self.rules.get(record.key) or '?'}"))

    builder = StreamsBuilder()
    rules = Stores.key_value_store("rules", key=str, value=str)
    builder.add_global_store(rules, f"{source}-rules", Keep, key=str, value=str)
    builder.stream(source, key=str, value=str).process(Look, value=str).to(sink)
    return builder.build()


def by_pattern(source: str, sink: str) -> Topology:
    """A count over all topics whose name begins with the source's."""
    builder = StreamsBuilder()
    topics = re.compile(re.escape(source) + ".*")
    builder.stream(topics, key=str, value=str).group_by_key().count(store="counts").to_stream().to(sink)
    return builder.build()


def by_foreign_key(source: str, sink: str) -> Topology:
    """Rows that name a row of another table, `other:value`, joined with it; each last result is right or not."""
    builder = StreamsBuilder()
    others = builder.table(f"{source}-others", key=str, value=str)
    rows = builder.table(source, key=str, value=str)
    joined = rows.left_join(
        others,
        lambda row, other: f"{row}/{other}",
        foreign_key=lambda row: row.partition(":")[0],
        other_partitioner=lambda topic, key, value, partitions: ord(key[0]) % partitions,  # as the bench does
    )
    joined.to_stream().to(sink)
    return builder.build()


def windowed_pairs(source: str, sink: str) -> Topology:
    """Pairs of two streams, counted per key and second: three subtopologies' worth of state behind a repartition."""
    builder = StreamsBuilder()
    left, right = (builder.stream(topic, key=str, value=str) for topic in (source, f"{source}-others"))
    windows = JoinWindows.of_time_difference(timedelta(days=1), grace=timedelta(0))
    pairs = left.join(right, lambda x, y: f"{x}+{y}", windows)
    (
        pairs.group_by(lambda key, pair: key + pair[0], key=str, value=str, name="letter")
        .windowed_by(TimeWindows.of_size(timedelta(days=30_000), grace=timedelta(0)))
        .count(store="pairs")
        .to_stream(lambda window, count: window.key, key=str)
        .to(sink)
    )
    return builder.build()


def final_counts(source: str, sink: str) -> Topology:
    """Counts in windows of 10 s, each passed on once, when it has closed; the value is the time of a record in ms."""
    builder = StreamsBuilder()
    (
        builder.stream(source, key=str, value=str, timestamp_extractor=time_in_value)
        .group_by_key()
        .windowed_by(TimeWindows.of_size(timedelta(seconds=10), grace=timedelta(0)))
        .count(store="counts")
        .suppress(Suppressed.until_window_closes())
        .to_stream(lambda window, count: window.key, key=str)
        .to(sink)
    )
    return builder.build()


def with_or_without(source: str, sink: str) -> Topology:
    """Each record with those of the other stream within 1 s, or alone when 2 s are over; values are times in ms."""
    builder = StreamsBuilder()
    left, right = (
        builder.stream(topic, key=str, value=str, timestamp_extractor=time_in_value)
        for topic in (source, f"{source}-others")
    )
    windows = JoinWindows.of_time_difference(timedelta(seconds=1), grace=timedelta(seconds=1))
    left.left_join(right, lambda x, y: f"{x}+{y}", windows).to(sink)
    return builder.build()


def time_in_value(record: Any, partition_time_ms: int) -> int:
    return int(record.value)


async def enrich(value: str) -> str:
    """Takes 20 to 60 ms, and every hundredth time half a second, whatever the order of the records."""
    number = int(value)
    await asyncio.sleep(0.5 if number % 100 == 99 else 0.02 + number * 7 % 5 / 100)
    return value


def enriched(source: str, sink: str) -> Topology:
    """The output of each key is its input, in order; nothing of a record is out before its call is back."""
    builder = StreamsBuilder()
    builder.stream(source, key=str, value=str).map_values(enrich, name="enrich").to(sink)
    return builder.build()


def enriched_then_counted(source: str, sink: str) -> Topology:
    """Per key 1, 2, 3 ..., in a store below the calls."""
    builder = StreamsBuilder()
    enriched = builder.stream(source, key=str, value=str).map_values(enrich, name="enrich")
    enriched.group_by_key().count(store="counts").to_stream().to(sink)
    return builder.build()


def counted_then_enriched(source: str, sink: str) -> Topology:
    """Per key 1, 2, 3 ..., in a store above the calls, which commits wait for."""

    async def passed_on(count: int) -> int:
        await enrich(str(count))
        return count

    builder = StreamsBuilder()
    counts = builder.stream(source, key=str, value=str).group_by_key().count(store="counts").to_stream()
    counts.map_values(passed_on, name="enrich").to(sink)
    return builder.build()


TRIED: set[str] = set()
"""What a process has called a moody function for."""


def moody(what: str) -> None:
    """Raises the first time in a process, for a part of what it is called for."""
    if what not in TRIED and sum(what.encode()) % 5 == 0:
        TRIED.add(what)
        raise ConnectionError(f"not now: {what}")


RETRY = Retry([timedelta(milliseconds=150), timedelta(seconds=1)])
PARKING_DELAYS = [timedelta(seconds=1), timedelta(seconds=3), timedelta(seconds=4)]


def parked(source: str, sink: str, *, keep_order: bool = False, awaited: bool = False) -> Topology:
    """Each value once, or as a dead letter: of `number:time` it fails until then, of `number:bad` for good."""

    def ask(value: str) -> str:
        until = value.partition(":")[2]
        if until == "bad" or (until and time.time() < float(until)):
            raise ConnectionError(f"not now: {value}")
        return value

    async def ask_later(value: str) -> str:
        await asyncio.sleep(0.001)
        return ask(value)

    dead = DeadLetter(f"{source.removesuffix('-in')}-dead")
    policy = RetryTopics(PARKING_DELAYS, then=dead, keep_order=keep_order)
    builder = StreamsBuilder()
    stream = builder.stream(source, key=str, value=str)
    stream.map_values(ask_later if awaited else ask, value=str, name="ask", on_error=policy).to(sink)
    return builder.build()


def parked_awaited(source: str, sink: str) -> Topology:
    """As `parked`, with a function that is awaited."""
    return parked(source, sink, awaited=True)


def parked_in_order(source: str, sink: str) -> Topology:
    """As `parked`, those of a key in their order."""
    return parked(source, sink, keep_order=True)


def parked_in_order_awaited(source: str, sink: str) -> Topology:
    """As `parked_in_order`, with a function that is awaited."""
    return parked(source, sink, keep_order=True, awaited=True)


def retried(source: str, sink: str) -> Topology:
    """Per key 1, 2, 3 ...: the numbers of the values are those of the counter, without one."""

    def number(key: str, value: str) -> int:
        moody(f"{key}{value}")
        return int(value) // 16 + 1

    builder = StreamsBuilder()
    stream = builder.stream(source, key=str, value=str)
    stream.map_values(number, with_key=True, value=int, on_error=RETRY).to(sink)
    return builder.build()


def retried_then_counted(source: str, sink: str) -> Topology:
    """Per key 1, 2, 3 ..., in a store below what is tried again, and then in what is tried again itself."""

    def add(key: str, value: str, count: int) -> int:
        moody(f"{key}{value}again")
        return count + 1

    builder = StreamsBuilder()
    stream = builder.stream(source, key=str, value=str)
    stream = stream.peek(lambda key, value: moody(f"{key}{value}"), on_error=RETRY)
    stream.group_by_key().aggregate(lambda: 0, add, value=int, on_error=RETRY).to_stream().to(sink)
    return builder.build()


def counted_then_retried(source: str, sink: str) -> Topology:
    """Per key 1, 2, 3 ..., in a store above what is tried again, which commits wait for."""
    builder = StreamsBuilder()
    counts = builder.stream(source, key=str, value=str).group_by_key().count(store="counts").to_stream()
    counts.peek(lambda key, count: moody(f"{key}{count}"), on_error=RETRY).to(sink)
    return builder.build()


def smoke(source: str, sink: str) -> Topology:
    """Most kinds of aggregation over numbers, each a tenth of a second later than the one before, into one topic."""
    builder = StreamsBuilder()
    texts = builder.stream(source, key=str, value=str, timestamp_extractor=lambda record, _: int(record.value) * 100)
    by_key = texts.map_values(int, value=int).group_by_key()
    counts = by_key.count(store="counts")
    sums = by_key.reduce(operator.add, store="sums")
    windows = by_key.windowed_by(TimeWindows.of_size(timedelta(seconds=1), grace=timedelta(0)))
    window_sums = windows.reduce(operator.add, store="window-sums")
    final_sums = window_sums.suppress(Suppressed.until_window_closes())
    keys_by_count = counts.group_by(lambda key, count: (str(count), key), key=str, value=str, name="count")
    tables = {
        "min": by_key.reduce(min, store="minima"),
        "max": by_key.reduce(max, store="maxima"),
        "sum": sums,
        "count": counts,
        "average": sums.join(counts, lambda total, count: total // count),
        "of-count": keys_by_count.count(store="keys-by-count"),
    }
    for name, table in tables.items():
        table.to_stream(partial(named, name), key=str).to(sink)
    for name, windowed in (("window", window_sums), ("final", final_sums)):
        windowed.to_stream(partial(named, name), key=str).to(sink)
    return builder.build()


def named(name: str, key: Any, _: object) -> str:
    return f"{name} {key.key} {key.start}" if isinstance(key, Windowed) else f"{name} {key}"
