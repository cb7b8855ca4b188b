"""Points in time as people write and read them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, TypeAlias

import typer

from streamlib.cli.errors import UsageError

TIME_METAVAR = "TIME"

FromOption: TypeAlias = Annotated[
    str | None, typer.Option("--from", metavar=TIME_METAVAR, help="Records of this time or later, by their timestamps.")
]
UntilOption: TypeAlias = Annotated[
    str | None, typer.Option("--until", metavar=TIME_METAVAR, help="Records before this time.")
]


def parse_time(text: str) -> int:
    """A date, or a date and a time, in ISO 8601 -> ms since the epoch; the local time zone if it names none.

    >>> parse_time("2026-11-21T10:30:00+00:00")
    1795257000000

    Raises:
        UsageError: it is none.
    """
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError:
        raise UsageError(f"{text!r} is no time: write it like 2026-11-21, 2026-11-21T10:30 or ...T10:30Z") from None


def shown_time(timestamp_ms: int) -> str:
    """A timestamp of a record for a person, in UTC.

    >>> shown_time(1795257000125)
    '2026-11-21 10:30:00.125Z'
    """
    if timestamp_ms < 0:
        return "none"
    try:
        moment = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{timestamp_ms} ms"  # beyond the year 9999
    return f"{moment:%Y-%m-%d %H:%M:%S}.{timestamp_ms % 1000:03d}Z"
