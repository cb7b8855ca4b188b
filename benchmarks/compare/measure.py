"""One run of one peer: a process of its own, watched from outside.

How far it is, its committed offsets say; what it costs, /proc says, of the process and all it has started. So nothing
is asked of a peer but that it commits to a consumer group named as its application. A run is measured from one commit
to another: from the first that covers a part of the records, when start and warm-up are over, to that of the last.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

import anyio
import anyio.to_thread
import msgspec

from benchmarks.compare.data import Data
from benchmarks.compare.jobs import Job, Oracle, WrongOutputError
from benchmarks.compare.peers import EXACTLY_ONCE, ROOT, Task, environment_of
from streamlib.cli.client import read_committed
from streamlib.errors import StreamsError
from streamlib.kafka.client import Response
from streamlib.kafka.connection import Connection
from streamlib.kafka.reading import StalledError, partitions_of
from streamlib.records import TopicPartition

_LOOK_SECONDS = 0.025
_STALLED_SECONDS = 60
_STOP_SECONDS = 30
_TAIL_LINES = 15
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_OFFSET_FETCH_GROUPS = 8  # the first version of OffsetFetch that asks for several groups at once


class PeerFailedError(StreamsError):
    """A peer's process ended, or stood still."""


class Usage(NamedTuple):
    """What processes have used: user and system time, and the sum of the most memory each has had resident."""

    cpu_s: float
    peak_bytes: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Of a process and all its descendants, those that have ended included."""
        cpu_s, peak_bytes = 0.0, 0
        for process in _family(pid):
            try:
                stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
                status = Path(f"/proc/{process}/status").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            cpu_s += sum(map(int, stat[11:15])) / _TICKS_PER_SECOND  # utime, stime, and of children waited for
            peak = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), "0")
            peak_bytes += int(peak) * 1024
        return cls(cpu_s, peak_bytes)


def _family(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            text = children.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in text.split():
            yield from _family(int(child))


class Sample(NamedTuple):
    """A moment of a run: how many records were committed, and what had been used."""

    time_s: float
    committed: int
    usage: Usage


class Figures(msgspec.Struct, frozen=True):
    """What a run has cost."""

    records_per_s: float
    cpu_s_per_million: float
    peak_mib: float


class Process:
    """A peer's process, with its log in its own folder."""

    def __init__(self, command: list[str], env: Mapping[str, str], folder: Path) -> None:
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._popen = subprocess.Popen(
                command,
                env=env,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self.pid = self._popen.pid

    def check(self) -> None:
        """Raise if it has ended.

        Raises:
            PeerFailedError: with the end of its log.
        """
        if self._popen.poll() is not None:
            raise PeerFailedError(f"ended with exit code {self._popen.returncode}:\n{self.tail()}")

    def tail(self) -> str:
        """The last lines it has written."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])

    def stop(self) -> None:
        """End it gently, then at once. Returns when it is gone."""
        self._popen.terminate()
        try:
            self._popen.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self._popen.wait()


def _die_with_parent() -> None:
    """Nothing of ours goes on when the benchmark is killed."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Setting(msgspec.Struct, frozen=True):
    """What a run is about, apart from who runs it."""

    job: Job
    guarantee: str
    data: Data
    source: str
    table: str
    commit_interval_ms: int
    cache_bytes: int = 0

    def task(self, bootstrap_servers: str, sink: str, folder: Path) -> Task:
        """What the program is told: a new application that writes to `sink`."""
        return Task(
            job=self.job.name,
            guarantee=self.guarantee,
            application=f"benchmark-{uuid.uuid4().hex[:8]}",
            bootstrap_servers=bootstrap_servers,
            input=self.source,
            output=sink,
            table=self.table,
            state_dir=folder,
            commit_interval_ms=self.commit_interval_ms,
            cache_bytes=self.cache_bytes,
        )


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for the time of a run."""
    folder = Path(tempfile.mkdtemp(prefix="streamlib-benchmark-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def running(connection: Connection, task: Task, command: list[str]) -> AsyncIterator[Process]:
    """A process for the time of the block; afterwards its internal topics are gone."""
    process = Process(command, environment_of(task), task.state_dir)
    try:
        yield process
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(process.stop)
            internal = [topic for topic in await connection.admin().topics() if task.application in topic]
            await connection.admin().delete_topics(internal)


async def samples_until_done(connection: Connection, task: Task, process: Process, data: Data) -> list[Sample]:
    """One sample for each commit that is seen, until all records are committed.

    Raises:
        PeerFailedError: the process ended, or nothing was committed for a minute.
    """
    progress = Progress(connection, task.application, partitions_of(task.input, data.partitions))
    samples = [Sample(time.perf_counter(), 0, Usage(0, 0))]
    while samples[-1].committed < data.records:
        await anyio.sleep(_LOOK_SECONDS)
        process.check()
        committed = await progress.committed()
        now = time.perf_counter()
        if committed > samples[-1].committed:
            samples.append(Sample(now, committed, Usage.of(process.pid)))
        elif now - samples[-1].time_s > _STALLED_SECONDS:
            raise PeerFailedError(f"stands still at {committed:,} of {data.records:,} records:\n{process.tail()}")
    return samples


class Progress:
    """How many records of some partitions a group has committed; transactions that are open do not count."""

    def __init__(self, connection: Connection, group: str, partitions: Iterable[TopicPartition]) -> None:
        self._client = connection.client
        self._group = group
        numbers: dict[str, list[int]] = {}
        for topic, number in partitions:
            numbers.setdefault(topic, []).append(number)
        self._topics = [{"name": topic, "partition_indexes": indexes} for topic, indexes in numbers.items()]

    async def committed(self) -> int:
        """The sum over the partitions."""
        response = await self._client.retrying(self._ask)
        return sum(max(p.committed_offset, 0) for topic in response.topics for p in topic.partitions)

    async def _ask(self) -> Response:
        one = {"group_id": self._group, "topics": self._topics}
        many = self._client.version("OffsetFetch") >= _OFFSET_FETCH_GROUPS
        body = {"require_stable": False} | ({"groups": [one]} if many else one)
        node = await self._client.coordinator(self._group, "group")
        response = await self._client.call("OffsetFetch", body, node=node, lane=("progress", self._group), where="")
        return response.groups[0] if many else response


def figures(samples: list[Sample], warm_up: float) -> Figures:
    """The cost of a record after the part `warm_up` of them. A run of one commit is taken whole, with its start.

    >>> Figures(2000.0, 500.0, 1.0) == figures(
    ...     [Sample(0, 0, Usage(0, 0)), Sample(5, 200, Usage(9, 0)), Sample(5.4, 1000, Usage(9.4, 1 << 20))], 0.2)
    True
    """
    last = samples[-1]
    first = next(sample for sample in samples if sample.committed >= warm_up * last.committed)
    if first is last:
        first = samples[0]
    done = last.committed - first.committed
    return Figures(
        records_per_s=done / (last.time_s - first.time_s),
        cpu_s_per_million=(last.usage.cpu_s - first.usage.cpu_s) / done * 1e6,
        peak_mib=last.usage.peak_bytes / (1 << 20),
    )


async def verify(connection: Connection, sink: str, partitions: int, oracle: Oracle, guarantee: str) -> None:
    """Read back all that was committed.

    Raises:
        WrongOutputError: it is not what it should be.
    """
    async for record in read_committed(connection, partitions_of(sink, partitions)):
        oracle.take(record.key or b"", record.value or b"")
    oracle.finish()
    if oracle.repeated and guarantee == EXACTLY_ONCE:
        raise WrongOutputError(f"{oracle.repeated:,} records were written twice")


async def measure(
    connection: Connection,
    bootstrap_servers: str,
    setting: Setting,
    command: Callable[[Task], list[str]],
    *,
    warm_up: float,
) -> Figures:
    """Run a peer on a topic that is there already, and check what it has written.

    Raises:
        PeerFailedError: it failed, or stood still.
        WrongOutputError: its output is wrong.
        StreamsError: this is no Linux.
    """
    if sys.platform != "linux":
        raise StreamsError("what a process costs is read from /proc, which only Linux has")
    data = setting.data
    sink = f"benchmark-output-{uuid.uuid4().hex[:8]}"
    await connection.admin().create_topic(sink, data.partitions)
    with own_folder() as folder:
        task = setting.task(bootstrap_servers, sink, folder)
        async with running(connection, task, command(task)) as process:
            samples = await samples_until_done(connection, task, process, data)
    try:
        oracle = setting.job.oracle(data, setting.cache_bytes > 0)
        await verify(connection, sink, data.partitions, oracle, setting.guarantee)
    except StalledError as error:
        raise PeerFailedError(str(error)) from error
    await connection.admin().delete_topics([sink])
    return figures(samples, warm_up)
