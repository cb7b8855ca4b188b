"""What a worker process does: run the application, report on it, and end when its supervisor does."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

import anyio
import anyio.to_thread

from streamlib.app import KafkaStreams, State
from streamlib.cli.errors import FAILURE_EXIT, describe, exit_code
from streamlib.cli.places import NOWHERE, Places, shown
from streamlib.cli.report import Failed, Message, Report, encode
from streamlib.errors import ConnectionFailedError, StreamsError, StreamsNotStartedError

REPORT_SECONDS = 0.25

_PR_SET_PDEATHSIG = 1


class SupervisorLink:
    """This process's end of the socket to its supervisor.

    The process dies at once when the supervisor is gone: whatever it has open is aborted, and nobody would stop it
    otherwise. The kernel sees to that on Linux (PR_SET_PDEATHSIG), even for a stopped process; elsewhere, and if the
    supervisor died before we could ask the kernel, the end of the stream tells.
    """

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.set_inheritable(False)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        threading.Thread(target=self._die_with_supervisor, daemon=True).start()

    def send(self, message: Message) -> None:
        """Hand over a message. Blocks while the supervisor does not read; harmless if it is gone."""
        try:
            self._socket.sendall(encode(message))
        except OSError:
            return  # the watching thread ends the process

    def _die_with_supervisor(self) -> None:
        try:
            while self._socket.recv(1024):
                pass
        finally:
            os.kill(os.getpid(), signal.SIGKILL)


def run_app(app: KafkaStreams, link: SupervisorLink | None = None) -> None:
    """Run until a signal stops it.

    Raises:
        StreamsError: what stopped it.
    """
    anyio.run(_run, app, link, backend_options={"use_uvloop": has_uvloop()})


def run_supervised(
    make_app: Callable[[], KafkaStreams], link: SupervisorLink, *, debug: bool, places: Places = NOWHERE
) -> int:
    """Run as a worker of a supervisor: errors go to it, not to standard error. Returns the exit code."""
    try:
        app = make_app()
        with shown(app, places):
            run_app(app, link)
    except StreamsError as error:
        link.send(Failed(describe(error, debug=debug), exit_code(error), isinstance(error, ConnectionFailedError)))
        return exit_code(error)
    except Exception as error:
        print(describe(error), file=sys.stderr, flush=True)
        return FAILURE_EXIT
    return 0


async def _run(app: KafkaStreams, link: SupervisorLink | None) -> None:
    async with anyio.create_task_group() as group:
        if link is not None:
            group.start_soon(_report, app, link)
        failure: StreamsError | None = None
        try:
            await app.run()
        except StreamsError as error:  # caught here, so that it does not arrive in an exception group
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _report(app: KafkaStreams, link: SupervisorLink) -> None:
    """Reports are sent by a thread, so that a supervisor that does not read holds up nothing else."""
    while True:
        try:
            report = make_report(app)
        except StreamsNotStartedError:
            pass
        else:
            await anyio.to_thread.run_sync(link.send, report, abandon_on_cancel=True)
        await anyio.sleep(REPORT_SECONDS)


def make_report(app: KafkaStreams) -> Report:
    """A snapshot of this process.

    Raises:
        StreamsNotStartedError: there is nothing to tell yet.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Report(
        status=app.status,
        running=app.state is State.RUNNING,
        time_s=time.monotonic(),
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_bytes=usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    )


def has_uvloop() -> bool:
    """Whether the faster event loop is there; some platforms have none."""
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return False
    return True
