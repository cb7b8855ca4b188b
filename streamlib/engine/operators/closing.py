"""Emit on close: when stream time passes a window's end and grace, its row is emitted, once.

Windows are released in the order of their starts, then of their keys' bytes, after the record that moved stream time
was folded in. They are read from the store by their starts, even those that the store's retention hides by now, so that
a jump of stream time loses none; Kafka Streams loses them (`AbstractKStreamTimeWindowAggregateProcessor.fetchAndEmit`).
What was released follows from the operator's stream time, which is committed together with what it released.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from streamlib.engine.cursor import NO_TIME, StreamTime
from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.in_window import new_windowed
from streamlib.engine.operators.site import Site, user_error
from streamlib.records import Headers
from streamlib.state.codec import unpack_timestamp
from streamlib.state.window import WindowRows


class Closing(NamedTuple):
    """When windows close: one that starts at `start` when stream time reaches `start + delay_ms`.

    Attributes:
        delay_ms: the size and the grace.
        advance_ms: windows start at multiples of it.
        size_ms: how long windows are.
    """

    delay_ms: int
    advance_ms: int
    size_ms: int


class Release:
    """Emits the windows of one operator as they close. `due_ms` is the stream time at which the next one could."""

    def __init__(self, store: str, closing: Closing, site: Site) -> None:
        opened = site.store(store)
        self._rows: WindowRows = opened.rows
        self._decode_key, self._decode = opened.spec.key.decode, opened.spec.value.decode
        self._site = site
        self._closing = closing
        self._time = time = site.stream_time()
        self._next_start = 0  # the first start that has not been released
        if time.ms != NO_TIME:
            self._next_start = self._after(time)
        self.due_ms = self._next_start + closing.delay_ms

    def __call__(self, headers: Headers) -> None:
        """Emit what has closed since the last call."""
        first, self._next_start = self._next_start, self._after(self._time)
        self.due_ms = self._next_start + self._closing.delay_ms
        forward, size = self._site.forward, self._closing.size_ms
        for raw_key, start, row in self._rows.starting(first, self._next_start - 1):
            try:
                key, value = self._decode_key(raw_key), self._decode(row[8:])
            except Exception as error:
                raise user_error(self._site.name, raw_key, error) from error
            forward(new_windowed((key, start, start + size)), (value, None), unpack_timestamp(row)[0], headers)

    def first_due_ms(self) -> int | None:
        """The stream time at which the first window that waits closes; None if none waits."""
        first = self._rows.first_start(self._next_start)
        return None if first is None else first + self._closing.delay_ms

    def _after(self, time: StreamTime) -> int:
        """The first start of windows that are open."""
        advance = self._closing.advance_ms
        return max((time.ms - self._closing.delay_ms) // advance * advance + advance, 0)


class Due(Protocol):
    """What is released when the operator's stream time reaches `due_ms`."""

    due_ms: int

    def __call__(self, headers: Headers) -> None: ...


def released_when_closed(node: NodeFn, release: Due, site: Site) -> NodeFn:
    """The node, which folds records in silently, and after it what its record has closed."""
    time = site.stream_time()

    def closing(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        node(key, value, timestamp, headers)
        if time.ms >= release.due_ms:
            release(headers)

    return closing
