"""A level-triggered wake-up for one waiter."""

from __future__ import annotations

import anyio


class Wakeup:
    """`set` may come before or during `wait`; either way the waiter runs once and clears it."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        """Wake the waiter, now or when it comes."""
        self._event.set()

    async def wait(self, timeout_ms: float | None = None) -> None:
        """Return when set, or after the timeout; the signal is clear afterwards."""
        if not self._event.is_set():
            with anyio.move_on_after(None if timeout_ms is None else max(timeout_ms, 0) / 1000):
                await self._event.wait()
        self._event = anyio.Event()
