"""Tasks that move, and those that stay: what is processed meanwhile, who waits for whom, what moves with a task."""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamlib.testing.plugin import KafkaTarget
from tests.exactly_once.harness import Bench, Latch, Worker, check_counts, numbered, opened

PARTITIONS = 8
KEYS = "abcdefgh"  # one for each partition
# What would be waited for, is waited for longer than any test takes.
NEVER: dict[str, Any] = {"session_timeout_ms": 1_000_000}
DEAF: dict[str, Any] = {"heartbeat_interval_ms": 300_000, **NEVER}


@pytest.fixture
async def bench(kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(Bench(kafka_broker, unique_name("moves"), tmp_path), PARTITIONS) as ready:
        yield ready


@pytest.mark.parametrize("phase", ["JoinGroup", "SyncGroup"])
async def test_tasks_go_on_while_a_rebalance_is_under_way(bench: Bench, phase: str) -> None:
    """The newcomer waits for the first, whose part in the rebalance is held up; its records are not."""
    latch = Latch(bench.folder, phase)
    first = bench.start(latch.fault, name="w1")
    await bench.produce(numbered(40, KEYS))
    await bench.until_all_committed(first)
    latch.set()
    second = bench.start(name="w2", state_dir=bench.disk("w2"))
    await latch.until_reached()
    for start in (40, 80):
        await bench.produce(numbered(40, KEYS, start))
        await bench.until_all_committed(first, second)
    assert second.status.get("tasks", []) == []
    assert second.logged("rebalance 1") == []
    latch.release()
    await bench.until_shared(first, second)
    await bench.produce(numbered(40, KEYS, 120))
    await bench.until_all_committed(first, second)
    for worker in (first, second):
        await worker.stop()
    check_counts(numbered(160, KEYS), await bench.read())


async def test_what_was_let_go_of_is_taken_up_without_waiting_for_a_heartbeat(bench: Bench) -> None:
    """The newcomer would ask five minutes later whether there is something for it."""
    bench.settings |= NEVER
    first = bench.start(name=None)
    await bench.produce(numbered(40, KEYS))
    await bench.until_all_committed(first)
    second = bench.start(name=None, state_dir=bench.disk("w2"), **DEAF)
    await bench.until_shared(first, second)
    assert second.status["rebalances"] == 2  # it is there; it has its share
    await bench.produce(numbered(40, KEYS, 40))
    await bench.until_all_committed(first, second)
    for worker in (second, first):
        await worker.stop()
    check_counts(numbered(80, KEYS), await bench.read())


async def test_nobody_waits_for_the_session_of_a_worker_that_stops(bench: Bench) -> None:
    first = bench.start(name=None, **NEVER)
    await first.until_running()  # a newcomer would have to wait for the heartbeat of one that is deaf
    second = bench.start(name=None, state_dir=bench.disk("w2"), **DEAF)
    await bench.until_shared(first, second)
    await bench.produce(numbered(40, KEYS))
    await bench.until_all_committed(first, second)
    await second.stop()
    await bench.until_shared(first)
    await bench.produce(numbered(40, KEYS, 40))
    await bench.until_all_committed(first)
    [left] = first.logged(" left, ")
    assert "0 of 8 tasks move" in left  # they had moved before it left
    await first.stop()
    check_counts(numbered(80, KEYS), await bench.read())


async def test_a_worker_that_stops_processes_until_another_can_take_over(bench: Bench) -> None:
    """The one that stays is held up on its way into the rebalance; what comes meanwhile is processed all the same."""
    latch = Latch(bench.folder, "JoinGroup")
    goes = bench.start(name=None)
    await goes.until_running()
    stays = bench.start(latch.fault, name="w2", state_dir=bench.disk("w2"))
    await bench.until_shared(goes, stays)
    latch.set()
    goes.process.terminate()
    await latch.until_reached()
    await bench.produce(numbered(40, KEYS))
    await bench.until_all_committed(goes, stays)
    latch.release()
    assert await goes.until_dead() == 0
    await bench.until_shared(stays)
    await stays.stop()
    check_counts(numbered(40, KEYS), await bench.read())


async def test_stores_are_closed_as_often_as_they_are_opened(bench: Bench) -> None:
    """Through many rebalances, on a disk that all share; nobody holds what it has no task of."""
    first = bench.start(name=None)
    for turn in range(3):
        others = [bench.start(name=None) for _ in range(2)]
        await bench.until_shared(first, *others)
        await bench.produce(numbered(40, KEYS, 40 * turn))
        await bench.until_all_committed(first, *others)
        if turn == 1:
            others[0].kill()
        for worker in others[turn == 1 :]:
            await worker.stop()
        await bench.until_shared(first)
    assert first.status["rebalances"] >= 9
    await first.stop()
    for worker in bench.workers:
        if worker.process.returncode == 0:
            assert changes_of_stores(worker, "opened") == changes_of_stores(worker, "closed")
            assert sum(changes_of_stores(worker, "opened").values()) >= 2
    check_counts(numbered(120, KEYS), await bench.read())


def changes_of_stores(worker: Worker, what: str) -> Counter[str]:
    """How often the stores of each task were opened, or closed."""
    lines = (line.partition("stores of ")[2].split() for line in worker.logged("stores of "))
    return Counter(task for task, done in lines if done == what)


# --- disks


@pytest.fixture
def patient_broker() -> Iterator[KafkaTarget]:
    """Waits for others before it lets a group begin, as brokers do by default."""
    from streamlib.testing.broker import Broker

    with Broker.start("4.3.1", config={"group.initial.rebalance.delay.ms": "3000"}) as broker:
        yield KafkaTarget(broker.bootstrap_servers, "4.3.1", broker)


@pytest.mark.broker
async def test_after_a_cold_restart_no_more_than_the_last_commit_is_restored(
    patient_broker: KafkaTarget, tmp_path: Path
) -> None:
    """Everybody stopped, and comes back under another name; tasks go where their stores are (KAFKA-20719)."""
    async with opened(Bench(patient_broker, "cold", tmp_path), PARTITIONS) as bench:
        disks = [bench.disk(name) for name in "xyz"]
        workers = [bench.start(name=None, state_dir=disk) for disk in disks]
        await bench.until_shared(*workers)
        for start in (0, 80, 160):  # a row for each task and commit
            await bench.produce(numbered(80, KEYS, start))
            await bench.until_all_committed(*workers)
        held = {disk: worker.tasks for disk, worker in zip(disks, workers, strict=True)}
        for worker in workers:
            worker.kill()  # no hand-over: each disk keeps what it has
        await until_empty(bench)
        disks = [*disks[1:], disks[0]]
        workers = [bench.start(name=None, state_dir=disk) for disk in disks]
        await bench.until_shared(*workers)
        assert {disk: worker.tasks for disk, worker in zip(disks, workers, strict=True)} == held
        # A worker may be killed between the broker's answer to its last commit and its stores' part in that.
        assert all(worker.status["records_restored"] <= len(worker.tasks) for worker in workers)
        await bench.produce(numbered(80, KEYS, 240))
        await bench.until_all_committed(*workers)
        for worker in workers:
            await worker.stop()
        check_counts(numbered(320, KEYS), await bench.read())


async def until_empty(bench: Bench) -> None:
    """Until the sessions of all members are over."""

    async def empty() -> bool:
        groups = await bench.connection.admin().describe_groups([bench.name])
        return groups[bench.name].state == "Empty"

    await bench.until(empty)


async def test_stores_that_nobody_held_for_too_long_are_built_anew(bench: Bench) -> None:
    """Deletes that they missed may be gone from their changelogs (KIP-1259)."""
    once = [(f"{key}{number}", "") for key in KEYS for number in range(10)]
    await bench.produce(once)
    worker = bench.start()
    await bench.until_all_committed(worker)
    await worker.stop()
    long_ago = time.time() - 24 * 3600
    for path in (bench.folder / "state").rglob("*"):
        os.utime(path, (long_ago, long_ago))
    again = bench.start()
    await bench.until_shared(again)
    assert again.status["records_restored"] == 80
    assert len(again.logged("built anew")) == PARTITIONS
    await bench.produce(once)
    await bench.until_all_committed(again)
    await again.stop()
    check_counts(once + once, await bench.read())


# --- what moves with a task, beside the rows of its stores


class Relay:
    """One worker after the other, each with a disk of its own: the tasks move each time."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._runner: Worker | None = None
        self._runners = 0

    async def moves(self, *, kill: bool) -> None:
        """The next worker takes over: from one that stops, or from one that is killed."""
        self._runners += 1
        before = self._runner
        self._runner = self._bench.start(name=None, state_dir=self._bench.disk(str(self._runners)))
        if before is None:
            return
        await self._bench.until_shared(before, self._runner)
        if kill:
            before.kill()
        else:
            await before.stop()

    async def processes(self, values: list[tuple[str, str]], topic: str | None = None) -> None:
        assert self._runner is not None
        await self._bench.produce(values, topic=topic)
        await self._bench.until_all_committed(self._runner, topic=topic)

    async def stops(self) -> None:
        assert self._runner is not None
        await self._runner.stop()


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
async def test_windows_that_are_held_back_and_the_stream_time_move(bench: Bench, kill: bool) -> None:
    """Each window comes out once, when it closes; what is late stays late with the next owner."""
    bench.topology = "final_counts"
    start_ms = time.time_ns() // 1_000_000 // 10_000 * 10_000

    def at(*seconds: int) -> list[tuple[str, str]]:
        return [(key, str(start_ms + 1000 * second)) for second in seconds for key in KEYS]

    relay = Relay(bench)
    await relay.moves(kill=kill)
    await relay.processes(at(1, 2))
    await relay.moves(kill=kill)
    await relay.processes(at(3, 12))
    assert {(seen.key, seen.value) for seen in await bench.read()} == {(key, 3) for key in KEYS}
    await relay.moves(kill=kill)
    await relay.processes(at(4))  # late
    await relay.processes(at(25))
    await relay.stops()
    finals: dict[str, list[Any]] = defaultdict(list)
    for seen in await bench.read():
        finals[seen.key].append(seen.value)
    assert finals == {key: [3, 1] for key in KEYS}


async def test_records_that_wait_for_their_partners_move(bench: Bench) -> None:
    """One without a partner comes out alone, once, after its grace; one with partners not alone at all."""
    bench.topology = "with_or_without"
    others = f"{bench.source}-others"
    await bench.create_topic(others)
    start_ms = time.time_ns() // 1_000_000

    def at(ms: int) -> list[tuple[str, str]]:
        return [(key, str(start_ms + ms)) for key in KEYS]

    relay = Relay(bench)
    await relay.moves(kill=False)
    await relay.processes(at(0))
    await relay.moves(kill=True)
    await relay.processes(at(500), topic=others)
    await relay.processes(at(5_000))
    await relay.moves(kill=False)
    await relay.processes(at(10_000))
    await relay.moves(kill=False)
    await relay.processes(at(10_300), topic=others)
    await relay.stops()
    joined: dict[str, list[Any]] = defaultdict(list)
    for seen in await bench.read(value=str):
        joined[seen.key].append(seen.value)
    pairs = [(0, 500), (5_000, None), (10_000, 10_300)]
    texts = [f"{start_ms + x}+{None if y is None else start_ms + y}" for x, y in pairs]
    assert joined == dict.fromkeys(KEYS, texts)


async def test_what_punctuators_have_written_is_committed_before_a_task_moves(bench: Bench) -> None:
    """No records come, so no offset moves; the work is committed all the same, and goes on where it was."""
    bench.topology = "ticking"
    relay = Relay(bench)
    for kill in (False, False, True):
        await relay.moves(kill=kill)
        seen = len(await bench.read())

        async def ticked(more: int = seen + 40) -> bool:
            return len(await bench.read()) >= more

        await bench.until(ticked)
    await relay.stops()
    numbers: dict[str, list[Any]] = defaultdict(list)
    for record in await bench.read():
        numbers[record.key].append(record.value)
    assert numbers == {f"0_{n}": list(range(1, len(numbers[f"0_{n}"]) + 1)) for n in range(PARTITIONS)}


# --- topics that change


async def test_partitions_that_are_added_to_a_source_are_read_where_tasks_have_no_stores(bench: Bench) -> None:
    bench.topology = "copy"
    bench.settings["metadata_max_age_ms"] = 300
    workers = [bench.start(name=None), bench.start(name=None)]
    await bench.until_shared(*workers)
    await bench.produce(numbered(40, KEYS))
    await grow(bench)
    await bench.produce(numbered(45, "abcdefghi", 40))
    await bench.until_all_committed(*workers)
    await bench.until_shared(*workers)
    for worker in workers:
        await worker.stop()
    assert sorted(str(seen.value) for seen in await bench.read(value=str)) == sorted(map(str, range(85)))


async def test_partitions_that_are_added_to_a_source_stop_tasks_with_stores(bench: Bench) -> None:
    """Its changelogs have as many as there were; rows of a key would be in two places."""
    bench.settings["metadata_max_age_ms"] = 300
    await bench.produce(numbered(40, KEYS))
    workers = [bench.start(name=None), bench.start(name=None)]
    await bench.until_shared(*workers)
    await bench.until_all_committed(*workers)
    await grow(bench)
    for worker in workers:
        assert await worker.until_dead() == 1
        [said] = worker.logged("error:")
        for part in ("counts-changelog has 8 partitions, 9 are needed", "added to a source", "application_id", "reset"):
            assert part in said
        assert worker.logged(bench.source)
    check_counts(numbered(40, KEYS), await bench.read())


async def grow(bench: Bench) -> None:
    """One more partition for the source."""
    bench.partitions += 1
    await bench.connection.admin().create_partitions(bench.source, bench.partitions)


async def test_without_a_committed_offset_and_a_reset_policy_the_worker_stops_before_it_reads(bench: Bench) -> None:
    await bench.produce(numbered(40, KEYS))
    worker = bench.start(name=None, auto_offset_reset="none")
    assert await worker.until_dead() == 1
    [said] = worker.logged("error:")
    for part in (f"no committed offset for {bench.source}-", "'none'", "earliest"):
        assert part in said
    worker = bench.start(name=None)
    await bench.until_all_committed(worker)
    await worker.stop()
    await bench.produce(numbered(40, KEYS, 40))
    worker = bench.start(name=None, auto_offset_reset="none")  # now there is one
    await bench.until_all_committed(worker)
    await worker.stop()
    check_counts(numbered(80, KEYS), await bench.read())


async def test_a_topic_of_a_pattern_that_is_deleted_is_read_no_longer(bench: Bench) -> None:
    bench.topology = "by_pattern"
    bench.settings["metadata_max_age_ms"] = 300
    more = f"{bench.source}-more"
    await bench.create_topic(more)
    workers = [bench.start(name=None), bench.start(name=None)]
    await bench.until_shared(*workers)
    await bench.produce(numbered(40, KEYS))
    await bench.produce(numbered(40, KEYS, 40), topic=more)
    for topic in (bench.source, more):
        await bench.until_all_committed(*workers, topic=topic)
    await bench.connection.admin().delete_topics([more])

    async def noticed() -> bool:
        return all(len(worker.logged("topics have changed")) > 0 for worker in workers)

    await bench.until(noticed, *workers)
    await bench.until_shared(*workers)
    await bench.produce(numbered(40, KEYS, 80))
    await bench.until_all_committed(*workers)
    for worker in workers:
        await worker.stop()
    check_counts(numbered(120, KEYS), await bench.read())
