"""Runs a topology without a broker, one record at a time, under a clock set by hand.

The tasks are those that run in production; only what is around them is different: every topic has one partition, what a
record causes is done when `pipe_input` returns, and each record is a commit. Semantics follow Kafka Streams'
`TopologyTestDriver`: of the records waiting in internal topics the one with the lowest timestamp goes first.

Functions that are awaited run on an event loop of the driver's own, one at a time and each to its end, in the order of
their records; a test that is itself a coroutine may use the driver like any other. Calls that wait for a service, for
its rate limit or until it works again, are made when `advance_wall_clock` gets to their time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar

from streamlib.config import StreamsConfig
from streamlib.engine.global_state import GLOBAL_TASK, GlobalState
from streamlib.engine.operators.site import OpenStore
from streamlib.engine.plan import Plan, make_plan, matches, sink_topics, source_patterns, source_topics
from streamlib.engine.record_cache import CacheBudget
from streamlib.engine.services import Services, ServiceStatus
from streamlib.engine.task import NEVER_WAIT, Task
from streamlib.engine.tracing import Tracing
from streamlib.errors import StreamsError, TopologyError
from streamlib.records import Headers, OffsetAndMetadata, OutRecord, Record, TaskId, TopicPartition
from streamlib.serdes import Place, Serde, serde_for
from streamlib.state.backend import Backend
from streamlib.state.codec import ValueAndTimestamp
from streamlib.state.memory import InMemoryBackend
from streamlib.state.session import SessionStore
from streamlib.state.stores import open_store
from streamlib.state.versioned import VersionedRecord
from streamlib.state.window import WindowStore
from streamlib.testing.calls import CallRunner
from streamlib.topology.nodes import SinkNode, StoreSpec
from streamlib.topology.topology import Topology
from streamlib.windows import END_OF_TIME_MS, Windowed, duration_ms, inner_serde, window_size_ms

K = TypeVar("K")
V = TypeVar("V")

MakeBackend = Callable[[TaskId, Sequence[StoreSpec]], Backend]


class TopologyTestDriver:
    """Feeds a topology and shows what it emits and stores.

        with TopologyTestDriver(topology) as driver:
            words = driver.input_topic("words", key=str, value=str)
            counts = driver.output_topic("counts", key=str, value=int)
            words.pipe_input("ann", "to be or not to be", timestamp_ms=0)
            assert counts.read_key_values_to_dict()["to"] == 2

    Args:
        topology: what to run.
        application_id: the prefix of internal topics.
        wall_clock_start_ms: where the clock stands at first.
        make_backend: where a task keeps its stores; in memory if not given.
        config: what becomes of records that fail, and how large record caches are, as in production; its
            `application_id` counts. Nothing else of it matters here.
        tracing: traces records, as in production.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        application_id: str = "app",
        wall_clock_start_ms: int = 0,
        make_backend: MakeBackend = lambda task_id, stores: InMemoryBackend(),
        config: StreamsConfig | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._topology = topology
        self._config = StreamsConfig(application_id=application_id) if config is None else config
        self._cache_budget = CacheBudget(self._config.statestore_cache_max_bytes)
        self._make_backend = make_backend
        self._tracing = tracing
        self._now_ms = wall_clock_start_ms
        self._log = _Log()
        self._services = Services(lambda: self._now_ms)
        self._calls = CallRunner(topology.lifespans)
        self._failure: StreamsError | None = None
        self._committed: dict[TopicPartition, OffsetAndMetadata] = {}
        self._tasks: dict[TaskId, Task] = {}
        self._topics = {*source_topics(topology), *sink_topics(topology)}
        self._plan = self._make_plan()
        with ExitStack() as undo:
            undo.callback(self._calls.close)
            self._calls.open()
            self._global = self._make_global_state()
            self._start()
            undo.pop_all()

    def _make_plan(self) -> Plan:
        return make_plan(self._topology, self._config.application_id, dict.fromkeys(self._topics, 1))

    def _make_global_state(self) -> GlobalState | None:
        if not self._plan.global_stores:
            return None
        backend = self._make_backend(GLOBAL_TASK, self._plan.global_stores)
        state = GlobalState(self._plan, backend, now_ms=lambda: self._now_ms, policies=self._config.error_policies)
        state.start()
        return state

    def _start(self) -> None:
        """Make the tasks of the plan, over the stores of those there were before."""
        before, self._tasks = self._tasks, {}
        for task_id in self._plan.tasks:
            backend = before[task_id].backend if task_id in before else None
            task = self._tasks[task_id] = Task(
                self._plan,
                task_id,
                backend or self._make_backend(task_id, self._plan.stores(task_id)),
                now_ms=lambda: self._now_ms,
                max_task_idle_ms=NEVER_WAIT,
                global_stores=self._global.stores if self._global else {},
                cache_budget=self._cache_budget,
                max_value_bytes=self._config.max_request_size,
                policies=self._config.error_policies,
                services=self._services,
                tracing=None if self._tracing is None else self._tracing.of_task(self._plan.application_id, task_id),
            )
            committed = {p: self._committed[p] for p in task.inputs if p in self._committed}
            task.start(committed, {p: 0 for p in task.inputs if p not in committed})
        self._work()

    def _learn_topic(self, name: str) -> None:
        """A topic that was not there before, but matches a pattern: as in production, tasks start again with it.

        Raises:
            TopologyError: the topology does not read it.
        """
        if not any(matches(pattern, name) for pattern in source_patterns(self._topology)):
            known = sorted(self._read_topics)
            raise TopologyError(f"the topology does not read {name}; it reads {', '.join(known)}")
        self._topics.add(name)
        self._plan = self._make_plan()
        for task in self._tasks.values():
            task.rollback()
        self._start()

    @property
    def _read_topics(self) -> set[str]:
        return {*self._plan.topics, *(partition.topic for partition in self._plan.global_inputs)}

    def input_topic(self, name: str, *, key: Any = None, value: Any = None) -> TestInputTopic[Any, Any]:
        """A topic to write to. Without types, keys and values are bytes.

        Raises:
            TopologyError: the topology does not read the topic.
        """
        if name not in self._read_topics:
            self._learn_topic(name)
        return TestInputTopic(self, name, *_serdes(name, key, value))

    def output_topic(self, name: str, *, key: Any = None, value: Any = None) -> TestOutputTopic[Any, Any]:
        """A topic to read what the topology has written, from the first record on. Without types, bytes.

        Records do not say how long their windows are, nor of what kind: with `key=Windowed[str]` keys are read as the
        topology writes them. Where it does not say either, windows end at `END_OF_TIME_MS`, unless the key is given as
        `time_windowed(str, size_ms)`.
        """
        keys, values = _serdes(name, self._key_serde(name, _serde(key)), value)
        return TestOutputTopic(name, self._log, keys, values)

    def _key_serde(self, topic: str, key: Serde[Any]) -> Serde[Any]:
        """The serde of a topic's keys; of windowed ones that of the sink which writes it, if the keys inside are the
        same and nothing is said of the size."""
        if inner_serde(key) is None or window_size_ms(key) not in (None, END_OF_TIME_MS):
            return key
        sinks = (node for node in self._topology.nodes.values() if isinstance(node, SinkNode) and node.topic == topic)
        return next((node.key for node in sinks if inner_serde(node.key) == inner_serde(key)), key)

    def store(self, name: str) -> StoreReader:
        """A store's content.

        Raises:
            TopologyError: there is no such store.
        """
        for task_id, task in self._tasks.items():
            if any(spec.name == name for spec in self._plan.stores(task_id)):
                return StoreReader(task.store(name))
        if self._global is not None and name in self._global.stores:
            return StoreReader(self._global.stores[name])
        raise TopologyError(f"there is no store {name}; there are: {', '.join(self._plan.topology.stores) or 'none'}")

    def advance_wall_clock(self, by: timedelta) -> None:
        """Move the clock, and do what becomes due: each punctuator once, however far it moves, and before it calls that
        wait for a service, and records of retry topics, each at its time.

        Raises:
            StreamsError: a punctuator or a function failed; the driver is of no use afterwards.
        """
        self._check_alive()
        until_ms = self._now_ms + duration_ms(by, "advance_wall_clock")
        with self._failing_for_good():
            while (due_ms := self._next_due_ms) is not None and due_ms <= until_ms:
                self._now_ms = max(self._now_ms, int(due_ms))
                self._make_calls()
            self._now_ms = until_ms
            for task in self._tasks.values():
                task.punctuate(self._now_ms)
            self._work()

    @property
    def _next_due_ms(self) -> float | None:
        due = (ms for task in self._tasks.values() for ms in (task.next_call_ms, task.next_retry_ms))
        return min((ms for ms in due if ms is not None), default=None)

    def _make_calls(self) -> None:
        for task in self._tasks.values():
            self._answer_calls(task)
        self._work()

    @property
    def services(self) -> dict[str, ServiceStatus]:
        """What is known of the services that functions call, by name: as `WorkerStatus.services`."""
        return self._services.status

    @property
    def wall_clock_ms(self) -> int:
        """Where the clock stands."""
        return self._now_ms

    @property
    def produced_topic_names(self) -> set[str]:
        """Every topic that something was written to, internal ones included."""
        return self._log.written

    @property
    def dropped_records(self) -> int:
        """Records dropped by a rule: null keys, null values, negative timestamps."""
        return sum(task.dropped for task in self._tasks.values())

    def close(self) -> None:
        """Close processors and stores.

        Raises:
            ProcessingError: a processor's `close` raised.
        """
        try:
            for task in self._tasks.values():
                task.close()
            if self._global is not None:
                self._global.close()
        finally:
            self._calls.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def pipe(self, topic: str, record: OutRecord) -> None:
        """Write one encoded record to an input topic and do all work it causes.

        Raises:
            StreamsError: the topology could not process it; the driver is of no use afterwards.
        """
        self._check_alive()
        if topic not in self._read_topics:
            self._learn_topic(topic)
        self._log.pipe(topic, record)
        with self._failing_for_good():
            self._deliver(TopicPartition(topic, 0), [record])
            self._work()

    def _check_alive(self) -> None:
        if self._failure is not None:
            raise StreamsError("the topology has failed on an earlier record or punctuation") from self._failure

    @contextmanager
    def _failing_for_good(self) -> Iterator[None]:
        try:
            yield
        except StreamsError as error:
            self._failure = error
            raise

    def _work(self) -> None:
        """Process until nothing is left, the oldest head of all tasks first."""
        self._settle_all()
        # To look for the oldest may have skipped some that cannot be decoded, and written dead letters.
        while (oldest := self._oldest()) is not None or self._settle_all():
            if oldest is not None:
                oldest.process(1)
                self._answer_calls(oldest)
                self._settle(oldest)

    def _settle_all(self) -> bool:
        """Whether there was something to settle."""
        dirty = [task for task in self._tasks.values() if task.dirty]
        for task in dirty:
            self._settle(task)
        return bool(dirty)

    def _oldest(self) -> Task | None:
        waiting = [
            (head, number, task)
            for number, task in enumerate(self._tasks.values())
            if (head := task.head_timestamp) is not None and task.ready(self._now_ms)
        ]
        return min(waiting)[2] if waiting else None

    def _settle(self, task: Task) -> None:
        """Take a task's outputs and commit it."""
        if not task.dirty:
            return
        task.flush()
        while self._answer_calls(task):
            task.flush()
        task.learn_partitions(dict.fromkeys(task.missing_topics(), 1))
        for partition, records in task.take_outputs().items():
            self._log.append(partition.topic, records)
            if partition.topic in self._read_topics:
                self._deliver(partition, records)
        sealed = task.seal()
        for partition, records in sealed.changelog.items():
            self._log.append(partition.topic, records)
        self._committed.update(sealed.offsets)
        task.commit({partition: self._log.end_offset(partition.topic) for partition in sealed.changelog})

    def _answer_calls(self, task: Task) -> bool:
        """Call what is to be called, and do what comes after; whether there was anything."""
        called = False
        while calls := task.take_calls():
            called = True
            for call in calls:
                task.finish(call, self._calls.answer(call))
        return called

    def _deliver(self, partition: TopicPartition, records: Sequence[OutRecord]) -> None:
        end = self._log.end_offset(partition.topic)
        fetched = tuple(_Fetched(end - len(records) + n, *record) for n, record in enumerate(records))
        batch = _Batch(partition, end, fetched)
        if self._global is not None and partition in self._global.partitions:
            self._global.apply(batch)
        else:
            self._tasks[self._plan.task_of(partition)].enqueue(batch)


class TestInputTopic(Generic[K, V]):
    """Writes to a topic that the topology reads.

    >>> from streamlib import StreamsBuilder
    >>> builder = StreamsBuilder()
    >>> builder.stream("in", key=str, value=int).map_values(lambda value: value + 1).to("out")
    >>> with TopologyTestDriver(builder.build()) as driver:
    ...     numbers = driver.input_topic("in", key=str, value=int)
    ...     numbers.pipe_input("a", 1, timestamp_ms=500)
    ...     numbers.pipe_key_values([("b", 2)])
    ...     driver.output_topic("out", key=str, value=int).read_key_values()
    [('a', 2), ('b', 3)]
    """

    __test__ = False  # not a test, whatever pytest makes of the name

    def __init__(self, driver: TopologyTestDriver, topic: str, key: Serde[K], value: Serde[V]) -> None:
        self._driver = driver
        self._topic = topic
        self._key = key
        self._value = value

    def pipe_input(
        self, key: K | None, value: V | None, timestamp_ms: int | None = None, headers: Headers = ()
    ) -> None:
        """Write a record, at the wall clock's time unless another is given, and do all work it causes."""
        raw_key = None if key is None else self._key.encode(key)
        raw_value = None if value is None else self._value.encode(value)
        at = self._driver.wall_clock_ms if timestamp_ms is None else timestamp_ms
        self._driver.pipe(self._topic, (raw_key, raw_value, at, headers))

    def pipe_record(self, record: Record[K, V]) -> None:
        """Write a record with its own time and headers."""
        self.pipe_input(record.key, record.value, record.timestamp, record.headers)

    def pipe_record_list(self, records: Iterable[Record[K, V]]) -> None:
        """Write records one after the other."""
        for record in records:
            self.pipe_record(record)

    def pipe_key_values(self, pairs: Iterable[tuple[K | None, V | None]]) -> None:
        """Write pairs one after the other, all at the wall clock's time."""
        for key, value in pairs:
            self.pipe_input(key, value)


class TestOutputTopic(Generic[K, V]):
    """Reads a topic that the topology writes; each record once.

    >>> from streamlib import StreamsBuilder
    >>> builder = StreamsBuilder()
    >>> builder.stream("in", key=str, value=int).to("out")
    >>> with TopologyTestDriver(builder.build()) as driver:
    ...     out = driver.output_topic("out", key=str, value=int)
    ...     driver.input_topic("in", key=str, value=int).pipe_input("a", 1, timestamp_ms=500)
    ...     out.read_record()
    Record(key='a', value=1, timestamp=500, headers=())
    """

    __test__ = False

    def __init__(self, topic: str, log: _Log, key: Serde[K], value: Serde[V]) -> None:
        self._topic = topic
        self._records = log.unread(topic)
        self._key = key
        self._value = value

    @property
    def is_empty(self) -> bool:
        """Whether all has been read."""
        return not self._records

    def __len__(self) -> int:
        """How many records have not been read."""
        return len(self._records)

    def read_record(self) -> Record[K | None, V | None]:
        """The next record.

        Raises:
            LookupError: there is none.
        """
        if not self._records:
            raise LookupError(f"no record is left to read from {self._topic}")
        key, value, timestamp, headers = self._records.popleft()
        return Record(
            None if key is None else self._key.decode(key),
            None if value is None else self._value.decode(value),
            timestamp,
            headers,
        )

    def read_records(self) -> list[Record[K | None, V | None]]:
        """All that is left."""
        return [self.read_record() for _ in range(len(self._records))]

    def read_value(self) -> V | None:
        """The next record's value."""
        return self.read_record().value

    def read_values(self) -> list[V | None]:
        """The values of all that is left."""
        return [record.value for record in self.read_records()]

    def read_key_value(self) -> tuple[K | None, V | None]:
        """The next record's key and value."""
        record = self.read_record()
        return record.key, record.value

    def read_key_values(self) -> list[tuple[K | None, V | None]]:
        """Keys and values of all that is left."""
        return [(record.key, record.value) for record in self.read_records()]

    def read_key_values_to_dict(self) -> dict[K | None, V | None]:
        """The last value of each key in all that is left."""
        return dict(self.read_key_values())


class StoreReader:
    """Reads a store; rows of a timestamped one with their time by `get_row` and `rows`.

    The keys of rows of windows and sessions are `Windowed`.

    >>> from streamlib import StreamsBuilder
    >>> builder = StreamsBuilder()
    >>> counts = builder.stream("in", key=str, value=int).group_by_key().count(store="counts")
    >>> with TopologyTestDriver(builder.build()) as driver:
    ...     driver.input_topic("in", key=str, value=int).pipe_input("a", 7, timestamp_ms=500)
    ...     driver.store("counts").get("a"), driver.store("counts").get_row("a")
    (1, ValueAndTimestamp(value=1, timestamp=500))
    """

    def __init__(self, opened: OpenStore) -> None:
        self._store: Any = open_store(opened.rows, _NoTime())

    def get(self, key: Any) -> Any:
        """The value of `key`, or None."""
        row = self.get_row(key)
        return row.value if isinstance(row, _WITH_TIME) else row

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Keys and values in key order."""
        for key, row in self._store.all():
            yield key, row.value if isinstance(row, _WITH_TIME) else row

    def get_row(self, key: Any) -> Any:
        """What is stored under `key`: a `ValueAndTimestamp` in a timestamped store, a `VersionedRecord` in one with a
        history."""
        return self._store.get(key.key, key.start) if isinstance(self._store, WindowStore) else self._store.get(key)

    def fetch(self, key: Any, first_ms: int = 0, last_ms: int = END_OF_TIME_MS) -> Iterator[tuple[Windowed[Any], Any]]:
        """The windows of `key` that start within a span of time, both inclusive, and their values, by start; the
        sessions that have part of it, by end."""
        if isinstance(self._store, SessionStore):
            yield from self._store.find_sessions(key, first_ms, last_ms)
            return
        for windowed, row in self._store.fetch_keys(key, key, first_ms, last_ms):
            yield windowed, row.value if isinstance(row, ValueAndTimestamp) else row

    def as_of(self, key: Any, timestamp_ms: int) -> VersionedRecord[Any] | None:
        """The version of `key` in a versioned store that held at a time; None if there was none or it is forgotten."""
        found: VersionedRecord[Any] | None = self._store.get(key, timestamp_ms)
        return found

    def history(self, key: Any, first_ms: int = 0, last_ms: int = END_OF_TIME_MS) -> Iterator[VersionedRecord[Any]]:
        """The versions of `key` in a versioned store that held at some time in a span, both inclusive; a value of None
        is a delete."""
        yield from self._store.history(key, first_ms, last_ms)

    def rows(self) -> Iterator[tuple[Any, Any]]:
        """Keys and what is stored under them, in key order."""
        yield from self._store.all()

    def __len__(self) -> int:
        return sum(1 for _ in self._store.all())


_WITH_TIME = (ValueAndTimestamp, VersionedRecord)


class _NoTime:
    """A reader writes nothing, so its time is never asked for."""

    timestamp = 0


class _Log:
    """Everything written to each topic, and what of it has not been read."""

    def __init__(self) -> None:
        self._ends: dict[str, int] = {}
        self._unread: dict[str, deque[OutRecord]] = {}
        self.written: set[str] = set()

    def pipe(self, topic: str, record: OutRecord) -> None:
        """A record the test wrote: it counts for offsets, but is nothing the topology has emitted."""
        self._ends[topic] = self.end_offset(topic) + 1

    def append(self, topic: str, records: Sequence[OutRecord]) -> None:
        self._ends[topic] = self.end_offset(topic) + len(records)
        self.unread(topic).extend(records)
        self.written.add(topic)

    def unread(self, topic: str) -> deque[OutRecord]:
        return self._unread.setdefault(topic, deque())

    def end_offset(self, topic: str) -> int:
        return self._ends.get(topic, 0)


class _Fetched(NamedTuple):
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: Headers


class _Batch(NamedTuple):
    partition: TopicPartition
    next_offset: int
    fetched: tuple[_Fetched, ...]

    @property
    def size_bytes(self) -> int:
        return sum(len(record.key or b"") + len(record.value or b"") for record in self.fetched)

    def records(self) -> Sequence[_Fetched]:
        return self.fetched


def _serdes(topic: str, *kinds: Any) -> list[Serde[Any]]:
    """Those of a topic's keys and values."""
    places = (Place(topic=topic, is_key=True), Place(topic=topic))
    return [_serde(kind).at(place) for kind, place in zip(kinds, places, strict=True)]


def _serde(kind: Any) -> Serde[Any]:
    return serde_for(bytes if kind is None else kind)
