"""Folding streams into windows of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from streamlib.topology.operators.aggregations import StreamAggregate, StreamCount, StreamReduce
from streamlib.windows import LateRecord, SlidingWindows, TimeWindows, UnlimitedWindows


class WindowedFold(msgspec.Struct, frozen=True, kw_only=True):
    """Folds a stream into a table of windows: each record goes into all windows it belongs to and that are open.

    Attributes:
        fold: what happens in a window. Its store has rows by key and window start. Other than without windows, null
            values are folded like any other, but in sliding windows.
        windows: which windows a record belongs to.
        on_close: each window is emitted once, when it has closed; if not, at every change.
        on_late: told of each window that was closed when a record came for it.
        idle_timeout_ms: after so long without a record by the wall clock, stream time follows the wall clock.
    """

    fold: StreamAggregate | StreamReduce | StreamCount
    windows: TimeWindows | UnlimitedWindows | SlidingWindows
    on_close: bool = False
    on_late: Callable[[LateRecord[Any, Any]], object] | None = None
    idle_timeout_ms: int | None = None

    @property
    def store(self) -> str:
        """The window store that keeps the aggregates."""
        return self.fold.store
