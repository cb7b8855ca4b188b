"""`python -m tests.chaos --minutes 30 --seed 7`: break a real cluster for as long as you like.

Prints the schedule, a line of progress, and the verdict; writes a report as JSON. A temporary folder with all logs and
disks is kept if the verdict is bad.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import anyio
import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from tests.chaos.report import Report, summary
from tests.chaos.run import Plan, Watch, run

app = typer.Typer(pretty_exceptions_enable=False)
console = Console(soft_wrap=True)


@app.command()
def main(
    minutes: Annotated[float, typer.Option(help="How long things break.")] = 30,
    seed: Annotated[int | None, typer.Option(help="What breaks when (default: any).")] = None,
    rate: Annotated[int, typer.Option(help="Input records per second.")] = 300,
    short: Annotated[bool, typer.Option("--short", help="Fewer, briefer faults of each kind.")] = False,
    folder: Annotated[Path | None, typer.Option(help="For logs and disks (default: a temporary one).")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the report there, as JSON.")] = None,
) -> None:
    """Break workers, brokers and the network of a real cluster; everything has to be processed exactly once."""
    plan = Plan(
        seed=random.SystemRandom().getrandbits(32) if seed is None else seed,
        seconds=minutes * 60,
        rate=rate,
        short=short,
        folder=(folder or Path(tempfile.mkdtemp(prefix="chaos-"))).absolute(),
    )
    console.print(f"SEED={plan.seed}  {plan.folder}")
    for lane, steps in plan.lanes.items():
        console.print(f"{lane}:", *map(str, steps), sep="\n", highlight=False)
    found = anyio.run(_watched, plan)
    console.print(summary(found), highlight=False)
    if report is not None:
        report.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    if not found.holds:
        console.print(f"SEED={plan.seed}: everything is kept in {plan.folder}")
        sys.exit(1)
    if folder is None:
        shutil.rmtree(plan.folder)


async def _watched(plan: Plan) -> Report:
    watch = Watch()
    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(watch.phase, total=plan.seconds)
        async with anyio.create_task_group() as group:
            group.start_soon(_show, watch, progress, task)
            report = await run(plan, watch)
            group.cancel_scope.cancel()
    return report


async def _show(watch: Watch, progress: Progress, task: TaskID) -> None:
    """What happens, again and again; on a log, a line a minute."""
    said_s = 0.0
    while True:
        text = _line(watch)
        elapsed_s = anyio.current_time() - watch.began_s if watch.began_s else 0.0
        progress.update(task, description=text, completed=elapsed_s)
        if not console.is_terminal and anyio.current_time() - said_s > 60:
            said_s = anyio.current_time()
            console.print(f"{elapsed_s:6.0f} s  {text}", highlight=False)
        await anyio.sleep(0.5)


def _line(watch: Watch) -> str:
    if watch.faults is None or watch.fed is None:
        return watch.phase
    records = sum(map(len, watch.fed.committed.values()))
    now = ", ".join(step.kind for step in watch.faults.running.values())
    return f"{watch.phase}: {records:,} records in, {len(watch.faults.done)} faults  {now}"


if __name__ == "__main__":
    app()
