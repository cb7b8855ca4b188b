"""What Kafka Streams 4.3.1 did with the same topology and the same records, ours does too.

A case file has scripts of records and, after each single one, what Kafka Streams emitted; and the stores at the end.
`TOPOLOGIES` has the topology of each case file under its name. `--corpus DIR` compares with another folder of files.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from streamlib import StreamsBuilder
from streamlib.errors import StreamsError
from streamlib.serdes import Serde, Serdes, serde_for
from streamlib.testing import TestOutputTopic, TopologyTestDriver
from tests.conformance.topologies import TOPOLOGIES


def test_emits_what_kafka_streams_emitted(case_file: Path) -> None:
    recorded = json.loads(case_file.read_text())
    make_topology = ported(recorded["topology"])
    for case in recorded["cases"]:
        Replay(recorded, make_topology).run(case)


def ported(name: str) -> Callable[[StreamsBuilder], None]:
    if name not in TOPOLOGIES:
        pytest.skip(f"{name} is not ported yet")
    return TOPOLOGIES[name]


class Replay:
    """One case on a fresh driver."""

    def __init__(self, recorded: dict[str, Any], steps: Callable[[StreamsBuilder], None]) -> None:
        self.recorded = recorded
        builder = StreamsBuilder()
        steps(builder)
        self.driver = TopologyTestDriver(
            builder.build(), application_id="app", wall_clock_start_ms=recorded["wall_clock_start_ms"]
        )
        self.inputs = {
            topic: (serde(types["key"]), serde(types["value"])) for topic, types in recorded["inputs"].items()
        }
        self.outputs: dict[str, TestOutputTopic[Any, Any]] = {
            topic: self.driver.output_topic(topic, key=serde(types["key"]), value=serde(types["value"]))
            for topic, types in recorded["outputs"].items()
        }

    def run(self, case: dict[str, Any]) -> None:
        failed = False
        for number, step in enumerate(case["steps"]):
            where = f"seed {case['seed']}, step {number}: {step}"
            failed = "error" in step
            if failed:
                with pytest.raises(StreamsError):
                    self.do(step)
            else:
                self.do(step)
            assert self.emitted() == self.expected(step), where
        if not failed:
            for store, rows in case["final_stores"].items():
                assert self.rows(store) == rows, f"seed {case['seed']}, store {store}"
        self.driver.close()

    def do(self, step: dict[str, Any]) -> None:
        if "advance_wall_clock_ms" in step:
            self.driver.advance_wall_clock(timedelta(milliseconds=step["advance_wall_clock_ms"]))
            return
        topic, key, value, timestamp, *rest = step["in"]
        key_serde, value_serde = self.inputs[topic]
        headers = tuple((name, None if text is None else text.encode()) for name, text in (rest[0] if rest else ()))
        self.driver.pipe(topic, (encoded(key, key_serde), encoded(value, value_serde), timestamp, headers))

    def emitted(self) -> dict[str, list[Any]]:
        """By topic: with topics apart the order among them does not count, which `expected` sees to."""
        return {topic: [row(record) for record in out.read_records()] for topic, out in self.outputs.items()}

    def expected(self, step: dict[str, Any]) -> dict[str, list[Any]]:
        by_topic: dict[str, list[Any]] = defaultdict(list)
        for topic, *record in step["out"]:
            by_topic[topic].append(record)
        return {topic: by_topic[topic] for topic in self.outputs}

    def rows(self, store: str) -> list[list[Any]]:
        kind = next(each["kind"] for each in self.recorded["stores"] if each["name"] == store)
        reader = self.driver.store(store)
        if kind == "timestamped_key_value":
            rows = [[key, stored.value, stored.timestamp] for key, stored in reader.rows()]
        else:
            rows = [[key, value] for key, value in reader.items()]
        return sorted(rows, key=lambda each: each[0])


def row(record: Any) -> list[Any]:
    """A record as the case files write it."""
    fields = [record.key, record.value, record.timestamp]
    if record.headers:
        fields.append([[name, None if value is None else value.decode()] for name, value in record.headers])
    return fields


def encoded(value: Any, kind: Serde[Any]) -> bytes | None:
    """An input value: none, raw bytes, or what its type makes of it."""
    if value is None:
        return None
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else kind.encode(value)


def serde(name: str) -> Any:
    return {
        "string": serde_for(str),
        "long": serde_for(int),
        "int": Serdes.integer(),
        "bytes": serde_for(bytes),
        "null": serde_for(bytes),
    }[name]
