"""Windows that close although nothing comes any more.

    record --> base: the operator's stream time, and when it came by the wall clock
    no record for the timeout, and a window is open --> stream time = base + what has passed since by the wall clock

Stream time is moved only when that closes a window, and no further than time has really passed, so that records which
come on time after the silence are not late. The new stream time is committed with what it released: it stays so after a
restart. The wall clock starts anew then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from streamlib.dsl.processor import PunctuationType
from streamlib.engine.cursor import NO_TIME
from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.site import Site
from streamlib.records import Headers


class Closable(Protocol):
    """Results that wait for stream time."""

    def __call__(self, headers: Headers) -> None:
        """Emit what the operator's stream time has closed."""
        ...

    def first_due_ms(self) -> int | None:
        """The stream time at which the first that waits is closed; None if none waits."""
        ...


def closed_when_idle(node: NodeFn, results: Closable, timeout_ms: int, site: Site) -> NodeFn:
    """The node, after which results are also released by the wall clock when no record has come for `timeout_ms`."""
    heard = _Silence(results, timeout_ms, site).heard

    def listening(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        heard()
        node(key, value, timestamp, headers)

    return listening


class _Silence:
    """Watches one operator. `_base_ms`: its stream time when the silence began, once it is long enough to count."""

    def __init__(self, results: Closable, timeout_ms: int, site: Site) -> None:
        self._results = results
        self._timeout_ms = timeout_ms
        self._site = site
        self._time = site.stream_time()
        self._now_ms: Callable[[], int] = site.work.facts.now_ms
        self._since_ms = self._now_ms()
        self._base_ms: int | None = None
        self._check_at(self._since_ms + timeout_ms)

    def heard(self) -> None:
        """A record has come."""
        self._since_ms = self._now_ms()
        self._base_ms = None

    def _check_at(self, due_ms: int) -> None:
        self._schedule = self._site.schedule(PunctuationType.WALL_CLOCK_TIME, self._timeout_ms, self._check, due_ms)

    def _check(self, now_ms: int) -> None:
        """Release what is due, and come back when the next is, or when the silence is long enough."""
        if self._site.work.behind():
            self.heard()  # there are records, they only have not come through yet
        if now_ms - self._since_ms >= self._timeout_ms:
            self._release(now_ms)
        self._schedule.cancel()
        self._check_at(max(self._next_ms(now_ms), now_ms + 1))

    def _release(self, now_ms: int) -> None:
        if self._base_ms is None:
            self._base_ms = self._time.ms
        due_ms = self._results.first_due_ms()
        moved_ms = self._base_ms + now_ms - self._since_ms
        if self._base_ms != NO_TIME and due_ms is not None and due_ms <= moved_ms:
            self._time.ms = moved_ms
            self._results(())

    def _next_ms(self, now_ms: int) -> int:
        """When to look again, by the wall clock."""
        long_enough_ms = self._since_ms + self._timeout_ms
        if now_ms < long_enough_ms:
            return long_enough_ms
        due_ms = self._results.first_due_ms()
        if due_ms is None or self._base_ms is None or self._base_ms == NO_TIME:
            return now_ms + self._timeout_ms
        return self._since_ms + due_ms - self._base_ms
