"""The command: a broker unless one is given, a folder for the state, the live view, the verdict."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import anyio
import msgspec
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from streamlib.cli.client import cluster
from streamlib.cli.demo.job import DemoOptions, Job, remove_traces
from streamlib.cli.demo.verdict import Verdict, examples
from streamlib.cli.demo.word_count import PREFIX_VARIABLE
from streamlib.cli.errors import FAILURE_EXIT
from streamlib.cli.logs import set_up_logs
from streamlib.cli.options import ConfigOption, JsonOption, SetOption
from streamlib.cli.run import line_printer
from streamlib.cli.signals import end_like_ctrl_c
from streamlib.cli.supervisor import Supervisor, SupervisorOptions
from streamlib.cli.view import Sum, View
from streamlib.errors import StreamsError
from streamlib.testing.broker.jars import Progress as OnJar

log = logging.getLogger(__name__)


def demo(
    lines: Annotated[int, typer.Option(min=1, help="Lines of text to count.")] = 10_000,
    rate: Annotated[int, typer.Option(min=1, help="Lines per second.")] = 500,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
    kill: Annotated[bool, typer.Option(help="Kill a worker midway with SIGKILL.")] = True,
    bootstrap_servers: Annotated[
        str | None, typer.Option(metavar="HOST:PORT,...", help="Use this Kafka instead of starting one.")
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep topics and state; a broker of its own runs on until Ctrl-C.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Count words exactly once on a real Kafka while a worker is killed, and check every count.

    The exit code is 0 only if each word was counted 1, 2, 3 ... without a gap or a repeat.

    Example: streamlib demo --lines 20000 --workers 3

    Example: streamlib demo --bootstrap-servers localhost:9092
    """
    console = Console(stderr=json)
    set_up_logs("warning", console)
    end_like_ctrl_c()
    started = time.monotonic()
    with ExitStack() as stack:
        options = DemoOptions(
            name=f"streamlib-demo-{uuid.uuid4().hex[:8]}",
            bootstrap_servers=stack.enter_context(_cluster(bootstrap_servers, console)),
            state_dir=stack.enter_context(_state_folder(keep)),
            lines=lines,
            rate=rate,
            workers=workers,
            kill=kill,
            file=config,
            others=tuple(set_ or ()),
        )
        if bootstrap_servers is not None and not keep:
            stack.callback(_clean_up, options)
        verdict, total = _run(options, console)
        if json:
            told = {"holds": verdict.holds, **msgspec.structs.asdict(verdict), "restarts": total.restarts}
            print(msgspec.json.encode(told).decode(), flush=True)
        else:
            _print_verdict(console, verdict, total, time.monotonic() - started)
        if keep:
            _leave_open(console, options, own_broker=bootstrap_servers is None)
    if not verdict.holds:
        raise typer.Exit(FAILURE_EXIT)


def _run(options: DemoOptions, console: Console) -> tuple[Verdict, Sum]:
    console.print(
        f"word count, exactly once: {options.lines:,} lines at {options.rate:,}/s, {options.workers} workers, "
        f"Kafka at {options.bootstrap_servers}", highlight=False, soft_wrap=True,
    )  # fmt: skip
    env = {PREFIX_VARIABLE: options.prefix}
    merge_stdout = SupervisorOptions(env=env, merge_stdout=True)
    supervisor = Supervisor(options.commands(), line_printer(console), merge_stdout)
    job = Job(options, supervisor)
    try:
        with View(lambda: supervisor.views, console, headline=job.headline, log_line=_printer(console), every_s=2):
            verdict = anyio.run(job.run)
    finally:
        supervisor.abort()
        supervisor.wait()
    return verdict, Sum.of(supervisor.views)


def _print_verdict(console: Console, verdict: Verdict, total: Sum, seconds: float) -> None:
    table = Table(title="verdict", title_justify="left", show_header=False)
    table.add_row("words", f"{verdict.words:,} different, {verdict.expected:,} in all")
    table.add_row("counts read (read_committed)", f"{verdict.records:,}")
    table.add_row("worker restarts", str(total.restarts))
    table.add_row("final count of each word", _outcome(verdict.wrong_totals, "equal to a plain count of the lines"))
    table.add_row("counts of each word", _outcome(verdict.broken_sequences, "1, 2, 3 ... no gap, no repeat"))
    table.add_row("time", f"{seconds:.0f} s")
    console.print(table)
    console.print("exactly once: it holds" if verdict.holds else "exactly once: IT DOES NOT HOLD", style="bold")


def _outcome(faults: dict[str, str], good: str) -> str:
    return f"WRONG for {len(faults)}: {examples(faults)}" if faults else good


def _printer(console: Console) -> Callable[[str], None]:
    return lambda line: console.print(line, soft_wrap=True, markup=False, highlight=False)


@contextmanager
def _cluster(bootstrap_servers: str | None, console: Console) -> Iterator[str]:
    """The given cluster, or a broker of our own; the first start has to fetch Kafka's jars, which takes a while."""
    if bootstrap_servers is None:
        console.print("starting a Kafka broker ...")
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    with bar, cluster(bootstrap_servers, progress=_jar_bar(bar)) as address:
        bar.stop()
        yield address


def _jar_bar(bar: Progress) -> OnJar:
    task = bar.add_task("Kafka's jars", total=None, visible=False)
    return lambda done, total: bar.update(task, completed=done, total=total, visible=done < total)


@contextmanager
def _state_folder(keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="streamlib-demo-"))
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _clean_up(options: DemoOptions) -> None:
    try:
        anyio.run(remove_traces, options)
    except StreamsError as error:
        log.warning("could not delete the topics of the demo, %s...: %s", options.prefix, error)


def _leave_open(console: Console, options: DemoOptions, *, own_broker: bool) -> None:
    console.print(f"topics: {', '.join(options.topics)}   state: {options.state_dir}", highlight=False)
    if not own_broker:
        return
    console.print(f"Kafka runs on at {options.bootstrap_servers} until Ctrl-C", highlight=False)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        return
