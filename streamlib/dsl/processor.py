"""The Processor API: what a user's processor looks like, and what it is given."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from enum import Enum
from typing import Any, Protocol, TypeVar

from streamlib.records import FixedKeyRecord, Headers, Record, RecordMetadata, TaskId

KIn = TypeVar("KIn")
VIn = TypeVar("VIn")


class PunctuationType(Enum):
    """Which time makes a punctuator due.

    >>> [kind.value for kind in PunctuationType]
    ['stream_time', 'wall_clock_time']
    """

    STREAM_TIME = "stream_time"
    """The highest timestamp of the task's records: moves only with records, and the same way when they are redone."""
    WALL_CLOCK_TIME = "wall_clock_time"
    """The machine's clock: moves by itself."""


class Cancellable(Protocol):
    """What `schedule` returns.

    >>> from datetime import timedelta
    >>> from streamlib.testing import run_stream
    >>> class Once:
    ...     def init(self, context):
    ...         self.context = context
    ...         self.schedule = context.schedule(timedelta(seconds=1), PunctuationType.STREAM_TIME, self.punctuate)
    ...     def punctuate(self, now_ms):
    ...         self.context.forward(Record("now", now_ms, now_ms))
    ...         self.schedule.cancel()
    ...     def process(self, record):
    ...         pass
    >>> run_stream(lambda s: s.process(Once, key=str, value=int), [("a", 1, 1_500), ("a", 1, 9_000)])
    [('now', 1500)]
    """

    def cancel(self) -> None:
        """Never call the punctuator again; harmless when repeated, and within the punctuator."""
        ...


class ProcessingContext(Protocol):
    """What the contexts of all processors have."""

    def state_store(self, name: str) -> Any:
        """A store that was connected to the processor, by name."""
        ...

    def schedule(
        self,
        interval: timedelta,
        kind: PunctuationType,
        punctuator: Callable[[int], object],
        *,
        start_ms: int | None = None,
    ) -> Cancellable:
        """Have `punctuator(timestamp_ms)` called regularly; it may forward records and use the stores.

        It is called with the stream time or the wall clock, whichever it is scheduled on, after the record (or the
        clock) that made it due; once, however often it was due in between. Several that are due go by due time.

        Args:
            interval: at least one millisecond.
            kind: the time that counts.
            punctuator: called with that time in ms.
            start_ms: when it is due first. If not given, on stream time with the first record, then at the multiples of
                the interval; on the wall clock an interval from now, and so on.

        >>> from streamlib import StreamsBuilder
        >>> from streamlib.testing import TopologyTestDriver
        >>> class Ticks:
        ...     def init(self, context):
        ...         context.schedule(timedelta(seconds=5), PunctuationType.STREAM_TIME, print)
        ...     def process(self, record):
        ...         pass
        >>> builder = StreamsBuilder()
        >>> builder.stream("in", key=str, value=str).process(Ticks)
        ... # doctest: +ELLIPSIS
        <streamlib.dsl.kstream.KStream object at ...>
        >>> with TopologyTestDriver(builder.build()) as driver:
        ...     for time_ms in (4000, 4500, 5500, 21000):
        ...         driver.input_topic("in", key=str, value=str).pipe_input("a", "b", time_ms)
        4000
        5500
        21000
        """
        ...

    def commit(self) -> None:
        """Ask for what was done so far to be committed soon, without waiting for the commit interval."""
        ...

    @property
    def headers(self) -> Headers:
        """The headers of the record in process here; none in a punctuator."""
        ...

    @property
    def record_metadata(self) -> RecordMetadata | None:
        """Where the record in process came from; None in a punctuator."""
        ...

    @property
    def stream_time_ms(self) -> int:
        """The highest timestamp of all records the task has taken in; -1 before the first."""
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


class ProcessorContext(ProcessingContext, Protocol):
    """What a processor of `process` is given at `init`.

    >>> from streamlib.testing import run_stream
    >>> class Where:
    ...     def init(self, context):
    ...         self.context = context
    ...     def process(self, record):
    ...         self.context.forward(record.with_value(self.context.record_metadata.offset))
    >>> run_stream(lambda s: s.process(Where, value=int), [("a", 7), ("b", 8)])
    [('a', 0), ('b', 1)]
    """

    def forward(self, record: Record[Any, Any], child: str | None = None) -> None:
        """Hand a record to all children, or to one by name; returns when they are done with it."""
        ...


class FixedKeyProcessorContext(ProcessingContext, Protocol):
    """What a processor of `process_values` is given at `init`.

    >>> from streamlib.testing import run_stream
    >>> class Clock:
    ...     def init(self, context):
    ...         self.context = context
    ...     def process(self, record):
    ...         self.context.forward(record.with_value(self.context.stream_time_ms))
    >>> run_stream(lambda s: s.process_values(Clock, value=int), [("a", 7, 500), ("b", 8, 300)])
    [('a', 500), ('b', 500)]
    """

    def forward(self, record: FixedKeyRecord[Any, Any], child: str | None = None) -> None:
        """As that of `ProcessorContext`, for records under the key of the one in process."""
        ...


class Processor(Protocol[KIn, VIn]):
    """One instance per task, made by the supplier that `process` was given. `close` may be left out.

    >>> from streamlib.testing import run_stream
    >>> class Twice:
    ...     def init(self, context):
    ...         self.context = context
    ...     def process(self, record):
    ...         self.context.forward(record)
    ...         self.context.forward(record.with_key("again"))
    >>> run_stream(lambda s: s.process(Twice), [("a", 1)])
    [('a', 1), ('again', 1)]
    """

    def init(self, context: ProcessorContext) -> None:
        """Called once before the first record, and again on a new instance after a failure was rolled back."""
        ...

    def process(self, record: Record[KIn, VIn]) -> None:
        """Called for each record; results go to `context.forward`."""
        ...


class FixedKeyProcessor(Protocol[KIn, VIn]):
    """As `Processor`, for `process_values`: it changes values, timestamps and headers, but not keys.

    >>> from streamlib.testing import run_stream
    >>> class Doubled:
    ...     def init(self, context):
    ...         self.context = context
    ...     def process(self, record):
    ...         self.context.forward(record.with_value(record.value * 2))
    >>> run_stream(lambda s: s.process_values(Doubled), [("a", 1)])
    [('a', 2)]
    """

    def init(self, context: FixedKeyProcessorContext) -> None:
        """Called once before the first record, and again on a new instance after a failure was rolled back."""
        ...

    def process(self, record: FixedKeyRecord[KIn, VIn]) -> None:
        """Called for each record; results, made with `record.with_value` and the like, go to `context.forward`."""
        ...
