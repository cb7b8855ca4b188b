"""A worker process that breaks at a given step; `nursery.py` forks it.

Faults act on the client's requests, so that they hit the real code at the real moment:

    kill before|sent|after <api> <n>    SIGKILL around the n-th request of that API
    lose-reply <api> <n>                the broker carries it out, the client never hears
    cut <api> <n>                       the connection is closed when the request has been sent
    answer <api> <n> <code>             the broker carries it out, the client hears an error code
    delay <api> <n> <ms>                the request waits that long before it is sent
    kill before|after store-write <n>   SIGKILL around the n-th write to the stores, commit or restore
    wait before <api> <n> <file>        hold the request until the file exists

With `armed`, requests count from when that file exists: how many there were before depends on the machine.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import importlib.util
import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec

from streamlib.app import KafkaStreams
from streamlib.config import StreamsConfig
from streamlib.errors import ConnectionFailedError, StreamsError
from streamlib.kafka.client import KafkaClient
from streamlib.kafka.connection import Connection
from streamlib.rocksdb import RocksDBBackend

log = logging.getLogger("worker_main")

PR_SET_PDEATHSIG = 1


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing to break; `nth` counts from 1."""

    act: str
    api: str
    when: str = "before"
    nth: int = 1
    ms: int = 0
    code: int = 0
    file: str = ""
    armed: str = ""

    def counts(self, api: str) -> bool:
        return self.api == api and (not self.armed or Path(self.armed).exists())


class Job(msgspec.Struct, frozen=True):
    """What the process is to do."""

    topology: str
    source: str
    sink: str
    config: dict[str, Any]
    faults: list[Fault] = []
    topologies: str = str(Path(__file__).with_name("topologies.py"))
    status_file: str = ""


def die() -> None:
    """As the out-of-memory killer would: nothing of ours runs after this."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_with_parent() -> None:
    """Where the kernel can do that: a test that is killed leaves no workers behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Breaker:
    """Counts requests and breaks the ones that a fault names."""

    def __init__(self, faults: list[Fault]) -> None:
        self._faults = faults
        self._counts: Counter[int] = Counter()

    def due(self, api: str) -> list[Fault]:
        counted = [number for number, fault in enumerate(self._faults) if fault.counts(api)]
        self._counts.update(counted)
        return [self._faults[number] for number in counted if self._counts[number] == self._faults[number].nth]

    def wrap_call(self, client: KafkaClient) -> Any:
        call = client.call

        @functools.wraps(call)
        async def broken(api: str, body: Any, **options: Any) -> Any:
            due = self.due(api)
            for fault in due:
                await before(fault)
            if any((fault.act, fault.when) == ("kill", "sent") for fault in due):
                sending = asyncio.ensure_future(call(api, body, **options))
                await asyncio.sleep(0.0005)
                die()
                await sending
            if any(fault.act == "cut" for fault in due):
                sending = asyncio.ensure_future(call(api, body, **options))
                await asyncio.sleep(0.0005)
                client.disconnect(options["lane"])
                return await sending
            reply = await call(api, body, **options)
            for fault in due:
                if fault.act == "answer":
                    reply.error_code = fault.code
                if (fault.act, fault.when) == ("kill", "after"):
                    die()
                if fault.act == "lose-reply":
                    raise ConnectionFailedError(api, "", "the reply was lost on purpose")
            return reply

        return broken

    def wrap_store_writes(self) -> None:
        for name in ("write", "load"):
            setattr(RocksDBBackend, name, self._breaking(getattr(RocksDBBackend, name)))

    def _breaking(self, write: Callable[..., None]) -> Callable[..., None]:
        def broken(*arguments: Any, **options: Any) -> None:
            due = self.due("store-write")
            if any((fault.act, fault.when) == ("kill", "before") for fault in due):
                die()
            write(*arguments, **options)
            if any((fault.act, fault.when) == ("kill", "after") for fault in due):
                die()

        return broken


async def before(fault: Fault) -> None:
    match fault.act, fault.when:
        case "kill", "before":
            die()
        case "delay", _:
            await asyncio.sleep(fault.ms / 1000)
        case "wait", _:
            Path(fault.file + ".reached").touch()
            while not Path(fault.file).exists():
                await asyncio.sleep(0.005)
        case _:
            pass


def log_stores() -> None:
    """A line for each database that is opened or closed, so that tests can count."""
    begin, close = RocksDBBackend.__init__, RocksDBBackend.close
    folders: dict[int, str] = {}

    def logged_begin(backend: RocksDBBackend, folder: Path, *arguments: Any, **options: Any) -> None:
        begin(backend, folder, *arguments, **options)
        folders[id(backend)] = folder.name
        log.info("stores of %s opened", folder.name)

    def logged_close(backend: RocksDBBackend) -> None:
        close(backend)
        if folder := folders.pop(id(backend), None):
            log.info("stores of %s closed", folder)

    RocksDBBackend.__init__ = logged_begin  # type: ignore[method-assign, assignment]
    RocksDBBackend.close = logged_close  # type: ignore[method-assign, assignment]


def topology(job: Job) -> Any:
    """Made by a function of the file `topologies`."""
    spec = importlib.util.spec_from_file_location("topologies", job.topologies)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, job.topology)(job.source, job.sink)


async def report(app: KafkaStreams, path: Path) -> None:
    """Write the status over and over, each time as a whole; what it was before it failed stays to be read."""
    draft = path.with_suffix(".draft")
    while app.state.value != "ERROR":
        status = msgspec.to_builtins(app.status) if app.state.value in ("RUNNING", "REBALANCING") else {}
        draft.write_bytes(msgspec.json.encode({"state": app.state.value, **status}))
        draft.replace(path)
        await anyio.sleep(0.05)


def show_tasks() -> None:
    """Where everything waits; the harness asks by SIGUSR1 when it has waited long enough."""
    for task in asyncio.all_tasks():
        task.print_stack(limit=12, file=sys.stderr)


async def main(job: Job) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, show_tasks)
    breaker = Breaker(job.faults)
    breaker.wrap_store_writes()
    log_stores()

    async def connect(config: StreamsConfig) -> Connection:
        connection = await Connection.open(config)
        connection.client.call = breaker.wrap_call(connection.client)  # type: ignore[method-assign]
        return connection

    app = KafkaStreams(topology(job), StreamsConfig.load(job.config), connect=connect)
    async with anyio.create_task_group() as group:
        if job.status_file:
            group.start_soon(report, app, Path(job.status_file))
        await app.run()
        group.cancel_scope.cancel()


def run(job: str) -> None:
    """Be that worker until it ends.

    Raises:
        SystemExit: it has failed.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    die_with_parent()
    try:
        anyio.run(main, msgspec.json.decode(job, type=Job))
    except BaseExceptionGroup as group:
        known = group.subgroup(StreamsError)
        if known is None:
            raise
        print("error:", known.exceptions[0], file=sys.stderr)
        sys.exit(1)
