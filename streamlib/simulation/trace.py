"""What happened, in order: enough to see two runs differ, and to read how a violation came about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from zlib import crc32

from streamlib.errors import ErrorCode
from streamlib.kafka.protocol.request import Request
from streamlib.simulation.cluster.basics import Body


class Event(NamedTuple):
    """One line; what belongs to a request is put into words only when somebody reads it."""

    at_ms: float
    what: str
    request: Request | None = None
    body: Body | None = None


class Trace:
    """Collects events. The digest is the same for two runs exactly when they did the same things at the same times."""

    def __init__(self, now_ms: Callable[[], float]) -> None:
        self._now_ms = now_ms
        self._events: list[Event] = []
        self._digest = 0

    @property
    def digest(self) -> str:
        """Eight hex digits."""
        return f"{self._digest:08x}"

    def request(self, host: str, broker: int, request: Request) -> None:
        self._add(f"{host} -> broker {broker}", request)

    def reply(self, host: str, broker: int, request: Request, body: Body) -> None:
        self._add(f"{host} <- broker {broker}", request, body)

    def lost(self, host: str, broker: int, request: Request, what: str) -> None:
        self._add(f"{host} -- broker {broker}: the {what} is lost", request)

    def note(self, what: str) -> None:
        """Anything else."""
        self._add(what)

    def lines(self) -> Iterator[str]:
        """The events in words."""
        for event in self._events:
            request = "" if event.request is None else f" {event.request!r} {_told(event)}"
            yield f"{event.at_ms:11.3f} ms  {event.what}{request}"

    def _add(self, what: str, request: Request | None = None, body: Body | None = None) -> None:
        now_ms = self._now_ms()
        name = "" if request is None else request.api.name
        self._digest = crc32(f"{now_ms!r} {what} {name}".encode(), self._digest)
        self._events.append(Event(now_ms, what, request, body))


_TOLD = (
    "transactional_id",
    "producer_id",
    "producer_epoch",
    "committed",
    "generation_id",
    "member_id",
    "base_offset",
    "fetch_offset",
    "committed_offset",
    "name",
    "topic",
    "partition",
    "partition_index",
    "index",
    "offset",
)


def _told(event: Event) -> str:
    """What identifies a request, or the errors of an answer."""
    assert event.request is not None
    if event.body is None:
        return " ".join(_pairs(event.request.content))
    codes = sorted({ErrorCode(code).name for code in codes_of(event.body)})
    return ", ".join(codes) if codes else " ".join(_pairs(event.body))


def _pairs(body: Any, depth: int = 0) -> Iterator[str]:
    if depth > 5:
        return
    if isinstance(body, list | tuple):
        for item in body:
            yield from _pairs(item, depth + 1)
    elif hasattr(body, "items"):
        for name, value in body.items():
            if name in _TOLD and not isinstance(value, list | tuple):
                yield f"{name}={value}"
            elif isinstance(value, list | tuple):
                yield from _pairs(value, depth + 1)


def codes_of(body: Any) -> Iterator[int]:
    """All error codes in an answer."""
    if isinstance(body, list | tuple):
        for item in body:
            yield from codes_of(item)
    elif hasattr(body, "items"):
        for name, value in body.items():
            if name == "error_code" and value:
                yield value
            elif isinstance(value, list | tuple):
                yield from codes_of(value)
