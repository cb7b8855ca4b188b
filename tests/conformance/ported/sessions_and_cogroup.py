"""Sessions, cogroups, and stores of windows and sessions in processors."""

from __future__ import annotations

from datetime import timedelta
from operator import add
from typing import Any

from streamlib import (
    EmitStrategy,
    Materialized,
    ProcessorContext,
    Record,
    SessionWindows,
    SlidingWindows,
    Stores,
    StreamsBuilder,
    TimeWindows,
    Windowed,
)
from tests.conformance.ported.aggregations import member
from tests.conformance.ported.registry import dsl, longs, shown, supplier, texts


def ms(milliseconds: int) -> timedelta:
    return timedelta(milliseconds=milliseconds)


def at(window: Windowed[Any]) -> str:
    return f"{window.key}@{window.start}-{window.end}"


@dsl
def store_window(b: StreamsBuilder) -> None:
    def process(context: ProcessorContext, record: Record[str, str]) -> None:
        ws = context.state_store("ws")
        key, now = record.key, record.timestamp
        since = max(0, now - 10_000)
        match record.value.split(" "):
            case ["put", value]:
                ws.put(key, f"v{value}", now)
            case ["del"]:
                ws.put(key, None, now)
            case ["one", start]:
                context.forward(record.with_value(f"one: {shown(ws.get(key, int(start)))}"))
            case ["keys"]:
                rows = [f"{at(window)}={value}" for window, value in ws.fetch_keys("a", "b", since, now)]
                context.forward(record.with_value(f"keys: {' '.join(sorted(rows))}"))
            case [way]:
                found = ws.fetch(key, since, now, reverse=way == "back")
                context.forward(record.with_value(f"{way}:" + "".join(f" {start}={value}" for start, value in found)))

    b.add_state_store(Stores.window_store("ws", key=str, value=str, retention=ms(20_000), window_size=ms(5_000)))
    texts(b, "in").process(supplier(process), "ws").to("out")


@dsl
def store_window_duplicates(b: StreamsBuilder) -> None:
    def process(context: ProcessorContext, record: Record[str, str]) -> None:
        store, now = context.state_store("dup"), record.timestamp
        match record.value.split(" "):
            case ["put", value]:
                store.put(record.key, f"v{value}", now)
            case ["nil"]:
                store.put(record.key, None, now)
            case _:
                found = store.fetch(record.key, max(0, now - 4_000), now)
                context.forward(record.with_value("fetch:" + "".join(f" {start}={value}" for start, value in found)))

    b.add_state_store(
        Stores.window_store(
            "dup",
            key=str,
            value=str,
            retention=ms(20_000),
            window_size=ms(5_000),
            retain_duplicates=True,
            persistent=False,
        )
    )
    texts(b, "in").process(supplier(process), "dup").to("out")


@dsl
def store_session(b: StreamsBuilder) -> None:
    class Sessions:
        def init(self, context: ProcessorContext) -> None:
            self.context, self.ss = context, context.state_store("ss")
            self.puts = 0

        def process(self, record: Record[str, str]) -> None:
            start = record.timestamp - record.timestamp % 1000
            command, *rest = record.value.split(" ")
            session = Windowed(record.key, start, start + int(rest[0] if rest else 0))
            match command:
                case "put":
                    self.ss.put(session, f"s{self.puts}")
                    self.puts += 1
                case "rm":
                    self.ss.remove(session)
                case "one":
                    self.context.forward(record.with_value(f"one: {shown(self.ss.fetch_session(*session))}"))
                case "find":
                    self.show(record, self.ss.find_sessions(record.key, max(0, start - 5_000), start))
                case _:
                    self.show(record, self.ss.fetch(record.key))

        def show(self, record: Record[str, str], found: Any) -> None:
            rows = "".join(f" {at(session)}={value}" for session, value in found)
            self.context.forward(record.with_value(f"{record.value}:{rows}"))

    b.add_state_store(Stores.session_store("ss", key=str, value=str, retention=ms(30_000)))
    texts(b, "in").process(Sessions, "ss").to("out")


@dsl
def dedupe_in_window(b: StreamsBuilder) -> None:
    def process(context: ProcessorContext, record: Record[str, str]) -> None:
        ids, now = context.state_store("ids"), record.timestamp
        if any(True for _ in ids.fetch(record.value, max(0, now - 10_000), now + 10_000)):
            return
        ids.put(record.value, now, now)
        context.forward(record)

    b.add_state_store(Stores.window_store("ids", key=str, value=int, retention=ms(20_000), window_size=ms(20_000)))
    texts(b, "in").process(supplier(process), "ids").to("out")


@dsl
def cogroup_two(b: StreamsBuilder) -> None:
    adds, subs = longs(b, "adds").group_by_key(), longs(b, "subs").group_by_key()
    (
        adds.cogroup(lambda k, v, total: total + v)
        .cogroup(subs, lambda k, v, total: total - v)
        .aggregate(lambda: 0, store="balance")
        .to_stream()
        .to("out")
    )


@dsl
def cogroup_three(b: StreamsBuilder) -> None:
    def profile(clicks: int, amount: int, tag: str) -> str:
        return f'{{"clicks":{clicks},"amount":{amount},"tag":"{tag}"}}'

    def parts(old: str) -> tuple[int, int, str]:
        return int(member(old, "clicks")), int(member(old, "amount")), member(old, "tag")

    def click(_: str, value: str, old: str) -> str:
        clicks, amount, tag = parts(old)
        return profile(clicks + 1, amount, tag)

    def pay(_: str, value: int, old: str) -> str:
        clicks, amount, tag = parts(old)
        return profile(clicks, amount + value, tag)

    def retag(_: str, value: str, old: str) -> str:
        clicks, amount, _ = parts(old)
        return profile(clicks, amount, value[2:])

    clicks = texts(b, "clicks").group_by_key()
    amounts = longs(b, "amounts").group_by_key()
    tags = texts(b, "tags").group_by(lambda k, v: v[:1])
    cogrouped = clicks.cogroup(click).cogroup(amounts, pay).cogroup(tags, retag)
    cogrouped.aggregate(lambda: profile(0, 0, ""), store="profile").to_stream().to("out")


@dsl
def cogroup_session(b: StreamsBuilder) -> None:
    views, buys = texts(b, "views").group_by_key(), texts(b, "buys").group_by_key()
    (
        views.cogroup(lambda k, v, seen: f"{seen}{v} ")
        .cogroup(buys, lambda k, v, seen: f"{seen}{v.upper()} ")
        .windowed_by(SessionWindows.of_inactivity_gap(ms(5_000), grace=ms(10_000)))
        .aggregate(lambda: "", lambda k, one, other: one + other, store="s")
        .to_stream()
        .to("out")
    )


@dsl
def session_count(b: StreamsBuilder) -> None:
    sessions = SessionWindows.of_inactivity_gap(ms(5_000), grace=ms(10_000))
    texts(b, "in").group_by_key().windowed_by(sessions).count(store="s").to_stream().to("out")


@dsl
def session_merge_order(b: StreamsBuilder) -> None:
    def add(_: str, value: str | None, old: str) -> str:
        return f"{old},{shown(value)}" if old else shown(value)

    def merge(_: str, one: str, other: str) -> str:
        return f"{one}|{other}" if one and other else one or other

    sessions = SessionWindows.of_inactivity_gap(ms(4_000), grace=ms(30_000))
    texts(b, "in").group_by_key().windowed_by(sessions).aggregate(str, add, merge, store="s").to_stream().to("out")


@dsl
def session_reduce_no_grace(b: StreamsBuilder) -> None:
    sessions = SessionWindows.of_inactivity_gap(ms(6_000), grace=ms(0))
    longs(b).group_by_key().windowed_by(sessions).reduce(add, store="s").to_stream().to("out")


@dsl
def session_rekeyed(b: StreamsBuilder) -> None:
    def key_of(key: str, value: str | None) -> str | None:
        if value is None:
            return key
        return None if value == "none" else value

    sessions = SessionWindows.of_inactivity_gap(ms(8_000), grace=ms(4_000))
    counts = texts(b, "in").select_key(key_of).group_by_key().windowed_by(sessions).count(store="s")
    counts.to_stream(lambda session, n: at(session), key=str).to("out")


@dsl
def session_emit_on_close(b: StreamsBuilder) -> None:
    (
        texts(b, "in")
        .group_by_key()
        .windowed_by(SessionWindows.of_inactivity_gap(ms(4_000), grace=ms(3_000)))
        .emit_strategy(EmitStrategy.on_window_close())
        .reduce(lambda old, new: f"{old},{new}", store=Materialized(name="s", retention=ms(600_000)))
        .to_stream()
        .to("out")
    )


@dsl
def cogroup_tumbling(b: StreamsBuilder) -> None:
    ins, outs = longs(b, "ins").group_by_key(), longs(b, "outs").group_by_key()
    (
        ins.cogroup(lambda k, v, total: total + v)
        .cogroup(outs, lambda k, v, total: total - v)
        .windowed_by(TimeWindows.of_size(ms(10_000), grace=ms(4_000)))
        .aggregate(lambda: 0, store="w")
        .to_stream()
        .to("out")
    )


@dsl
def cogroup_sliding(b: StreamsBuilder) -> None:
    ups, downs = longs(b, "ups").group_by_key(), longs(b, "downs").group_by_key()
    (
        ups.cogroup(lambda k, v, total: total + v)
        .cogroup(downs, lambda k, v, total: total - v)
        .windowed_by(SlidingWindows.of_time_difference(ms(5_000), grace=ms(6_000)))
        .aggregate(lambda: 0, store="w")
        .to_stream()
        .to("out")
    )
