"""`streamlib verify`: the sub-command and its exit codes."""

from __future__ import annotations

from typing import Annotated

import anyio
import msgspec
import typer
from rich.console import Console

from streamlib.cli.errors import FAILURE_EXIT, USAGE_EXIT, print_error
from streamlib.cli.logs import set_up_logs
from streamlib.cli.options import ApplicationIdOption, BootstrapServersOption, ConfigOption, JsonOption, SetOption
from streamlib.cli.screens import log_or_terminal, progress
from streamlib.cli.settings import GivenSettings, load_config
from streamlib.cli.target import load_target
from streamlib.cli.topology import TargetArgument
from streamlib.cli.verify.job import Job
from streamlib.cli.verify.screen import show
from streamlib.errors import StreamsError
from streamlib.verify.report import Report, Verdict

UNKNOWN_EXIT = 3
_EXITS = {Verdict.HOLDS: 0, Verdict.VIOLATED: FAILURE_EXIT, Verdict.UNKNOWN: UNKNOWN_EXIT}


def verify(
    target: TargetArgument,
    application_id: ApplicationIdOption = None,
    bootstrap_servers: BootstrapServersOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    from_beginning: Annotated[
        bool,
        typer.Option(
            "--from-beginning",
            help="The application has begun where the logs of its inputs begin now, though that is not offset 0.",
        ),
    ] = False,
    examples: Annotated[int, typer.Option(min=0, help="How many wrong records to show of each topic.")] = 5,
    json: JsonOption = False,
) -> None:
    """Compare what an application has written with what its inputs lead to, and look for hanging transactions.

    Everything up to the committed offsets is read and processed again, in memory; nothing is written. Functions of
    maps, aggregations and processors are called again, those of peek, foreach and print are not.

    The exit code is 0 if it holds, 1 if something is wrong or a transaction hangs, 2 if it could not be looked at, 3 if
    it cannot be told.

    Example: streamlib verify examples/word_count.py:topology --bootstrap-servers localhost:9092
    """
    console = Console(stderr=True)
    set_up_logs("error", console)
    given = GivenSettings(
        application_id=application_id, bootstrap_servers=bootstrap_servers, file=config, others=set_ or []
    )
    report = _report(target, given, console, from_beginning=from_beginning, examples=examples)
    if json:
        print(msgspec.json.encode({"verdict": report.verdict, **msgspec.to_builtins(report)}).decode(), flush=True)
    else:
        show(report, log_or_terminal())
    raise typer.Exit(_EXITS[report.verdict])


def _report(target: str, given: GivenSettings, console: Console, *, from_beginning: bool, examples: int) -> Report:
    """Ends the process with exit code 2 if it could not be looked at."""
    try:
        loaded = load_target(target)
        settings = load_config(given, loaded)
        with progress(console) as step:
            job = Job(loaded.topology, settings, from_beginning=from_beginning, examples=examples, step=step)
            return anyio.run(job.run)
    except StreamsError as error:
        print_error(error, USAGE_EXIT)
        raise typer.Exit(USAGE_EXIT) from None
