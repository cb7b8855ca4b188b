"""When a slice of work is over. A look at the clock costs as much as a small node, and so does asking for one.

So the clock is looked at after 1, 2, 4, 8, 16 records as long as they are quick, and after each once they are not.
"""

from __future__ import annotations

from collections.abc import Callable

QUICK_MS = 0.2
MOST_RECORDS = 16


class SliceEnd:
    """The end of one slice, at `ends_ms`; implements `streamlib.engine.inputs.Slice`.

    >>> looks = iter(range(100))
    >>> end = SliceEnd(lambda: 0.1 * next(looks), ends_ms=1.0)
    >>> [number for number in range(1, 200) if end.passed(1)][0]
    111

    Attributes:
        left: how many records may be processed before anybody has to ask again.
        over: whether it was over when somebody looked last.
    """

    __slots__ = ("_clock_ms", "_ends_ms", "_looked_ms", "_stride", "left", "over")

    def __init__(self, clock_ms: Callable[[], float], ends_ms: float) -> None:
        self.left = 1
        self.over = False
        self._clock_ms = clock_ms
        self._ends_ms = ends_ms
        self._looked_ms = clock_ms()
        self._stride = 1

    def passed(self, records: int) -> bool:
        """So many more records are processed; returns whether the slice is over by now."""
        self.left -= records
        if self.left <= 0 and not self.over:
            self._look()
        return self.over

    def _look(self) -> None:
        now_ms = self._clock_ms()
        self._stride = min(2 * self._stride, MOST_RECORDS) if now_ms - self._looked_ms < QUICK_MS else 1
        self.left, self._looked_ms = self._stride, now_ms
        self.over = now_ms >= self._ends_ms
