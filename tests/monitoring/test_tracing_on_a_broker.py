"""One trace through two applications on a real broker, exactly once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest

from streamlib import KafkaStreams, ProcessingError, StreamsBuilder, StreamsConfig
from streamlib.cli.client import read_committed
from streamlib.kafka.connection import Connection
from streamlib.kafka.reading import partitions_of
from streamlib.monitoring.tracing import OUTCOME, OpenTelemetryTracing, parent_of
from streamlib.records import FetchedRecord, TopicPartition
from streamlib.testing.plugin import KafkaTarget
from tests.monitoring.spans import TRACE, Spans, header

PATIENCE_S = 30


class Bench:
    """Three topics of two partitions, and the names of two applications between them."""

    def __init__(self, connection: Connection, name: str, address: str, folder: Path) -> None:
        self.connection = connection
        self.source, self.between, self.sink = f"{name}-in", f"{name}-between", f"{name}-out"
        self._name, self._address, self._folder = name, address, folder

    def config(self, number: int) -> StreamsConfig:
        return StreamsConfig(
            application_id=f"{self._name}-{number}",
            bootstrap_servers=self._address,
            processing_guarantee="exactly_once_v2",
            state_dir=str(self._folder),
        )

    async def produce(self, *values: str) -> None:
        """Each with a trace of its own, numbered from `TRACE` on."""
        producer = self.connection.producer(None)
        await producer.init()
        now_ms = time.time_ns() // 1_000_000
        for number, value in enumerate(values):
            record = (b"key", value.encode(), now_ms, header(1, trace_id=TRACE + number))
            producer.send(TopicPartition(self.source, number % 2), [record])
        await producer.flush()
        await producer.close()

    async def results(self, count: int) -> list[FetchedRecord]:
        """As soon as there are so many."""
        with anyio.fail_after(PATIENCE_S):
            while True:
                found = [each async for each in read_committed(self.connection, partitions_of(self.sink, 2))]
                if len(found) >= count:
                    return found
                await anyio.sleep(0.05)


@pytest.fixture
async def bench(kafka: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Bench]:
    name, address = unique_name("traced"), kafka.bootstrap_servers
    connection = await Connection.open(StreamsConfig(application_id=name, bootstrap_servers=address))
    bench = Bench(connection, name, address, tmp_path)
    for topic in (bench.source, bench.between, bench.sink):
        await connection.admin().create_topic(topic, 2)
    yield bench
    await connection.close()


async def shouted(value: int) -> str:
    await asyncio.sleep(0.001)
    return f"{value}!"


async def test_a_trace_goes_through_two_applications(bench: Bench) -> None:
    first, second, spans = StreamsBuilder(), StreamsBuilder(), Spans()
    words = first.stream(bench.source, key=str, value=str).group_by(lambda _, v: v, name="by-word")
    words.count(store="counts", name="count").to_stream().to(bench.between)
    second.stream(bench.between, key=str, value=int).map_values(shouted, name="shout", value=str).to(bench.sink)
    tracing = OpenTelemetryTracing(spans.provider)
    async with (
        KafkaStreams(first.build(), bench.config(1), tracing=tracing),
        KafkaStreams(second.build(), bench.config(2), tracing=tracing),
    ):
        await bench.produce("x", "y")
        results = await bench.results(2)
    repartition = f"{bench.config(1).application_id}-by-word-repartition"
    one = Spans.of([span for span in spans.finished if span.context.trace_id == TRACE])
    assert one == {
        f"process {bench.source}": None,
        f"send {repartition}": f"process {bench.source}",
        f"process {repartition}": f"send {repartition}",
        "count": f"process {repartition}",
        f"send {bench.between}": "count",
        f"process {bench.between}": f"send {bench.between}",
        "call shout": f"process {bench.between}",
        f"send {bench.sink}": f"process {bench.between}",
    }
    named = [parent_of(record.headers) for record in results]
    assert {each.trace_id for each in named if each is not None} == {TRACE, TRACE + 1}
    outcomes = {span.name: (span.attributes or {}).get(OUTCOME) for span in spans.finished}
    assert outcomes.pop("call shout") is None  # a call is over before it is known
    assert set(outcomes.values()) == {"committed"}


async def test_what_is_not_committed_is_marked(bench: Bench) -> None:
    def fail(value: str) -> str:
        if value == "bad":
            raise ValueError(value)
        return value

    builder, spans = StreamsBuilder(), Spans()
    builder.stream(bench.source, key=str, value=str).map_values(fail, value=str).to(bench.sink)
    app = KafkaStreams(builder.build(), bench.config(1), tracing=OpenTelemetryTracing(spans.provider))
    await bench.produce("bad")
    with pytest.raises(ProcessingError, match="bad"), anyio.fail_after(PATIENCE_S):
        await app.run()
    span = spans[f"process {bench.source}"]
    assert (span.attributes or {})[OUTCOME] == "aborted"
    assert [event.name for event in span.events] == ["exception"]
