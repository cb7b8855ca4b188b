"""Workers in a streams group, where the brokers assign tasks (KIP-1071): they come, go and die; results are exact."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from streamlib.testing.plugin import KafkaTarget
from tests.exactly_once.harness import Bench, Worker, check_counts, numbered

PARTITIONS = 8
KEYS = "abcdefghijklmnop"  # two for each partition
GROUP_RESOURCE = 32

pytestmark = pytest.mark.broker


class StreamsBench(Bench):
    """An application with group_protocol="streams" on eight partitions, and what is written to it bit by bit."""

    def __init__(self, kafka: KafkaTarget, name: str, folder: Path) -> None:
        super().__init__(kafka, name, folder)
        self.settings = {"group_protocol": "streams", "heartbeat_interval_ms": 100}
        self.written: list[tuple[str, str]] = []

    def begin(self, *faults: dict[str, Any], **settings: Any) -> Worker:
        return self.start(*faults, name=None, **settings)

    async def feed(self, rounds: int = 5) -> None:
        """Records for every key, in several goes, so that there is always something open."""
        for _ in range(rounds):
            more = numbered(160, KEYS, len(self.written))
            await self.produce(more)
            self.written += more
            await anyio.sleep(0.05)

    async def feed_until(self, holds: Callable[[], Any], *workers: Worker) -> None:
        """Go on feeding until it holds."""
        async with anyio.create_task_group() as children:

            async def go_on() -> None:
                while True:
                    with anyio.CancelScope(shield=True):  # what is in the topic has to be known
                        await self.feed(1)
                    await anyio.lowlevel.checkpoint()

            children.start_soon(go_on)

            async def look() -> bool:
                return bool(holds())

            await self.until(look, *workers)
            children.cancel_scope.cancel()

    async def until_shared(self, *workers: Worker) -> None:
        """Until these have all tasks among them, each its share, while records come."""
        tasks = PARTITIONS * (2 if self.topology == "regrouped" else 1)
        fair = tasks // len(workers)
        await self.feed_until(
            lambda: len(owned(*workers)) == tasks and all(len(owned(w)) >= fair for w in workers), *workers
        )

    async def check(self, *workers: Worker) -> None:
        """All is committed, and every count is there once."""
        await self.until_all_committed(*workers)
        if self.topology == "regrouped":
            middle = f"{self.name}-word-repartition"

            async def all_through() -> bool:
                return await self.committed(middle) == await self.ends(middle)

            await self.until(all_through, *workers)
            check_counts([(value, key) for key, value in self.written], await self.read())
        else:
            check_counts(self.written, await self.read())

    async def remember_members(self, session_timeout_ms: int) -> None:
        """For so long, instead of the broker's 4 s."""
        client = self.connection.client
        setting = {"name": "streams.session.timeout.ms", "value": str(session_timeout_ms)}
        resource = {"resource_type": GROUP_RESOURCE, "resource_name": self.name, "configs": [setting]}
        answer = await client.call("IncrementalAlterConfigs", {"resources": [resource]}, node=client.controller)
        assert [each.error_code for each in answer.responses] == [0]

    async def members(self) -> dict[str, set[tuple[str, int]]]:
        """What the coordinator says who has which task."""
        client = self.connection.client
        node = await client.retrying(lambda: client.coordinator(self.name, "group"))
        body = {"group_ids": [self.name], "include_authorized_operations": False}
        group = (await client.call("StreamsGroupDescribe", body, node=node)).groups[0]
        return {
            member.member_id: {(t.subtopology_id, p) for t in member.assignment.active_tasks for p in t.partitions}
            for member in group.members
        }


def owned(*workers: Worker) -> list[str]:
    return [task for worker in workers for task in worker.tasks]


@pytest.fixture
async def bench(
    streams_kafka: KafkaTarget,
    unique_name: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[StreamsBench]:
    monkeypatch.setattr("tests.exactly_once.harness.PARTITIONS", PARTITIONS)
    ready = StreamsBench(streams_kafka, unique_name("streams"), tmp_path)
    try:
        await ready.open(PARTITIONS)
        yield ready
    finally:
        await ready.close()


@pytest.mark.parametrize("topology", ["counter", "regrouped"])
async def test_workers_come_and_go(bench: StreamsBench, topology: str) -> None:
    bench.topology = topology
    first = bench.begin()
    await bench.until_shared(first)
    second = bench.begin()
    await bench.until_shared(first, second)
    third = bench.begin()
    await bench.until_shared(first, second, third)
    await first.stop()
    await bench.until_shared(second, third)
    await second.stop()
    await bench.until_shared(third)
    await bench.check(third)


@pytest.mark.parametrize("topology", ["counter", "regrouped"])
async def test_tasks_of_a_killed_worker_go_to_the_others(bench: StreamsBench, topology: str) -> None:
    bench.topology = topology
    first, second = bench.begin(), bench.begin()
    await bench.until_shared(first, second)
    second.kill()
    await bench.until_shared(first)
    third = bench.begin()
    await bench.until_shared(first, third)
    await bench.check(first, third)


async def test_a_killed_worker_that_comes_back_is_the_same_member(bench: StreamsBench) -> None:
    await bench.remember_members(60_000)  # a process may take long to begin
    first, second = bench.begin(), bench.begin()
    await bench.until_shared(first, second)
    before = await bench.members()
    await bench.feed(2)
    second.kill()
    again = bench.begin()
    await bench.until_shared(first, again)
    assert await bench.members() == before
    await bench.check(first, again)


async def test_a_frozen_worker_that_wakes_up_commits_nothing(bench: StreamsBench) -> None:
    """It is forgotten meanwhile; what it had in hand is done by others, and it joins again."""
    first, second = bench.begin(), bench.begin()
    await bench.until_shared(first, second)
    await bench.feed(2)
    second.freeze()
    await bench.until_shared(first)
    second.thaw()
    await bench.until_shared(first, second)
    await bench.check(first, second)


@pytest.mark.parametrize("nth", [1, 2, 3, 5, 8])
async def test_lost_answers_lose_nothing(bench: StreamsBench, nth: int) -> None:
    lost = [{"act": "lose-reply", "api": "StreamsGroupHeartbeat", "nth": n} for n in (nth, nth + 10, nth + 11)]
    first, second = bench.begin(*lost), bench.begin(*lost)
    await bench.until_shared(first, second)
    await second.stop()
    await bench.until_shared(first)
    await bench.check(first)


async def test_standbys_take_over(bench: StreamsBench) -> None:
    change = {"name": "streams.num.standby.replicas", "config_operation": 0, "value": "1"}
    resource = {"resource_type": 32, "resource_name": bench.name, "configs": [change]}
    answer = await bench.connection.client.call("IncrementalAlterConfigs", {"resources": [resource]})
    assert answer.responses[0].error_code == 0
    first, second = (bench.begin(state_dir=str(bench.folder / host)) for host in ("one", "two"))
    await bench.until_shared(first, second)
    await bench.feed_until(lambda: set(first.status["standbys"]) == set(owned(second)), first, second)
    second.kill()
    await bench.until_shared(first)
    await bench.feed_until(lambda: first.status["standbys"] == {}, first)
    await bench.check(first)


async def test_at_least_once_loses_nothing(bench: StreamsBench) -> None:
    bench.guarantee = "at_least_once"
    first, second = bench.begin(), bench.begin()
    await bench.until_shared(first, second)
    second.kill()
    await bench.until_shared(first)
    await bench.until_all_committed(first)
    highest: dict[str, int] = dict.fromkeys(KEYS, 0)
    for row in await bench.read():
        assert isinstance(row.value, int)
        highest[row.key] = max(highest[row.key], row.value)
    assert all(highest[key] >= sum(k == key for k, _ in bench.written) for key in KEYS)


async def test_tasks_are_kept_while_the_broker_restarts(streams_kafka: KafkaTarget, bench: StreamsBench) -> None:
    first, second = bench.begin(), bench.begin()
    await bench.until_shared(first, second)
    before = await bench.members()
    broker = streams_kafka.broker
    assert broker is not None
    await anyio.to_thread.run_sync(broker.stop_node, 0)
    await anyio.to_thread.run_sync(broker.start_node, 0)
    await bench.until_shared(first, second)
    assert await bench.members() == before
    assert not any("dropped" in worker.log or "lost the membership" in worker.log for worker in (first, second))
    await bench.check(first, second)


async def test_workers_change_to_the_other_protocol_and_back(bench: StreamsBench) -> None:
    for protocol in ("streams", "classic", "streams"):
        workers = [bench.begin(group_protocol=protocol) for _ in range(2)]
        await bench.until_shared(*workers)
        for worker in workers:
            await worker.stop()
    last = bench.begin()
    await bench.until_shared(last)
    await bench.check(last)


async def test_more_partitions_of_a_source_are_not_left_undone(bench: StreamsBench) -> None:
    bench.topology = "copy"
    worker = bench.begin()
    await worker.until_running()
    for topic in (bench.sink, bench.source):
        await bench.connection.admin().create_partitions(topic, PARTITIONS + 1)
    assert await worker.until_dead() == 1
    assert "task 0_8, which did not exist when this worker started" in worker.log
    again = bench.begin()

    async def all_tasks() -> bool:
        return len(owned(again)) == PARTITIONS + 1

    await bench.until(all_tasks, again)


async def test_patterns_are_refused(bench: StreamsBench) -> None:
    bench.topology = "by_pattern"
    worker = bench.begin()
    assert await worker.until_dead() == 1
    assert "group_protocol='streams' does not go with topics that are found by a pattern" in worker.log
