"""Records per second, CPU seconds per million records, and peak memory of one worker, for both guarantees.

A topic is filled first; each run then processes all of it with a new application. What counts is the time between
two reports of the worker: the first after it began, and the last before it was through.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Annotated

import anyio
import msgspec
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.common import GUARANTEES, SHORT, Bench, latest, order_of, run_async, session, write_json
from benchmarks.keyed_count import event
from streamlib.cli.client import connected, text_record
from streamlib.cli.report import Report
from streamlib.cli.supervisor import Supervisor
from streamlib.errors import StreamsError
from streamlib.kafka.reading import partitions_of

_CHUNK = 1_000
_STALLED_SECONDS = 60


class Options(msgspec.Struct, frozen=True):
    """What is measured."""

    records: int
    keys: int
    partitions: int
    rounds: int
    settings: tuple[str, ...]


class Run(msgspec.Struct, frozen=True):
    """One run's figures."""

    guarantee: str
    records: int
    records_per_s: float
    cpu_s_per_million: float
    peak_mib: float
    commits: int


def main(
    records: Annotated[int, typer.Option(min=1000)] = 1_000_000,
    keys: Annotated[int, typer.Option(min=1, help="Different keys.")] = 10_000,
    partitions: Annotated[int, typer.Option(min=1)] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each guarantee, in turn.")] = 1,
    compression: Annotated[str, typer.Option(help="Of what the worker writes: none, lz4, zstd ...")] = "none",
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any setting.")] = None,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Use this Kafka instead of starting one.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the figures here too.")] = None,
) -> None:
    """Measure the throughput of a keyed count, exactly once against at least once."""
    settings = (f"compression_type={compression}", *(set_ or []))
    options = Options(records, keys, partitions, rounds, settings)
    console = Console()
    with session(bootstrap_servers) as address:
        runs = run_async(_measure_all, options, address, console)
    _print_table(console, runs)
    write_json(json, {"options": options, "runs": runs})


async def _measure_all(options: Options, bootstrap_servers: str, console: Console) -> list[Run]:
    async with connected(bootstrap_servers, "benchmark") as connection:
        bench = Bench(connection, bootstrap_servers, console, options.partitions, options.settings)
        source = await bench.topic("events")
        bench.say(f"writing {options.records:,} records of 100 bytes to {options.partitions} partitions ...")
        await _fill(bench, source, options)
        runs = []
        for round_ in range(options.rounds):
            for guarantee in order_of(GUARANTEES, round_):
                runs.append(await _measure(bench, source, guarantee, options))
                bench.say(f"round {round_ + 1}: {SHORT[guarantee]}: {runs[-1].records_per_s:,.0f} records/s")
        await connection.admin().delete_topics([source])
        return runs


async def _fill(bench: Bench, topic: str, options: Options) -> None:
    producer = bench.connection.producer(None)
    await producer.init()
    partitions = partitions_of(topic, options.partitions)
    for begin in range(0, options.records, _CHUNK):
        partition = begin // _CHUNK % options.partitions
        batch = []
        for number in range(begin, min(begin + _CHUNK, options.records)):
            key = number * options.partitions % options.keys + partition  # a key's records are in one partition
            user = f"user-{key}"
            batch.append(text_record(user, event(number, user)))
        producer.send(partitions[partition], batch)
        await producer.wait_for_room()
    await producer.flush()
    await producer.close()


async def _measure(bench: Bench, source: str, guarantee: str, options: Options) -> Run:
    sink = await bench.topic("counts")
    async with bench.worker(guarantee, source, sink) as supervisor:
        reports = await _reports_until_done(supervisor, options.records)
    first, last = _steady_part(reports, options.records)
    done = last.status.records_in - first.status.records_in
    return Run(
        guarantee=guarantee,
        records=options.records,
        records_per_s=done / (last.time_s - first.time_s),
        cpu_s_per_million=(last.cpu_s - first.cpu_s) / done * 1e6,
        peak_mib=reports[-1].peak_bytes / (1 << 20),
        commits=reports[-1].status.commits,
    )


async def _reports_until_done(supervisor: Supervisor, records: int) -> list[Report]:
    """Every report from the first record to the last."""
    reports: list[Report] = []
    with anyio.CancelScope() as stalled:
        stalled.deadline = anyio.current_time() + _STALLED_SECONDS
        while not reports or reports[-1].status.records_in < records:
            report = latest(supervisor)
            if report is not None and (not reports or report.status.records_in > reports[-1].status.records_in):
                reports.append(report)
                stalled.deadline = anyio.current_time() + _STALLED_SECONDS
            await anyio.sleep(0.02)
    if stalled.cancelled_caught:
        raise StreamsError(f"the worker made no progress for {_STALLED_SECONDS} s")
    return reports


def _steady_part(reports: list[Report], records: int) -> tuple[Report, Report]:
    """The reports between which the worker did nothing but process; with few of them, all there are."""
    inside = [report for report in reports if 0 < report.status.records_in < records]
    if len(inside) < 2:
        return reports[0], reports[-1]
    return inside[0], inside[-1]


def _print_table(console: Console, runs: list[Run]) -> None:
    table = Table(title="keyed count, one worker (medians)", title_justify="left")
    for name in ("guarantee", "records/s", "CPU s per million", "peak memory MiB", "commits"):
        table.add_column(name, justify="left" if name == "guarantee" else "right")
    for guarantee in GUARANTEES:
        own = [run for run in runs if run.guarantee == guarantee]
        table.add_row(
            SHORT[guarantee],
            f"{median([run.records_per_s for run in own]):,.0f}",
            f"{median([run.cpu_s_per_million for run in own]):.1f}",
            f"{median([run.peak_mib for run in own]):,.0f}",
            f"{median([run.commits for run in own]):,.0f}",
        )
    console.print(table)
    ratios = [_ratio(runs[i : i + 2]) for i in range(0, len(runs), 2)]
    console.print(f"exactly once / at least once, paired: {median(ratios):.2f} of the records/s", highlight=False)


def _ratio(pair: list[Run]) -> float:
    speed = {run.guarantee: run.records_per_s for run in pair}
    return speed[GUARANTEES[0]] / speed[GUARANTEES[1]]


if __name__ == "__main__":
    typer.run(main)
