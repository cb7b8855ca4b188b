"""Records that fail, in a task whose policy is to go on without them.

A record is dropped where it failed: at the source, or at the innermost operator. What other operators did with it
before or do afterwards stands (Kafka Streams' handlers for deserialization and processing). It is counted and logged,
and goes to the topic for dead letters if there is one, by the task's outbox and so in its transaction.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import Any

from streamlib.engine.cursor import Cursor
from streamlib.engine.inputs import NodeFn, SkipUndecodable
from streamlib.engine.outbox import Outbox, Place
from streamlib.errors import ProcessingError, SerializationError, StreamsError
from streamlib.partitioning import KeyPartitioner
from streamlib.policies import DeadLetter, ErrorPolicies, ErrorPolicy, Fail, PolicyOption
from streamlib.records import FetchedRecord, Headers, OutRecord, TaskId, TopicPartition

log = logging.getLogger(__name__)

LOG_INTERVAL_MS = 10_000
"""A flood of bad records is not to become a flood of log lines."""


class ErrorHandling:
    """The policies of one task at work.

    Args:
        policies: the application's.
        task_id: named in the log.
        cursor: tells the record in process; counts the dropped ones.
        outbox: takes dead letters.
        now_ms: the wall clock.
        dead_letters: whether they are written; else they are only skipped.
    """

    def __init__(
        self,
        policies: ErrorPolicies,
        task_id: TaskId,
        cursor: Cursor,
        outbox: Outbox,
        now_ms: Callable[[], int],
        *,
        dead_letters: bool = True,
    ) -> None:
        self._policies = policies
        self._dead_letters = dead_letters
        self._task_id = task_id
        self._cursor = cursor
        self._outbox = outbox
        self._log = RateLimitedLog(now_ms)
        self._places: dict[str, Place] = {}

    def of_source(self, option: PolicyOption | None) -> SkipUndecodable | None:
        """What a source does with a record that cannot be decoded; None: raise."""
        policy = self._policies.of_source(option)
        if isinstance(policy, Fail):
            return None
        return lambda partition, record, error: self._drop(policy, error, partition, record)

    def guarded(self, node: NodeFn, name: str, *, is_sink: bool = False) -> NodeFn:
        """The node, or one around it that drops what fails in it.

        All nodes below are guarded, so what gets here is the node's own. A sink's results that cannot be encoded are
        another matter, and pass: they fail the task.
        """
        if self.skip_failed is None:
            return node
        skip = self.skip_failed

        def guard(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
            try:
                node(key, value, timestamp, headers)
            except ProcessingError as error:
                skip(error)
            except SerializationError as error:
                if is_sink or error.node not in (name, None):  # stores do not name the node
                    raise
                skip(error)

        return guard

    @property
    def skip_failed(self) -> Callable[[StreamsError], None] | None:
        """What is done when a user function raised; None: raise."""
        policy = self._policies.of_processing
        if isinstance(policy, Fail):
            return None
        return lambda error: self._drop(policy, error, self._cursor.partition, self._cursor.record)

    def _drop(
        self, policy: ErrorPolicy, error: StreamsError, partition: TopicPartition | None, record: FetchedRecord | None
    ) -> None:
        """Go on without a record; in a punctuator there is none."""
        self._cursor.dropped += 1
        if partition is None or record is None:
            self._log.warn(f"task {self._task_id} goes on after an error in a punctuator: {error}")
            return
        place = "" if isinstance(error, SerializationError) else f" [{partition.at(record.offset)}]"
        self._log.warn(f"task {self._task_id} skips a record: {error}{place}")
        if isinstance(policy, DeadLetter) and self._dead_letters:
            assert policy.topic is not None, "a policy at work names its topic"
            self._send(policy.topic, dead_letter(partition, record, error))

    def _send(self, topic: str, record: OutRecord) -> None:
        if self._outbox.knows(topic):
            self._place(topic)(None, None, record)
        else:
            self._outbox.hold(topic, None, None, record, self._place)

    def _place(self, topic: str) -> Place:
        if topic not in self._places:
            self._places[topic] = _by_raw_key(self._outbox, topic, self._task_id)
        return self._places[topic]


def _by_raw_key(outbox: Outbox, topic: str, task_id: TaskId) -> Place:
    """By the bytes of the key as Kafka's clients do; without a key, wherever the task is."""
    slots = outbox.slots(topic)
    partition_of = KeyPartitioner(len(slots))
    otherwise = task_id.partition % len(slots)

    def place(key: Any, value: Any, record: OutRecord) -> None:
        slots[otherwise if record[0] is None else partition_of(record[0])].append(record)

    return place


def dead_letter(partition: TopicPartition, record: FetchedRecord, error: StreamsError) -> OutRecord:
    """The record as it was read, with headers that tell where and why it failed.

    Source: KIP-1034, `ExceptionHandlerUtils`.
    """
    cause = error.__cause__ or error
    told = {
        "exception": f"{type(cause).__module__}.{type(cause).__qualname__}",
        "message": str(cause),
        "stacktrace": "".join(traceback.format_exception(cause)),
        "topic": partition.topic,
        "partition": str(partition.partition),
        "offset": str(record.offset),
    }
    headers = (*record.headers, *((f"__streams.errors.{name}", text.encode()) for name, text in told.items()))
    return record.key, record.value, record.timestamp, headers


class RateLimitedLog:
    """Passes one warning on, then counts for a while."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._quiet_until_ms = 0
        self._held_back = 0

    def warn(self, text: str) -> None:
        now_ms = self._now_ms()
        if now_ms < self._quiet_until_ms:
            self._held_back += 1
            return
        more = f" ({self._held_back} more since the last warning)" if self._held_back else ""
        log.warning("%s%s", text, more)
        self._quiet_until_ms, self._held_back = now_ms + LOG_INTERVAL_MS, 0
