"""`streamlib new`: the sub-command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from streamlib.cli.new.project import ProjectNames, make_project
from streamlib.cli.options import JsonOption


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the project and its folder.")],
    json: JsonOption = False,
) -> None:
    """Make a project that runs: a topology, tests without a broker, settings, and a README with the commands.

    Example: streamlib new order-totals
    """
    names = ProjectNames.of(name)
    folder = make_project(names, Path.cwd())
    if json:
        print(msgspec.json.encode({"folder": str(folder), **msgspec.structs.asdict(names)}).decode())
        return
    print(f"made {folder}: its README.md says how to test and run it")
