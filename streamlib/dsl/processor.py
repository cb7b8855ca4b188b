"""The Processor API: what a user's processor looks like, and what it is given."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from streamlib.records import Record, RecordMetadata, TaskId

KIn = TypeVar("KIn")
VIn = TypeVar("VIn")


class ProcessorContext(Protocol):
    """What a processor is given at `init`."""

    def forward(self, record: Record[Any, Any], child: str | None = None) -> None:
        """Hand a record to all children, or to one by name; returns when they are done with it."""
        ...

    def state_store(self, name: str) -> Any:
        """A store that was connected to the processor, by name."""
        ...

    @property
    def record_metadata(self) -> RecordMetadata | None:
        """Where the record in process came from."""
        ...

    @property
    def stream_time_ms(self) -> int:
        """The highest timestamp of all records the task has taken in."""
        ...

    @property
    def system_time_ms(self) -> int:
        """The wall clock."""
        ...

    @property
    def task_id(self) -> TaskId:
        """The task this processor runs in."""
        ...

    @property
    def application_id(self) -> str:
        """The application it belongs to."""
        ...


class Processor(Protocol[KIn, VIn]):
    """One instance per task, made by the supplier that `process` was given. `close` may be left out."""

    def init(self, context: ProcessorContext) -> None:
        """Called once before the first record, and again on a new instance after a failure was rolled back."""
        ...

    def process(self, record: Record[KIn, VIn]) -> None:
        """Called for each record; results go to `context.forward`."""
        ...
