"""Latency from a producer's call to a read_committed consumer, over rates, for both guarantees.

The client that writes and reads is this process; the worker is another. With --floor the bare client does the same
work in the worker's place, with the requests of exactly once and nothing between them (`benchmarks.relay`).
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Annotated

import anyio
import msgspec
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.common import (
    GUARANTEES,
    SHORT,
    Bench,
    latest,
    order_of,
    percentile,
    run_async,
    running,
    session,
    write_json,
)  # fmt: skip
from benchmarks.steady_client import SteadyClient
from streamlib.cli.client import connected

PARTS = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}

BARE_CLIENT = "bare_client"
_NAMES = {**SHORT, BARE_CLIENT: "bare client"}
_WARM_UP_RATE = 1_000
_WARM_UP_SECONDS = 2.0  # of each run, for its worker


class Options(msgspec.Struct, frozen=True):
    """What is measured."""

    rates: list[int]
    seconds: float
    warm_up: float
    keys: int
    partitions: int
    rounds: int
    settings: tuple[str, ...]
    floor: bool

    @property
    def kinds(self) -> list[str]:
        """What is compared."""
        return [*GUARANTEES, BARE_CLIENT] if self.floor else list(GUARANTEES)


class Run(msgspec.Struct, frozen=True):
    """One run's figures, in milliseconds."""

    guarantee: str
    rate: int
    records: int
    ms: dict[str, float]


def main(
    rates: Annotated[str, typer.Option(help="Records per second, a list.")] = "10,100,500,2000",
    seconds: Annotated[float, typer.Option(help="Length of each run.")] = 10.0,
    warm_up: Annotated[float, typer.Option(help="Seconds of load before the first run, for the broker's JVM.")] = 30.0,
    keys: Annotated[int, typer.Option(min=1, help="Different keys.")] = 100,
    partitions: Annotated[int, typer.Option(min=1)] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each rate and guarantee, in turn.")] = 1,
    compression: Annotated[str, typer.Option(help="Of what the worker writes: none, lz4, zstd ...")] = "none",
    floor: Annotated[bool, typer.Option("--floor", help="Measure the bare client, too.")] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any setting.")] = None,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Use this Kafka instead of starting one.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the figures here too.")] = None,
    plot: Annotated[Path, typer.Option(metavar="FILE", help="The plot, a PNG.")] = Path("build/latency.png"),
) -> None:
    """Measure the end-to-end latency of a keyed count, exactly once against at least once."""
    settings = (f"compression_type={compression}", *(set_ or []))
    of_rates = [int(rate) for rate in rates.split(",")]
    options = Options(of_rates, seconds, warm_up, keys, partitions, rounds, settings, floor)
    console = Console()
    with session(bootstrap_servers) as address:
        runs = run_async(_measure_all, options, address, console)
    summary = _medians(options, runs)
    _print_table(console, options, summary)
    write_json(json, {"options": options, "runs": runs})
    _plot(console, plot, options, summary)


async def _measure_all(options: Options, bootstrap_servers: str, console: Console) -> list[Run]:
    async with connected(bootstrap_servers, "benchmark") as connection:
        bench = Bench(connection, bootstrap_servers, console, options.partitions, options.settings)
        await _warm_up(bench, options)
        runs = []
        for rate in options.rates:
            for round_ in range(options.rounds):
                for guarantee in order_of(options.kinds, round_):
                    runs.append(await _measure(bench, guarantee, rate, options))
                    figures = "  ".join(f"{name} {ms:.1f}" for name, ms in runs[-1].ms.items())
                    bench.say(f"{rate:>6}/s  {_NAMES[guarantee]:<13}  {figures} ms")
        return runs


async def _warm_up(bench: Bench, options: Options) -> None:
    """A broker that has just started is slow until the JVM has compiled what it does: commits per second grow sixfold
    in the first half minute of transactions."""
    bench.say(f"warming up for {options.warm_up:.0f} s ...")
    for guarantee in GUARANTEES:
        share = options.warm_up / len(GUARANTEES)
        await _measure(bench, guarantee, _WARM_UP_RATE, msgspec.structs.replace(options, seconds=share))


async def _measure(bench: Bench, guarantee: str, rate: int, options: Options) -> Run:
    source, sink = await bench.topic("events"), await bench.topic("counts")
    client = SteadyClient(bench, source, sink, rate=rate, keys=options.keys)
    if guarantee == BARE_CLIENT:
        async with _relay(bench, source, sink):
            await _load(client, options, lambda: None)
    else:
        async with bench.worker(guarantee, source, sink) as supervisor:
            await running(supervisor, options.partitions)
            await _load(client, options, lambda: latest(supervisor))
    warm_up = int(rate * _WARM_UP_SECONDS)
    latencies = sorted(answer.ms for answer in client.answers[warm_up:])
    await bench.connection.admin().delete_topics([source])
    return Run(guarantee, rate, len(latencies), {name: percentile(latencies, p) for name, p in PARTS.items()})


async def _load(client: SteadyClient, options: Options, check: Callable[[], object]) -> None:
    async with client.writing(check):
        await anyio.sleep(_WARM_UP_SECONDS + options.seconds)


@asynccontextmanager
async def _relay(bench: Bench, source: str, sink: str) -> AsyncIterator[None]:
    """The bare client in a process of its own, from when it runs."""
    name = f"benchmark-{uuid.uuid4().hex[:8]}"
    command = [sys.executable, "-m", "benchmarks.relay", bench.bootstrap_servers, name, source, sink]
    async with await anyio.open_process([*command, str(bench.partitions)], stderr=None) as process:
        assert process.stdout is not None
        try:
            await process.stdout.receive()  # it says that it runs
            yield
        finally:
            process.kill()
    await bench.connection.admin().delete_topics([sink, f"{name}-changelog"])


Summary = dict[tuple[int, str], dict[str, float]]


def _medians(options: Options, runs: list[Run]) -> Summary:
    """(rate, guarantee) -> the medians over the rounds."""
    return {
        (rate, guarantee): {
            name: median([run.ms[name] for run in runs if (run.rate, run.guarantee) == (rate, guarantee)])
            for name in PARTS
        }
        for rate in options.rates
        for guarantee in options.kinds
    }


def _print_table(console: Console, options: Options, summary: Summary) -> None:
    table = Table(title="keyed count, producer call -> read_committed consumer, ms", title_justify="left")
    for name in ("records/s", "guarantee", *PARTS):
        table.add_column(name, justify="left" if name == "guarantee" else "right")
    for rate in options.rates:
        for guarantee in options.kinds:
            figures = [f"{ms:.1f}" for ms in summary[rate, guarantee].values()]
            table.add_row(f"{rate:,}", _NAMES[guarantee], *figures)
        pair = [summary[rate, guarantee] for guarantee in GUARANTEES]
        table.add_row("", "ratio", *(f"{pair[0][name] / pair[1][name]:.2f}" for name in PARTS), end_section=True)
    console.print(table)


def _plot(console: Console, path: Path, options: Options, summary: Summary) -> None:
    try:
        import matplotlib
    except ImportError:
        console.print('no plot: pip install "streamlib[bench]"', markup=False)
        return
    matplotlib.use("Agg")  # needs no display
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    for guarantee, colour in zip(GUARANTEES, ("tab:blue", "tab:orange"), strict=True):
        for name, style in (("p50", "-"), ("p90", "--"), ("p99", ":")):
            values = [summary[rate, guarantee][name] for rate in options.rates]
            axes.plot(options.rates, values, style, marker="o", color=colour, label=f"{SHORT[guarantee]} {name}")
    axes.set(xscale="log", yscale="log", xlabel="records per second", ylabel="latency, ms")
    axes.set_title("Keyed count: producer call to read_committed consumer")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.set_xticks(options.rates, [f"{rate:,}" for rate in options.rates], minor=False)
    axes.legend(ncols=2, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
    console.print(f"plot: {path}", highlight=False)


if __name__ == "__main__":
    typer.run(main)
