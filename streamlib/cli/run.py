"""`streamlib run`: one worker in this process, or several under the supervisor."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from streamlib.app import KafkaStreams, State
from streamlib.cli.errors import INTERRUPTED_EXIT, debug_wanted
from streamlib.cli.logs import set_up_logs
from streamlib.cli.options import ApplicationIdOption, BootstrapServersOption, ConfigOption, JsonOption, SetOption
from streamlib.cli.places import NOWHERE, Places, shown
from streamlib.cli.settings import GivenSettings, load_config
from streamlib.cli.supervisor import FD_OPTION, OnLine, Phase, Supervisor, SupervisorOptions, Totals, WorkerView
from streamlib.cli.target import Target, load_target
from streamlib.cli.topology import TargetArgument
from streamlib.cli.view import View
from streamlib.cli.worker import SupervisorLink, make_report, run_app, run_supervised
from streamlib.config import StreamsConfig
from streamlib.errors import StreamsNotStartedError

log = logging.getLogger(__name__)


def run(
    target: TargetArgument,
    workers: Annotated[int, typer.Option(min=1, help="Number of worker processes on this host.")] = 1,
    application_id: ApplicationIdOption = None,
    bootstrap_servers: BootstrapServersOption = None,
    processing_guarantee: Annotated[
        str | None, typer.Option(help="exactly_once_v2, or at_least_once (default).")
    ] = None,
    instance_id: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Static membership: a restart causes no rebalance. Worker i is called NAME-i."
        ),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Serve /metrics for Prometheus, /health and /ready. Worker i listens on PORT+i-1; without a HOST only "
            "this machine is let in.",
        ),
    ] = None,
    web: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Serve the web console, and what --metrics does. Worker i listens on PORT+i-1; beyond this machine "
            "STREAMLIB_WEB_TOKEN has to be set.",
        ),
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    json: JsonOption = False,
    supervisor_fd: Annotated[int | None, typer.Option(FD_OPTION, hidden=True)] = None,
) -> None:
    """Run a topology until Ctrl-C or SIGTERM, which commits and closes; a second one ends it at once.

    A setting comes from the first of: option, STREAMLIB_... in the environment, --config file, an object called
    'config' in the module, default. Workers that die are restarted; an error that no restart mends ends the run.

    With --json the status is an object a line on standard output, every 5 s and at the end; logs are on standard error.

    Example: streamlib run examples/word_count.py:topology --workers 2 --bootstrap-servers localhost:9092

    Example: streamlib run shop.revenue:topology --config prod.toml --set commit_interval_ms=200
    """
    given = GivenSettings(
        application_id=application_id,
        bootstrap_servers=bootstrap_servers,
        processing_guarantee=processing_guarantee,
        group_instance_id=instance_id,
        file=config,
        others=set_ or [],
    )
    places = Places(metrics, web)
    if supervisor_fd is not None:
        _run_as_worker(target, given, log_level, SupervisorLink(supervisor_fd), places)
    console = Console(stderr=True)
    set_up_logs(log_level, console)
    loaded = load_target(target)
    settings = load_config(given, loaded)
    if workers == 1:
        _run_here(loaded, settings, console, places, json=json)
    else:
        commands = worker_commands(target, workers, given, settings.group_instance_id, log_level, places)
        _run_supervised(commands, console, json=json)


def worker_commands(
    target: str,
    workers: int,
    given: GivenSettings,
    instance_id: str | None,
    log_level: str = "info",
    places: Places = NOWHERE,
) -> list[list[str]]:
    """The command of each worker process: the same settings, and with static membership a name each.

    A worker resolves file and environment again, so that a restart takes up what has changed.

    Raises:
        ConfigError: one of the places is no address, or there are not so many ports.
    """
    return [
        [
            *(sys.executable, "-m", "streamlib", "run", target, "--log-level", log_level),
            *given.arguments(f"{instance_id}-{number}" if instance_id else None),
            *places.arguments(number - 1),
        ]
        for number in range(1, workers + 1)
    ]


def _run_as_worker(target: str, given: GivenSettings, log_level: str, link: SupervisorLink, places: Places) -> None:
    set_up_logs(log_level)

    def make_app() -> KafkaStreams:
        loaded = load_target(target)
        config = places.told_to_others(load_config(given, loaded))
        return KafkaStreams(loaded.topology, config, tracing=loaded.tracing)

    raise typer.Exit(run_supervised(make_app, link, debug=debug_wanted(), places=places))


def _run_here(target: Target, config: StreamsConfig, console: Console, places: Places, *, json: bool = False) -> None:
    app = KafkaStreams(target.topology, places.told_to_others(config), tracing=target.tracing)
    with shown(app, places), View(lambda: [_view_of(app)], console, log_line=log.info, json=json):
        run_app(app)


def _view_of(app: KafkaStreams) -> WorkerView:
    try:
        report = make_report(app)
    except StreamsNotStartedError:
        return WorkerView(0, Phase.STARTING, None, 0, Totals(), None)
    over = app.state in (State.NOT_RUNNING, State.ERROR)
    return WorkerView(0, Phase.STOPPED if over else Phase.RUNNING, None, 0, Totals().plus(report), report)


def _run_supervised(commands: Sequence[Sequence[str]], console: Console, *, json: bool = False) -> None:
    options = SupervisorOptions(merge_stdout=console.is_terminal and sys.stdout.isatty())
    supervisor = Supervisor(commands, line_printer(console), options)
    view = View(lambda: supervisor.views, console, log_line=log.info, json=json)
    with _signals_to(supervisor) as signals, supervisor, view:
        while not supervisor.wait(0.5):
            pass  # a wait without end would not be interrupted by signals on every platform
    if supervisor.failure is not None:
        raise supervisor.failure
    if len(signals) > 1:
        raise typer.Exit(INTERRUPTED_EXIT)


def line_printer(console: Console) -> OnLine:
    """Prints what workers write to standard error, each line with its worker's number."""

    def print_line(index: int, line: str) -> None:
        console.print(Text(f"worker {index + 1} | {line}"), soft_wrap=True)

    return print_line


@contextmanager
def _signals_to(supervisor: Supervisor) -> Iterator[list[int]]:
    """SIGINT and SIGTERM end the workers in good order, a second one at once; yields those that came."""
    received: list[int] = []

    def handle(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        if len(received) > 1:
            supervisor.abort()
        else:
            supervisor.stop()

    before = {signum: signal.signal(signum, handle) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
