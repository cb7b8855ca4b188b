"""Workers that join, stop, die and stand still at random; nothing is lost, repeated or left undone.

`--moves 50` for the long form. The seed says what is drawn; how it falls together with the work is chance all the same.
"""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import anyio.abc
import pytest

from streamlib.testing.plugin import KafkaTarget
from tests.exactly_once.harness import PATIENCE_S, Bench, Worker, check_counts, opened

PARTITIONS = 8
KEYS = "abcdefghijklmnop"  # two for each partition
SESSION_MS = 6_000
# Two static members on disks of their own, and two dynamic ones that share a disk.
SLOTS = (("w1", "disk-1"), ("w2", "disk-2"), (None, "shared"), (None, "shared"))
SEED = 4


class Slot:
    """A place for a worker: `worker` while one is there, `busy` while that stands still or is stopping."""

    def __init__(self, name: str | None, disk: str) -> None:
        self.name = name
        self.disk = disk
        self.worker: Worker | None = None
        self.busy = False


class Mover:
    """Makes moves, each while those before it may still be under way."""

    def __init__(self, bench: Bench, chance: random.Random, children: anyio.abc.TaskGroup) -> None:
        self._bench = bench
        self._chance = chance
        self._children = children
        self.slots = [Slot(name, disk) for name, disk in SLOTS]
        self.moves: Counter[str] = Counter()

    @property
    def at_work(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.worker is not None and not slot.busy]

    async def move(self) -> None:
        """One that is possible, as soon as there is one. Somebody is always in the group and at work."""
        while not (possible := self._possible()):
            self.check_alive()
            await anyio.sleep(0.05)
        self._chance.choice(possible)()

    def _possible(self) -> list[Callable[[], None]]:
        empty = [slot for slot in self.slots if slot.worker is None]
        joined = [slot for slot in self.at_work if slot.worker and slot.worker.status.get("rebalances")]
        possible: list[Callable[[], None]] = [lambda: self.start(self._chance.choice(empty))] * bool(empty)
        if len(joined) > 1:
            slot = self._chance.choice(joined)
            possible += [lambda: self._stop(slot), lambda: self._kill(slot), lambda: self._freeze(slot)]
        return possible

    def start(self, slot: Slot) -> None:
        self.moves["started"] += 1
        slot.worker = self._bench.start(
            name=slot.name, state_dir=self._bench.disk(slot.disk), session_timeout_ms=SESSION_MS, leave_group=True
        )

    def check_alive(self) -> None:
        for slot in self.at_work:
            assert slot.worker is not None
            assert slot.worker.alive, f"{slot.worker.name} ended by itself:\n{slot.worker.log}"

    async def stop_all(self) -> None:
        for slot in self.at_work:
            self._stop(slot)

    def _stop(self, slot: Slot) -> None:
        self.moves["stopped"] += 1
        self._children.start_soon(self._stop_in_order, slot)

    async def _stop_in_order(self, slot: Slot) -> None:
        assert slot.worker is not None
        slot.busy = True
        await slot.worker.stop()
        slot.worker, slot.busy = None, False

    def _kill(self, slot: Slot) -> None:
        self.moves["killed"] += 1
        assert slot.worker is not None
        slot.worker.kill()
        slot.worker = None

    def _freeze(self, slot: Slot) -> None:
        self.moves["frozen"] += 1
        self._children.start_soon(self._freeze_for_a_while, slot, self._chance.uniform(0.5, 1.5) * SESSION_MS / 1000)

    async def _freeze_for_a_while(self, slot: Slot, seconds: float) -> None:
        assert slot.worker is not None
        slot.busy = True
        slot.worker.freeze()
        await anyio.sleep(seconds)
        slot.worker.thaw()
        slot.busy = False


class Feed:
    """Records for every key, again and again, until it is stopped."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._stopping = False
        self._ended = anyio.Event()
        self.rounds = 0

    async def run(self) -> None:
        while not self._stopping:
            await self._bench.produce([(key, "") for key in KEYS])
            self.rounds += 1
            await anyio.sleep(0.05)
        self._ended.set()

    async def stop(self) -> None:
        self._stopping = True
        await self._ended.wait()


@pytest.fixture
async def bench(kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(Bench(kafka_broker, unique_name("random"), tmp_path, "counted_twice"), PARTITIONS) as ready:
        await ready.create_topic(f"{ready.sink}-parities")
        yield ready


@pytest.mark.parametrize("standbys", [0, 1])
async def test_whatever_workers_do_each_output_is_there_once(
    bench: Bench, standbys: int, request: pytest.FixtureRequest
) -> None:
    bench.settings["num_standby_replicas"] = standbys
    moves, chance = request.config.getoption("--moves") // 2, random.Random(SEED + standbys)
    feed = Feed(bench)
    async with anyio.create_task_group() as children:
        mover = Mover(bench, chance, children)
        mover.start(mover.slots[standbys])
        children.start_soon(feed.run)
        while mover.moves.total() <= moves:
            await mover.move()
            await anyio.sleep(chance.choice((0.1, 1, 3)))
            mover.check_alive()
        await feed.stop()
        await until_drained(bench, mover)
        await until_rested(mover)
        await mover.stop_all()
    check_ends(bench)
    inputs = [(key, "") for _ in range(feed.rounds) for key in KEYS]
    check_counts(inputs, await bench.read())
    parities = [(f"{key}{number % 2}", "") for key in KEYS for number in range(1, feed.rounds + 1)]
    check_counts(parities, await bench.read(f"{bench.sink}-parities"))
    print(
        f"\n{standbys} standbys: {dict(mover.moves)}, {len(inputs)} records,",
        f"{sum(len(worker.logged(' tasks move, ')) for worker in bench.workers)} rebalances,",
        f"{sum(len(worker.logged(' runs; ')) for worker in bench.workers)} times a task was started,",
        f"{sum(len(worker.logged(': the session expired')) for worker in bench.workers)} sessions expired",
    )


async def until_drained(bench: Bench, mover: Mover) -> None:
    """Whoever is there processes everything."""
    repartition = f"{bench.name}-parity-repartition"

    async def drained() -> bool:
        mover.check_alive()
        topics = (bench.source, repartition)
        return all([await bench.committed(topic) == await bench.ends(topic) for topic in topics])

    await bench.until(drained)


async def until_rested(mover: Mover) -> None:
    """Until nobody stands still or is stopping."""
    with anyio.fail_after(PATIENCE_S):
        while any(slot.busy for slot in mover.slots):
            await anyio.sleep(0.05)


def check_ends(bench: Bench) -> None:
    """Everybody was killed, or ended in good order."""
    codes = {worker.process.returncode for worker in bench.workers}
    assert codes <= {0, -signal.SIGKILL}, [worker.log for worker in bench.workers if worker.process.returncode == 1]
