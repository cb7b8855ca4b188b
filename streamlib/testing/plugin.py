"""Pytest plugin: a real Kafka broker for tests, started once for a session.

    def test_my_topology(kafka_broker, unique_name):
        topic = unique_name("orders")
        app = KafkaStreams(topology, StreamsConfig(bootstrap_servers=kafka_broker.bootstrap_servers, ...))

`kafka_broker` is the broker of the first version; a test that asks for `kafka` runs once for each version.
Versions come from `--kafka-version` (may be repeated), else from the `kafka_versions` setting. With
`--bootstrap-servers` both are the cluster given there, and none is started. `kafka_cluster` is a cluster of three
nodes, for tests that stop and start some of them. Tests that use them get the marker `broker`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec
import pytest

if TYPE_CHECKING:
    from streamlib.testing.broker import Broker

_DEFAULT_VERSION = "4.3.1"
_CLUSTER_NODES = 3
_FIXTURES = {"kafka", "kafka_broker", "kafka_brokers", "kafka_cluster"}


class KafkaTarget(msgspec.Struct, frozen=True):
    """The cluster that a test runs against; version and broker are None if it was given by address."""

    bootstrap_servers: str
    version: str | None = None
    broker: Broker | None = None


KafkaTargets = Callable[[str], KafkaTarget]
"""From a Kafka version to a running cluster of it."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("streamlib")
    group.addoption("--bootstrap-servers", metavar="HOST:PORT", help="run against this Kafka, start none")
    group.addoption(
        "--kafka-version",
        action="append",
        metavar="VERSION",
        help=f"Kafka version to start; may be repeated (default: kafka_versions, {_DEFAULT_VERSION})",
    )
    parser.addini("kafka_versions", "Kafka versions to test with", type="args", default=[_DEFAULT_VERSION])


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "broker: needs a real Kafka broker")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kafka" in metafunc.fixturenames:
        metafunc.parametrize("kafka", kafka_versions(metafunc.config), indirect=True, scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("broker")


@pytest.fixture(scope="session")
def kafka_brokers(request: pytest.FixtureRequest) -> Iterator[KafkaTargets]:
    """A cluster of any version: started at the first call, kept until the session ends."""
    address = request.config.getoption("--bootstrap-servers")
    if address is not None:
        yield lambda version: KafkaTarget(address)
        return
    targets: dict[str, KafkaTarget] = {}

    def target(version: str) -> KafkaTarget:
        if version not in targets:
            targets[version] = _start(version)
        return targets[version]

    yield target
    for started in targets.values():
        if started.broker is not None:
            started.broker.stop()


@pytest.fixture(scope="session")
def kafka_broker(request: pytest.FixtureRequest, kafka_brokers: KafkaTargets) -> KafkaTarget:
    """A cluster of the first version that is asked for."""
    return kafka_brokers(kafka_versions(request.config)[0])


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest, kafka_brokers: KafkaTargets) -> KafkaTarget:
    """A cluster of each version in turn."""
    version: str = request.param
    return kafka_brokers(version)


@pytest.fixture(scope="module")
def kafka_cluster(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """Three nodes of the first version, where records have three replicas and a write needs two of them.

    A test that stops or kills a node (`stop_node`, `kill_node`) starts it again before it ends (`start_node`).
    """
    if request.config.getoption("--bootstrap-servers") is not None:
        pytest.skip("the nodes of a cluster that was given by address are not ours to stop")
    from streamlib.testing.broker import Broker

    with Broker.start(kafka_versions(request.config)[0], nodes=_CLUSTER_NODES, heap="320m") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def unique_name() -> Callable[[str], str]:
    """Names for topics, groups and applications that no other test or run has used."""
    return lambda prefix: f"{prefix}-{uuid.uuid4().hex[:12]}"


def kafka_versions(config: pytest.Config) -> list[str]:
    """The versions that tests run on; one that is called "given" if the cluster is given by address."""
    if config.getoption("--bootstrap-servers") is not None:
        return ["given"]
    versions: list[str] = config.getoption("--kafka-version") or config.getini("kafka_versions")
    return versions


def _start(version: str) -> KafkaTarget:
    from streamlib.testing.broker import Broker

    broker = Broker.start(version)
    return KafkaTarget(broker.bootstrap_servers, version, broker)
