"""The orders in which the records of different partitions may come to the tasks."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import Protocol

from streamlib.engine.task import Task
from streamlib.records import FetchedBatch, TaskId, TopicPartition
from streamlib.verify.history import one_by_one


class Queue(Protocol):
    """All that waits to be processed."""

    def put(self, task: Task, batch: FetchedBatch) -> None:
        """A batch for one of a task's inputs."""
        ...

    def next(self) -> Task | None:
        """The task whose turn it is, with records at hand; None if nothing waits. It is asked again after each record.

        Raises:
            StreamsError: the time of a record cannot be had.
        """
        ...


class ByTime:
    """The task with the oldest record first, as if all records had been there in time."""

    def __init__(self) -> None:
        self._tasks: dict[TaskId, Task] = {}
        self._heap: list[tuple[int, TaskId]] = []
        self._heads: dict[TaskId, int] = {}  # entries of the heap that are otherwise are outdated
        self._last: Task | None = None

    def put(self, task: Task, batch: FetchedBatch) -> None:
        self._tasks[task.id] = task
        task.enqueue(batch)
        self._enter(task)

    def next(self) -> Task | None:
        if self._last is not None:
            self._enter(self._last)
            self._last = None
        while self._heap:
            head, task_id = heappop(self._heap)
            if self._heads.get(task_id) == head:
                del self._heads[task_id]
                self._last = self._tasks[task_id]
                return self._last
        return None

    def _enter(self, task: Task) -> None:
        head = task.head_timestamp
        if head is not None and self._heads.get(task.id) != head:
            self._heads[task.id] = head
            heappush(self._heap, (head, task.id))


class InTurn:
    """All there is of one partition, then all there is of the next.

    What comes of a partition goes all the way before the next one is read. So any two records of different partitions
    that meet anywhere, meet in the opposite order if it goes backwards.
    """

    def __init__(self, *, backwards: bool = False) -> None:
        self._backwards = backwards
        self._waiting: dict[TopicPartition, tuple[Task, deque[FetchedBatch]]] = {}
        self._turns: list[list[TopicPartition]] = []  # what came last is next; of each, the last partition is
        self._new: list[TopicPartition] = []
        self._current: Task | None = None

    def put(self, task: Task, batch: FetchedBatch) -> None:
        if batch.partition not in self._waiting:
            self._waiting[batch.partition] = task, deque()
            self._new.append(batch.partition)
        self._waiting[batch.partition][1].append(batch)

    def next(self) -> Task | None:
        while self._current is None or self._current.head_timestamp is None:
            partition = self._next_partition()
            if partition is None:
                return None
            self._current, batches = self._waiting.pop(partition)
            for batch in batches:
                self._current.enqueue(batch)
        return self._current

    def _next_partition(self) -> TopicPartition | None:
        if self._new:
            self._turns.append(sorted(self._new, reverse=not self._backwards))
            self._new = []
        while self._turns and not self._turns[-1]:
            self._turns.pop()
        return self._turns[-1].pop() if self._turns else None


class Alternating:
    """A record of each partition in turn."""

    def __init__(self) -> None:
        self._waiting: dict[TopicPartition, tuple[Task, deque[FetchedBatch]]] = {}
        self._current: Task | None = None

    def put(self, task: Task, batch: FetchedBatch) -> None:
        waiting = self._waiting.setdefault(batch.partition, (task, deque()))[1]
        waiting.extend(one_by_one(batch))

    def next(self) -> Task | None:
        while self._current is None or self._current.head_timestamp is None:
            if not self._waiting:
                return None
            partition = next(iter(self._waiting))
            self._current, batches = self._waiting.pop(partition)
            self._current.enqueue(batches.popleft())
            if batches:
                self._waiting[partition] = self._current, batches  # behind all others
        return self._current
