"""Examples in docstrings are collected in the library; in here, only what is called a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from streamlib.testing.plugin import KafkaTarget, kafka_versions

hypothesis.settings.register_profile("tests", deadline=None)  # how long an example takes says nothing on a busy machine
hypothesis.settings.load_profile("tests")

CORPUS = Path(__file__).parents[2] / "shared" / "conformance" / "cases"

# How long an example takes says more about what else the machine does.
hypothesis.settings.register_profile("streamlib", deadline=None)
hypothesis.settings.load_profile("streamlib")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--corpus", type=Path, default=CORPUS, help="a folder of conformance cases (tests/conformance)")
    parser.addoption("--all-errors", action="store_true", help="every error at every request (tests/errors)")
    parser.addoption("--simulation-seeds", type=int, default=1_000, help="how many (tests/simulation)")
    parser.addoption("--moves", type=int, default=8, help="of workers that come and go (tests/exactly_once)")
    parser.addoption("--all-pythons", action="store_true", help="those uv finds, from 3.11 on (tests/packaging)")
    parser.addoption("--all-on-a-broker", action="store_true", help="run every conformance topology on a real broker")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """`--doctest-modules` would import every helper, programs for subprocesses among them."""
    is_helper = collection_path.suffix == ".py" and not collection_path.name.startswith("test_")
    return True if is_helper else None


@pytest.fixture(scope="session")
def streams_kafka(request: pytest.FixtureRequest) -> Iterator[KafkaTarget]:
    """A broker that forgets members of streams groups (KIP-1071) after 4 s: by default it is 45 s, and never less."""
    from streamlib.testing.broker import Broker

    settings = {
        "group.streams.min.session.timeout.ms": "4000",
        "group.streams.session.timeout.ms": "4000",
        "group.streams.min.heartbeat.interval.ms": "500",
        "group.streams.heartbeat.interval.ms": "500",
        "group.streams.initial.rebalance.delay.ms": "0",
        "group.streams.assignment.interval.ms": "0",
    }
    known = (version for version in kafka_versions(request.config) if not version.startswith(("2.", "3.")))
    if (version := next(known, None)) is None:
        pytest.skip("none of the chosen versions has streams groups")
    if version == "given":
        pytest.skip("the settings of a cluster that was given by address are not ours to choose")
    with Broker.start(version, config=settings) as broker:
        yield KafkaTarget(broker.bootstrap_servers, version, broker)
