"""Where a task is traced, if it is asked to: nodes are wrapped when they are compiled, otherwise nothing is there.

What belongs to a record is found by its headers, so it is found again wherever the record goes on: after a call that
was awaited, after a repartition topic, in another application.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from streamlib.engine.cursor import Cursor
from streamlib.engine.inputs import NodeFn
from streamlib.records import TaskId
from streamlib.topology.nodes import ProcessorNode, SinkNode, SourceNode

if TYPE_CHECKING:
    from streamlib.engine.calls import Answer, Call

TracedCall: TypeAlias = Callable[["Call", Awaitable["Answer"]], Awaitable["Answer"]]
"""Awaits the answer of a call, and traces that."""


class TaskTracing(Protocol):
    """Traces one task, from its start until it is started again."""

    def source(self, node: SourceNode, cursor: Cursor, forward: NodeFn) -> NodeFn:
        """What comes after a source, for a record that `cursor` is on."""
        ...

    def processor(self, node: ProcessorNode, compiled: NodeFn, *, goes_on: bool) -> NodeFn:
        """A node. `goes_on`: it may be called again later, when the record is not the one in process any more."""
        ...

    def sink(self, node: SinkNode, topic: str | None, compiled: NodeFn) -> NodeFn:
        """A sink of this topic, by its full name; None if it is chosen per record."""
        ...

    def call(self, call: Call, answer: Awaitable[Answer]) -> Awaitable[Answer]:
        """A call of a function that is awaited; see `TracedCall`."""
        ...

    def sealed(self) -> None:
        """What was processed so far is being committed, what comes now is not."""
        ...

    def committed(self) -> None:
        """What was sealed is committed."""
        ...

    def dropped(self) -> None:
        """Whatever is not committed never will be: it is processed again."""
        ...


class Tracing(Protocol):
    """Traces an application."""

    def of_task(self, application_id: str, task_id: TaskId) -> TaskTracing:
        """One of its tasks."""
        ...
