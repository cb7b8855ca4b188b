"""What a comparison came to: tables with ratios, and plots."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import median

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.common import SHORT
from benchmarks.compare.measure import Figures

_REFERENCE = {False: "kafka-streams", True: "kafka-streams-cached"}


class Surroundings(msgspec.Struct, frozen=True):
    """Where and when a session ran. A load above the number of cores says that others wanted them, too."""

    began: str
    cores: int
    load_before: float
    load_after: float
    python: str

    @classmethod
    def since(cls, began: datetime, load_before: float) -> Surroundings:
        """Those of a session that ends now."""
        cores = len(os.sched_getaffinity(0))
        text = began.isoformat(timespec="minutes")
        return cls(text, cores, load_before, os.getloadavg()[0], platform.python_version())

    def __str__(self) -> str:
        load = f"load {self.load_before:.1f} before, {self.load_after:.1f} after"
        return f"{self.began}, {self.cores} cores, {load}, Python {self.python}"


class Run(msgspec.Struct, frozen=True):
    """One run. With a `problem` there are no figures: what is wrong is not fast."""

    job: str
    guarantee: str
    peer: str
    round: int
    figures: Figures | None = None
    problem: str | None = None


class LatencyRun(msgspec.Struct, frozen=True):
    """One run at a steady rate; milliseconds."""

    guarantee: str
    peer: str
    rate: int
    round: int
    ms: dict[str, float] = {}
    problem: str | None = None


def medians(runs: Sequence[Run], job: str, guarantee: str, peer: str) -> Figures | None:
    """The median of each figure over the rounds; none if a run failed or there was none."""
    own = [run.figures for run in runs if (run.job, run.guarantee, run.peer) == (job, guarantee, peer)]
    known = [figures for figures in own if figures is not None]
    if not own or len(known) < len(own):
        return None
    return Figures(*(median([getattr(figures, name) for figures in known]) for name in Figures.__struct_fields__))


def print_throughput(console: Console, runs: Sequence[Run]) -> None:
    """One table for each job and guarantee. Ratios are to Kafka Streams, with a cache if the peer has one, too."""
    for job, guarantee in dict.fromkeys((run.job, run.guarantee) for run in runs):
        table = Table(title=f"{job}, {SHORT[guarantee]} (medians; x KS: Kafka Streams = 1)", title_justify="left")
        table.add_column("peer", no_wrap=True)
        for name in ("records/s", "x KS", "CPU s/million", "x KS", "RSS MiB"):
            table.add_column(name, justify="right", no_wrap=True)
        for peer in dict.fromkeys(run.peer for run in runs if (run.job, run.guarantee) == (job, guarantee)):
            own = medians(runs, job, guarantee, peer)
            reference = medians(runs, job, guarantee, _REFERENCE[peer.endswith("-cached")])
            table.add_row(peer, *_cells(own, reference))
        console.print(table)
        if line := _beside_others(runs, job, guarantee):
            console.print(line, highlight=False)


def _beside_others(runs: Sequence[Run], job: str, guarantee: str) -> str:
    """How many times as fast as each peer we are, in one line."""
    ours = medians(runs, job, guarantee, "streamlib")
    peers = dict.fromkeys(run.peer for run in runs if not run.peer.startswith("streamlib"))
    others = {peer: medians(runs, job, guarantee, peer) for peer in peers}
    if ours is None or not any(others.values()):
        return ""
    factors = [f"{ours.records_per_s / own.records_per_s:.1f}x {peer}" for peer, own in others.items() if own]
    return "streamlib's records/s: " + ", ".join(factors)


def _cells(own: Figures | None, reference: Figures | None) -> list[str]:
    if own is None:
        return ["failed"]
    speed = f"{own.records_per_s / reference.records_per_s:.2f}" if reference else "-"
    cost = f"{own.cpu_s_per_million / reference.cpu_s_per_million:.2f}" if reference else "-"
    return [f"{own.records_per_s:,.0f}", speed, f"{own.cpu_s_per_million:.1f}", cost, f"{own.peak_mib:,.0f}"]


def print_latency(console: Console, runs: Sequence[LatencyRun], parts: Sequence[str]) -> None:
    """One table over peers, rates and guarantees."""
    table = Table(title="keyed-count, producer call -> read_committed consumer, ms (medians)", title_justify="left")
    for name in ("records/s", "guarantee", "peer"):
        table.add_column(name)
    for name in parts:
        table.add_column(name, justify="right")
    for rate, guarantee, peer in dict.fromkeys((run.rate, run.guarantee, run.peer) for run in runs):
        own = [run for run in runs if (run.rate, run.guarantee, run.peer) == (rate, guarantee, peer)]
        failed = any(run.problem for run in own)
        cells = ["failed"] if failed else [f"{median([run.ms[name] for run in own]):.1f}" for name in parts]
        table.add_row(f"{rate:,}", SHORT[guarantee], peer, *cells)
    console.print(table)


def plot(console: Console, path: Path, runs: Sequence[Run]) -> None:
    """Bars: a column of plots for each job, records/s above and CPU below."""
    try:
        import matplotlib
    except ImportError:
        console.print('no plot: pip install "streamlib[bench]"', markup=False)
        return
    matplotlib.use("Agg")  # needs no display
    from matplotlib import pyplot
    from matplotlib.ticker import EngFormatter

    jobs = list(dict.fromkeys(run.job for run in runs))
    guarantees = list(dict.fromkeys(run.guarantee for run in runs))
    kinds = (("records_per_s", "records/s"), ("cpu_s_per_million", "CPU s per million records"))
    figure, axes = pyplot.subplots(2, len(jobs), figsize=(1.5 + 4 * len(jobs), 7), squeeze=False)
    for row, (field, label) in enumerate(kinds):
        for column, job in enumerate(jobs):
            peers = list(dict.fromkeys(run.peer for run in runs if run.job == job))
            for number, guarantee in enumerate(guarantees):
                found = [medians(runs, job, guarantee, peer) for peer in peers]
                heights = [getattr(own, field) if own is not None else 0 for own in found]
                width = 0.8 / len(guarantees)
                at = [place + number * width for place in range(len(peers))]
                axes[row][column].barh(at, heights, width, label=SHORT[guarantee])
            middle = 0.4 - 0.4 / len(guarantees)
            axes[row][column].set_yticks([place + middle for place in range(len(peers))], peers)
            axes[row][column].invert_yaxis()
            axes[row][column].xaxis.set_major_formatter(EngFormatter(sep=""))
            axes[row][column].set(title=job, xlabel=label)
            axes[row][column].grid(visible=True, axis="x", alpha=0.3)
    axes[0][0].legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    console.print(f"plot: {path}", highlight=False)
