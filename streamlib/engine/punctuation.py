"""Punctuation: functions of processors and operators that are called when time has come to a point.

    schedule --> queue by due time --advance(now)--> called once with `now` --> due again at the next multiple ahead

Stream time moves with records: its punctuators run after the record that made them due, before the next one. The wall
clock moves by itself: the task's driver says when it has. A punctuator that was due several times is called once
(Kafka Streams' `PunctuationQueue`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from streamlib.dsl.processor import PunctuationType
from streamlib.engine.cursor import END_OF_TIME, NO_TIME, Cursor
from streamlib.errors import ProcessingError, StreamsError

Punctuator: TypeAlias = Callable[[int], object]
"""f(stream time or wall clock in ms); errors it raises name their node."""


class Schedule:
    """One punctuator. `cancel` may be called at any time, by the punctuator itself, too."""

    __slots__ = ("_cancelled", "interval_ms", "punctuator")

    def __init__(self, interval_ms: int, punctuator: Punctuator) -> None:
        self.interval_ms = interval_ms
        self.punctuator = punctuator
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """Whether it is not called any more."""
        return self._cancelled

    def cancel(self) -> None:
        """Never call it again; harmless when repeated."""
        self._cancelled = True


class Timeline:
    """The punctuators of one kind of time, in the order they are due.

    A binary heap. Equal ones come in the order that java.util.PriorityQueue gives them, and so Kafka Streams: the
    heap is its, step by step (Python's own moves equal ones differently).
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, Schedule]] = []  # no entry is due before the one at half its place

    @property
    def due_ms(self) -> int:
        """When the first is due, cancelled or not; `END_OF_TIME` if there is none."""
        return self._heap[0][0] if self._heap else END_OF_TIME

    def advance(self, now_ms: int) -> int:
        """Call what is due; returns how many were."""
        called = 0
        while self.due_ms <= now_ms:
            due_ms, schedule = self._pop()
            if schedule.cancelled:
                continue
            schedule.punctuator(now_ms)
            called += 1
            if not schedule.cancelled:
                self.add(next_due(due_ms, schedule.interval_ms, now_ms), schedule)
        return called

    def add(self, due_ms: int, schedule: Schedule) -> None:
        """Have it called when `due_ms` is reached."""
        heap = self._heap
        heap.append((due_ms, schedule))
        place = len(heap) - 1
        while place > 0 and due_ms < heap[above := (place - 1) // 2][0]:
            heap[place], heap[above] = heap[above], heap[place]
            place = above

    def _pop(self) -> tuple[int, Schedule]:
        """Take the first; the last goes to its place, and down from there."""
        heap = self._heap
        first, last = heap[0], heap.pop()
        if not heap:
            return first
        heap[0], place = last, 0
        while (below := 2 * place + 1) < len(heap):
            if below + 1 < len(heap) and heap[below][0] > heap[below + 1][0]:
                below += 1
            if last[0] <= heap[below][0]:
                break
            heap[place], heap[below] = heap[below], heap[place]
            place = below
        return first


def next_due(due_ms: int, interval_ms: int, now_ms: int) -> int:
    """The first multiple of the interval from `due_ms` on that is ahead of `now_ms`.

    >>> next_due(0, 10, 42)
    50
    """
    return due_ms + max((now_ms - due_ms) // interval_ms + 1, 0) * interval_ms


class Punctuation:
    """The punctuators of one task. If one raises, `skip` is told, and all goes on; None: it is an error.

    While a task starts, `schedule` goes on where it was: punctuators of stream time that the committed records had made
    due have run before the restart, and are not repeated (Kafka Streams calls each once more).
    """

    def __init__(
        self, cursor: Cursor, now_ms: Callable[[], int], skip: Callable[[StreamsError], None] | None = None
    ) -> None:
        self._cursor = cursor
        self._now_ms = now_ms
        self._skip = skip
        self._passed_ms = cursor.stream_time  # what is due up to here has run
        self._stream_time = Timeline()
        self._wall_clock = Timeline()

    def started(self) -> None:
        """From now on, what is due is due: stream time's punctuators begin with the record in process."""
        self._passed_ms = NO_TIME

    def schedule(
        self, kind: PunctuationType, interval_ms: int, punctuator: Punctuator, start_ms: int | None = None
    ) -> Schedule:
        """Have a function called at `start_ms` and every interval from there.

        Without a start it is called as soon as there is a stream time, then whenever that passes a multiple of the
        interval; or one interval from now on the wall clock, and so on.
        """
        schedule = Schedule(interval_ms, punctuator if self._skip is None else _skipping(punctuator, self._skip))
        if kind is PunctuationType.WALL_CLOCK_TIME:
            self._wall_clock.add(self._now_ms() + interval_ms if start_ms is None else start_ms, schedule)
            return schedule
        self._stream_time.add(next_due(start_ms or 0, interval_ms, self._passed_ms), schedule)
        self._cursor.punctuation_due_ms = self._stream_time.due_ms
        return schedule

    def advance_stream_time(self) -> int:
        """Call what stream time has made due; returns how many were."""
        self._leave_record()
        called = self._stream_time.advance(self._cursor.stream_time)
        self._cursor.punctuation_due_ms = self._stream_time.due_ms
        return called

    def advance_wall_clock(self, now_ms: int) -> int:
        """Call what the wall clock has made due; returns how many were."""
        if self._wall_clock.due_ms > now_ms:
            return 0
        self._leave_record()
        return self._wall_clock.advance(now_ms)

    @property
    def wall_clock_due_ms(self) -> int | None:
        """When the wall clock will make one due; None if there is none."""
        due_ms = self._wall_clock.due_ms
        return None if due_ms == END_OF_TIME else due_ms

    def _leave_record(self) -> None:
        """No record is in process: metadata and errors must not name the last one."""
        self._cursor.partition = self._cursor.record = None


def _skipping(punctuator: Punctuator, skip: Callable[[StreamsError], None]) -> Punctuator:
    def guarded(now_ms: int) -> None:
        try:
            punctuator(now_ms)
        except ProcessingError as error:
            skip(error)

    return guarded
