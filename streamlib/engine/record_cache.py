"""The record cache: of several updates of a table's row between two commits only the last goes on.

Stores are written at once and read as ever; what is held back is the change for the nodes below. It goes on with the
old value of the first update and everything else of the last: when the task commits, in the order of last updates, or
before, oldest first, when all caches of the worker hold more than they may. A row that was not there for the nodes
below and is gone again is not mentioned at all. Source: `ThreadCache`, `CachingKeyValueStore.putAndMaybeForward`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeAlias

from streamlib.engine.cursor import Cursor
from streamlib.engine.inputs import NodeFn
from streamlib.records import FetchedRecord, Headers, TopicPartition
from streamlib.topology.nodes import StoreSpec

UPDATE_OVERHEAD_BYTES = 200
"""About what an update that waits costs beside its key and value."""


class CacheBudget:
    """What the caches of all tasks of a worker may hold together; zero turns them off."""

    __slots__ = ("max_bytes", "used_bytes")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0


_Update: TypeAlias = tuple[Any, Any, Any, int, Headers, TopicPartition | None, FetchedRecord | None, int]
"""A change that waits: key, new, old, timestamp, headers; the partition and record it comes from; its bytes.

A plain tuple: one is made for every record, and a named one takes three times as long.
"""


class RecordCache:
    """The changes of one table that wait. `forward` is what comes after the table, `with_old` whether it wants to know
    old values. The table's node has to give them in any case, None where there was no row.

    `add` holds a change back: what takes the place of `forward` for the table's node.
    """

    def __init__(
        self, store: StoreSpec, forward: NodeFn, cursor: Cursor, budget: CacheBudget, *, with_old: bool
    ) -> None:
        self._forward = forward
        self._cursor = cursor
        self._budget = budget
        self._with_old = with_old
        # By the last update. Not a plain dict: to find its oldest entry it walks over those that were taken out.
        self._waiting: OrderedDict[Any, _Update] = OrderedDict()
        self.add = self._adder(store)

    def _adder(self, store: StoreSpec) -> NodeFn:
        waiting, budget, cursor = self._waiting, self._budget, self._cursor
        take, identity_of, encode = waiting.pop, _identity(store), store.value.encode

        def add(key: Any, change: Any, timestamp: int, headers: Headers) -> None:
            new, old = change
            identity, size = identity_of(key)
            size += UPDATE_OVERHEAD_BYTES if new is None else UPDATE_OVERHEAD_BYTES + len(encode(new))
            before = take(identity, None)
            if before is None:
                budget.used_bytes += size
            else:
                old = before[2]
                budget.used_bytes += size - before[7]
            waiting[identity] = (key, new, old, timestamp, headers, cursor.partition, cursor.record, size)
            if budget.used_bytes > budget.max_bytes:
                self._make_room()

        return add

    def flush(self) -> None:
        """Let all that waits go on."""
        self._pass_on_down_to(0)

    def _make_room(self) -> None:
        self._pass_on_down_to(self._budget.max_bytes)

    def _pass_on_down_to(self, max_bytes: int) -> None:
        """Let updates go on, oldest first, until all caches together hold no more, or this one is empty."""
        waiting, budget, cursor, forward, with_old = (
            self._waiting, self._budget, self._cursor, self._forward, self._with_old
        )  # fmt: skip
        before = cursor.partition, cursor.record
        while waiting and budget.used_bytes > max_bytes:
            _, (key, new, old, timestamp, headers, partition, record, size_bytes) = waiting.popitem(last=False)
            budget.used_bytes -= size_bytes
            if new is None and old is None:
                continue
            cursor.partition, cursor.record = partition, record
            forward(key, (new, old if with_old else None), timestamp, headers)
        # Not after an error: that one is about the record this came from.
        cursor.partition, cursor.record = before

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def drop(self) -> None:
        """Forget all that waits: it is rolled back."""
        self._budget.used_bytes -= sum(update[-1] for update in self._waiting.values())
        self._waiting.clear()


def _identity(store: StoreSpec) -> Callable[[Any], tuple[Any, int]]:
    """f(key) -> what tells rows apart, since keys may not be hashable, and how many bytes the key has."""
    encode = store.key.encode

    def of_key(key: Any) -> tuple[Any, int]:
        raw = encode(key)
        return raw, len(raw)

    def of_windowed(key: Any) -> tuple[Any, int]:
        raw = encode(key.key)
        return (raw, key.start, key.end), len(raw)

    return of_key if store.kind == "timestamped_key_value" else of_windowed
