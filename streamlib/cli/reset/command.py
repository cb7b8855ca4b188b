"""`streamlib reset`: the sub-command."""

from __future__ import annotations

import sys
from typing import Annotated

import anyio
import msgspec
import typer
from rich.console import Console

from streamlib.cli.client import opened
from streamlib.cli.errors import FAILURE_EXIT, UsageError
from streamlib.cli.logs import set_up_logs
from streamlib.cli.options import AppArgument, BootstrapServersOption, ConfigOption, JsonOption, SetOption, YesOption
from streamlib.cli.reset.doing import delete_local_state, reset_in_cluster
from streamlib.cli.reset.plan import Inputs, ResetPlan, Start, ToOffset, ToTime, make_plan
from streamlib.cli.reset.screen import as_json, show
from streamlib.cli.screens import log_or_terminal
from streamlib.cli.settings import GivenSettings, load_config, load_settings
from streamlib.cli.target import Target, load_target
from streamlib.cli.times import TIME_METAVAR, parse_time
from streamlib.config import StreamsConfig


def reset(
    app: AppArgument,
    topology: Annotated[
        str | None,
        typer.Option(metavar="MODULE:NAME", help="Gives the inputs; else those with committed offsets are meant."),
    ] = None,
    bootstrap_servers: BootstrapServersOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    to_earliest: Annotated[bool, typer.Option("--to-earliest", help="Read from the beginning: the default.")] = False,
    to_latest: Annotated[bool, typer.Option("--to-latest", help="Read what comes from now on.")] = False,
    to_offset: Annotated[
        int | None, typer.Option(min=0, help="Read from this offset, or the nearest there is.")
    ] = None,
    to_datetime: Annotated[
        str | None, typer.Option(metavar=TIME_METAVAR, help="Read from the first record of this time on.")
    ] = None,
    local_state: Annotated[
        bool, typer.Option("--local-state", help="Delete the application's state folder on this host, too.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Let an application begin anew: set its offsets, delete its internal topics.

    All its workers have to be stopped. What it has written to other topics stays there.

    Example: streamlib reset revenue --topology shop.revenue:topology --to-datetime 2026-11-01 --dry-run
    """
    set_up_logs("error", Console(stderr=True))
    if json and not (yes or dry_run):
        raise UsageError("--json asks nothing: add --yes or --dry-run")
    start = _start(to_offset, to_datetime, earliest=to_earliest, latest=to_latest)
    given = GivenSettings(application_id=app, bootstrap_servers=bootstrap_servers, file=config, others=set_ or [])
    target = None if topology is None else load_target(topology)
    settings = load_settings(given) if target is None else load_config(given, target)
    plan = anyio.run(_plan, settings, target, start)
    if not json:
        show(plan, log_or_terminal(), local_state=local_state)
    if dry_run:
        _tell(plan, local_state=local_state, done=False, json=json)
        return
    if not yes and not typer.confirm(f"Reset {app}?", err=True):
        print("nothing was done", file=sys.stderr)
        raise typer.Exit(FAILURE_EXIT)
    if local_state:
        delete_local_state(plan.state)  # first: without it, workers restore it; without the topics, it misleads them
    anyio.run(_reset, settings, plan)
    _tell(plan, local_state=local_state, done=True, json=json)


def _tell(plan: ResetPlan, *, local_state: bool, done: bool, json: bool) -> None:
    if json:
        print(msgspec.json.encode({"reset": done, **as_json(plan, local_state=local_state)}).decode())
    elif done:
        print(f"{plan.application_id} is reset")


def _start(offset: int | None, time: str | None, *, earliest: bool, latest: bool) -> Start:
    if earliest + latest + (offset is not None) + (time is not None) > 1:
        raise UsageError("choose one of --to-earliest, --to-latest, --to-offset and --to-datetime")
    if offset is not None:
        return ToOffset(offset)
    if time is not None:
        return ToTime(parse_time(time))
    return "latest" if latest else "earliest"


async def _plan(settings: StreamsConfig, target: Target | None, start: Start) -> ResetPlan:
    async with opened(settings) as connection:
        admin = connection.admin()
        inputs = None if target is None else await Inputs.of(target.topology, settings, admin)
        return await make_plan(admin, settings, inputs, start)


async def _reset(settings: StreamsConfig, plan: ResetPlan) -> None:
    async with opened(settings) as connection:
        await reset_in_cluster(connection, plan)
