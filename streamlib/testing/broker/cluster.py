"""A Kafka cluster on this machine, for tests and for development."""

from __future__ import annotations

import base64
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import msgspec

from streamlib.testing.broker.errors import BrokerError
from streamlib.testing.broker.jars import DEFAULT_VERSION, Progress, classpath
from streamlib.testing.broker.node import Launch, Node
from streamlib.testing.broker.process import WatchedProcess
from streamlib.testing.broker.properties import HOST, NodePorts, server_properties

DEFAULT_HEAP = "768m"
START_SECONDS = 90.0


class BrokerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to start.

    `port` is the first node's, the next nodes take the next ones; without it any free port is taken.
    `proxied_port` adds a listener whose clients are told to connect to that port (and the next ones), where
    a proxy listens in tests. Without `data_dir` the data is in a temporary folder. `config` holds further
    server properties. `listeners` adds some that encrypt or ask who one is, such as `{"SECURE": "SASL_SSL"}`; the
    keys and users they need are properties (`listener.name.secure...`). `optimise` is for long runs and
    benchmarks: quicker in the end, slower at first.
    """

    version: str = DEFAULT_VERSION
    nodes: int = 1
    port: int | None = None
    proxied_port: int | None = None
    data_dir: Path | None = None
    config: Mapping[str, str] = {}
    listeners: Mapping[str, str] = {}
    heap: str = DEFAULT_HEAP
    optimise: bool = False

    def __post_init__(self) -> None:
        if self.nodes < 1:
            raise BrokerError(f"a cluster needs at least one node, not {self.nodes}")


class Broker:
    """A running cluster of one or more nodes. Close it with `stop()` or use it as a context manager.

    It never outlives the process that started it.
    """

    def __init__(self, options: BrokerOptions, launch: Launch, progress: Progress | None = None) -> None:
        """Prepares the nodes without starting them.

        Raises:
            BrokerError: see `start`.
        """
        jars = classpath(options.version, progress)
        self.version = options.version
        self.ports = _choose_ports(options)
        self._launch = launch
        self._keep_data = options.data_dir is not None
        self.data_dir = (options.data_dir or _temporary_folder()).absolute()
        self.nodes = [
            Node(self.data_dir / f"node-{i}", jars, options.heap, optimise=options.optimise)
            for i in range(options.nodes)
        ]
        self._config = options.config
        self._protocols = options.listeners

    @classmethod
    def start(
        cls,
        version: str = DEFAULT_VERSION,
        *,
        nodes: int = 1,
        port: int | None = None,
        proxied_port: int | None = None,
        data_dir: Path | None = None,
        config: Mapping[str, str] | None = None,
        listeners: Mapping[str, str] | None = None,
        heap: str = DEFAULT_HEAP,
        optimise: bool = False,
        progress: Progress | None = None,
    ) -> Broker:
        """Starts a cluster and returns when it serves clients; see `BrokerOptions` for the options.

        Raises:
            BrokerExtraMissingError: `streamlib[broker]` is not installed.
            JarMismatchError: a jar is not the one in the lock file.
            BrokerStartError: Kafka ended or did not get ready.
            BrokerError: a download failed, a port is taken, or Kafka refuses the settings.
        """
        options = BrokerOptions(
            version=version,
            nodes=nodes,
            port=port,
            proxied_port=proxied_port,
            data_dir=data_dir,
            config=config or {},
            listeners=listeners or {},
            heap=heap,
            optimise=optimise,
        )
        broker = cls(options, WatchedProcess, progress)
        broker.start_all()
        return broker

    @property
    def bootstrap_servers(self) -> str:
        """The nodes' addresses, `host:port,host:port`."""
        return _addresses(ports.client for ports in self.ports)

    def servers(self, listener: str) -> str:
        """The nodes' addresses at one of the further `listeners`.

        Raises:
            BrokerError: it was started without that.
        """
        if listener not in self._protocols:
            raise BrokerError(f"this broker has no listener {listener}: start it with listeners={{...}}")
        return _addresses(ports.others[listener] for ports in self.ports)

    @property
    def proxy_target_port(self) -> int:
        """Where the proxy of the first node has to connect to; `proxy_target_ports` has every node's."""
        return self.proxy_target_ports[0]

    @property
    def proxy_target_ports(self) -> list[int]:
        """For each node, where its proxy has to connect to.

        Raises:
            BrokerError: the cluster was started without `proxied_port`.
        """
        ports = [ports.proxy for ports in self.ports if ports.proxy is not None]
        if not ports:
            raise BrokerError("this broker has no proxied listener: start it with proxied_port")
        return ports

    def start_all(self) -> None:
        """Starts every node; all are stopped again if one fails."""
        with ExitStack() as undo:
            undo.callback(self.stop)
            self._prepare()
            for node in self.nodes:
                node.start(self._launch)
            self.wait()
            undo.pop_all()

    def wait(self) -> None:
        """Returns when every node serves clients."""
        deadline_seconds = time.monotonic() + START_SECONDS
        for node in self.nodes:
            node.wait(deadline_seconds)

    def start_node(self, index: int) -> None:
        """Starts a stopped or killed node (the first is 0) on its old data, and waits until it is ready."""
        self.nodes[index].start(self._launch)
        self.nodes[index].wait(time.monotonic() + START_SECONDS)

    def stop_node(self, index: int) -> None:
        """Shuts one node down in good order: it hands over its partitions first."""
        self.nodes[index].stop()

    def kill_node(self, index: int) -> None:
        """Kills one node as a crash would."""
        self.nodes[index].kill()

    def stop(self) -> None:
        """Ends every node. Data in a temporary folder is thrown away, other data is closed in good order."""
        end = Node.stop if self._keep_data else Node.kill
        _each(end, self.nodes)
        if not self._keep_data:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    def __enter__(self) -> Broker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _prepare(self) -> None:
        cluster_id = _cluster_id(self.data_dir)

        def prepare(node: Node) -> None:
            index = self.nodes.index(node)
            settings = server_properties(index, self.ports, node.folder / "data", self._config, self._protocols)
            node.prepare(settings, cluster_id)

        _each(prepare, self.nodes)


def _each(action: Callable[[Node], None], nodes: list[Node]) -> None:
    """Does it for all nodes side by side; the first error is raised when all are done."""
    with ThreadPoolExecutor(len(nodes)) as pool:
        list(pool.map(action, nodes))


def _temporary_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="temp-streamlib-broker-"))  # guard.py knows it by "temp-"


def _addresses(ports: Iterable[int]) -> str:
    return ",".join(f"{HOST}:{port}" for port in ports)


def _choose_ports(options: BrokerOptions) -> list[NodePorts]:
    with ExitStack() as held:  # all are held until all are chosen, so that none is chosen twice
        return [_node_ports(options, i, held) for i in range(options.nodes)]


def _node_ports(options: BrokerOptions, index: int, held: ExitStack) -> NodePorts:
    client = None if options.port is None else options.port + index
    proxied = options.proxied_port is not None
    return NodePorts(
        client=_hold_port(held, client),
        controller=_hold_port(held),
        proxy=_hold_port(held) if proxied else None,
        advertised=options.proxied_port + index if options.proxied_port is not None else None,
        others={listener: _hold_port(held) for listener in options.listeners},
    )


def _hold_port(held: ExitStack, wanted: int | None = None) -> int:
    """Binds a port, for a moment."""
    listener = held.enter_context(socket.socket())
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, wanted or 0))
    except OSError as error:
        raise BrokerError(f"port {wanted} of {HOST} is taken: choose another one ({error.strerror})") from error
    port: int = listener.getsockname()[1]
    return port


def _cluster_id(data_dir: Path) -> str:
    """The id the data was formatted with, or a new one: a base64 UUID that is never taken for an option."""
    path = data_dir / "cluster.id"
    if path.exists():
        return path.read_text()
    data_dir.mkdir(parents=True, exist_ok=True)
    cluster_id = "S" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
    path.write_text(cluster_id)
    return cluster_id
