"""Records that fail, in a task whose policy is to go on without them, or to try again.

A record is dropped where it failed: at the source, at the innermost operator, or at the sink. What other operators did
with it before or do afterwards stands (Kafka Streams' handlers for deserialization, processing and production). It is
counted and logged, and goes to the topic for dead letters if there is one, by the task's outbox and so in its
transaction.

    node raises --> guard of the node --decide--> Wait: to be tried again        engine/retries.py
                                              --> parked, to come back           engine/retry_topics.py
                                              --> Skip, DeadLetter: dropped
                                              --> Fail: raised, past all guards above
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, assert_never

import msgspec

from streamlib.engine.calls import Call, Calls, Line, Wait
from streamlib.engine.cursor import Cursor
from streamlib.engine.inputs import NodeFn, SkipUndecodable
from streamlib.engine.operators.sink import batch_bytes
from streamlib.engine.outbox import Outbox, Place
from streamlib.engine.retries import Done, may_retry, waiting_in_line
from streamlib.engine.retry_topics import Parking, StepRecord
from streamlib.errors import ProcessingError, SerializationError, StreamsError, registry_failure
from streamlib.partitioning import partitioner_for
from streamlib.policies import (
    DeadLetter,
    ErrorPolicies,
    Fail,
    FailedRecord,
    LastResort,
    PolicyFunction,
    Resolved,
    Retry,
    RetryTopics,
    Skip,
    is_policy,
)
from streamlib.records import FetchedRecord, Headers, OutRecord, TaskId, TopicPartition
from streamlib.topology.nodes import Node, ProcessorNode, SinkNode, SourceNode
from streamlib.topology.operators import CallOptions

log = logging.getLogger(__name__)

_PREFIX = "__streams.errors."

LOG_INTERVAL_MS = 10_000
"""A flood of bad records is not to become a flood of log lines."""


class _Failure(NamedTuple):
    """What failed, where, and what was tried. In a punctuator there is no record."""

    error: Exception
    stage: Literal["deserialization", "processing", "production"]
    node: str
    partition: TopicPartition | None
    record: FetchedRecord | None
    retries: int = 0
    last: bool = True  # it cannot be tried again


class ErrorHandling:
    """The policies of one task at work.

    Args:
        policies: the application's.
        nodes: of the task, parents before children.
        task_id: named in the log.
        cursor: tells the record in process; counts the dropped ones.
        outbox: takes dead letters.
        now_ms: the wall clock.
        dead_letters: the largest record that can be written; None: they are only skipped.
    """

    def __init__(
        self,
        policies: ErrorPolicies,
        nodes: Mapping[str, Node],
        task_id: TaskId,
        cursor: Cursor,
        outbox: Outbox,
        now_ms: Callable[[], int],
        dead_letters: int | None,
    ) -> None:
        self._policies = policies
        self._of_functions = {
            name: policies.of_processor(node.on_error)
            for name, node in nodes.items()
            if not isinstance(node, SourceNode)
        }
        self._below_guards = self._watched(nodes)
        self._dead_letters = dead_letters
        self._task_id = task_id
        self._cursor = cursor
        self._outbox = outbox
        self._log = RateLimitedLog(now_ms)
        self._places: dict[str, Place] = {}
        self._final: Exception | None = None  # what stops the task: it passes all guards

    def of_source(self, node: SourceNode) -> SkipUndecodable | None:
        """What a source does with a record that cannot be decoded; None: raise."""
        policy = self._policies.of_source(node.on_deserialization_error)
        if isinstance(policy, Fail):
            return None

        def skip(partition: TopicPartition, record: FetchedRecord, error: SerializationError) -> None:
            self._settle(policy, _Failure(error, "deserialization", node.name, partition, record))

        return skip

    def of_writing(self, node: SinkNode) -> Resolved:
        """The policy of a sink for what it cannot write."""
        return self._policies.of_sink(node.on_error)

    def guarded(self, compiled: NodeFn, node: ProcessorNode | SinkNode, line: Line | None = None) -> NodeFn:
        """The node, or one around it that deals with what fails in it.

        All nodes below that are lenient, or below a lenient one, are guarded, so what gets here and is not final is
        the node's own. `line`: the calls of the node, if its function is awaited.
        """
        name, of_function = node.name, self._of_functions[node.name]
        of_writing = self.of_writing(node) if isinstance(node, SinkNode) else of_function
        if isinstance(of_function, Fail) and isinstance(of_writing, Fail):
            return self._final_at(compiled) if name in self._below_guards else compiled
        if line is not None and not isinstance(of_function, Fail | Skip | DeadLetter):
            line.decide = lambda call, error: self._decide(of_function, _of_call(call, error))

        def guard(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
            try:
                compiled(key, value, timestamp, headers)
            except ProcessingError as error:
                decided = None if line is None else line.decision
                self._settle(of_function if decided is None else decided, self._failure(error, "processing", name))
            except SerializationError as error:
                stage: Any = "production" if isinstance(node, SinkNode) else "processing"
                self._settle(of_writing, self._failure(error, stage, name))

        return guard

    def may_retry(self, node: ProcessorNode) -> bool:
        """Whether what fails in the node may be tried again."""
        return may_retry(node, self._of_functions[node.name])

    def retried(self, compiled: NodeFn, node: ProcessorNode, calls: Calls, done: Done) -> NodeFn:
        """The node, with what fails in it tried again, unless something has been done by then."""
        policy = self._of_functions[node.name]
        line = calls.line(node.name, None, CallOptions(concurrency=calls.most_pending))

        def attempt(key: Any, value: Any, timestamp: int, headers: Headers) -> Wait | None:
            done.anything = False
            try:
                compiled(key, value, timestamp, headers)
            except ProcessingError as error:
                failure = self._failure(error, "processing", node.name)
                last = line.last or done.anything
                return self._settle(policy, failure._replace(retries=line.retries, last=last))
            except SerializationError as error:  # of a store, whose types do not change
                self._settle(policy, self._failure(error, "processing", node.name))
            return None

        return waiting_in_line(calls, line, attempt)

    def parked(self, compiled: NodeFn, node: ProcessorNode, parking: Parking, line: Line | None = None) -> NodeFn:
        """The node, with what fails in it put into its retry topics. `line`: as in `guarded`."""
        parks = self._parks(compiled, node, parking)

        def attempt(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
            parks(StepRecord(key, value, timestamp, headers))

        def in_order(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
            record = StepRecord(key, value, timestamp, headers)
            if (line is None and aside(record)) or parks(record):
                return
            parking.done(record)

        def aside(record: StepRecord) -> bool:
            """Whether it has gone behind others; of an awaited function to be asked before it is called."""
            try:
                return parking.behind(record)
            except SerializationError as error:
                writing = Fail() if parking.numbered else self._policies.of_sink(None)
                self._settle(writing, self._failure(error, "production", node.name))
                return True

        if not parking.keeps_order:
            return attempt
        if line is not None:
            line.aside = lambda call: aside(StepRecord(call.key, call.value, call.timestamp, call.headers))
        return in_order

    def _parks(self, compiled: NodeFn, node: ProcessorNode, parking: Parking) -> Callable[[StepRecord], bool]:
        """The node, which says whether a record is parked."""
        policy = self._of_functions[node.name]
        assert isinstance(policy, RetryTopics), f"node {node.name} has no retry topics"
        then = self._policies.last_resort(policy.then)

        def parks(record: StepRecord) -> bool:
            try:
                compiled(*record)
                return False
            except ProcessingError as error:
                failure = self._failure(error, "processing", node.name)._replace(retries=parking.failures)
                self._raise_final(error)
            except SerializationError as error:
                self._settle(then, self._failure(error, "processing", node.name))
                return False
            if parking.used_up:
                self._settle(then, failure)
                return False
            return self._park(parking, record, failure)

        return parks

    def _park(self, parking: Parking, record: StepRecord, failure: _Failure) -> bool:
        try:
            delay_ms = parking.park(record, failure.error)
        except SerializationError as error:
            self._settle(self._policies.of_sink(None), self._failure(error, "production", failure.node))
            return False
        what = f"task {self._task_id} parks a record of node {failure.node} for {delay_ms / 1000:g} s"
        self._log.warn(f"{what}: {_cause(failure)!r}{_where(failure)}")
        return True

    @property
    def in_punctuator(self) -> Callable[[StreamsError], None] | None:
        """What is done when a punctuator raised; None: raise. It will be called again in any case."""
        if all(isinstance(policy, Fail) for policy in self._of_functions.values()):
            return None

        def settle(error: StreamsError) -> None:
            node = getattr(error, "node", "")
            policy = self._of_functions.get(node, self._policies.of_processing)
            self._settle(policy, _Failure(error, "processing", node, None, None))

        return settle

    def _watched(self, nodes: Mapping[str, Node]) -> frozenset[str]:
        """The nodes that have a guard somewhere above them."""
        watched: set[str] = set()
        for name, node in nodes.items():
            if not isinstance(node, SourceNode) and any(
                parent in watched or not isinstance(self._of_functions.get(parent, Fail()), Fail)
                for parent in node.parents
            ):
                watched.add(name)
        return frozenset(watched)

    def _final_at(self, compiled: NodeFn) -> NodeFn:
        """A node whose errors are no matter of the guards above it."""

        def guard(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
            try:
                compiled(key, value, timestamp, headers)
            except (ProcessingError, SerializationError) as error:
                self._final = error
                raise

        return guard

    def _failure(self, error: Exception, stage: Any, node: str) -> _Failure:
        return _Failure(error, stage, node, self._cursor.partition, self._cursor.record)

    def _settle(self, policy: Resolved, failure: _Failure) -> Wait | None:
        """Do what the policy says, unless it is to try again: then say so.

        Raises:
            StreamsError: what failed is to stop the task, or has been said to already.
        """
        self._raise_final(failure.error)
        decision = self._decide(policy, failure)
        match decision:
            case Wait():
                return decision
            case Fail():
                self._final = failure.error
                raise failure.error
            case Skip() | DeadLetter():
                self._drop(decision, failure)
                return None
            case _:
                assert_never(decision)

    def _raise_final(self, error: Exception) -> None:
        """Raise what no policy is asked about."""
        if error is self._final:
            raise error
        if (of_registry := registry_failure(error)) is not None:
            raise of_registry

    def _decide(self, policy: Resolved, failure: _Failure) -> LastResort | Wait:
        if isinstance(policy, RetryTopics):
            return self._policies.last_resort(policy.then)  # in a punctuator, where there is no record
        if not isinstance(policy, Fail | Skip | DeadLetter | Retry):
            policy = self._asked(policy, failure)
        if not isinstance(policy, Retry):
            return policy
        if failure.last or failure.retries >= len(policy.delays):
            return self._policies.last_resort(policy.then)
        delay_s = policy.delays[failure.retries].total_seconds()
        what = f"task {self._task_id} tries node {failure.node} again in {delay_s:g} s"
        self._log.warn(f"{what}: {_cause(failure)!r}{_where(failure)}")
        return Wait(delay_s * 1000, policy.jitter)

    def _asked(self, function: PolicyFunction, failure: _Failure) -> LastResort | Retry:
        """What the user's function decides.

        Raises:
            ProcessingError: it raised, or what it returned is no policy. The task stops, as in Kafka Streams.
        """
        told = _told(failure, self._task_id)
        try:
            option = function(told)
        except Exception as error:
            raise self._undecided(failure, f"raised {type(error).__name__}: {error}") from error
        if is_policy(option):
            resolved = self._policies.resolved(option)
            if isinstance(resolved, Fail | Skip | DeadLetter | Retry):  # and no function
                return resolved
        raise self._undecided(failure, f"returned {option!r}, which is no policy") from failure.error

    def _undecided(self, failure: _Failure, what: str) -> ProcessingError:
        error = ProcessingError(
            f"node {failure.node}: the function that is to decide about {failure.error!r} {what}", node=failure.node
        )
        self._final = error
        return error

    def _drop(self, decision: Skip | DeadLetter, failure: _Failure) -> None:
        """Go on without a record; in a punctuator there is none."""
        error, partition, record = failure.error, failure.partition, failure.record
        self._cursor.dropped += 1
        if partition is None or record is None:
            self._log.warn(f"task {self._task_id} goes on after an error in a punctuator: {error}")
            return
        place = "" if failure.stage == "deserialization" else _where(failure)
        if not isinstance(decision, DeadLetter) or self._dead_letters is None:
            self._log.warn(f"task {self._task_id} skips a record: {error}{place}")
        else:
            assert decision.topic is not None, "a policy at work names its topic"
            self._log.warn(f"task {self._task_id} writes a dead letter to {decision.topic}: {error}{place}")
            beyond = {"node": failure.node, "application": self._policies.application_id}
            self._send(decision.topic, _fitting(dead_letter(partition, record, error, beyond), self._dead_letters))

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
    partition_of = partitioner_for(len(slots))
    otherwise = task_id.partition % len(slots)

    def place(key: Any, value: Any, record: OutRecord) -> None:
        slots[otherwise if record[0] is None else partition_of(record[0])].append(record)

    return place


def _of_call(call: Call, error: Exception) -> _Failure:
    return _Failure(error, "processing", call.line.name, call.partition, call.record, call.retries, call.last)


def _where(failure: _Failure) -> str:
    if failure.partition is None or failure.record is None:
        return ""
    return f" [{failure.partition.at(failure.record.offset)}]"


def _cause(failure: _Failure) -> Exception:
    """What the user's function, or a serde, raised."""
    cause = failure.error.__cause__ if isinstance(failure.error, StreamsError) else None
    return cause if isinstance(cause, Exception) else failure.error


def _told(failure: _Failure, task_id: TaskId) -> FailedRecord:
    told = FailedRecord(
        error=_cause(failure),
        stage=failure.stage,
        node=failure.node,
        retries=failure.retries,
        task=str(task_id),
    )
    if failure.partition is None or failure.record is None:
        return told
    record, (topic, partition) = failure.record, failure.partition
    return msgspec.structs.replace(
        told,
        topic=topic,
        partition=partition,
        offset=record.offset,
        timestamp=record.timestamp,
        key=record.key,
        value=record.value,
        headers=record.headers,
    )


def dead_letter(
    partition: TopicPartition, record: FetchedRecord, error: Exception, beyond: Mapping[str, str]
) -> OutRecord:
    """The record as it was read, with headers that tell where and why it failed.

    Source: KIP-1034, `ExceptionHandlerUtils`, which has all but what is in `beyond`.
    """
    cause = error.__cause__ or error
    told = {
        "exception": f"{type(cause).__module__}.{type(cause).__qualname__}",
        "message": str(cause),
        "stacktrace": "".join(traceback.format_exception(cause)),
        "topic": partition.topic,
        "partition": str(partition.partition),
        "offset": str(record.offset),
        **beyond,
    }
    headers = (*record.headers, *((f"{_PREFIX}{name}", text.encode()) for name, text in told.items()))
    return record.key, record.value, record.timestamp, headers


def _fitting(letter: OutRecord, most_bytes: int) -> OutRecord:
    """What was read may be about as large as can be written: then long texts are left out."""
    key, value, timestamp, headers = letter
    for name in ("stacktrace", "message"):
        if batch_bytes((key, value, timestamp, headers)) <= most_bytes:
            break
        headers = tuple(header for header in headers if header[0] != f"{_PREFIX}{name}")
    return key, value, timestamp, headers


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
