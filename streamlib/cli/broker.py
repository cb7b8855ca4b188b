"""`streamlib broker`: a Kafka broker on this machine, without a container."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import anyio
import msgspec
import typer
from rich.console import Console
from rich.progress import Progress

from streamlib.cli.client import opened
from streamlib.cli.errors import FAILURE_EXIT, print_error
from streamlib.cli.options import ConfigOption, JsonOption, SetOption
from streamlib.cli.settings import ENVIRONMENT_PREFIX, GivenSettings, load_settings
from streamlib.config import StreamsConfig
from streamlib.errors import StreamsError
from streamlib.testing.broker import DEFAULT_VERSION, Broker, BrokerError, BrokerOptions
from streamlib.testing.broker.daemon import Daemon, DaemonState
from streamlib.testing.broker.jars import Progress as OnJar
from streamlib.testing.broker.jars import is_locked

app = typer.Typer(no_args_is_help=True, help="A Kafka broker on this machine, without a container.")

_CLIENT_ID = "streamlib-broker"
_SERVERS_VARIABLE = f"{ENVIRONMENT_PREFIX}BOOTSTRAP_SERVERS"


@app.command()
def start(
    version: Annotated[str, typer.Option(help="Kafka version.")] = DEFAULT_VERSION,
    port: Annotated[int, typer.Option(help="Port of the first node; the others take the next ones.")] = 9092,
    nodes: Annotated[int, typer.Option(min=1, help="Number of nodes.")] = 1,
    data_dir: Annotated[Path | None, typer.Option(help="Keep the data here (default: it is removed by stop).")] = None,
    foreground: Annotated[bool, typer.Option("--foreground", help="Run until Ctrl-C.")] = False,
    json: JsonOption = False,
) -> None:
    """Start a broker that goes on in the background."""
    options = BrokerOptions(version=version, port=port, nodes=nodes, data_dir=data_dir, optimise=True)
    with _errors(), _jar_progress(version) as progress:
        if foreground:
            _run_in_foreground(options, progress, json)
        else:
            _report(Daemon().start(options, progress), "started", json)


@app.command()
def stop(json: JsonOption = False) -> None:
    """Stop the broker that 'start' started."""
    with _errors():
        _report(Daemon().stop(), "stopped", json)


@app.command()
def status(json: JsonOption = False) -> None:
    """Tell whether the broker runs, and where. The exit code is 3 if it does not."""
    with _errors():
        state = Daemon().status()
    _report(state, "running", json)
    if state is None:
        raise typer.Exit(3)


class Action(Enum):
    """What to do to a node."""

    STOP = "stop"
    KILL = "kill"
    RESTART = "restart"


@app.command()
def node(
    action: Annotated[Action, typer.Argument(help="'stop' is in good order, 'kill' is as a crash would.")],
    node_id: Annotated[int, typer.Argument(metavar="NODE", help="The first node is 1.")],
    json: JsonOption = False,
) -> None:
    """Stop, kill or restart one node, to see what an application makes of it.

    Example: streamlib broker node kill 2
    """
    with _errors():
        match action:
            case Action.STOP:
                state = Daemon().stop_node(node_id)
            case Action.KILL:
                state = Daemon().kill_node(node_id)
            case Action.RESTART:
                state = Daemon().restart_node(node_id)
    _report(state, "running" if state.is_running() else "stopped", json)


@app.command()
def topic(
    names: Annotated[list[str], typer.Argument(metavar="NAME...")],
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of each.")] = 4,
    bootstrap_servers: Annotated[
        str | None, typer.Option(help="HOST:PORT (default: the broker of 'start', else as the settings say).")
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Create topics. Settings of the connection, such as security_protocol, are as those of 'run'.

    Example: streamlib broker topic lines word-counts --partitions 4
    """
    with _errors():
        anyio.run(_create_topics, names, partitions, _settings(bootstrap_servers, config, set_ or []))
    if json:
        print(msgspec.json.encode({"created": names, "partitions": partitions}).decode(), flush=True)
    else:
        print(f"created: {', '.join(names)} with {partitions} partitions each", flush=True)


def _running() -> DaemonState:
    state = Daemon().status()
    if state is None:
        raise BrokerError("no broker is running: 'streamlib broker start' starts one, or give --bootstrap-servers")
    return state


def _settings(bootstrap_servers: str | None, file: Path | None, others: list[str]) -> StreamsConfig:
    """The broker of 'start' takes everybody, so what the environment says about others is not for it."""
    said = file is not None or others or _SERVERS_VARIABLE in os.environ
    if bootstrap_servers is None and (Daemon().status() is not None or not said):
        return StreamsConfig(application_id=_CLIENT_ID, bootstrap_servers=_running().bootstrap_servers)
    return load_settings(
        GivenSettings(application_id=_CLIENT_ID, bootstrap_servers=bootstrap_servers, file=file, others=others)
    )


async def _create_topics(names: list[str], partitions: int, config: StreamsConfig) -> None:
    async with opened(config) as connection:
        for name in names:
            await connection.admin().create_topic(name, partitions)


def _run_in_foreground(options: BrokerOptions, progress: OnJar, json: bool) -> None:
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with Broker.start(
            options.version,
            nodes=options.nodes,
            port=options.port,
            data_dir=options.data_dir,
            optimise=options.optimise,
            progress=progress,
        ) as broker:
            state = DaemonState(
                version=broker.version,
                bootstrap_servers=broker.bootstrap_servers,
                data_dir=str(broker.data_dir),
                keep_data=options.data_dir is not None,
                node_dirs=[str(node.folder) for node in broker.nodes],
                pids=[node.pid for node in broker.nodes],
            )
            _report(state, "running until Ctrl-C", json)
            threading.Event().wait()
    except KeyboardInterrupt:
        return


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _report(state: DaemonState | None, verb: str, json: bool) -> None:
    if json:
        print(msgspec.json.encode(_as_json(state, verb)).decode(), flush=True)
    elif state is None:
        print("no broker is running", flush=True)
    else:
        print(f"Kafka {state.version} {verb}: {state.bootstrap_servers}", flush=True)
        if verb != "stopped":
            print(f"data: {state.data_dir}   pids: {_pids(state)}", flush=True)


def _pids(state: DaemonState) -> str:
    return ", ".join("down" if node_id in state.down else str(pid) for node_id, pid in enumerate(state.pids, 1))


def _as_json(state: DaemonState | None, verb: str) -> dict[str, object]:
    if state is None:
        return {"running": False}
    return {"running": verb != "stopped", **msgspec.to_builtins(state)}


@contextmanager
def _errors() -> Iterator[None]:
    """Turns an error of ours into one message and exit code 1."""
    try:
        yield
    except StreamsError as error:
        print_error(error, FAILURE_EXIT)
        raise typer.Exit(FAILURE_EXIT) from None


@contextmanager
def _jar_progress(version: str) -> Iterator[OnJar]:
    """A bar on a terminal, nothing else in a log; it shows only while jars are missing."""
    console = Console(stderr=True)
    if not is_locked(version):
        console.print(f"note: Kafka {version} is not a tested version; its jars are taken unchecked")
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"Kafka {version}", total=None)

        def on_jar(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            if done == total:
                bar.stop()

        yield on_jar
