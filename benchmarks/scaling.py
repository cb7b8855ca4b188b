"""What a record costs as something grows: keys in the stores, partitions, workers, the size of a record.

A keyed count, exactly once unless told otherwise. Each point is a run of its own, measured over the second half of its
records, so that the stores are full by then, and its output is checked. One thing grows at a time; of the rest there
are 10,000 keys, 4 partitions, 1 worker, 100 bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.common import Bench, run_async, session, write_json
from benchmarks.compare.data import Data, fill
from benchmarks.compare.jobs import JOBS
from benchmarks.compare.measure import Figures, Setting, measure
from benchmarks.compare.peers import streamlib_command
from streamlib.cli.client import connected
from streamlib.errors import StreamsError

_WARM_UP = 0.5
_WARM_UP_RECORDS = 100_000


class Point(msgspec.Struct, frozen=True):
    """Where on the four axes."""

    keys: int = 10_000
    partitions: int = 4
    workers: int = 1
    bytes: int = 100


AXES = Point.__struct_fields__


class Options(msgspec.Struct, frozen=True):
    """What is measured."""

    points: dict[str, list[Point]]  # by axis
    records: int
    most_bytes: int
    rounds: int
    guarantee: str
    settings: tuple[str, ...]


class Run(msgspec.Struct, frozen=True):
    """One run's figures; none if it failed."""

    axis: str
    point: Point
    records: int
    figures: Figures | None


def main(
    axes: Annotated[str, typer.Option(help="A list of: " + ", ".join(AXES))] = ",".join(AXES),
    keys: Annotated[str, typer.Option(help="How many, a list; 10000000 takes its time.")] = "1000,10000,100000,1000000",
    partitions: Annotated[str, typer.Option(help="A list.")] = "1,4,16,48,96",
    workers: Annotated[str, typer.Option(help="Processes, a list.")] = "1,2",
    sizes: Annotated[str, typer.Option(help="Bytes of a record, a list.")] = "100,1000,10000,100000",
    records: Annotated[int, typer.Option(min=1000, help="Of a run; with many keys two for each.")] = 500_000,
    most_bytes: Annotated[int, typer.Option(help="Of a run's records together; large ones are fewer.")] = 500_000_000,
    rounds: Annotated[int, typer.Option(min=1)] = 1,
    guarantee: Annotated[str, typer.Option(help="exactly_once_v2 or at_least_once.")] = "exactly_once_v2",
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any setting.")] = None,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Use this Kafka instead of starting one.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the figures here too.")] = None,
) -> None:
    """Measure how the cost of a record grows with keys, partitions, workers and bytes."""
    values = dict(zip(AXES, (keys, partitions, workers, sizes), strict=True))
    wanted = axes.split(",")
    if unknown := [axis for axis in wanted if axis not in AXES]:
        raise typer.BadParameter(f"unknown: {', '.join(unknown)}; there are {', '.join(AXES)}")
    points = {axis: [Point(**{axis: int(value)}) for value in values[axis].split(",")] for axis in wanted}
    options = Options(points, records, most_bytes, rounds, guarantee, tuple(set_ or ()))
    console = Console()
    with session(bootstrap_servers) as address:
        runs = run_async(_measure_all, options, address, console)
    for axis in wanted:
        _print_table(console, axis, [run for run in runs if run.axis == axis])
    write_json(json, {"options": options, "runs": runs})
    sys.exit(1 if any(run.figures is None for run in runs) else 0)


async def _measure_all(options: Options, bootstrap_servers: str, console: Console) -> list[Run]:
    async with connected(bootstrap_servers, "benchmark") as connection:
        bench = Bench(connection, bootstrap_servers, console, Point().partitions, options.settings)
        bench.say("warming up the broker ...")
        await _measure(bench, options, "", Point(), min(_WARM_UP_RECORDS, options.records))
        runs = []
        for axis, points in options.points.items():
            for round_ in range(options.rounds):
                for point in points if round_ % 2 == 0 else reversed(points):
                    runs.append(await _measure(bench, options, axis, point, _records(options, point)))
                    _say(bench, runs[-1])
        return runs


def _records(options: Options, point: Point) -> int:
    """Every key comes in the first half, so that in the second all are there."""
    return min(max(options.records, 2 * point.keys), max(options.most_bytes // point.bytes, 1000))


async def _measure(bench: Bench, options: Options, axis: str, point: Point, records: int) -> Run:
    data = Data.of(records, point.keys, point.partitions, point.bytes)
    source = await msgspec.structs.replace(bench, partitions=point.partitions).topic("events")
    await fill(bench.connection, source, data)
    setting = Setting(JOBS["keyed-count"], options.guarantee, data, source, "", commit_interval_ms=100)
    try:
        figures = await measure(
            bench.connection,
            bench.bootstrap_servers,
            setting,
            lambda task: streamlib_command(task, workers=point.workers, settings=options.settings),
            warm_up=_WARM_UP,
        )
    except StreamsError as error:
        bench.say(f"{point} FAILED: {error}")
        figures = None
    await bench.connection.admin().delete_topics([source])
    return Run(axis, point, records, figures)


def _say(bench: Bench, run: Run) -> None:
    if run.figures is not None:
        figures = run.figures
        what = f"{run.axis} {getattr(run.point, run.axis):,}"
        bench.say(f"{what:<18} {figures.records_per_s:9,.0f} records/s {figures.cpu_s_per_million:6.1f} CPU s/million")


def _print_table(console: Console, axis: str, runs: Sequence[Run]) -> None:
    table = Table(title=f"keyed count over {axis} (medians)", title_justify="left")
    for name in (axis, "records", "records/s", "CPU s/million", "x first", "RSS MiB"):
        table.add_column(name, justify="right", no_wrap=True)
    first: float | None = None
    for point in dict.fromkeys(run.point for run in runs):
        own = [run for run in runs if run.point == point]
        known = [run.figures for run in own if run.figures is not None]
        value = f"{getattr(point, axis):,}"
        if len(known) < len(own):
            table.add_row(value, f"{own[0].records:,}", "failed")
            continue
        speed, cpu_s, peak = (median([getattr(f, name) for f in known]) for name in Figures.__struct_fields__)
        first = first or cpu_s
        ratio = f"{cpu_s / first:.2f}" if first else ""  # a run may be too short for any CPU time to be seen
        figures = (f"{speed:,.0f}", f"{cpu_s:.1f}", ratio, f"{peak:,.0f}")
        table.add_row(value, f"{own[0].records:,}", *figures)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
