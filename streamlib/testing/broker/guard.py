"""Runs a command on behalf of an owner process, and never lets it outlive the owner.

    python guard.py guard PID_FILE COMMAND...     watched: ends with the owner, however the owner ends
    python guard.py detach PID_FILE COMMAND...    on its own: the guard starts the command and leaves

The guard learns of the owner's death in two ways. Standard input is a pipe whose other end only the owner
holds: the kernel closes it when the owner dies, even by SIGKILL. And the guard's parent changes then, which
shows even if a fork of the owner still has the pipe. On Linux the command in turn dies with the guard
(PR_SET_PDEATHSIG; it is tied to the parent's thread, so it is of use only here, where there is just one).

The owner writes one byte to give an order: `t` end the command gently, `k` kill it. When the owner just
vanishes, the folder of the PID file is removed too if it is in a temporary one: nobody else would do it.

This file is run as a script and imports only the standard library.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1
_LOOK_SECONDS = 0.2


def main(mode: str, pid_file: Path, command: list[str]) -> int:
    """Runs the command; the exit code is the command's."""
    if mode == "detach":
        _write_pid(pid_file, _spawn(command, new_session=True).pid)
        return 0
    owner = os.getppid()
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = _spawn(command)
    try:
        _write_pid(pid_file, child.pid)
        vanished = _watch(child, owner)
    finally:
        child.kill()
        child.wait()
    if vanished:
        _clean(pid_file.parent)
    return child.returncode


def _watch(child: subprocess.Popen[bytes], owner: int) -> bool:
    """Returns when the command ended or has to; True if the owner is gone."""
    while child.poll() is None:
        readable, _, _ = select.select([0], [], [], _LOOK_SECONDS)
        order = os.read(0, 1) if readable else b" "
        if order == b"" or os.getppid() != owner:
            return True
        if order == b"k":
            return False
        if order == b"t":
            child.terminate()
    return False


def _spawn(command: list[str], *, new_session: bool = False) -> subprocess.Popen[bytes]:
    # close_fds=False hands on the lock file that a detached command holds for as long as it lives.
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        close_fds=False,
        start_new_session=new_session,
        preexec_fn=None if new_session else _die_with_parent,
    )


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _leave(signum: int, frame: FrameType | None) -> None:
    sys.exit(128 + signum)


def _write_pid(path: Path, pid: int) -> None:
    path.write_text(str(pid))


def _clean(folder: Path) -> None:
    cluster = folder.parent
    if not cluster.name.startswith("temp-"):
        return
    shutil.rmtree(folder, ignore_errors=True)
    if not any(path.is_dir() for path in cluster.glob("*")):  # the last node to go takes the rest with it
        shutil.rmtree(cluster, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
