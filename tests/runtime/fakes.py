"""The runtime's ports in memory: a broker with transactions, a disk that survives, and a script of what goes wrong.

Every fake writes what it is asked to the journal of one `Script`, which can fail or hold any step. The tasks are real.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple

import anyio
import anyio.lowlevel
import msgspec

from streamlib import StreamsBuilder
from streamlib.config import ProcessingGuarantee, StreamsConfig
from streamlib.engine.plan import Plan, make_plan
from streamlib.engine.record_cache import CacheBudget
from streamlib.engine.services import Services
from streamlib.engine.task import Task
from streamlib.errors import ErrorCode, KafkaError, LockError
from streamlib.records import FetchedBatch, GroupMetadata, Headers, OffsetAndMetadata, OutRecord, TaskId, TopicPartition
from streamlib.restore_listener import RestoreListener
from streamlib.runtime.assignor import Instructions, Place
from streamlib.runtime.local_stores import LocalStores
from streamlib.runtime.membership import Membership, MembershipSettings
from streamlib.runtime.ports import (
    Assignment,
    JoinResult,
    MemberSubscription,
    StandIn,
    StateDirectory,
    Subscription,
    TopicSpec,
)
from streamlib.runtime.purge import Purger
from streamlib.runtime.restore import Restorer
from streamlib.runtime.shared_backend import SharedBackend
from streamlib.runtime.slow_functions import SlowFunctions
from streamlib.runtime.tasks import TaskFactory, TaskPorts, TaskSet
from streamlib.runtime.topic_watch import TopicWatch
from streamlib.runtime.transaction import AtLeastOnce, Committer, ExactlyOnce
from streamlib.runtime.wakeup import Wakeup
from streamlib.runtime.worker import Worker, WorkerParts
from streamlib.state.backend import Backend
from streamlib.state.memory import InMemoryBackend
from streamlib.topology.nodes import StoreSpec

IN0, IN1 = (TopicPartition("in", number) for number in (0, 1))
LOG0, LOG1 = (TopicPartition("app-counts-changelog", number) for number in (0, 1))
T0, T1 = TaskId(0, 0), TaskId(0, 1)
PATIENCE_S = 5
# After these a producer may add offsets again.
GROUP_REFUSALS = (
    ErrorCode.ILLEGAL_GENERATION,
    ErrorCode.UNKNOWN_MEMBER_ID,
    ErrorCode.REBALANCE_IN_PROGRESS,
    ErrorCode.FENCED_INSTANCE_ID,
)


def kafka_error(code: ErrorCode) -> KafkaError:
    return KafkaError(code, "a request")


def counting_plan(function: Callable[[str], str] = str) -> Plan:
    """Counts the records of each key, in a store with a changelog; two tasks."""
    builder = StreamsBuilder()
    lines = builder.stream("in", key=str, value=str).map_values(function)
    lines.group_by_key().count(store="counts").to_stream().to("out")
    return make_plan(builder.build(), "app", {"in": 2, "out": 2})


async def until(holds: Callable[[], object]) -> None:
    """Let the others go on until it holds."""
    with anyio.fail_after(PATIENCE_S):
        while not holds():
            await anyio.lowlevel.checkpoint()


async def others_run() -> None:
    """Let the others go as far as they can."""
    for _ in range(100):
        await anyio.lowlevel.checkpoint()


async def nothing_decided(members: Iterable[MemberSubscription]) -> dict[str, Assignment]:
    """The coordinator of the fakes assigns by itself."""
    return {}


class Script:
    """What has been done, and what is to go wrong. A step is a word, or a word and what it is about."""

    def __init__(self) -> None:
        self.journal: list[str] = []
        self._faults: dict[str, deque[BaseException]] = defaultdict(deque)
        self._gates: dict[str, anyio.Event] = {}

    def fail(self, step: str, *errors: BaseException | ErrorCode) -> None:
        """The next times, the step fails."""
        self._faults[step].extend(kafka_error(e) if isinstance(e, ErrorCode) else e for e in errors)

    def hold(self, step: str) -> anyio.Event:
        """From now on the step waits for this."""
        self._gates[step] = anyio.Event()
        return self._gates[step]

    def done(self, step: str) -> int:
        """How often the step was begun."""
        return self.journal.count(step)

    async def waits(self, step: str) -> None:
        """A step that is not worth a line in the journal."""
        if gate := self._gates.get(step):
            await gate.wait()

    async def step(self, step: str) -> None:
        self.journal.append(step)
        await anyio.lowlevel.checkpoint()
        if gate := self._gates.get(step):
            await gate.wait()
        self.raise_due(step)

    def step_now(self, step: str) -> None:
        self.journal.append(step)
        self.raise_due(step)

    def raise_due(self, step: str) -> None:
        if self._faults[step]:
            raise self._faults[step].popleft()


class FakeClock:
    """Stands where it is put."""

    def __init__(self) -> None:
        self.ms = 0.0

    def now_ms(self) -> int:
        return int(self.ms)

    def monotonic_ms(self) -> float:
        return self.ms


class Row(NamedTuple):
    """A record as a fetcher gives it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Rows(NamedTuple):
    """A batch as a fetcher gives it."""

    partition: TopicPartition
    next_offset: int
    content: Sequence[Row]

    @property
    def size_bytes(self) -> int:
        return 10 * len(self.content)

    def records(self) -> Iterable[Row]:
        return self.content


class Transaction:
    """What one producer writes together, and what has become of it."""

    def __init__(self) -> None:
        self.outcome: Literal["open", "committed", "aborted"] = "open"
        self.written: set[TopicPartition] = set()
        self.offsets: dict[TopicPartition, OffsetAndMetadata] = {}


class Entry(NamedTuple):
    """One offset of a log: a record, or a control marker."""

    record: OutRecord | None
    transaction: Transaction


class FakeBroker:
    """Logs, committed offsets, open transactions."""

    def __init__(self) -> None:
        self.logs: dict[TopicPartition, list[Entry]] = defaultdict(list)
        self.starts: dict[TopicPartition, int] = defaultdict(int)
        self.committed: dict[TopicPartition, OffsetAndMetadata] = {}
        self.open: dict[str, Transaction] = {}  # by transactional id
        self.changed = anyio.Event()

    def write(self, partition: TopicPartition, *keys: str) -> None:
        """Records of others, committed."""
        done = Transaction()
        done.outcome = "committed"
        self.append(partition, [(key.encode(), b"x", 0, ()) for key in keys], done)

    def append(self, partition: TopicPartition, records: Iterable[OutRecord], transaction: Transaction) -> int:
        self.logs[partition].extend(Entry(record, transaction) for record in records)
        self.tell()
        return len(self.logs[partition])

    def end(self, transactional_id: str, outcome: Literal["committed", "aborted"]) -> None:
        transaction = self.open.pop(transactional_id, None)
        if transaction is None:
            return
        transaction.outcome = outcome
        if outcome == "committed":
            self.committed |= transaction.offsets
        for partition in transaction.written:
            self.append(partition, [], transaction)
            self.logs[partition].append(Entry(None, transaction))
        self.tell()

    def stable_end(self, partition: TopicPartition) -> int:
        log = self.logs[partition]
        return next((n for n, entry in enumerate(log) if entry.transaction.outcome == "open"), len(log))

    def read(self, partition: TopicPartition, position: int) -> Rows | None:
        end = self.stable_end(partition)
        if position >= end:
            return None
        rows = [
            Row(offset, entry.record[2], entry.record[0], entry.record[1])
            for offset, entry in enumerate(self.logs[partition][:end])
            if offset >= position and entry.record is not None and entry.transaction.outcome == "committed"
        ]
        return Rows(partition, end, rows)

    def values(self, partition: TopicPartition) -> list[tuple[bytes | None, bytes | None]]:
        """Keys and values of the committed records."""
        batch = self.read(partition, 0)
        return [] if batch is None else [(row.key, row.value) for row in batch.content]

    def tell(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


class FakeProducer:
    """As strict as the real one: after a failure only `init` leads on."""

    def __init__(self, script: Script, broker: FakeBroker, group: FakeGroup, transactional_id: str | None) -> None:
        self._script = script
        self._broker = broker
        self._group = group
        self._name = transactional_id or "plain"
        self._failed = True
        self._transaction: Transaction | None = None
        self._waiting: list[tuple[TopicPartition, Sequence[OutRecord]]] = []
        self.transactional_id = transactional_id

    @property
    def buffered_bytes(self) -> int:
        return len(self._waiting)

    async def init(self) -> None:
        self._failed = True
        await self._script.step(f"init {self._name}")
        self._broker.end(self._name, "aborted")
        self._transaction, self._waiting = None, []
        self._failed = False

    def begin(self) -> None:
        assert not self._failed, "begin of a failed producer"
        assert self._transaction is None, "begin in a transaction"
        self._script.step_now(f"begin {self._name}")
        self._transaction = self._broker.open[self._name] = Transaction()

    def send(self, partition: TopicPartition, records: Sequence[OutRecord]) -> None:
        assert not self._failed, "send to a failed producer"
        self._waiting.append((partition, records))

    async def wait_for_room(self) -> None:
        await self.flush()

    async def flush(self) -> dict[TopicPartition, int]:
        await self._risky(f"flush {self._name}")
        transaction = self._transaction
        if transaction is None:
            assert self.transactional_id is None
            transaction = Transaction()
            transaction.outcome = "committed"
        waiting, self._waiting = self._waiting, []
        ends = {partition: self._broker.append(partition, records, transaction) for partition, records in waiting}
        transaction.written.update(ends)
        return {partition: len(self._broker.logs[partition]) for partition in transaction.written}

    async def add_offsets(self, group: GroupMetadata, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        assert group.generation >= 0
        assert self._transaction is not None
        try:
            await self._script.step(f"offsets {self._name} in {group.generation}")
            await self._script.step("offsets")
        except KafkaError as error:
            self._failed = error.code not in GROUP_REFUSALS
            raise
        self._group.check(group)
        self._transaction.offsets.update(offsets)

    async def end(self, *, commit: bool) -> None:
        if self._transaction is None:
            return
        await self._risky(f"{'commit' if commit else 'abort'} {self._name}")
        self._broker.end(self._name, "committed" if commit else "aborted")
        self._transaction = None
        try:
            self._script.step_now(f"ended {self._name}")
        except BaseException:
            self._failed = True  # it is done, but nobody heard of it
            raise

    async def close(self) -> None:
        self._script.step_now(f"close {self._name}")

    async def _risky(self, step: str) -> None:
        try:
            await self._script.step(step)
        except BaseException:
            self._failed = True
            raise


class FakeGroup:
    """A coordinator with one member. `rebalance` makes the next heartbeat say that the member has to join again."""

    def __init__(self, script: Script, broker: FakeBroker) -> None:
        self._script = script
        self._broker = broker
        self._rebalancing = False
        self.generation = 0
        self.assigned: tuple[TopicPartition, ...] = ()
        self.instructions = Instructions()
        self.takes_over = True  # at once what a leaving member has
        self.claims: list[tuple[TopicPartition, ...]] = []
        self.introductions: list[bytes] = []

    def rebalance(self, *partitions: TopicPartition, instructions: Instructions | None = None) -> None:
        self.assigned = partitions
        self.instructions = instructions or Instructions()
        self._rebalancing = True

    def check(self, group: GroupMetadata) -> None:
        if group.generation != self.generation:
            raise kafka_error(ErrorCode.ILLEGAL_GENERATION)

    async def join(self, member_id: str, subscription: Subscription) -> JoinResult:
        self.claims.append(subscription.owned)
        self.introductions.append(subscription.user_data)
        self._rebalancing = False
        await self._script.step("join")
        self.generation += 1
        await self._script.step("join answered")
        return JoinResult(self.generation, member_id or "m", leads=False)

    async def sync(self, generation: int, member_id: str, assignments: Mapping[str, Assignment]) -> Assignment:
        await self._script.step("sync")
        if self.takes_over and self.introductions[-1] == b"leaving":
            return Assignment((), msgspec.json.encode(Instructions(members=self.instructions.members)))
        return Assignment(self.assigned, msgspec.json.encode(self.instructions))

    async def heartbeat(self, generation: int, member_id: str) -> None:
        await self._script.waits("heartbeat")
        self._script.raise_due("heartbeat")
        if self._rebalancing:
            raise kafka_error(ErrorCode.REBALANCE_IN_PROGRESS)

    async def leave(self, member_id: str) -> None:
        await self._script.step("leave")

    async def fetch_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        await self._script.step("fetch_offsets")
        wanted = set(partitions)
        while any(wanted & transaction.offsets.keys() for transaction in self._broker.open.values()):
            await self._broker.changed.wait()
        return {p: self._broker.committed[p] for p in wanted if p in self._broker.committed}

    async def commit_offsets(self, group: GroupMetadata, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        assert group.generation >= 0
        await self._script.step("commit_offsets")
        self.check(group)
        self._broker.committed |= offsets

    async def close(self) -> None: ...


class FakeFetcher:
    """Reads committed records of the broker's logs."""

    def __init__(self, script: Script, broker: FakeBroker, name: str) -> None:
        self._script = script
        self._broker = broker
        self._name = name
        self.paused: frozenset[TopicPartition] = frozenset()
        self._failure: BaseException | None = None
        self.positions: dict[TopicPartition, int] = {}

    def break_off(self, error: BaseException) -> None:
        """`wait` raises it, once."""
        self._failure = error
        self._broker.tell()

    def add(self, positions: Mapping[TopicPartition, int]) -> None:
        for partition, position in positions.items():
            self._script.step_now(f"{self._name} {partition} from {position}")
        self.positions.update(positions)
        self._broker.tell()

    def remove(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            self.positions.pop(partition, None)

    async def wait(self) -> None:
        while True:
            failure, self._failure = self._failure, None
            if failure is not None:
                raise failure
            if self.ready:
                return
            await self._broker.changed.wait()

    @property
    def ready(self) -> bool:
        return any(
            position < self._broker.stable_end(partition)
            for partition, position in self.positions.items()
            if partition not in self.paused
        )

    def take(self, max_bytes: int) -> list[FetchedBatch]:
        taken: list[FetchedBatch] = []
        for partition, position in self.positions.items():
            batch = self._broker.read(partition, position)
            if batch is not None and partition not in self.paused:
                taken.append(batch)
        self.positions.update((batch.partition, batch.next_offset) for batch in taken)
        return taken

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        self.paused = frozenset(partitions)

    def end_offsets(self) -> dict[TopicPartition, int]:
        return {partition: self._broker.stable_end(partition) for partition in self.positions}

    def unstable(self) -> dict[TopicPartition, int]:
        return {}

    async def close(self) -> None: ...


class FakeAdmin:
    """Offsets of the broker's logs."""

    def __init__(self, script: Script, broker: FakeBroker) -> None:
        self._script = script
        self._broker = broker

    async def partition_counts(self, topics: Iterable[str]) -> dict[str, int]:
        return dict.fromkeys(topics, 2)

    async def topics(self) -> dict[str, int]:
        return {}

    async def ensure_topics(self, topics: Iterable[TopicSpec]) -> None: ...

    async def list_offsets(
        self, partitions: Iterable[TopicPartition], at: Literal["earliest", "latest", "latest_stable"]
    ) -> dict[TopicPartition, int]:
        wanted = list(partitions)
        await self._script.step(f"list_offsets {at}")
        if at == "earliest":
            return {p: self._broker.starts[p] for p in wanted}
        return {p: len(self._broker.logs[p]) for p in wanted}

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None: ...

    async def close(self) -> None: ...


class Store:
    """A task's stores while they are open; what is in them stays on the fake disk."""

    def __init__(self, script: Script, name: str, disk: InMemoryBackend, on_close: Callable[[], None]) -> None:
        self._script = script
        self._name = name
        self._disk = disk
        self._on_close = on_close
        self.settling = False  # as long as it is, what was loaded in bulk is not safe
        self.closed = False

    def get(self, store: str, key: bytes) -> bytes | None:
        assert not self.closed
        return self._disk.get(store, key)

    def prefetch(self, store: str, keys: Sequence[bytes]) -> None:
        self._disk.prefetch(store, keys)

    def scan(
        self, store: str, start: bytes | None, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        assert not self.closed
        return self._disk.scan(store, start, end, reverse=reverse)

    def peek(self, store: str, key: bytes) -> bytes | None:
        return self._disk.peek(store, key)

    def page(
        self, store: str, start: bytes | None, end: bytes | None, limit: int, *, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        return self._disk.page(store, start, end, limit, reverse=reverse)

    def estimate(self, store: str) -> int:
        return self._disk.estimate(store)

    def write(self, changes: Mapping[str, Mapping[bytes, bytes | None]], positions: Mapping[str, int]) -> None:
        assert not self.closed, "a write to closed stores"
        self._script.step_now(f"write {self._name}")
        self._disk.write(changes, positions)

    def load(
        self, changes: Mapping[str, Mapping[bytes, bytes | None]], positions: Mapping[str, int], *, bulk: bool
    ) -> None:
        assert not self.closed, "a load into closed stores"
        self._script.step_now(f"{'load' if bulk else 'write'} {self._name}")
        self._disk.write(changes, positions)

    def settle(self) -> bool:
        self._script.journal.append(f"settle {self._name}")
        return not self.settling

    def delete_range(self, store: str, start: bytes, end: bytes) -> None:
        self._disk.delete_range(store, start, end)

    def positions(self) -> dict[str, int]:
        return self._disk.positions()

    def clear(self, store: str) -> None:
        self._disk.clear(store)

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True
        self._script.journal.append(f"close {self._name}")
        self._on_close()


class FakeStateDirectory:
    """Disks that survive, and locks that others may hold."""

    identity = "w"
    process = "p"

    def __init__(self, script: Script) -> None:
        self._script = script
        self.stored: dict[TaskId, dict[str, int]] = {}  # positions in folders that nobody has open
        self.disks: dict[str, InMemoryBackend] = defaultdict(InMemoryBackend)
        self.locked: set[TaskId] = set()  # by another process
        self.open_stores: set[str] = set()

    def open(self, task_id: TaskId, stores: Sequence[StoreSpec], *, aside: bool = False) -> Backend:
        name = f"{task_id}.aside" if aside else str(task_id)
        self._script.step_now(f"open {name}")
        if (task_id in self.locked and not aside) or name in self.open_stores:
            raise LockError(f"{name} is held")
        self.open_stores.add(name)
        return Store(self._script, name, self.disks[name], lambda: self.open_stores.remove(name))

    def open_global(self, stores: Sequence[StoreSpec]) -> Backend:
        raise AssertionError("no topology here has global stores")

    def stored_positions(self) -> dict[TaskId, dict[str, int]]:
        return self.stored

    def rows(self, task_id: TaskId) -> dict[bytes, bytes]:
        """What is on the disk of a task's count store."""
        return dict(self.disks[str(task_id)].scan("counts", None, None))


def on_disk(task: Task) -> Store:
    """A task's stores as they are on the fake disk."""
    assert isinstance(task.backend, SharedBackend)
    assert isinstance(task.backend._backend, Store)
    return task.backend._backend


def task_factory(plan: Plan, clock: FakeClock, cache_budget: CacheBudget, services: Services) -> TaskFactory:
    """Real tasks over the fake disk."""

    def make(task_id: TaskId, directory: StateDirectory, aside: bool) -> Task:
        backend = directory.open(task_id, plan.stores(task_id), aside=aside)
        shared = SharedBackend(backend, f"task {task_id}")
        return Task(plan, task_id, shared, now_ms=clock.now_ms, cache_budget=cache_budget, services=services)

    return make


class Bench:
    """Everything of one worker, over the fakes; the parts can be used by themselves."""

    def __init__(
        self,
        function: Callable[[str], str] = str,
        *,
        guarantee: ProcessingGuarantee = "exactly_once_v2",
        reset: str = "earliest",
        plan: Plan | None = None,
        script: Script | None = None,
        cache_max_bytes: int = 0,
        stand_in: StandIn | None = None,
        restore_listener: RestoreListener | None = None,
        input_buffer_max_bytes: int = 16 << 20,
    ) -> None:
        self.script = script or Script()
        self.broker = FakeBroker()
        self.clock = FakeClock()
        self.group = FakeGroup(self.script, self.broker)
        self.admin = FakeAdmin(self.script, self.broker)
        self.fetcher = FakeFetcher(self.script, self.broker, "read")
        self.changelog_fetcher = FakeFetcher(self.script, self.broker, "restore")
        self.directory = FakeStateDirectory(self.script)
        self.plan = plan or counting_plan(function)
        self.wakeup = Wakeup()
        self.membership = Membership(
            self.group,
            self.clock,
            MembershipSettings(group_id="app", topics=("in",), heartbeat_interval_ms=1),
            nothing_decided,
            lambda leaving: b"leaving" if leaving else b"",
            on_change=self.wakeup,
        )
        self.restorer = Restorer(self.changelog_fetcher, self.admin, self.clock, self.wakeup, restore_listener)
        ports = TaskPorts(self.group, self.admin, self.fetcher, self.directory, self.clock)
        self.cache_budget = CacheBudget(cache_max_bytes)
        services = Services(self.clock.monotonic_ms)
        make_task = task_factory(self.plan, self.clock, self.cache_budget, services)
        self.tasks = TaskSet(self.plan, ports, self.restorer, make_task, reset)
        self.committer = self._committer(guarantee)
        config = StreamsConfig(
            application_id="app",
            processing_guarantee=guarantee,
            input_buffer_max_bytes=input_buffer_max_bytes,
        )
        purger = Purger(self.plan, self.admin, 1_000_000)
        self.worker = Worker(
            WorkerParts(
                self.plan,
                config,
                self.clock,
                self.admin,
                self.fetcher,
                self.membership,
                self.committer,
                self.restorer,
                self.tasks,
                purger,
                TopicWatch(self.plan, self.admin, 1_000_000, self.wakeup),
                self.wakeup,
                SlowFunctions(self.plan, config, self.membership, stand_in),
                services,
                LocalStores(self.plan, Place(), self.membership, self.tasks, self.restorer),
            )
        )

    @property
    def journal(self) -> list[str]:
        return self.script.journal

    def counts(self) -> list[tuple[str, int]]:
        """What readers of the output see, partition by partition."""
        partitions = [TopicPartition("out", number) for number in (0, 1)]
        return [
            (key.decode(), int.from_bytes(value, "big"))
            for partition in partitions
            for key, value in self.broker.values(partition)
            if key is not None and value is not None
        ]

    def committed(self, partition: TopicPartition) -> int:
        at = self.broker.committed.get(partition)
        return -1 if at is None else at.offset

    def _committer(self, guarantee: ProcessingGuarantee) -> Committer:
        if guarantee == "at_least_once":
            return AtLeastOnce(self._producer(None), self.group, self.membership)
        return ExactlyOnce([self._producer("even"), self._producer("odd")], self.group, self.membership)

    def _producer(self, transactional_id: str | None) -> FakeProducer:
        return FakeProducer(self.script, self.broker, self.group, transactional_id)


TWO = ["m", "other"]


@asynccontextmanager
async def working(bench: Bench, *partitions: TopicPartition, **instructions: Any) -> AsyncIterator[None]:
    """A worker in a group of two, with these partitions and `Instructions`; stopped at the end."""
    bench.group.assigned = partitions
    bench.group.instructions = Instructions(members=TWO, **instructions)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as children:
            children.start_soon(_run, bench)
            yield
            bench.worker.stop()


async def _run(bench: Bench) -> None:
    await bench.worker.run(leave=True)
