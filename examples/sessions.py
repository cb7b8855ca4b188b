"""Sessions: the clicks of a shop become visits, each told once, when it is over.

Shows session windows with a gap of 30 minutes, a click that comes late and makes one visit of two, results on close,
and what closes the last visits when nobody clicks any more.

    streamlib broker topic clicks visits --partitions 1
    streamlib run examples/sessions.py
    streamlib produce clicks --json --recent --value json < examples/data/sessions/clicks.jsonl
    streamlib consume visits --from-beginning --max 4

With one partition the last click of the sample closes the visits of all before it; partitions have clocks of their own.
"""

import logging
from datetime import UTC, datetime, timedelta

import msgspec

from streamlib import EmitStrategy, LateRecord, SessionWindows, StreamsBuilder, Windowed

log = logging.getLogger(__name__)

VISITS = SessionWindows.of_inactivity_gap(timedelta(minutes=30), grace=timedelta(minutes=5))


class Click(msgspec.Struct):
    """A click as it is in the topic; its key is the visitor. `paid` is in cents, where somebody bought something."""

    page: str
    paid: int = 0


class Seen(msgspec.Struct, frozen=True):
    """What is known of a visit while it goes on."""

    clicks: int = 0
    pages: frozenset[str] = frozenset()
    paid: int = 0

    def plus(self, other: "Seen") -> "Seen":
        """Of both together."""
        return Seen(self.clicks + other.clicks, self.pages | other.pages, self.paid + other.paid)


class Visit(msgspec.Struct):
    """A visit that is over."""

    begin: datetime
    end: datetime
    clicks: int
    pages: int
    paid: int
    bought: bool


def add(_: str, click: Click, seen: Seen) -> Seen:
    """A visit with one more click."""
    return seen.plus(Seen(1, frozenset([click.page]), click.paid))


def merge(_: str, one: Seen, other: Seen) -> Seen:
    """A click between two visits makes one of them."""
    return one.plus(other)


def visit(window: Windowed[str], seen: Seen) -> tuple[str, Visit]:
    """What is told of it."""
    begin, end = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (window.start, window.end))
    return window.key, Visit(begin, end, seen.clicks, len(seen.pages), seen.paid, bought=seen.paid > 0)


def too_late(click: LateRecord[str, Click]) -> None:
    """The visit has been told. Metrics count these clicks, too."""
    log.warning("a click of %s came %d ms too late", click.key, click.stream_time - click.window.end)


def topology() -> StreamsBuilder:
    """Clicks in, visits out."""
    builder = StreamsBuilder()
    (
        builder.stream("clicks", key=str, value=Click)
        .filter_not(lambda _, click: click.page == "/health")
        .group_by_key()
        .windowed_by(VISITS, on_late=too_late, idle_timeout=timedelta(minutes=1))
        .emit_strategy(EmitStrategy.on_window_close())
        .aggregate(Seen, add, merge, value=Seen, store="visits")
        .to_stream()
        .map(visit)
        .to("visits")
    )
    return builder


config = {"application_id": "sessions", "processing_guarantee": "exactly_once_v2"}
