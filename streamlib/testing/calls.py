"""Runs functions that are awaited one at a time, to their end, for a caller that waits."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from streamlib.engine.calls import Answer, Call


class CallRunner:
    """An event loop of its own, the same for all calls. Nothing else runs on it, so what a call does is repeatable."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None
        self._thread: ThreadPoolExecutor | None = None

    def answer(self, call: Call) -> Answer:
        """What becomes of the call. It begins at once, also where it would have to wait."""
        if not call.awaited:
            return Answer()
        if self._runner is None:
            self._runner = asyncio.Runner()
        if not _inside_a_loop():
            return self._runner.run(_answer(call))
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "calls")
        return self._thread.submit(self._runner.run, _answer(call)).result()

    def close(self) -> None:
        """Let go of the loop."""
        if self._thread is not None:
            if self._runner is not None:
                self._thread.submit(self._runner.close).result()
            self._thread.shutdown()
        elif self._runner is not None:
            self._runner.close()
        self._runner = self._thread = None


def _inside_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _answer(call: Call) -> Answer:
    if call.timeout_ms is None:
        return await call.answer()
    try:
        return await asyncio.wait_for(call.answer(), call.timeout_ms / 1000)
    except TimeoutError:
        return Answer(error=TimeoutError(f"no answer within {call.timeout_ms / 1000:g} s"))
