"""What is to be broken: three brokers, a proxy in front of each, and the worker processes behind the proxies."""

from __future__ import annotations

import random
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from streamlib.testing.broker import Broker
from tests.chaos.proxy import HOST, Fault, Proxy
from tests.chaos.schedule import NODES
from tests.exactly_once.harness import Worker

APPLICATION = "chaos"
HEAP = "320m"
PATIENCE_S = 30
STATIC = ("static-0", "static-1")
DYNAMIC = ("dynamic-0", "dynamic-1")


class Cluster:
    """The brokers and their proxies. Workers only know the proxies, everybody else goes straight to the brokers."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        first = _free_ports(NODES)
        self.broker = Broker.start(
            nodes=NODES,
            proxied_port=first,
            data_dir=folder / "kafka",
            heap=HEAP,
            config={"auto.leader.rebalance.enable": "false"},
        )
        targets = self.broker.proxy_target_ports
        self.proxies = [Proxy(first + i, target, rng) for i, target in enumerate(targets)]

    @property
    def direct(self) -> str:
        """Where checkers connect to."""
        return self.broker.bootstrap_servers

    @property
    def proxied(self) -> str:
        """Where workers connect to."""
        return ",".join(f"{HOST}:{proxy.port}" for proxy in self.proxies)

    async def open(self) -> None:
        for proxy in self.proxies:
            await proxy.open()

    async def close(self) -> None:
        for proxy in self.proxies:
            await proxy.close()
        for i in range(NODES):
            await self.kill(i)

    def set_fault(self, node: int | None, fault: Fault | None) -> None:
        """Of one node's proxy or of all."""
        for proxy in self.proxies if node is None else [self.proxies[node]]:
            proxy.set(fault)

    async def kill(self, node: int) -> None:
        await anyio.to_thread.run_sync(self.broker.kill_node, node)

    async def stop(self, node: int) -> None:
        await anyio.to_thread.run_sync(self.broker.stop_node, node)

    async def start(self, node: int) -> None:
        if not self.broker.nodes[node].is_running():
            await anyio.to_thread.run_sync(self.broker.start_node, node)

    async def start_all(self) -> None:
        async with anyio.create_task_group() as group:
            for node in range(NODES):
                group.start_soon(self.start, node)


class Crew:
    """The worker processes, each with a state directory of its own; one that ends by itself is started again."""

    def __init__(self, bootstrap_servers: str, folder: Path, names: Sequence[str], session_s: float) -> None:
        self.names = list(names)
        self.deaths: list[str] = []  # of processes that ended by themselves
        self.unstarted = 0  # that found no broker when they started, said so, and ended
        self.overdue = 0  # that took too long to stop
        self.starts = 0
        self._bootstrap_servers = bootstrap_servers
        self._session_s = session_s
        self._folder = folder
        self._code = _copy_code(folder / "code")
        self._workers: dict[int, Worker] = {}
        self._wanted: set[int] = set()  # those that should be running

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def start(self, number: int) -> None:
        name = self.names[number]
        job = {
            "topology": "everything",
            "topologies": str(self._code / "tests" / "chaos" / "topologies.py"),
            "source": f"{APPLICATION}-",
            "sink": f"{APPLICATION}-",
            "config": self._config(name),
        }
        self._workers[number] = Worker(name, job, self._folder / name, code=self._code)
        self._wanted.add(number)
        self.starts += 1

    def start_all(self) -> None:
        for number in range(len(self.names)):
            if number not in self._wanted:
                self.start(number)

    def kill(self, number: int) -> bool:
        """Whether there was something to kill."""
        self._wanted.discard(number)
        worker = self._workers[number]
        alive = worker.alive
        worker.kill()
        return alive

    async def stop(self, number: int) -> None:
        """By SIGTERM, and by SIGKILL if that takes too long."""
        self._wanted.discard(number)
        worker = self._workers[number]
        if await worker.terminate(PATIENCE_S) is None:
            worker.kill()
            self.overdue += 1
        elif worker.process.returncode != 0:
            self._note(number)

    def freeze(self, number: int) -> None:
        if self._workers[number].alive:
            self._workers[number].freeze()

    def thaw(self, number: int) -> None:
        if self._workers[number].alive:
            self._workers[number].thaw()

    def wipe(self, number: int) -> None:
        shutil.rmtree(self.state_dir(number), ignore_errors=True)

    def revive(self) -> None:
        """Start again who ended by itself."""
        for number in sorted(self._wanted):
            if not self._workers[number].alive:
                self._note(number)
                self.start(number)

    def kill_all(self) -> None:
        for number in list(self._workers):
            self.kill(number)

    def state_dir(self, number: int) -> Path:
        return self._folder / f"{self.names[number]}.state"

    def _note(self, number: int) -> None:
        worker = self._workers[number]
        before, _, last = worker.log.strip().rpartition("\n")
        if "no broker answered" in last and not before:
            self.unstarted += 1
        else:
            self.deaths.append(f"{worker.name} ended with {worker.process.returncode}: {last}")

    def _config(self, name: str) -> dict[str, Any]:
        config = {
            "application_id": APPLICATION,
            "client_id": name,
            "bootstrap_servers": self._bootstrap_servers,
            "processing_guarantee": "exactly_once_v2",
            "state_dir": str(self._folder / f"{name}.state"),
            "group_instance_id": name if name in STATIC else None,
            "session_timeout_ms": round(self._session_s * 1000),
            "heartbeat_interval_ms": round(self._session_s * 1000 / 12),
            "max_poll_interval_ms": 20_000,
            "request_timeout_ms": 5_000,
            "transaction_timeout_ms": 10_000,
        }
        return {key: value for key, value in config.items() if value is not None}


def _copy_code(to: Path) -> Path:
    """A run takes long; what is edited meanwhile must not get into it."""
    project = Path(__file__).parents[2]
    for package in ("streamlib", "tests/chaos", "tests/exactly_once"):
        shutil.copytree(project / package, to / package, ignore=shutil.ignore_patterns("__pycache__"))
    return to


def _free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on."""
    for first in range(20_000, 30_000, count):
        with ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(socket.socket()).bind((HOST, port))
            except OSError:
                continue
            return first
    raise OSError("no free ports")
