"""How a worker is put together from ports: the same for a real cluster and for a simulated one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import anyio

from streamlib.config import StreamsConfig
from streamlib.engine.assignment import Policy
from streamlib.engine.counts import Counts
from streamlib.engine.global_state import GlobalState
from streamlib.engine.operators.site import OpenStore
from streamlib.engine.plan import Plan, dead_letter_topics, make_plan, sink_topics, source_patterns, source_topics
from streamlib.engine.record_cache import CacheBudget
from streamlib.engine.services import Services
from streamlib.engine.task import Task
from streamlib.engine.tracing import Tracing
from streamlib.errors import ConfigError, TopologyError
from streamlib.records import TaskId
from streamlib.restore_listener import RestoreListener
from streamlib.runtime.assignor import Assignor, Place, introduction
from streamlib.runtime.global_stores import GlobalStores
from streamlib.runtime.local_stores import LocalStores
from streamlib.runtime.membership import Membership, MembershipSettings
from streamlib.runtime.meter import Meter
from streamlib.runtime.metered_backend import MeteredBackend
from streamlib.runtime.ports import Admin, Clock, Fetcher, Group, Producer, StandIn, StateDirectory, TopicSpec
from streamlib.runtime.purge import Purger
from streamlib.runtime.restore import Restorer
from streamlib.runtime.shared_backend import SharedBackend
from streamlib.runtime.slow_functions import SlowFunctions
from streamlib.runtime.tasks import TaskFactory, TaskPorts, TaskSet
from streamlib.runtime.topic_watch import TopicWatch
from streamlib.runtime.transaction import AtLeastOnce, Committer, ExactlyOnce
from streamlib.runtime.wakeup import Wakeup
from streamlib.runtime.worker import Worker, WorkerParts
from streamlib.topology.topology import Topology

CLIENT_RACK = "client.rack"
"""The tag that says the rack; no tag that is set one by one can be called so."""
UNKNOWN_TOPIC_PAUSES_S = (0.1, 0.3, 0.6)


class Adapters(Protocol):
    """Makes the ports of one worker. `Connection` makes those of a real cluster; tests wrap it to break things."""

    def group(self) -> Group: ...
    def streams_group(self, plan: Plan, place: Place, member_id: str | None) -> Group: ...
    def admin(self) -> Admin: ...
    def producer(self, transactional_id: str | None) -> Producer: ...
    def fetcher(self) -> Fetcher: ...
    async def close(self) -> None: ...


async def plan_and_prepare(topology: Topology, config: StreamsConfig, admin: Admin) -> Plan:
    """Check the topics, create the internal ones, and plan the tasks.

    Raises:
        TopologyError: a topic is missing, inputs are not co-partitioned, or an internal topic has the wrong shape.
    """
    plan = await plan_on(topology, config, admin)
    repartition = [
        TopicSpec(name, partitions, {"cleanup.policy": "delete", "retention.ms": "-1"})
        for name, partitions in plan.repartition_topics.items()
    ]
    changelogs = [TopicSpec(name, *shape) for name, shape in plan.changelog_topics.items()]
    await admin.ensure_topics([*repartition, *changelogs])
    return plan


async def plan_on(topology: Topology, config: StreamsConfig, admin: Admin) -> Plan:
    """Plan the tasks on the topics there are; nothing is created.

    Raises:
        TopologyError: a topic is missing that is not internal, or inputs are not co-partitioned.
    """
    dead_letters = dead_letter_topics(topology, config.error_policies)
    counts = await _counts_of({*source_topics(topology), *sink_topics(topology), *dead_letters}, admin)
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
    return make_plan(topology, config.application_id, counts)


async def _counts_of(topics: set[str], admin: Admin) -> dict[str, int]:
    """Partition counts. Brokers hear of a new topic one after the other, so one that is missing is asked for again."""
    for pause_s in UNKNOWN_TOPIC_PAUSES_S:
        counts = await admin.partition_counts(topics)
        if topics <= counts.keys():
            return counts
        await anyio.sleep(pause_s)
    return await admin.partition_counts(topics)


def build_worker(
    plan: Plan,
    config: StreamsConfig,
    adapters: Adapters,
    directory: StateDirectory,
    clock: Clock,
    host: str = "",
    stand_in: StandIn | None = None,
    restore_listener: RestoreListener | None = None,
    tracing: Tracing | None = None,
) -> Worker:
    """Wire one worker; `host` names the machine it runs on. A `stand_in` beats while functions hold its event loop."""
    wakeup = Wakeup()
    place = Place(directory.process, host, _tags(config), config.application_server or "", directory.identity)
    group = build_group(plan, config, adapters, place, directory.identity)
    admin, fetcher = adapters.admin(), adapters.fetcher()
    settings = MembershipSettings(
        group_id=config.application_id,
        topics=tuple(sorted(plan.topics)),
        instance_id=config.group_instance_id,
        heartbeat_interval_ms=config.heartbeat_interval_ms,
        session_timeout_ms=config.session_timeout_ms,
    )
    restorer = Restorer(adapters.fetcher(), admin, clock, wakeup, restore_listener)
    ports = TaskPorts(group, admin, fetcher, directory, clock)
    global_state = open_global_state(plan, config, directory, clock)
    global_stores = None if global_state is None else GlobalStores(global_state, adapters.fetcher(), admin, clock)
    meter = Meter()
    services = Services(clock.monotonic_ms)
    make_task = task_factory(plan, config, clock, services, global_state.stores if global_state else {}, meter, tracing)
    tasks = TaskSet(plan, ports, restorer, make_task, config.auto_offset_reset)
    policy = Policy(
        num_standby_replicas=config.num_standby_replicas,
        acceptable_recovery_lag=config.acceptable_recovery_lag,
        max_warmup_replicas=config.max_warmup_replicas,
        rack_tags=(*config.rack_aware_assignment_tags, CLIENT_RACK),
    )
    topic_watch = TopicWatch(plan, admin, config.metadata_max_age_ms, wakeup)
    assignor = Assignor(plan, admin, policy, topic_watch)
    membership = Membership(group, clock, settings, assignor, introduction(plan, place, tasks), wakeup)
    committer = build_committer(config, adapters, directory.identity, group, membership)
    hears_of_all = config.group_protocol == "classic"
    local = LocalStores(plan, place, membership, tasks, restorer, global_stores, hears_of_all=hears_of_all)
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
            topic_watch=topic_watch,
            wakeup=wakeup,
            slow_functions=SlowFunctions(plan, config, membership, stand_in),
            services=services,
            global_stores=global_stores,
            meter=meter,
            local=local,
        )
    )


def _tags(config: StreamsConfig) -> dict[str, str]:
    return config.client_tags | ({} if config.client_rack is None else {CLIENT_RACK: config.client_rack})


def open_global_state(plan: Plan, config: StreamsConfig, directory: StateDirectory, clock: Clock) -> GlobalState | None:
    """This worker's global stores; None if the topology has none."""
    if not plan.global_stores:
        return None
    backend = SharedBackend(directory.open_global(plan.global_stores), "this worker's copy")
    return GlobalState(plan, backend, now_ms=clock.now_ms, policies=config.error_policies)


def build_group(plan: Plan, config: StreamsConfig, adapters: Adapters, place: Place, identity: str) -> Group:
    """The one place where `group_protocol` decides.

    Raises:
        ConfigError: the topology reads topics by a pattern, which streams groups cannot yet.
    """
    if config.group_protocol == "classic":
        return adapters.group()
    if plan.has_patterns:
        raise ConfigError(
            "group_protocol='streams' does not go with topics that are found by a pattern, the brokers do not take "
            "them yet: name the topics, or use group_protocol='classic'"
        )
    # A worker that comes back is known again, and gets its tasks at once. The coordinator does not tell it from its
    # earlier life, and takes the offsets of both: the transactional ids, which have the same name, keep that one out.
    known_again = config.processing_guarantee == "exactly_once_v2"
    return adapters.streams_group(plan, place, identity if known_again else None)


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
    plan: Plan,
    config: StreamsConfig,
    clock: Clock,
    services: Services,
    global_stores: Mapping[str, OpenStore],
    meter: Meter | None = None,
    tracing: Tracing | None = None,
) -> TaskFactory:
    """Makes a task over its stores on disk; `meter` is told of them if so much is to be recorded."""
    debug = config.metrics_recording_level == "DEBUG"
    cache_budget = CacheBudget(config.statestore_cache_max_bytes)

    def make(task_id: TaskId, directory: StateDirectory, aside: bool) -> Task:
        backend = directory.open(task_id, plan.stores(task_id), aside=aside)
        if debug and meter is not None:
            backend = MeteredBackend(backend, task_id, meter)
        return Task(
            plan,
            task_id,
            SharedBackend(backend, f"task {task_id}"),
            now_ms=clock.now_ms,
            max_task_idle_ms=config.max_task_idle_ms,
            max_value_bytes=config.max_row_bytes,
            global_stores=global_stores,
            cache_budget=cache_budget,
            policies=config.error_policies,
            counts=Counts() if debug else None,
            services=services,
            tracing=None if tracing is None else tracing.of_task(plan.application_id, task_id),
        )

    return make
