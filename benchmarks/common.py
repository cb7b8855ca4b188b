"""What the benchmarks share: a cluster, topics, one worker process at a time, results as a table and as JSON."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import msgspec
from rich.console import Console

from benchmarks.keyed_count import INPUT_VARIABLE, OUTPUT_VARIABLE
from streamlib.cli.client import cluster
from streamlib.cli.errors import FAILURE_EXIT, INTERRUPTED_EXIT, describe
from streamlib.cli.logs import set_up_logs
from streamlib.cli.report import Report
from streamlib.cli.run import line_printer, worker_commands
from streamlib.cli.settings import GivenSettings
from streamlib.cli.signals import end_like_ctrl_c
from streamlib.cli.supervisor import Supervisor, SupervisorOptions
from streamlib.cli.worker import has_uvloop
from streamlib.errors import StreamsError
from streamlib.kafka.connection import Connection

T = TypeVar("T")

GUARANTEES = ("exactly_once_v2", "at_least_once")
SHORT = {"exactly_once_v2": "exactly once", "at_least_once": "at least once"}


class Bench(msgspec.Struct, frozen=True):
    """A session: every run of it meets the same cluster, so that their ratio means something."""

    connection: Connection
    bootstrap_servers: str
    console: Console
    partitions: int
    settings: tuple[str, ...]

    async def topic(self, kind: str) -> str:
        """A new topic."""
        name = f"benchmark-{kind}-{uuid.uuid4().hex[:8]}"
        await self.connection.admin().create_topic(name, self.partitions)
        return name

    @asynccontextmanager
    async def worker(
        self, guarantee: str, source: str, sink: str, topology: str = "benchmarks.keyed_count:topology"
    ) -> AsyncIterator[Supervisor]:
        """One worker process that runs the keyed count, or another topology, with a new state directory."""
        name = f"benchmark-{uuid.uuid4().hex[:8]}"
        folder = Path(tempfile.mkdtemp(prefix="streamlib-benchmark-"))
        given = GivenSettings(
            application_id=name,
            bootstrap_servers=self.bootstrap_servers,
            processing_guarantee=guarantee,
            others=[f"state_dir={folder}", *self.settings],
        )
        commands = worker_commands(topology, 1, given, None, "warning")
        env = {INPUT_VARIABLE: source, OUTPUT_VARIABLE: sink}
        supervisor = Supervisor(commands, line_printer(self.console), SupervisorOptions(env=env))
        try:
            with supervisor:
                yield supervisor
                supervisor.stop()
                await anyio.to_thread.run_sync(supervisor.wait, abandon_on_cancel=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        await self.connection.admin().delete_topics([sink, f"{name}-counts-changelog"])

    def say(self, line: str) -> None:
        """A line on what goes on."""
        self.console.print(line, highlight=False, markup=False)


def latest(supervisor: Supervisor) -> Report | None:
    """The worker's last report.

    Raises:
        StreamsError: the worker failed, or died: its figures would mean nothing.
    """
    view = supervisor.views[0]
    if supervisor.failure is not None:
        raise supervisor.failure
    if view.restarts:
        raise StreamsError("the worker died; see its log above")
    return view.report


async def running(supervisor: Supervisor, tasks: int, patience_s: float = 60) -> None:
    """Return when the worker processes all tasks."""
    give_up = time.monotonic() + patience_s
    while True:
        report = latest(supervisor)
        if report is not None and report.running and len(report.status.tasks) == tasks:
            return
        if time.monotonic() > give_up:
            raise StreamsError(f"the worker did not run its {tasks} tasks within {patience_s:.0f} s")
        await anyio.sleep(0.05)


def order_of(guarantees: Sequence[str], round_: int) -> list[str]:
    """Who goes first changes from round to round, so that a drift of the machine favours nobody."""
    return list(guarantees) if round_ % 2 == 0 else list(reversed(guarantees))


def percentile(sorted_values: Sequence[float], part: float) -> float:
    """The value that `part` of them do not exceed (nearest rank)."""
    rank = max(0, min(len(sorted_values) - 1, -(-int(part * 1000) * len(sorted_values) // 1000) - 1))
    return sorted_values[rank]


def write_json(path: Path | None, results: Any) -> None:
    """The results as they are, for programs."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")


@contextmanager
def session(bootstrap_servers: str | None) -> Iterator[str]:
    """The cluster's address. An error of ours becomes one line, and nothing stays behind after a Ctrl-C."""
    set_up_logs("warning")
    end_like_ctrl_c()
    try:
        with cluster(bootstrap_servers, optimise=True) as address:
            yield address
    except StreamsError as error:
        print(f"error: {describe(error)}", file=sys.stderr)
        sys.exit(FAILURE_EXIT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED_EXIT)


def run_async(main: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Run an async function on the fastest loop there is."""
    return anyio.run(main, *arguments, backend_options={"use_uvloop": has_uvloop()})
