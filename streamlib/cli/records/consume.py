"""`streamlib consume`: the sub-command."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Annotated

import anyio
import typer
from rich.console import Console

from streamlib.cli.client import StalledError, opened, partitions_of, read_committed
from streamlib.cli.dlq.reading import existing
from streamlib.cli.errors import UsageError
from streamlib.cli.logs import set_up_logs
from streamlib.cli.options import BootstrapServersOption, ConfigOption, SetOption
from streamlib.cli.records.lines import Form, line_of
from streamlib.cli.settings import GivenSettings, load_settings
from streamlib.config import StreamsConfig
from streamlib.kafka.connection import Connection
from streamlib.records import FetchedRecord


def consume(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="What to read, from its beginning.")],
    count: Annotated[int | None, typer.Option(min=1, help="Wait for so many records, and end with the last.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on at its end, until Ctrl-C.")] = False,
    timeout: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="How long --count waits.")] = 60,
    key: Annotated[Form, typer.Option(help="Type of the keys: int and float as Kafka writes them.")] = Form.ANY,
    value: Annotated[Form, typer.Option(help="Type of the values, likewise.")] = Form.ANY,
    bootstrap_servers: BootstrapServersOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Print the committed records of a topic, each as a line of JSON that 'streamlib produce' takes.

    Those of a partition are in order. It ends where the topic ends now, unless --count or --follow says otherwise.

    Example: streamlib consume word-counts --value int
    """
    set_up_logs("error", Console(stderr=True))
    if count is not None and follow:
        raise UsageError("--count ends and --follow does not: leave one of them out")
    given = GivenSettings(
        application_id="streamlib-consume", bootstrap_servers=bootstrap_servers, file=config, others=set_ or []
    )
    settings = load_settings(given)
    with suppress(KeyboardInterrupt):
        if count is not None:
            anyio.run(_print_some, settings, topic, (key, value), count, timeout)
        else:
            anyio.run(_print_all, settings, topic, (key, value), follow)


async def _print_all(settings: StreamsConfig, topic: str, forms: tuple[Form, Form], follow: bool) -> None:
    async with opened(settings) as connection, aclosing(_read(connection, topic, endless=follow)) as records:
        async for record in records:
            _print(record, forms)


async def _print_some(
    settings: StreamsConfig, topic: str, forms: tuple[Form, Form], count: int, timeout_s: float
) -> None:
    printed = 0
    with anyio.move_on_after(timeout_s):
        async with opened(settings) as connection, aclosing(_read(connection, topic, endless=True)) as records:
            async for record in records:
                _print(record, forms)
                printed += 1
                if printed == count:
                    return
    raise StalledError(f"{topic} had {printed:,} committed records within {timeout_s:g} s, not {count:,}")


async def _read(connection: Connection, topic: str, *, endless: bool) -> AsyncGenerator[FetchedRecord, None]:
    """Committed records from the start on."""
    admin = connection.admin()
    partitions = partitions_of(topic, await existing(admin, topic))
    if not endless:
        async for record in read_committed(connection, partitions):
            yield record
        return
    fetcher = connection.fetcher()
    fetcher.add(await admin.list_offsets(partitions, "earliest"))
    try:
        while True:
            await fetcher.wait()
            for batch in fetcher.take(4 << 20):
                for record in batch.records():
                    yield record
    finally:
        with anyio.CancelScope(shield=True):
            await fetcher.close()


def _print(record: FetchedRecord, forms: tuple[Form, Form]) -> None:
    line = line_of((record.key, record.value, record.timestamp, record.headers), *forms)
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.flush()  # a pipe is to be read while it is written
