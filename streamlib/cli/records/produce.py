"""`streamlib produce`: writes the lines of standard input to a topic, each a record."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import anyio
import msgspec
import typer
from rich.console import Console

from streamlib.cli.client import opened
from streamlib.cli.dlq.reading import existing
from streamlib.cli.errors import UsageError
from streamlib.cli.logs import set_up_logs
from streamlib.cli.options import BootstrapServersOption, ConfigOption, JsonOption, SetOption
from streamlib.cli.records.forms import Form, encode, encode_value
from streamlib.cli.settings import GivenSettings, load_settings
from streamlib.config import StreamsConfig
from streamlib.partitioning import partition_for
from streamlib.records import OutRecord, TopicPartition

_CLIENT_ID = "streamlib-produce"
_CHUNK_BYTES = 1 << 16
_STDIN = 0
_DAY_MS = 24 * 60 * 60 * 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Record(msgspec.Struct, frozen=True):
    """What a line says."""

    record: OutRecord
    partition: int | None = None


Reader = Callable[[str], _Record]
"""A line -> its record. Raises ValueError or TypeError for what is none."""


def produce(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic to write to; it has to exist.")],
    bootstrap_servers: BootstrapServersOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    separator: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What ends the key of a line; without it lines have no key.")
    ] = None,
    key: Annotated[Form, typer.Option(help="What keys are.")] = Form.STR,
    value: Annotated[Form, typer.Option(help="What values are.")] = Form.STR,
    json: JsonOption = False,
    recent: Annotated[
        bool,
        typer.Option("--recent", help="With --json: move all times by as many days as bring the first to yesterday."),
    ] = False,
) -> None:
    """Write each line of standard input to a topic as a record of now, until its end (Ctrl-D) or Ctrl-C.

    The partition is that of the key, as Kafka's clients choose it; lines without a key go to the partitions in turn.
    With --json each line is an object as 'streamlib consume --json' prints it: key, value, timestamp, partition,
    headers, of which none has to be there; a value of null deletes the key's row in a table. Timestamps are in ms or
    ISO 8601. Brokers forget old records and refuse those of the future, so samples go with --recent: the time of the
    day stays, and so do windows.

    Example: echo 'to be or not to be' | streamlib produce lines

    Example: printf 'ann:3.0\\nbob:1.5\\n' | streamlib produce orders --separator : --value float
    """
    set_up_logs("error", Console(stderr=True))
    if separator == "":
        raise UsageError("--separator is empty: give the text between key and value")
    settings = load_settings(
        GivenSettings(application_id=_CLIENT_ID, bootstrap_servers=bootstrap_servers, file=config, others=set_ or [])
    )
    if recent and not json:
        raise UsageError("--recent needs --json: other lines have no times, they are of now")
    read = _json_reader(key, value, Days() if recent else None) if json else _line_reader(separator, key, value)
    written = anyio.run(_produce, settings, topic, read)
    print(f"written to {topic}: {written:,} {'record' if written == 1 else 'records'}", file=sys.stderr)


async def _produce(settings: StreamsConfig, topic: str, read: Reader) -> int:
    async with opened(settings) as connection:
        count = await existing(connection.admin(), topic)
        producer = connection.producer(None)
        await producer.init()
        turns = itertools.cycle(range(count))
        written = 0
        try:
            async for lines in _lines():
                for line in lines:
                    record = _read(read, line, written + 1)
                    producer.send(TopicPartition(topic, _partition(record, turns, count)), [record.record])
                    written += 1
                await producer.wait_for_room()
        finally:
            with anyio.CancelScope(shield=True):  # what was read before a wrong line or Ctrl-C is written
                await producer.flush()
                await producer.close()
        return written


def _read(read: Reader, line: str, number: int) -> _Record:
    try:
        return read(line)
    except (ValueError, TypeError, msgspec.MsgspecError) as error:
        raise UsageError(f"line {number} is no record: {error}; the lines before it are written") from None


def _partition(record: _Record, turns: Iterator[int], count: int) -> int:
    if record.partition is not None:
        if not 0 <= record.partition < count:
            raise UsageError(f"there is no partition {record.partition}: the topic has {count}")
        return record.partition
    key = record.record[0]
    return next(turns) if key is None else partition_for(key, count)


def _line_reader(separator: str | None, key: Form, value: Form) -> Reader:
    def read(line: str) -> _Record:
        if separator is None:
            return _Record((None, encode(value, line), _now_ms(), ()))
        before, found, after = line.partition(separator)
        if not found:
            raise ValueError(f"{separator!r} is not in it")
        return _Record((encode(key, before), encode(value, after), _now_ms(), ()))

    return read


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    value: str | None = None
    value_hex: str | None = None


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    """A record as `streamlib consume --json` prints it; topic and offset are those it had there."""

    key: Any = None
    value: Any = None
    key_hex: str | None = None
    value_hex: str | None = None
    timestamp: int | Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    partition: int | None = None
    headers: list[_Header] = []
    topic: str = ""
    offset: int = 0


class Days:
    """Moves times by as many days as bring the first of them to yesterday (UTC)."""

    def __init__(self, now_ms: Callable[[], int] | None = None) -> None:
        self._now_ms = now_ms or _now_ms
        self._by_ms: int | None = None

    def moved(self, timestamp_ms: int) -> int:
        """The time of a record on its new day.

        >>> days = Days(lambda: 7 * 86_400_000)
        >>> [days.moved(timestamp_ms) - 6 * 86_400_000 for timestamp_ms in (500, 86_400_000)]
        [500, 86400000]
        """
        if self._by_ms is None:
            self._by_ms = (self._now_ms() // _DAY_MS - 1 - timestamp_ms // _DAY_MS) * _DAY_MS
        return timestamp_ms + self._by_ms


def _timestamp_ms(timestamp: int | datetime | None, days: Days | None) -> int:
    if timestamp is None:
        return _now_ms()
    if isinstance(timestamp, datetime):
        timestamp = (timestamp - _EPOCH) // timedelta(milliseconds=1)
    return timestamp if days is None else days.moved(timestamp)


def _json_reader(key: Form, value: Form, days: Days | None) -> Reader:
    decoder = msgspec.json.Decoder(_Line)

    def read(text: str) -> _Record:
        line = decoder.decode(text)
        headers = tuple((each.name, _bytes(Form.STR, each.value, each.value_hex)) for each in line.headers)
        timestamp = _timestamp_ms(line.timestamp, days)
        record = _bytes(key, line.key, line.key_hex), _bytes(value, line.value, line.value_hex), timestamp, headers
        return _Record(record, line.partition)

    return read


def _bytes(form: Form, value: Any, hexadecimal: str | None) -> bytes | None:
    if hexadecimal is not None:
        return bytes.fromhex(hexadecimal)
    return None if value is None else encode_value(form, value)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


async def _lines() -> AsyncIterator[list[str]]:
    """Lines of standard input as they come, some at a time."""
    left = b""
    async for chunk in _chunks():
        *whole, left = (left + chunk).split(b"\n")
        yield [_text(line) for line in whole]
    if left:
        yield [_text(left)]


def _text(line: bytes) -> str:
    try:
        return line.removesuffix(b"\r").decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"the input is not UTF-8: {error}; write it in hex and say --value hex") from None


async def _chunks() -> AsyncIterator[bytes]:
    """What a thread reads, which does not keep the process from ending while it waits for more."""
    loop = asyncio.get_running_loop()
    send, receive = anyio.create_memory_object_stream[bytes](4)

    def read() -> None:
        with suppress(Exception):  # nobody listens any more, or there is no standard input
            while chunk := os.read(_STDIN, _CHUNK_BYTES):
                asyncio.run_coroutine_threadsafe(send.send(chunk), loop).result()
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(send.close)

    threading.Thread(target=read, name="stdin", daemon=True).start()
    async with receive:
        async for chunk in receive:
            yield chunk
