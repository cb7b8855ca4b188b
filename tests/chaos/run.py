"""One run: set up, feed, break, mend, drain, stop, and the verdict."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.chaos import verdict
from tests.chaos.cluster import APPLICATION, DYNAMIC, STATIC, Cluster, Crew
from tests.chaos.faults import Faults
from tests.chaos.feed import INPUTS, Fed, Feed
from tests.chaos.judge import OUTPUTS, judge, judge_pace
from tests.chaos.proxy import Counts
from tests.chaos.readback import Readback
from tests.chaos.report import Report
from tests.chaos.schedule import NODES, SESSION_S, SHORT_SESSION_S, Step, schedule
from tests.chaos.stores import Stored, stored

PREFIX = f"{APPLICATION}-"
PARTITIONS = 4
WARM_UP_S = 60
DRAIN_S = 120
LAST_S = 2  # with records and without faults, so that what broke last is seen to recover


class Plan(msgspec.Struct, frozen=True):
    """What to do."""

    seed: int
    seconds: float
    rate: int
    short: bool
    folder: Path

    @property
    def workers(self) -> list[str]:
        return [*STATIC[:1], *DYNAMIC] if self.short else [*STATIC, *DYNAMIC]

    @property
    def lanes(self) -> dict[str, list[Step]]:
        return schedule(self.seed, self.seconds, self.workers, short=self.short)


class Watch(msgspec.Struct):
    """What somebody who looks on can see while it runs."""

    began_s: float = 0.0
    phase: str = "starting the brokers"
    faults: Faults | None = None
    fed: Fed | None = None


class Run:
    """A cluster, a crew of workers, and what is done to them. The folder stays as it is afterwards."""

    def __init__(self, plan: Plan, watch: Watch, cluster: Cluster) -> None:
        self._plan = plan
        self._watch = watch
        self._cluster = cluster
        self._crew = Crew(cluster.proxied, plan.folder, plan.workers, SHORT_SESSION_S if plan.short else SESSION_S)
        self._feed = Feed(cluster.direct, PREFIX, plan.rate, random.Random(f"{plan.seed} feed"))
        self._faults = Faults(cluster, self._crew)
        self._readback = Readback(cluster.direct)
        self._report = Report(plan.seed, plan.seconds)
        watch.faults, watch.fed = self._faults, self._feed.fed

    async def run(self) -> Report:
        """From the first worker to the verdict."""
        try:
            await anyio.to_thread.run_sync(_create_topics, self._cluster.direct, PREFIX)
            async with self._reviving():
                await self._break_things()
                await self._drain()
            await self._stop()
            self._watch.phase = "reading everything back"
            await anyio.to_thread.run_sync(self._judge)
        finally:
            self._crew.kill_all()
        self._count()
        return self._report

    async def _break_things(self) -> None:
        """While records keep coming."""
        self._watch.phase = "starting the workers"
        self._crew.start_all()
        self._feed.start()
        try:
            await self._warm_up()
            self._watch.phase, self._watch.began_s = "breaking things", anyio.current_time()
            async with anyio.create_task_group() as group:
                for lane, steps in self._plan.lanes.items():
                    group.start_soon(self._faults.run, lane, steps, self._plan.seconds)
                await anyio.sleep(self._plan.seconds)
            self._watch.phase = "mending things"
            self._cluster.set_fault(None, None)
            await self._cluster.start_all()
            self._crew.start_all()
            await anyio.sleep(LAST_S)
        finally:
            await anyio.to_thread.run_sync(self._feed.stop)

    async def _warm_up(self) -> None:
        with anyio.move_on_after(WARM_UP_S):
            while not all(worker.status.get("state") == "RUNNING" for worker in self._crew):
                await anyio.sleep(0.1)

    async def _drain(self) -> None:
        """Nothing is broken any more: every input has to be committed in bounded time."""
        self._watch.phase = "draining"
        began_s = anyio.current_time()
        while behind := await anyio.to_thread.run_sync(self._behind):
            if anyio.current_time() - began_s > DRAIN_S:
                self._report.violations.append(f"not drained after {DRAIN_S} s: {behind}")
                break
            await anyio.sleep(0.2)
        self._report.drain_seconds = round(anyio.current_time() - began_s, 1)

    def _behind(self) -> dict[str, str]:
        """Source partitions whose committed offset is not the log's end; transaction markers count."""
        topics = [PREFIX + topic for topic in (*INPUTS, "word-repartition")]
        ends = self._readback.ends(topics, stable=False)
        committed = self._readback.committed(APPLICATION, topics)
        return {f"{p[0]}-{p[1]}": f"{committed[p]} of {end}" for p, end in ends.items() if committed[p] != end}

    async def _stop(self) -> None:
        """A clean end for every worker."""
        self._watch.phase = "stopping the workers"
        async with anyio.create_task_group() as group:
            for number in range(len(self._plan.workers)):
                group.start_soon(self._crew.stop, number)

    def _judge(self) -> None:
        read = judge(self._report, self._readback, PREFIX, self._disks())
        self._report.violations += self._crew.deaths
        self._report.violations += verdict.check_inputs(read, self._feed.fed.committed)
        judge_pace(self._report, read["counts"], self._faults.done)

    def _disks(self) -> list[Stored]:
        names = enumerate(self._plan.workers)
        folders = {name: self._crew.state_dir(number) / APPLICATION for number, name in names}
        return [store for name, folder in folders.items() for store in stored(name, folder)]

    def _count(self) -> None:
        report, done, fed = self._report, self._faults.done, self._feed.fed
        report.faults = dict(sorted(Counter(fault.kind for fault in done).items()))
        report.timeline = done
        report.worker_kills = sum(fault.kills for fault in done)
        report.worker_starts = self._crew.starts
        report.worker_unstarted, report.worker_overdue = self._crew.unstarted, self._crew.overdue
        report.broker_kills = sum(fault.broker_kills for fault in done)
        report.leaders_moved = sum(fault.leaders_moved for fault in done)
        report.network = Counts.total(proxy.counts for proxy in self._cluster.proxies)
        report.input_transactions, report.input_aborted = fed.transactions, fed.aborted
        report.feed_errors = dict(fed.errors)

    @asynccontextmanager
    async def _reviving(self) -> AsyncIterator[None]:
        """Workers that end by themselves are started again, as a supervisor would."""

        async def look() -> None:
            while True:
                self._crew.revive()
                await anyio.sleep(0.25)

        async with anyio.create_task_group() as group:
            group.start_soon(look)
            yield
            group.cancel_scope.cancel()


async def run(plan: Plan, watch: Watch) -> Report:
    """One run on a cluster of its own."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    cluster = await anyio.to_thread.run_sync(Cluster, plan.folder, random.Random(f"{plan.seed} proxies"))
    try:
        await cluster.open()
        return await Run(plan, watch, cluster).run()
    finally:
        await cluster.close()


def _create_topics(bootstrap_servers: str, prefix: str) -> None:
    """Outputs carry the time at which the broker took them in, to see how long they stood still."""
    appended = {"message.timestamp.type": "LogAppendTime"}
    topics = [NewTopic(prefix + topic, PARTITIONS, NODES) for topic in INPUTS]
    topics += [NewTopic(prefix + topic, PARTITIONS, NODES, config=appended) for topic in OUTPUTS]
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    for future in admin.create_topics(topics).values():
        future.result()
