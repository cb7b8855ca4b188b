"""Hosts: each has a disk, a clock and one worker at a time, which is started again when it is gone.

The worker is put together by `runtime/wiring.py` and speaks through `kafka/`, as in an application.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from streamlib.config import StreamsConfig
from streamlib.kafka.connection import Connection
from streamlib.kafka.pool import ConnectionPool
from streamlib.runtime.wiring import build_worker, plan_and_prepare
from streamlib.runtime.worker import Worker
from streamlib.simulation.disk import Disk, DiskDirectory
from streamlib.simulation.loop import Process, VirtualTimeLoop
from streamlib.simulation.network import Network
from streamlib.topology.lifespans import opened
from streamlib.topology.topology import Topology

EPOCH_MS = 1_700_000_000_000
"""What wall clocks show when a simulation begins."""


AGAIN_MS = 300.0
"""How long a supervisor waits before it starts a worker that ended by itself, or was told to."""


class HostClock:
    """A host's clocks; the wall clock may jump, the other may not.

    Virtual time stands still while somebody works. On a slow host each look at the clock takes `slow_ms`, and the
    process is busy for so long: a slice of work ends before all work is done, and other things happen in between.
    """

    def __init__(self, loop: VirtualTimeLoop, slow_ms: float) -> None:
        self._loop = loop
        self._slow_ms = slow_ms
        self._last_ms = 0.0
        self.process: Process | None = None
        self.skew_ms = 0.0

    def now_ms(self) -> int:
        return int(EPOCH_MS + self._loop.time() * 1000 + self.skew_ms)

    def monotonic_ms(self) -> float:
        if not self._slow_ms:
            return self._loop.time() * 1000
        self._last_ms = max(self._last_ms, self._loop.time() * 1000) + self._slow_ms
        if self.process is not None:
            self.process.busy_until_s = self._last_ms / 1000
        return self._last_ms


class Host:
    """One machine, and the worker on it.

    Args:
        network: what it is connected to.
        config: how its worker runs.
        disk: where its worker keeps its state; others may, too.
        slow_ms: how long a look at the clock takes.
        topology: makes what its worker runs.
        on_stop: told when a worker stopped with an error.
    """

    def __init__(
        self,
        network: Network,
        config: StreamsConfig,
        disk: Disk,
        slow_ms: float,
        topology: Callable[[], Topology],
        on_stop: Callable[[Host, BaseException], None],
    ) -> None:
        assert config.client_id is not None, "a host is called like its worker's client_id"
        self.name = config.client_id
        self.config = config
        self.clock = HostClock(network.loop, slow_ms)
        self.disk = disk
        self.process: Process | None = None
        self.worker: Worker | None = None
        self.wanted = True
        self._network = network
        self._topology = topology
        self._on_stop = on_stop
        self._again_ms = AGAIN_MS
        self._fresh = False  # the disk is to be empty when the worker has stopped

    @property
    def identity(self) -> str:
        """What its worker is called."""
        return self.disk.identity_of(self.name)

    @property
    def up(self) -> bool:
        """Whether a worker lives here."""
        return self.process is not None and self.process.alive

    def start(self) -> None:
        """Start a worker, unless one lives."""
        if self.up or not self.wanted:
            return
        self._network.trace.note(f"{self.name} starts")
        self._again_ms, self._fresh = AGAIN_MS, False
        process = self.process = self.clock.process = Process(self.name)
        self.worker = None
        self._network.loop.start(process, lambda: self._live(process))

    def start_later(self, delay_ms: float) -> None:
        self._network.later(delay_ms, self.start)

    def kill(self) -> None:
        """SIGKILL. Locks are the kernel's: they are free at once."""
        if self.process is not None and self.process.alive:
            self._network.trace.note(f"{self.name} is killed")
            self.process.kill()
        self.worker = None

    def stop(self, *, leave: bool | None = None, again_ms: float = AGAIN_MS, fresh: bool = False) -> None:
        """SIGTERM, or its like: `leave` as in `Worker.stop`. It is back `again_ms` after its end, perhaps `fresh`.

        A process that has no worker yet just dies of it.
        """
        process, worker = self.process, self.worker
        if process is None or not process.alive:
            return
        if worker is None:
            self.kill()
            self.start_later(again_ms)
            return
        self._network.trace.note(f"{self.name} is told to stop")
        self._again_ms, self._fresh = again_ms, fresh
        self._network.loop.signal(process, lambda: worker.stop(leave=leave))

    def freeze(self) -> None:
        if self.process is not None and self.up:
            self._network.trace.note(f"{self.name} freezes")
            self.process.freeze()

    def thaw(self) -> None:
        if self.process is not None and self.process.frozen:
            self._network.trace.note(f"{self.name} wakes up")
            self._network.loop.thaw(self.process)

    async def _live(self, process: Process) -> None:
        try:
            await self._work(process)
            self._network.trace.note(f"{self.name} has stopped")
            if self._fresh:
                self.disk.lose()
            self.start_later(self._again_ms)  # unless it is not wanted any more
        except Exception as error:
            if not process.alive:
                return  # it was killed long ago, and is only now thrown away
            self._network.trace.note(f"{self.name} fails: {error!r}")
            self._on_stop(self, error)
        finally:
            process.kill()

    async def _work(self, process: Process) -> None:
        topology = self._topology()
        async with opened(topology.lifespans):
            await self._work_by(topology, process)

    async def _work_by(self, topology: Topology, process: Process) -> None:
        pool = ConnectionPool(self._network.opener(process))
        connection = await Connection.open(self.config, pool)
        try:
            plan = await plan_and_prepare(topology, self.config, connection.admin())
            worker = build_worker(plan, self.config, connection, DiskDirectory(self.disk, process), self.clock)
            self.worker = worker
            await worker.run(leave=self.config.group_instance_id is None)
        finally:
            with anyio.CancelScope(shield=True):
                await connection.close()
