"""A lock on a file that the kernel releases when its process ends, however it ends.

The file keeps the holder's process id, for the error message, and a note that outlives the holder.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Self

from streamlib.errors import LockError, StateStoreError


class FileLock:
    """A lock that is held; `release` or the end of the process gives it back.

    The note is written by the first holder and kept for all later ones.
    """

    def __init__(self, path: Path, descriptor: int, note: str) -> None:
        self._path = path
        self._descriptor: int | None = descriptor
        self.note = note

    @classmethod
    def take(cls, path: Path, *, note: str = "") -> Self:
        """Take the lock now.

        Raises:
            LockError: another process holds it; the message names its process id.
            StateStoreError: the file cannot be opened or locked at all.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateStoreError(f"cannot open {path}: {error.strerror}; check who may write there") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _read(descriptor)[0] or "unknown"
            os.close(descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise StateStoreError(f"cannot lock {path}: {error.strerror}") from error
            raise LockError(
                f"{path} is held by process {holder}: stop that process, or choose another state_dir "
                "(or group_instance_id) for this one"
            ) from None
        kept = _read(descriptor)[1] or note
        _write(descriptor, kept)
        return cls(path, descriptor, kept)

    def release(self, *, used: bool = True) -> None:
        """Give the lock back; harmless when it has been. The file's time says until when what it guards was used."""
        if self._descriptor is not None:
            if used:
                os.utime(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None


def _read(descriptor: int) -> tuple[str, str]:
    """The holder's process id and the note."""
    pid, _, note = os.pread(descriptor, 4096, 0).decode(errors="replace").partition("\n")
    return pid, note.strip()


def _write(descriptor: int, note: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n{note}\n".encode(), 0)
