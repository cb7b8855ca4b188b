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
from streamlib.simulation.faults import BrokerDown, CoordinatorsMoved, Fault
from streamlib.simulation.feeder import Feeder
from streamlib.simulation.hosts import AGAIN_MS, Host
from streamlib.simulation.injector import Injector
from streamlib.simulation.loop import LivelockError, VirtualTimeLoop
from streamlib.simulation.network import LoopTimers, Network, bootstrap_servers
from streamlib.simulation.observer import Observer, records_of
from streamlib.simulation.scenario import BROKERS, Scenario
from streamlib.simulation.trace import Trace
from streamlib.simulation.workloads.workload import Seen, Workload

GROUP_ID = "app"
DRAIN_MS = 180_000
"""How long everything may take to drain once nothing goes wrong any more: more than all timeouts in a row."""
LOOK_MS = 250.0
STOP_MS = 60_000
MOST_FAILURES = 30
_FEEDING = 0.6  # of the time in which faults happen

SETTINGS: dict[str, Any] = {
    "session_timeout_ms": 6_000,
    "heartbeat_interval_ms": 2_000,
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
        self._hosts = {
            name: Host(self._network, self._config(name, settings or {}), lambda: topology, self._worker_failed)
            for name in scenario.hosts
        }
        self._feeder = Feeder(
            self._cluster,
            random.Random(self._rng.random()),
            transactional=scenario.transactional_inputs,
            poison=scenario.poison,
        )
        self._observer = Observer(self._cluster, self._plan, GROUP_ID)
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
        for host in self._hosts.values():
            # Those that come late make tasks move while there is work.
            host.start_later(self._rng.uniform(0, self._rng.choice([1_000.0, self._scenario.horizon_ms / 2])))
        self._schedule_inputs()
        await self._wait(self._scenario.horizon_ms)
        injector.end()
        self._network.trace.note("no more faults")
        if not await self._drained():
            self._errors.append(f"not drained {DRAIN_MS} ms after the last fault: {self._observer.backlog()}")
            return
        owners = dict(self._claims())
        await self._stop_all()
        self._errors += self._observer.violations
        self._errors += self._observer.at_the_end({host.name: host.disk for host in self._hosts.values()})
        self._errors += self._workload.check(self._seen(owners))

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

    async def _drained(self) -> bool:
        """Whether everything is processed and committed before time is up."""
        deadline_ms = self._loop.time() * 1000 + DRAIN_MS
        while self._loop.time() * 1000 < deadline_ms:
            if self._observer.drained() and self._all_run():
                return True
            await self._wait(LOOK_MS)
        return False

    def _all_run(self) -> bool:
        """Whether all workers are back, and each task is one worker's: nobody is a zombie any more."""
        claims = [task for task, _ in self._claims()]
        everybody = all(host.worker and host.worker.running for host in self._hosts.values())
        return everybody and sorted(claims) == sorted(map(str, self._plan.tasks))

    def _claims(self) -> list[tuple[str, Host]]:
        """The tasks that workers believe to be theirs."""
        return [(task, host) for host in self._hosts.values() if host.worker for task in host.worker.status.tasks]

    async def _stop_all(self) -> None:
        for host in self._hosts.values():
            host.wanted = False
            host.stop()
        deadline_ms = self._loop.time() * 1000 + STOP_MS
        while any(host.up for host in self._hosts.values()):
            if self._loop.time() * 1000 > deadline_ms:
                self._errors.append("a worker that was told to stop has not stopped")
                return
            await self._wait(LOOK_MS)

    async def _wait(self, ms: float) -> None:
        """Let time go by, looking on."""
        until_ms = self._loop.time() * 1000 + ms
        while (left_ms := until_ms - self._loop.time() * 1000) > 1e-6:
            await asyncio.sleep(min(left_ms, LOOK_MS) / 1000)
            self._observer.look()

    # What workers do by themselves

    def _config(self, name: str, settings: dict[str, Any]) -> StreamsConfig:
        return StreamsConfig(
            application_id=GROUP_ID,
            client_id=name,
            bootstrap_servers=bootstrap_servers(range(BROKERS)),
            processing_guarantee=self._scenario.guarantee,
            group_instance_id=name if self._scenario.static else None,
            on_deserialization_error="skip" if self._scenario.poison else "fail",
            **(SETTINGS | settings),
        )

    def _worker_failed(self, host: Host, error: BaseException) -> None:
        """A supervisor would start it again; that it ended at all has to have a good reason."""
        self._failures += 1
        if self._failures <= MOST_FAILURES:
            host.start_later(AGAIN_MS)
        if not _excusable(error, self._scenario.faults):
            self._errors.append(f"{host.name} ended: {error!r}")

    def _seen(self, owners: Mapping[str, Host]) -> Seen:
        """What there is at the end."""
        topics = self._cluster.topics
        inputs = {partition.topic for partition in self._feeder.written}
        outputs = topics.partitions(topic for topic in topics.names() if topic not in inputs)
        return Seen(
            inputs=self._feeder.written,
            outputs={partition: records_of(topics.log(partition)) for partition in outputs},
            stores=self._stores(owners),
        )

    def _stores(self, owners: Mapping[str, Host]) -> dict[str, dict[bytes, bytes]]:
        """The rows of all tasks' stores, each where its last owner had it."""
        rows: dict[str, dict[bytes, bytes]] = {}
        for task_id in self._plan.tasks:
            disk = owners[str(task_id)].disk
            for folder in (disk.folders.get(str(task_id)), disk.folders.get(f"{task_id}.aside-{disk.identity}")):
                if folder is None:
                    continue
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
