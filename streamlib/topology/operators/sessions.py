"""Folding streams into sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from streamlib.topology.operators.aggregations import StreamAggregate
from streamlib.windows import LateRecord, SessionWindows


class SessionFold(msgspec.Struct, frozen=True, kw_only=True):
    """Folds a stream into a table of sessions. A record that comes between sessions makes them one.

    Records with a null key are dropped; null values are folded like any other, as in Kafka Streams.

    Attributes:
        fold: what happens in a session. Its store has rows by key, session end and start.
        merger: makes one aggregate of two: `merger(key, one, other)`. The first may be what the initializer gave.
        windows: when a session ends, and how late a record may come.
        on_close: each session is emitted once, when it has closed; if not, at every change.
        on_late: told of each record that came after its session was closed.
        idle_timeout_ms: after so long without a record by the wall clock, stream time follows the wall clock.
    """

    fold: StreamAggregate
    merger: Callable[[Any, Any, Any], Any]
    windows: SessionWindows
    on_close: bool = False
    on_late: Callable[[LateRecord[Any, Any]], object] | None = None
    idle_timeout_ms: int | None = None

    @property
    def store(self) -> str:
        """The session store that keeps the aggregates."""
        return self.fold.store
