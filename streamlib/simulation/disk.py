"""Disks in memory: what was written stays when the process is killed, and can be lost when the test wants it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from streamlib.errors import LockError
from streamlib.records import TaskId
from streamlib.simulation.loop import Process
from streamlib.state.backend import Backend
from streamlib.state.memory import InMemoryBackend
from streamlib.state.split import SplitBackend
from streamlib.topology.nodes import StoreSpec

REMEMBERED_WRITES = 20


class Folder:
    """One task's stores as they are on the disk."""

    def __init__(self) -> None:
        self.content = InMemoryBackend()
        self.owner: Process | None = None
        self._undo: deque[tuple[dict[str, dict[bytes, bytes | None]], dict[str, int]]] = deque(maxlen=REMEMBERED_WRITES)

    def write(self, changes: Mapping[str, Mapping[bytes, bytes | None]], positions: Mapping[str, int]) -> None:
        """One atomic write, remembered so that it can be lost."""
        before = {store: {key: self.content.get(store, key) for key in changed} for store, changed in changes.items()}
        self._undo.append((before, self.content.positions()))
        self.content.write(changes, positions)

    def lose_last(self, writes: int) -> int:
        """The machine went down before these had reached the disk; returns how many were lost."""
        lost = 0
        while self._undo and lost < writes:
            before, positions = self._undo.pop()
            gone = self.content.positions().keys() - positions.keys()
            if gone:
                self._undo.clear()
                self.content = InMemoryBackend()
                return lost + 1
            self.content.write(before, positions)
            lost += 1
        return lost

    def forget_undo(self) -> None:
        """What cannot be undone write by write: ranges deleted, stores cleared."""
        self._undo.clear()


class FolderBackend:
    """A process's handle on a folder; implements `Backend`."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._open = True

    def get(self, store: str, key: bytes) -> bytes | None:
        return self._folder.content.get(store, key)

    def prefetch(self, store: str, keys: Sequence[bytes]) -> None:
        """A disk without cost."""

    def scan(
        self, store: str, start: bytes | None, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        return self._folder.content.scan(store, start, end, reverse=reverse)

    def peek(self, store: str, key: bytes) -> bytes | None:
        return self._folder.content.peek(store, key)

    def page(
        self, store: str, start: bytes | None, end: bytes | None, limit: int, *, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        return self._folder.content.page(store, start, end, limit, reverse=reverse)

    def estimate(self, store: str) -> int:
        return self._folder.content.estimate(store)

    def write(self, changes: Mapping[str, Mapping[bytes, bytes | None]], positions: Mapping[str, int]) -> None:
        assert self._open, "write to a closed backend"
        self._folder.write(changes, positions)

    def load(
        self, changes: Mapping[str, Mapping[bytes, bytes | None]], positions: Mapping[str, int], *, bulk: bool
    ) -> None:
        self.write(changes, positions)

    def settle(self) -> bool:
        return True

    def delete_range(self, store: str, start: bytes, end: bytes) -> None:
        self._folder.forget_undo()
        self._folder.content.delete_range(store, start, end)

    def positions(self) -> dict[str, int]:
        return self._folder.content.positions()

    def clear(self, store: str) -> None:
        self._folder.forget_undo()
        self._folder.content.clear(store)

    def close(self) -> None:
        self._open = False
        self._folder.owner = None


class Disk:
    """A disk of one host, or of several workers that share it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lives = 0
        self.folders: dict[str, Folder] = {}

    @property
    def identity(self) -> str:
        """What it is called; another one after it was lost."""
        return self.identity_of(self._name)

    def identity_of(self, worker: str) -> str:
        """What a worker that keeps its state here is called."""
        return f"{worker}.{self._lives}" if self._lives else worker

    def copies(self, task_id: TaskId) -> dict[str, Folder]:
        """All folders of a task by name: its own, and what was opened aside while that was locked."""
        own = str(task_id)
        return {name: it for name, it in self.folders.items() if name == own or name.startswith(f"{own}.aside-")}

    def lose(self) -> None:
        """Everything is gone."""
        self._lives += 1
        self.folders = {}

    def lose_tail(self, writes: int) -> int:
        """The last writes of every folder are gone; returns how many."""
        return sum(folder.lose_last(writes) for folder in self.folders.values())


class DiskDirectory:
    """One process's view of its disk; implements `StateDirectory`."""

    def __init__(self, disk: Disk, process: Process) -> None:
        self._disk = disk
        self._process = process

    @property
    def identity(self) -> str:
        return self._disk.identity_of(self._process.name)

    def open(self, task_id: TaskId, stores: Sequence[StoreSpec], *, aside: bool = False) -> Backend:
        return self._open(f"{task_id}.aside-{self.identity}" if aside else str(task_id), stores)

    def open_global(self, stores: Sequence[StoreSpec]) -> Backend:
        return self._open(f"global-{self.identity}", stores)

    @property
    def process(self) -> str:
        return self._disk.identity

    def stored_positions(self) -> dict[TaskId, dict[str, int]]:
        plain = [
            (name.split("_"), folder)
            for name, folder in self._disk.folders.items()
            if "." not in name and "-" not in name
        ]
        return {TaskId(int(sub), int(partition)): folder.content.positions() for (sub, partition), folder in plain}

    def _open(self, name: str, stores: Sequence[StoreSpec]) -> Backend:
        if not any(spec.persistent for spec in stores):
            return InMemoryBackend()
        folder = self._disk.folders.setdefault(name, Folder())
        if folder.owner is not None and folder.owner.alive and folder.owner is not self._process:
            raise LockError(f"{name} is held by {folder.owner}")
        folder.owner = self._process
        in_memory = frozenset(spec.name for spec in stores if not spec.persistent)
        disk = FolderBackend(folder)
        return SplitBackend(disk, in_memory) if in_memory else disk
