"""The broker of `streamlib broker start`: one for each user, going on after the command.

Its folder has the state file, a lock that one command holds at a time, and the data unless that is kept
elsewhere. A node runs for as long as its lock is held (see `DetachedProcess`), so a stale
state file does no harm.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from streamlib.testing.broker.cluster import DEFAULT_HEAP, START_SECONDS, Broker, BrokerOptions
from streamlib.testing.broker.errors import BrokerError
from streamlib.testing.broker.jars import Progress, classpath
from streamlib.testing.broker.node import Node
from streamlib.testing.broker.process import DetachedProcess

_STOP_SECONDS = 15.0


class DaemonState(msgspec.Struct, frozen=True):
    """What is known of the broker that was started last. `down` has the ids of nodes that do not run."""

    version: str
    bootstrap_servers: str
    data_dir: str
    keep_data: bool
    node_dirs: list[str]
    pids: list[int] = []
    heap: str = DEFAULT_HEAP
    optimise: bool = False
    down: list[int] = []

    def looked_at(self) -> DaemonState:
        """The same with the nodes as they are now."""
        down = [node_id for node_id, process in enumerate(self.processes(), 1) if not process.is_running()]
        return msgspec.structs.replace(self, down=down)

    def is_running(self) -> bool:
        """Whether any of its nodes runs."""
        return any(process.is_running() for process in self.processes())

    def processes(self) -> list[DetachedProcess]:
        """One for each node."""
        return [DetachedProcess(Path(folder)) for folder in self.node_dirs]


class Daemon:
    """The one broker of this user that outlives commands."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or _state_folder()

    def status(self) -> DaemonState | None:
        """The running broker; None if there is none."""
        try:
            state = msgspec.json.decode(self._file.read_bytes(), type=DaemonState)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        return state.looked_at() if state.is_running() else None

    def start(self, options: BrokerOptions, progress: Progress | None = None) -> DaemonState:
        """Starts a broker and returns when it serves clients. Without a data folder its data goes with it.

        Raises:
            BrokerError: one is running already; or see `Broker.start`.
        """
        with self._locked():
            running = self.status()
            if running is not None:
                raise BrokerError(
                    f"Kafka {running.version} is already running on {running.bootstrap_servers}: "
                    "use it, or stop it first with 'streamlib broker stop'"
                )
            return self._start(options, progress)

    def stop(self) -> DaemonState | None:
        """Stops the running broker and returns what it was; None if there was none."""
        with self._locked():
            state = self.status()
            if state is not None:
                for process in state.processes():
                    process.stop(_STOP_SECONDS)
            self._clear()
            return state

    def stop_node(self, node_id: int) -> DaemonState:
        """Shuts one node down in good order; the first is 1.

        Raises:
            BrokerError: no broker is running, or it has no such node.
        """
        with self._locked():
            state, process = self._node(node_id)
            process.stop(_STOP_SECONDS)
            return state.looked_at()

    def kill_node(self, node_id: int) -> DaemonState:
        """Ends one node as a crash would; see `stop_node`."""
        with self._locked():
            state, process = self._node(node_id)
            process.kill()
            return state.looked_at()

    def restart_node(self, node_id: int) -> DaemonState:
        """Starts one node on its old data and waits until it is ready; one that runs is stopped first.

        Raises:
            BrokerStartError: it did not get ready.
            BrokerError: see `stop_node`.
        """
        with self._locked():
            state, process = self._node(node_id)
            process.stop(_STOP_SECONDS)
            folder = Path(state.node_dirs[node_id - 1])
            node = Node(folder, classpath(state.version), state.heap, optimise=state.optimise)
            node.start(DetachedProcess.start)
            node.wait(time.monotonic() + START_SECONDS)
            pids = [*state.pids]
            pids[node_id - 1] = node.pid
            state = msgspec.structs.replace(state, pids=pids)
            self._write(state)
            return state.looked_at()

    def _node(self, node_id: int) -> tuple[DaemonState, DetachedProcess]:
        state = self.status()
        if state is None:
            raise BrokerError("no broker is running: 'streamlib broker start --nodes 3' starts one of three nodes")
        if not 1 <= node_id <= len(state.node_dirs):
            raise BrokerError(f"there is no node {node_id}: the broker has nodes 1 to {len(state.node_dirs)}")
        return state, state.processes()[node_id - 1]

    def _start(self, options: BrokerOptions, progress: Progress | None) -> DaemonState:
        self._clear()
        keep_data = options.data_dir is not None
        options = msgspec.structs.replace(options, data_dir=options.data_dir or self._data)
        broker = Broker(options, DetachedProcess.start, progress)
        state = DaemonState(
            version=broker.version,
            bootstrap_servers=broker.bootstrap_servers,
            data_dir=str(broker.data_dir),
            keep_data=keep_data,
            node_dirs=[str(node.folder) for node in broker.nodes],
            heap=options.heap,
            optimise=options.optimise,
        )
        self._write(state)  # before the start, so that `stop` finds the nodes even if this process is killed
        broker.start_all()
        state = msgspec.structs.replace(state, pids=[node.pid for node in broker.nodes])
        self._write(state)
        return state

    @property
    def _file(self) -> Path:
        return self.folder / "state.json"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _write(self, state: DaemonState) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(state), indent=2))
        os.replace(fresh, self._file)

    def _clear(self) -> None:
        self._file.unlink(missing_ok=True)
        shutil.rmtree(self._data, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _state_folder() -> Path:
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "streamlib" / "broker"
