"""The samples of examples: input and expected output in `examples/data`, and the commands of their docstrings."""

from __future__ import annotations

import importlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import msgspec

from streamlib import StreamsConfig
from streamlib.cli.client import connected
from streamlib.cli.records.forms import Form, as_json
from streamlib.records import OutRecord, Record
from streamlib.testing import TopologyTestDriver
from streamlib.topology.topology import Topology

ROOT = Path(__file__).parents[2]
DATE = "2026-01-05"
"""The day of all samples."""
NEXT_DAY_MS = 1_767_657_600_000
DAY_MS = 86_400_000


class Line(msgspec.Struct):
    """A record as it is in samples; values are compared as text, with the day of the sample in place of another."""

    key: Any
    value: Any
    timestamp: datetime

    @property
    def timestamp_ms(self) -> int:
        return round(self.timestamp.timestamp() * 1000)


class Sample(msgspec.Struct, frozen=True):
    """One example. `inputs` are files by topic, in the order in which they are written."""

    name: str
    inputs: Mapping[str, str]
    outputs: Sequence[str]
    is_table: bool = False  # only the last value of each key is certain
    key: Form = Form.STR
    values: Mapping[str, Form] = {}  # of outputs that are not JSON

    @property
    def folder(self) -> Path:
        return ROOT / "examples" / "data" / self.name

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(f"examples.{self.name}")

    def topology(self) -> Topology:
        made = self.module.topology().build()
        assert isinstance(made, Topology)
        return made

    @property
    def config(self) -> StreamsConfig:
        return StreamsConfig.load(self.module.config, env={})

    @property
    def commands(self) -> list[str]:
        """The literal commands of the docstring."""
        return re.findall(r"^    ((?:streamlib|python) .+)$", self.module.__doc__ or "", re.MULTILINE)

    def records(self, topic: str) -> list[OutRecord]:
        lines = _read(self.folder / self.inputs[topic])
        return [(self._raw(line.key), self._raw(line.value), line.timestamp_ms, ()) for line in lines]

    @staticmethod
    def _raw(value: Any) -> bytes | None:
        if value is None:
            return None
        return value.encode() if isinstance(value, str) else msgspec.json.encode(value)

    def expected(self, topic: str) -> list[Line]:
        return _read(self.folder / "expected" / f"{topic}.jsonl")

    def line(self, topic: str, record: Record[bytes | None, bytes | None]) -> Line:
        """A record of an output."""
        value = as_json("value", self.values.get(topic, Form.JSON), record.value)["value"]
        key = as_json("key", self.key, record.key)["key"]
        return Line(key, value, datetime.fromtimestamp(record.timestamp / 1000, UTC))

    def driver(self) -> TopologyTestDriver:
        return TopologyTestDriver(self.topology(), config=self.config, wall_clock_start_ms=NEXT_DAY_MS)

    def result(self, lines: Iterable[Line]) -> Any:
        """What does not depend on how the tasks of several partitions took turns: the values by key."""
        by_key: dict[str, list[Any]] = defaultdict(list)
        for line in lines:
            by_key[str(line.key)].append(line.value if self.is_table else (line.value, line.timestamp))
        if not self.is_table:
            return by_key
        return {key: values[-1] for key, values in by_key.items() if values[-1] is not None}


SAMPLES = {
    sample.name: sample
    for sample in (
        Sample(
            "fraud_detection",
            {"customers": "customers.jsonl", "card-payments": "card-payments.jsonl"},
            ["fraud-alerts"],
        ),
        Sample("sessions", {"clicks": "clicks.jsonl"}, ["visits"]),
        Sample("order_enrichment", {"web-orders": "web-orders.jsonl"}, ["completed-orders", "orders-without-product"]),
        Sample(
            "cdc_join",
            {"shop.db.customers": "customers.jsonl", "shop.db.orders": "orders.jsonl"},
            ["orders-with-customers"],
            is_table=True,
            key=Form.JSON,
        ),
        Sample(
            "deduplication",
            {"notices": "notices.jsonl"},
            ["notices-once", "balances"],
            values={"balances": Form.INT},
        ),
        Sample("sensors", {"readings": "readings.jsonl"}, ["minutes", "halls"]),
        Sample("leaderboard", {"scores": "scores.jsonl"}, ["leaderboards"], is_table=True),
    )
}


def delete_topics(command: str, servers: str) -> None:
    """Those that `streamlib broker topic ...` has made: examples share names, and tests share a broker."""
    names = command.removeprefix("streamlib broker topic ").partition(" --")[0].split()

    async def delete() -> None:
        async with connected(servers, "test") as connection:
            await connection.admin().delete_topics(names)

    anyio.run(delete)


def run(sample: Sample) -> dict[str, list[Line]]:
    """What the outputs have, without a broker."""
    with sample.driver() as driver:
        for topic in sample.inputs:
            written = driver.input_topic(topic)
            for key, value, timestamp, headers in sample.records(topic):
                written.pipe_input(key, value, timestamp, headers)
        return {
            topic: [sample.line(topic, record) for record in driver.output_topic(topic).read_records()]
            for topic in sample.outputs
        }


def _read(path: Path) -> list[Line]:
    return [msgspec.json.decode(line, type=Line) for line in path.read_bytes().splitlines()]
