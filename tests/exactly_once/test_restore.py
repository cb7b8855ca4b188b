"""Stores come back from real changelogs: with gaps, deletes, open transactions, and what was cut off."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from streamlib import KafkaStreams, RestoreListener, StreamsBuilder, StreamsConfig, TopicPartition, Topology
from streamlib.dsl.materialized import Materialized
from streamlib.records import OutRecord
from streamlib.testing.plugin import KafkaTarget
from tests.exactly_once.harness import PATIENCE_S, Bench, check_counts, opened

COMPACTED_AT_ONCE = {
    "segment.ms": "100",
    "min.cleanable.dirty.ratio": "0.001",
    "delete.retention.ms": "0",
    "min.compaction.lag.ms": "0",
    "max.compaction.lag.ms": "100",
}


class Heard(RestoreListener):
    """What was restored of the one store, by partition."""

    def __init__(self) -> None:
        self.started: dict[int, tuple[int, int]] = {}
        self.batches: dict[int, int] = {}
        self.ended: dict[int, int] = {}
        self.suspended: dict[int, int] = {}

    def on_restore_start(self, partition: TopicPartition, store: str, start: int, end: int) -> None:
        self.started[partition.partition] = start, end

    def on_batch_restored(self, partition: TopicPartition, store: str, offset: int, count: int) -> None:
        number = partition.partition
        self.batches[number] = self.batches.get(number, 0) + count

    def on_restore_end(self, partition: TopicPartition, store: str, total: int) -> None:
        self.ended[partition.partition] = total

    def on_restore_suspended(self, partition: TopicPartition, store: str, total: int) -> None:
        self.suspended[partition.partition] = total


def table(bench: Bench, **options: Any) -> Topology:
    """Each question is answered with the table's row of its key: `-` if there is none."""
    builder = StreamsBuilder()
    rows = builder.table(bench.source, key=str, value=str, store=Materialized(name="rows", **options))
    questions = builder.stream(f"{bench.source}-questions", key=str, value=str)
    questions.left_join(rows, lambda question, row: f"{question}:{row or '-'}", value=str).to(bench.sink)
    return builder.build()


@asynccontextmanager
async def running(
    bench: Bench, topology: Topology, disk: str, heard: RestoreListener | None = None, **settings: Any
) -> AsyncIterator[KafkaStreams]:
    """The application in this process, with its stores on this disk."""
    config = StreamsConfig(
        application_id=bench.name,
        bootstrap_servers=bench._kafka.bootstrap_servers,
        processing_guarantee="exactly_once_v2",
        state_dir=str(bench.folder / disk),
        session_timeout_ms=6000,
        heartbeat_interval_ms=300,
        **settings,
    )
    async with KafkaStreams(topology, config, restore_listener=heard) as app:
        yield app


async def fill(bench: Bench, topology: Topology, rows: Sequence[tuple[str, str]], deleted: Sequence[str] = ()) -> None:
    """Run the application on the first disk until all rows are in its store, and committed."""
    async with running(bench, topology, "first") as app:
        await app.wait_running()
        await bench.produce(rows)
        await write(bench, TopicPartition(bench.source, 0), [(key.encode(), None, now_ms(), ()) for key in deleted])
        await bench.until_all_committed()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def write(bench: Bench, partition: TopicPartition, records: Sequence[OutRecord]) -> None:
    producer = bench.connection.producer(None)
    await producer.init()
    producer.send(partition, records)
    await producer.flush()
    await producer.close()


async def answers(bench: Bench, keys: Sequence[str]) -> dict[str, int | str | None]:
    """What the running application answers."""
    before = len(await bench.read(value=str))
    await bench.produce([(key, "?") for key in keys], topic=f"{bench.source}-questions")
    with anyio.fail_after(PATIENCE_S):
        while len(seen := await bench.read(value=str)) < before + len(keys):
            await anyio.sleep(0.05)
    return {record.key: record.value for record in seen[-len(keys) :]}


@pytest.fixture
async def asked(bench: Bench) -> Bench:
    await bench.create_topic(f"{bench.source}-questions")
    return bench


@pytest.fixture
def changelog(bench: Bench) -> TopicPartition:
    """Of the keys that begin with b, d, f ..."""
    return TopicPartition(f"{bench.name}-rows-changelog", 0)


async def test_a_kill_in_the_middle_of_a_restore_in_bulk_leaves_what_can_be_gone_on_with(bench: Bench) -> None:
    """What was past the write-ahead log is restored again, and no count is lost or doubled."""
    before = [(f"b{n}", "") for n in range(15_000)]
    await bench.produce(before)
    worker = bench.start()
    await bench.until_all_committed(worker)
    await worker.stop()
    disk = str(bench.folder / "second")
    victim = bench.start({"act": "kill", "when": "after", "api": "store-write", "nth": 2}, state_dir=disk)
    await victim.until_dead()
    again = bench.start(state_dir=disk)
    await again.until_running()
    assert 0 < again.status["records_restored"] <= 15_000
    await bench.produce(before[::10])
    await bench.until_all_committed(again)
    await again.stop()
    check_counts(before + before[::10], await bench.read())


async def test_deleted_rows_stay_deleted(asked: Bench) -> None:
    topology = table(asked)
    await fill(asked, topology, [("b1", "x"), ("b2", "x"), ("b1", "y"), ("b3", "x")], deleted=["b2"])
    async with running(asked, topology, "second", heard := Heard()) as app:
        await app.wait_running()
        assert await answers(asked, ["b1", "b2", "b3"]) == {"b1": "?:y", "b2": "?:-", "b3": "?:x"}
    assert heard.ended[0] == heard.batches[0] > 0
    assert heard.ended[1] == 0


async def test_a_listener_hears_each_store_restored_in_full(asked: Bench, changelog: TopicPartition) -> None:
    topology = table(asked)
    await fill(asked, topology, [(f"{letter}{n}", "x") for letter in "bc" for n in range(500)])
    async with running(asked, topology, "second", heard := Heard()) as app:
        await app.wait_running()
    ends = await asked.connection.admin().list_offsets([changelog._replace(partition=n) for n in (0, 1)], "latest")
    assert heard.started == {partition.partition: (0, end) for partition, end in ends.items()}
    assert heard.batches == heard.ended == {0: 500, 1: 500}
    assert heard.suspended == {}


async def test_what_is_on_the_disk_is_not_restored_again(asked: Bench) -> None:
    topology = table(asked)
    await fill(asked, topology, [(f"{letter}{n}", "x") for letter in "bc" for n in range(50)])
    async with running(asked, topology, "first", heard := Heard()) as app:
        await app.wait_running()
    assert heard.ended == {0: 0, 1: 0}
    assert all(end - start <= 1 for start, end in heard.started.values()), "nothing but the last commit's marker"


async def test_a_store_without_a_changelog_starts_empty_on_another_disk(asked: Bench) -> None:
    topology = table(asked, changelog=False)
    await fill(asked, topology, [("b1", "x")])
    async with running(asked, topology, "second", heard := Heard()) as app:
        await app.wait_running()
        assert await answers(asked, ["b1"]) == {"b1": "?:-"}
    assert heard.started == {}


async def test_a_compacted_changelog_is_restored(
    kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path
) -> None:
    """Gaps at its start, in its middle and at its end, and markers without a record; the cleaner comes every 15 s."""
    async with opened(Bench(kafka_broker, unique_name("compacted"), tmp_path)) as bench:
        await bench.create_topic(f"{bench.source}-questions")
        topology = table(bench, changelog_config=COMPACTED_AT_ONCE)
        for number in range(4):
            await fill(bench, topology, [(f"b{n}", str(number)) for n in range(50)], deleted=["b7"])
        async with running(bench, topology, "first") as app:
            await app.wait_running()
            with anyio.fail_after(PATIENCE_S):
                while not await compacted(bench):
                    await bench.produce([("b1", "again")])  # segments are closed by the next write
                    await anyio.sleep(0.5)
            await bench.until_all_committed()
        async with running(bench, topology, "second", heard := Heard()) as app:
            await app.wait_running()
            wanted = {"b0": "?:3", "b1": "?:again", "b7": "?:-", "b49": "?:3"}
            assert await answers(bench, list(wanted)) == wanted
        start, end = heard.started[0]
        assert 0 < heard.ended[0] < (end - start) / 2


async def compacted(bench: Bench) -> bool:
    """Whether what was written first is gone, up to the last rows."""
    found = [record for record in await bench.read(f"{bench.name}-rows-changelog", str) if record.partition == 0]
    return bool(found) and found[0].offset > 140


async def test_tasks_that_are_restored_process_while_another_one_restores(
    asked: Bench, changelog: TopicPartition, caplog: pytest.LogCaptureFixture
) -> None:
    """A transaction that somebody left open in one changelog holds up its task alone."""
    topology = table(asked)
    await fill(asked, topology, [("b1", "x"), ("c1", "x")])
    stranger = asked.connection.producer(f"{asked.name}-stranger")
    await stranger.init()
    stranger.begin()
    stranger.send(changelog, [(b"b1", b"never", now_ms(), ())])
    await stranger.flush()
    async with running(asked, topology, "second", heard := Heard()) as app:
        assert await answers(asked, ["c1"]) == {"c1": "?:x"}
        assert list(app.status.restoring) == ["0_0"]
        assert 0 not in heard.ended
        await stranger.end(commit=False)
        await app.wait_running()
        assert await answers(asked, ["b1"]) == {"b1": "?:x"}
    await stranger.close()
    assert heard.ended == {0: 1, 1: 1}


async def test_a_task_that_is_taken_away_in_the_middle_is_suspended(asked: Bench, changelog: TopicPartition) -> None:
    topology = table(asked)
    await fill(asked, topology, [(f"b{n}", "x") for n in range(100)])
    stranger = asked.connection.producer(f"{asked.name}-stranger")
    await stranger.init()
    stranger.begin()
    stranger.send(changelog, [(b"b1", b"never", now_ms(), ())])
    await stranger.flush()
    async with running(asked, topology, "second", heard := Heard()):
        with anyio.fail_after(PATIENCE_S):
            while heard.batches.get(0, 0) < 100:
                await anyio.sleep(0.02)
    assert heard.suspended == {0: 100}
    await stranger.end(commit=False)
    await stranger.close()
    async with running(asked, topology, "second", again := Heard()) as app:
        await app.wait_running()
    assert again.ended == {0: 0, 1: 0}, "a clean stop keeps what was restored"


async def test_a_store_whose_position_the_log_no_longer_has_is_built_anew(
    asked: Bench, changelog: TopicPartition
) -> None:
    topology = table(asked, changelog_config={"cleanup.policy": "compact,delete"})
    await fill(asked, topology, [("b1", "x"), ("b2", "x")])
    (end,) = (await asked.connection.admin().list_offsets([changelog], "latest")).values()
    await write(asked, changelog, [(b"b3", b"x", now_ms(), ())] * 3)
    await asked.connection.admin().delete_records({changelog: end + 2})
    async with running(asked, topology, "first", heard := Heard()) as app:
        await app.wait_running()
        assert await answers(asked, ["b1", "b3"]) == {"b1": "?:-", "b3": "?:x"}
    assert heard.started[0] == (end + 2, end + 3)


async def test_a_log_cut_off_under_a_restore_is_read_from_its_new_start(
    asked: Bench, changelog: TopicPartition, caplog: pytest.LogCaptureFixture
) -> None:
    topology = table(asked, changelog_config={"cleanup.policy": "compact,delete"})
    await fill(asked, topology, [("b1", "x"), ("c1", "x")])
    stranger = asked.connection.producer(f"{asked.name}-stranger")
    await stranger.init()
    stranger.begin()
    stranger.send(changelog, [(b"b2", b"x", now_ms(), ()), (b"b3", b"x", now_ms(), ())])
    await stranger.flush()
    async with running(asked, topology, "second", heard := Heard()) as app:
        with anyio.fail_after(PATIENCE_S):
            while 0 not in heard.batches:
                await anyio.sleep(0.02)
        # What is deleted before the transaction's end moves the start past where the restore waits.
        (end,) = (await asked.connection.admin().list_offsets([changelog], "latest")).values()
        await asked.connection.admin().delete_records({changelog: end - 1})
        await stranger.end(commit=True)
        await app.wait_running()
        assert await answers(asked, ["b1", "b3", "c1"]) == {"b1": "?:-", "b3": "?:x", "c1": "?:x"}
    await stranger.close()
    assert heard.suspended == {0: 1}
