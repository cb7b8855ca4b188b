"""The folder where the workers of one host keep their stores, and who holds what in it.

    <state_dir>/<application_id>/
        slot-0.lock  slot-1.lock ...     one per worker that runs or ran here; holds the worker's identity
        <group_instance_id>.lock         the same for a static member
        0_3/                             the stores of task 0_3
        0_3.aside-<identity>/            a worker's own copy, made while another process would not let go of 0_3
        global-<identity>/               a worker's global stores
    process                          names the folder, for the group: workers with the same one share stores

A worker's identity outlives the process, so its transactional ids do too: a worker that comes back finishes its own
open transaction at once instead of making every reader wait for the transaction's timeout.
"""

from __future__ import annotations

import logging
import re
import shutil
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from streamlib.config import StreamsConfig
from streamlib.errors import LockError, StateStoreError
from streamlib.file_lock import FileLock
from streamlib.kept_shapes import check_shapes
from streamlib.records import TaskId
from streamlib.rocksdb import OWNER_LOCK, RocksDBBackend, last_used_s, read_positions
from streamlib.state.backend import Backend
from streamlib.state.memory import InMemoryBackend
from streamlib.state.split import SplitBackend
from streamlib.topology.nodes import StoreSpec

log = logging.getLogger(__name__)

MAX_WORKERS = 1024
_TASK_FOLDER = re.compile(r"(\d+)_(\d+)")


class LocalStateDirectory:
    """One worker's view of the folder. Enter it to take a slot; leaving gives it back.

    Raises:
        LockError: a static member's slot is held by a living process, or the folder cannot be used.
    """

    def __init__(self, config: StreamsConfig) -> None:
        self._root = config.state_path / config.application_id
        self._instance_id = config.group_instance_id
        self._memory_bytes = config.rocksdb_memory_bytes
        self._max_age_s = config.state_cleanup_dir_max_age_ms / 1000
        self._slot: FileLock | None = None
        self._seen: dict[str, dict[str, int]] = {}  # positions in folders that were not open when we looked

    @property
    def identity(self) -> str:
        """What this worker is called in its transactional ids; the same after a restart."""
        assert self._slot is not None, "the state directory has not been entered"
        return self._instance_id or self._slot.note

    def __enter__(self) -> Self:
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StateStoreError(
                f"cannot create the state directory {self._root}: {error.strerror}; choose another state_dir"
            ) from error
        self._slot = self._take_slot()
        for aside in self._root.glob("*.aside-*"):
            self._remove_if_old(aside)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._slot is not None:
            self._slot.release()
            self._slot = None

    def open(self, task_id: TaskId, stores: Sequence[StoreSpec], *, aside: bool = False) -> Backend:
        """See `streamlib.runtime.ports.StateDirectory`."""
        return self._open(f"{task_id}.aside-{self.identity}" if aside else str(task_id), stores)

    def _open(self, folder: str, stores: Sequence[StoreSpec]) -> Backend:
        on_disk = [spec for spec in stores if spec.persistent]
        if not on_disk:
            return InMemoryBackend()
        self._seen.pop(folder, None)
        self._remove_if_old(self._root / folder)
        disk = RocksDBBackend(self._root / folder, on_disk, memory_bytes=self._memory_bytes)
        try:
            check_shapes(self._root / folder, on_disk)
        except BaseException:
            disk.close()
            raise
        in_memory = frozenset(spec.name for spec in stores if not spec.persistent)
        return SplitBackend(disk, in_memory) if in_memory else disk

    def open_global(self, stores: Sequence[StoreSpec]) -> Backend:
        """See `streamlib.runtime.ports.StateDirectory`."""
        return self._open(f"global-{self.identity}", stores)

    @property
    def process(self) -> str:
        """See `streamlib.runtime.ports.StateDirectory`."""
        path = self._root / "process"
        if not path.exists():
            mine = self._root / f"process.{uuid.uuid4().hex}"
            mine.write_text(uuid.uuid4().hex)
            with suppress(FileExistsError):  # another worker was quicker
                path.hardlink_to(mine)
            mine.unlink()
        return path.read_text()

    def stored_positions(self) -> dict[TaskId, dict[str, int]]:
        """See `streamlib.runtime.ports.StateDirectory`."""
        for path in self._root.iterdir():
            if (match := _TASK_FOLDER.fullmatch(path.name)) and path.name not in self._seen:
                task = TaskId(int(match[1]), int(match[2]))
                with suppress(LockError, StateStoreError):  # open somewhere, or to be built anew when it is opened
                    self._remove_if_old(path)
                    self._seen[str(task)] = read_positions(path)
        return {TaskId(*map(int, name.split("_"))): positions for name, positions in self._seen.items()}

    def _remove_if_old(self, folder: Path) -> None:
        """A store that was away for longer than tombstones are kept would never hear of deletes made meanwhile."""
        age_s = time.time() - last_used_s(folder)
        if not folder.exists() or age_s <= self._max_age_s:
            return
        with suppress(LockError, FileNotFoundError):  # somebody holds it after all, or removes it, too
            lock = FileLock.take(folder / OWNER_LOCK)
            log.warning(
                "%s was not used for %.0f h; its stores are built anew from their changelogs", folder, age_s / 3600
            )
            shutil.rmtree(folder)
            lock.release()

    def _take_slot(self) -> FileLock:
        if self._instance_id is not None:
            return FileLock.take(self._root / f"{self._instance_id}.lock", note=self._instance_id)
        for number in range(MAX_WORKERS):
            try:
                return FileLock.take(self._root / f"slot-{number}.lock", note=uuid.uuid4().hex)
            except LockError:
                continue
        raise LockError(f"{MAX_WORKERS} workers already use {self._root}; choose another state_dir")
