"""The way of a task's stores back to the end of their changelogs.

The end is the log end (high watermark) read *after* the committed offsets were found stable: every record of a
committed transaction lies below it. Reading is read_committed, so the position passes it only when the markers of
all transactions below it have landed; a marker that is still under way is waited for, not skipped. (The offsets'
marker may land before the changelog's: they are written by different brokers.)

    fetched --> backlog of each changelog --a slice at a time, in turns, for one bite--> store and position
                                                                                         |
                        a moment for everybody else <------------------------------------+

Records go to disk together with the new position, slice by slice, so a restore that is cut short goes on from where it
was. One that has far to go is in bulk: past the write-ahead log, so a crash takes it back by some slices; it is settled
before the task runs, or follows on as a standby.

A bite is short while tasks run here: they share the event loop.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import anyio
import anyio.lowlevel

from streamlib.engine.task import Task
from streamlib.errors import ErrorCode, KafkaError
from streamlib.records import TaskId, TopicPartition
from streamlib.restore_listener import RestoreListener, SuspendReason
from streamlib.runtime.ports import Admin, Clock, Fetcher
from streamlib.runtime.restoration import Backlog, Progress, Restoration
from streamlib.runtime.restore_reports import RestoreReports
from streamlib.runtime.wakeup import Wakeup

log = logging.getLogger(__name__)

TAKE_BYTES = 4 << 20
BITE_MS = 50
BITE_BESIDE_RUNNING_MS = 10
FIRST_SLICE_RECORDS = 500
MOST_SLICE_RECORDS = 8_000
LEAST_SLICE_RECORDS = 20
BULK_RECORDS = 10_000
"""Below this the flush at the end costs more than the write-ahead log."""
LOOK_S = 1.0
SETTLE_LOOK_S = 0.005


class Bounds(NamedTuple):
    """The offsets a changelog partition has."""

    start: int
    end: int


class _Reading(NamedTuple):
    """One changelog that is being read."""

    restoration: Restoration
    backlog: Backlog


class Restorer:
    """Restores any number of tasks side by side, beside the tasks that run. `on_done` is set when one has finished."""

    def __init__(
        self, fetcher: Fetcher, admin: Admin, clock: Clock, on_done: Wakeup, listener: RestoreListener | None = None
    ) -> None:
        self._fetcher = fetcher
        self._admin = admin
        self._clock = clock
        self._on_done = on_done
        self._reports = RestoreReports(clock, listener)
        self._under_way: dict[TaskId, Restoration] = {}
        self._readings: dict[TopicPartition, _Reading] = {}
        self._waiting: deque[_Reading] = deque()  # those with a backlog; whose turn it is first
        self._settling: list[Restoration] = []  # caught up, but not safe on disk yet; nothing is read for them
        self._finished: list[Restoration] = []
        self._bite_ms = BITE_MS
        self._slice_records = FIRST_SLICE_RECORDS

    @property
    def under_way(self) -> Collection[Restoration]:
        """Restorations that have not finished, without those of standbys, which never do."""
        return [restoration for restoration in self._under_way.values() if not restoration.endless]

    @property
    def all(self) -> Collection[Restoration]:
        """Those under way, and those of standbys with the ends of their changelogs as last heard of."""
        return [*self.under_way, *self._followed()]

    def find(self, task_id: TaskId) -> Restoration | None:
        """How far a task is that is restored or followed. Any thread may ask."""
        return self._under_way.get(task_id)

    def give_way(self, tasks_run: bool) -> None:
        """Whether there are tasks that want the event loop, too."""
        self._bite_ms = BITE_BESIDE_RUNNING_MS if tasks_run else BITE_MS

    def lags(self) -> dict[TaskId, int]:
        """How far each standby is behind its changelogs, in offsets."""
        return {restoration.id: restoration.remaining for restoration in self._followed()}

    def _followed(self) -> list[Restoration]:
        """Those of standbys, with the ends of their changelogs as last heard of."""
        followed = [restoration for restoration in self._under_way.values() if restoration.endless]
        ends = self._fetcher.end_offsets() if followed else {}
        for restoration in followed:
            for partition, progress in restoration.changelogs.items():
                progress.end = max(progress.end, ends.get(partition, 0))
        return followed

    async def bounds(self, tasks: Sequence[Task]) -> dict[TopicPartition, Bounds]:
        """Where the changelogs begin and end, asked once the tasks' committed offsets are known to be stable."""
        changelogs = [partition for task in tasks for partition in task.changelogs]
        ends = await self._admin.list_offsets(changelogs, "latest")
        starts = await self._admin.list_offsets(changelogs, "earliest")
        return {partition: Bounds(starts[partition], ends[partition]) for partition in changelogs}

    def begin(self, task: Task, bounds: Mapping[TopicPartition, Bounds]) -> None:
        """Start to read what is missing."""
        restoration = self._add(task, bounds, endless=False)
        self._look_for_ends(restoration)
        if not self._finish_if_done(restoration):
            self._read(restoration)

    def follow(self, task: Task, bounds: Mapping[TopicPartition, Bounds]) -> None:
        """Keep a standby's stores up with its changelogs until it is forgotten."""
        following = self._add(task, bounds, endless=True)
        self._read(following)

    def _add(self, task: Task, bounds: Mapping[TopicPartition, Bounds], *, endless: bool) -> Restoration:
        self._remove(task.id)
        positions, now_ms = task.restore_positions(), self._clock.monotonic_ms()
        changelogs = {p: _first_position(task, p, positions[p], bounds[p]) for p in task.changelogs}
        for progress in changelogs.values():
            progress.moved_ms = now_ms
        restoration = Restoration(task, changelogs, endless, started_ms=now_ms, moved_ms=now_ms)
        restoration.bulk = restoration.remaining > BULK_RECORDS
        self._under_way[task.id] = restoration
        self._reports.started(restoration)
        return restoration

    def _read(self, restoration: Restoration) -> None:
        wanted = {p: at.position for p, at in restoration.changelogs.items() if at.remaining or restoration.endless}
        for partition, position in wanted.items():
            self._readings[partition] = _Reading(restoration, Backlog(partition, position))
        self._fetcher.add(wanted)

    def forget(self, task_id: TaskId, reason: SuspendReason = "migrated") -> None:
        """Stop restoring a task; what has been restored stays. The reason is for those who listen."""
        if restoration := self._remove(task_id):
            self._reports.stopped(restoration, reason)

    def _remove(self, task_id: TaskId) -> Restoration | None:
        self._finished = [restoration for restoration in self._finished if restoration.id != task_id]
        restoration = self._under_way.pop(task_id, None)
        if restoration is not None:
            self._fetcher.remove(restoration.changelogs)
            for partition in restoration.changelogs:
                self._readings.pop(partition, None)
            self._waiting = deque(reading for reading in self._waiting if reading.restoration is not restoration)
            if restoration in self._settling:
                self._settling.remove(restoration)
                self._hold_settling()
        return restoration

    def take_finished(self) -> list[Restoration]:
        """Restorations that have reached their end since the last call."""
        finished, self._finished = self._finished, []
        return finished

    async def run(self) -> None:
        """Apply what arrives, for ever.

        Raises:
            KafkaError: a changelog cannot be read.
            StateStoreError: a record cannot be restored.
        """
        while True:
            try:
                await self._wait()
            except KafkaError as error:
                if not await self._begin_anew(error):
                    raise
            self._take()
            self._bite()
            self._look_at_settling()
            self._followed()
            self._reports.look(self._under_way.values(), self._fetcher.end_offsets())
            await anyio.lowlevel.checkpoint()  # `wait` returns at once while there is more

    async def _wait(self) -> None:
        if self._waiting:
            return
        with anyio.move_on_after(SETTLE_LOOK_S if self._settling else LOOK_S):
            await self._fetcher.wait()

    async def _begin_anew(self, error: KafkaError) -> bool:
        """The log begins later by now than where we read: its store is built anew, the others go on."""
        found = (reading for partition, reading in self._readings.items() if str(partition) == error.where)
        reading = next(found, None) if error.code == ErrorCode.OFFSET_OUT_OF_RANGE else None
        if reading is None:
            return False
        log.warning("task %s: %s; looking where the log begins", reading.restoration.id, error)
        task = reading.restoration.task
        bounds = await self.bounds([task])
        if self._under_way.get(task.id) is reading.restoration:  # not forgotten while we asked
            self._reports.stopped(reading.restoration, "migrated")
            again = self.follow if reading.restoration.endless else self.begin
            again(task, bounds)
        return True

    def _take(self) -> None:
        if self._waiting:
            return
        for batch in self._fetcher.take(TAKE_BYTES):
            reading = self._readings.get(batch.partition)
            if reading is None:
                continue
            if not reading.backlog:
                self._waiting.append(reading)
            reading.backlog.add(batch)

    def _bite(self) -> None:
        """Slices in turns, until the time is over."""
        now_ms = self._clock.monotonic_ms()
        ends_ms = now_ms + self._bite_ms
        while self._waiting and now_ms < ends_ms:
            reading = self._waiting.popleft()
            if self._restore_slice(reading) and reading.backlog:
                self._waiting.append(reading)
            before_ms, now_ms = now_ms, self._clock.monotonic_ms()
            self._adapt(now_ms - before_ms)

    def _adapt(self, took_ms: float) -> None:
        """Slices are so large that some go into a bite."""
        if took_ms > self._bite_ms / 3:
            self._slice_records = max(self._slice_records // 2, LEAST_SLICE_RECORDS)
        elif took_ms < self._bite_ms / 8:
            self._slice_records = min(self._slice_records * 2, MOST_SLICE_RECORDS)

    def _restore_slice(self, reading: _Reading) -> bool:
        """Whether the restoration goes on."""
        restoration, backlog = reading
        progress = restoration.changelogs[backlog.partition]
        records = restoration.task.restore(backlog.take(self._slice_records), bulk=restoration.bulk)
        progress.restored += records
        progress.position = backlog.position
        progress.moved_ms = restoration.moved_ms = self._clock.monotonic_ms()
        self._reports.loaded(restoration, backlog.partition, records)
        self._look_for_ends(restoration)
        return not self._finish_if_done(restoration)

    def _look_for_ends(self, restoration: Restoration) -> None:
        for partition, progress in restoration.changelogs.items():
            if not progress.ended and not progress.remaining:
                progress.ended = True
                self._reports.ended(restoration, partition)

    def _finish_if_done(self, restoration: Restoration) -> bool:
        if not restoration.caught_up or (restoration.endless and not restoration.bulk):
            return False
        if not restoration.task.settled():
            if restoration not in self._settling:
                self._settling.append(restoration)
                self._hold_settling()
            return False
        restoration.bulk = False
        self._reports.caught_up(restoration)
        if restoration.endless:
            return False
        self._remove(restoration.id)
        self._finished.append(restoration)
        self._on_done.set()
        return True

    def _look_at_settling(self) -> None:
        for restoration in list(self._settling):
            if restoration.task.settled():
                self._settling.remove(restoration)
                self._hold_settling()
                self._finish_if_done(restoration)

    def _hold_settling(self) -> None:
        self._fetcher.pause([partition for restoration in self._settling for partition in restoration.changelogs])


def _first_position(task: Task, partition: TopicPartition, stored: int | None, bounds: Bounds) -> Progress:
    """Where to begin: at the stored position, or at the log's start if that position cannot be read from."""
    store = task.changelogs[partition]
    if stored is not None and not bounds.start <= stored <= bounds.end:
        log.warning(
            "task %s: the stored position %d of %s lies outside of the log [%d, %d]; its store is built anew",
            task.id, stored, partition, *bounds,
        )  # fmt: skip
        task.backend.clear(store)
        stored = task.restore_positions()[partition]  # none; the task has to hear of it, too
    first = bounds.start if stored is None else stored
    return Progress(store, first, first, bounds.end)
