"""Where an operator is compiled: its node, what comes after it, and the parts of the task it may use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from streamlib.engine.context import OpenProcessor, TaskFacts
from streamlib.engine.cursor import Cursor, StreamTime
from streamlib.engine.inputs import NodeFn
from streamlib.engine.outbox import Outbox
from streamlib.errors import ProcessingError, SerializationError, TopologyError
from streamlib.records import Headers
from streamlib.state.overlay import Overlay
from streamlib.topology.nodes import StoreSpec

ValueGetter: TypeAlias = Callable[[Any], Any]
"""Looks a table's row up: f(key) -> value or None."""


class OpenStore(msgspec.Struct, frozen=True):
    """A store of the task: what it is, its uncommitted writes, and its bytes in the way of its kind."""

    spec: StoreSpec
    overlay: Overlay
    rows: Any


class Work(msgspec.Struct, frozen=True):
    """What all nodes of a task share. `getter` finds a table's rows by the name of its node; `processors` are the
    user's, in the order they were compiled; `stream_times` the operators', by node."""

    cursor: Cursor
    outbox: Outbox
    stores: Mapping[str, OpenStore]
    getter: Callable[[str], ValueGetter]
    facts: TaskFacts
    processors: list[OpenProcessor]
    stream_times: dict[str, StreamTime]


class Site(msgspec.Struct, frozen=True):
    """One processor node in the making. `children` in the order they were attached; `forward` calls them all."""

    name: str
    children: Mapping[str, NodeFn]
    forward: NodeFn
    stores: Sequence[str]
    sends_old_values: bool
    work: Work

    def store(self, name: str) -> OpenStore:
        """A store by name."""
        if name not in self.work.stores:
            raise TopologyError(f"node {self.name}: there is no store {name}")
        return self.work.stores[name]

    def stream_time(self) -> StreamTime:
        """The operator's own stream time, as it was committed; the operator moves it on."""
        return self.work.stream_times.setdefault(self.name, StreamTime())


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
