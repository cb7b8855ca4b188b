"""A JVM as a process: watched (dies with this process) or detached (outlives it)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

_GUARD = Path(__file__).with_name("guard.py")
_LOOK_SECONDS = 0.05


class Process(Protocol):
    """A started JVM."""

    def is_running(self) -> bool:
        """Whether it still runs."""

    def stop(self, timeout_seconds: float) -> None:
        """Ends it gently, and kills it when it takes longer than that. Returns when it is gone."""

    def kill(self) -> None:
        """Ends it at once, as a power cut would. Returns when it is gone."""


class WatchedProcess:
    """A process behind a guard (`guard.py`) that kills it when this process dies, whatever the way."""

    def __init__(self, folder: Path, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        with log.open("ab") as output:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", _GUARD, "guard", folder / "pid", *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                start_new_session=True,  # Ctrl-C in a terminal is for this process; the guard ends after it
                bufsize=0,
            )

    def is_running(self) -> bool:
        return self._guard.poll() is None

    def stop(self, timeout_seconds: float) -> None:
        self._order(b"t")
        try:
            self._guard.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        self._close()

    def kill(self) -> None:
        self._order(b"k")
        self._guard.wait()
        self._close()

    def _order(self, order: bytes) -> None:
        pipe = self._guard.stdin
        assert pipe is not None
        if self.is_running():
            with contextlib.suppress(BrokenPipeError):
                pipe.write(order)

    def _close(self) -> None:
        if self._guard.stdin is not None:
            self._guard.stdin.close()


class DetachedProcess:
    """A process that goes on after this one. It holds a lock on `folder/lock` for as long as it lives.

    So a stale PID file, or a PID that the system has since given to another process, is not mistaken for it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def start(cls, folder: Path, command: Sequence[str], env: Mapping[str, str], log: Path) -> DetachedProcess:
        """Starts a command that inherits the lock.

        Raises:
            BlockingIOError: one started earlier still holds it.
        """
        with log.open("ab") as output, (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            subprocess.run(
                [sys.executable, "-I", "-S", _GUARD, "detach", folder / "pid", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                pass_fds=[lock.fileno()],
                check=True,
            )
        return cls(folder)

    def is_running(self) -> bool:
        try:
            with (self._folder / "lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    def stop(self, timeout_seconds: float) -> None:
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + timeout_seconds
        while self.is_running() and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        self.kill()

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        while self.is_running():
            time.sleep(_LOOK_SECONDS)

    def _signal(self, signum: int) -> None:
        if self.is_running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int((self._folder / "pid").read_text()), signum)
