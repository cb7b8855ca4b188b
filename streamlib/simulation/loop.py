"""An event loop in virtual time, on which whole processes can be killed and frozen.

Time passes only when nobody has anything left to do: then it jumps to the next timer. What is ready at one moment runs
in an order that the seed decides. So a run is a function of its seed, and hours of timeouts cost milliseconds.

    every handle belongs to a process      through its context: whatever a process starts, is the process's
    a killed process                       its handles are dropped. Nothing of it runs again, no `finally` either: that
                                           is what SIGKILL means, and what cancelling its tasks would not be
    a frozen process                       its handles wait, timers too; the rest of the world goes on without it
    a busy process                         the same until it is done (`Process.busy_until_s`): work that takes time

What is ready is put in order of task creation before it is shuffled: anyio keeps tasks in sets, whose order is another
one in each run of the interpreter.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import warnings
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

T = TypeVar("T")

MOST_TURNS_AT_ONCE = 100_000
"""So many turns without any time going by: somebody waits for something by asking again and again."""


class Process:
    """A piece of the world that can be killed or frozen as a whole."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.frozen = False
        self.busy_until_s = 0.0
        self.waits = False  # a timer is set for when it is busy no more
        self._held: list[asyncio.Handle] = []

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def kill(self) -> None:
        """Nothing of it runs again."""
        self.alive = False
        self._held.clear()

    def freeze(self) -> None:
        """Nothing of it runs until `thaw`."""
        self.frozen = True

    def hold(self, handle: asyncio.Handle) -> None:
        """Keep what became due meanwhile."""
        self._held.append(handle)

    def thaw(self) -> list[asyncio.Handle]:
        """What is due by now."""
        self.frozen = False
        held, self._held = self._held, []
        return held


_PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


class LivelockError(Exception):
    """The processes keep each other busy, and no time goes by."""


class _Task(asyncio.Task[T]):
    """A task that knows when it was created."""

    __slots__ = ("number",)
    number: int


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """The loop. `rng` decides the order of what is ready at the same time."""

    # What BaseEventLoop keeps.
    _ready: deque[Any]
    _stopping: bool

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._now_s = 0.0
        self._rng = rng
        self._world = Context()
        # A heap. The numbers let timers of one moment go off in order, and keep handles from being compared.
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()
        self._timer_numbers = itertools.count()
        self._turns = 0  # since time last went on
        self._tasks: list[_Task[Any]] = []  # all there ever were: a killed one must not be collected, that would run it
        self.failures: list[str] = []
        self.set_task_factory(self._new_task)  # type: ignore[arg-type]
        self.set_exception_handler(self._failed)

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._now_s

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call something at a time, in seconds."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._timer_numbers), handle))
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call something after so many seconds."""
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def start(self, process: Process, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Run `work`, and whatever it starts, as part of the process."""
        return self.create_task(work(), context=_context_of(process))

    def signal(self, process: Process, handler: Callable[[], None]) -> None:
        """Call something inside the process: not before it wakes up, and not at all once it has been killed."""
        self.call_soon(handler, context=_context_of(process))

    def thaw(self, process: Process) -> None:
        """Let a frozen process go on."""
        for handle in process.thaw():
            self._ready.append(handle)

    def finish(self) -> None:
        """Let go of everything, quietly: what was left in the middle ends here, after all has been looked at."""
        self.set_exception_handler(lambda loop, context: None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of tasks that were killed before their first step
            for task in self._tasks:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                if not task.done():
                    with suppress(BaseException):
                        task.get_coro().close()
        self._ready.clear()
        self._timers.clear()
        self._tasks.clear()
        self.close()

    def _new_task(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        task = _Task(coro, loop=loop, **options)  # from Python 3.13.3 on there is more than `context` among them
        task.number = next(self._numbers)
        self._tasks.append(task)
        return task

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Something raised where nobody hears it: a defect."""
        self.failures.append(f"{context.get('message')}: {context.get('exception')!r}")

    # What BaseEventLoop asks of a loop

    def _run_once(self) -> None:
        """One turn: all that is ready, or else the next timer."""
        ready, timers = self._ready, self._timers
        if not ready and not self._stopping:
            self._wait_for_timer()
        while timers and timers[0][0] <= self._now_s:
            ready.append(heapq.heappop(timers)[2])
        self._turns += 1
        if self._turns > MOST_TURNS_AT_ONCE:
            raise LivelockError(f"{MOST_TURNS_AT_ONCE} turns at {self._now_s:.3f} s and no time goes by")
        turn = list(ready)
        ready.clear()
        for handle in turn if len(turn) == 1 else self._shuffled(turn):
            if handle._cancelled:
                continue
            process = handle._context.get(_PROCESS)  # type: ignore[union-attr]
            if process is None:
                handle._run()
            else:
                self._run(process, handle)

    def _run(self, process: Process, handle: asyncio.Handle) -> None:
        if process.alive and not process.frozen and process.busy_until_s <= self._now_s:
            handle._run()
        elif process.alive:
            process.hold(handle)
            self._wait_for(process)

    def _wait_for(self, process: Process) -> None:
        if process.frozen or process.waits:
            return
        process.waits = True
        self.call_at(process.busy_until_s, self._no_longer_busy, process, context=self._world)

    def _no_longer_busy(self, process: Process) -> None:
        process.waits = False
        if process.alive and not process.frozen:
            self.thaw(process)

    def _wait_for_timer(self) -> None:
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not timers:
            raise LivelockError(f"nothing will ever happen again after {self._now_s:.3f} s")
        if timers[0][0] > self._now_s:
            self._now_s = timers[0][0]
            self._turns = 0

    def _shuffled(self, turn: list[asyncio.Handle]) -> list[asyncio.Handle]:
        """Tasks in an order that the seed decides; plain callbacks stay where they are."""
        numbered = [(_task_number(handle), place) for place, handle in enumerate(turn)]
        places = [place for number, place in numbered if number >= 0]
        if len(places) > 1:
            steps = [turn[place] for number, place in sorted(numbered) if number >= 0]
            self._rng.shuffle(steps)
            for place, handle in zip(places, steps, strict=True):
                turn[place] = handle
        return turn

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are passed over when their time comes."""

    def _write_to_self(self) -> None:
        """There is no other thread."""

    def _process_events(self, event_list: Any) -> None:
        """There are no sockets."""


def _context_of(process: Process) -> Context:
    context = copy_context()
    context.run(_PROCESS.set, process)
    return context


def _task_number(handle: asyncio.Handle) -> int:
    task = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]
    return task.number if isinstance(task, _Task) else -1
