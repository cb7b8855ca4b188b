"""Dead letters on a terminal, or as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from streamlib.cli.dlq.plan import Plan
from streamlib.cli.times import shown_time
from streamlib.dead_letters.letters import Letter
from streamlib.records import Headers


class Kind(msgspec.Struct, kw_only=True):
    """Dead letters of one exception and source topic; times are those of the records, in ms since the epoch."""

    exception: str | None
    source_topic: str | None
    records: int = 0
    not_replayed: int = 0
    first_ms: int
    last_ms: int

    def count(self, letter: Letter, *, replayed: bool) -> None:
        """One more."""
        self.records += 1
        self.not_replayed += not replayed
        self.first_ms = min(self.first_ms, letter.timestamp)
        self.last_ms = max(self.last_ms, letter.timestamp)


def kinds_table(topic: str, kinds: Iterable[Kind]) -> Table:
    """A line for each, the most frequent first."""
    table = Table(title=f"dead letters in {topic}", title_justify="left")
    for heading in ("exception", "source topic", "records", "not replayed", "first record", "last record"):
        table.add_column(heading, overflow="fold")
    for kind in kinds:
        counts = f"{kind.records:,}", f"{kind.not_replayed:,}"
        times = shown_time(kind.first_ms), shown_time(kind.last_ms)
        table.add_row(kind.exception or "not told", kind.source_topic or "not told", *counts, *times)
    return table


def plan_table(plan: Plan) -> Table:
    """A line for each topic that is written to."""
    table = Table("to topic", "records")
    for topic, count in sorted(plan.counts.items()):
        table.add_row(topic, f"{count:,}")
    return table


def plan_as_json(plan: Plan, written: int) -> Mapping[str, Any]:
    """What is to be written, and how much of it was."""
    return {
        "to": dict(sorted(plan.counts.items())),
        "not_wanted": plan.not_wanted,
        "without_source": plan.without_source,
        "replayed": written,
    }


def show_letter(console: Console, letter: Letter, *, trace: bool) -> None:
    """Some lines, and an empty one."""
    key, value, timestamp, headers = letter.record
    message = f": {letter.message}" if letter.message else ""
    lines = [
        f"{letter.partition.at(letter.offset)}, {shown_time(timestamp)}",
        f"  {letter.exception or 'not told why'}{message}",
        f"  from    {_source(letter)}",
        *([f"  at      {_node(letter)}"] if letter.node else []),
        f"  key     {readable(key)}",
        f"  value   {readable(value)}",
        *(f"  header  {name}: {readable(content)}" for name, content in headers),
    ]
    if trace and letter.stacktrace:
        lines += [f"  {line}" for line in letter.stacktrace.rstrip().splitlines()]
    console.print("\n".join(lines) + "\n", soft_wrap=True, markup=False, highlight=False)


def readable(data: bytes | None) -> str:
    r"""Text if it is UTF-8, else hexadecimal digits; what a terminal would act upon is escaped.

    >>> readable(b"caf\xc3\xa9"), readable(b"\x00\xff"), readable(None), readable(b"a\x1b[2J")
    ('café', '0x00ff', 'null', 'a\\x1b[2J')
    """
    if data is None:
        return "null"
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return f"0x{data.hex()}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def as_json(letter: Letter) -> Mapping[str, Any]:
    """One object; what is not UTF-8 is in `key_hex`, `value_hex`, in place of `key`, `value`."""
    key, value, timestamp, headers = letter.record
    return {
        "topic": letter.partition.topic,
        "partition": letter.partition.partition,
        "offset": letter.offset,
        "timestamp": timestamp,
        **_json_bytes("key", key),
        **_json_bytes("value", value),
        "headers": _json_headers(headers),
        "exception": letter.exception,
        "message": letter.message,
        "stacktrace": letter.stacktrace,
        "source_topic": letter.source_topic,
        "source_partition": letter.source_partition,
        "source_offset": letter.source_offset,
        "node": letter.node,
        "application": letter.application,
    }


def _source(letter: Letter) -> str:
    if letter.source_topic is None:
        return "not told"
    return f"topic {letter.source_topic}, partition {letter.source_partition}, offset {letter.source_offset}"


def _node(letter: Letter) -> str:
    return f"node {letter.node}" + (f" of application {letter.application}" if letter.application else "")


def _json_headers(headers: Headers) -> list[Mapping[str, str | None]]:
    return [{"name": name, **_json_bytes("value", content)} for name, content in headers]


def _json_bytes(name: str, data: bytes | None) -> dict[str, str | None]:
    if data is None:
        return {name: None}
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_hex": data.hex()}
