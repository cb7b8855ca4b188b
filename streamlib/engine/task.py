"""A task: one partition's share of a subtopology, as a value machine.

    batches --enqueue--> inputs --process--> compiled nodes --> outbox  --take_outputs-->      to topics
                         clock --punctuate-->               --> overlays --seal--> to changelogs

    created --start--> running --seal--> running, something sealed --commit--> running
       ^  restore         |                         |
       +---- rollback ----+-------------------------+                    any --close--> closed

A commit comes in two halves: `seal` says what the transaction has to contain, which is everything so far; `commit` is
told that it is committed, and only then are the stores written. In between more may be processed: it is kept apart,
for the next commit, and goes down with this one if that fails. After an error the only way is `rollback`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from functools import partial
from itertools import chain, compress, count, dropwhile
from types import TracebackType
from typing import NamedTuple

from streamlib.engine.calls import Answer, Call, Calls
from streamlib.engine.compile import Compiler, children_of
from streamlib.engine.context import OpenProcessor, TaskFacts
from streamlib.engine.counts import Counts
from streamlib.engine.cursor import END_OF_TIME, NO_TIME, Cursor, StreamTime
from streamlib.engine.error_handling import ErrorHandling
from streamlib.engine.inputs import ENDLESS, CompiledSource, Input, Slice, decode_metadata, room_for_progress
from streamlib.engine.operators.lookup import table_rows
from streamlib.engine.operators.site import OpenStore, TableRows, Work
from streamlib.engine.outbox import Outbox
from streamlib.engine.plan import Plan
from streamlib.engine.punctuation import Punctuation
from streamlib.engine.reach import finishes_at_once
from streamlib.engine.record_cache import CacheBudget, RecordCache
from streamlib.engine.services import Services
from streamlib.engine.tracing import TaskTracing
from streamlib.errors import ProcessingError, SchemaRegistryError, StateStoreError, StreamsError, registry_failure
from streamlib.policies import ErrorPolicies
from streamlib.records import FetchedBatch, FetchedRecord, OffsetAndMetadata, OutRecord, TaskId, TopicPartition
from streamlib.state.backend import Backend
from streamlib.state.overlay import DEFAULT_MAX_VALUE_BYTES
from streamlib.state.segments import Segments
from streamlib.state.stores import first_unreadable, open_overlay, open_rows, reads_values, restored_rows
from streamlib.topology.nodes import SourceNode, StoreSpec

log = logging.getLogger(__name__)

NEVER_WAIT = -1
"""`max_task_idle_ms` that turns waiting for empty inputs off."""


NOTHING_COMMITTED = -1
"""Unlike any offset."""

MOST_AHEAD = 100_000
"""So far the position may be ahead of a record whose call is pending: that many are read again after a crash."""

LEAST_PENDING = 100
"""Where fewer unfinished records fit into the metadata of a commit, commits wait for calls."""


class Phase(Enum):
    """Where a task is in its life; see the module."""

    CREATED = "created"
    RUNNING = "running"
    FAILED = "failed"
    CLOSED = "closed"


class Sealed(NamedTuple):
    """What a task did since the last commit was begun, as a transaction has to contain it.

    Args:
        changelog: the stores' changes by changelog partition, one record for each key that changed.
        offsets: what is to be committed of the inputs.
        low_water_marks: for each input the offset below which nothing is read again once this is committed.
    """

    changelog: dict[TopicPartition, list[OutRecord]]
    offsets: dict[TopicPartition, OffsetAndMetadata]
    low_water_marks: dict[TopicPartition, int]


class _StoreWrites(NamedTuple):
    """What is to be done to the stores once it is committed."""

    changes: dict[str, dict[bytes, bytes | None]]
    expired: list[tuple[str, bytes, bytes]]  # store, start, end


class _FailingForGood:
    """A block after an error in which there is no going on; the error is told its place.

    Entered for every slice of every task, where a generator's context would be a tenth of a microsecond a record.
    """

    def __init__(self, fail: Callable[[BaseException], None]) -> None:
        self._fail = fail

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._fail(error)


class Task:
    """See the module.

    Args:
        plan: the application's plan.
        task_id: which of its tasks this is.
        backend: the committed bytes of its stores; the task closes it.
        now_ms: the wall clock.
        max_task_idle_ms: how long to wait for an empty input while others have records (KIP-353, KIP-695): 0 waits
            only for partitions known to have more, -1 never waits.
        max_value_bytes: the largest row a store takes.
        global_stores: those of the worker, to read.
        cache_budget: what the record caches of the worker's tasks may hold; None: there are none.
        policies: what becomes of records that fail; they stop the task if not given.
        services: what the worker knows of the services that its tasks call; this one's own if not given.
        counts: counts the records of each node; not done if not given.
        tracing: traces records; not done if not given.
    """

    def __init__(
        self,
        plan: Plan,
        task_id: TaskId,
        backend: Backend,
        *,
        now_ms: Callable[[], int],
        max_task_idle_ms: int = 0,
        max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES,
        global_stores: Mapping[str, OpenStore] | None = None,
        cache_budget: CacheBudget | None = None,
        policies: ErrorPolicies | None = None,
        services: Services | None = None,
        counts: Counts | None = None,
        tracing: TaskTracing | None = None,
    ) -> None:
        self.id = task_id
        self.inputs = plan.inputs(task_id)
        self.changelogs = plan.changelogs(task_id)
        self.backend = backend
        self.records_restored = 0
        self.counts = counts
        self._tracing = tracing
        self._dropped_before = 0  # before the last start
        self._plan = plan
        self._now_ms = now_ms
        self._max_task_idle_ms = max_task_idle_ms
        self._phase = Phase.CREATED
        self._failing_for_good = _FailingForGood(self._fail)
        self._specs = {spec.name: spec for spec in plan.stores(task_id)}
        self._max_value_bytes = max_value_bytes
        self._global_stores = global_stores or {}
        self._cache_budget = cache_budget if cache_budget is not None and cache_budget.max_bytes > 0 else None
        self._policies = policies or ErrorPolicies()
        self._unreadable: dict[str, StateStoreError] = {}  # by store: the first row that it cannot read
        self._services = services or Services(now_ms)
        self._changelog_of = {store: partition for partition, store in self.changelogs.items()}
        self._store_positions = backend.positions()
        self._learnt_partitions: dict[str, int] = {}
        self._sealed_stream_time = NO_TIME
        self.committed_stream_time = NO_TIME
        """Stream time as of what is in the stores; -1 in a task that has not started. Any thread may ask."""
        # What `start` makes anew:
        self._cursor = Cursor()
        self._punctuation = Punctuation(self._cursor, now_ms)
        self._outbox = Outbox({})
        self._stores: dict[str, OpenStore] = {}
        self._stream_times: dict[str, StreamTime] = {}
        self._processors: list[OpenProcessor] = []
        self._caches: dict[str, RecordCache] = {}  # by store, the last table first
        self._calls: Calls | None = None  # None: no function of it is awaited
        self._queues: dict[TopicPartition, Input] = {}
        self._sealed: _StoreWrites | None = None  # what is being committed
        self._committed_times: dict[str, int] = {}  # `_stream_times` as of the last commit
        self._committed_records_out = 0  # `records_out` at the last commit

    # -- Before it runs ----------------------------------------------------------------------------------------------

    def restore(self, batch: FetchedBatch, *, bulk: bool = False) -> int:
        """Write a batch of committed changelog records to its store, with the new position; returns how many.

        In bulk a crash may take some back, and `settled` has to hold before the task starts. From a row on that the
        store cannot read nothing is written any more: `start` says why, and the next one to try begins at that row.

        Raises:
            StateStoreError: a record has no key.
        """
        assert self._phase is Phase.CREATED, f"task {self.id}: restore while {self._phase.value}"
        assert not self._stores, f"task {self.id}: restore with uncommitted writes"
        name = self.changelogs[batch.partition]
        position = self._store_positions.get(name, 0)
        records: Iterator[FetchedRecord] = dropwhile(lambda record: record.offset < position, batch.records())
        tally = count(1)
        changes = {}
        if reads_values(spec := self._specs[name]):
            records = self._readable(spec, batch.partition, list(records))
        if name in self._unreadable:
            self._store_positions[name] = batch.next_offset
            return 0
        if (first := next(records, None)) is not None:
            counted = compress(chain((first,), records), tally)
            try:
                changes[name] = restored_rows(self._specs[name], counted, partial(self.backend.get, name))
            except StateStoreError as error:
                raise StateStoreError(f"{batch.partition.at(position)} or after it: {error}") from error
        end = batch.next_offset
        assert end >= position, f"{batch.partition}: restore goes back to {end}"
        self.backend.load(changes, {name: end}, bulk=bulk)
        self._store_positions[name] = end
        restored = next(tally) - 1
        self.records_restored += restored
        return restored

    def _readable(
        self, spec: StoreSpec, changelog: TopicPartition, records: list[FetchedRecord]
    ) -> Iterator[FetchedRecord]:
        """The records, after their values have been looked at."""
        if spec.name not in self._unreadable and (found := first_unreadable(spec, records)) is not None:
            record, error = found
            self._unreadable[spec.name] = StateStoreError(
                f"store {spec.name}: the row in {changelog.at(record.offset)} cannot be read as {spec.value.name}: "
                f"{error}: declare how older values are upgraded, @upgrades(...), or keep the new ones in a store of "
                "another name"
            )
        return iter(records)

    def settled(self) -> bool:
        """Whether what was restored in bulk is safe; it is brought to disk meanwhile, without waiting."""
        return self.backend.settle()

    def positions_stored(self) -> dict[TopicPartition, int | None]:
        """For each changelog partition, the offset its store was last known to be complete up to."""
        return {partition: self._store_positions.get(store) for partition, store in self.changelogs.items()}

    def restore_positions(self) -> dict[TopicPartition, int | None]:
        """For each changelog partition, the offset its store is complete up to; None if nothing is stored."""
        self._store_positions = self.backend.positions()
        self._unreadable = {}
        return self.positions_stored()

    def start(self, committed: Mapping[TopicPartition, OffsetAndMetadata], reset: Mapping[TopicPartition, int]) -> None:
        """Begin to process: from the committed offset of each input, or from `reset` where there is none.

        Raises:
            ProcessingError: a processor's `init` raised.
            StateStoreError: a store cannot read its rows.
            TopologyError: the topology cannot be compiled.
        """
        assert self._phase is Phase.CREATED, f"task {self.id}: start while {self._phase.value}"
        for unreadable in self._unreadable.values():
            raise unreadable
        self._dropped_before += self._cursor.dropped
        self._cursor = Cursor()
        self._cursor.stream_time = self.committed_stream_time = _partition_time(committed)
        self._outbox = Outbox({**self._plan.partition_counts, **self._learnt_partitions})
        nodes = self._plan.nodes(self.id)
        errors = ErrorHandling(
            self._policies, nodes, self.id, self._cursor, self._outbox, self._now_ms, self._max_value_bytes
        )
        self._punctuation = Punctuation(self._cursor, self._now_ms, errors.in_punctuator)
        self._stores = {name: self._open(spec) for name, spec in self._specs.items()}
        self._stream_times = _stream_times(committed)
        self._committed_times, self._committed_records_out = self._times(), 0
        self._processors, self._caches = [], {}
        calls = Calls(self._cursor, self._services)
        sources = self._compile(calls, errors)
        self._queues = {
            partition: Input(
                partition,
                sources[partition.topic],
                self._cursor,
                committed.get(partition) or OffsetAndMetadata(reset[partition]),
            )
            for partition in self.inputs
        }
        self._calls = calls if calls.lines else None
        if self._calls is not None:
            self._follow_unfinished(self._calls)
            self._calls.check_commits()
        for partition, position in reset.items():
            if position > 0 and partition not in committed:
                # To be committed even if nothing comes: after a crash, "latest" would be further on.
                self._queues[partition].committed = NOTHING_COMMITTED
        self._phase = Phase.FAILED  # unless all of them come up
        for processor in self._processors:
            processor.init()
        self._punctuation.started()
        self._phase = Phase.RUNNING

    def _open(self, spec: StoreSpec) -> OpenStore:
        overlay = open_overlay(spec, self.backend, self._max_value_bytes, self._cursor)
        rows = open_rows(spec, overlay)
        if self._cache_budget is not None and spec.cached and isinstance(rows, Segments):
            rows.keep_forgotten(self._cache_budget.max_bytes)
        return OpenStore(spec, overlay, rows)

    def _follow_unfinished(self, calls: Calls) -> None:
        """Decide for each input whether it may be committed while records of it are unfinished."""
        nodes, full_name = self._plan.nodes(self.id), self._plan.full_name
        children = children_of(nodes)
        calls.most_pending = min(calls.most_pending, room_for_progress(self._stream_times))
        if calls.most_pending < LEAST_PENDING:
            calls.most_pending, calls.may_hold = LEAST_PENDING, True
            return
        for name, node in nodes.items():
            if isinstance(node, SourceNode) and finishes_at_once(nodes, children, name, self._policies):
                topics = {full_name(topic) for topic in node.topics}
                for queue in self._queues.values():
                    if queue.partition.topic in topics:
                        queue.unfinished = calls.unfinished.setdefault(queue.partition, {})
        calls.may_hold = len(calls.unfinished) < len(self._queues)

    def _compile(self, calls: Calls, errors: ErrorHandling) -> dict[str, CompiledSource]:
        nodes = self._plan.nodes(self.id)

        def getter(table: str) -> TableRows:
            return table_rows(nodes, work, table)

        work = Work(
            self._cursor,
            self._outbox,
            self._stores,
            getter,
            TaskFacts(self._plan.application_id, self.id, self._now_ms),
            self._processors,
            self._stream_times,
            self._global_stores,
            self._punctuation,
            self._caches,
            self._cache_budget,
            self._behind,
            calls=calls,
            max_record_bytes=self._max_value_bytes,
            counts=self.counts,
            tracing=self._tracing,
        )
        sources = Compiler(nodes, self._plan.full_name, work, errors).compile()
        self._processors.reverse()  # nodes are compiled from the last to the first
        return sources

    # -- Records in --------------------------------------------------------------------------------------------------

    def enqueue(self, batch: FetchedBatch) -> None:
        """Take a batch of one of the inputs; batches of a partition come in offset order."""
        queue = self._queues[batch.partition]
        queue.enqueue(batch)
        queue.idle_deadline_ms = None

    def learn_end_offsets(self, end_offsets: Mapping[TopicPartition, int]) -> None:
        """What the broker is known to have of each input, for the decision whether an empty one is waited for."""
        for partition, queue in self._queues.items():
            queue.end_offset = end_offsets.get(partition, queue.end_offset)

    def ready(self, now_ms: int) -> bool:
        """Whether `process` would find a record to process."""
        if self._phase is not Phase.RUNNING or (self._calls is not None and self._room <= 0):
            return False
        try:
            return self._next(now_ms) is not None
        except StreamsError:
            return True  # the time of a record cannot be had; `process` says why

    def process(self, max_records: int, slice_: Slice = ENDLESS) -> int:
        """Process up to `max_records`, always from the input whose next record is the oldest; returns how many,
        with those that were dropped.

        Each goes through all nodes before the next, and then through the punctuators of stream time it made due.
        Ends when the slice is over.

        Raises:
            SerializationError: a record cannot be decoded, or a result cannot be encoded.
            ProcessingError: a user function raised.
            After an error the task can only be rolled back; the record stays unprocessed.
        """
        assert self._phase is Phase.RUNNING, f"task {self.id}: process while {self._phase.value}"
        if self._calls is not None and self._calls.may_fill_up:
            slice_ = _UntilFull(self._calls, slice_)
        before = self._cursor.records_in
        with self._failing_for_good:
            while (left := max_records + before - self._cursor.records_in) > 0 and (chosen := self._next(None)):
                queue, bound = chosen
                if self._calls is not None and (left := min(left, self._room)) <= 0:
                    break
                queue.run(bound, left, slice_)
                self._punctuate_stream_time()
                if slice_.over:
                    break
        return self._cursor.records_in - before

    @property
    def _room(self) -> int:
        """How many records may be taken before those that are awaited are too many."""
        assert self._calls is not None
        if any(queue.position - queue.low_water >= MOST_AHEAD for queue in self._queues.values()):
            return 0
        return self._calls.room

    def take_calls(self) -> list[Call]:
        """The calls of functions that are to be started now, beside the task. Each has to be finished."""
        return [] if self._calls is None else self._calls.take()

    def finish(self, call: Call, answer: Answer) -> None:
        """Go on with what comes after a call, and with other calls that waited for this one to be ordered.

        Raises:
            ProcessingError: the call failed, or a user function raised after it.
            SerializationError: a result cannot be encoded.
            After an error the task can only be rolled back; the record stays unprocessed.
        """
        assert self._phase is Phase.RUNNING, f"task {self.id}: finish while {self._phase.value}"
        assert self._calls is not None, f"task {self.id}: no function of it is awaited"
        with self._failing_for_good:
            self._calls.finish(call, answer)

    @property
    def calls_pending(self) -> int:
        """Calls that were not finished, those that wait for their turn included."""
        return 0 if self._calls is None else self._calls.pending

    @property
    def next_call_ms(self) -> float | None:
        """When a call may start that waits for a service, by the services' clock; None if none does."""
        return None if self._calls is None else self._calls.next_ms

    @property
    def holds_commit(self) -> bool:
        """Whether a commit has to wait for calls: results of their records are out already."""
        return self._calls is not None and self._calls.holding > 0

    @property
    def may_hold_commit(self) -> bool:
        """Whether records that are processed now may lead to calls that a commit has to wait for."""
        return self._calls is not None and self._calls.may_hold

    def punctuate(self, now_ms: int) -> int:
        """Call the punctuators that the wall clock has made due, each once; returns how many there were.

        Raises:
            ProcessingError: one raised. The task can only be rolled back.
        """
        assert self._phase is Phase.RUNNING, f"task {self.id}: punctuate while {self._phase.value}"
        with self._failing_for_good:
            called = self._punctuation.advance_wall_clock(now_ms)
            return called + self._punctuate_stream_time()

    @property
    def next_punctuation_ms(self) -> int | None:
        """When `punctuate` will have something to do, by the wall clock; None if nothing is scheduled."""
        return self._punctuation.wall_clock_due_ms

    @property
    def next_retry_ms(self) -> int | None:
        """When a record of a retry topic will be ready, by the wall clock; None if none waits for its time."""
        now_ms = self._now_ms()
        waiting = (queue.due_ms for queue in self._queues.values() if queue.retries)
        return min((due_ms for due_ms in waiting if now_ms < due_ms < END_OF_TIME), default=None)

    def _punctuate_stream_time(self) -> int:
        if self._cursor.stream_time < self._cursor.punctuation_due_ms:
            return 0
        return self._punctuation.advance_stream_time()

    def _fail(self, error: BaseException) -> None:
        self._phase = Phase.FAILED
        if isinstance(error, StreamsError):
            self._locate(error)
        if (failure := registry_failure(error)) is not None and failure is not error:
            raise failure from None  # whatever it was taken for on the way: no record is to blame

    def _next(self, now_ms: int | None) -> tuple[Input, int] | None:
        """The input to process from, and the timestamp up to which it stays the one; None if there is nothing to do
        or something to wait for (`PartitionGroup.readyToProcess`)."""
        best: Input | None = None
        earliest = bound = END_OF_TIME
        empty = False
        for queue in self._queues.values():
            timestamp = queue.head_timestamp()
            if timestamp is None:
                empty = empty or not queue.retries
            elif timestamp < earliest:
                # With equal times the input that comes first goes first, so that slices do not change the order.
                bound = END_OF_TIME if best is None else earliest - 1
                best, earliest = queue, timestamp
            elif timestamp < bound:
                bound = timestamp
        if best is None or (empty and self._has_to_wait(now_ms)):
            return None
        return best, bound

    def _has_to_wait(self, now_ms: int | None) -> bool:
        """Whether an empty input may still bring an older record than those at hand."""
        if self._max_task_idle_ms == NEVER_WAIT:
            return False
        now = None
        waiting = False
        for queue in self._queues.values():
            if queue.retries or queue.buffered_bytes or queue.head_timestamp() is not None:
                continue
            if not queue.caught_up:
                queue.idle_deadline_ms = None
                waiting = True
            elif self._max_task_idle_ms > 0:
                if now is None:
                    now = self._now_ms() if now_ms is None else now_ms
                if queue.idle_deadline_ms is None:
                    queue.idle_deadline_ms = now + self._max_task_idle_ms
                waiting = waiting or now < queue.idle_deadline_ms
        return waiting

    def _locate(self, error: StreamsError) -> None:
        """Add the place of the record in process to an error that does not name one."""
        partition, record = self._cursor.partition, self._cursor.record
        if partition is None or record is None or getattr(error, "offset", None) is not None:
            return
        if isinstance(error, SchemaRegistryError):
            return  # says its place itself
        error.args = (f"{error} [while processing {partition.at(record.offset)}]",)
        if isinstance(error, ProcessingError):
            error.topic, error.partition, error.offset = *partition, record.offset

    def _behind(self) -> bool:
        """Whether records are known to wait, here or at the broker."""
        return any(
            queue.buffered_bytes > 0 or (queue.end_offset is not None and not queue.caught_up)
            for queue in self._queues.values()
            if not queue.retries
        )

    @property
    def head_timestamp(self) -> int | None:
        """The time of the oldest record that waits; None if none does."""
        heads = [queue.head_timestamp() for queue in self._queues.values()]
        return min((head for head in heads if head is not None), default=None)

    @property
    def buffered_bytes(self) -> int:
        """What waits to be processed."""
        return sum(queue.buffered_bytes for queue in self._queues.values())

    def buffered_bytes_of(self, partition: TopicPartition) -> int:
        """What waits of one input."""
        return self._queues[partition].buffered_bytes

    # -- Results out -------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Let go on what record caches hold back, each table before those below it. To be called before the outputs of
        a commit are taken.

        Raises:
            StreamsError: as `process`. The task can only be rolled back.
        """
        assert self._phase is Phase.RUNNING, f"task {self.id}: flush while {self._phase.value}"
        with self._failing_for_good:
            for cache in reversed(self._caches.values()):
                cache.flush()

    def take_outputs(self) -> dict[TopicPartition, list[OutRecord]]:
        """The records written to topics since the last call."""
        return self._outbox.take()

    def missing_topics(self) -> set[str]:
        """Topics that records wait for: chosen per record, and their partitions are not known yet."""
        return self._outbox.missing_topics

    def learn_partitions(self, partition_counts: Mapping[str, int]) -> None:
        """How many partitions topics have; records that waited for them are placed, in order."""
        self._learnt_partitions.update(partition_counts)
        self._outbox.learn(partition_counts)

    def seal(self) -> Sealed:
        """The first half of a commit. What is processed from now on belongs to the next one."""
        assert self._phase is Phase.RUNNING, f"task {self.id}: commit while {self._phase.value}"
        assert self._sealed is None, f"task {self.id}: one commit at a time"
        assert self._outbox.empty, f"task {self.id}: outputs have to be taken before a commit"
        assert not self.holds_commit, f"task {self.id}: a commit has to wait for its calls"
        flushed = all(cache.empty for cache in self._caches.values())
        assert flushed, f"task {self.id}: caches have to be flushed before a commit"
        changed = {name: store for name, store in self._stores.items() if store.overlay.changes}
        # Stores without a changelog are asked, too: they may put rows of their own.
        records = {name: store.rows.changelog_records() for name, store in changed.items()}
        offsets = self.offsets()
        self._sealed = _StoreWrites(
            {name: store.overlay.seal() for name, store in changed.items()},
            [(name, *bounds) for name, store in self._stores.items() for bounds in store.rows.expired()],
        )
        for partition in offsets:
            self._queues[partition].settle()
        self._committed_times, self._committed_records_out = self._times(), self._outbox.records_out
        self._sealed_stream_time = self._cursor.stream_time
        self._cursor.commit_requested = False
        if self._tracing is not None:
            self._tracing.sealed()
        changelog = {partition: records[store] for partition, store in self.changelogs.items() if store in records}
        return Sealed(changelog, offsets, self.low_water_marks())

    def positions(self) -> dict[TopicPartition, int]:
        """The offset of the next record to process, for each input."""
        return {partition: queue.position for partition, queue in self._queues.items()}

    def low_water_marks(self) -> dict[TopicPartition, int]:
        """For each input the offset below which everything is done: once committed, nothing below is read again."""
        return {partition: queue.low_water for partition, queue in self._queues.items()}

    def committed_marks(self) -> dict[TopicPartition, int]:
        """The low-water marks, as far as a commit with them has at least been begun."""
        return {partition: min(queue.low_water, queue.committed) for partition, queue in self._queues.items()}

    @property
    def resting(self) -> set[TopicPartition]:
        """Inputs that stand still on purpose: a record waits for its time in a retry topic, or for its service."""
        now_ms = self._now_ms()
        for_service = self._calls is not None and self._calls.next_ms is not None
        return {
            partition
            for partition, queue in self._queues.items()
            if (queue.retries and now_ms < queue.due_ms < END_OF_TIME) or (for_service and queue.unfinished)
        }

    def offsets(self) -> dict[TopicPartition, OffsetAndMetadata]:
        """Positions that moved since the last commit was begun, past dropped records and control markers too. Where
        calls are pending it is the low-water mark, with which records above it are unfinished.

        If none did, but a punctuator has changed something, one position as it is: without offsets nobody would refuse
        what a zombie's punctuators write.
        """
        assert self._phase is not Phase.FAILED, f"task {self.id}: a failed task commits nothing"
        times = self._times()
        moved = [queue for queue in self._queues.values() if queue.moved]
        if any(times.get(node, NO_TIME) < ms for node, ms in self._committed_times.items()):
            moved = list(self._queues.values())  # a time went back, and of what inputs tell the highest counts
        if not moved and self._changed_by_itself:
            moved = [next(iter(self._queues.values()))]
        return {queue.partition: queue.offset_to_commit(times) for queue in moved}

    def _times(self) -> dict[str, int]:
        """The stream times of operators that have one."""
        return {node: time.ms for node, time in self._stream_times.items() if time.ms != NO_TIME}

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """The second half: what was sealed is committed. The stores are written, with the positions of their
        changelogs, in one atomic write.

        Args:
            positions: for each changelog partition that was written, the offset after its last record.
        """
        assert self._sealed is not None, f"task {self.id}: nothing is being committed"
        (changes, expired), self._sealed = self._sealed, None
        self.committed_stream_time = self._sealed_stream_time
        ends = {self.changelogs[partition]: offset for partition, offset in positions.items()}
        for name in changes:
            assert name in ends or name not in self._changelog_of, f"store {name} changed, its changelog did not"
        for name, end in ends.items():
            assert end >= self._store_positions.get(name, 0), f"the changelog position of {name} goes back to {end}"
        if changes or ends:
            self.backend.write(changes, ends)
        self._store_positions.update(ends)
        for name in changes:
            self._stores[name].overlay.committed()
        for name, start, end_key in expired:
            self.backend.delete_range(name, start, end_key)
        if self._tracing is not None:
            self._tracing.committed()

    @property
    def uncommitted_bytes(self) -> int:
        """What the overlays and the outbox weigh, without what is being committed."""
        return sum(store.overlay.size_bytes for store in self._stores.values()) + self._outbox.size_bytes

    @property
    def dirty(self) -> bool:
        """Whether another commit would have something to say."""
        return any(queue.moved for queue in self._queues.values()) or self._changed_by_itself

    @property
    def commit_requested(self) -> bool:
        """Whether a processor has asked for what it did to be committed soon."""
        return self._cursor.commit_requested and self.dirty

    @property
    def _changed_by_itself(self) -> bool:
        """Whether there are results since the last commit was begun, taken or not, whatever they come from."""
        return (
            any(store.overlay.changes for store in self._stores.values())
            or not self._outbox.empty
            or self._outbox.records_out != self._committed_records_out
            or self._times() != self._committed_times
        )

    # -- Ways back ---------------------------------------------------------------------------------------------------

    def rollback(self) -> None:
        """Drop everything uncommitted and everything buffered. The task has to be started again."""
        assert self._phase is not Phase.CLOSED, f"task {self.id}: rollback after close"
        self._drop_caches()
        if self._tracing is not None:
            self._tracing.dropped()
        self._stores = {}
        self._outbox = Outbox({})
        self._queues = {}
        self._sealed = None
        self._stream_times = {}
        self._calls = None
        self._committed_times, self._committed_records_out = {}, 0
        self._punctuation = Punctuation(self._cursor, self._now_ms)
        self._phase = Phase.CREATED
        processors, self._processors = self._processors, []
        try:
            _close_all(processors)
        except ProcessingError:
            # The roll-back has a cause of its own, which must not be replaced.
            log.exception("task %s: closing a processor for a roll-back", self.id)

    def close(self) -> None:
        """Close the processors, then the stores; uncommitted work is dropped.

        Raises:
            ProcessingError: a processor's `close` raised; everything is closed all the same.
        """
        if self._phase is Phase.CLOSED:
            return
        self._phase = Phase.CLOSED
        self._drop_caches()
        if self._tracing is not None:
            self._tracing.dropped()
        processors, self._processors = self._processors, []
        try:
            _close_all(processors)
        finally:
            self._queues = {}
            self._calls = None
            self._outbox = Outbox({})
            self._stores = {}
            self._sealed = None
            self.backend.close()

    def _drop_caches(self) -> None:
        caches, self._caches = self._caches, {}
        for cache in caches.values():
            cache.drop()

    # -- Counters ----------------------------------------------------------------------------------------------------

    @property
    def record_in_process(self) -> tuple[TopicPartition, int, bytes | None] | None:
        """Its partition, offset and key; after it, the last one's. None in a punctuator. Any thread may ask."""
        partition, record = self._cursor.partition, self._cursor.record
        return None if partition is None or record is None else (partition, record.offset, record.key)

    @property
    def records_in(self) -> int:
        """Records processed since the start, dropped ones included."""
        return self._cursor.records_in

    @property
    def records_out(self) -> int:
        """Records taken from the outbox since the start."""
        return self._outbox.records_out

    @property
    def dropped(self) -> int:
        """Records dropped by a rule: null keys, null values, negative timestamps."""
        return self._cursor.dropped

    @property
    def dropped_total(self) -> int:
        """The same, with those before it was rolled back."""
        return self._dropped_before + self._cursor.dropped

    @property
    def record_timestamp(self) -> int | None:
        """The timestamp of the record in process; after it, the last one's. None in a punctuator."""
        record = self._cursor.record
        return None if record is None else record.timestamp

    @property
    def cache_bytes(self) -> int:
        """What the record caches of this task and of all that share its budget hold."""
        return 0 if self._cache_budget is None else self._cache_budget.used_bytes

    @property
    def cached_updates(self) -> dict[str, int]:
        """The updates that wait in record caches, by store."""
        return {store: cache.waiting for store, cache in self._caches.items()}

    @property
    def stream_time(self) -> int:
        """The highest timestamp taken in so far, before restarts too; -1 before the first."""
        return self._cursor.stream_time

    def store(self, name: str) -> OpenStore:
        """A store with its uncommitted changes, for a test driver to look into."""
        return self._stores[name]


class _UntilFull:
    """A slice that is also over when a record had to wait, and no more may."""

    left = 1

    def __init__(self, calls: Calls, slice_: Slice) -> None:
        self._calls = calls
        self._slice = slice_

    @property
    def over(self) -> bool:
        return self._slice.over or self._full

    def passed(self, records: int) -> bool:
        return self._slice.passed(records) or self._full

    @property
    def _full(self) -> bool:
        return self._calls.pending > 0 and self._calls.room <= 0


def _partition_time(committed: Mapping[TopicPartition, OffsetAndMetadata]) -> int:
    """The task's stream time as it was committed: the highest of its inputs'."""
    return max((decode_metadata(at.metadata).partition_time for at in committed.values()), default=NO_TIME)


def _stream_times(committed: Mapping[TopicPartition, OffsetAndMetadata]) -> dict[str, StreamTime]:
    """The stream times of operators as they were committed: with each input that moved, all of them."""
    times: dict[str, StreamTime] = {}
    for offset in committed.values():
        for node, ms in decode_metadata(offset.metadata).stream_times.items():
            time = times.setdefault(node, StreamTime())
            time.ms = max(time.ms, ms)
    return times


def _close_all(processors: Iterable[OpenProcessor]) -> None:
    """Close each, whatever the others raise; then raise the first error."""
    first: ProcessingError | None = None
    for processor in processors:
        try:
            processor.close()
        except ProcessingError as error:
            first = first or error
    if first is not None:
        raise first
