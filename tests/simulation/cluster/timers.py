"""Time that a test moves by hand."""

from __future__ import annotations

from collections.abc import Callable


class HandTimer:
    """One thing that is due at `at_ms`."""

    def __init__(self, at_ms: float, action: Callable[[], None]) -> None:
        self.at_ms = at_ms
        self.action = action
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class HandTimers:
    """Implements `streamlib.simulation.cluster.basics.Timers`; nothing happens but by `advance`, `run_soon`, `settle`.

    What is due at a time happens in the order of times, and of asking within one time. What happens `soon` waits
    until the test asks for it, in an order the test may choose.
    """

    def __init__(self, now_ms: float = 1_000_000.0) -> None:
        self._now_ms = now_ms
        self._later: list[HandTimer] = []
        self._soon: list[HandTimer] = []

    def now_ms(self) -> float:
        return self._now_ms

    def call_later(self, delay_ms: float, action: Callable[[], None]) -> HandTimer:
        assert delay_ms >= 0, "a timer is in the future"
        timer = HandTimer(self._now_ms + delay_ms, action)
        self._later.append(timer)
        return timer

    def soon(self, action: Callable[[], None]) -> HandTimer:
        timer = HandTimer(self._now_ms, action)
        self._soon.append(timer)
        return timer

    @property
    def waiting_soon(self) -> int:
        """How many things wait to happen soon."""
        return len(self._live_soon())

    def run_soon(self, index: int = 0) -> None:
        """Let the one at this place happen, in the order in which they were asked for; negative counts from the end."""
        timer = self._live_soon()[index]
        self._soon.remove(timer)
        timer.action()

    def settle(self, choose: Callable[[int], int] = lambda count: 0) -> None:
        """Let all of them happen, also those that come up on the way; `choose(count)` gives the place of the next."""
        while count := self.waiting_soon:
            self.run_soon(choose(count))

    def advance(self, ms: float) -> None:
        """Let so much time go by; what is due in it happens. What happens `soon` does not."""
        end_ms = self._now_ms + ms
        while (timer := self._next_due(end_ms)) is not None:
            self._later.remove(timer)
            self._now_ms = max(self._now_ms, timer.at_ms)
            timer.action()
        self._now_ms = end_ms

    def _live_soon(self) -> list[HandTimer]:
        return [timer for timer in self._soon if not timer.cancelled]

    def _next_due(self, end_ms: float) -> HandTimer | None:
        due = [timer for timer in self._later if not timer.cancelled and timer.at_ms <= end_ms]
        return min(due, key=lambda timer: timer.at_ms, default=None)
