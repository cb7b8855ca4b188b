"""Awaits what functions of operators have been called for, beside the worker's loop.

    Task.take_calls --start--> an asyncio task each --> answers --take_answers--> Task.finish
                        +----> a timer, if the call has to wait before it starts

A record that is to be tried again has to wait; if its function is not awaited, that it has waited is all of the answer.
Where a commit waits for it, that is bounded: when half of the bound is over it is tried for the last time.

Nothing here touches a task: answers wait until the worker's loop takes them. A call that takes too long has its answer
at that moment, however long its function goes on; the function is cancelled. Time counts as far as the process runs: a
stopped one is not to find that all its calls have failed.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable

import msgspec

from streamlib.engine.calls import Answer, Call, Wait
from streamlib.engine.task import Task
from streamlib.records import TopicPartition
from streamlib.runtime.wakeup import Wakeup

log = logging.getLogger(__name__)

CANCEL_PATIENCE_S = 2
"""How long functions that were cancelled may go on, before nobody waits for them any more."""

TICKS = 8
"""A time limit is so many ticks of the loop's clock."""

LEAST_PATIENCE_MS = 100
"""So long a call may take that is tried for the last time."""

LATE_S = 0.05
"""A tick that comes so late does not count: the process, or its loop, has stood still."""


class _UnderWay(msgspec.Struct):
    """A call that has no answer yet."""

    task: Task
    call: Call
    since_s: float = 0.0  # when it was begun
    alarm: asyncio.TimerHandle | None = None
    ticks: int = 0


class _Hold(msgspec.Struct):
    """The time since which a task has had calls that commits wait for."""

    number: int
    since_s: float


class CallsUnderWay:
    """The calls of one worker.

    Args:
        wakeup: set when there is an answer.
        longest_hold_ms: how long calls may take that commits wait for, whatever their operators say.
    """

    def __init__(self, wakeup: Wakeup, longest_hold_ms: float) -> None:
        self._wakeup = wakeup
        self._longest_hold_ms = longest_hold_ms
        self._under_way: dict[asyncio.Task[Answer], _UnderWay] = {}
        self._waiting: dict[Call, _UnderWay] = {}  # until they start
        self._holds: dict[Task, _Hold] = {}
        self._answers: list[tuple[Task, Call, Answer]] = []
        self._cancelled: set[asyncio.Task[Answer]] = set()  # those that have not ended

    def __len__(self) -> int:
        return len(self._under_way) + len(self._waiting)

    @property
    def oldest(self) -> tuple[Call, float] | None:
        """The call that is under way for the longest, and for how many ms; None if there is none."""
        first = next(iter(self._under_way.values()), None)
        return None if first is None else (first.call, (asyncio.get_running_loop().time() - first.since_s) * 1000)

    @property
    def resting(self) -> set[TopicPartition]:
        """Inputs with records that wait to be tried again."""
        return {call.read_at[0] for call in self._waiting if call.read_at is not None}

    @property
    def answered(self) -> bool:
        """Whether there are answers to take."""
        return bool(self._answers)

    def start(self, task: Task) -> None:
        """Begin what may begin."""
        for call in task.take_calls():
            each = _UnderWay(task, call)
            if call.holds_commit:
                self._note_hold(each)
            if call.wait is None:
                self._begin(each)
            else:
                self._begin_later(each, call.wait)

    def take_answers(self) -> list[tuple[Task, Call, Answer]]:
        """Answers since the last call, in the order they came."""
        answers, self._answers = self._answers, []
        return answers

    async def cancel(self, tasks: Iterable[Task] | None = None) -> None:
        """Let go of the calls of these tasks, or of all: nothing of them goes on.

        Their functions are cancelled and waited for, but not for ever.
        """
        dropped = None if tasks is None else {id(task) for task in tasks}
        self._answers = [answer for answer in self._answers if dropped is not None and id(answer[0]) not in dropped]
        for call, each in list(self._waiting.items()):
            if dropped is None or id(each.task) in dropped:
                del self._waiting[call]
                if each.alarm is not None:
                    each.alarm.cancel()
        self._holds = {
            task: hold for task, hold in self._holds.items() if dropped is not None and id(task) not in dropped
        }
        ended = [running for running, each in self._under_way.items() if dropped is None or id(each.task) in dropped]
        for running in ended:
            self._cancel(running)
        if not ended:
            return
        _, going_on = await asyncio.wait(ended, timeout=CANCEL_PATIENCE_S)
        if going_on:
            log.warning(
                "%d calls were cancelled and go on all the same; what they return is thrown away", len(going_on)
            )

    def _begin(self, each: _UnderWay) -> None:
        if not each.call.awaited:
            self._answer(each, Answer())
            return
        running = asyncio.create_task(each.call.answer())
        self._under_way[running] = each
        each.since_s = running.get_loop().time()
        self._set_alarm(running, each)
        running.add_done_callback(self._done)

    def _begin_later(self, each: _UnderWay, wait: Wait) -> None:
        delay_ms = wait.delay_ms * random.uniform(1 - wait.jitter, 1)
        if each.call.holds_commit and delay_ms > (most_ms := max(self._left_to_hold_ms(each) / 2, 0)):
            delay_ms, each.call.last = most_ms, True

        self._waiting[each.call] = each
        each.alarm = asyncio.get_running_loop().call_later(delay_ms / 1000, self._end_wait, each)

    def _end_wait(self, each: _UnderWay) -> None:
        del self._waiting[each.call]
        each.alarm = None
        self._begin(each)

    def _note_hold(self, each: _UnderWay) -> None:
        hold = self._holds.get(each.task)
        if hold is None or hold.number != each.call.hold:
            self._holds[each.task] = _Hold(each.call.hold, asyncio.get_running_loop().time())

    def _left_to_hold_ms(self, each: _UnderWay) -> float:
        """For how much longer calls of this task may be tried again that a commit waits for."""
        held_s = asyncio.get_running_loop().time() - self._holds[each.task].since_s
        return self._longest_hold_ms - held_s * 1000

    def _set_alarm(self, running: asyncio.Task[Answer], each: _UnderWay) -> None:
        limits = (each.call.timeout_ms, self._hold_limit_ms(each) if each.call.holds_commit else None)
        limit_ms = min((limit for limit in limits if limit is not None), default=None)
        if limit_ms is not None:
            self._next_tick(running, each, limit_ms)

    def _hold_limit_ms(self, each: _UnderWay) -> float:
        """What is tried again has what is left of it."""
        return self._longest_hold_ms if each.call.wait is None else max(self._left_to_hold_ms(each), LEAST_PATIENCE_MS)

    def _next_tick(self, running: asyncio.Task[Answer], each: _UnderWay, limit_ms: float) -> None:
        each.alarm = asyncio.get_running_loop().call_later(limit_ms / TICKS / 1000, self._tick, running, limit_ms)

    def _tick(self, running: asyncio.Task[Answer], limit_ms: float) -> None:
        if running.done():
            return  # at this moment: `_done` is about to be called
        each = self._under_way[running]
        assert each.alarm is not None, "a tick that nobody asked for"
        if asyncio.get_running_loop().time() - each.alarm.when() < LATE_S:
            each.ticks += 1
        if each.ticks < TICKS:
            self._next_tick(running, each, limit_ms)
            return
        self._cancel(running)
        text = f"no answer within {limit_ms / 1000:g} s"
        if limit_ms != each.call.timeout_ms:
            text += ", half of transaction_timeout_ms, and the transaction has to wait for it"
        self._answer(each, Answer(error=TimeoutError(text)))

    def _cancel(self, running: asyncio.Task[Answer]) -> _UnderWay | None:
        each = self._under_way.pop(running, None)
        if each is None:
            return None
        if each.alarm is not None:
            each.alarm.cancel()
        running.cancel()
        self._cancelled.add(running)
        return each

    def _done(self, running: asyncio.Task[Answer]) -> None:
        each = self._under_way.pop(running, None)
        if each is None:
            self._cancelled.discard(running)
            if not running.cancelled():
                running.exception()  # nobody asks for it, and nobody is to be told that
            return
        if each.alarm is not None:
            each.alarm.cancel()
        self._answer(each, _answer_of(running))

    def _answer(self, each: _UnderWay, answer: Answer) -> None:
        self._answers.append((each.task, each.call, answer))
        self._wakeup.set()


def _answer_of(running: asyncio.Task[Answer]) -> Answer:
    if running.cancelled():
        return Answer(error=RuntimeError("the function was cancelled, by something it called"))
    error = running.exception()
    if error is not None:
        return Answer(error=RuntimeError(f"the function ended with {error!r}"))
    return running.result()
