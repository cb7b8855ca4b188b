"""The parts of a store that a question is about, and reading one of them.

Whoever asks does so in a thread of its own, or in the worker's: one row is read at once, in the thread that asks; many
are read in threads beside it, a page at a time, so that no event loop stands still for them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Generic, TypeVar

import anyio.to_thread
import msgspec

from streamlib.errors import (
    InvalidStateStoreError,
    InvalidStateStorePartitionError,
    StateStoreError,
    StateStoreMigratedError,
    StreamsError,
)
from streamlib.queries.metadata import StorePartitioner, find_store, task_of_key
from streamlib.records import TaskId
from streamlib.runtime.local_stores import LocalStores, StoreCopy
from streamlib.runtime.shared_backend import PAGE_ROWS, PagedReader
from streamlib.state.backend import PAGE_BYTES
from streamlib.state.stores import Store, open_for_reading
from streamlib.topology.nodes import StoreSpec

T = TypeVar("T")
R = TypeVar("R")


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What of a store is asked for.

    Args:
        store: its name.
        stale: whether copies will do, and what is being restored: answers may be out of date (KIP-535).
        partition: only this one; for keys that are placed otherwise, the one they are in.
        partitioner: f(key, partition count) -> partition, where that is not Kafka's default.
        after: where a scan is to go on: the `last` of another one's `PagedReader`.
        most_bytes: how much of a store may be read for it.
    """

    store: str
    stale: bool = False
    partition: int | None = None
    partitioner: StorePartitioner | None = None
    after: bytes | None = None
    most_bytes: int | None = None


class Part(Generic[T]):
    """A part of a store, opened for one question.

    Whether it may be answered is looked at when it is opened, and again when an answer has been found: a process that
    was stopped in between may have an answer that has long been another worker's to give.

    Args:
        find: gives the part, or raises why it cannot be had any more.
        question: what it is opened for.
    """

    def __init__(self, find: Callable[[], StoreCopy], question: Question) -> None:
        self._find = find
        self.copy = find()
        self.reader = PagedReader(self.copy.backend, question.after, question.most_bytes)
        self.store: Any = open_for_reading(self.copy.spec, self.reader, self.copy)

    def read(self, how: Callable[[Any], R]) -> R:
        """What is asked of the store.

        Raises:
            StateStoreError: a row cannot be read.
        """
        try:
            answer = how(self.store)
        except StateStoreMigratedError:
            self._find()  # says where to, if that is known
            raise
        except StreamsError:
            raise
        except Exception as error:
            raise self._unreadable(error) from error
        self._find()
        return answer

    def take(self, rows: Iterator[T], most: int = PAGE_ROWS) -> tuple[list[T], bool]:
        """The next rows, up to so many and about `PAGE_BYTES`; whether there may be more."""
        enough_bytes = self.reader.read_bytes + PAGE_BYTES

        def some(store: Any) -> tuple[list[T], bool]:
            taken: list[T] = []
            for row in rows:
                taken.append(row)
                if len(taken) >= most or self.reader.read_bytes >= enough_bytes:
                    return taken, True
            return taken, self.reader.stopped

        return self.read(some)

    def _unreadable(self, error: Exception) -> StateStoreError:
        spec = self.copy.spec
        return StateStoreError(
            f"store {spec.name}, partition {self.copy.partition or 0}: a row cannot be read as {spec.key.name}, "
            f"{spec.value.name}: {error}"
        )


def spec_of(stores: LocalStores, question: Question) -> StoreSpec:
    """The store that is asked for.

    Raises:
        UnknownStateStoreError: there is none of this name.
        InvalidStateStoreError: it is none that can be asked, or has no such partition.
    """
    spec, tasks = find_store(stores.plan, question.store)
    if spec.kind == "buffer":
        raise InvalidStateStoreError(f"store {spec.name} holds records that wait for their time, and cannot be asked")
    if question.partition is not None and not 0 <= question.partition < max(len(tasks), 1):
        has = f"has partitions 0 to {len(tasks) - 1}" if tasks else "is global, and has no partitions but 0"
        raise InvalidStateStoreError(f"store {spec.name} {has}, not {question.partition}")
    return spec


def part_of_key(stores: LocalStores, question: Question, key: Any) -> Part[Any]:
    """The part that a key is in; raises what `spec_of`, `task_of_key` and `LocalStores.copy` do."""
    spec = spec_of(stores, question)
    tasks = find_store(stores.plan, spec.name)[1]
    if not tasks:
        return _opened(stores, question, None)
    if question.partition is not None:
        return _opened(stores, question, tasks[question.partition])
    return _opened(stores, question, task_of_key(stores.plan, spec.name, key, question.partitioner))


def parts_here(stores: LocalStores, question: Question) -> list[Part[Any]]:
    """All parts that this worker has, by partition.

    Raises:
        InvalidStateStorePartitionError: it has none, or not the one that is asked for.
        InvalidStateStoreError: as `spec_of` and `LocalStores.copy`.
    """
    spec = spec_of(stores, question)
    tasks = find_store(stores.plan, spec.name)[1]
    if not tasks:
        return [_opened(stores, question, None)]
    wanted = list(tasks) if question.partition is None else [tasks[question.partition]]
    here = wanted if question.partition is not None else stores.tasks_here(wanted, stale=question.stale)
    if not here:
        raise _none_here(spec, stores, wanted)
    return [_opened(stores, question, task) for task in here]


def _opened(stores: LocalStores, question: Question, task: TaskId | None) -> Part[Any]:
    spec, _ = find_store(stores.plan, question.store)

    def find() -> StoreCopy:
        if task is None:
            return stores.global_copy(spec, stale=question.stale)
        return stores.copy(spec, task, stale=question.stale)

    return Part(find, question)


def _none_here(spec: StoreSpec, stores: LocalStores, wanted: list[TaskId]) -> InvalidStateStoreError:
    owner = next((owner for task in wanted if (owner := stores.owner(task)) is not None), None)
    place = "" if owner is None or not owner.endpoint else f", {owner.endpoint} for instance has some"
    return InvalidStateStorePartitionError(
        f"store {spec.name}: this worker has no part of it now{place}: ask there, or again when tasks have moved",
        owner=None if owner is None else owner.endpoint or None,
    )


async def rows_of(parts: list[Part[T]], scan: Callable[[Store], Iterator[T]]) -> AsyncIterator[T]:
    """The rows of all parts, one after the other. Each page is read in another thread."""
    for part in parts:
        rows = scan(part.store)
        more = True
        while more:
            page, more = await anyio.to_thread.run_sync(part.take, rows, abandon_on_cancel=True)
            for row in page:
                yield row
