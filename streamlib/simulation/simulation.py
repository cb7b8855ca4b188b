"""One run: workers, inputs and faults first; then no more faults, and everything has to drain; then it is looked at.

safety     faults happen, inputs arrive. What must never happen is looked for all the time
liveness   nothing goes wrong any more, who is down comes back. All inputs have to be processed in bounded time
verdict    everybody stops; outputs, stores, offsets and transactions are compared with what they have to be
"""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec

from streamlib.config import StreamsConfig
from streamlib.engine.plan import Plan, make_plan
from streamlib.errors import ErrorCode, KafkaError
from streamlib.simulation.cluster.cluster import Cluster
from streamlib.simulation.disk import Disk, Folder
from streamlib.simulation.faults import BrokerDown, CoordinatorsMoved, Fault, Joined
from streamlib.simulation.feeder import Feeder
from streamlib.simulation.hosts import AGAIN_MS, Host
from streamlib.simulation.injector import Injector
from streamlib.simulation.loop import LivelockError, VirtualTimeLoop
from streamlib.simulation.network import LoopTimers, Network, bootstrap_servers
from streamlib.simulation.observer import Observer, records_of
from streamlib.simulation.scenario import BROKERS, Scenario
from streamlib.simulation.trace import Trace
from streamlib.simulation.watch import Asked, Watch
from streamlib.simulation.workloads.workload import Seen, Workload

GROUP_ID = "app"
DRAIN_MS = 180_000
"""How long everything may take to drain once nothing goes wrong any more: more than all timeouts in a row."""
CALM_MS = 1_250
"""How long nothing may move before the assignment counts as stable."""
MOST_REBALANCES = 12
"""So many may bring everybody back and all tasks home after the last fault, and warm up what has to be."""
LOOK_MS = 250.0
STOP_MS = 60_000
MOST_FAILURES = 30
_FEEDING = 0.6  # of the time in which faults happen

SETTINGS: dict[str, Any] = {
    "session_timeout_ms": 6_000,
    "max_poll_interval_ms": 10_000,
    "transaction_timeout_ms": 8_000,
    "request_timeout_ms": 4_000,
    "delivery_timeout_ms": 15_000,
    "repartition_purge_interval_ms": 5_000,
    "fetch_max_wait_ms": 3_000,
    "commit_interval_ms": 1_000,
}
"""Short timeouts, so that faults that last seconds outlive them."""


class Outcome(msgspec.Struct, frozen=True):
    """What came of a run. Equal digests: the same things happened at the same times."""

    scenario: Scenario
    violations: tuple[str, ...]
    digest: str
    took_ms: float
    trace: Trace

    @property
    def ok(self) -> bool:
        return not self.violations


class Simulation:
    """One run of a scenario on a workload."""

    def __init__(self, scenario: Scenario, workload: Workload, settings: dict[str, Any] | None = None) -> None:
        self._scenario = scenario
        self._workload = workload
        self._rng = random.Random(scenario.seed)
        self._loop = VirtualTimeLoop(random.Random(self._rng.random()))
        timers = LoopTimers(self._loop, random.Random(self._rng.random()))
        self._cluster = Cluster(timers, brokers=BROKERS, transaction_version=scenario.transaction_version)
        self._network = Network(self._loop, self._cluster, timers, random.Random(self._rng.random()))
        for topic, partitions in workload.topics.items():
            self._cluster.topics.create(topic, partitions)
        topology = workload.topology()
        self._plan: Plan = make_plan(topology, GROUP_ID, dict(workload.topics))
        disks = {name: Disk(name) for name in scenario.hosts}
        if scenario.shared_disk:
            disks[scenario.hosts[1]] = disks[scenario.hosts[0]]
        self._hosts = {
            name: Host(
                self._network,
                self._config(name, settings or {}),
                disk,
                scenario.slow_ms,
                lambda: topology,
                self._worker_failed,
            )
            for name, disk in disks.items()
        }
        self._feeder = Feeder(
            self._cluster,
            random.Random(self._rng.random()),
            transactional=scenario.transactional_inputs,
            poison=scenario.poison,
        )
        self._observer = Observer(self._cluster, self._plan, GROUP_ID)
        asked = Asked(scenario.num_standby_replicas, scenario.exact)
        self._watch = Watch(self._cluster, self._plan, self._hosts, GROUP_ID, asked)
        self._network.on_request = self._watch.look
        self._failures = 0
        self._errors: list[str] = []

    def run(self) -> Outcome:
        """Run it to its end."""
        with _seeded(self._rng.random()), _quiet():
            try:
                self._loop.run_until_complete(self._run())
            except LivelockError as error:
                self._errors.append(str(error))
            except Exception:  # a defect of the model: as good a reason to look at the seed as any
                self._errors.append(f"the simulation failed: {traceback.format_exc()}")
            self._errors += [*self._loop.failures, *self._network.violations]
            took_ms = self._loop.time() * 1000
            for host in self._hosts.values():
                host.kill()
            self._loop.finish()
        trace = self._network.trace
        return Outcome(self._scenario, tuple(self._errors), trace.digest, took_ms, trace)

    # Phases

    async def _run(self) -> None:
        injector = Injector(self._scenario.faults, self._network, self._hosts, GROUP_ID)
        self._start_hosts()
        self._schedule_inputs()
        await self._wait(self._scenario.horizon_ms)
        injector.end()
        self._network.trace.note("no more faults")
        if not await self._settled():
            return
        folders = self._folders()
        await self._stop_all()
        self._errors += [*self._observer.violations, *self._watch.violations]
        disks = {host.name: host.disk for host in self._hosts.values()}
        self._errors += self._observer.at_the_end(disks if self._scenario.exact else {})
        check = self._workload.check if self._scenario.exact else self._workload.check_repeated
        self._errors += check(self._seen(folders)) if check else ()

    def _start_hosts(self) -> None:
        """Those that come late make tasks move while there is work."""
        added = {fault.host for fault in self._scenario.faults if isinstance(fault, Joined)}
        for host in self._hosts.values():
            delay_ms = self._rng.uniform(0, self._rng.choice([1_000.0, self._scenario.horizon_ms / 2]))
            if host.name not in added:
                host.start_later(delay_ms)

    def _schedule_inputs(self) -> None:
        """Those of prepared topics at once, before any worker; the others a few at a time."""
        drawn = self._workload.inputs(self._rng, self._scenario.inputs)
        prepared = self._workload.prepared
        self._feeder.write([item for item in drawn if item.partition.topic in prepared])
        inputs = [item for item in drawn if item.partition.topic not in prepared]
        groups, first = [], 0
        while first < len(inputs):
            groups.append(inputs[first : first + self._rng.randint(1, 5)])
            first += len(groups[-1])
        span_ms = self._scenario.horizon_ms * _FEEDING
        for group, at_ms in zip(groups, sorted(self._rng.uniform(0, span_ms) for _ in groups), strict=True):
            self._network.later(at_ms, partial(self._feeder.write, group))

    async def _settled(self) -> bool:
        """Whether everything is processed and committed, and the assignment at rest, before time is up."""
        now_ms = self._now_ms()
        deadline_ms, calm_from_ms, first, last = now_ms + DRAIN_MS, now_ms, self._watch.generation, -1
        while self._now_ms() < deadline_ms:
            if not self._at_rest() or self._watch.generation != last:
                calm_from_ms, last = self._now_ms(), self._watch.generation
            elif self._now_ms() - calm_from_ms >= CALM_MS:
                if last - first > MOST_REBALANCES:
                    self._errors.append(f"{last - first} rebalances after the last fault")
                return True
            await self._wait(LOOK_MS)
        self._errors += self._watch.violations
        if backlog := self._observer.backlog():
            self._errors.append(f"not drained {DRAIN_MS} ms after the last fault: {backlog}")
        else:
            self._errors.append(
                f"not at rest {DRAIN_MS} ms and {last - first} rebalances after the last fault: {self._watch.unrest()}"
            )
        return False

    def _at_rest(self) -> bool:
        return self._observer.drained() and self._watch.unrest() is None

    def _folders(self) -> dict[str, Folder]:
        """Where the tasks that run have their stores; those without any are left out."""
        owners = {task_id: host for host in self._hosts.values() if host.worker for task_id in host.worker.status.tasks}
        return {
            str(task_id): folder
            for task_id in self._plan.tasks
            for folder in owners[str(task_id)].disk.copies(task_id).values()
            if folder.owner is owners[str(task_id)].process
        }

    async def _stop_all(self) -> None:
        for host in self._hosts.values():
            host.wanted = False
            host.stop()
        deadline_ms = self._now_ms() + STOP_MS
        while any(host.up for host in self._hosts.values()):
            if self._now_ms() > deadline_ms:
                self._errors.append("a worker that was told to stop has not stopped")
                return
            await self._wait(LOOK_MS)

    async def _wait(self, ms: float) -> None:
        """Let time go by, looking on."""
        until_ms = self._now_ms() + ms
        while (left_ms := until_ms - self._now_ms()) > 1e-6:
            await asyncio.sleep(min(left_ms, LOOK_MS) / 1000)
            self._observer.look()
            self._watch.look_at_standbys()

    def _now_ms(self) -> float:
        return self._loop.time() * 1000

    # What workers do by themselves

    def _config(self, name: str, settings: dict[str, Any]) -> StreamsConfig:
        return StreamsConfig(
            application_id=GROUP_ID,
            client_id=name,
            bootstrap_servers=bootstrap_servers(range(BROKERS)),
            processing_guarantee=self._scenario.guarantee,
            group_instance_id=name if self._scenario.static else None,
            on_deserialization_error="skip" if self._scenario.poison else "fail",
            num_standby_replicas=self._scenario.num_standby_replicas,
            acceptable_recovery_lag=self._scenario.acceptable_recovery_lag,
            max_warmup_replicas=self._scenario.max_warmup_replicas,
            **(SETTINGS | {"heartbeat_interval_ms": self._scenario.heartbeat_interval_ms} | settings),
        )

    def _worker_failed(self, host: Host, error: BaseException) -> None:
        """A supervisor would start it again; that it ended at all has to have a good reason."""
        self._failures += 1
        if self._failures <= MOST_FAILURES:
            host.start_later(AGAIN_MS)
        if not _excusable(error, self._scenario.faults):
            self._errors.append(f"{host.name} ended: {error!r}")

    def _seen(self, folders: Mapping[str, Folder]) -> Seen:
        """What there is at the end."""
        topics = self._cluster.topics
        inputs = {partition.topic for partition in self._feeder.written}
        outputs = topics.partitions(topic for topic in topics.names() if topic not in inputs)
        return Seen(
            inputs=self._feeder.written,
            outputs={partition: records_of(topics.log(partition)) for partition in outputs},
            stores=self._stores(folders),
        )

    def _stores(self, folders: Mapping[str, Folder]) -> dict[str, dict[bytes, bytes]]:
        """The rows of all tasks' stores, each where its last owner had it."""
        rows: dict[str, dict[bytes, bytes]] = {}
        for task_id in self._plan.tasks:
            if folder := folders.get(str(task_id)):
                for spec in self._plan.stores(task_id):
                    rows.setdefault(spec.name, {}).update(folder.content.scan(spec.name, None, None))
        return rows


def _excusable(error: BaseException, faults: Iterable[Fault]) -> bool:
    """Whether a worker may end with this, and be started again.

    Out of reach: the whole cluster was when the worker started. Fenced: a coordinator that moves forgets members that
    joined since the last assignment, and takes a static one that is back for the impostor of its former self.
    """
    if not isinstance(error, KafkaError):
        return False
    moved = any(isinstance(fault, BrokerDown | CoordinatorsMoved) for fault in faults)
    return error.code == ErrorCode.NETWORK_EXCEPTION or (error.code == ErrorCode.FENCED_INSTANCE_ID and moved)


@contextmanager
def _seeded(seed: float) -> Iterator[None]:
    """The client layer draws its jitter from the common generator."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


@contextmanager
def _quiet() -> Iterator[None]:
    """A run is full of what workers would warn of; the trace tells it better."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
