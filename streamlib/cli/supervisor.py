"""N worker processes: started, watched, restarted when they die, stopped together.

    STARTING --first report--> RUNNING --dies--> WAITING --back-off over--> STARTING
        |                        |                  |
        +------------------------+------------------+--stop, or an error that no restart mends--> STOPPED

One thread does all of it, so nothing needs a lock: other threads only set what it looks at next. It also outlives
every worker it starts, which matters on Linux, where a worker is tied to the life of the *thread* that started it
(PR_SET_PDEATHSIG). A worker gets its end of a socket as `--supervisor-fd N`; what it sends is in `report.py`.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from types import TracebackType
from typing import Self, TypeAlias

import msgspec

from streamlib.cli.errors import FAILURE_EXIT
from streamlib.cli.report import Failed, Lines, Report, decode
from streamlib.errors import StreamsError

log = logging.getLogger(__name__)

FD_OPTION = "--supervisor-fd"

_LOOK_SECONDS = 0.05
_READ_BYTES = 1 << 16

OnLine: TypeAlias = Callable[[int, str], None]
"""Takes a line that worker `index` wrote."""


class WorkerFailedError(StreamsError):
    """A worker ended with an error that no restart mends."""

    def __init__(self, index: int, failed: Failed) -> None:
        super().__init__(failed.text)
        self.index = index
        self.exit_code = failed.exit_code or FAILURE_EXIT


class Phase(Enum):
    """Where a worker is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"
    STOPPED = "stopped"


class Totals(msgspec.Struct, frozen=True):
    """Counts over all lives of a worker, up to its last report."""

    records_in: int = 0
    records_out: int = 0
    commits: int = 0

    def plus(self, report: Report | None) -> Totals:
        """With those of one more life."""
        if report is None:
            return self
        status = report.status
        return Totals(
            self.records_in + status.records_in,
            self.records_out + status.records_out,
            self.commits + status.commits,
        )


class WorkerView(msgspec.Struct, frozen=True):
    """What is known of one worker. `report` is the last of its present life, if it has sent one."""

    index: int
    phase: Phase
    pid: int | None
    restarts: int
    totals: Totals
    report: Report | None


class SupervisorOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How workers are restarted and stopped.

    The wait before a restart doubles from `backoff_s` to `longest_backoff_s`, and starts again from the first after
    a life of `calm_s`. A worker that has not ended `grace_s` after it was asked to is killed. With `merge_stdout`
    what workers print comes line by line with their log; otherwise it goes where ours goes. `env` is added to their
    environment.
    """

    backoff_s: float = 0.5
    longest_backoff_s: float = 30.0
    calm_s: float = 60.0
    grace_s: float = 60.0
    merge_stdout: bool = False
    env: Mapping[str, str] = {}


class Supervisor:
    """Runs one process for each command until `stop`, or until one fails for good.

        with Supervisor(commands, on_line) as supervisor:
            supervisor.kill(0)          # comes back
            supervisor.views[0].phase

    Leaving the block stops all workers in good order; leaving it with an exception kills them.
    """

    def __init__(
        self, commands: Sequence[Sequence[str]], on_line: OnLine, options: SupervisorOptions | None = None
    ) -> None:
        self._options = options or SupervisorOptions()
        self._selector = selectors.DefaultSelector()
        self._workers = [
            _Worker(index, command, self._options, self._selector, on_line) for index, command in enumerate(commands)
        ]
        self._stop_asked = threading.Event()
        self._kill_asked = threading.Event()
        self._ever_ran = False
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self.failure: WorkerFailedError | None = None

    @property
    def views(self) -> list[WorkerView]:
        """What is known of each worker."""
        return [worker.view for worker in self._workers]

    def start(self) -> None:
        """Start the workers."""
        self._thread.start()

    def stop(self) -> None:
        """Ask every worker to commit and close. Returns at once; may be called from a signal handler."""
        self._stop_asked.set()

    def abort(self) -> None:
        """Kill every worker. Returns at once; may be called from a signal handler."""
        self._kill_asked.set()
        self._stop_asked.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until no worker is left and none will be started; whether that is so."""
        if self._thread.ident is not None:  # it was started
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def kill(self, index: int) -> None:
        """End one worker as a crash would; it is restarted."""
        self.signal(index, signal.SIGKILL)

    def signal(self, index: int, signum: signal.Signals) -> None:
        """Send a signal to one worker, if it is there."""
        self._workers[index].signal(signum)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.stop()
        else:
            self.abort()
        try:
            self.wait()
        except BaseException:  # Ctrl-C: do not wait for their commits
            self.abort()
            self.wait()
            raise

    def _supervise(self) -> None:
        try:
            while not all(worker.phase is Phase.STOPPED for worker in self._workers):
                for key, _ in self._selector.select(_LOOK_SECONDS):
                    key.data()
                for worker in self._workers:
                    self._look_after(worker, time.monotonic())
        finally:
            for worker in self._workers:
                worker.destroy()
            self._selector.close()

    def _look_after(self, worker: _Worker, now: float) -> None:
        if self._stop_asked.is_set():
            worker.end(now, kill=self._kill_asked.is_set())
        elif worker.due(now):
            worker.start(now)
        if worker.phase is Phase.RUNNING:
            self._ever_ran = True
        if not worker.has_ended():
            return
        failed = worker.collect()
        if failed is not None and not (failed.passing and self._ever_ran):
            self.failure = self.failure or WorkerFailedError(worker.index, failed)
            self._stop_asked.set()
        if self._stop_asked.is_set():
            worker.retire()
        else:
            worker.restart_later(now)


class _Worker:
    """One slot: a process, or the wait for the next one."""

    def __init__(
        self,
        index: int,
        command: Sequence[str],
        options: SupervisorOptions,
        selector: selectors.BaseSelector,
        on_line: OnLine,
    ) -> None:
        self.index = index
        self.phase = Phase.WAITING
        self._command = command
        self._options = options
        self._selector = selector
        self._on_line = on_line
        self._backoff = Backoff(options)
        self._life: _Life | None = None  # set while STARTING or RUNNING
        self._next_start = 0.0
        self._restarts = 0
        self._past = Totals()

    @property
    def view(self) -> WorkerView:
        life = self._life
        report = life.report if life else None
        return WorkerView(
            index=self.index,
            phase=self.phase,
            pid=life.process.pid if life else None,
            restarts=self._restarts,
            totals=self._past.plus(report),
            report=report,
        )

    def due(self, now: float) -> bool:
        return self.phase is Phase.WAITING and now >= self._next_start

    def start(self, now: float) -> None:
        self.phase = Phase.STARTING
        self._life = _Life(self._command, now, self._options)
        self._selector.register(self._life.link, selectors.EVENT_READ, self._read_link)
        self._selector.register(self._life.output, selectors.EVENT_READ, self._read_output)

    def signal(self, signum: int) -> None:
        if life := self._life:
            life.process.send_signal(signum)  # does nothing if the process has been waited for

    def end(self, now: float, *, kill: bool) -> None:
        """One step towards the end: ask once, kill when the time is over."""
        life = self._life
        if life is None:
            self.phase = Phase.STOPPED
        elif life.asked_to_end is None:
            life.asked_to_end = now
            life.process.terminate()
        elif kill or now - life.asked_to_end > self._options.grace_s:
            life.process.kill()

    def has_ended(self) -> bool:
        return self._life is not None and self._life.process.poll() is not None

    def collect(self) -> Failed | None:
        """Take what an ended process has left: its last words."""
        life = self._life
        assert life is not None
        self._read_link()
        self._read_output()
        if rest := life.output_lines.rest():
            self._on_line(self.index, rest.decode(errors="replace"))
        return life.failed

    def retire(self) -> None:
        self._close()
        self.phase = Phase.STOPPED

    def restart_later(self, now: float) -> None:
        life = self._life
        assert life is not None
        delay = self._backoff.next_s(now - life.started)
        self._next_start = now + delay
        self._restarts += 1
        log.warning("worker %d %s; it starts again in %.1f s", self.index + 1, life.last_words(), delay)
        self._close()
        self.phase = Phase.WAITING

    def destroy(self) -> None:
        """Leave nothing behind, whatever the state."""
        if life := self._life:
            life.process.kill()
            life.process.wait()
            self._close()

    def _close(self) -> None:
        life = self._life
        assert life is not None
        self._past = self._past.plus(life.report)
        for stream in (life.link, life.output):
            if stream.fileno() in self._selector.get_map():
                self._selector.unregister(stream)
            stream.close()
        self._life = None

    def _read_link(self) -> None:
        life = self._life
        assert life is not None
        for line in life.link_lines.feed(self._read(life.link)):
            match decode(line):
                case Report() as report:
                    life.report = report
                    self.phase = Phase.RUNNING
                case Failed() as failed:
                    life.failed = failed

    def _read_output(self) -> None:
        life = self._life
        assert life is not None
        for line in life.output_lines.feed(self._read(life.output)):
            self._on_line(self.index, line.decode(errors="replace"))

    def _read(self, stream: socket.socket) -> bytes:
        """All there is; at the end of a stream nothing more is asked of it."""
        data = bytearray()
        try:
            while chunk := stream.recv(_READ_BYTES):
                data += chunk
        except BlockingIOError:
            return bytes(data)
        except ConnectionResetError:
            pass
        if stream.fileno() in self._selector.get_map():
            self._selector.unregister(stream)
        return bytes(data)


class _Life:
    """One process, from its start to its end."""

    def __init__(self, command: Sequence[str], now: float, options: SupervisorOptions) -> None:
        self.started = now
        self.asked_to_end: float | None = None
        self.report: Report | None = None
        self.failed: Failed | None = None
        self.link_lines = Lines()
        self.output_lines = Lines()
        self.link, theirs = socket.socketpair()
        self.output, their_output = socket.socketpair()
        with theirs, their_output:
            self.process = subprocess.Popen(
                [*command, FD_OPTION, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=their_output.fileno() if options.merge_stdout else None,
                stderr=their_output.fileno(),
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C in a terminal is for us; we ask the workers to end, once
                env={**os.environ, "PYTHONUNBUFFERED": "1", **options.env},
            )
        self.link.setblocking(False)
        self.output.setblocking(False)

    def last_words(self) -> str:
        """How the process ended, for a log line."""
        if self.failed is not None:
            return f"ended: {self.failed.text.splitlines()[0]}"
        code = self.process.returncode
        if code >= 0:
            return f"ended with exit code {code}"
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"


class Backoff:
    """How long to wait before the next start."""

    def __init__(self, options: SupervisorOptions) -> None:
        self._options = options
        self._next_s = options.backoff_s

    def next_s(self, lived_s: float) -> float:
        """The wait after a process that lived so long."""
        if lived_s >= self._options.calm_s:
            self._next_s = self._options.backoff_s
        wait_s = self._next_s
        self._next_s = min(wait_s * 2, self._options.longest_backoff_s)
        return wait_s
