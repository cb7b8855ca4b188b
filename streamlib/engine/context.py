"""What a user's processor gets: forwarding, stores, time, and where it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from streamlib.dsl.processor import Cancellable, PunctuationType
from streamlib.engine.retries import NotedStore
from streamlib.errors import ProcessingError, StreamsError, TopologyError
from streamlib.records import FixedKeyRecord, Headers, Record, RecordMetadata, TaskId
from streamlib.state.rows import Rows
from streamlib.state.stores import open_store
from streamlib.topology.functions import user_function
from streamlib.windows import duration_ms

if TYPE_CHECKING:
    from streamlib.engine.operators.site import Site

AnyRecord = Record[Any, Any] | FixedKeyRecord[Any, Any]


class TaskFacts(msgspec.Struct, frozen=True):
    """What does not change while a task lives."""

    application_id: str
    task_id: TaskId
    now_ms: Callable[[], int]


class ProcessorContext:
    """The context of one processor node in one task.

    `record` is the one in process here, None in a punctuator. `timestamp` is its time, or that of the punctuation:
    stores without timestamps of their own log their changes with it. Each node has its own context, so a record that is
    forwarded elsewhere does not change it.

    Args:
        site: where the node is.
        stores: what it may use.
        keeps_key: records are only forwarded under the key of the one in process.
    """

    def __init__(self, site: Site, stores: Mapping[str, Rows], *, keeps_key: bool = False) -> None:
        self.record: AnyRecord | None = None
        self.timestamp = 0
        self._site = site
        self._node = site.name
        self._forward = site.forward
        self._children = site.children
        self._cursor = site.work.cursor
        self._facts = site.work.facts
        self._keeps_key = keeps_key
        self._stores: dict[str, Any] = {name: open_store(rows, self) for name, rows in stores.items()}
        if site.done is not None:
            self._stores = {name: NotedStore(store, site.done) for name, store in self._stores.items()}

    def forward(self, record: AnyRecord, child: str | None = None) -> None:
        """Hand a record to all children in the order they were attached, or to one by name; returns when they are done.

        Raises:
            TopologyError: there is no such child.
            ProcessingError: the node keeps the key, and this is another; the timestamp is negative.
        """
        if record.timestamp < 0:
            raise ProcessingError(
                f"node {self._node} forwards a record with timestamp {record.timestamp}: times are in ms since the "
                "epoch and not negative, and no reader would take it",
                node=self._node,
            )
        if self._keeps_key:
            self._check_key(record)
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

    def schedule(
        self,
        interval: timedelta,
        kind: PunctuationType,
        punctuator: Callable[[int], object],
        *,
        start_ms: int | None = None,
    ) -> Cancellable:
        """See `streamlib.dsl.processor.ProcessingContext`.

        Raises:
            TopologyError: it cannot be scheduled like that.
        """
        if self._site.done is not None:
            self._site.done.anything = True
        where = f"node {self._node}: schedule"
        _check_schedule(kind, start_ms, where)
        interval_ms = duration_ms(interval, f"{where}: the interval", positive=True)
        function = user_function(punctuator, where)
        return self._site.schedule(kind, interval_ms, lambda now_ms: self._punctuate(function, now_ms), start_ms)

    def _punctuate(self, punctuator: Callable[[int], object], now_ms: int) -> None:
        self.record, self.timestamp = None, now_ms
        try:
            punctuator(now_ms)
        except StreamsError:
            raise  # from a node downstream, or from a store: it names its place already
        except Exception as error:
            raise ProcessingError(
                f"node {self._node}: a punctuator raised {type(error).__name__}: {error}", node=self._node
            ) from error

    def commit(self) -> None:
        """Ask for a commit soon."""
        self._cursor.commit_requested = True

    @property
    def headers(self) -> Headers:
        """Of the record in process here."""
        return () if self.record is None else self.record.headers

    @property
    def record_metadata(self) -> RecordMetadata | None:
        """Where the record in process came from; None if no record is."""
        cursor = self._cursor
        if cursor.partition is None or cursor.record is None:
            return None
        return RecordMetadata(*cursor.partition, cursor.record.offset, cursor.derived)

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

    def _check_key(self, record: AnyRecord) -> None:
        if not isinstance(record, FixedKeyRecord):
            raise ProcessingError(
                f"node {self._node} keeps the key, so it forwards what record.with_value(...) and the like give, not "
                f"{type(record).__name__}: use process instead of process_values to change keys",
                node=self._node,
            )
        if self.record is not None and record.key is not self.record.key and record.key != self.record.key:
            raise ProcessingError(
                f"node {self._node} keeps the key {self.record.key!r}, and cannot forward {record.key!r}: use process "
                "instead of process_values to change keys",
                node=self._node,
            )


def _check_schedule(kind: object, start_ms: object, where: str) -> None:
    if not isinstance(kind, PunctuationType):
        raise TopologyError(f"{where} needs a PunctuationType, not {kind!r}")
    if start_ms is not None and (not isinstance(start_ms, int) or start_ms < 0):
        raise TopologyError(f"{where} starts at a time in ms since the epoch, not {start_ms!r}")


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
