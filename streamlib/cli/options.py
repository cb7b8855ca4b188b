"""Options that several sub-commands have: where the settings of an application come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from streamlib.cli.completion import complete_setting

ApplicationIdOption: TypeAlias = Annotated[
    str | None, typer.Option(help="Group and prefix of internal topics; the module's name if not set.")
]
BootstrapServersOption: TypeAlias = Annotated[str | None, typer.Option(metavar="HOST:PORT,...", help="Where Kafka is.")]
ConfigOption: TypeAlias = Annotated[Path | None, typer.Option(metavar="FILE", help="A TOML file with settings.")]
SetOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any setting; may be repeated.", autocompletion=complete_setting),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
YesOption: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
AppArgument: TypeAlias = Annotated[str, typer.Argument(metavar="APP", help="The application's id: its group.")]
