"""Runs a topology without a broker, one record at a time, under a clock set by hand.

The tasks are those that run in production; only what is around them is different: every topic has one partition, what a
record causes is done when `pipe_input` returns, and each record is a commit. Semantics follow Kafka Streams'
`TopologyTestDriver`: of the records waiting in internal topics the one with the lowest timestamp goes first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar

from streamlib.engine.plan import Plan, make_plan, sink_topics, source_topics
from streamlib.engine.task import NEVER_WAIT, Task
from streamlib.errors import StreamsError, TopologyError
from streamlib.records import Headers, OutRecord, Record, TaskId, TopicPartition
from streamlib.serdes import Serde, serde_for
from streamlib.state.backend import Backend
from streamlib.state.codec import ValueAndTimestamp
from streamlib.state.memory import InMemoryBackend
from streamlib.state.stores import open_store
from streamlib.topology.nodes import StoreSpec
from streamlib.topology.topology import Topology

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
    """

    def __init__(
        self,
        topology: Topology,
        *,
        application_id: str = "app",
        wall_clock_start_ms: int = 0,
        make_backend: MakeBackend = lambda task_id, stores: InMemoryBackend(),
    ) -> None:
        counts = dict.fromkeys((*source_topics(topology), *sink_topics(topology)), 1)
        self._plan: Plan = make_plan(topology, application_id, counts)
        self._now_ms = wall_clock_start_ms
        self._log = _Log()
        self._failure: StreamsError | None = None
        self._tasks = {
            task_id: Task(
                self._plan,
                task_id,
                make_backend(task_id, self._plan.stores(task_id)),
                now_ms=lambda: self._now_ms,
                max_task_idle_ms=NEVER_WAIT,
            )
            for task_id in self._plan.tasks
        }
        for task in self._tasks.values():
            task.start({}, dict.fromkeys(task.inputs, 0))
        self._work()

    def input_topic(self, name: str, *, key: Any = None, value: Any = None) -> TestInputTopic[Any, Any]:
        """A topic to write to. Without types, keys and values are bytes.

        Raises:
            TopologyError: the topology does not read the topic.
        """
        if name not in self._plan.topics:
            raise TopologyError(f"the topology does not read {name}; it reads {', '.join(sorted(self._plan.topics))}")
        return TestInputTopic(self, name, _serde(key), _serde(value))

    def output_topic(self, name: str, *, key: Any = None, value: Any = None) -> TestOutputTopic[Any, Any]:
        """A topic to read what the topology has written, from the first record on. Without types, bytes."""
        return TestOutputTopic(name, self._log, _serde(key), _serde(value))

    def store(self, name: str) -> StoreReader:
        """A store's content.

        Raises:
            TopologyError: there is no such store.
        """
        for task_id, task in self._tasks.items():
            if any(spec.name == name for spec in self._plan.stores(task_id)):
                return StoreReader(task, name)
        raise TopologyError(f"there is no store {name}; there are: {', '.join(self._plan.topology.stores) or 'none'}")

    def advance_wall_clock(self, by: timedelta) -> None:
        """Move the clock, and do what becomes due."""
        self._now_ms += by // timedelta(milliseconds=1)
        self._work()

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
        for task in self._tasks.values():
            task.close()

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
        if self._failure is not None:
            raise StreamsError("the topology has failed on an earlier record") from self._failure
        self._log.pipe(topic, record)
        try:
            self._deliver(TopicPartition(topic, 0), [record])
            self._work()
        except StreamsError as error:
            self._failure = error
            raise

    def _work(self) -> None:
        """Process until nothing is left, the oldest head of all tasks first."""
        for task in self._tasks.values():
            self._settle(task)
        while (oldest := self._oldest()) is not None:
            oldest.process(1)
            self._settle(oldest)

    def _oldest(self) -> Task | None:
        waiting = [
            (head, number, task)
            for number, task in enumerate(self._tasks.values())
            if (head := task.head_timestamp) is not None
        ]
        return min(waiting)[2] if waiting else None

    def _settle(self, task: Task) -> None:
        """Take a task's outputs and commit it."""
        if not task.dirty:
            return
        task.learn_partitions(dict.fromkeys(task.missing_topics(), 1))
        for partition, records in task.take_outputs().items():
            self._log.append(partition.topic, records)
            if partition.topic in self._plan.topics:
                self._deliver(partition, records)
        changes = task.changelog_records()
        for partition, records in changes.items():
            self._log.append(partition.topic, records)
        task.offsets()
        task.commit({partition: self._log.end_offset(partition.topic) for partition in changes})

    def _deliver(self, partition: TopicPartition, records: Sequence[OutRecord]) -> None:
        end = self._log.end_offset(partition.topic)
        fetched = tuple(_Fetched(end - len(records) + n, *record) for n, record in enumerate(records))
        self._tasks[self._plan.task_of(partition)].enqueue(_Batch(partition, end, fetched))


class TestInputTopic(Generic[K, V]):
    """Writes to a topic that the topology reads."""

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
    """Reads a topic that the topology writes; each record once."""

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
    """Reads a store; rows of a timestamped one with their time by `get_row` and `rows`."""

    def __init__(self, task: Task, name: str) -> None:
        opened = task.store(name)
        self._store: Any = open_store(opened.rows, _NoTime())

    def get(self, key: Any) -> Any:
        """The value of `key`, or None."""
        row = self._store.get(key)
        return row.value if isinstance(row, ValueAndTimestamp) else row

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Keys and values in key order."""
        for key, row in self._store.all():
            yield key, row.value if isinstance(row, ValueAndTimestamp) else row

    def get_row(self, key: Any) -> Any:
        """What is stored under `key`: a `ValueAndTimestamp` in a timestamped store."""
        return self._store.get(key)

    def rows(self) -> Iterator[tuple[Any, Any]]:
        """Keys and what is stored under them, in key order."""
        yield from self._store.all()

    def __len__(self) -> int:
        return sum(1 for _ in self._store.all())


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


def _serde(kind: Any) -> Serde[Any]:
    return serde_for(bytes if kind is None else kind)
