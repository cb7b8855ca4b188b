"""How far an application is behind, on a real broker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from streamlib import KafkaStreams, StreamsBuilder, StreamsConfig
from streamlib.cli.client import connected
from streamlib.cli.lag.screen import summary
from streamlib.cli.lag.standing import PartitionStanding, Standing, ask_standing
from streamlib.kafka.admin import KafkaAdmin
from streamlib.records import GroupMetadata, OffsetAndMetadata, TopicPartition
from streamlib.testing.plugin import KafkaTarget
from tests.cli.conftest import Command
from tests.cli.dead_letters import NOON_MS, topics


def test_summary_tells_the_total_and_what_is_unknown() -> None:
    known = PartitionStanding(topic="in", partition=0, committed=1, end=2_001, lag=2_000, member=None)
    unknown = PartitionStanding(topic="in", partition=1, committed=None, end=7, lag=None, member=None)
    standing = Standing(application_id="a", state="Stable", protocol="", members=1, partitions=(known, unknown))
    assert summary(standing) == (
        "application a: Stable, 1 member; lag 2,000 in 2 partitions, 1 of them without a committed offset"
    )


async def test_lag_is_what_lies_behind_the_committed_offsets(
    kafka_broker: KafkaTarget, unique_name: Callable[[str], str], streamlib: Command
) -> None:
    name = unique_name("lag")
    async with topics(kafka_broker.bootstrap_servers, name) as made:
        first, second, third = (TopicPartition(made.source, number) for number in range(3))
        await made.write({first: [(b"k", b"v", NOON_MS, ())] * 5, second: [(b"k", b"v", NOON_MS, ())] * 2})
        async with connected(made.servers, name) as connection:
            offsets = {first: OffsetAndMetadata(2), second: OffsetAndMetadata(2)}
            await connection.group().commit_offsets(GroupMetadata(name, -1, "", None), offsets)
        words = "lag", name, "--bootstrap-servers", made.servers
        done = await anyio.to_thread.run_sync(lambda: streamlib(*words, "--json"))
        told = msgspec.json.decode(done.stdout)
        rows = [(row["partition"], row["committed"], row["end"], row["lag"]) for row in told["partitions"]]
        assert rows == [(0, 2, 5, 3), (1, 2, 2, 0), (third.partition, None, 0, None)]
        assert (told["total_lag"], told["state"], told["members"]) == (3, "Empty", 0)
        shown = await anyio.to_thread.run_sync(lambda: streamlib(*words))
        assert shown.stdout.endswith("Empty, 0 members; lag 3 in 3 partitions, 1 of them without a committed offset\n")
        unknown = await anyio.to_thread.run_sync(lambda: streamlib("lag", f"{name}x", *words[2:]))
        assert (unknown.returncode, unknown.stderr) == (
            2,
            f"error: there is no group {name}x: did you mean {name}?\n",
        )


async def test_live_member_is_named_with_its_partitions(
    kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path
) -> None:
    await member_is_named(kafka_broker, unique_name("lag"), tmp_path, "classic")


async def test_live_member_of_a_streams_group_is_named_too(
    streams_kafka: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path
) -> None:
    await member_is_named(streams_kafka, unique_name("lag"), tmp_path, "streams")


async def member_is_named(kafka: KafkaTarget, name: str, folder: Path, protocol: str) -> None:
    async with topics(kafka.bootstrap_servers, name) as made:
        builder = StreamsBuilder()
        builder.stream(made.source, key=str, value=str).foreach(lambda key, value: None)
        settings = {"group.protocol": protocol, "state.dir": str(folder), "bootstrap.servers": made.servers}
        config = StreamsConfig.load({"application.id": name, **settings}, env={})
        await made.write({TopicPartition(made.source, 1): [(b"k", b"v", NOON_MS, ())] * 5})
        admin = made.connection.admin()
        async with KafkaStreams(builder.build(), config) as app:
            await app.wait_running()
            standing = await caught_up(admin, name)
        assert standing.members == 1
        assert [each.partition for each in standing.partitions if each.member is not None] == [0, 1, 2]
        assert (standing.partitions[1].committed, standing.partitions[1].lag) == (5, 0)


async def caught_up(admin: KafkaAdmin, name: str) -> Standing:
    with anyio.fail_after(60):
        while True:
            standing = await ask_standing(admin, name)
            if standing.partitions and standing.partitions[1].committed == 5:
                return standing
            await anyio.sleep(0.05)
