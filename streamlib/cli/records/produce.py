"""`streamlib produce`: the sub-command."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import anyio
import msgspec
import typer
from rich.console import Console

from streamlib.cli.client import opened
from streamlib.cli.dlq.reading import existing
from streamlib.cli.errors import UsageError
from streamlib.cli.logs import set_up_logs
from streamlib.cli.options import BootstrapServersOption, ConfigOption, SetOption
from streamlib.cli.records.lines import Form, Line
from streamlib.cli.settings import GivenSettings, load_settings
from streamlib.config import StreamsConfig
from streamlib.partitioning import partition_for
from streamlib.records import OutRecord, TopicPartition

_DAY_MS = 24 * 60 * 60 * 1000
_AT_ONCE = 1_000


def produce(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Where to write; it has to exist.")],
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Lines of JSON; standard input if left out.", exists=True)
    ] = None,
    key: Annotated[Form, typer.Option(help="Type of the keys: int and float as Kafka writes them.")] = Form.ANY,
    value: Annotated[Form, typer.Option(help="Type of the values, likewise.")] = Form.ANY,
    plain: Annotated[bool, typer.Option("--plain", help="Each line is a value as it is, without a key.")] = False,
    recent: Annotated[
        bool,
        typer.Option("--recent", help="Move all times by the same number of days, so that the last is of yesterday."),
    ] = False,
    bootstrap_servers: BootstrapServersOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Write records to a topic, each from a line of JSON such as {"key": "ann", "value": {"amount": 3}}.

    "timestamp" (ISO 8601 or ms) and "headers" may be there, too. Text is written as it is, everything else as JSON. A
    record goes to the partition of its key, as Kafka's clients choose it. If a line is wrong, nothing is written.

    Example: streamlib produce orders orders.jsonl
    """
    set_up_logs("error", Console(stderr=True))
    given = GivenSettings(
        application_id="streamlib-produce", bootstrap_servers=bootstrap_servers, file=config, others=set_ or []
    )
    settings = load_settings(given)
    text = sys.stdin.buffer.read() if file is None else file.read_bytes()
    now_ms = time.time_ns() // 1_000_000
    if plain:
        records: list[OutRecord] = [(None, line, now_ms, ()) for line in text.splitlines()]
    else:
        records = list(_records(text, (key, value), now_ms, "standard input" if file is None else str(file)))
    if recent:
        records = list(moved(records, now_ms))
    anyio.run(_write, settings, topic, records)
    print(f"records written to {topic}: {len(records):,}", flush=True)


def moved(records: Sequence[OutRecord], now_ms: int) -> Iterator[OutRecord]:
    """The same records, all of them later or earlier by the same number of days, so that the last is of yesterday
    (UTC): brokers forget old records, and refuse those of the future. The time of the day stays, and so do windows.

    >>> day_ms, noon_ms = 86_400_000, 43_200_000
    >>> [at_ms - 6 * day_ms for _, _, at_ms, _ in moved([(None, b"a", noon_ms, ())], now_ms=7 * day_ms)] == [noon_ms]
    True
    """
    last_ms = records[-1][2] if records else now_ms
    by_ms = (now_ms // _DAY_MS - 1 - last_ms // _DAY_MS) * _DAY_MS
    for key, value, timestamp, headers in records:
        yield key, value, timestamp + by_ms, headers


def _records(text: bytes, forms: tuple[Form, Form], now_ms: int, name: str) -> Iterator[OutRecord]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield Line.read(line).record(*forms, now_ms)
        except (ValueError, TypeError, msgspec.MsgspecError) as error:
            raise UsageError(f"line {number} of {name}: {error}; nothing was written") from None


async def _write(settings: StreamsConfig, topic: str, records: Sequence[OutRecord]) -> None:
    async with opened(settings) as connection:
        count = await existing(connection.admin(), topic)
        producer = connection.producer(None)
        await producer.init()
        turns = itertools.cycle(range(count))  # for those without a key
        for start in range(0, len(records), _AT_ONCE):
            for record in records[start : start + _AT_ONCE]:
                number = next(turns) if record[0] is None else partition_for(record[0], count)
                producer.send(TopicPartition(topic, number), [record])
            await producer.wait_for_room()
        await producer.flush()
        await producer.close()
