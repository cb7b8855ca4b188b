"""A process that behaves as its first argument says, in place of a worker. It needs nothing but the socket's number.

serve         reports, ends at SIGTERM
stubborn      reports, ignores SIGTERM
crash N       reports once, then ends with exit code N
kill          reports once, then kills itself
fail CODE     says that it failed for good
unreachable   says that it failed for now
loses-cluster FILE   works at first, and dies; says that it failed for now if the file shows that it has worked
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from streamlib.cli.report import Failed, Report
from streamlib.cli.worker import SupervisorLink
from streamlib.runtime.worker import WorkerStatus


def report() -> Report:
    status = WorkerStatus(
        tasks=("0_0",),
        standbys={},
        restoring={},
        records_in=10,
        records_out=5,
        records_restored=0,
        commits=1,
        redone=0,
        rebalances=1,
        last_rebalance=None,
        lag=0,
    )
    return Report(status=status, running=True, time_s=time.monotonic(), cpu_s=0.0, peak_bytes=0)


def main(act: str, argument: str, link: SupervisorLink) -> int:
    print(f"{act} begins", file=sys.stderr, flush=True)
    if act == "fail":
        link.send(Failed("it cannot work", int(argument), passing=False))
        return int(argument)
    if act == "unreachable" or (act == "loses-cluster" and Path(argument).exists()):
        link.send(Failed("nobody answers", 1, passing=True))
        return 1
    if act == "loses-cluster":
        Path(argument).touch()
    if act == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if act == "serve":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    link.send(report())
    if act in ("crash", "loses-cluster"):
        return int(argument) if act == "crash" else 1
    if act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    while True:
        time.sleep(0.05)
        link.send(report())


if __name__ == "__main__":
    *arguments, option, fd = sys.argv[1:]
    assert option == "--supervisor-fd"
    sys.exit(main(arguments[0], arguments[1] if len(arguments) > 1 else "", SupervisorLink(int(fd))))
