from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from streamlib.cli.report import Lines
from streamlib.cli.supervisor import Backoff, Phase, Supervisor, SupervisorOptions

HERE = Path(__file__).parent
QUICK = SupervisorOptions(backoff_s=0.05, longest_backoff_s=0.2, grace_s=20)


def dummy(*words: str) -> list[str]:
    return [sys.executable, str(HERE / "dummy_worker.py"), *words]


def supervise(*commands: list[str], options: SupervisorOptions = QUICK, lines: list[str] | None = None) -> Supervisor:
    return Supervisor(commands, lambda index, line: lines.append(line) if lines is not None else None, options)


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def all_running(supervisor: Supervisor) -> bool:
    return all(view.phase is Phase.RUNNING for view in supervisor.views)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_workers_report_and_end_with_the_block() -> None:
    lines: list[str] = []
    with supervise(dummy("serve"), dummy("serve"), lines=lines) as supervisor:
        eventually(lambda: all_running(supervisor))
        pids = [view.pid for view in supervisor.views]
        assert [view.report.status.tasks for view in supervisor.views if view.report] == [("0_0",), ("0_0",)]
    assert all(pid is not None and gone(pid) for pid in pids)
    assert [view.phase for view in supervisor.views] == [Phase.STOPPED, Phase.STOPPED]
    assert supervisor.failure is None
    assert lines == ["serve begins", "serve begins"]


def test_killed_worker_comes_back_and_its_counts_stay() -> None:
    with supervise(dummy("serve"), dummy("serve")) as supervisor:
        eventually(lambda: all_running(supervisor))
        first, other = (view.pid for view in supervisor.views)
        supervisor.kill(0)
        eventually(lambda: supervisor.views[0].restarts == 1 and all_running(supervisor))
        assert supervisor.views[0].pid != first
        assert supervisor.views[1].pid == other
        assert supervisor.views[0].totals.records_in == 20


@pytest.mark.parametrize("words", [("crash", "7"), ("crash", "0"), ("kill",)])
def test_a_worker_that_ends_unasked_is_started_again_and_again(words: tuple[str, ...]) -> None:
    with supervise(dummy(*words)) as supervisor:
        eventually(lambda: supervisor.views[0].restarts >= 3)
    assert supervisor.failure is None


def test_an_error_for_good_ends_the_whole_run() -> None:
    with supervise(dummy("serve"), dummy("fail", "2")) as supervisor:
        assert supervisor.wait(20)
    assert supervisor.failure is not None
    assert (str(supervisor.failure), supervisor.failure.exit_code) == ("it cannot work", 2)
    assert supervisor.failure.index == 1


def test_an_unreachable_cluster_ends_the_run_if_it_never_worked() -> None:
    with supervise(dummy("unreachable")) as supervisor:
        assert supervisor.wait(20)
    assert str(supervisor.failure) == "nobody answers"


def test_an_unreachable_cluster_is_waited_for_if_it_once_worked(tmp_path: Path) -> None:
    with supervise(dummy("loses-cluster", str(tmp_path / "worked-once"))) as supervisor:
        eventually(lambda: supervisor.views[0].restarts >= 2)
        assert supervisor.failure is None


def test_a_worker_that_does_not_end_is_killed() -> None:
    with supervise(dummy("stubborn"), options=SupervisorOptions(grace_s=0.1)) as supervisor:
        eventually(lambda: all_running(supervisor))
        pid = supervisor.views[0].pid
    assert pid is not None
    assert gone(pid)


def test_abort_waits_for_nobody() -> None:
    with supervise(dummy("stubborn")) as supervisor:
        eventually(lambda: all_running(supervisor))
        supervisor.abort()
        assert supervisor.wait(5)


def test_an_exception_in_the_block_kills_the_workers() -> None:
    pids = []

    def fail_while_supervising() -> None:
        with supervise(dummy("stubborn")) as supervisor:
            eventually(lambda: all_running(supervisor))
            pids.append(supervisor.views[0].pid or 0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_while_supervising()
    assert gone(pids[0])


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_workers_die_with_their_supervisor(signum: signal.Signals) -> None:
    command = [sys.executable, str(HERE / "supervising.py"), "serve", "stubborn"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        process.send_signal(signum)
        process.wait()
        eventually(lambda: all(gone(pid) for pid in pids))


def test_a_stopped_worker_dies_with_its_supervisor() -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux kills a stopped process with its parent")
    command = [sys.executable, str(HERE / "supervising.py"), "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        os.kill(pid, signal.SIGSTOP)
        process.kill()
        process.wait()
        eventually(lambda: gone(pid))


def test_backoff_doubles_to_its_bound_and_starts_again_after_a_calm_life() -> None:
    backoff = Backoff(SupervisorOptions(backoff_s=1, longest_backoff_s=5, calm_s=60))
    assert [backoff.next_s(2) for _ in range(5)] == [1, 2, 4, 5, 5]
    assert [backoff.next_s(lived) for lived in (61, 3)] == [1, 2]


def test_lines_are_put_together_from_pieces() -> None:
    lines = Lines()
    assert [lines.feed(piece) for piece in (b"on", b"e\ntwo\nth", b"ree")] == [[], [b"one", b"two"], []]
    assert lines.rest() == b"three"
