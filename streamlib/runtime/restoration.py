"""How far a task's stores are on their way through their changelogs, and what waits to be written to them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import chain, compress, count, islice

import msgspec

from streamlib.engine.task import Task
from streamlib.records import FetchedBatch, FetchedRecord, TaskId, TopicPartition


class Progress(msgspec.Struct):
    """How far one store is, in changelog offsets; `restored` counts records applied."""

    store: str
    start: int
    position: int
    end: int
    restored: int = 0
    ended: bool = False  # has been at its end
    moved_ms: float = 0.0  # when the position moved last
    warned_ms: float = 0.0  # when it was last said that it does not

    @property
    def remaining(self) -> int:
        return max(self.end - self.position, 0)


class Restoration(msgspec.Struct):
    """One task on its way to `end` in each of its changelogs; a standby goes on from there for ever.

    `bulk`: what is written may be lost in a crash until the task is settled.
    """

    task: Task
    changelogs: dict[TopicPartition, Progress]
    endless: bool = False
    bulk: bool = False
    started_ms: float = 0.0
    moved_ms: float = 0.0  # when a position moved last

    @property
    def id(self) -> TaskId:
        return self.task.id

    @property
    def caught_up(self) -> bool:
        return all(progress.position >= progress.end for progress in self.changelogs.values())

    @property
    def restored(self) -> int:
        return sum(progress.restored for progress in self.changelogs.values())

    @property
    def remaining(self) -> int:
        """What is left, in offsets: about as many records, less the markers and what was compacted away."""
        return sum(progress.remaining for progress in self.changelogs.values())

    @property
    def rate(self) -> float:
        """Records per second since the start, 0 before the first."""
        elapsed_ms = self.moved_ms - self.started_ms
        return self.restored * 1000 / elapsed_ms if elapsed_ms > 0 else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds until it is at the end if it goes on like this; None as long as nobody can tell."""
        moved = sum(progress.position - progress.start for progress in self.changelogs.values())
        elapsed_ms = self.moved_ms - self.started_ms
        return self.remaining * elapsed_ms / moved / 1000 if moved > 0 and elapsed_ms > 0 else None


class Backlog:
    """What has been fetched of one changelog and is not in its store yet.

    It is taken in slices of so many records, whatever the batches it came in: a slice ends in the middle of a large
    batch, or spans many small ones. `position` is where the last slice ended.
    """

    __slots__ = ("_batches", "_end", "_following", "_records", "partition", "position")

    def __init__(self, partition: TopicPartition, position: int) -> None:
        self.partition = partition
        self.position = position
        self._batches: deque[FetchedBatch] = deque()
        self._records: Iterator[FetchedRecord] | None = None  # of the batch that is open
        self._following: FetchedRecord | None = None  # its next record, taken out to see where it is
        self._end = position  # of the batch that is open

    def __bool__(self) -> bool:
        return self._records is not None or bool(self._batches)

    def add(self, batch: FetchedBatch) -> None:
        """Batches come in offset order."""
        self._batches.append(batch)

    def take(self, most: int) -> Slice:
        """The next records, up to so many. Nothing is taken before they are asked for."""
        return Slice(self, most)

    def records(self, most: int) -> Iterator[FetchedRecord]:
        """Up to so many records; the position moves when they are exhausted."""
        left = most
        while left and self:
            opened = self._open()
            if self._following is not None:
                following, self._following = self._following, None
                yield following
                left -= 1
            tally = count(1)
            yield from compress(islice(opened, left), tally)  # no step in Python for a record
            left -= next(tally) - 1
            self._look_further(opened)

    def _open(self) -> Iterator[FetchedRecord]:
        if self._records is None:
            batch = self._batches.popleft()
            # `chain`, because what a record batch gives may be asked for an iterator only once.
            self._records, self._end = chain(batch.records()), batch.next_offset
        return self._records

    def _look_further(self, opened: Iterator[FetchedRecord]) -> None:
        """After the last record of a batch the position is the batch's end, past gaps and markers."""
        self._following = next(opened, None)
        if self._following is None:
            self._records, self.position = None, self._end
        else:
            self.position = self._following.offset


class Slice:
    """Part of a backlog; implements `FetchedBatch`. It ends where it does once its records were read."""

    __slots__ = ("_backlog", "_most")

    size_bytes = 0

    def __init__(self, backlog: Backlog, most: int) -> None:
        self._backlog = backlog
        self._most = most

    @property
    def partition(self) -> TopicPartition:
        return self._backlog.partition

    @property
    def next_offset(self) -> int:
        return self._backlog.position

    def records(self) -> Iterator[FetchedRecord]:
        return self._backlog.records(self._most)
