"""What a user's processor gets: forwarding, stores, and where it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from streamlib.engine.cursor import Cursor
from streamlib.engine.inputs import NodeFn
from streamlib.errors import ProcessingError, TopologyError
from streamlib.records import Record, RecordMetadata, TaskId
from streamlib.state.rows import Rows
from streamlib.state.stores import open_store


class TaskFacts(msgspec.Struct, frozen=True):
    """What does not change while a task lives."""

    application_id: str
    task_id: TaskId
    now_ms: Callable[[], int]


class ProcessorContext:
    """The context of one processor node in one task.

    `timestamp` is the time of the record in process here: stores without timestamps of their own log their changes
    with it. Each node has its own context, so a record that is forwarded elsewhere does not change it.
    """

    def __init__(
        self,
        node: str,
        forward: NodeFn,
        children: Mapping[str, NodeFn],
        stores: Mapping[str, Rows],
        cursor: Cursor,
        facts: TaskFacts,
    ) -> None:
        self.timestamp = 0
        self._node = node
        self._forward = forward
        self._children = children
        self._cursor = cursor
        self._facts = facts
        self._stores = {name: open_store(rows, self) for name, rows in stores.items()}

    def forward(self, record: Record[Any, Any], child: str | None = None) -> None:
        """Hand a record to all children in the order they were attached, or to one by name; returns when they are done.

        Raises:
            TopologyError: there is no such child.
        """
        if child is None:
            self._forward(record.key, record.value, record.timestamp, record.headers)
            return
        if child not in self._children:
            raise TopologyError(f"node {self._node} has no child {child}; its children: {sorted(self._children)}")
        self._children[child](record.key, record.value, record.timestamp, record.headers)

    def state_store(self, name: str) -> Any:
        """A store connected to this processor.

        Raises:
            TopologyError: it is not connected.
        """
        if name not in self._stores:
            raise TopologyError(
                f"node {self._node} may not use store {name}; connected: {sorted(self._stores)}: "
                "name the store where the processor is added"
            )
        return self._stores[name]

    @property
    def record_metadata(self) -> RecordMetadata | None:
        """Where the record in process came from; None if no record is."""
        cursor = self._cursor
        if cursor.partition is None or cursor.record is None:
            return None
        return RecordMetadata(*cursor.partition, cursor.record.offset)

    @property
    def stream_time_ms(self) -> int:
        """The highest timestamp of all records the task has taken in; -1 before the first."""
        return self._cursor.stream_time

    @property
    def system_time_ms(self) -> int:
        """The wall clock."""
        return self._facts.now_ms()

    @property
    def task_id(self) -> TaskId:
        return self._facts.task_id

    @property
    def application_id(self) -> str:
        return self._facts.application_id


class OpenProcessor(msgspec.Struct, frozen=True):
    """A user's processor in a task that runs."""

    name: str
    processor: Any
    context: ProcessorContext

    def init(self) -> None:
        self._call("init", self.context)

    def close(self) -> None:
        self._call("close")

    def _call(self, method: str, *arguments: Any) -> None:
        function = getattr(self.processor, method, None)
        if function is None:
            return
        try:
            function(*arguments)
        except Exception as error:
            raise ProcessingError(
                f"node {self.name}: {method} raised {type(error).__name__}: {error}", node=self.name
            ) from error
