"""The application: a topology, a configuration, and the one place that wires everything together."""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import os
import platform
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from enum import Enum
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar, assert_never, overload

import anyio
import anyio.abc
import anyio.to_thread
import msgspec

from streamlib.config import StreamsConfig
from streamlib.engine.plan import Plan
from streamlib.engine.tracing import Tracing
from streamlib.errors import StreamsError, StreamsNotStartedError, StreamsStoppedError
from streamlib.kafka.connection import Connection
from streamlib.kafka.stand_in import ThreadStandIn
from streamlib.metrics import ClientMetrics, Health, HealthStatus, Metrics
from streamlib.queries.metadata import (
    KeyQueryMetadata,
    StorePartitioner,
    StreamsMetadata,
    find_store,
    key_metadata,
    streams_metadata,
)
from streamlib.queries.parts import Question
from streamlib.queries.views import open_view
from streamlib.restore_listener import RestoreListener
from streamlib.runtime.album import Album, key_serdes_of
from streamlib.runtime.local_stores import LagInfo, LocalStores
from streamlib.runtime.monitor import Monitor, Seen
from streamlib.runtime.sampling import Sampling
from streamlib.runtime.wiring import Adapters, build_worker, plan_and_prepare
from streamlib.runtime.worker import Worker, WorkerStatus
from streamlib.snapshots.worker import WorkerSnapshot
from streamlib.state_directory import LocalStateDirectory
from streamlib.topology.lifespans import opened
from streamlib.topology.topology import Topology

log = logging.getLogger(__name__)


class State(Enum):
    """An application's life, in Kafka Streams' words.

    CREATED -> REBALANCING <-> RUNNING -> PENDING_SHUTDOWN -> NOT_RUNNING, or by way of an error to ERROR.

    >>> State.RUNNING.value
    'RUNNING'
    """

    CREATED = "CREATED"
    REBALANCING = "REBALANCING"
    RUNNING = "RUNNING"
    PENDING_SHUTDOWN = "PENDING_SHUTDOWN"
    NOT_RUNNING = "NOT_RUNNING"
    ERROR = "ERROR"


View = TypeVar("View")

Connect: TypeAlias = Callable[[StreamsConfig], Awaitable[Adapters]]


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> float:
        return time.monotonic() * 1000


class KafkaStreams:
    """Runs one worker of an application until it is stopped.

    More workers with the same `application_id`, in this process or any other, share the tasks among them.

        await KafkaStreams(topology, config).run()          # until SIGINT or SIGTERM

        async with KafkaStreams(topology, config) as app:   # until the block ends
            await app.wait_running()

    Args:
        topology: what to run, from `StreamsBuilder.build()`.
        config: how to run it.
        restore_listener: is told how stores are restored and followed.
        tracing: traces records, such as `streamlib.monitoring.tracing.OpenTelemetryTracing()`.
        connect: makes the connection to Kafka; only tests need another than the default.

    >>> from streamlib import StreamsBuilder
    >>> builder = StreamsBuilder()
    >>> builder.stream("in").to("out")
    >>> KafkaStreams(builder.build(), StreamsConfig(application_id="copy")).state
    <State.CREATED: 'CREATED'>
    """

    def __init__(
        self,
        topology: Topology,
        config: StreamsConfig,
        *,
        restore_listener: RestoreListener | None = None,
        tracing: Tracing | None = None,
        connect: Connect | None = None,
    ) -> None:
        self._topology = topology
        self._config = config
        self._restore_listener = restore_listener
        self._tracing = tracing
        self._connect: Connect = connect or Connection.open
        self._worker: Worker | None = None
        self._worker_id = ""
        self._monitor: Monitor | None = None  # started, and perhaps stopped
        self._life: anyio.CancelScope | None = None  # cancelled if it is closed before there is a worker
        self._phase = State.CREATED
        self._paused = False
        self._stopped = anyio.Event()
        self._error: StreamsError | None = None
        self._background: anyio.abc.TaskGroup | None = None
        self._shown = False  # the console wants to know more than the metrics

    @property
    def config(self) -> StreamsConfig:
        """How it runs."""
        return self._config

    @property
    def topology(self) -> Topology:
        """What it runs."""
        return self._topology

    @property
    def state(self) -> State:
        """Where the application is in its life."""
        return self._state_of(self._worker is not None and self._worker.running)

    def _state_of(self, running: bool) -> State:
        return State.REBALANCING if self._phase is State.RUNNING and not running else self._phase

    @property
    def status(self) -> WorkerStatus:
        """What the worker is doing.

        Raises:
            StreamsNotStartedError: it does nothing yet.
        """
        return self._started.status

    def metrics(self) -> Metrics:
        """What is measured, as of now. Any thread may ask.

        While a function holds the worker's event loop, other threads are told what was there before.

        >>> from streamlib import StreamsBuilder
        >>> builder = StreamsBuilder()
        >>> builder.stream("in").to("out")
        >>> KafkaStreams(builder.build(), StreamsConfig(application_id="copy")).metrics().client.state
        'CREATED'
        """
        seen = None if self._monitor is None else self._monitor.read()
        health, state = self._health_of(seen), self._state_of(seen is not None and seen.running)
        return Metrics(
            application_id=self._config.application_id,
            worker_id=self._worker_id,
            client=ClientMetrics(
                state=state.value,
                version=_version(),
                alive_stream_threads=int(state in (State.RUNNING, State.REBALANCING, State.PENDING_SHUTDOWN)),
                failed_stream_threads=int(state is State.ERROR),
                health=health.status,
                ready=health.ready,
            ),
            **({} if seen is None else {name: getattr(seen, name) for name in _SHOWN}),
        )

    def streams_metadata(self) -> tuple[StreamsMetadata, ...]:
        """The workers of the application and what each has, as this one was told last; itself first.

        Any thread may ask.

        Workers without an `application_server` are among them if another one has it; members of a release that knew
        no such setting have tasks, but no place. Where the brokers assign (`group_protocol="streams"`), only workers
        that have it are told of.

        Raises:
            StreamsNotStartedError: it does nothing yet.
        """
        return streams_metadata(self._started.local)

    def streams_metadata_for_store(self, store: str) -> tuple[StreamsMetadata, ...]:
        """Those of them that have a part of a store, or a copy of one. Any thread may ask.

        Raises:
            UnknownStateStoreError: there is no such store.
            StreamsNotStartedError: it does nothing yet.
        """
        find_store(self._started.local.plan, store)
        found = self.streams_metadata()
        return tuple(m for m in found if store in m.state_store_names or store in m.standby_state_store_names)

    def query_metadata_for_key(
        self, store: str, key: Any, *, partitioner: StorePartitioner | None = None
    ) -> KeyQueryMetadata:
        """Which worker has a key, and which have copies. Any thread may ask.

        Args:
            store: the store's name.
            key: of the type of the store's keys; of a store of windows or sessions, without those.
            partitioner: f(key, partition count) -> partition, for stores whose keys are not where Kafka's default
                partitioner puts them.

        Raises:
            UnknownStateStoreError: there is no such store.
            InvalidStateStoreError: every worker has all of it; or a partitioner of the topology's places its keys, and
                none was given.
            SerializationError: it is no key of this store.
            StreamsNotStartedError: it does nothing yet.
        """
        return key_metadata(self._started.local, store, key, partitioner)

    @overload
    def store(
        self,
        name: str,
        kind: type[View],
        *,
        stale: bool = False,
        partition: int | None = None,
        partitioner: StorePartitioner | None = None,
        with_timestamps: bool = False,
    ) -> View: ...

    @overload
    def store(
        self,
        name: str,
        kind: None = None,
        *,
        stale: bool = False,
        partition: int | None = None,
        partitioner: StorePartitioner | None = None,
        with_timestamps: bool = False,
    ) -> Any: ...

    def store(
        self,
        name: str,
        kind: type[Any] | None = None,
        *,
        stale: bool = False,
        partition: int | None = None,
        partitioner: StorePartitioner | None = None,
        with_timestamps: bool = False,
    ) -> Any:
        """A store to be read from outside of the topology: what is committed of the parts that this worker has.

            counts = app.store("counts")
            await counts.get("ann")

        Any event loop may read it, in any thread.

        Args:
            name: the store's name.
            kind: what is expected, for type checkers: `ReadOnlyKeyValueStore` or another one; what the store is if not
                given.
            stale: whether copies will do that are kept for other workers, and stores that are being restored; how far
                they are behind is told by `all_local_store_partition_lags` (KIP-535).
            partition: only this one, and keys are in it, wherever the partitioner would put them.
            partitioner: f(key, partition count) -> partition, where that is not Kafka's default.
            with_timestamps: whether values come as `ValueAndTimestamp`, where the store keeps times.

        Raises:
            UnknownStateStoreError: there is no such store.
            InvalidStateStoreError: it is of another kind, or has no such partition.
            StreamsNotStartedError: the application does nothing yet.
            StreamsStoppedError: it does nothing any more.
        """
        question = Question(store=name, stale=stale, partition=partition, partitioner=partitioner)
        return open_view(lambda: self.local_stores, question, kind, with_timestamps=with_timestamps)

    def all_local_store_partition_lags(self) -> dict[str, dict[int, LagInfo]]:
        """How far each part of a store that this worker has is behind its changelog: by store, by partition.

        Any thread may ask. Stores without a changelog, and global ones, are not among them.

        Raises:
            StreamsNotStartedError: it does nothing yet.
        """
        return self._started.local.lags()

    @property
    def local_stores(self) -> LocalStores:
        """What this worker has of stores, for those who serve it to others.

        Raises:
            StreamsNotStartedError: it does nothing yet.
            StreamsStoppedError: it does nothing any more.
        """
        if self._phase in (State.NOT_RUNNING, State.ERROR):
            raise StreamsStoppedError("the application has stopped: ask another worker, or start it again")
        return self._started.local

    @property
    def _started(self) -> Worker:
        if self._worker is None:
            raise StreamsNotStartedError("the application has not started: call run() or enter it with `async with`")
        return self._worker

    def health(self) -> Health:
        """Whether it gets anywhere, and if not, why. Any thread may ask.

        >>> from streamlib import StreamsBuilder
        >>> builder = StreamsBuilder()
        >>> builder.stream("in").to("out")
        >>> KafkaStreams(builder.build(), StreamsConfig(application_id="copy")).health().reasons
        ('the application has not started yet',)
        """
        return self._health_of(None if self._monitor is None else self._monitor.read())

    def show(self) -> None:
        """Sample what the console shows: which keys come often, and which nodes take long. To be called before it runs.

        It costs below one percent of a core.
        """
        self._shown = True

    def snapshot(self) -> WorkerSnapshot:
        """The worker as the console shows it; hardly anything without `show`. Any thread may ask.

        >>> from streamlib import StreamsBuilder
        >>> builder = StreamsBuilder()
        >>> builder.stream("in").to("out")
        >>> KafkaStreams(builder.build(), StreamsConfig(application_id="copy")).snapshot().health
        'degraded'
        """
        seen = None if self._monitor is None else self._monitor.read()
        health = self._health_of(seen)
        taken = seen.snapshot if seen is not None and seen.snapshot is not None else self._no_snapshot()
        return msgspec.structs.replace(
            taken,
            worker_id=self._worker_id,
            host=platform.node(),
            version=_version(),
            state=self._state_of(seen is not None and seen.running).value,
            health=health.status.name.lower(),
            ready=health.ready,
            reasons=health.reasons,
        )

    def _no_snapshot(self) -> WorkerSnapshot:
        return WorkerSnapshot(
            application_id=self._config.application_id,
            pid=os.getpid(),
            at_ms=SystemClock().now_ms(),
            guarantee=self._config.processing_guarantee,
        )

    def _health_of(self, seen: Seen | None) -> Health:
        state = self._state_of(seen is not None and seen.running)
        match state:
            case State.ERROR:
                return Health(HealthStatus.STUCK, False, (f"stopped by an error: {self._error or 'see the log'}",))
            case State.NOT_RUNNING:
                return Health(HealthStatus.STUCK, False, ("the application has stopped",))
            case State.PENDING_SHUTDOWN:
                return Health(HealthStatus.DEGRADED, False, ("the application is about to stop",))
            case State.CREATED:
                return Health(HealthStatus.DEGRADED, False, ("the application has not started yet",))
            case State.RUNNING | State.REBALANCING:
                findings = () if seen is None else seen.findings
                status = max((finding.status for finding in findings), default=HealthStatus.OK)
                paused = ("paused by KafkaStreams.pause(); resume() lets it go on",) if self._paused else ()
                reasons = (*(finding.text for finding in findings), *paused)
                return Health(status, state is State.RUNNING, reasons)
            case _:
                assert_never(state)

    async def run(self) -> None:
        """Run until `close`, SIGINT or SIGTERM, then commit and close; a second signal aborts.

        Raises:
            StreamsError: what stopped it; see `streamlib.errors`.
        """
        async with anyio.create_task_group() as group:
            if threading.current_thread() is threading.main_thread():
                group.start_soon(self._watch_signals, group.cancel_scope)
            await self._run()
            group.cancel_scope.cancel()
        if self._error is not None:
            raise self._error

    @property
    def _leaves(self) -> bool:
        """A static member comes back, unless somebody says otherwise (KIP-345)."""
        asked = self._config.leave_group
        return self._config.group_instance_id is None if asked is None else asked

    def close(self, *, leave_group: bool | None = None) -> None:
        """Ask the worker to hand over, commit, close and leave. Harmless when it has stopped.

        Args:
            leave_group: whether it leaves the group, so that others take its tasks at once; as configured if not given.
        """
        if self._phase in (State.RUNNING, State.CREATED):
            self._phase = State.PENDING_SHUTDOWN
        if self._worker is not None:
            self._worker.stop(leave=leave_group)
        elif self._life is not None:
            self._life.cancel()

    @property
    def paused(self) -> bool:
        """Whether it processes nothing until `resume`."""
        return self._paused

    def pause(self) -> None:
        """Process no more records and call no punctuators until `resume` (KIP-834). Harmless when it is paused.

        What has begun is ended and committed. The worker stays in the group, keeps its tasks, restores stores and keeps
        standbys up to date (Kafka Streams lets these stand still, too, so that a task that comes back has more to
        restore). Before the start, it begins paused. Only this worker is paused, and only as long as it lives.

        >>> from streamlib import StreamsBuilder
        >>> builder = StreamsBuilder()
        >>> builder.stream("in").to("out")
        >>> app = KafkaStreams(builder.build(), StreamsConfig(application_id="copy"))
        >>> app.pause()
        >>> app.paused
        True
        """
        self._paused = True
        if self._worker is not None:
            self._worker.pause()

    def resume(self) -> None:
        """Go on after `pause`, with the record that would have been next. Harmless when it is not paused."""
        self._paused = False
        if self._worker is not None:
            self._worker.resume()

    async def wait_running(self) -> None:
        """Return when every task assigned to this worker is processing.

        Raises:
            StreamsError: it stopped before that.
        """
        while self.state is not State.RUNNING:
            if self._stopped.is_set():
                raise self._error or StreamsNotStartedError("the application was closed before it ran")
            await anyio.sleep(0.01)

    async def __aenter__(self) -> Self:
        self._background = await anyio.create_task_group().__aenter__()
        self._background.start_soon(self._run_in_background)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._background is not None
        self.close()
        with anyio.CancelScope(shield=True):
            await self._stopped.wait()
        cancelled_by_us = self._error is not None
        if error is not None and not isinstance(error, anyio.get_cancelled_exc_class()):
            # What the block raised is to arrive as itself: a task group would put it into an exception group.
            await self._background.__aexit__(None, None, None)
            return None
        swallowed = await self._background.__aexit__(kind, error, trace)
        if cancelled_by_us and (error is None or swallowed):
            assert self._error is not None
            raise self._error
        return swallowed

    async def _run_in_background(self) -> None:
        assert self._background is not None
        await self._run()
        if self._error is not None:
            self._background.cancel_scope.cancel()  # the block would wait for an application that is gone

    async def _run(self) -> None:
        """The whole life; what stopped it is kept in `_error`."""
        try:
            await self._connect_and_work()
            self._phase = State.NOT_RUNNING
        except StreamsError as error:
            self._phase = State.ERROR
            self._error = error
        except BaseException:  # a defect of ours, or a second signal: not a clean end
            self._phase = State.ERROR
            raise
        finally:
            self._stopped.set()

    async def _connect_and_work(self) -> None:
        with anyio.CancelScope() as self._life:
            async with opened(self._topology.lifespans):
                await self._work_by_plan_after_plan()

    async def _work_by_plan_after_plan(self) -> None:
        while True:
            with anyio.CancelScope() as self._life:
                worker = await self._work_by_one_plan()
            if self._life.cancelled_caught or not worker.outdated or self._phase is not State.RUNNING:
                return

    async def _work_by_one_plan(self) -> Worker:
        adapters = await self._connect(self._config)
        try:
            admin = adapters.admin()
            plan = await plan_and_prepare(self._topology, self._config, admin)
            for prepare in plan.preparations:
                await anyio.to_thread.run_sync(prepare, abandon_on_cancel=True)
            with LocalStateDirectory(self._config) as directory:
                self._worker = build_worker(
                    plan,
                    self._config,
                    adapters,
                    directory,
                    SystemClock(),
                    platform.node(),
                    _stand_in(self._config),
                    self._restore_listener,
                    self._tracing,
                )
                if self._paused:
                    self._worker.pause()
                if self._phase is State.CREATED:
                    self._phase = State.RUNNING
                elif self._phase is not State.RUNNING:
                    self._worker.stop()  # closed while it was starting
                self._worker_id = directory.identity
                await self._run_watched(self._worker, plan)
                return self._worker
        finally:
            with anyio.CancelScope(shield=True):
                await adapters.close()

    async def _run_watched(self, worker: Worker, plan: Plan) -> None:
        album = None
        if self._shown:
            worker.meter.sampling = Sampling()
            album = Album(self._config, key_serdes_of(plan), worker.meter.sampling)
        monitor = Monitor(worker, self._config, album)
        monitor.start()
        self._monitor = monitor
        try:
            await worker.run(leave=self._leaves)
        finally:
            monitor.stop()

    async def _watch_signals(self, scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for received in signals:
                if self._phase is State.PENDING_SHUTDOWN:
                    log.warning("%s again: stopping without a commit", received.name)
                    scope.cancel()
                    return
                log.info("%s: committing and closing", received.name)
                self.close()


_SHOWN = ("worker", "tasks", "restoring", "partitions", "nodes", "stores", "caches")


@functools.cache
def _version() -> str:
    try:
        return importlib.metadata.version("streamlib")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"  # run from a checkout


def _stand_in(config: StreamsConfig) -> ThreadStandIn | None:
    """In a streams group each answer to a heartbeat may tell of other tasks, once: nobody may beat for another."""
    return ThreadStandIn(config) if config.group_protocol == "classic" else None
