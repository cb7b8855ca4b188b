"""The way of a task's stores back to the end of their changelogs.

The end is the log end (high watermark) read *after* the committed offsets were found stable: every record of a
committed transaction lies below it. Reading is read_committed, so the position passes it only when the markers of
all transactions below it have landed; a marker that is still under way is waited for, not skipped. (The offsets'
marker may land before the changelog's: they are written by different brokers.)

Records go straight to disk together with the new position, batch by batch, so a restore that is cut short goes on
from where it was.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import anyio.lowlevel
import msgspec

from streamlib.engine.task import Task
from streamlib.records import TaskId, TopicPartition
from streamlib.runtime.ports import Admin, Clock, Fetcher
from streamlib.runtime.wakeup import Wakeup

log = logging.getLogger(__name__)

LOG_INTERVAL_MS = 5_000
TAKE_BYTES = 4 << 20


class Bounds(NamedTuple):
    """The offsets a changelog partition has."""

    start: int
    end: int


class Progress(msgspec.Struct):
    """How far a restore is, in changelog offsets; `restored` counts records applied."""

    start: int
    position: int
    end: int
    restored: int = 0


class Restoration(msgspec.Struct):
    """One task on its way to `end` in each of its changelogs; a standby goes on from there for ever."""

    task: Task
    changelogs: dict[TopicPartition, Progress]
    endless: bool = False

    @property
    def done(self) -> bool:
        return not self.endless and all(progress.position >= progress.end for progress in self.changelogs.values())

    @property
    def restored(self) -> int:
        return sum(progress.restored for progress in self.changelogs.values())

    @property
    def remaining(self) -> int:
        return sum(max(progress.end - progress.position, 0) for progress in self.changelogs.values())


class Restorer:
    """Restores any number of tasks side by side, beside the tasks that run. `on_done` is set when one has finished."""

    def __init__(self, fetcher: Fetcher, admin: Admin, clock: Clock, on_done: Wakeup) -> None:
        self._fetcher = fetcher
        self._admin = admin
        self._clock = clock
        self._on_done = on_done
        self._under_way: dict[TaskId, Restoration] = {}
        self._owners: dict[TopicPartition, Restoration] = {}
        self._finished: list[Restoration] = []
        self._logged_ms = 0.0

    @property
    def under_way(self) -> Collection[Restoration]:
        """Restorations that have not finished, without those of standbys, which never do."""
        return [restoration for restoration in self._under_way.values() if not restoration.endless]

    def lags(self) -> dict[TaskId, int]:
        """How far each standby is behind its changelogs, in offsets."""
        ends = self._fetcher.end_offsets()
        for restoration in self._under_way.values():
            for partition, progress in restoration.changelogs.items():
                progress.end = max(progress.end, ends.get(partition, 0))
        return {task: following.remaining for task, following in self._under_way.items() if following.endless}

    async def bounds(self, tasks: Sequence[Task]) -> dict[TopicPartition, Bounds]:
        """Where the changelogs begin and end, asked once the tasks' committed offsets are known to be stable."""
        changelogs = [partition for task in tasks for partition in task.changelogs]
        ends = await self._admin.list_offsets(changelogs, "latest")
        starts = await self._admin.list_offsets(changelogs, "earliest")
        return {partition: Bounds(starts[partition], ends[partition]) for partition in changelogs}

    def begin(self, task: Task, bounds: Mapping[TopicPartition, Bounds]) -> None:
        """Start to read what is missing."""
        restoration = self._add(task, bounds, endless=False)
        if not self._finish_if_done(restoration):
            missing = {p: at.position for p, at in restoration.changelogs.items() if at.position < at.end}
            self._fetcher.add(missing)

    def follow(self, task: Task, bounds: Mapping[TopicPartition, Bounds]) -> None:
        """Keep a standby's stores up with its changelogs until it is forgotten."""
        following = self._add(task, bounds, endless=True)
        self._fetcher.add({p: at.position for p, at in following.changelogs.items()})

    def _add(self, task: Task, bounds: Mapping[TopicPartition, Bounds], *, endless: bool) -> Restoration:
        positions = task.restore_positions()
        changelogs = {p: _first_position(task, p, positions[p], bounds[p]) for p in task.changelogs}
        restoration = self._under_way[task.id] = Restoration(task, changelogs, endless)
        for partition in restoration.changelogs:
            self._owners[partition] = restoration
        return restoration

    def forget(self, task_id: TaskId) -> None:
        """Stop restoring a task; what has been restored stays."""
        self._finished = [restoration for restoration in self._finished if restoration.task.id != task_id]
        if restoration := self._under_way.pop(task_id, None):
            self._fetcher.remove(restoration.changelogs)
            for partition in restoration.changelogs:
                self._owners.pop(partition, None)

    def take_finished(self) -> list[Restoration]:
        """Restorations that have reached their end since the last call."""
        finished, self._finished = self._finished, []
        return finished

    async def run(self) -> None:
        """Apply what arrives, for ever."""
        self._logged_ms = self._clock.monotonic_ms()
        while True:
            await self._fetcher.wait()
            for batch in self._fetcher.take(TAKE_BYTES):
                restoration = self._owners.get(batch.partition)
                if restoration is None:
                    continue
                progress = restoration.changelogs[batch.partition]
                progress.restored += restoration.task.restore(batch)
                progress.position = batch.next_offset
                self._finish_if_done(restoration)
            self._log_progress()
            await anyio.lowlevel.checkpoint()  # `wait` returns at once while there is more

    def _finish_if_done(self, restoration: Restoration) -> bool:
        if not restoration.done:
            return False
        self.forget(restoration.task.id)
        self._finished.append(restoration)
        self._on_done.set()
        return True

    def _log_progress(self) -> None:
        now = self._clock.monotonic_ms()
        if not self.under_way or now - self._logged_ms < LOG_INTERVAL_MS:
            return
        self._logged_ms = now
        for restoration in self.under_way:
            log.info(
                "task %s: restored %d records, about %d to go",
                restoration.task.id, restoration.restored, restoration.remaining,
            )  # fmt: skip


def _first_position(task: Task, partition: TopicPartition, stored: int | None, bounds: Bounds) -> Progress:
    """Where to begin: at the stored position, or at the log's start if that position cannot be read from."""
    if stored is not None and not bounds.start <= stored <= bounds.end:
        log.warning(
            "task %s: the stored position %d of %s lies outside of the log [%d, %d]; its store is built anew",
            task.id, stored, partition, *bounds,
        )  # fmt: skip
        task.backend.clear(task.changelogs[partition])
        stored = task.restore_positions()[partition]  # none; the task has to hear of it, too
    first = bounds.start if stored is None else stored
    return Progress(first, first, bounds.end)
