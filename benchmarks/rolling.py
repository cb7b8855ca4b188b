"""What readers notice while instances are replaced, added, removed and killed.

A keyed count runs exactly-once on several worker processes, each with a state directory of its own; a client writes at
a steady rate and knows the answer to each record. What happens to the workers is an event; the worst delay of the
records that were sent while it lasted says what it cost. Records of partitions that stay where they are should not
notice it at all.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import anyio
import anyio.to_thread
import msgspec
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.common import Bench, percentile, run_async, session, write_json
from benchmarks.keyed_count import INPUT_VARIABLE, OUTPUT_VARIABLE
from benchmarks.steady_client import Answer, SteadyClient
from streamlib.cli.client import connected
from streamlib.cli.run import line_printer, worker_commands
from streamlib.cli.settings import GivenSettings
from streamlib.cli.supervisor import Supervisor, SupervisorOptions
from streamlib.errors import StreamsError

SCENARIOS = ("rolling", "static", "scale", "kill")
CALM_SECONDS = 3.0
PATIENCE_SECONDS = 90.0
_LOOK_SECONDS = 0.05
_KEYS = 240


class Options(msgspec.Struct, frozen=True):
    """What is measured."""

    scenarios: list[str]
    partitions: int
    workers: int
    rate: int
    standbys: int
    steady: float
    warm_up: float
    session_timeout_ms: int
    settings: tuple[str, ...]
    log_level: str


class Cost(msgspec.Struct, frozen=True):
    """What one event cost, in ms; `staying` is the worst of partitions that stayed where they were."""

    scenario: str
    event: str
    records: int
    worst: float
    p999: float
    staying: float
    moved: int
    rebalances: int


class Fleet:
    """Workers of one application, each in a process and with a state directory of its own."""

    def __init__(self, bench: Bench, options: Options, source: str, sink: str, *, static: bool) -> None:
        self._bench = bench
        self._options = options
        self._static = static
        self._env = {INPUT_VARIABLE: source, OUTPUT_VARIABLE: sink}
        self._folder = Path(tempfile.mkdtemp(prefix="streamlib-benchmark-"))
        self.application_id = f"benchmark-{uuid.uuid4().hex[:8]}"
        self.workers: dict[str, Supervisor] = {}

    def start(self, name: str) -> None:
        """One more worker. It comes back at once when it ends."""
        given = GivenSettings(
            application_id=self.application_id,
            bootstrap_servers=self._bench.bootstrap_servers,
            processing_guarantee="exactly_once_v2",
            group_instance_id=name if self._static else None,
            others=[
                f"state_dir={self._folder / name}",
                f"num_standby_replicas={self._options.standbys}",
                f"session_timeout_ms={self._options.session_timeout_ms}",
                *self._options.settings,
            ],
        )
        target = "benchmarks.keyed_count:topology"
        commands = worker_commands(target, 1, given, None, self._options.log_level)
        if self._static:
            commands = [[*command, "--instance-id", name] for command in commands]
        options = SupervisorOptions(env=self._env, backoff_s=0.01, longest_backoff_s=0.01)
        print_line = line_printer(self._bench.console)
        number = int(name.removeprefix("w")) - 1
        self.workers[name] = Supervisor(commands, lambda _, line: print_line(number, line), options)
        self.workers[name].start()

    async def stop(self, name: str) -> None:
        """End one for good."""
        supervisor = self.workers.pop(name)
        supervisor.stop()
        await anyio.to_thread.run_sync(supervisor.wait, abandon_on_cancel=True)

    def owners(self) -> dict[str, str]:
        """Task -> worker, as last reported."""
        reports = [(name, supervisor.views[0].report) for name, supervisor in self.workers.items()]
        return {task: name for name, report in reports if report is not None for task in report.status.tasks}

    def rebalances(self) -> dict[str, int]:
        """Worker and life -> rebalances it has seen."""
        views = [(name, supervisor.views[0]) for name, supervisor in self.workers.items()]
        return {f"{n}.{v.restarts}": v.report.status.rebalances for n, v in views if v.report is not None}

    def check(self) -> None:
        """Raise what a worker ended with."""
        for supervisor in self.workers.values():
            if supervisor.failure is not None:
                raise supervisor.failure

    async def settled(self) -> None:
        """Return when all tasks have run somewhere for a while, and every worker says it is running."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        calm_since = time.monotonic()
        before: tuple[dict[str, str], dict[str, int]] = ({}, {})
        while time.monotonic() - calm_since < CALM_SECONDS:
            self.check()
            now = (self.owners(), self.rebalances())
            reports = [supervisor.views[0].report for supervisor in self.workers.values()]
            whole = len(now[0]) == self._options.partitions and all(r is not None and r.running for r in reports)
            if now != before or not whole:
                calm_since, before = time.monotonic(), now
            if time.monotonic() > give_up:
                raise StreamsError(f"not settled after {PATIENCE_SECONDS:.0f} s: {now}")
            await anyio.sleep(_LOOK_SECONDS)

    async def close(self) -> None:
        for name in list(self.workers):
            await self.stop(name)
        shutil.rmtree(self._folder, ignore_errors=True)


def main(
    scenarios: Annotated[str, typer.Option(help=f"A list of {', '.join(SCENARIOS)}.")] = ",".join(SCENARIOS),
    partitions: Annotated[int, typer.Option(min=1)] = 24,
    workers: Annotated[int, typer.Option(min=2)] = 3,
    rate: Annotated[int, typer.Option(min=1, help="Records per second.")] = 500,
    standbys: Annotated[int, typer.Option(min=0, help="num_standby_replicas.")] = 0,
    steady: Annotated[float, typer.Option(help="Seconds without events, to compare with.")] = 10.0,
    warm_up: Annotated[float, typer.Option(help="Seconds of load before anything is measured.")] = 20.0,
    session_timeout_ms: Annotated[int, typer.Option(min=6000, help="When a killed worker is given up.")] = 6_000,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any setting.")] = None,
    log_level: Annotated[str, typer.Option(help="Of the workers.")] = "warning",
    bootstrap_servers: Annotated[str | None, typer.Option(help="Use this Kafka instead of starting one.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the figures here too.")] = None,
) -> None:
    """Measure what replacing, adding, removing and killing workers costs, with a keyed count under exactly-once."""
    chosen = scenarios.split(",")
    if unknown := [name for name in chosen if name not in SCENARIOS]:
        raise typer.BadParameter(f"no scenario {unknown[0]!r}; there are {', '.join(SCENARIOS)}")
    options = Options(
        chosen, partitions, workers, rate, standbys, steady, warm_up, session_timeout_ms, tuple(set_ or ()), log_level
    )  # fmt: skip
    console = Console()
    with session(bootstrap_servers) as address:
        costs = run_async(_measure_all, options, address, console)
    _print_table(console, options, costs)
    write_json(json, {"options": options, "costs": costs})


async def _measure_all(options: Options, bootstrap_servers: str, console: Console) -> list[Cost]:
    async with connected(bootstrap_servers, "benchmark") as connection:
        bench = Bench(connection, bootstrap_servers, console, options.partitions, options.settings)
        costs = []
        for scenario in options.scenarios:
            bench.say(f"{scenario} ...")
            costs += await Measurement(bench, options, scenario).run()
        return costs


class Measurement:
    """One scenario: a fleet, a client, and events one after the other."""

    def __init__(self, bench: Bench, options: Options, scenario: str) -> None:
        self._bench = bench
        self._options = options
        self._scenario = scenario
        self._spans: list[tuple[str, float, float, frozenset[int], int]] = []

    async def run(self) -> list[Cost]:
        """What each event cost.

        Raises:
            StreamsError: answers are missing or came twice, or a worker failed.
        """
        source, sink = await self._bench.topic("events"), await self._bench.topic("counts")
        async with self._fleet(source, sink) as fleet:
            client = SteadyClient(self._bench, source, sink, rate=self._options.rate, keys=_KEYS)
            await fleet.settled()
            async with client.writing(fleet.check):
                await anyio.sleep(self._options.warm_up)
                await self._event("steady", fleet, lambda: None, self._options.steady)
                await self._make_events(fleet)
        if client.repeated:
            raise StreamsError(f"{client.repeated} answers came twice")
        self._bench.say(f"{self._scenario}: {len(client.answers)} records, none lost, none repeated")
        return [self._cost(client.answers, *span) for span in self._spans]

    @asynccontextmanager
    async def _fleet(self, source: str, sink: str) -> AsyncIterator[Fleet]:
        fleet = Fleet(self._bench, self._options, source, sink, static=self._scenario == "static")
        first = 2 if self._scenario == "scale" else self._options.workers
        try:
            for number in range(first):
                fleet.start(f"w{number + 1}")
            yield fleet
        finally:
            await fleet.close()
        await self._bench.connection.admin().delete_topics([source, sink, f"{fleet.application_id}-counts-changelog"])

    async def _make_events(self, fleet: Fleet) -> None:
        if self._scenario == "scale":
            await self._event("2 -> 3 workers", fleet, lambda: fleet.start("w3"))
            await self._event("3 -> 2 workers", fleet, lambda: fleet.stop("w3"))
            return
        signum = signal.SIGKILL if self._scenario == "kill" else signal.SIGTERM
        names = list(fleet.workers)
        for name in names[:1] if self._scenario == "kill" else names:
            what = f"{name} killed" if self._scenario == "kill" else f"{name} replaced"
            await self._event(what, fleet, partial(fleet.workers[name].signal, 0, signum))

    async def _event(self, what: str, fleet: Fleet, happen: Callable[[], object], seconds: float = 0) -> None:
        """Let something happen, and note how long it lasted and which partitions had another owner meanwhile."""
        before, rebalances, begun = fleet.owners(), fleet.rebalances(), time.perf_counter()
        moved: set[str] = set()
        replaced = {name: supervisor.views[0].pid for name, supervisor in fleet.workers.items()}
        happening = happen()
        async with anyio.create_task_group() as group:
            group.start_soon(_watch, fleet, before, replaced, moved)
            if hasattr(happening, "__await__"):
                await happening
            await anyio.sleep(seconds)
            await fleet.settled()
            group.cancel_scope.cancel()
        seen = sum(count - rebalances[life] for life, count in fleet.rebalances().items() if life in rebalances)
        partitions = frozenset(int(task.split("_")[1]) for task in moved)
        self._spans.append((what, begun, time.perf_counter() - CALM_SECONDS / 2, partitions, seen))

    def _cost(
        self, answers: Sequence[Answer], event: str, begun: float, ended: float, moved: frozenset[int], rebalances: int
    ) -> Cost:
        # What was sent shortly before waits, too.
        during = [answer for answer in answers if begun - 0.5 <= answer.sent_s <= ended]
        delays = sorted(answer.ms for answer in during)
        staying = [answer.ms for answer in during if answer.partition not in moved]
        return Cost(
            self._scenario,
            event,
            len(during),
            delays[-1],
            percentile(delays, 0.999),
            max(staying, default=0.0),
            len(moved),
            rebalances,
        )


async def _watch(fleet: Fleet, before: dict[str, str], pids: dict[str, int | None], moved: set[str]) -> None:
    """Collect the tasks whose worker is another, or another process, than before."""
    while True:
        owners = fleet.owners()
        for task, owner in before.items():
            supervisor = fleet.workers.get(owner)
            if owners.get(task, owner) != owner or supervisor is None or supervisor.views[0].pid != pids[owner]:
                moved.add(task)
        await anyio.sleep(_LOOK_SECONDS)


def _print_table(console: Console, options: Options, costs: list[Cost]) -> None:
    table = Table(
        title=f"keyed count, exactly once, {options.partitions} partitions, {options.rate} records/s, "
        f"{options.standbys} standbys: delay of records in ms",
        title_justify="left",
    )
    for name in ("scenario", "event"):
        table.add_column(name)
    for name in ("worst", "p99.9", "worst of staying", "moved", "rebalances of survivors"):
        table.add_column(name, justify="right")
    for cost in costs:
        figures = [f"{ms:.0f}" for ms in (cost.worst, cost.p999, cost.staying)]
        table.add_row(cost.scenario, cost.event, *figures, str(cost.moved), str(cost.rebalances))
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
