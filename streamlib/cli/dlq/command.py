"""`streamlib dlq`: the sub-commands."""

from __future__ import annotations

import heapq
import sys
from typing import Annotated, TypeAlias

import anyio
import msgspec
import typer
from rich.console import Console

from streamlib.cli.client import opened
from streamlib.cli.dlq.plan import GROUP_PREFIX, Plan, Request, Route, make_plan
from streamlib.cli.dlq.reading import Extent, existing, read_letters, what_was_replayed
from streamlib.cli.dlq.replay import INSTANCE_ID, replay
from streamlib.cli.dlq.screen import Kind, as_json, kinds_table, plan_as_json, plan_table, show_letter
from streamlib.cli.errors import FAILURE_EXIT, UsageError
from streamlib.cli.logs import set_up_logs
from streamlib.cli.options import BootstrapServersOption, ConfigOption, JsonOption, SetOption, YesOption
from streamlib.cli.screens import log_or_terminal, progress
from streamlib.cli.settings import GivenSettings, load_settings
from streamlib.cli.times import FromOption, UntilOption, parse_time
from streamlib.config import StreamsConfig
from streamlib.dead_letters.letters import Letter, Wanted

TopicArgument: TypeAlias = Annotated[str, typer.Argument(metavar="TOPIC", help="A topic of dead letters.")]
ExceptionOption: TypeAlias = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only those of this class, with or without its module.")
]

app = typer.Typer(no_args_is_help=True, help="Look into a topic of dead letters, and put its records back.")


@app.command("list")
def list_letters(
    topic: TopicArgument,
    bootstrap_servers: BootstrapServersOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    exception: ExceptionOption = None,
    from_: FromOption = None,
    until: UntilOption = None,
    json: JsonOption = False,
) -> None:
    """Count dead letters by what went wrong and where they came from.

    Times are those of the records. "Not replayed" is what 'streamlib dlq replay' would write.

    Example: streamlib dlq list orders-failed --bootstrap-servers localhost:9092
    """
    console = _console()
    settings = _settings(topic, bootstrap_servers, config, set_)
    kinds = anyio.run(_kinds, settings, topic, _wanted(exception, from_, until), console)
    if json:
        print(msgspec.json.encode({"topic": topic, "kinds": kinds}).decode())
    elif not kinds:
        print(f"there are no such dead letters in {topic}")
    else:
        log_or_terminal().print(kinds_table(topic, kinds))


@app.command()
def show(
    topic: TopicArgument,
    bootstrap_servers: BootstrapServersOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    exception: ExceptionOption = None,
    from_: FromOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most: the newest, by the records' times.")] = 20,
    partition: Annotated[int | None, typer.Option(min=0, help="Only this partition of the topic.")] = None,
    offset: Annotated[
        int | None, typer.Option(min=0, help="The first ones from this offset of the partition on, not the newest.")
    ] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Stack traces, too.")] = False,
    json: JsonOption = False,
) -> None:
    """Print dead letters, the newest last. JSON is an object a line.

    Example: streamlib dlq show orders-failed --exception ValueError --limit 3 --trace
    """
    if offset is not None and partition is None:
        raise UsageError("--offset needs a --partition: each partition counts for itself")
    settings = _settings(topic, bootstrap_servers, config, set_)
    choice = _Choice(topic, _wanted(exception, from_, until), limit, partition, offset)
    letters = anyio.run(_chosen, settings, choice, _console())
    for letter in letters:
        if json:
            print(msgspec.json.encode(as_json(letter)).decode())
        else:
            show_letter(log_or_terminal(), letter, trace=trace)
    if not letters and not json:
        print(f"there are no such dead letters in {topic}")


@app.command("replay")
def replay_letters(
    topic: TopicArgument,
    bootstrap_servers: BootstrapServersOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    exception: ExceptionOption = None,
    from_: FromOption = None,
    until: UntilOption = None,
    to: Annotated[str | None, typer.Option(metavar="TOPIC", help="Write there; else each where it came from.")] = None,
    keep_partition: Annotated[
        bool, typer.Option("--keep-partition", help="Write to the partition it came from; else by its key.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Also what was replayed before.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be written.")] = False,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Write dead letters back to the topics they came from, each once.

    Key, value, timestamp and headers are those of the record that failed. Records and the offset that says what was
    replayed are one transaction for each so many: what was replayed is not replayed again, whenever the command ends.

    Example: streamlib dlq replay orders-failed --exception shop.NoPrice --dry-run
    """
    if json and not (yes or dry_run):
        raise UsageError("--json asks nothing: add --yes or --dry-run")
    console = _console()
    settings = _settings(topic, bootstrap_servers, config, set_)
    wanted = _wanted(exception, from_, until)
    request = Request(topic=topic, wanted=wanted, to=to, keep_partition=keep_partition, again=again)
    if request.to == topic:
        raise UsageError(f"--to {topic} is the topic of dead letters itself")
    plan = anyio.run(_plan, settings, request, console)
    if not json:
        _tell(plan, topic)
    if dry_run or not plan.total:
        if json:
            print(msgspec.json.encode(plan_as_json(plan, 0)).decode())
        return
    if not yes and not typer.confirm(f"Write {plan.total:,} records?", err=True):
        print("nothing was written", file=sys.stderr)
        raise typer.Exit(FAILURE_EXIT)
    written = anyio.run(_replay, settings, request, plan, console)
    print(msgspec.json.encode(plan_as_json(plan, written)).decode() if json else f"records replayed: {written:,}")


class _Choice(msgspec.Struct, frozen=True):
    """Which dead letters to show."""

    topic: str
    wanted: Wanted
    limit: int
    partition: int | None
    offset: int | None


async def _kinds(settings: StreamsConfig, topic: str, wanted: Wanted, console: Console) -> list[Kind]:
    kinds: dict[tuple[str | None, str | None], Kind] = {}
    async with opened(settings) as connection:
        extent = await Extent.of(connection.admin(), topic)
        replayed = await what_was_replayed(connection, extent)
        with progress(console) as step:
            async for letters in read_letters(connection, extent, step("reading", extent.size)):
                for letter in letters:
                    if letter in wanted:
                        _kind(kinds, letter).count(letter, replayed=letter.offset in replayed[letter.partition])
    return sorted(kinds.values(), key=lambda kind: (-kind.records, kind.exception or "", kind.source_topic or ""))


def _kind(kinds: dict[tuple[str | None, str | None], Kind], letter: Letter) -> Kind:
    name = letter.exception, letter.source_topic
    if name not in kinds:
        kinds[name] = Kind(exception=name[0], source_topic=name[1], first_ms=letter.timestamp, last_ms=letter.timestamp)
    return kinds[name]


async def _chosen(settings: StreamsConfig, choice: _Choice, console: Console) -> list[Letter]:
    """The newest, or the first from an offset on."""
    found: list[Letter] = []
    async with opened(settings) as connection:
        whole = await Extent.of(connection.admin(), choice.topic)
        extent = whole.only(choice.partition, choice.offset)
        with progress(console) as step:
            async for letters in read_letters(connection, extent, step("reading", extent.size)):
                found += [letter for letter in letters if letter in choice.wanted]
                if choice.offset is None:
                    found = heapq.nlargest(choice.limit, found, key=_age)
                elif len(found) >= choice.limit:
                    break
    return found[: choice.limit] if choice.offset is not None else found[::-1]


def _age(letter: Letter) -> tuple[int, int, int]:
    return letter.timestamp, letter.partition.partition, letter.offset


async def _plan(settings: StreamsConfig, request: Request, console: Console) -> Plan:
    async with opened(settings) as connection:
        admin = connection.admin()
        if request.to is not None:
            await existing(admin, request.to)
        size = (await Extent.of(admin, request.topic)).size
        with progress(console) as step:
            return await make_plan(connection, request, Route(admin, request), step("reading", size))


async def _replay(settings: StreamsConfig, request: Request, plan: Plan, console: Console) -> int:
    async with opened(settings) as connection:
        route = Route(connection.admin(), request)
        with progress(console) as step:
            return await replay(connection, request, route, plan, step("replaying", plan.total))


def _tell(plan: Plan, topic: str) -> None:
    if plan.total:
        log_or_terminal().print(plan_table(plan))
    else:
        print(f"there is nothing to replay in {topic}")
    if plan.not_wanted:
        print(f"not asked for: {plan.not_wanted:,}")
    if plan.without_source:
        print(f"without a source in their headers, and left there: {plan.without_source:,}; --to TOPIC takes them, too")


def _console() -> Console:
    console = Console(stderr=True)
    set_up_logs("error", console)
    return console


def _settings(topic: str, bootstrap_servers: str | None, config: ConfigOption, set_: list[str] | None) -> StreamsConfig:
    """The group that remembers what was replayed is the application here."""
    return load_settings(
        GivenSettings(
            application_id=GROUP_PREFIX + topic,
            bootstrap_servers=bootstrap_servers,
            group_instance_id=INSTANCE_ID,
            file=config,
            others=set_ or [],
        )
    )


def _wanted(exception: str | None, from_: str | None, until: str | None) -> Wanted:
    return Wanted(exception, None if from_ is None else parse_time(from_), None if until is None else parse_time(until))
