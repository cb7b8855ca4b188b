"""`streamlib diff`: the sub-command and its exit codes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from streamlib.cli.diff.changes import compare
from streamlib.cli.diff.screen import as_lines, as_markdown
from streamlib.cli.diff.snapshot import read_snapshot
from streamlib.cli.errors import FAILURE_EXIT, UsageError
from streamlib.cli.options import ApplicationIdOption, ConfigOption, JsonOption, SetOption
from streamlib.cli.settings import GivenSettings, load_config
from streamlib.cli.target import load_target
from streamlib.cli.topology import TargetArgument


def diff(
    old: Annotated[
        Path, typer.Argument(metavar="OLD.json", help="What 'streamlib topology --json' printed before; - reads it.")
    ],
    target: TargetArgument,
    application_id: ApplicationIdOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="What only costs something is not compatible, too.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a table for a pull request.")] = False,
    json: JsonOption = False,
) -> None:
    """Tell what a changed topology does to what the application has kept: stores, changelogs, internal topics, tasks.

    Nothing is asked of a cluster. The exit code is 0 if nothing is lost, 1 if something would be lost or misread, 2 if
    it could not be compared.

    Example: streamlib topology shop.revenue:topology --json > topology.json

    Example: streamlib diff topology.json shop.revenue:topology
    """
    if json and markdown:
        raise UsageError("choose one of --json and --markdown")
    before = read_snapshot(_content(old), str(old))
    loaded = load_target(target)
    settings = load_config(GivenSettings(application_id=application_id, file=config, others=set_ or []), loaded)
    comparison = compare(before, loaded.topology, settings.application_id)
    compatible = comparison.compatible and not (strict and any(each.level == "costs" for each in comparison.changes))
    if json:
        print(msgspec.json.encode({"compatible": compatible, **msgspec.to_builtins(comparison)}).decode())
    else:
        print(as_markdown(comparison) if markdown else as_lines(comparison))
    if not compatible:
        raise typer.Exit(FAILURE_EXIT)


def _content(file: Path) -> bytes:
    if str(file) == "-":
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror or error}") from None
