"""Names of nodes, stores and topics, and the description, are those of Kafka Streams 4.3.1, to the character."""

from __future__ import annotations

import json

import pytest

from tests.conformance import topologies
from tests.conformance.test_conformance import CASES


@pytest.mark.parametrize("name", sorted(topologies.TOPOLOGIES))
def test_is_described_as_by_kafka_streams(name: str) -> None:
    recorded = json.loads((CASES / f"{name}.json").read_text())
    assert topologies.TOPOLOGIES[name]().describe() == recorded["describe"]
