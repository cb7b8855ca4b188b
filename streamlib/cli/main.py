"""The command and its sub-commands, and how an error ends it: one line on standard error, exit code 1 or 2."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Annotated, NoReturn

import typer

from streamlib.cli.errors import FAILURE_EXIT, USAGE_EXIT, exit_code, json_wanted, print_error, print_json_error
from streamlib.cli.supervisor import WorkerFailedError
from streamlib.errors import StreamsError

COMMANDS: Mapping[str, str] = {
    "new": "streamlib.cli.new.command:new",
    "run": "streamlib.cli.run:run",
    "topology": "streamlib.cli.topology:topology",
    "diff": "streamlib.cli.diff.command:diff",
    "verify": "streamlib.cli.verify.command:verify",
    "top": "streamlib.cli.top.command:top",
    "query": "streamlib.cli.query:query",
    "lag": "streamlib.cli.lag.command:lag",
    "produce": "streamlib.cli.records.produce:produce",
    "consume": "streamlib.cli.records.consume:consume",
    "dlq": "streamlib.cli.dlq.command:app",
    "reset": "streamlib.cli.reset.command:reset",
    "demo": "streamlib.cli.demo.command:demo",
    "broker": "streamlib.cli.broker:app",
}
"""Name -> where it is: a function, or a `Typer` with commands of its own."""


def make_app(commands: Iterable[str] = tuple(COMMANDS)) -> typer.Typer:
    """The command line with these commands; the modules of the others are not imported."""
    app = typer.Typer(
        name="streamlib",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        help="Exactly-once stream processing for Apache Kafka.",
    )
    app.callback()(options)
    for name in commands:
        module, _, attribute = COMMANDS[name].partition(":")
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    return app


def run_command_line() -> None:
    """Run the command line; the process ends with its exit code."""
    asked = sys.argv[1:2]  # a worker that comes back is not to wait for the imports of other commands
    app = make_app(asked if set(asked) <= COMMANDS.keys() and asked else COMMANDS)
    try:
        if json_wanted():
            _run_for_programs(app)
        else:
            app()
    except WorkerFailedError as error:
        if json_wanted():
            print_json_error("WorkerFailedError", str(error), error.exit_code)
        else:
            print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
    except StreamsError as error:
        print_error(error, exit_code(error))
        sys.exit(exit_code(error))


def print_version(asked: bool) -> None:
    """What is installed; nothing else is looked at."""
    if asked:
        print(importlib.metadata.version("streamlib"))
        raise typer.Exit


def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=print_version)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="STREAMLIB_DEBUG", help="Whole tracebacks of errors.")
    ] = False,
) -> None:
    """Exactly-once stream processing for Apache Kafka."""
    if debug:
        os.environ["STREAMLIB_DEBUG"] = "1"  # worker processes inherit it


def _run_for_programs(app: typer.Typer) -> NoReturn:
    """As `app()`, but what is wrong with the command line is told in JSON, too."""
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        sys.exit(FAILURE_EXIT)
    except Exception as error:
        if not hasattr(error, "format_message"):  # as those of typer have, whose classes moved between versions
            raise
        print_json_error("UsageError", " ".join(error.format_message().split()), USAGE_EXIT)
        sys.exit(USAGE_EXIT)
    sys.exit(code if isinstance(code, int) else 0)
