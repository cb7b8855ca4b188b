"""What a user sees who got something wrong: one clear error that says what, where, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from streamlib import (
    ConfigError,
    DeadLetter,
    KafkaError,
    KafkaStreams,
    LockError,
    ProcessingError,
    SerializationError,
    State,
    StreamsBuilder,
    StreamsConfig,
    TopologyError,
)
from streamlib.testing.plugin import KafkaTarget
from tests.exactly_once.harness import Bench, config_of, numbered
from tests.exactly_once.topologies import counter, fails_on_poison


class Order(msgspec.Struct):
    amount: int


@pytest.fixture
def config(bench: Bench, kafka: KafkaTarget, tmp_path: Path) -> StreamsConfig:
    return config_of(bench, kafka, tmp_path)


async def run(topology: Any, config: StreamsConfig) -> None:
    with anyio.fail_after(30):
        await KafkaStreams(topology, config).run()


async def test_an_unknown_topic_is_named(bench: Bench, config: StreamsConfig) -> None:
    with pytest.raises(TopologyError, match=r"do not exist: no-such-topic: create them"):
        await run(counter("no-such-topic", bench.sink), config)
    with pytest.raises(TopologyError, match=r"writes to do not exist: no-such-topic"):
        await run(counter(bench.source, "no-such-topic"), config)


async def test_joined_topics_with_different_partition_counts_are_both_named(
    bench: Bench, config: StreamsConfig
) -> None:
    await bench.create_topic(f"{bench.name}-table", 3)
    builder = StreamsBuilder()
    table = builder.table(f"{bench.name}-table", key=str, value=str)
    builder.stream(bench.source, key=str, value=str).join(table, lambda left, right: left + right).to(bench.sink)
    with pytest.raises(TopologyError) as caught:
        await run(builder.build(), config)
    for part in (f"{bench.source} (2 partitions)", f"{bench.name}-table (3 partitions)", ".repartition(partitions=3)"):
        assert part in str(caught.value)


async def test_poison_bytes_stop_the_worker_before_their_offset_is_committed(
    bench: Bench, config: StreamsConfig
) -> None:
    builder = StreamsBuilder()
    builder.stream(bench.source, key=str, value=Order).to(bench.sink)
    await bench.produce([("a", '{"amount": 1}'), ("a", "poison")])
    with pytest.raises(SerializationError) as caught:
        await run(builder.build(), config)
    assert (caught.value.topic, caught.value.partition, caught.value.offset) == (bench.source, 1, 1)
    for part in (bench.source, "partition 1", "offset 1"):
        assert part in str(caught.value)
    assert await bench.read(value=str) == []
    assert set((await bench.committed()).values()) == {0}


async def test_dead_letters_are_written_with_the_results(bench: Bench, config: StreamsConfig) -> None:
    dead = f"{bench.name}-dead"
    lenient = msgspec.structs.replace(
        config,
        on_deserialization_error="skip",
        on_processing_error=DeadLetter(),
        errors_dead_letter_queue_topic_name=dead,
    )
    builder = StreamsBuilder()
    builder.stream(bench.source, key=str, value=Order).map_values(half, value=str).to(bench.sink)
    topology = builder.build()
    with pytest.raises(TopologyError, match=f"topics for dead letters do not exist: {dead}: create them"):
        await run(topology, lenient)
    await bench.create_topic(dead)
    await bench.produce([("a", '{"amount": 4}'), ("a", "poison"), ("b", '{"amount": 1}'), ("b", '{"amount": 2}')])
    with anyio.fail_after(30):
        async with KafkaStreams(topology, lenient):
            await bench.until_all_committed()
    assert sorted(str(seen.value) for seen in await bench.read(value=str)) == ["1", "2"]
    assert sorted(str(seen.value) for seen in await bench.read(dead, value=str)) == ["poison", '{"amount": 1}']


def half(order: Order) -> str:
    if order.amount % 2:
        raise ValueError(f"{order.amount} is odd")
    return str(order.amount // 2)


async def test_a_function_that_raises_is_named_with_its_record(bench: Bench, config: StreamsConfig) -> None:
    await bench.produce([("a", "fine"), ("a", "poison")])
    with pytest.raises(ProcessingError) as caught:
        await run(fails_on_poison(bench.source, bench.sink), config)
    assert isinstance(caught.value.__cause__, ValueError)
    assert (caught.value.node, caught.value.offset) == ("refuse-poison", 1)
    assert "refuse-poison" in str(caught.value)
    assert await bench.read() == []


async def test_a_state_directory_in_use_is_named_with_its_holder(bench: Bench, config: StreamsConfig) -> None:
    worker = bench.start(state_dir=config.state_dir)
    await bench.produce(numbered(10))
    await worker.until_running()
    with pytest.raises(LockError, match=rf"held by process {worker.process.pid}\b.*another state_dir"):
        await run(counter(bench.source, bench.sink), config)
    await worker.stop()


async def test_nobody_at_the_address_is_said_with_the_address(config: StreamsConfig, unused_tcp_port: int) -> None:
    elsewhere = msgspec.structs.replace(config, bootstrap_servers=f"127.0.0.1:{unused_tcp_port}")
    with pytest.raises(KafkaError, match=rf"127\.0\.0\.1:{unused_tcp_port}"):
        await run(counter("in", "out"), elsewhere)


async def test_a_changelog_of_another_shape_is_not_written_to(bench: Bench, config: StreamsConfig) -> None:
    await bench.create_topic(f"{bench.name}-counts-changelog", 7)
    with pytest.raises(TopologyError, match=rf"{bench.name}-counts-changelog.*7"):
        await run(counter(bench.source, bench.sink), config)


def test_a_wrong_option_is_told_the_nearest_one(unique_name: Callable[[str], str]) -> None:
    with pytest.raises(ConfigError, match=r"'comit.interval.ms': did you mean 'commit_interval_ms'"):
        StreamsConfig.load({"application.id": unique_name("x"), "comit.interval.ms": 5}, env={})


async def test_an_app_in_a_block_that_fails_says_why(bench: Bench, config: StreamsConfig) -> None:
    with anyio.fail_after(30), pytest.raises(TopologyError, match="no-such-topic"):
        async with KafkaStreams(counter("no-such-topic", bench.sink), config) as app:
            await app.wait_running()


async def test_an_app_in_a_block_runs_until_the_block_ends(bench: Bench, config: StreamsConfig) -> None:
    await bench.produce(numbered(10))
    with anyio.fail_after(30):
        async with KafkaStreams(counter(bench.source, bench.sink), config) as app:
            states = [app.state]
            await app.wait_running()
            states.append(app.state)
            await bench.until_all_committed()
        states.append(app.state)
    assert states[0] in (State.CREATED, State.REBALANCING)
    assert states[1:] == [State.RUNNING, State.NOT_RUNNING]
    assert len(await bench.read()) == 10
