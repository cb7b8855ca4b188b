"""Where an operator is compiled: its node, what comes after it, and the parts of the task it may use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from streamlib.dsl.processor import PunctuationType
from streamlib.engine.calls import Calls
from streamlib.engine.counts import Counts
from streamlib.engine.cursor import Cursor, StreamTime
from streamlib.engine.inputs import NodeFn
from streamlib.engine.outbox import Outbox
from streamlib.engine.punctuation import Punctuation, Punctuator, Schedule
from streamlib.engine.record_cache import CacheBudget, RecordCache
from streamlib.engine.tracing import TaskTracing
from streamlib.errors import ProcessingError, SerializationError, TopologyError
from streamlib.records import Headers
from streamlib.state.overlay import Overlay
from streamlib.topology.nodes import StoreSpec

if TYPE_CHECKING:
    from streamlib.engine.context import OpenProcessor, TaskFacts
    from streamlib.engine.retries import Done

TableRow: TypeAlias = tuple[Any, int]
"""A row's value, never None, and its timestamp."""

RawRow: TypeAlias = tuple[bytes, int]
"""An encoded row, and its timestamp."""


class TableRows(msgspec.Struct, frozen=True):
    """Looks the rows of a table up; bind the function you need once, when the operator is compiled.

    Attributes:
        value: f(key) -> the row's value; None if there is no row.
        row: f(key) -> the row with its timestamp; None if there is no row.
        as_of: f(key, timestamp) -> the row that was valid then; None if there was none. Only versioned tables have it.
        raw: f(encoded key) -> the row as it is stored; None if there is no row. Only stored tables have it.
    """

    value: Callable[[Any], Any]
    row: Callable[[Any], TableRow | None]
    as_of: Callable[[Any, int], TableRow | None] | None = None
    raw: Callable[[bytes], RawRow | None] | None = None


class OpenStore(msgspec.Struct, frozen=True):
    """A store of the task: what it is, its uncommitted writes, and its bytes in the way of its kind."""

    spec: StoreSpec
    overlay: Overlay
    rows: Any


class Work(msgspec.Struct, frozen=True):
    """What all nodes of a task share. `getter` finds a table's rows by the name of its node; `processors` are the
    user's, in the order they were compiled; `stream_times` the operators', by node; `global_stores` can be read by all
    of them; nodes of global stores have no `punctuation` and no `calls`. `behind()`: records are known to wait for the
    task. `shared` is what several nodes have in common, by a name they agree on. `max_record_bytes`: none larger can be
    written. `counts`: nodes are counted. `tracing`: records are traced."""

    cursor: Cursor
    outbox: Outbox
    stores: Mapping[str, OpenStore]
    getter: Callable[[str], TableRows]
    facts: TaskFacts
    processors: list[OpenProcessor]
    stream_times: dict[str, StreamTime]
    global_stores: Mapping[str, OpenStore] = {}
    punctuation: Punctuation | None = None
    caches: dict[str, RecordCache] = {}
    cache_budget: CacheBudget | None = None
    behind: Callable[[], bool] = lambda: False
    shared: dict[str, Any] = {}
    calls: Calls | None = None
    max_record_bytes: int = (1 << 31) - 1
    counts: Counts | None = None
    tracing: TaskTracing | None = None


class Site(msgspec.Struct, frozen=True):
    """One processor node in the making. `children` in the order they were attached; `forward` calls them all.

    `cached`: `forward` is the record cache of the table that the node makes. Its changes need their old values, None
    where there was no row. `below_versioned`: changes that come to it may be out of order. `tells_ids`: something at or
    below it may ask for the ids of records. `done`: note there what a user's processor does, for it may have to be
    called again.
    """

    name: str
    children: Mapping[str, NodeFn]
    forward: NodeFn
    stores: Sequence[str]
    sends_old_values: bool
    work: Work
    cached: bool = False
    below_versioned: bool = False
    tells_ids: bool = False
    done: Done | None = None

    def noted(self, done: Done) -> Site:
        """The same, with what is forwarded noted."""
        children = {name: done.noted(child) for name, child in self.children.items()}
        return msgspec.structs.replace(self, children=children, forward=done.noted(self.forward), done=done)

    def store(self, name: str) -> OpenStore:
        """A store by name."""
        if name not in self.work.stores:
            raise TopologyError(f"node {self.name}: there is no store {name}")
        return self.work.stores[name]

    def stream_time(self) -> StreamTime:
        """The operator's own stream time, as it was committed; the operator moves it on."""
        return self.work.stream_times.setdefault(self.name, StreamTime())

    def schedule(
        self, kind: PunctuationType, interval_ms: int, punctuator: Punctuator, start_ms: int | None = None
    ) -> Schedule:
        """Have a function called from time to time; see `Punctuation.schedule`.

        No record is in process then: `cursor.record` is None, and what is forwarded has the time one gives it.

        Raises:
            TopologyError: no time passes here.
        """
        if self.work.punctuation is None:
            raise TopologyError(f"node {self.name}: nothing can be scheduled where a global store is filled")
        return self.work.punctuation.schedule(kind, interval_ms, punctuator, start_ms)


def fan_out(children: Sequence[NodeFn]) -> NodeFn:
    """One function that calls all children in order; the child itself if there is one."""
    match len(children):
        case 0:
            return _nowhere
        case 1:
            return children[0]
        case 2:
            return _to_two(*children)
        case _:
            return _to_many(tuple(children))


def _nowhere(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
    """The end of the line."""


def _to_two(first: NodeFn, second: NodeFn) -> NodeFn:
    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        first(key, value, timestamp, headers)
        second(key, value, timestamp, headers)

    return node


def _to_many(children: tuple[NodeFn, ...]) -> NodeFn:
    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        for child in children:
            child(key, value, timestamp, headers)

    return node


def short(value: object) -> str:
    """A value for an error message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def user_error(node: str, key: object, error: Exception) -> ProcessingError:
    """What a user function raised, with its node and key; the task adds topic, partition and offset."""
    return ProcessingError(f"node {node}: {type(error).__name__}: {error} (key {short(key)})", node=node)


def store_error(node: str, store: StoreSpec, key: object, value: object, error: Exception) -> SerializationError:
    """A key or an aggregate that its store cannot encode."""
    return SerializationError(
        f"node {node}: store {store.name} cannot encode {short(value)} under key {short(key)}: {error}; it holds "
        f"keys {store.key.name} and values {store.value.name}: give the step that makes the store the types it holds",
        node=node,
    )
