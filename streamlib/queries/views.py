"""Stores of a running application, to be read from outside: what `KafkaStreams.store` returns.

    ReadOnlyKeyValueStore    tables and key-value stores, those of rows that expire or were used last, global ones
    ReadOnlyWindowStore      tables by windows of time
    ReadOnlySessionStore     tables by sessions
    ReadOnlyVersionedStore   tables with a history

They show what is committed, of the parts of the store that this worker has; of all others they say who has them. Any
event loop may use them, in any thread. They hold nothing open, and are never out of date themselves: each question
looks for its part anew, and one whose task has moved is an error that says where to.

Rows of several partitions come partition by partition. A scan reads page after page, each as it is at that moment: rows
that are written meanwhile may or may not be among them, none comes twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar, get_origin

import anyio.lowlevel

from streamlib.errors import InvalidStateStoreError
from streamlib.queries.parts import Part, Question, part_of_key, parts_here, rows_of, spec_of
from streamlib.runtime.local_stores import LocalStores
from streamlib.serdes import Serde
from streamlib.state.codec import ValueAndTimestamp
from streamlib.state.versioned import VersionedRecord
from streamlib.topology.nodes import StoreKind
from streamlib.windows import END_OF_TIME_MS, Windowed

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

_Find = Callable[[], LocalStores]


class _View:
    """What the kinds have in common: finding parts, and reading them."""

    def __init__(self, find: _Find, question: Question, *, with_timestamps: bool = False) -> None:
        self._find = find
        self._question = question
        self._with_timestamps = with_timestamps

    async def _one(self, key: Any, read: Callable[[Any], T]) -> T:
        await anyio.lowlevel.checkpoint()
        answer: T = part_of_key(self._find(), self._question, key).read(read)
        return answer

    def _of_key(self, key: Any, scan: Callable[[Any], Iterator[T]]) -> AsyncIterator[T]:
        async def rows() -> AsyncIterator[T]:
            part: Part[T] = part_of_key(self._find(), self._question, key)
            async for row in rows_of([part], scan):
                yield row

        return rows()

    def _of_all(self, scan: Callable[[Any], Iterator[T]]) -> AsyncIterator[T]:
        async def rows() -> AsyncIterator[T]:
            async for row in rows_of(parts_here(self._find(), self._question), scan):
                yield row

        return rows()

    def _shown(self, value: Any) -> Any:
        return value.value if isinstance(value, ValueAndTimestamp) and not self._with_timestamps else value

    def _values(self, rows: Iterator[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        return ((key, self._shown(value)) for key, value in rows)


class ReadOnlyKeyValueStore(_View, Generic[K, V]):
    """Values under keys, as they are committed.

        counts = app.store("counts")
        await counts.get("ann")
        async for word, count in counts.range("a", "b"):
            ...

    With `with_timestamps` values are `ValueAndTimestamp`, if the store keeps times.
    """

    async def get(self, key: K) -> V | None:
        """The value of `key`; None if it has none.

        Raises:
            InvalidStateStoreError: its kinds say whether to ask again, or another worker.
            SerializationError: it is no key of this store.
        """
        return self._shown(await self._one(key, lambda store: store.get(key)))  # type: ignore[no-any-return]

    def range(self, start: K | None = None, end: K | None = None) -> AsyncIterator[tuple[K, V]]:
        """Rows from `start` to `end`, both inclusive, in the order of key bytes; None is an open bound."""
        return self._of_all(lambda store: self._values(store.range(start, end)))

    def reverse_range(self, start: K | None = None, end: K | None = None) -> AsyncIterator[tuple[K, V]]:
        """Rows from `end` down to `start`, both inclusive."""
        return self._of_all(lambda store: self._values(store.reverse_range(start, end)))

    def all(self) -> AsyncIterator[tuple[K, V]]:
        """All rows, in the order of key bytes."""
        return self.range()

    def reverse_all(self) -> AsyncIterator[tuple[K, V]]:
        """All rows, against the order of key bytes."""
        return self.reverse_range()

    def __aiter__(self) -> AsyncIterator[tuple[K, V]]:
        return self.all()

    def prefix_scan(self, prefix: Any, serde: Serde[Any] | None = None) -> AsyncIterator[tuple[K, V]]:
        """Rows whose key bytes begin with those of `prefix` (the key's serde unless another is given)."""
        return self._of_all(lambda store: self._values(store.prefix_scan(prefix, serde)))

    async def approximate_num_entries(self) -> int:
        """About how many rows this worker's parts have; RocksDB counts what is overwritten or deleted for a while."""
        await anyio.lowlevel.checkpoint()
        parts: list[Part[Any]] = parts_here(self._find(), self._question)
        return sum(part.copy.backend.estimate(part.copy.spec.name) for part in parts)


class ReadOnlyWindowStore(_View, Generic[K, V]):
    """Values by key and window, as they are committed. Times are in ms since the epoch.

        async for start, count in app.store("per-minute").fetch("ann", first_ms, last_ms):
            ...

    With `with_timestamps` values are `ValueAndTimestamp`, if the store keeps times.
    """

    async def get(self, key: K, start_ms: int) -> V | None:
        """The value of `key` in the window that starts at `start_ms`; None if it has none, or is forgotten."""
        return self._shown(await self._one(key, lambda store: store.get(key, start_ms)))  # type: ignore[no-any-return]

    def fetch(
        self, key: K, first_ms: int = 0, last_ms: int = END_OF_TIME_MS, *, reverse: bool = False
    ) -> AsyncIterator[tuple[int, V]]:
        """Window starts and values of `key` in windows that start within `[first_ms, last_ms]`, by start."""
        return self._of_key(key, lambda store: self._values(store.fetch(key, first_ms, last_ms, reverse=reverse)))

    def fetch_keys(
        self, first_key: K | None, last_key: K | None, first_ms: int, last_ms: int, *, reverse: bool = False
    ) -> AsyncIterator[tuple[Windowed[K], V]]:
        """Rows of keys within `[first_key, last_key]` in windows that start within `[first_ms, last_ms]`.

        None is an open bound. In each partition the order is that of segments of time, then by key, then by start.
        """
        return self._of_all(
            lambda store: self._values(store.fetch_keys(first_key, last_key, first_ms, last_ms, reverse=reverse))
        )

    def fetch_all(self, first_ms: int, last_ms: int, *, reverse: bool = False) -> AsyncIterator[tuple[Windowed[K], V]]:
        """Rows of all keys in windows that start within `[first_ms, last_ms]`."""
        return self.fetch_keys(None, None, first_ms, last_ms, reverse=reverse)

    def all(self) -> AsyncIterator[tuple[Windowed[K], V]]:
        """All rows that can be seen."""
        return self.fetch_all(0, END_OF_TIME_MS)


class ReadOnlySessionStore(_View, Generic[K, V]):
    """Values by key and session, as they are committed. Both ends of a session are inclusive, in ms since the epoch.

    async for session, count in app.store("visits").fetch("ann"):
        ...
    """

    async def fetch_session(self, key: K, start_ms: int, end_ms: int) -> V | None:
        """The value of the session of `key` that starts and ends at exactly these times; None if there is none."""
        return await self._one(key, lambda store: store.fetch_session(key, start_ms, end_ms))

    def fetch(self, key: K, *, reverse: bool = False) -> AsyncIterator[tuple[Windowed[K], V]]:
        """All sessions of `key`, by end, then by start."""
        return self.find_sessions(key, 0, END_OF_TIME_MS, reverse=reverse)

    def find_sessions(
        self, key: K, earliest_end_ms: int, latest_start_ms: int, *, reverse: bool = False
    ) -> AsyncIterator[tuple[Windowed[K], V]]:
        """Sessions of `key` that end at or after one time and start at or before the other, by end, then by start."""
        return self._of_key(
            key, lambda store: store.find_sessions(key, earliest_end_ms, latest_start_ms, reverse=reverse)
        )

    def fetch_keys(
        self, first_key: K | None, last_key: K | None, *, reverse: bool = False
    ) -> AsyncIterator[tuple[Windowed[K], V]]:
        """All sessions of keys within `[first_key, last_key]`; None is an open bound."""
        return self.find_sessions_of_keys(first_key, last_key, 0, END_OF_TIME_MS, reverse=reverse)

    def find_sessions_of_keys(
        self,
        first_key: K | None,
        last_key: K | None,
        earliest_end_ms: int,
        latest_start_ms: int,
        *,
        reverse: bool = False,
    ) -> AsyncIterator[tuple[Windowed[K], V]]:
        """As `find_sessions` for keys within `[first_key, last_key]`; None is an open bound.

        In each partition the order is that of segments of time, then by key, then by end and start.
        """
        return self._of_all(
            lambda store: store.find_sessions_of_keys(
                first_key, last_key, earliest_end_ms, latest_start_ms, reverse=reverse
            )
        )

    def all(self) -> AsyncIterator[tuple[Windowed[K], V]]:
        """All sessions that can be seen."""
        return self.fetch_keys(None, None)


class ReadOnlyVersionedStore(_View, Generic[K, V]):
    """Values under keys with what they were before, as they are committed. Times are in ms since the epoch.

    await app.store("prices").get("apples", as_of=1_700_000_000_000)
    """

    async def get(self, key: K, as_of: int | None = None) -> VersionedRecord[V] | None:
        """The newest version of `key`, or the one that held at the time `as_of`; None if it was deleted or not there.

        Of a time before the store's history it is known only if it was the newest version already.
        """
        return await self._one(key, lambda store: store.get(key, as_of))

    def history(
        self, key: K, first_ms: int = 0, last_ms: int = END_OF_TIME_MS
    ) -> AsyncIterator[VersionedRecord[V | None]]:
        """The versions of `key` that held at some time within `[first_ms, last_ms]`, the oldest first; deletes, with
        None as value, among them."""
        return self._of_key(key, lambda store: store.history(key, first_ms, last_ms))

    def all(self) -> AsyncIterator[tuple[K, VersionedRecord[V]]]:
        """The newest version of each key that has not been deleted, in the order of key bytes."""
        return self._of_all(lambda store: store.all())


VIEWS: Mapping[StoreKind, type[_View]] = {
    "key_value": ReadOnlyKeyValueStore,
    "timestamped_key_value": ReadOnlyKeyValueStore,
    "window": ReadOnlyWindowStore,
    "timestamped_window": ReadOnlyWindowStore,
    "session": ReadOnlySessionStore,
    "versioned": ReadOnlyVersionedStore,
}


def open_view(find: _Find, question: Question, kind: type[Any] | None, *, with_timestamps: bool) -> Any:
    """The view of a store, of the class that its kind has.

    Raises:
        UnknownStateStoreError: there is no such store.
        InvalidStateStoreError: it is of another kind than `kind`, or cannot be asked.
    """
    spec = spec_of(find(), question)
    view = VIEWS[spec.kind]
    if kind is not None and not issubclass(view, get_origin(kind) or kind):
        raise InvalidStateStoreError(f"store {spec.name} is read as {view.__name__}, not as {kind.__name__}")
    return view(find, question, with_timestamps=with_timestamps)
