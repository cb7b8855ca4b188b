"""`python -m streamlib.simulation`: many seeds, all cores, and a report of the first that fails."""

from __future__ import annotations

import gc
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from streamlib.simulation.report import report
from streamlib.simulation.scenario import FULL, MOVES, SMALL, Scenario, Size, draw_scenario
from streamlib.simulation.simulation import Outcome, Simulation
from streamlib.simulation.workloads import WORKLOADS

CHUNK = 20
"""Seeds that a process runs in one go."""


class Result(msgspec.Struct, frozen=True):
    """What one seed came to; small, as it travels between processes."""

    seed: int
    workload: str
    faults: int
    violations: tuple[str, ...]
    digest: str


def run_seed(seed: int, workloads: Sequence[str], size: Size = FULL) -> Outcome:
    """Run the scenario of one seed."""
    return run_scenario(draw_scenario(seed, workloads, size))


def run_scenario(scenario: Scenario) -> Outcome:
    """Run a scenario of one of the workloads that come along."""
    return Simulation(scenario, WORKLOADS[scenario.workload]).run()


def run_seeds(seeds: Iterable[int], workloads: Sequence[str], jobs: int, size: Size = FULL) -> Iterator[Result]:
    """Run many seeds on `jobs` processes; results come in order."""
    chunks = _batched(seeds, CHUNK)
    if jobs == 1:
        for chunk in chunks:
            yield from _results(workloads, size, chunk)
        return
    with ProcessPoolExecutor(jobs) as pool:
        for results in pool.map(partial(_results, workloads, size), chunks):
            yield from results


def main(
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 1_000,
    first: Annotated[int, typer.Option(help="The first seed.")] = 0,
    seed: Annotated[int | None, typer.Option(help="Run this one, and tell all of it.")] = None,
    workload: Annotated[list[str] | None, typer.Option(help="Only this workload; may be given several times.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
    trace: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the whole trace of a failing seed.")] = None,
    small: Annotated[bool, typer.Option("--small", help="Small scenarios: more of them in the same time.")] = False,
    moves: Annotated[bool, typer.Option("--moves", help="Only joins, leaves, restarts, kills and pauses.")] = False,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Do not stop at the first that fails.")] = False,
) -> None:
    """Run real workers against a model of Kafka, with faults, in virtual time, and look for anything lost or twice.

    A seed decides everything: workload, workers, faults, latencies, the order of what happens at the same time.
    """
    workloads = workload or list(WORKLOADS)
    if unknown := sorted(set(workloads) - WORKLOADS.keys()):
        raise typer.BadParameter(f"no workload {unknown[0]!r}; there are {', '.join(WORKLOADS)}")
    console, size = Console(stderr=True), MOVES if moves else SMALL if small else FULL
    if seed is not None:
        outcome = run_seed(seed, workloads, size)
        console.print(report(outcome, trace_lines=60), markup=False, highlight=False, soft_wrap=True)
        _write_trace(outcome, trace)
        raise typer.Exit(0 if outcome.ok else 1)
    runs = run_seeds(range(first, first + seeds), workloads, jobs, size)
    failed = _run_many(runs, seeds, keep_going, console)
    for result in failed[:1]:
        outcome = run_seed(result.seed, workloads, size)
        console.print(f"again with: {_again(result.seed, workload or [], small, moves)}", markup=False, soft_wrap=True)
        console.print(report(outcome, trace_lines=60), markup=False, highlight=False, soft_wrap=True)
        _write_trace(outcome, trace)
    raise typer.Exit(1 if failed else 0)


def _run_many(results: Iterable[Result], total: int, keep_going: bool, console: Console) -> list[Result]:
    failed: list[Result] = []
    runs: Counter[str] = Counter()
    faults = 0
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("seeds"), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("seeds", total=total)
        for result in results:
            progress.advance(bar)
            runs[result.workload] += 1
            faults += result.faults
            if result.violations:
                failed.append(result)
                console.print(
                    f"SEED={result.seed} {result.workload}: {result.violations[0]}", markup=False, soft_wrap=True
                )
                if not keep_going:
                    break
        took_s = progress.tasks[0].elapsed or 0.0
    done = sum(runs.values())
    console.print(f"{done} seeds, {faults} faults, {len(failed)} failed; {done / max(took_s, 1e-9):.0f} seeds/s")
    console.print(", ".join(f"{name} {count}" for name, count in sorted(runs.items())))
    return failed


def _again(seed: int, chosen: Sequence[str], small: bool, moves: bool) -> str:
    """The command that runs a seed again; what is drawn depends on the workloads there are to choose from."""
    sizes = [name for name, given in (("--moves", moves), ("--small", small)) if given]
    options = [f"--seed {seed}", *(f"--workload {name}" for name in chosen), *sizes]
    return f"python -m streamlib.simulation {' '.join(options)}"


def _write_trace(outcome: Outcome, file: Path | None) -> None:
    if file is not None:
        file.write_text("\n".join(outcome.trace.lines()) + "\n")


def _results(workloads: Sequence[str], size: Size, seeds: Iterable[int]) -> list[Result]:
    with _no_collections():
        return [_result(run_seed(seed, workloads, size)) for seed in seeds]


@contextmanager
def _no_collections() -> Iterator[None]:
    """Cycles are collected after the block rather than all the time: a tenth of what seeds cost."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _result(outcome: Outcome) -> Result:
    scenario = outcome.scenario
    return Result(scenario.seed, scenario.workload, len(scenario.faults), outcome.violations, outcome.digest)


def _batched(seeds: Iterable[int], size: int) -> Iterator[tuple[int, ...]]:
    left = iter(seeds)
    while chunk := tuple(itertools.islice(left, size)):
        yield chunk
