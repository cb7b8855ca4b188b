"""Compare streamlib with Kafka Streams and with other Python libraries: the same jobs on the same records.

Every peer runs in a process of its own, one at a time, on one broker; who goes first changes from round to round.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from benchmarks.common import GUARANTEES, SHORT, Bench, run_async, session, write_json
from benchmarks.compare.data import Data, fill, fill_table
from benchmarks.compare.errors import PeerMissingError
from benchmarks.compare.jobs import JOBS
from benchmarks.compare.latency import PARTS, measure_latency
from benchmarks.compare.measure import Setting, measure
from benchmarks.compare.peers import CACHE_BYTES, PEERS, Command, Peer, default_cache
from benchmarks.compare.report import LatencyRun, Run, Surroundings, plot, print_latency, print_throughput
from streamlib.cli.client import connected
from streamlib.errors import StreamsError

_BROKER_WARM_UP_RECORDS = 100_000
_FILE_WIDTH = 120


class Options(msgspec.Struct, frozen=True):
    """What is compared."""

    jobs: list[str]
    peers: list[str]
    guarantees: list[str]
    records: int
    keys: int
    partitions: int
    rounds: int
    warm_up: float
    commit_interval_ms: int
    latency: list[int]
    seconds: float


def main(
    jobs: Annotated[str, typer.Option(help="A list of: " + ", ".join(JOBS))] = ",".join(JOBS),
    peers: Annotated[str, typer.Option(help="A list of: " + ", ".join(PEERS))] = ",".join(PEERS),
    guarantees: Annotated[str, typer.Option(help="A list of: " + ", ".join(GUARANTEES))] = ",".join(GUARANTEES),
    records: Annotated[int, typer.Option(min=1000)] = 1_000_000,
    keys: Annotated[int, typer.Option(min=1, help="Different keys.")] = 10_000,
    partitions: Annotated[int, typer.Option(min=1)] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each peer, in turn.")] = 1,
    warm_up: Annotated[float, typer.Option(min=0, max=0.9, help="The part of the records before it counts.")] = 0.5,
    commit_interval_ms: Annotated[int, typer.Option(min=1, help="Of all peers that have one.")] = 100,
    latency: Annotated[str, typer.Option(help="Measure latency instead, at these records per second.")] = "",
    seconds: Annotated[float, typer.Option(help="Length of a latency run.")] = 10.0,
    cache: Annotated[Path | None, typer.Option(metavar="DIR", help="For environments and classes.")] = None,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Use this Kafka instead of starting one.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the figures here too.")] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Bars, a PNG.")] = None,
) -> None:
    """Compare streamlib with Kafka Streams, quixstreams and flechtwerk."""
    rates = [int(rate) for rate in latency.split(",") if rate]
    options = Options(
        jobs=chosen(jobs, JOBS),
        peers=chosen(peers, PEERS),
        guarantees=chosen(guarantees, GUARANTEES),
        records=records,
        keys=keys,
        partitions=partitions,
        rounds=rounds,
        warm_up=warm_up,
        commit_interval_ms=commit_interval_ms,
        latency=rates,
        seconds=seconds,
    )
    console = Console(width=None if sys.stdout.isatty() else _FILE_WIDTH)
    began, load = datetime.now(UTC), os.getloadavg()[0]
    with session(bootstrap_servers) as address:
        ready = _prepare(console, options.peers, cache or default_cache())
        comparison = Comparison(console, options, ready)
        runs: Sequence[Run | LatencyRun]
        if rates:
            runs = latency_runs = run_async(comparison.run_latency, address)
            print_latency(console, latency_runs, list(PARTS))
        else:
            runs = throughput_runs = run_async(comparison.run_throughput, address)
            print_throughput(console, throughput_runs)
            if plot_file is not None:
                plot(console, plot_file, throughput_runs)
    surroundings = Surroundings.since(began, load)
    console.print(str(surroundings), highlight=False)
    write_json(json, {"surroundings": surroundings, "options": options, "runs": runs})
    sys.exit(1 if any(run.problem for run in runs) else 0)


def chosen(text: str, known: Iterable[str]) -> list[str]:
    """The names of a list.

    Raises:
        BadParameter: one is not known.
    """
    names = text.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise typer.BadParameter(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    return names


def _prepare(console: Console, names: Sequence[str], cache: Path) -> dict[str, Command]:
    """What starts each peer; those that cannot be had are named and left out."""
    ready = {}
    cache.mkdir(parents=True, exist_ok=True)
    for name in names:
        try:
            ready[name] = PEERS[name].prepare(cache)
        except PeerMissingError as error:
            console.print(f"without {name}: {error}", highlight=False, markup=False)
    return ready


class Comparison:
    """All runs of a session, on one broker."""

    def __init__(self, console: Console, options: Options, ready: dict[str, Command]) -> None:
        self._console = console
        self._options = options
        self._ready = ready

    async def run_throughput(self, bootstrap_servers: str) -> list[Run]:
        """Every job, guarantee and round."""
        options = self._options
        data = Data.of(options.records, options.keys, options.partitions)
        async with connected(bootstrap_servers, "benchmark") as connection:
            bench = Bench(connection, bootstrap_servers, self._console, options.partitions, ())
            await self._warm_up(bench)
            source, table = await self._topics(bench, data)
            settings = [
                Setting(JOBS[name], guarantee, data, source, table, options.commit_interval_ms)
                for name in options.jobs
                for guarantee in options.guarantees
            ]
            runs = [await self._run(bench, *turn) for setting in settings for turn in self._turns(setting)]
            await connection.admin().delete_topics([source, table])
        return runs

    async def run_latency(self, bootstrap_servers: str) -> list[LatencyRun]:
        """Every rate, guarantee and round of the keyed count, without caches: they leave answers out."""
        options = self._options
        data = Data.of(options.records, options.keys, options.partitions)
        async with connected(bootstrap_servers, "benchmark") as connection:
            bench = Bench(connection, bootstrap_servers, self._console, options.partitions, ())
            await self._warm_up(bench)
            settings = [
                Setting(JOBS["keyed-count"], guarantee, data, "", "", options.commit_interval_ms)
                for guarantee in options.guarantees
            ]
            return [
                await self._run_latency(bench, *turn, rate)
                for rate in options.latency
                for setting in settings
                for turn in self._turns(setting)
                if not turn[1].cached
            ]

    async def _warm_up(self, bench: Bench) -> None:
        """A broker that has just started is slow: its JVM has compiled nothing yet. This run counts for nothing."""
        bench.say("warming up the broker ...")
        options = self._options
        records = min(_BROKER_WARM_UP_RECORDS, options.records)
        data = Data.of(records, min(options.keys, records), options.partitions)
        source, table = await self._topics(bench, data)
        for guarantee in options.guarantees:
            setting = Setting(JOBS["keyed-count"], guarantee, data, source, table, options.commit_interval_ms)
            command = PEERS["streamlib"].prepare(default_cache())
            await measure(bench.connection, bench.bootstrap_servers, setting, command, warm_up=0)
        await bench.connection.admin().delete_topics([source, table])

    async def _topics(self, bench: Bench, data: Data) -> tuple[str, str]:
        """The input and the table, filled."""
        source, table = await bench.topic("events"), await bench.topic("profiles")
        await bench.connection.admin().set_topic_config(table, {"cleanup.policy": "compact"})
        bench.say(f"writing {data.records:,} records of {data.size_bytes} bytes to {data.partitions} partitions ...")
        await fill_table(bench.connection, table, data)
        await fill(bench.connection, source, data)
        return source, table

    def _turns(self, setting: Setting) -> Iterator[tuple[Setting, Peer, int]]:
        """Who runs in which round; another one is the first in each. Peers that cannot do it are passed over."""
        peers = [PEERS[name] for name in self._ready if setting.guarantee in PEERS[name].guarantees]
        peers = [peer for peer in peers if setting.job.cacheable or not peer.cached]
        for round_ in range(self._options.rounds):
            turn = round_ % max(len(peers), 1)
            for peer in peers[turn:] + peers[:turn]:
                yield setting, peer, round_

    async def _run(self, bench: Bench, setting: Setting, peer: Peer, round_: int) -> Run:
        run = Run(setting.job.name, setting.guarantee, peer.name, round_ + 1)
        where = f"{run.job:<13} {SHORT[run.guarantee]:<13} round {run.round} {run.peer:<21}"
        try:
            figures = await measure(
                bench.connection,
                bench.bootstrap_servers,
                _for(peer, setting),
                self._ready[peer.name],
                warm_up=self._options.warm_up,
            )
        except StreamsError as error:
            self._say(f"{where} FAILED: {error}")
            return msgspec.structs.replace(run, problem=str(error))
        cost = f"{figures.cpu_s_per_million:6.1f} CPU s per million  {figures.peak_mib:5,.0f} MiB"
        self._say(f"{where} {figures.records_per_s:9,.0f} records/s {cost}")
        return msgspec.structs.replace(run, figures=figures)

    async def _run_latency(self, bench: Bench, setting: Setting, peer: Peer, round_: int, rate: int) -> LatencyRun:
        run = LatencyRun(setting.guarantee, peer.name, rate, round_ + 1)
        where = f"{rate:>6}/s {SHORT[run.guarantee]:<13} round {run.round} {run.peer:<14}"
        seconds = self._options.seconds
        try:
            ms = await measure_latency(
                bench, setting, self._ready[peer.name], rate=rate, seconds=seconds, warm_up_s=seconds
            )
        except StreamsError as error:
            self._say(f"{where} FAILED: {error}")
            return msgspec.structs.replace(run, problem=str(error))
        self._say(f"{where} " + "  ".join(f"{name} {value:.1f}" for name, value in ms.items()) + " ms")
        return msgspec.structs.replace(run, ms=ms)

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def _for(peer: Peer, setting: Setting) -> Setting:
    return msgspec.structs.replace(setting, cache_bytes=CACHE_BYTES) if peer.cached else setting


if __name__ == "__main__":
    typer.run(main)
