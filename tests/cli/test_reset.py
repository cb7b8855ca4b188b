"""An application begins anew: what is refused, what is done, and that it comes to the same results again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import CompletedProcess

import anyio
import anyio.to_thread
import msgspec
import pytest

from streamlib import KafkaStreams, StreamsBuilder, StreamsConfig
from streamlib.cli.errors import UsageError
from streamlib.cli.reset.command import _start
from streamlib.cli.reset.doing import delete_local_state
from streamlib.cli.reset.plan import ToOffset, ToTime, internal_topics
from streamlib.errors import LockError
from streamlib.file_lock import FileLock
from streamlib.records import TopicPartition
from streamlib.testing.plugin import KafkaTarget
from tests.cli.conftest import Command, Write
from tests.cli.dead_letters import NOON_MS, Topics, topics

FLOW = """
from streamlib import StreamsBuilder

builder = StreamsBuilder()
counts = builder.stream("{source}", key=str, value=str).group_by(lambda k, v: v, key=str).count(store="counts")
counts.to_stream().to("{dead}")
"""


def test_only_one_place_to_start_from_can_be_chosen() -> None:
    assert _start(None, None, earliest=False, latest=False) == "earliest"
    assert _start(None, None, earliest=False, latest=True) == "latest"
    assert _start(5, None, earliest=False, latest=False) == ToOffset(5)
    assert _start(None, "1970-01-01T00:00:01Z", earliest=False, latest=False) == ToTime(1_000)
    with pytest.raises(UsageError, match="choose one"):
        _start(5, None, earliest=True, latest=False)


def test_topics_of_an_application_with_a_longer_name_are_spared() -> None:
    found = ["shop-a-repartition", "shop-eu-a-changelog", "shopping-a-changelog", "shop-orders"]
    assert internal_topics("shop", found, ["shop", "shop-eu"]) == ("shop-a-repartition",)
    assert internal_topics("shop", found, ["shop"]) == ("shop-a-repartition", "shop-eu-a-changelog")


def test_state_that_a_process_uses_is_not_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "app"
    assert not delete_local_state(folder)
    (folder / "0_0").mkdir(parents=True)
    lock = FileLock.take(folder / "slot-0.lock")
    with pytest.raises(LockError, match="stop that process"):
        delete_local_state(folder)
    assert (folder / "0_0").is_dir()
    lock.release()
    assert delete_local_state(folder)
    assert not folder.exists()


class Shop:
    """An application that counts, and its topics."""

    def __init__(self, name: str, made: Topics, folder: Path, streamlib: Command) -> None:
        self.name = name
        self.topics = made
        self.folder = folder
        self._streamlib = streamlib

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        names: dict[str, StreamsBuilder] = {}
        exec(FLOW.format(source=self.topics.source, dead=self.topics.dead), names)
        settings = {"state_dir": str(self.folder), "bootstrap_servers": self.topics.servers}
        exactly_once = {"processing_guarantee": "exactly_once_v2"}
        config = StreamsConfig.load({"application_id": self.name, **settings, **exactly_once}, env={})
        async with KafkaStreams(names["builder"].build(), config):
            yield

    async def counts(self, expected: int) -> list[tuple[bytes | None, int]]:
        """What it has written, once that is so many records."""
        with anyio.fail_after(60):
            while True:
                by_partition = await self.topics.replayed(self.topics.dead, partitions=2)
                found = [record for records in by_partition.values() for record in records]
                if len(found) >= expected:
                    return sorted((r.key, int.from_bytes(r.value or b"", "big")) for r in found)
                await anyio.sleep(0.05)

    async def command(self, *arguments: str) -> CompletedProcess[str]:
        words = "reset", self.name, "--bootstrap-servers", self.topics.servers, "--set", f"state_dir={self.folder}"
        return await anyio.to_thread.run_sync(lambda: self._streamlib(*words, *arguments))

    async def committed(self) -> dict[TopicPartition, int]:
        found = await self.topics.connection.admin().committed_offsets(self.name)
        return {partition: each.offset for partition, each in found.items()}

    async def internal(self) -> tuple[str, ...]:
        return internal_topics(self.name, await self.topics.connection.admin().topics(), ())


@pytest.fixture
async def shop(
    kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path, streamlib: Command
) -> AsyncIterator[Shop]:
    name = unique_name("reset")
    async with topics(kafka_broker.bootstrap_servers, name) as made:
        words = [b"a", b"b", b"a"]
        await made.write(
            {TopicPartition(made.source, 0): [(None, word, NOON_MS + at, ()) for at, word in enumerate(words)]}
        )
        yield Shop(name, made, tmp_path / "state", streamlib)
        admin = made.connection.admin()
        await admin.delete_topics(internal_topics(name, await admin.topics(), ()))


async def test_application_counts_the_same_again_after_a_reset(shop: Shop) -> None:
    once = [(b"a", 1), (b"a", 2), (b"b", 1)]
    async with shop.running():
        assert await shop.counts(3) == once
        refused = await shop.command("--yes")
        assert refused.returncode == 1
        assert f"error: application {shop.name} is running: " in refused.stderr
    internal = await shop.internal()
    assert len(internal) == 2
    source = TopicPartition(shop.topics.source, 0)
    assert (await shop.committed())[source] == 3

    dry = await shop.command("--dry-run", "--local-state")
    assert dry.returncode == 0
    assert all(f"  {topic}\n" in dry.stdout for topic in internal)
    assert str(shop.folder / shop.name) in dry.stdout
    assert (await shop.command()).returncode == 1  # nobody there to answer
    assert (await shop.committed())[source] == 3
    assert await shop.internal() == internal

    done = await shop.command("--yes", "--local-state")
    assert (done.returncode, done.stderr) == (0, "")
    assert await shop.committed() == {TopicPartition(shop.topics.source, number): 0 for number in range(3)}
    assert await shop.internal() == ()
    assert not (shop.folder / shop.name).exists()
    async with shop.running():
        assert await shop.counts(6) == sorted([*once, *once])


async def test_offsets_go_where_they_are_told_to(shop: Shop, write_module: Write) -> None:
    write_module("flow", FLOW.format(source=shop.topics.source, dead=shop.topics.dead))
    source = TopicPartition(shop.topics.source, 0)
    for option, offset in (
        (("--to-offset", "2"), 2),
        (("--to-offset", "99"), 3),
        (("--to-latest",), 3),
        (("--to-datetime", "2020-01-01T12:00:00.001Z"), 1),
        (("--to-datetime", "2020-01-03"), 3),
    ):
        done = await shop.command("--topology", "flow:builder", "--yes", "--json", *option)
        assert (done.returncode, done.stderr) == (0, "")
        told = msgspec.json.decode(done.stdout)
        assert (told["reset"], {each["offset"] for each in told["offsets"] if each["partition"] == 0}) == (
            True,
            {offset},
        )
        assert (await shop.committed())[source] == offset


async def test_application_that_never_ran_is_not_reset(shop: Shop) -> None:
    done = await shop.command("--yes")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: there is no group {shop.name}")
