"""`streamlib top`: the sub-command."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from streamlib.cli.options import JsonOption
from streamlib.cli.screens import log_or_terminal
from streamlib.cli.top.asking import DEFAULT_URL, Asking, NoAnswerError, console_url
from streamlib.cli.top.screen import Screen
from streamlib.security import Secret
from streamlib.snapshots.application import ApplicationSnapshot

TOKEN_VARIABLE = "STREAMLIB_WEB_TOKEN"


def top(
    url: Annotated[
        str, typer.Argument(metavar="[URL]", help="Of any worker's web console; a port is one of this host.")
    ] = DEFAULT_URL,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help=f"Holds the console's token, if {TOKEN_VARIABLE} does not.")
    ] = None,
    every: Annotated[float, typer.Option(min=0.2, metavar="SECONDS", help="Ask so often, until Ctrl-C.")] = 1.0,
    json: JsonOption = False,
) -> None:
    """Show a running application: rates, lag, workers, tasks, restores, and where the time goes.

    It asks the web console of one worker ('run --web'), which knows of all of them. With --json, or where the output is
    no terminal, it asks once.

    Example: streamlib top http://shop-0:8080

    Example: streamlib top 8080 --json
    """
    asking = Asking(console_url(url), token_from(token_file))
    console = log_or_terminal()
    if json:
        print(asking.body().decode(), flush=True)
    elif not console.is_terminal:
        console.print(Screen(asking.snapshot()))
    else:
        with suppress(KeyboardInterrupt):
            _watch(asking, console, every)
    sys.stdout.flush()


def token_from(file: Path | None) -> Secret | None:
    """The token of a web server: from a file that is named, here or in the environment, or from the environment."""
    if file is not None:
        return Secret.from_file(file)
    named = os.environ.get(f"{TOKEN_VARIABLE}_FILE")
    if named:
        return Secret.from_file(named)
    found = os.environ.get(TOKEN_VARIABLE)
    return Secret(found) if found else None


def _watch(asking: Asking, console: Console, pause_s: float) -> None:
    """The first answer has to come; after that a silence is shown, and waited for to end."""
    seen, answered_s, problem = asking.snapshot(), time.monotonic(), ""
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(_drawn(seen, problem, time.monotonic() - answered_s), refresh=True)
            time.sleep(pause_s)
            try:
                seen, answered_s, problem = asking.snapshot(), time.monotonic(), ""
            except NoAnswerError as error:
                problem = str(error)


def _drawn(seen: ApplicationSnapshot, problem: str, silent_s: float) -> Screen:
    return Screen(seen, f"no answer since {silent_s:.0f} s: {problem}" if problem else "")
