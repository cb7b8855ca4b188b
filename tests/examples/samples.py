"""The samples of examples: input and expected output in `examples/data`, and the commands of their docstrings."""

from __future__ import annotations

import importlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from streamlib import StreamsConfig
from streamlib.cli.records.lines import Form, Line, line_of
from streamlib.records import OutRecord
from streamlib.testing import TopologyTestDriver
from streamlib.topology.topology import Topology

ROOT = Path(__file__).parents[2]
DATE = "2026-01-05"
"""The day of all samples."""
NEXT_DAY_MS = 1_767_657_600_000


class Sample(msgspec.Struct, frozen=True):
    """One example. `inputs` are files by topic, in the order in which they are written."""

    name: str
    inputs: Mapping[str, str]
    outputs: Sequence[str]
    is_table: bool = False  # only the last value of each key is certain
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
        lines = (self.folder / self.inputs[topic]).read_bytes().splitlines()
        return [Line.read(line).record(Form.ANY, Form.ANY, 0) for line in lines]

    def expected(self, topic: str) -> list[dict[str, Any]]:
        return decoded((self.folder / "expected" / f"{topic}.jsonl").read_bytes())

    def driver(self) -> TopologyTestDriver:
        return TopologyTestDriver(self.topology(), config=self.config, wall_clock_start_ms=NEXT_DAY_MS)

    def result(self, topic: str, lines: list[dict[str, Any]]) -> Any:
        """What does not depend on how the tasks of several partitions took turns: the values by key."""
        by_key: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for line in lines:
            by_key[msgspec.json.encode(line["key"]).decode()].append(line)
        if not self.is_table:
            return by_key
        return {key: last["value"] for key, each in by_key.items() if (last := each[-1])["value"] is not None}


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
            {"shop.public.customers": "customers.jsonl", "shop.public.orders": "orders.jsonl"},
            ["orders-with-customers"],
            is_table=True,
        ),
        Sample(
            "deduplication",
            {"notices": "notices.jsonl"},
            ["notices-once", "balances"],
            values={"balances": Form.INT},
        ),
        Sample("sensors", {"readings": "readings.jsonl"}, ["minutes", "halls"]),
    )
}


def run(sample: Sample) -> dict[str, list[dict[str, Any]]]:
    """What the outputs have, without a broker."""
    with sample.driver() as driver:
        for topic in sample.inputs:
            written = driver.input_topic(topic)
            for key, value, timestamp, headers in sample.records(topic):
                written.pipe_input(key, value, timestamp, headers)
        return {topic: decoded(_lines(driver, topic, sample.values.get(topic, Form.ANY))) for topic in sample.outputs}


def _lines(driver: TopologyTestDriver, topic: str, value: Form) -> bytes:
    records = driver.output_topic(topic).read_records()
    return b"\n".join(line_of((r.key, r.value, r.timestamp, r.headers), Form.ANY, value) for r in records)


def decoded(lines: bytes) -> list[dict[str, Any]]:
    """Lines of JSON without what differs from run to run: the headers of dead letters."""
    found = [msgspec.json.decode(line) for line in lines.splitlines()]
    return [{name: told for name, told in each.items() if name != "headers"} for each in found]
