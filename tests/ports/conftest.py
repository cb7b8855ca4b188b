"""The kinds of cluster this suite runs on: the model as Kafka 4 and as Kafka 3, and a broker of each version."""

from __future__ import annotations

from functools import partial

import msgspec
import pytest

from streamlib.testing.plugin import KafkaTargets, kafka_versions
from tests.ports.broker import run_on_broker
from tests.ports.everywhere import ONLY_ON_BROKERS, Run
from tests.ports.model import TRANSACTION_VERSIONS, run_on_model


class Model(msgspec.Struct, frozen=True):
    transaction_version: int


class BrokerOf(msgspec.Struct, frozen=True):
    kafka_version: str


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{ONLY_ON_BROKERS}(reason): what the model does not do")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "run" not in metafunc.fixturenames:
        return
    models = [pytest.param(Model(version), id=f"model-{version}") for version in TRANSACTION_VERSIONS]
    brokers = [
        pytest.param(BrokerOf(version), id=version, marks=pytest.mark.broker)
        for version in kafka_versions(metafunc.config)
    ]
    only = metafunc.definition.get_closest_marker(ONLY_ON_BROKERS)
    metafunc.parametrize("run", brokers if only else [*models, *brokers], indirect=True, scope="session")


@pytest.fixture(scope="session")
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a test's body on a cluster of the kind asked for; brokers are started for the first that needs them."""
    match request.param:
        case Model(transaction_version):
            return partial(run_on_model, transaction_version)
        case BrokerOf(kafka_version):
            start: KafkaTargets = request.getfixturevalue("kafka_brokers")
            return partial(run_on_broker, start(kafka_version))
    raise AssertionError(request.param)
