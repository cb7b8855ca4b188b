"""Forks workers from a process that has imported all they need: a start costs a tenth of the CPU.

    python nursery.py        a line of JSON for each worker on standard input, its process id on standard output

It ends with the process that started it, and the workers with it.
"""

from __future__ import annotations

import atexit
import functools
import gc
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import msgspec


class Order(msgspec.Struct):
    """A worker with a `Job` (as JSON). `log` takes what it writes, `result` its exit code."""

    job: str
    log: str
    result: str
    environment: dict[str, str]


class Child:
    """A worker, as `subprocess.Popen` would have it."""

    def __init__(self, pid: int, result: Path) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._result = result

    def poll(self) -> int | None:
        if self.returncode is None and self._result.exists():
            self.returncode = int(self._result.read_text())
        return self.returncode

    def wait(self) -> int:
        while (code := self.poll()) is None:
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The process that forks; of the copy of this project in `code`."""

    def __init__(self, code: Path) -> None:
        script = str(code / "tests/exactly_once/nursery.py")
        environment = os.environ | {"PYTHONPATH": str(code)}
        self._process = subprocess.Popen(
            [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )

    def start(self, job: bytes, log: Path) -> Child:
        """A worker whose output is added to a file."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        result = log.with_name(f"{log.name}.{time.monotonic_ns()}")
        order = Order(job.decode(), str(log), str(result), dict(os.environ))
        self._process.stdin.write(msgspec.json.encode(order) + b"\n")
        self._process.stdin.flush()
        return Child(int(self._process.stdout.readline()), result)

    def close(self) -> None:
        """End it, and workers that still run."""
        self._process.communicate()


@functools.cache
def nursery(code: Path) -> Nursery:
    started = Nursery(code)
    atexit.register(started.close)
    return started


def serve() -> None:
    """Fork and bury until standard input ends."""
    from tests.exactly_once.worker_main import die_with_parent

    die_with_parent()
    bell, ringing = socket.socketpair()
    requests = sys.stdin.fileno()
    ringing.setblocking(False)
    signal.set_wakeup_fd(ringing.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; whoever asked for the workers ends them
    gc.freeze()
    results: dict[int, Path] = {}
    pending = b""
    while True:
        ready, _, _ = select.select([requests, bell.fileno()], [], [])
        if bell.fileno() in ready:
            bell.recv(4096)
            _bury(results)
        if requests in ready:
            if not (read := os.read(requests, 1 << 16)):
                return
            *lines, pending = (pending + read).split(b"\n")
            for line in lines:
                order = msgspec.json.decode(line, type=Order)
                pid = os.fork()
                if pid == 0:
                    bell.close()
                    _live(order)
                results[pid] = Path(order.result)
                os.write(1, b"%d\n" % pid)


def _bury(results: dict[int, Path]) -> None:
    """Write down what became of those that have ended."""
    while results:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        result = results.pop(pid)
        draft = result.with_suffix(".draft")
        draft.write_text(str(os.waitstatus_to_exitcode(status)))
        draft.replace(result)


def _live(order: Order) -> NoReturn:
    """As a process of its own would."""
    from tests.exactly_once.worker_main import run

    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    null, log = os.open(os.devnull, os.O_RDONLY), os.open(order.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.update(order.environment)
    run(order.job)
    sys.exit()


if __name__ == "__main__":
    serve()
