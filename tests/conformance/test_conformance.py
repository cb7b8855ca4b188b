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

from streamlib import StreamsBuilder, StreamsConfig
from streamlib.errors import StreamsError
from streamlib.serdes import Serde, Serdes, serde_for
from streamlib.testing import StoreReader, TestOutputTopic, TopologyTestDriver
from streamlib.windows import Windowed, session_windowed, time_windowed
from tests.conformance.topologies import TOPOLOGIES

NOT_RECORDED = {f"__streams.errors.{name}" for name in ("exception", "message", "stacktrace", "node", "application")}
"""Headers of dead letters that cannot be the same in two languages, and those that Kafka Streams does not have."""

LOSES_NOTHING = {"hopping_emit_on_close_short_retention": "hopping_emit_on_close"}
"""Topologies of which Kafka Streams loses results and ours does not (docs: "Where we differ from Kafka Streams"), and
those that are the same but that it loses none of: what they emit for the same records is what is to be emitted."""


def test_emits_what_kafka_streams_emitted(case_file: Path) -> None:
    recorded = json.loads(case_file.read_text())
    make_topology = ported(recorded["topology"])
    for case in recorded["cases"]:
        Replay(recorded, make_topology).run(with_what_is_lost(recorded, case))


def with_what_is_lost(recorded: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
    """The case with the results that Kafka Streams loses put in; other cases as they are (`LOSES_NOTHING`)."""
    complete = LOSES_NOTHING.get(recorded["topology"])
    if complete is None:
        return case
    assert "quirk" in recorded, "only what is known to be a fault of Kafka Streams may differ"
    replay, steps = Replay(recorded, ported(complete)), []
    for step in case["steps"]:
        replay.do(step)
        emitted = [[topic, *record] for topic, records in replay.emitted().items() for record in records]
        others = iter(emitted)
        assert all(record in others for record in step["out"]), f"not all of {step} is in {emitted}, in this order"
        steps.append({**step, "out": emitted})
    replay.driver.close()
    return {**case, "steps": steps}


def ported(name: str) -> Callable[[StreamsBuilder], None]:
    if name not in TOPOLOGIES:
        pytest.skip(f"{name} is not ported yet")
    return TOPOLOGIES[name]


def builder_for(recorded: dict[str, Any]) -> StreamsBuilder:
    """What Kafka Streams has among the settings of an application, ours has where the topology is built."""
    return StreamsBuilder(optimize=recorded["config"].get("topology.optimization") == "all")


def config_for(recorded: dict[str, Any]) -> StreamsConfig:
    """The settings of the case. Timestamp extractors are ported with the topologies."""
    config = recorded["config"]
    policies = {
        None: "fail",
        "LogAndContinueExceptionHandler": "skip",
        "LogAndContinueProcessingExceptionHandler": "skip",
    }
    return StreamsConfig.load(
        {
            "application_id": "app",
            "on_deserialization_error": policies[config.get("deserialization.exception.handler")],
            "on_processing_error": policies[config.get("processing.exception.handler")],
            "errors_dead_letter_queue_topic_name": config.get("errors.dead.letter.queue.topic.name"),
            "statestore_cache_max_bytes": config.get("statestore.cache.max.bytes", 0),
        },
        env={},
    )


class Replay:
    """One case on a fresh driver."""

    def __init__(self, recorded: dict[str, Any], steps: Callable[[StreamsBuilder], None]) -> None:
        self.recorded = recorded
        self.keys: set[Any] = set()  # of the records so far
        self.times: set[int] = set()  # that they have or name
        builder = builder_for(recorded)
        steps(builder)
        self.driver = TopologyTestDriver(
            builder.build(), config=config_for(recorded), wall_clock_start_ms=recorded["wall_clock_start_ms"]
        )
        self.inputs = {
            topic: (serde(types["key"]), serde(types["value"])) for topic, types in recorded["inputs"].items()
        }
        self.outputs: dict[str, TestOutputTopic[Any, Any]] = {
            topic: self.driver.output_topic(topic, key=output_serde(types), value=serde(types["value"]))
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
        self.keys.add(key)
        self.times |= {timestamp, *times_named_in(value)}
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
        if kind.startswith("timestamped_"):
            rows = [[key, stored.value, stored.timestamp] for key, stored in reader.rows()]
        elif kind == "versioned":
            rows = [row for key in self.keys - {None} for row in self.versions(reader, key)]
        else:
            rows = [[key, value] for key, value in reader.items()]
        rows.sort(key=lambda each: each[0])
        return [[plain_key(key), *stored] for key, *stored in rows]

    def versions(self, reader: StoreReader, key: Any) -> list[list[Any]]:
        """What was recorded of a versioned store: what as-of reads find at the times that the input had or named."""
        rows: list[list[Any]] = []
        for time in sorted(self.times):
            found = reader.as_of(key, time)
            if found is not None:
                row = [key, found.value, found.timestamp]
                rows += [] if row in rows else [row]
            elif rows and rows[-1][1] is not None:
                rows.append([key, None, time])
        return rows


def row(record: Any) -> list[Any]:
    """A record as the case files write it."""
    value = {"hex": record.value.hex()} if isinstance(record.value, bytes) else record.value
    fields = [plain_key(record.key), value, record.timestamp]
    headers = [(name, value) for name, value in record.headers if name not in NOT_RECORDED]
    if headers:
        fields.append([[name, None if value is None else value.decode()] for name, value in headers])
    return fields


def times_named_in(value: Any) -> list[int]:
    """The times in commands such as `asof 1002003`."""
    words = value.split() if isinstance(value, str) else ()
    return [int(word) for word in words if word.isdigit()]


def plain_key(key: Any) -> Any:
    return {"key": key.key, "start": key.start, "end": key.end} if isinstance(key, Windowed) else key


def encoded(value: Any, kind: Serde[Any]) -> bytes | None:
    """An input value: none, raw bytes, or what its type makes of it."""
    if value is None:
        return None
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else kind.encode(value)


def output_serde(types: dict[str, Any]) -> Serde[Any]:
    """The serde of an output topic's keys."""
    if not types["windowed"]:
        return serde(types["key"])
    inner = serde(types["key"])
    return time_windowed(inner, types["window_size_ms"]) if types["window_kind"] == "time" else session_windowed(inner)


def serde(name: str) -> Serde[Any]:
    return {
        "string": serde_for(str),
        "long": serde_for(int),
        "int": Serdes.integer(),
        "bytes": serde_for(bytes),
        "null": serde_for(bytes),
    }[name]
