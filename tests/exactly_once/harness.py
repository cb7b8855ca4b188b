"""What the exactly-once tests share: topics and records on a real broker, workers as processes, and the verdicts."""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec

from streamlib.config import StreamsConfig
from streamlib.kafka.connection import Connection
from streamlib.records import OutRecord, TopicPartition
from streamlib.serdes import serde_for
from streamlib.testing.plugin import KafkaTarget
from tests.exactly_once.nursery import nursery

PARTITIONS = 2
PATIENCE_S = 60
ABORTED_S = 20  # transaction_timeout_ms is 10 s, and a busy broker has to come to it


class Seen(msgspec.Struct, frozen=True):
    """One committed output record."""

    partition: int
    offset: int
    key: str
    value: int | str | None


class Bench:
    """One application's topics on one broker, and its worker processes."""

    def __init__(self, kafka: KafkaTarget, name: str, folder: Path, topology: str = "counter") -> None:
        self.name = name
        self.source, self.sink = f"{name}-in", f"{name}-out"
        self.topology = topology
        self.folder = folder
        self.guarantee = "exactly_once_v2"
        self.settings: dict[str, Any] = {}
        self.workers: list[Worker] = []
        self.partitions = PARTITIONS
        self.topologies = Path(__file__).with_name("topologies.py")
        self._kafka = kafka
        self._connection: Connection | None = None

    @property
    def connection(self) -> Connection:
        assert self._connection is not None
        return self._connection

    async def open(self, partitions: int = PARTITIONS) -> None:
        config = StreamsConfig(application_id=self.name, bootstrap_servers=self._kafka.bootstrap_servers)
        self._connection = await Connection.open(config)
        self.partitions = partitions
        for topic in (self.source, self.sink):
            await self.create_topic(topic)

    async def create_topic(self, topic: str, partitions: int | None = None) -> None:
        await self.connection.admin().create_topic(topic, partitions or self.partitions)

    async def close(self) -> None:
        for worker in self.workers:
            worker.kill()
        if self._connection is not None:
            await self._connection.close()

    # --- records

    async def produce(
        self, values: Iterable[tuple[str, str]], transactional_id: str | None = None, topic: str | None = None
    ) -> None:
        """Write (key, value) pairs; a key's partition is its first letter's."""
        now_ms = time.time_ns() // 1_000_000  # older than the retention, and the broker would delete them
        producer = self.connection.producer(transactional_id)
        await producer.init()
        if transactional_id is not None:
            producer.begin()
        for key, value in values:
            partition = TopicPartition(topic or self.source, ord(key[0]) % self.partitions)
            producer.send(partition, [(key.encode(), value.encode(), now_ms, ())])
        await producer.flush()
        if transactional_id is not None:
            await producer.end(commit=True)
        await producer.close()

    async def write(self, *records: OutRecord) -> None:
        """Write records as they are to partition 0 of the input."""
        producer = self.connection.producer(None)
        await producer.init()
        producer.send(TopicPartition(self.source, 0), list(records))
        await producer.flush()
        await producer.close()

    async def output(self, topic: str = "") -> list[Any]:
        """The committed records of partition 0 of a topic (the output), as they are."""
        partition = TopicPartition(topic or self.sink, 0)
        end = (await self.stable_ends([partition]))[partition]
        position, records = 0, list[Any]()
        fetcher = self.connection.fetcher()
        fetcher.add({partition: 0})
        with anyio.fail_after(PATIENCE_S):
            while position < end:
                await fetcher.wait()
                for batch in fetcher.take(1 << 20):
                    position = batch.next_offset
                    records += batch.records()
        await fetcher.close()
        return records

    async def read(self, topic: str | None = None, value: type = int) -> list[Seen]:
        """All committed records of a topic (the output), in partition order."""
        topic = topic or self.sink
        admin, decode = self.connection.admin(), serde_for(value).decode
        count = (await admin.partition_counts([topic]))[topic]
        partitions = [TopicPartition(topic, number) for number in range(count)]
        ends = await self.stable_ends(partitions)
        positions = await admin.list_offsets(partitions, "earliest")
        fetcher = self.connection.fetcher()
        fetcher.add(positions)
        seen: dict[int, list[Seen]] = defaultdict(list)
        with anyio.fail_after(PATIENCE_S):
            while any(positions[p] < ends[p] for p in partitions):
                await fetcher.wait()
                for batch in fetcher.take(1 << 20):
                    positions[batch.partition] = batch.next_offset
                    number = batch.partition.partition
                    for record in batch.records():
                        key = (record.key or b"").decode()
                        row = None if record.value is None else decode(record.value)
                        seen[number].append(Seen(number, record.offset, key, row))
        await fetcher.close()
        return [record for number in sorted(seen) for record in seen[number]]

    async def committed(self, topic: str | None = None) -> dict[TopicPartition, int]:
        """The committed offsets of a topic (the input), once stable."""
        partitions = [TopicPartition(topic or self.source, number) for number in range(self.partitions)]
        found = await self.connection.group().fetch_offsets(partitions)
        return {p: found[p].offset if p in found else 0 for p in partitions}

    async def ends(self, topic: str | None = None) -> dict[TopicPartition, int]:
        """The log ends of a topic (the input), control markers included."""
        partitions = [TopicPartition(topic or self.source, number) for number in range(self.partitions)]
        return await self.connection.admin().list_offsets(partitions, "latest")

    async def stable_ends(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        """Up to where committed records can be read, once nothing of what is there by now is open any more.

        A broker answers EndTxn before it writes the markers, and the one for the offsets may come before the others. A
        worker that was killed leaves its transaction open, and what others commit behind it unseen, until the broker
        aborts it. What somebody has left open on purpose is not waited for for ever.
        """
        admin = self.connection.admin()
        ends = await admin.list_offsets(partitions, "latest")
        with anyio.move_on_after(ABORTED_S):
            while any(
                stable < ends[partition]
                for partition, stable in (await admin.list_offsets(partitions, "latest_stable")).items()
            ):
                await anyio.sleep(0.02)
        return await admin.list_offsets(partitions, "latest_stable")

    # --- workers

    def disk(self, name: str) -> str:
        """A state directory: workers that share one count as one process for the assignment."""
        return str(self.folder / f"disk-{name}")

    def start(self, *faults: dict[str, Any], name: str | None = "w", **settings: Any) -> Worker:
        """Start a worker process with faults planted; a static member of the group if it has a name."""
        config = {
            "application_id": self.name,
            "bootstrap_servers": self._kafka.bootstrap_servers,
            "processing_guarantee": self.guarantee,
            "state_dir": str(self.folder / "state"),
            "group_instance_id": name,
            "session_timeout_ms": 6000,
            "heartbeat_interval_ms": 300,
            **self.settings,
            **settings,
        }
        job = {
            "topology": self.topology,
            "source": self.source,
            "sink": self.sink,
            "config": {k: v for k, v in config.items() if v is not None},
            "topologies": str(self.topologies),
            "faults": faults,
        }
        label = name or "dynamic"
        worker = Worker(label, job, self.folder / f"worker-{len(self.workers)}-{label}")
        self.workers.append(worker)
        return worker

    async def until_shared(self, *workers: Worker) -> None:
        """Until these run all tasks of one subtopology among them, and each has its share."""

        async def shared() -> bool:
            counts = [len(worker.tasks) for worker in workers]
            return sum(counts) == self.partitions and max(counts) - min(counts) <= 1

        await self.until(shared, *workers)

    async def until_all_committed(self, *workers: Worker, topic: str | None = None) -> None:
        """Until the committed offsets are the ends of a topic (the input)."""

        async def all_committed() -> bool:
            return await self.committed(topic) == await self.ends(topic)

        await self.until(all_committed, *workers)

    async def until_committed(self, total: int, *workers: Worker) -> None:
        """Until at least so many input offsets are committed."""

        async def enough() -> bool:
            return sum((await self.committed()).values()) >= total

        await self.until(enough, *workers)

    async def until(self, holds: Callable[[], Any], *workers: Worker) -> None:
        with anyio.move_on_after(PATIENCE_S):
            while not await holds():
                for worker in workers:
                    assert worker.alive, f"worker {worker.name} died:\n{worker.log}"
                await anyio.sleep(0.05)
            return
        for worker in self.workers:
            if worker.alive:
                worker.process.send_signal(signal.SIGUSR1)
        await anyio.sleep(0.5)
        logs = "\n".join(f"--- {worker.name} {worker.status}\n{worker.log}" for worker in self.workers)
        raise AssertionError(f"not after {PATIENCE_S} s; committed {await self.committed()}\n{logs}")


class Worker:
    """A worker process with a `Job` of `worker_main.py`.

    Its log and its status go to files that begin with `files`. With `code` it runs the copy of this project there.
    """

    def __init__(self, name: str, job: dict[str, Any], files: Path, code: Path | None = None) -> None:
        self.name = name
        self._log_path = Path(f"{files}.log")
        self._log_start = self._log_path.stat().st_size if self._log_path.exists() else 0
        self._status_path = Path(f"{files}.status")
        self._status_path.unlink(missing_ok=True)
        job = {**job, "status_file": str(self._status_path)}
        code = code or Path(__file__).parents[2]
        self._log_path.touch()
        self.process = nursery(code).start(msgspec.json.encode(job), self._log_path)

    @property
    def log(self) -> str:
        """What this process wrote, not those before it; of much, the end."""
        with self._log_path.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")[-6000:]

    def logged(self, text: str) -> list[str]:
        """All lines of this process with a text in them."""
        with self._log_path.open("rb") as file:
            file.seek(self._log_start)
            return [line for line in file.read().decode(errors="replace").splitlines() if text in line]

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def status(self) -> dict[str, Any]:
        if not self._status_path.exists():
            return {}
        found: dict[str, Any] = msgspec.json.decode(self._status_path.read_bytes())
        return found

    @property
    def tasks(self) -> list[str]:
        """Those it processes, once it has settled."""
        status = self.status
        return list(status["tasks"]) if status.get("state") == "RUNNING" else []

    async def until_dead(self) -> int:
        """Until the process has ended; its exit code."""
        with anyio.move_on_after(PATIENCE_S):
            while self.alive:
                await anyio.sleep(0.02)
            return self.process.wait()
        raise AssertionError(f"worker {self.name} does not end\n{self.log}")

    async def until_running(self) -> None:
        """Until it has tasks and all of them process."""
        with anyio.move_on_after(PATIENCE_S):
            while not self.tasks:
                assert self.alive, f"worker {self.name} died:\n{self.log}"
                await anyio.sleep(0.05)
            return
        raise AssertionError(f"worker {self.name} does not run: {self.status}\n{self.log}")

    async def stop(self) -> None:
        """Gracefully."""
        code = await self.terminate(PATIENCE_S)
        assert code == 0, f"worker {self.name} ended with {code}\n{self.log}"

    async def terminate(self, patience_s: float) -> int | None:
        """SIGTERM; the exit code, None if it takes too long. A process that is being loaded would just die of it."""
        with anyio.move_on_after(patience_s):
            while self.alive and self.status.get("state", "CREATED") == "CREATED":
                await anyio.sleep(0.02)
            self.process.send_signal(signal.SIGTERM)
            while self.alive:
                await anyio.sleep(0.02)
        return self.process.poll()

    def kill(self) -> None:
        """SIGKILL; harmless when it is gone."""
        if self.alive:
            self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)


class Latch:
    """Holds up the next request of one API that a worker sends once it has been set, until it is released."""

    def __init__(self, folder: Path, api: str) -> None:
        self._set, self._released = folder / f"{api}.set", folder / f"{api}.released"
        self.fault = {"act": "wait", "api": api, "file": str(self._released), "armed": str(self._set)}

    def set(self) -> None:
        self._set.touch()

    def release(self) -> None:
        self._released.touch()

    async def until_reached(self) -> None:
        reached = Path(f"{self._released}.reached")
        with anyio.fail_after(PATIENCE_S):
            while not reached.exists():
                await anyio.sleep(0.02)


@asynccontextmanager
async def opened(bench: Bench, partitions: int = PARTITIONS) -> AsyncIterator[Bench]:
    try:
        await bench.open(partitions)
        yield bench
    finally:
        await bench.close()


def config_of(bench: Bench, target: KafkaTarget, folder: Path, **options: Any) -> StreamsConfig:
    """Of an application on the bench's topics that runs in this process, and is itself again after a restart."""
    return StreamsConfig(
        application_id=bench.name,
        bootstrap_servers=target.bootstrap_servers,
        processing_guarantee="exactly_once_v2",
        state_dir=str(folder / "here"),
        group_instance_id="w",
        **options,
    )


def numbered(count: int, keys: str = "abcd", start: int = 0) -> list[tuple[str, str]]:
    """`count` records over the keys, in turn; the value is the number."""
    return [(keys[number % len(keys)], str(number)) for number in range(start, start + count)]


def check_counts(inputs: Iterable[tuple[str, str]], outputs: Iterable[Seen]) -> None:
    """Every key's counts are exactly 1, 2, 3 ... up to its number of inputs."""
    wanted: dict[str, int] = defaultdict(int)
    for key, _ in inputs:
        wanted[key] += 1
    found: dict[str, list[int | str | None]] = defaultdict(list)
    for record in outputs:
        found[record.key].append(record.value)
    wrong = [
        f"{key}: 1 to {wanted[key]} expected, found {_runs(found[key])}"
        for key in sorted(wanted.keys() | found.keys())
        if found[key] != list(range(1, wanted[key] + 1))
    ]
    assert not wrong, "\n".join(wrong)


def _runs(values: Iterable[Any]) -> str:
    """Where numbers go on by one, only the ends.

    >>> _runs([1, 2, 3, 3, 4, 9])
    '1..3 3..4 9'
    """
    runs: list[list[Any]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], value]
        else:
            runs.append([value])
    return " ".join("..".join(map(str, run)) for run in runs) or "nothing"
