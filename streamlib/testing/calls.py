"""Runs what is awaited in an event loop of its own, one thing at a time, for a caller that waits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from streamlib.engine.calls import Answer, Call
from streamlib.topology.lifespans import Lifespan, opened

T = TypeVar("T")


class CallRunner:
    """An event loop, the same for all calls. Nothing else runs on it, so what a call does is repeatable.

    Args:
        lifespans: what is open on it between `open` and `close`.
    """

    def __init__(self, lifespans: Sequence[Lifespan] = ()) -> None:
        self._lifespans = lifespans
        self._opened: asyncio.Task[None] | None = None  # a task of its own: what is opened is closed by the same one
        self._closing = asyncio.Event()
        self._runner: asyncio.Runner | None = None
        self._thread: ThreadPoolExecutor | None = None

    def open(self) -> None:
        """Open what there is.

        Raises:
            LifespanError: that failed.
        """
        if self._lifespans:
            self._run(self._open())

    def answer(self, call: Call) -> Answer:
        """What becomes of the call. It begins at once, also where it would have to wait."""
        return self._run(_answer(call)) if call.awaited else Answer()

    def close(self) -> None:
        """Close what is open, and let go of the loop."""
        if self._opened is not None:
            self._run(self._close(self._opened))
        if self._thread is not None:
            if self._runner is not None:
                self._thread.submit(self._runner.close).result()
            self._thread.shutdown()
        elif self._runner is not None:
            self._runner.close()
        self._opened = self._runner = self._thread = None

    async def _open(self) -> None:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._opened = asyncio.create_task(self._keep_open(ready))
        await asyncio.wait((self._opened, ready), return_when=asyncio.FIRST_COMPLETED)
        if self._opened.done():
            opening, self._opened = self._opened, None
            await opening  # raises

    async def _keep_open(self, ready: asyncio.Future[None]) -> None:
        async with opened(self._lifespans):
            ready.set_result(None)
            await self._closing.wait()

    async def _close(self, opened: asyncio.Task[None]) -> None:
        self._closing.set()
        await opened

    def _run(self, what: Coroutine[Any, Any, T]) -> T:
        if self._runner is None:
            self._runner = asyncio.Runner()
        if self._thread is None and not _inside_a_loop():
            return self._runner.run(what)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "calls")
        return self._thread.submit(self._runner.run, what).result()


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
