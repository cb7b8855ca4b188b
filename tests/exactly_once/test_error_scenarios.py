"""What Kafka Streams' tests of null records and of its error handlers show, on a real broker."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from streamlib import DeadLetter, KafkaStreams, ProcessingError, SerializationError, StreamsBuilder, StreamsConfig
from streamlib.testing.plugin import KafkaTarget
from streamlib.topology.topology import Topology
from tests.exactly_once.harness import Bench, check_counts, config_of, numbered, opened


@pytest.fixture
async def bench(kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(Bench(kafka_broker, unique_name("handlers"), tmp_path), partitions=1) as ready:
        yield ready


@pytest.fixture
def config(bench: Bench, kafka_broker: KafkaTarget, tmp_path: Path) -> StreamsConfig:
    return config_of(bench, kafka_broker, tmp_path)


async def feed(bench: Bench, *rows: tuple[bytes | None, bytes | None]) -> None:
    at_ms = now_ms()
    await bench.write(*((key, value, at_ms, ()) for key, value in rows))


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def run_to_the_end(bench: Bench, topology: Topology, config: StreamsConfig) -> int:
    """Until all input is committed; returns how many records were dropped."""
    async with KafkaStreams(topology, config) as app:
        await bench.until_all_committed()
        return app.status.dropped


async def fails(topology: Topology, config: StreamsConfig, kind: type[Exception]) -> Any:
    with anyio.fail_after(30), pytest.raises(kind) as caught:
        await KafkaStreams(topology, config).run()
    return caught.value


def numbers(bench: Bench) -> Topology:
    """Twice each number; 13 is refused."""

    def twice(value: int) -> int:
        if value == 13:
            raise ValueError("no 13")
        return value * 2

    builder = StreamsBuilder()
    builder.stream(bench.source, key=str, value=int).map_values(twice, name="twice").to(bench.sink)
    return builder.build()


def number(value: int) -> bytes:
    return value.to_bytes(8, "big")


async def found(bench: Bench) -> list[int]:
    return [int.from_bytes(record.value, "big") for record in await bench.output()]


async def test_null_keys_and_values_are_dropped_by_aggregations_and_kept_by_a_left_join(
    bench: Bench, config: StreamsConfig
) -> None:
    users, joined = f"{bench.name}-users", f"{bench.name}-joined"
    for topic in (users, joined):
        await bench.create_topic(topic)
    builder = StreamsBuilder()
    stream = builder.stream(bench.source, key=str, value=str)
    stream.group_by_key().count(store="counts").to_stream().to(bench.sink)
    table = builder.table(users, key=str, value=str)
    stream.left_join(table, lambda left, right: f"{left}+{right}").to(joined)
    await feed(bench, (b"k", b"1"), (None, b"2"), (b"k", None), (b"k", b"4"))
    dropped = await run_to_the_end(bench, builder.build(), config)
    assert await found(bench) == [1, 2]
    assert [(record.key, record.value) for record in await bench.output(joined)] == [
        (b"k", b"1+None"),
        (None, b"2+None"),
        (b"k", b"4+None"),
    ]
    assert dropped == 3  # two by the count, and the null value by the join, too


async def test_a_deserialization_error_stops_before_its_offset_or_is_skipped_counted_and_committed(
    bench: Bench, config: StreamsConfig
) -> None:
    await feed(bench, (b"a", number(1)), (b"a", b"not a number"), (b"a", number(3)))
    error = await fails(numbers(bench), config, SerializationError)
    assert (error.topic, error.offset) == (bench.source, 1)
    assert max((await bench.committed()).values()) <= 1
    lenient = msgspec.structs.replace(config, on_deserialization_error="skip")
    assert await run_to_the_end(bench, numbers(bench), lenient) == 1
    assert await found(bench) == [2, 6]


async def test_a_processing_error_stops_or_is_skipped(bench: Bench, config: StreamsConfig) -> None:
    await feed(bench, *((b"a", number(value)) for value in (1, 13, 3)))
    error = await fails(numbers(bench), config, ProcessingError)
    assert (error.node, error.topic, error.offset) == ("twice", bench.source, 1)
    assert isinstance(error.__cause__, ValueError)
    lenient = msgspec.structs.replace(config, on_processing_error="skip")
    assert await run_to_the_end(bench, numbers(bench), lenient) == 1
    assert await found(bench) == [2, 6]


async def test_a_dead_letter_carries_the_record_as_it_was_and_goes_down_with_its_transaction(
    bench: Bench, config: StreamsConfig
) -> None:
    dead = f"{bench.name}-dead"
    await bench.create_topic(dead)
    config = msgspec.structs.replace(config, on_processing_error=DeadLetter(dead))
    at_ms = now_ms()
    own = (("mine", b"\x00\xff"), ("mine", None))
    await bench.write((b"a", number(13), at_ms, own), (b"a", b"not a number", at_ms, ()), (b"a", number(3), at_ms, ()))
    await fails(numbers(bench), config, SerializationError)
    committed = max((await bench.committed()).values())
    assert len(await bench.output(dead)) == committed, "visible with its offset, or not at all"
    lenient = msgspec.structs.replace(config, on_deserialization_error="skip")
    await run_to_the_end(bench, numbers(bench), lenient)
    [letter] = [record for record in await bench.output(dead) if record.value == number(13)]
    assert (letter.key, letter.timestamp, tuple(letter.headers)[:2]) == (b"a", at_ms, own)
    told = dict(tuple(letter.headers)[2:])
    assert told["__streams.errors.exception"] == b"builtins.ValueError"
    assert told["__streams.errors.message"] == b"no 13"
    place = [told[f"__streams.errors.{name}"] for name in ("topic", "partition", "offset")]
    assert place == [bench.source.encode(), b"0", b"0"]
    assert await found(bench) == [6]


async def test_an_error_for_good_stops_every_instance_that_gets_the_record_and_loses_nothing(
    kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path
) -> None:
    """As if the handler said SHUTDOWN_APPLICATION. What is started again (REPLACE_THREAD) is the supervisor's choice:
    `tests/cli/test_supervisor.py`."""
    bench = Bench(kafka_broker, unique_name("handlers"), tmp_path, "fails_on_poison")
    async with opened(bench):
        workers = [bench.start(name=None, state_dir=bench.disk(str(number))) for number in range(2)]
        await bench.until_shared(*workers)
        inputs = [*numbered(20), ("a", "poison"), *numbered(20, start=20)]
        await bench.produce(inputs)
        assert [await worker.until_dead() for worker in workers] == [1, 1]
        assert all("this value is poison" in worker.log for worker in workers)
        bench.topology = "counter"
        mended = bench.start(name=None, state_dir=bench.disk("0"))
        await bench.until_all_committed(mended)
        await mended.stop()
        check_counts(inputs, await bench.read())
