"""Each example does with its sample what is expected: without a broker, and by its own commands on one.

On the broker its worker is killed when it has committed a part of the sample.
"""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from streamlib.cli.client import connected, read_committed
from streamlib.errors import KafkaError
from streamlib.kafka.reading import partitions_of
from streamlib.records import FetchedRecord, Record
from streamlib.testing.plugin import KafkaTarget
from tests.examples.products import Products, served
from tests.examples.samples import DATE, DAY_MS, NEXT_DAY_MS, ROOT, SAMPLES, Line, Sample, delete_topics, run

PATIENCE_S = 60

samples = pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES.keys())


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> Iterator[Products]:
    with served(SAMPLES["order_enrichment"].folder) as products:
        monkeypatch.setenv("PRODUCTS_URL", products.url)
        yield products


@samples
def test_sample_leads_to_what_is_expected(sample: Sample, products: Products) -> None:
    found = run(sample)
    assert {topic: sample.result(lines) for topic, lines in found.items()} == {
        topic: sample.result(sample.expected(topic)) for topic in sample.outputs
    }


def test_every_example_is_in_the_table_and_in_the_documentation() -> None:
    files = {path.name for path in (ROOT / "examples").glob("*.py")}
    table = re.findall(r"^\| `(\w+\.py)` \|", (ROOT / "examples" / "README.md").read_text(), re.MULTILINE)
    assert sorted(table) == sorted(files)
    page = (ROOT / "docs" / "pages" / "examples.md").read_text()
    assert {name for name in files if f'--8<-- "examples/{name}' not in page} == set()


class Trial:
    """The commands of one example, run as a reader of its docstring would, but for the worker that is killed."""

    def __init__(self, sample: Sample, servers: str, folder: Path) -> None:
        self.sample = sample
        self._servers = servers
        self._folder = folder
        self._worker: subprocess.Popen[bytes] | None = None

    def command(self, line: str) -> str:
        """A command but `run`."""
        done = subprocess.run(
            ["bash", "-c", line.replace("streamlib", f"{sys.executable} -m streamlib", 1)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"{line}: {done.stderr}{self.log}"
        return done.stdout

    @property
    def log(self) -> str:
        path = self._folder / "log"
        return path.read_text() if path.exists() else ""

    def start(self) -> None:
        """The command that runs the worker."""
        (line,) = (line for line in self.sample.commands if line.startswith("streamlib run "))
        words = [sys.executable, "-m", *shlex.split(line)]
        with (self._folder / "log").open("ab") as log:
            self._worker = subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=log)

    def kill(self) -> None:
        if self._worker is not None:
            self._worker.send_signal(signal.SIGKILL)
            self._worker.wait()
            self._worker = None

    def until_committed(self, topic: str, count: int) -> None:
        """Until so many records of an input are done."""
        deadline = time.monotonic() + PATIENCE_S
        while anyio.run(self._committed, topic) < count:
            assert self._worker is not None
            assert self._worker.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.1)

    async def _committed(self, topic: str) -> int:
        async with connected(self._servers, "test") as connection:
            try:
                offsets = await connection.admin().committed_offsets(self.sample.config.application_id)
            except KafkaError:
                return 0  # the group does not exist yet
        return sum(committed.offset for partition, committed in offsets.items() if partition.topic == topic)

    def produce(self) -> None:
        """The commands that do; of the last one's file the first half, a crash, and the rest."""
        lines = [line for line in self.sample.commands if line.startswith("streamlib produce ")]
        for line in lines[:-1]:
            self.command(line)
        command, file = lines[-1].split(" < ")
        topic = command.split()[2]
        records = (ROOT / file).read_text().splitlines(keepends=True)
        half = len(records) // 2
        for part, total in ((records[:half], half), (records[half:], len(records))):
            (self._folder / "part").write_text("".join(part))
            self.command(f"{command} < {self._folder / 'part'}")
            self.until_committed(topic, total)
            if total == half:
                self.kill()
                self.start()

    def consume(self) -> None:
        """The commands that do, and end."""
        for line in self.sample.commands:
            if line.startswith("streamlib consume ") and "--max" in line:
                self.command(line)

    async def results(self) -> dict[str, Any]:
        """What is in the outputs, all of it, on the day of the sample."""
        found = {}
        async with connected(self._servers, "test") as connection:
            for topic in self.sample.outputs:
                count = (await connection.admin().partition_counts([topic]))[topic]
                records = [each async for each in read_committed(connection, partitions_of(topic, count))]
                found[topic] = self.sample.result(self._on_its_day(topic, record) for record in records)
        return found

    def _on_its_day(self, topic: str, record: FetchedRecord) -> Line:
        yesterday_ms = (time.time_ns() // 1_000_000 // DAY_MS - 1) * DAY_MS
        yesterday = f"{datetime.fromtimestamp(yesterday_ms / 1000, UTC):%Y-%m-%d}"
        value = None if record.value is None else record.value.replace(yesterday.encode(), DATE.encode())
        timestamp = record.timestamp - yesterday_ms + NEXT_DAY_MS - DAY_MS
        return self.sample.line(topic, Record(record.key, value, timestamp, ()))


@pytest.fixture
def trial(
    sample: Sample, kafka_broker: KafkaTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Trial]:
    if kafka_broker.broker is None:
        pytest.skip("examples have names of their own, and a cluster that was given by address may know them")
    monkeypatch.chdir(ROOT)
    settings = {"BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers, "STATE_DIR": str(tmp_path / "state")}
    for name, value in (settings | {"GROUP_INSTANCE_ID": "w"}).items():  # static: back at once after a crash
        monkeypatch.setenv(f"STREAMLIB_{name}", value)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))  # no broker of `streamlib broker start`
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    trial = Trial(sample, kafka_broker.bootstrap_servers, tmp_path)
    yield trial
    trial.kill()
    (made,) = (line for line in sample.commands if line.startswith("streamlib broker topic "))
    delete_topics(made, kafka_broker.bootstrap_servers)


@samples
def test_commands_of_the_docstring_work_and_a_crash_changes_nothing(
    sample: Sample, trial: Trial, products: Products
) -> None:
    (topics,) = (line for line in sample.commands if line.startswith("streamlib broker topic "))
    trial.command(topics)
    trial.start()
    trial.produce()
    expected = {topic: sample.result(sample.expected(topic)) for topic in sample.outputs}
    deadline = time.monotonic() + PATIENCE_S
    while (found := anyio.run(trial.results)) != expected and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found == expected, trial.log
    trial.consume()
