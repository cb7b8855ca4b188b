"""Counts and times what a worker does: once for each slice, commit or call of it, and never for a record.

    worker's loop --record--> Timing --once a second--> its history --asked--> rates, averages, extremes

Rates and averages are those of the last half minute, as in Kafka Streams (`metrics.sample.window.ms`). Time is that of
the machine even where that of the worker is virtual: what is measured decides nothing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import NamedTuple

from streamlib.engine.task import Task
from streamlib.records import OutRecord, TaskId, TopicPartition
from streamlib.runtime.sampling import Sampling
from streamlib.runtime.transaction import Committer, Work

HISTORY = 30
"""So many looks, one a second, are remembered."""


SHORTEST_MS = 1_000
"""What has just begun is not said to go on like this."""


class _Look(NamedTuple):
    """What was there at some time; the extremes are those since the look before."""

    at_ms: float
    times: float
    total: float
    least: float
    most: float


class Timing:
    """How often something happened, and how long it took (or how large it was), in ms.

    Counts since the start; everything else of the last half minute. What nothing can be said of is None.
    """

    __slots__ = ("_history", "_least", "_most", "count", "total")

    def __init__(self, now_ms: float) -> None:
        self.count = 0.0
        self.total = 0.0
        self._least, self._most = math.inf, -math.inf
        self._history: deque[_Look] = deque([_Look(now_ms, 0, 0, math.inf, -math.inf)], maxlen=HISTORY)

    def record(self, took: float, count: int = 1) -> None:
        """It happened so many times, which took so long together."""
        self.count += count
        self.total += took
        each = took / count if count else took
        if each > self._most:
            self._most = each
        if each < self._least:
            self._least = each

    def go_on(self, took: float) -> None:
        """What was recorded before has taken so much longer."""
        self.total += took

    def look(self, now_ms: float) -> None:
        """Remember how it is now."""
        self._history.append(_Look(now_ms, self.count, self.total, self._least, self._most))
        self._least, self._most = math.inf, -math.inf

    def rate(self, now_ms: float) -> float:
        """How often in a second."""
        return self._by_time(self.count - self._history[0].times, now_ms, 1000)

    def ratio(self, now_ms: float) -> float:
        """Which part of the time it took."""
        return self._by_time(self.total - self._history[0].total, now_ms, 1)

    @property
    def average(self) -> float | None:
        """How long each took."""
        count = self.count - self._history[0].times
        return (self.total - self._history[0].total) / count if count else None

    @property
    def most(self) -> float | None:
        """The longest."""
        most = max(self._most, *(look.most for look in self._history))
        return most if math.isfinite(most) else None

    @property
    def least(self) -> float | None:
        """The shortest."""
        least = min(self._least, *(look.least for look in self._history))
        return least if math.isfinite(least) else None

    def _by_time(self, difference: float, now_ms: float, per_ms: float) -> float:
        return difference / max(now_ms - self._history[0].at_ms, SHORTEST_MS) * per_ms


class TaskMeter:
    """What is measured of one task while it runs here."""

    __slots__ = ("dropped", "e2e", "process")

    def __init__(self, now_ms: float) -> None:
        self.process = Timing(now_ms)
        self.e2e = Timing(now_ms)
        self.dropped = Timing(now_ms)

    def timings(self) -> tuple[Timing, ...]:
        return self.process, self.e2e, self.dropped


class StoreMeter:
    """What is measured of one store of a task."""

    __slots__ = ("flush", "get", "put", "range")

    def __init__(self, now_ms: float) -> None:
        self.get = Timing(now_ms)
        self.range = Timing(now_ms)
        self.put = Timing(now_ms)
        self.flush = Timing(now_ms)

    def timings(self) -> tuple[Timing, ...]:
        return self.get, self.range, self.put, self.flush


def _machine_ms() -> float:
    return perf_counter() * 1000


class Meter:
    """What is measured of one worker.

    Args:
        elapsed_ms: a clock that never goes back.
    """

    def __init__(self, elapsed_ms: Callable[[], float] = _machine_ms) -> None:
        self.elapsed_ms = elapsed_ms
        now_ms = elapsed_ms()
        self.process = Timing(now_ms)
        self.punctuate = Timing(now_ms)
        self.poll = Timing(now_ms)
        self.commit = Timing(now_ms)
        self.visible = Timing(now_ms)
        self.produced = Timing(now_ms)
        self.restored = Timing(now_ms)
        self.tasks: dict[TaskId, TaskMeter] = {}
        self.nodes: dict[tuple[TaskId, str], Timing] = {}
        self.stores: dict[TaskId, dict[str, StoreMeter]] = {}
        self._first_ms: float | None = None  # when the first record was processed that no commit has begun with
        self.commits_failed = 0
        self.aborted = 0
        self.sampling: Sampling | None = None

    def polled(self, since_ms: float) -> None:
        """Fetched batches were taken over."""
        self.poll.record(self.elapsed_ms() - since_ms)

    def punctuated(self, count: int, took_ms: float) -> None:
        """Punctuators were called."""
        if count:
            self.punctuate.record(took_ms, count)

    def processed(self, task: Task, records: int, took_ms: float, now_ms: int) -> None:
        """A task had its turn. `now_ms` is the wall clock at about that time."""
        if not records:
            return
        self.process.record(took_ms, records)
        if self._first_ms is None:
            self._first_ms = self.elapsed_ms() - took_ms
        meter = self.of_task(task.id)
        meter.process.record(took_ms, records)
        timestamp = task.record_timestamp
        if timestamp is not None:
            meter.e2e.record(now_ms - timestamp)
        if self.sampling is not None:
            self.sampling.processed(task.record_in_process, records)

    def finished(self, since_ms: float) -> None:
        """What comes after calls of async functions was done."""
        self.process.go_on(self.elapsed_ms() - since_ms)

    def take_first_ms(self) -> float | None:
        """When the first of the records was processed that a commit begins with, or that are given up; None: none."""
        first_ms, self._first_ms = self._first_ms, None
        return first_ms

    def of_task(self, task_id: TaskId) -> TaskMeter:
        """That of one task, which may have done nothing so far."""
        meter = self.tasks.get(task_id)
        if meter is None:
            meter = self.tasks[task_id] = TaskMeter(self.elapsed_ms())
        return meter

    def of_store(self, task_id: TaskId, store: str) -> StoreMeter:
        """That of one store."""
        stores = self.stores.setdefault(task_id, {})
        meter = stores.get(store)
        if meter is None:
            meter = stores[store] = StoreMeter(self.elapsed_ms())
        return meter

    def forget_stores(self, task_id: TaskId) -> None:
        """They were closed."""
        self.stores.pop(task_id, None)

    def look(self, running: Mapping[TaskId, Task]) -> None:
        """Remember how everything is now, and forget tasks that do not run here any more."""
        now_ms = self.elapsed_ms()
        self.tasks = {task_id: meter for task_id, meter in self.tasks.items() if task_id in running}
        self.nodes = {place: timing for place, timing in self.nodes.items() if place[0] in running}
        for timing in self._timings():
            timing.look(now_ms)

    def take_counts(self, running: Mapping[TaskId, Task]) -> None:
        """What tasks count themselves."""
        for task in running.values():
            self.of_task(task.id).dropped.count = task.dropped_total
            if task.counts is not None:
                for node, count in task.counts.nodes.items():
                    self.of_node(task.id, node).count = count

    def of_node(self, task_id: TaskId, node: str) -> Timing:
        """That of one node."""
        timing = self.nodes.get((task_id, node))
        if timing is None:
            timing = self.nodes[task_id, node] = Timing(self.elapsed_ms())
        return timing

    def _timings(self) -> Iterator[Timing]:
        yield from (self.process, self.punctuate, self.poll, self.commit, self.visible, self.produced, self.restored)
        for meter in self.tasks.values():
            yield from meter.timings()
        yield from self.nodes.values()
        for stores in self.stores.values():
            for store in stores.values():
                yield from store.timings()


class MeteredCommitter:
    """A committer, and how long it takes."""

    def __init__(self, committer: Committer, meter: Meter) -> None:
        self._committer = committer
        self._meter = meter
        self._opened_ms: float | None = None

    @property
    def open(self) -> bool:
        return self._committer.open

    @property
    def buffered_bytes(self) -> int:
        return self._committer.buffered_bytes

    @property
    def open_ms(self) -> float:
        """For how long something is sent or owed; 0 if nothing is."""
        return 0.0 if self._opened_ms is None else self._meter.elapsed_ms() - self._opened_ms

    async def init(self) -> None:
        await self._committer.init()
        self._forget()

    def send(self, outputs: Mapping[TopicPartition, Sequence[OutRecord]]) -> None:
        self._note_open()
        if self._meter.sampling is not None:
            self._meter.sampling.sent(outputs)
        self._committer.send(outputs)

    async def wait_for_room(self) -> None:
        await self._committer.wait_for_room()

    async def commit(self, work: Work) -> None:
        began_ms, first_ms = self._meter.elapsed_ms(), self._meter.take_first_ms()
        self._note_open()
        try:
            await self._committer.commit(work)
        except Exception:
            self._meter.commits_failed += 1
            raise
        self._opened_ms = None
        ended_ms = self._meter.elapsed_ms()
        self._meter.commit.record(ended_ms - began_ms)
        if first_ms is not None:
            self._meter.visible.record(ended_ms - first_ms)

    async def abort(self) -> None:
        self._meter.aborted += self._committer.open
        await self._committer.abort()
        self._forget()

    async def close(self) -> None:
        await self._committer.close()

    def _forget(self) -> None:
        self._opened_ms = None
        self._meter.take_first_ms()

    def _note_open(self) -> None:
        if self._opened_ms is None:
            self._opened_ms = self._meter.elapsed_ms()
