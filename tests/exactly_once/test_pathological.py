"""Data that nobody writes on purpose, on a real broker: too large, without keys or times, thinned out, aborted."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from confluent_kafka import Producer

from streamlib import (
    FailOnInvalidTimestamp,
    KafkaError,
    KafkaStreams,
    LogAndSkipOnInvalidTimestamp,
    ProcessingError,
    Processor,
    ProcessorContext,
    Record,
    SerializationError,
    StateStoreError,
    StreamsBuilder,
    StreamsConfig,
    TimeWindows,
    UsePartitionTimeOnInvalidTimestamp,
    WallclockTimestampExtractor,
)
from streamlib.errors import ErrorCode
from streamlib.records import Headers, TopicPartition
from streamlib.testing.plugin import KafkaTarget
from streamlib.topology.topology import Topology
from tests.exactly_once.harness import Bench, check_counts, config_of, numbered, opened

MIB = 1 << 20
NEVER_TOO_LATE = str((1 << 63) - 1)
YEAR_3000_MS = 32_503_680_000_000


@pytest.fixture
async def bench(kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(Bench(kafka_broker, unique_name("odd"), tmp_path), partitions=1) as ready:
        yield ready


@pytest.fixture
def config(bench: Bench, kafka_broker: KafkaTarget, tmp_path: Path) -> StreamsConfig:
    return config_of(bench, kafka_broker, tmp_path)


async def run(topology: Topology, config: StreamsConfig) -> None:
    """Until it fails."""
    with anyio.fail_after(30):
        await KafkaStreams(topology, config).run()


async def run_to_the_end(bench: Bench, topology: Topology, config: StreamsConfig) -> None:
    """Until all input is committed; then nothing is left to do."""
    async with KafkaStreams(topology, config) as app:
        await bench.until_all_committed()
        assert app.status.lag == 0


def copy(bench: Bench, **options: Any) -> Topology:
    builder = StreamsBuilder()
    builder.stream(bench.source, key=str, value=str, **options).to(bench.sink)
    return builder.build()


def counted(bench: Bench, **options: Any) -> Topology:
    builder = StreamsBuilder()
    builder.stream(bench.source, key=str, value=str, **options).group_by_key().count(store="counts").to_stream().to(
        bench.sink
    )
    return builder.build()


# -- Too large ---------------------------------------------------------------------------------------------------------


def grown(bench: Bench) -> Topology:
    """Per key everything there was, in a store: it grows above what the broker takes."""
    builder = StreamsBuilder()
    stream = builder.stream(bench.source, key=str, value=str)
    stream.group_by_key().reduce(lambda all_before, value: all_before + value, store="all").to_stream().to(bench.sink)
    return builder.build()


@pytest.mark.parametrize("size", [3 * MIB, MIB, MIB - 40])
async def test_a_row_above_the_limit_is_refused_by_its_store_with_its_key(
    bench: Bench, config: StreamsConfig, size: int
) -> None:
    """Also one that is below it only as long as nothing is around it."""
    count = 4
    await bench.produce([("greedy", "x" * (size // count))] * count)
    with pytest.raises(StateStoreError, match=r"store all: the value of key b'greedy' takes .* bytes") as caught:
        await run(grown(bench), config)
    assert "raise max_request_size" in str(caught.value)
    assert f"[while processing topic {bench.source}, partition 0, offset" in str(caught.value)
    assert all(len(str(seen.value)) < MIB for seen in await bench.read(value=str))
    assert max((await bench.committed()).values()) < count


async def test_a_key_above_the_limit_is_told_with_its_changelog(bench: Bench, config: StreamsConfig) -> None:
    await bench.produce([("k" * (MIB - 50_000), "x" * 1_000)] * 2)
    builder = StreamsBuilder()
    stream = builder.stream(bench.source, key=str, value=str)
    stream.group_by_key().reduce(lambda _, value: value * 60, store="all")
    with pytest.raises(KafkaError, match=rf"{bench.name}-all-changelog.*key b'kkkk") as caught:
        await run(builder.build(), config)
    assert caught.value.code == ErrorCode.MESSAGE_TOO_LARGE


async def test_a_record_above_the_limit_is_told_with_topic_and_key(bench: Bench, config: StreamsConfig) -> None:
    await bench.produce([("fine", "a"), ("greedy", "xy" * 20)])
    builder = StreamsBuilder()
    builder.stream(bench.source, key=str, value=str).map_values(lambda value: value * 30_000, value=str).to(bench.sink)
    with pytest.raises(KafkaError, match=rf"{bench.sink}.*key b'greedy'.*max_request_size") as caught:
        await run(builder.build(), config)
    assert caught.value.code == ErrorCode.MESSAGE_TOO_LARGE
    assert await bench.read(value=str) == []


async def test_a_topic_that_takes_less_than_we_send_is_named(bench: Bench, config: StreamsConfig) -> None:
    small = f"{bench.name}-small"
    await bench.connection.admin().create_topic(small, 1, {"max.message.bytes": "10000"})
    await bench.produce([("a", "x" * 20_000)])
    builder = StreamsBuilder()
    builder.stream(bench.source, key=str, value=str).to(small)
    with pytest.raises(KafkaError, match=rf"{small}.*max\.message\.bytes") as caught:
        await run(builder.build(), config)
    assert caught.value.code == ErrorCode.MESSAGE_TOO_LARGE


async def test_headers_of_any_size_and_number_go_through(bench: Bench, config: StreamsConfig) -> None:
    headers: list[Headers] = [
        (("huge", b"h" * 900_000),),
        tuple((f"name-{number}", b"v" * (number % 100)) for number in range(2_000)),
        (("twice", b"1"), ("twice", b"2"), ("null", None), ("", b"no name"), ("empty", b"")),
    ]
    now_ms = time.time_ns() // 1_000_000
    await bench.write(*((b"k", b"v", now_ms, each) for each in headers))
    await run_to_the_end(bench, copy(bench), config)
    assert [tuple(record.headers) for record in await bench.output()] == headers


# -- Without keys, values, times ---------------------------------------------------------------------------------------


async def test_records_without_keys_or_values_are_dropped_where_they_have_no_place(
    bench: Bench, config: StreamsConfig
) -> None:
    now_ms = time.time_ns() // 1_000_000
    rows = [(b"k", b"1"), (None, b"2"), (b"k", None), (None, None), (b"", b"3"), (b"k", b""), (b"k", b"4")]
    await bench.write(*((key, value, now_ms, ()) for key, value in rows))
    copies = f"{bench.name}-copies"
    await bench.create_topic(copies)
    builder = StreamsBuilder()
    stream = builder.stream(bench.source, key=str, value=str)
    stream.to(copies)
    stream.group_by_key().count(store="counts").to_stream().to(bench.sink)
    await run_to_the_end(bench, builder.build(), config)
    assert [(record.key, record.value) for record in await bench.output(copies)] == rows
    assert [(seen.key, seen.value) for seen in await bench.read()] == [("k", 1), ("", 1), ("k", 2), ("k", 3)]


TIMES = (1_000, -1, 3_000, YEAR_3000_MS, 2_000)


@pytest.fixture
async def odd_times(bench: Bench) -> Bench:
    """A topic with records of all times."""
    source = f"{bench.name}-times"
    settings = {"message.timestamp.after.max.ms": NEVER_TOO_LATE, "retention.ms": "-1"}
    for topic in (source, f"{source}-out"):
        await bench.connection.admin().create_topic(topic, 1, settings)
    bench.source, bench.sink = source, f"{source}-out"
    bench.partitions = 1
    await bench.write(*((b"k", str(timestamp).encode(), timestamp, ()) for timestamp in TIMES))
    return bench


HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("extractor", "expected"),
    [
        (LogAndSkipOnInvalidTimestamp(), {0: 1_000, 2: 3_000, 3: YEAR_3000_MS, 4: 2_000}),
        (LogAndSkipOnInvalidTimestamp(max_ahead=HOUR), {0: 1_000, 2: 3_000, 4: 2_000}),
        (UsePartitionTimeOnInvalidTimestamp(), {0: 1_000, 1: 1_000, 2: 3_000, 3: YEAR_3000_MS, 4: 2_000}),
        (UsePartitionTimeOnInvalidTimestamp(HOUR), {0: 1_000, 1: 1_000, 2: 3_000, 3: 3_000, 4: 2_000}),
        (lambda record, partition_time: int(record.value), {0: 1_000, 2: 3_000, 3: YEAR_3000_MS, 4: 2_000}),
    ],
)
async def test_what_becomes_of_times_that_are_none_is_the_extractors_choice(
    odd_times: Bench, config: StreamsConfig, extractor: Any, expected: dict[int, int]
) -> None:
    await run_to_the_end(odd_times, copy(odd_times, timestamp_extractor=extractor), config)
    found = [(int(record.value), record.timestamp) for record in await odd_times.output()]
    assert found == [(TIMES[index], timestamp) for index, timestamp in expected.items()]


async def test_the_wall_clock_may_be_the_time(odd_times: Bench, config: StreamsConfig) -> None:
    began_ms = time.time_ns() // 1_000_000
    await run_to_the_end(odd_times, copy(odd_times, timestamp_extractor=WallclockTimestampExtractor()), config)
    times = [record.timestamp for record in await odd_times.output()]
    assert len(times) == len(TIMES)
    assert times == sorted(times)
    assert began_ms <= times[0] <= times[-1] <= time.time_ns() // 1_000_000


@pytest.mark.parametrize(
    ("extractor", "offset"), [(None, 1), (FailOnInvalidTimestamp(), 1), (FailOnInvalidTimestamp(HOUR), 1)]
)
async def test_a_time_that_is_none_stops_the_application_unless_it_is_told_otherwise(
    odd_times: Bench, config: StreamsConfig, extractor: Any, offset: int
) -> None:
    with pytest.raises(SerializationError, match=r"no valid timestamp \(-1\)") as caught:
        await run(copy(odd_times, timestamp_extractor=extractor), config)
    assert (caught.value.topic, caught.value.offset) == (odd_times.source, offset)
    assert await odd_times.output() == []


async def test_a_time_that_the_output_does_not_take_is_told_with_its_topic(
    odd_times: Bench, config: StreamsConfig
) -> None:
    """From Kafka 4.0 on topics take nothing that is more than an hour ahead, unless they are told to (KIP-1030)."""
    strict = f"{odd_times.name}-strict"
    await odd_times.connection.admin().create_topic(strict, 1, {"message.timestamp.after.max.ms": "3600000"})
    odd_times.sink = strict
    with pytest.raises(KafkaError, match=rf"{strict}.*message\.timestamp") as caught:
        await run(copy(odd_times, timestamp_extractor=LogAndSkipOnInvalidTimestamp()), config)
    assert caught.value.code == ErrorCode.INVALID_TIMESTAMP


async def test_one_record_from_the_future_does_not_make_the_others_late(
    odd_times: Bench, config: StreamsConfig
) -> None:
    builder = StreamsBuilder()
    skip = LogAndSkipOnInvalidTimestamp(max_ahead=HOUR)
    stream = builder.stream(odd_times.source, key=str, value=str, timestamp_extractor=skip)
    windows = TimeWindows.of_size(timedelta(seconds=10), grace=timedelta(seconds=10))
    counts = stream.group_by_key().windowed_by(windows).count(store="counts").to_stream()
    counts.map(lambda windowed, count: (windowed.key, count), key=str, value=int).to(odd_times.sink)
    await run_to_the_end(odd_times, builder.build(), config)
    assert [int.from_bytes(record.value, "big") for record in await odd_times.output()] == [1, 2, 3]


async def test_a_processor_cannot_write_a_time_that_is_none(bench: Bench, config: StreamsConfig) -> None:
    class Backdate(Processor[str, str]):
        def init(self, context: ProcessorContext) -> None:
            self.context = context

        def process(self, record: Record[str, str]) -> None:
            self.context.forward(record.with_timestamp(-5))

    builder = StreamsBuilder()
    builder.stream(bench.source, key=str, value=str).process(Backdate, name="backdate").to(bench.sink)
    await bench.produce([("a", "1")])
    with pytest.raises(ProcessingError, match=r"node backdate.*timestamp -5"):
        await run(builder.build(), config)
    assert await bench.output() == []


# -- As other clients and brokers leave it -----------------------------------------------------------------------------


def produce_elsewhere(servers: str, topic: str, codec: str, rows: Iterable[tuple[str, str]]) -> None:
    """With librdkafka, in batches of many records."""
    producer = Producer({"bootstrap.servers": servers, "compression.type": codec, "linger.ms": 200})
    for key, value in rows:
        producer.produce(topic, key=key, value=value, partition=0)
    assert producer.flush(30) == 0


async def test_batches_of_other_clients_are_read_in_every_codec(
    bench: Bench, config: StreamsConfig, kafka_broker: KafkaTarget
) -> None:
    inputs: list[tuple[str, str]] = []
    for codec in ("gzip", "snappy", "lz4", "zstd", "none"):
        rows = [("abcd"[number % 4], f"{codec} {number} " + "x" * 200) for number in range(500)]
        await anyio.to_thread.run_sync(produce_elsewhere, kafka_broker.bootstrap_servers, bench.source, codec, rows)
        inputs += rows
    await run_to_the_end(bench, copy(bench), config)
    assert [(seen.key, seen.value) for seen in await bench.read(value=str)] == inputs


async def test_a_log_that_ends_in_markers_and_aborted_records_is_read_to_its_end(
    bench: Bench, config: StreamsConfig
) -> None:
    """What is committed goes past them, the lag is 0, and there is nothing more to commit."""
    await bench.produce(numbered(20), transactional_id=f"{bench.name}-one")
    producer = bench.connection.producer(f"{bench.name}-two")
    await producer.init()
    for commit in (False, True, False, False):
        producer.begin()
        now_ms = time.time_ns() // 1_000_000
        value = b"kept" if commit else b"aborted"
        producer.send(TopicPartition(bench.source, 0), [(b"a", value, now_ms, ())] * 3)
        await producer.flush()
        await producer.end(commit=commit)
    await producer.close()
    end = 20 + 1 + 4 * (3 + 1)  # with a marker for each transaction
    [partition] = await bench.ends()
    assert await bench.stable_ends([partition]) == {partition: end}
    async with KafkaStreams(counted(bench), config) as app:
        await bench.until_all_committed()
        assert app.status.lag == 0
        commits = app.status.commits
        await anyio.sleep(1)
        assert app.status.commits == commits
        assert app.status.records_in == 23
    assert set((await bench.committed()).values()) == {end}
    check_counts([*numbered(20), *[("a", "kept")] * 3], await bench.read())


async def test_a_log_of_nothing_but_aborted_records_is_done_too(bench: Bench, config: StreamsConfig) -> None:
    producer = bench.connection.producer(f"{bench.name}-input")
    await producer.init()
    producer.begin()
    producer.send(TopicPartition(bench.source, 0), [(b"a", b"x", time.time_ns() // 1_000_000, ())] * 5)
    await producer.flush()
    await producer.end(commit=False)
    await producer.close()
    await run_to_the_end(bench, counted(bench), config)
    assert await bench.read() == []


async def test_compacted_batches_with_gaps_are_read_and_started_in(bench: Bench, config: StreamsConfig) -> None:
    """Most offsets are gone, within batches, whole batches, and the last record of a batch."""
    compacted = f"{bench.name}-compacted"
    settings = {
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "0.001",
        "segment.ms": "100",
        "max.compaction.lag.ms": "100",
    }
    await bench.connection.admin().create_topic(compacted, 1, settings)
    bench.source, bench.partitions = compacted, 1
    for start in range(0, 400, 100):
        await bench.produce([(f"k{n % 40}" if n % 3 else "often", str(n)) for n in range(start, start + 100)])
        await bench.produce([("often", f"aborted {start}")], transactional_id=f"{bench.name}-tx")
    await anyio.sleep(0.2)
    await bench.produce([("end", "end")])  # rolls the segment

    async def thinned() -> bool:
        return len(await bench.output(compacted)) < 100

    await bench.until(thinned)
    kept = await bench.output(compacted)
    left = [(record.key.decode(), record.value.decode()) for record in kept]
    offsets = [record.offset for record in kept]
    assert offsets != list(range(offsets[0], offsets[0] + len(offsets))), "there are gaps"
    await run_to_the_end(bench, copy(bench), config)
    assert [(seen.key, seen.value) for seen in await bench.read(value=str)] == left
    await bench.produce([("more", "1")])
    await run_to_the_end(bench, copy(bench), config)
    assert [(seen.key, seen.value) for seen in await bench.read(value=str)] == [*left, ("more", "1")]


async def test_small_records_go_to_a_topic_that_takes_small_batches_only(bench: Bench, config: StreamsConfig) -> None:
    small = f"{bench.name}-small"
    await bench.connection.admin().create_topic(small, 1, {"max.message.bytes": "10000"})
    await bench.produce([("a", f"{number}".zfill(1_000)) for number in range(200)])
    bench.sink = small
    await run_to_the_end(bench, copy(bench), config)
    assert [int(str(seen.value)) for seen in await bench.read(value=str)] == list(range(200))
