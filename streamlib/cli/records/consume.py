"""`streamlib consume`: prints records as they come, or those that are there."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from enum import StrEnum
from typing import Annotated

import anyio
import msgspec
import typer
from rich.console import Console

from streamlib.cli.client import opened
from streamlib.cli.dlq.reading import existing
from streamlib.cli.errors import UsageError
from streamlib.cli.logs import set_up_logs
from streamlib.cli.options import BootstrapServersOption, ConfigOption, JsonOption, SetOption
from streamlib.cli.records.forms import Form, KeyForm, as_json, show
from streamlib.cli.settings import GivenSettings, load_settings
from streamlib.config import StreamsConfig
from streamlib.kafka.connection import Connection
from streamlib.kafka.reading import partitions_of
from streamlib.records import FetchedRecord, TopicPartition

_CLIENT_ID = "streamlib-consume"
_TAKEN_BYTES = 1 << 20


class Isolation(StrEnum):
    """Which records are read."""

    READ_COMMITTED = "read_committed"
    READ_UNCOMMITTED = "read_uncommitted"


class _Wish(msgspec.Struct, frozen=True):
    """Which records, and how they are shown."""

    topic: str
    from_beginning: bool
    to_end: bool
    most: int | None
    isolation: Isolation
    key: KeyForm
    value: Form
    json: bool


def consume(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic to read.")],
    bootstrap_servers: BootstrapServersOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Also the records that are there already.")
    ] = False,
    to_end: Annotated[
        bool, typer.Option("--to-end", help="End with the records that are there already, and do not wait for more.")
    ] = False,
    max_: Annotated[int | None, typer.Option("--max", min=1, metavar="N", help="End after so many records.")] = None,
    key: Annotated[KeyForm, typer.Option(help="What keys are.")] = KeyForm.STR,
    value: Annotated[Form, typer.Option(help="What values are.")] = Form.STR,
    isolation: Annotated[
        Isolation, typer.Option(help="With read_uncommitted also records of open and aborted transactions.")
    ] = Isolation.READ_COMMITTED,
    json: JsonOption = False,
) -> None:
    """Print the records of a topic, key and value with a tab between them, until Ctrl-C.

    It belongs to no group and commits nothing. Records of one partition come in order. JSON is an object a line.

    Example: streamlib consume word-counts --value int --from-beginning --max 10

    Example: streamlib consume revenue --key windowed --value float --from-beginning --to-end
    """
    set_up_logs("error", Console(stderr=True))
    wish = _Wish(topic, from_beginning, to_end, max_, isolation, key, value, json)
    settings = load_settings(
        GivenSettings(application_id=_CLIENT_ID, bootstrap_servers=bootstrap_servers, file=config, others=set_ or [])
    )
    try:
        anyio.run(_consume, settings, wish)
    except BrokenPipeError:  # whoever reads our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _consume(settings: StreamsConfig, wish: _Wish) -> None:
    line = _json_line if wish.json else _text_line
    left = wish.most
    async with opened(settings) as connection:
        async for partition, records in _read(connection, wish):
            taken = records[:left]
            sys.stdout.writelines(_shown(line, wish, partition, record) for record in taken)
            sys.stdout.flush()  # somebody is looking
            left = None if left is None else left - len(taken)
            if left == 0:
                return


async def _read(connection: Connection, wish: _Wish) -> AsyncIterator[tuple[TopicPartition, list[FetchedRecord]]]:
    """Some records of one partition at a time; without end, unless only what is there was asked for."""
    admin = connection.admin()
    partitions = partitions_of(wish.topic, await existing(admin, wish.topic))
    committed = wish.isolation is Isolation.READ_COMMITTED
    ends = await admin.list_offsets(partitions, "latest_stable" if committed else "latest")
    starts = await admin.list_offsets(partitions, "earliest") if wish.from_beginning else ends
    behind = {partition for partition in partitions if starts[partition] < ends[partition]}
    fetcher = connection.fetcher(read_committed=committed)
    fetcher.add({partition: starts[partition] for partition in (behind if wish.to_end else partitions)})
    while behind or not wish.to_end:
        await fetcher.wait()
        for batch in fetcher.take(_TAKEN_BYTES):
            partition, end = batch.partition, ends[batch.partition]
            yield partition, [each for each in batch.records() if not wish.to_end or each.offset < end]
            if batch.next_offset >= end:
                behind.discard(partition)


def _shown(
    line: Callable[[_Wish, TopicPartition, FetchedRecord], str],
    wish: _Wish,
    partition: TopicPartition,
    record: FetchedRecord,
) -> str:
    try:
        return line(wish, partition, record)
    except (ValueError, msgspec.MsgspecError) as error:
        raise UsageError(
            f"{partition.at(record.offset)}: key or value is not what --key {wish.key} and --value {wish.value} say: "
            f"{error}; the forms hex and str show any bytes"
        ) from None


def _text_line(wish: _Wish, partition: TopicPartition, record: FetchedRecord) -> str:
    return f"{show(wish.key, record.key)}\t{show(wish.value, record.value)}\n"


def _json_line(wish: _Wish, partition: TopicPartition, record: FetchedRecord) -> str:
    fields = {
        "topic": partition.topic,
        "partition": partition.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        **as_json("key", wish.key, record.key),
        **as_json("value", wish.value, record.value),
        "headers": [{"name": name, **as_json("value", Form.STR, content)} for name, content in record.headers],
    }
    return msgspec.json.encode(fields).decode() + "\n"
