"""Punctuators on stream time and on the wall clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from streamlib import Cancellable, ProcessorContext, PunctuationType, Record, Stores, StreamsBuilder
from tests.conformance.ported.registry import dsl, texts

STREAM_TIME, WALL_CLOCK = PunctuationType.STREAM_TIME, PunctuationType.WALL_CLOCK_TIME


class Idle:
    """A processor that does nothing but what it has scheduled."""

    def init(self, context: ProcessorContext) -> None:
        self.context = context

    def process(self, record: Record[Any, Any]) -> None: ...


class Batcher:
    """Counts, and emits and clears all counts when it is told to."""

    def init(self, context: ProcessorContext) -> None:
        self.context, self.counts = context, context.state_store("counts")

    def process(self, record: Record[str, str]) -> None:
        self.counts.put(record.key, (self.counts.get(record.key) or 0) + 1)

    def flush(self, why: str) -> Callable[[int], None]:
        def emit(time: int) -> None:
            for key, count in list(self.counts.all()):
                self.context.forward(Record(key, f"{why}{count}", time))
                self.counts.delete(key)

        return emit


def batcher(b: StreamsBuilder, *schedules: tuple[timedelta, PunctuationType, str]) -> Any:
    class Scheduled(Batcher):
        def init(self, context: ProcessorContext) -> None:
            super().init(context)
            for interval, kind, why in schedules:
                context.schedule(interval, kind, self.flush(why))

    b.add_state_store(Stores.key_value_store("counts", key=str, value=int, persistent=False))
    return texts(b, "in").process(Scheduled, "counts")


@dsl
def punctuate_stream_time(b: StreamsBuilder) -> None:
    batcher(b, (timedelta(seconds=10), STREAM_TIME, "n")).to("out")


@dsl
def punctuate_wall_clock(b: StreamsBuilder) -> None:
    batcher(b, (timedelta(seconds=3), WALL_CLOCK, "w")).to("out")


@dsl
def punctuate_both(b: StreamsBuilder) -> None:
    batcher(b, (timedelta(seconds=20), STREAM_TIME, "s"), (timedelta(seconds=6), WALL_CLOCK, "w")).to("out")


@dsl
def punctuate_then_count(b: StreamsBuilder) -> None:
    flushed = batcher(b, (timedelta(seconds=4), WALL_CLOCK, "n"))
    flushed.group_by(lambda _, value: value).count(store="flushes").to_stream().to("out")


@dsl
def punctuate_cancel(b: StreamsBuilder) -> None:
    class Cancelling:
        def init(self, context: ProcessorContext) -> None:
            self.context, self.runs = context, 0
            self.three: Cancellable = context.schedule(timedelta(seconds=2), WALL_CLOCK, self.run)
            self.until_stop = context.schedule(
                timedelta(seconds=8), STREAM_TIME, lambda time: context.forward(Record("until-stop", "tick", time))
            )

        def run(self, time: int) -> None:
            self.runs += 1
            self.context.forward(Record("three", f"run{self.runs}", time))
            if self.runs == 3:
                self.three.cancel()

        def process(self, record: Record[str, str]) -> None:
            if record.value == "stop":
                self.until_stop.cancel()
                self.context.forward(record.with_value("stopped"))

    texts(b, "in").process(Cancelling).to("out")


@dsl
def punctuate_expire(b: StreamsBuilder) -> None:
    class Expiring:
        def init(self, context: ProcessorContext) -> None:
            self.context, self.rows = context, context.state_store("rows")
            context.schedule(timedelta(seconds=5), STREAM_TIME, self.expire)

        def expire(self, now: int) -> None:
            for key, row in self.rows.all():
                if row.timestamp < now - 15_000:
                    self.rows.delete(key)
                    self.context.forward(Record(key, None, row.timestamp))

        def process(self, record: Record[str, str]) -> None:
            self.rows.put(record.key, record.value, record.timestamp)
            self.context.forward(record)

    b.add_state_store(Stores.timestamped_key_value_store("rows", key=str, value=str))
    texts(b, "in").process(Expiring, "rows").to("out")


@dsl
def punctuate_order(b: StreamsBuilder) -> None:
    class Three(Idle):
        def init(self, context: ProcessorContext) -> None:
            super().init(context)
            for seconds, name in ((5, "five"), (3, "three"), (7, "seven")):
                context.schedule(timedelta(seconds=seconds), WALL_CLOCK, self.emitter(name))

        def emitter(self, name: str) -> Callable[[int], None]:
            def emit(time: int) -> None:
                metadata = self.context.record_metadata
                self.context.forward(Record(name, "no metadata" if metadata is None else metadata.topic, time))

            return emit

    texts(b, "in").process(Three).to("out")


@dsl
def punctuate_anchored(b: StreamsBuilder) -> None:
    class Anchored(Idle):
        def init(self, context: ProcessorContext) -> None:
            def tick(name: str) -> Callable[[int], None]:
                return lambda time: context.forward(Record(name, "tick", time))

            context.schedule(timedelta(seconds=10), WALL_CLOCK, tick("wall"), start_ms=7_000)
            context.schedule(timedelta(seconds=20), STREAM_TIME, tick("stream"), start_ms=12_345)

    texts(b, "in").process(Anchored).to("out")
