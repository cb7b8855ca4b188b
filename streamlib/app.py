"""The application: a topology, a configuration, and the one place that wires everything together."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from types import TracebackType
from typing import Protocol, Self, TypeAlias

import anyio
import anyio.abc

from streamlib.config import StreamsConfig
from streamlib.engine.global_state import GlobalState
from streamlib.engine.operators.site import OpenStore
from streamlib.engine.plan import Plan, dead_letter_topics, make_plan, sink_topics, source_patterns, source_topics
from streamlib.engine.record_cache import CacheBudget
from streamlib.engine.task import Task
from streamlib.errors import StreamsError, StreamsNotStartedError, TopologyError
from streamlib.kafka.connection import Connection
from streamlib.records import TaskId
from streamlib.runtime.assignor import assignor, user_data
from streamlib.runtime.global_stores import GlobalStores
from streamlib.runtime.membership import Membership, MembershipSettings
from streamlib.runtime.ports import Admin, Clock, Fetcher, Group, Producer, StateDirectory, TopicSpec
from streamlib.runtime.purge import Purger
from streamlib.runtime.restore import Restorer
from streamlib.runtime.tasks import TaskFactory, TaskPorts, TaskSet
from streamlib.runtime.topic_watch import TopicWatch
from streamlib.runtime.transaction import AtLeastOnce, Committer, ExactlyOnce
from streamlib.runtime.wakeup import Wakeup
from streamlib.runtime.worker import Worker, WorkerParts, WorkerStatus
from streamlib.state_directory import LocalStateDirectory
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


class Adapters(Protocol):
    """Makes the ports of one worker. `Connection` makes those of a real cluster; tests wrap it to break things."""

    def group(self) -> Group: ...
    def admin(self) -> Admin: ...
    def producer(self, transactional_id: str | None) -> Producer: ...
    def fetcher(self) -> Fetcher: ...
    async def close(self) -> None: ...


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
        connect: makes the connection to Kafka; only tests need another than the default.

    >>> from streamlib import StreamsBuilder
    >>> builder = StreamsBuilder()
    >>> builder.stream("in").to("out")
    >>> KafkaStreams(builder.build(), StreamsConfig(application_id="copy")).state
    <State.CREATED: 'CREATED'>
    """

    def __init__(self, topology: Topology, config: StreamsConfig, *, connect: Connect | None = None) -> None:
        self._topology = topology
        self._config = config
        self._connect: Connect = connect or Connection.open
        self._worker: Worker | None = None
        self._phase = State.CREATED
        self._stopped = anyio.Event()
        self._error: StreamsError | None = None
        self._background: anyio.abc.TaskGroup | None = None

    @property
    def state(self) -> State:
        """Where the application is in its life."""
        if self._phase is State.RUNNING and not (self._worker and self._worker.running):
            return State.REBALANCING
        return self._phase

    @property
    def status(self) -> WorkerStatus:
        """What the worker is doing.

        Raises:
            StreamsNotStartedError: it does nothing yet.
        """
        if self._worker is None:
            raise StreamsNotStartedError("the application has not started: call run() or enter it with `async with`")
        return self._worker.status

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

    def close(self) -> None:
        """Ask the worker to commit, close and leave. Harmless when it has stopped."""
        if self._phase in (State.RUNNING, State.CREATED):
            self._phase = State.PENDING_SHUTDOWN
        if self._worker is not None:
            self._worker.stop()

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
        while True:
            worker = await self._work_by_one_plan()
            if not worker.outdated or self._phase is not State.RUNNING:
                return

    async def _work_by_one_plan(self) -> Worker:
        adapters = await self._connect(self._config)
        try:
            admin = adapters.admin()
            plan = await plan_and_prepare(self._topology, self._config, admin)
            with LocalStateDirectory(self._config) as directory:
                self._worker = build_worker(plan, self._config, adapters, directory)
                if self._phase is State.CREATED:
                    self._phase = State.RUNNING
                elif self._phase is not State.RUNNING:
                    self._worker.stop()  # closed while it was starting
                await self._worker.run(leave=self._config.group_instance_id is None)
                return self._worker
        finally:
            with anyio.CancelScope(shield=True):
                await adapters.close()

    async def _watch_signals(self, scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for received in signals:
                if self._phase is State.PENDING_SHUTDOWN:
                    log.warning("%s again: stopping without a commit", received.name)
                    scope.cancel()
                    return
                log.info("%s: committing and closing", received.name)
                self.close()


async def plan_and_prepare(topology: Topology, config: StreamsConfig, admin: Admin) -> Plan:
    """Check the topics, create the internal ones, and plan the tasks.

    Raises:
        TopologyError: a topic is missing, inputs are not co-partitioned, or an internal topic has the wrong shape.
    """
    dead_letters = dead_letter_topics(topology, config.error_policies)
    counts = await admin.partition_counts((*source_topics(topology), *sink_topics(topology), *dead_letters))
    if missing := sorted(dead_letters - counts.keys()):
        raise TopologyError(
            f"the topics for dead letters do not exist: {', '.join(missing)}: create them before the application starts"
        )
    if source_patterns(topology):
        counts = {**await admin.topics(), **counts}
    if missing := [topic for topic in sink_topics(topology) if topic not in counts]:
        raise TopologyError(
            f"topics that the topology writes to do not exist: {', '.join(missing)}: "
            "create them before the application starts"
        )
    plan = make_plan(topology, config.application_id, counts)
    repartition = [
        TopicSpec(name, partitions, {"cleanup.policy": "delete", "retention.ms": "-1"})
        for name, partitions in plan.repartition_topics.items()
    ]
    changelogs = [TopicSpec(name, *shape) for name, shape in plan.changelog_topics.items()]
    await admin.ensure_topics([*repartition, *changelogs])
    return plan


def build_worker(plan: Plan, config: StreamsConfig, adapters: Adapters, directory: LocalStateDirectory) -> Worker:
    """Wire one worker."""
    clock, wakeup = SystemClock(), Wakeup()
    group, admin, fetcher = adapters.group(), adapters.admin(), adapters.fetcher()
    settings = MembershipSettings(
        group_id=config.application_id,
        topics=tuple(sorted(plan.topics)),
        instance_id=config.group_instance_id,
        heartbeat_interval_ms=config.heartbeat_interval_ms,
    )
    membership = Membership(
        group, clock, settings, assignor(plan), user_data(plan, directory.stored_tasks), on_change=wakeup
    )
    restorer = Restorer(adapters.fetcher(), admin, clock, on_done=wakeup)
    ports = TaskPorts(group, admin, fetcher, directory, clock)
    global_state = open_global_state(plan, config, directory, clock)
    global_stores = None if global_state is None else GlobalStores(global_state, adapters.fetcher(), admin, clock)
    make_task = task_factory(plan, config, clock, global_state.stores if global_state else {})
    tasks = TaskSet(plan, ports, restorer, make_task, config.auto_offset_reset)
    committer = build_committer(config, adapters, directory.identity, group, membership)
    return Worker(
        WorkerParts(
            plan=plan,
            config=config,
            clock=clock,
            admin=admin,
            fetcher=fetcher,
            membership=membership,
            committer=committer,
            restorer=restorer,
            tasks=tasks,
            purger=Purger(plan, admin, config.repartition_purge_interval_ms),
            topic_watch=TopicWatch(plan, admin, config.metadata_max_age_ms, wakeup),
            wakeup=wakeup,
            global_stores=global_stores,
        )
    )


def open_global_state(
    plan: Plan, config: StreamsConfig, directory: LocalStateDirectory, clock: Clock
) -> GlobalState | None:
    """This worker's global stores; None if the topology has none."""
    if not plan.global_stores:
        return None
    backend = directory.open_global(plan.global_stores)
    return GlobalState(plan, backend, now_ms=clock.now_ms, policies=config.error_policies)


def build_committer(
    config: StreamsConfig, adapters: Adapters, identity: str, group: Group, membership: Membership
) -> Committer:
    """The one place where `processing_guarantee` decides."""
    if config.processing_guarantee == "at_least_once":
        return AtLeastOnce(adapters.producer(None), group, membership)
    # The same ids after every restart of this worker: its open transactions are finished at once, not by a timeout.
    names = [f"{config.application_id}-{identity}-{turn}" for turn in (0, 1)]
    return ExactlyOnce([adapters.producer(name) for name in names], group, membership)


def task_factory(
    plan: Plan, config: StreamsConfig, clock: Clock, global_stores: Mapping[str, OpenStore]
) -> TaskFactory:
    """Makes a task over its stores on disk."""
    cache_budget = CacheBudget(config.statestore_cache_max_bytes)

    def make(task_id: TaskId, directory: StateDirectory, aside: bool) -> Task:
        backend = directory.open(task_id, plan.stores(task_id), aside=aside)
        return Task(
            plan,
            task_id,
            backend,
            now_ms=clock.now_ms,
            max_task_idle_ms=config.max_task_idle_ms,
            max_value_bytes=config.max_request_size,
            global_stores=global_stores,
            cache_budget=cache_budget,
            policies=config.error_policies,
        )

    return make
