"""Dead letters: told apart, shown, and put back once."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable

import anyio
import anyio.to_thread
import msgspec
import pytest

from streamlib.cli.client import opened
from streamlib.cli.dlq import replay as replaying
from streamlib.cli.dlq.plan import GROUP_PREFIX, Request, Route, chosen_partition, kept_partition, make_plan
from streamlib.cli.dlq.replay import INSTANCE_ID, TakenOverError, replay
from streamlib.cli.dlq.replayed import Replayed
from streamlib.cli.errors import UsageError
from streamlib.config import StreamsConfig
from streamlib.dead_letters.letters import Letter, Wanted
from streamlib.kafka.connection import Connection
from streamlib.kafka.reading import partitions_of
from streamlib.partitioning import partition_for
from streamlib.records import FetchedRecord, Headers, OffsetAndMetadata, TopicPartition
from streamlib.testing.plugin import KafkaTarget
from tests.cli.conftest import Command
from tests.cli.dead_letters import NOON_MS, Failed, Topics, letter_of, topics

DEAD = TopicPartition("dead", 1)


class Record(msgspec.Struct):
    """A record that was read."""

    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: Headers
    offset: int = 7


def letter(failed: Failed) -> Letter:
    return Letter.read(DEAD, Record(*letter_of(failed, "orders")))


# What a dead letter tells


def test_letter_tells_the_failure_and_gives_the_record_as_it_was() -> None:
    headers: Headers = (("trace", b"1"), ("trace", None))
    failed = Failed(b"k", b"\xff", ValueError("no price"), offset=42, headers=headers, partition=2)
    found = letter(failed)
    assert found.record == (b"k", b"\xff", NOON_MS, headers)
    assert (found.exception, found.message) == ("builtins.ValueError", "no price")
    assert (found.source_topic, found.source_partition, found.source_offset) == ("orders", 2, 42)
    assert (found.node, found.application) == ("map", "shop")
    assert found.stacktrace is not None
    assert "ValueError: no price" in found.stacktrace


def test_record_without_the_headers_is_a_letter_that_tells_nothing() -> None:
    found = Letter.read(DEAD, Record(b"k", b"v", NOON_MS, (("own", b"1"), ("__streams.errors.partition", b"x"))))
    assert (found.exception, found.source_topic, found.source_partition) == (None, None, None)
    assert found.record[3] == (("own", b"1"),)


def test_filter_takes_a_class_by_its_short_or_full_name_and_times_until_exclusive() -> None:
    found = letter(Failed(b"k", b"v", ValueError("x")))
    assert found in Wanted("ValueError", NOON_MS, NOON_MS + 1)
    assert found in Wanted("builtins.ValueError")
    assert found not in Wanted("Error")
    assert found not in Wanted(from_ms=NOON_MS + 1)
    assert found not in Wanted(until_ms=NOON_MS)


def test_partition_is_that_of_the_key_or_else_of_the_source() -> None:
    assert chosen_partition(letter(Failed(b"ann", None, ValueError())), 5) == partition_for(b"ann", 5)
    assert chosen_partition(letter(Failed(None, None, ValueError(), partition=7)), 5) == 2
    assert kept_partition(letter(Failed(b"ann", None, ValueError(), partition=4)), "orders", 5) == 4
    with pytest.raises(UsageError, match="cannot keep its partition, 5: orders has 5"):
        kept_partition(letter(Failed(b"ann", None, ValueError(), partition=5)), "orders", 5)


# What has been replayed


def test_ranges_survive_a_commit_whatever_was_added_in_whatever_order() -> None:
    chance = random.Random(3)
    for _ in range(200):
        replayed, model = Replayed(10), set[int]()
        for _ in range(chance.randrange(30)):
            start = chance.randrange(0, 80)
            end = start + chance.randrange(0, 6)
            replayed.add(start, end)
            model.update(range(start, end))
        read = Replayed.committed(replayed.to_commit(DEAD))
        for each in (replayed, read):
            assert [offset for offset in range(90) if offset in each] == sorted(model | set(range(10)))
        assert read.first_left == next(offset for offset in range(10, 90) if offset not in model)


def test_without_gaps_only_an_offset_is_committed() -> None:
    replayed = Replayed(0)
    replayed.add(0, 5_000)
    assert replayed.to_commit(DEAD) == OffsetAndMetadata(5_000)


def test_more_ranges_than_a_commit_can_hold_are_refused() -> None:
    chance, replayed = random.Random(1), Replayed(0)
    at = 1
    for _ in range(5_000):
        replayed.add(at, end := at + chance.randrange(1, 1_000))
        at = end + chance.randrange(1, 1_000)
    with pytest.raises(UsageError, match="scattered over dead-1 in 5,000 places"):
        replayed.to_commit(DEAD)


# On a broker


@pytest.fixture
async def dead(kafka_broker: KafkaTarget, unique_name: Callable[[str], str]) -> AsyncIterator[Topics]:
    async with topics(kafka_broker.bootstrap_servers, unique_name("dlq")) as made:
        yield made


async def command(streamlib: Command, dead: Topics, name: str, *arguments: str, code: int = 0) -> str:
    words = "dlq", name, dead.dead, "--bootstrap-servers", dead.servers, *arguments
    done = await anyio.to_thread.run_sync(lambda: streamlib(*words))
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


def values(found: dict[TopicPartition, list[FetchedRecord]]) -> list[bytes]:
    return sorted(record.value or b"" for records in found.values() for record in records)


async def test_letters_are_listed_and_shown(streamlib: Command, dead: Topics) -> None:
    await dead.fail(Failed(b"a", b"1", ValueError("x")), Failed(b"b", b"2", KeyError("y"), 1, NOON_MS + 2))
    await dead.fail(Failed(b"c", b"\xff", ValueError("z"), 2, NOON_MS + 1, (("h", b"1"),)), partition=1)
    kinds = msgspec.json.decode(await command(streamlib, dead, "list", "--json"))["kinds"]
    assert [(kind["exception"], kind["records"], kind["not_replayed"]) for kind in kinds] == [
        ("builtins.ValueError", 2, 2),
        ("builtins.KeyError", 1, 1),
    ]
    assert (kinds[0]["first_ms"], kinds[0]["last_ms"]) == (NOON_MS, NOON_MS + 1)
    assert kinds[0]["source_topic"] == dead.source
    assert "builtins.KeyError" in await command(streamlib, dead, "list")
    lines = (await command(streamlib, dead, "show", "--json", "--limit", "2")).splitlines()
    shown = [msgspec.json.decode(line) for line in lines]
    assert [each.get("value", each.get("value_hex")) for each in shown] == ["ff", "2"]  # the newest last
    text = await command(streamlib, dead, "show", "--partition", "1", "--offset", "0", "--trace")
    assert "value   0xff" in text
    assert "at      node map of application shop\n" in text
    assert shown[0]["node"] == "map"
    assert "header  h: 1" in text
    assert "ValueError: z" in text


async def test_each_record_is_put_back_once_as_it_was(streamlib: Command, dead: Topics) -> None:
    headers = (("h", b"1"),)
    await dead.fail(Failed(b"a", b"1", ValueError(), 5, NOON_MS, headers), Failed(b"b", b"2", KeyError(), 6))
    assert "not asked for: 1\n" in await command(streamlib, dead, "replay", "--exception", "KeyError", "--dry-run")
    assert await dead.replayed() == {}
    assert "records replayed: 1\n" in await command(streamlib, dead, "replay", "--exception", "KeyError", "--yes")
    left = msgspec.json.decode(await command(streamlib, dead, "replay", "--yes", "--json"))  # by the filter
    assert left == {"to": {dead.source: 1}, "not_wanted": 0, "without_source": 0, "replayed": 1}
    assert "nothing to replay" in await command(streamlib, dead, "replay", "--yes")
    found = await dead.replayed()
    assert values(found) == [b"1", b"2"]
    (first,) = found[TopicPartition(dead.source, partition_for(b"a", 3))]
    assert (first.key, first.value, first.timestamp, tuple(first.headers)) == (b"a", b"1", NOON_MS, headers)
    assert "records replayed: 2\n" in await command(streamlib, dead, "replay", "--yes", "--again")
    assert values(await dead.replayed()) == [b"1", b"1", b"2", b"2"]


async def test_nothing_is_written_unless_it_is_asked_for(streamlib: Command, dead: Topics) -> None:
    await dead.fail(Failed(b"a", b"1", ValueError()))
    await command(streamlib, dead, "replay", code=1)  # nobody there to answer
    assert await dead.replayed() == {}
    missing = await command(streamlib, dead, "replay", "--to", f"{dead.source}x", "--yes", code=2)
    assert missing == f"error: there is no topic {dead.source}x: did you mean {dead.source}?\n"


def settings(dead: Topics) -> StreamsConfig:
    return StreamsConfig(
        application_id=GROUP_PREFIX + dead.dead, bootstrap_servers=dead.servers, group_instance_id=INSTANCE_ID
    )


async def replayed_by(connection: Connection, dead: Topics, on_progress: Callable[[int], object]) -> int:
    request = Request(topic=dead.dead, wanted=Wanted(), keep_partition=True)
    route = Route(connection.admin(), request)
    plan = await make_plan(connection, request, route, lambda done: None)
    return await replay(connection, request, route, plan, on_progress)


async def test_replay_that_breaks_off_goes_on_behind_its_last_transaction(
    dead: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "CHUNK_RECORDS", 4)
    await dead.fail(*(Failed(b"k", b"%d" % i, ValueError(), i, partition=i % 3) for i in range(10)))

    class PowerCutError(Exception):
        pass

    def cut(done: int) -> None:
        raise PowerCutError

    async with opened(settings(dead)) as first:
        with pytest.raises(PowerCutError):
            await replayed_by(first, dead, cut)
    assert values(await dead.replayed()) == [b"0", b"1", b"2", b"3"]
    counts: list[int] = []
    async with opened(settings(dead)) as second:
        assert await replayed_by(second, dead, counts.append) == 6
    assert counts == [4, 2]
    found = await dead.replayed()
    assert {partition.partition: [int(r.value or b"") for r in records] for partition, records in found.items()} == {
        0: [0, 3, 6, 9],
        1: [1, 4, 7],
        2: [2, 5, 8],
    }


class HeldRoute(Route):
    """Holds a replay in front of its first record."""

    def __init__(self, connection: Connection, request: Request) -> None:
        super().__init__(connection.admin(), request)
        self.reached, self.go_on = anyio.Event(), anyio.Event()

    async def of(self, letter: Letter) -> TopicPartition | None:
        self.reached.set()
        await self.go_on.wait()
        return await super().of(letter)


async def test_later_replay_throws_out_the_earlier_one_and_nothing_comes_twice(dead: Topics) -> None:
    await dead.fail(*(Failed(b"k", b"%d" % i, ValueError(), i) for i in range(9)))
    request = Request(topic=dead.dead, wanted=Wanted())
    async with opened(settings(dead)) as first, opened(settings(dead)) as second:
        plan = await make_plan(first, request, Route(first.admin(), request), lambda done: None)
        held = HeldRoute(first, request)

        async def earlier() -> None:
            with pytest.raises(TakenOverError, match="begin again for the rest"):
                await replay(first, request, held, plan, lambda done: None)

        async with anyio.create_task_group() as both:
            both.start_soon(earlier)
            await held.reached.wait()
            assert await replayed_by(second, dead, lambda done: None) == 9
            held.go_on.set()
    assert len(values(await dead.replayed())) == 9


async def test_replay_that_is_killed_is_made_up_for_exactly(streamlib: Command, dead: Topics) -> None:
    await dead.fail(*(Failed(b"%d" % i, b"%05d" % i, ValueError(), i) for i in range(8_000)))
    words = "dlq", "replay", dead.dead, "--bootstrap-servers", dead.servers, "--yes"
    partitions = partitions_of(dead.source, 3)
    admin = dead.connection.admin()
    with subprocess.Popen([sys.executable, "-m", "streamlib", *words], stdout=subprocess.DEVNULL) as process:
        while not any((await admin.list_offsets(partitions, "latest")).values()) and process.poll() is None:
            await anyio.sleep(0.01)
        process.kill()  # in the middle of a transaction, or in between two
    await command(streamlib, dead, "replay", "--yes")
    assert values(await dead.replayed()) == [b"%05d" % i for i in range(8_000)]
