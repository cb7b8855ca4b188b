"""`streamlib lag`: the sub-command."""

from __future__ import annotations

import sys
from contextlib import nullcontext, suppress
from typing import Annotated

import anyio
import msgspec
import typer
from rich.console import Console
from rich.live import Live

from streamlib.cli.client import opened
from streamlib.cli.lag.screen import standing_view
from streamlib.cli.lag.standing import Standing, ask_standing
from streamlib.cli.logs import set_up_logs
from streamlib.cli.options import AppArgument, BootstrapServersOption, ConfigOption, JsonOption, SetOption
from streamlib.cli.screens import log_or_terminal
from streamlib.cli.settings import GivenSettings, load_settings
from streamlib.config import StreamsConfig


def lag(
    app: AppArgument,
    bootstrap_servers: BootstrapServersOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    watch: Annotated[
        float | None, typer.Option(min=0.1, metavar="SECONDS", help="Ask again so often, until Ctrl-C.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Tell how far an application is behind its inputs, by partition, and which of its workers has which.

    Lag is counted in offsets. With transactions each of them takes one more offset at its end.

    Example: streamlib lag revenue --bootstrap-servers localhost:9092 --watch 2
    """
    set_up_logs("error", Console(stderr=True))
    given = GivenSettings(application_id=app, bootstrap_servers=bootstrap_servers, file=config, others=set_ or [])
    settings = load_settings(given)
    if watch is None:
        anyio.run(_once, settings, json)
    else:
        with suppress(KeyboardInterrupt):
            anyio.run(_watch, settings, watch, json)


async def _once(settings: StreamsConfig, json: bool) -> None:
    async with opened(settings) as connection:
        _print(await ask_standing(connection.admin(), settings.application_id), json=json)


async def _watch(settings: StreamsConfig, pause_s: float, json: bool) -> None:
    """In place on a terminal, one after the other in a log."""
    console = log_or_terminal()
    async with opened(settings) as connection:
        with Live(console=console, auto_refresh=False) if console.is_terminal and not json else nullcontext() as live:
            while True:
                standing = await ask_standing(connection.admin(), settings.application_id)
                if live is None:
                    _print(standing, json=json)
                else:
                    live.update(standing_view(standing), refresh=True)
                await anyio.sleep(pause_s)


def _print(standing: Standing, *, json: bool) -> None:
    if json:
        fields = {**msgspec.to_builtins(standing), "total_lag": standing.total_lag}
        print(msgspec.json.encode(fields).decode())
    else:
        log_or_terminal().print(standing_view(standing))
    sys.stdout.flush()  # a log is to be read while it is written
