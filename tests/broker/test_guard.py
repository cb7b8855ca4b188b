"""A watched process never outlives its owner; a detached one does, and is found again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from streamlib.testing.broker.process import DetachedProcess, WatchedProcess

SLEEP = [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(300)"]
IGNORES_SIGTERM = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(300)",
]
OWNER = """
import os, sys, time
from pathlib import Path
from streamlib.testing.broker.process import WatchedProcess
command = [sys.executable, "-c", "import time; time.sleep(300)"]
process = WatchedProcess(Path(sys.argv[1]), command, os.environ, Path("log"))
{then}
print("up", flush=True)
time.sleep(300)
"""


def owner(folder: Path, then: str = "") -> "subprocess.Popen[bytes]":
    """A process that watches another one, whose PID file is in the folder."""
    folder.mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER.format(then=then), str(folder)], cwd=folder, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def end(process: "subprocess.Popen[bytes]", signum: int) -> None:
    process.send_signal(signum)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def wait_for(path: Path) -> str:
    """The text of a file that another process is about to write."""
    deadline = time.monotonic() + 10
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path} was not written"
    return path.read_text()


def guard_of(process: psutil.Process) -> psutil.Process:
    guard = process.parent()
    assert guard is not None
    return guard


def wait_until_gone(pid: int) -> None:
    try:
        psutil.Process(pid).wait(10)
    except psutil.NoSuchProcess:
        return


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_watched_process_dies_with_its_owner(tmp_path: Path, signum: int) -> None:
    process = owner(tmp_path / "node")
    pid = int(wait_for(tmp_path / "node" / "pid"))
    end(process, signum)
    wait_until_gone(pid)


def test_watched_process_dies_even_if_a_fork_of_the_owner_lives_on(tmp_path: Path) -> None:
    fork = "fork = os.fork()\nif not fork: time.sleep(300)\nPath('fork').write_text(str(fork))"
    process = owner(tmp_path / "node", fork)
    pid = int(wait_for(tmp_path / "node" / "pid"))
    end(process, signal.SIGKILL)
    wait_until_gone(pid)
    os.kill(int(wait_for(tmp_path / "node" / "fork")), signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_watched_process_dies_with_its_guard(tmp_path: Path) -> None:
    process = WatchedProcess(tmp_path, SLEEP, os.environ, tmp_path / "log")
    pid = int(wait_for(tmp_path / "pid"))
    child = psutil.Process(pid)
    guard_of(child).kill()
    child.wait(10)
    process.kill()
    assert not process.is_running()


def test_temporary_folder_goes_with_a_vanished_owner(tmp_path: Path) -> None:
    folder = tmp_path / "temp-data" / "node"
    process = owner(folder)
    pid = int(wait_for(folder / "pid"))
    guard = guard_of(psutil.Process(pid))
    end(process, signal.SIGKILL)
    guard.wait(10)
    assert not folder.parent.exists()


def test_stop_is_gentle_and_then_kills(tmp_path: Path) -> None:
    process = WatchedProcess(tmp_path, IGNORES_SIGTERM, os.environ, tmp_path / "log")
    wait_for(tmp_path / "log")
    process.stop(timeout_seconds=0.5)
    assert not process.is_running()
    process.stop(timeout_seconds=0.5)  # stopping twice is fine


def test_detached_process_is_found_again_and_stopped(tmp_path: Path) -> None:
    DetachedProcess.start(tmp_path, SLEEP, os.environ, tmp_path / "log")
    found = DetachedProcess(tmp_path)
    assert found.is_running()
    with pytest.raises(BlockingIOError):
        DetachedProcess.start(tmp_path, SLEEP, os.environ, tmp_path / "log")
    found.stop(timeout_seconds=5)
    assert not found.is_running()


def test_stale_pid_of_another_process_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text(str(os.getpid()))
    (tmp_path / "lock").touch()
    stale = DetachedProcess(tmp_path)
    assert not stale.is_running()
    stale.stop(timeout_seconds=1)  # would end this test run
