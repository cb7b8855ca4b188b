"""The command and its sub-commands, and how an error ends it: one line on standard error, exit code 1 or 2."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from typing import Annotated

import typer

from streamlib.cli import broker
from streamlib.cli.demo.command import demo
from streamlib.cli.errors import debug_wanted, describe, exit_code
from streamlib.cli.run import run
from streamlib.cli.supervisor import WorkerFailedError
from streamlib.cli.topology import topology
from streamlib.cli.verify.command import verify
from streamlib.errors import StreamsError

app = typer.Typer(
    name="streamlib",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
    help="Exactly-once stream processing for Apache Kafka.",
)
app.command()(run)
app.command()(topology)
app.command()(verify)
app.command()(demo)
app.add_typer(broker.app, name="broker")


def run_command_line() -> None:
    """Run the command line; the process ends with its exit code."""
    try:
        app()
    except WorkerFailedError as error:
        _end(f"error: {error}", error.exit_code)
    except StreamsError as error:
        _end(f"error: {describe(error, debug=debug_wanted())}", exit_code(error))


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="STREAMLIB_DEBUG", help="Whole tracebacks of errors.")
    ] = False,
) -> None:
    """Exactly-once stream processing for Apache Kafka."""
    if version:
        print(importlib.metadata.version("streamlib"))
        raise typer.Exit
    if debug:
        os.environ["STREAMLIB_DEBUG"] = "1"  # worker processes inherit it


def _end(line: str, code: int) -> None:
    print(line, file=sys.stderr, flush=True)
    sys.exit(code)
