"""Names of nodes, stores and topics, and the description, are those of Kafka Streams 4.3.1, to the character."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conformance.test_conformance import builder_for, ported


def test_is_described_as_by_kafka_streams(case_file: Path) -> None:
    recorded = json.loads(case_file.read_text())
    builder = builder_for(recorded)
    ported(recorded["topology"])(builder)
    assert builder.build().describe() == recorded["describe"]
