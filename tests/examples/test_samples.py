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
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from typer.testing import CliRunner

from streamlib.cli.client import connected
from streamlib.cli.main import make_app
from streamlib.errors import KafkaError
from streamlib.testing.plugin import KafkaTarget
from tests.examples.products import Products, served
from tests.examples.samples import DATE, ROOT, SAMPLES, Sample, decoded, run

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
    assert {topic: sample.result(topic, lines) for topic, lines in found.items()} == {
        topic: sample.result(topic, sample.expected(topic)) for topic in sample.outputs
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
        self._app = make_app(["broker", "produce", "consume"])

    def command(self, line: str) -> bytes:
        """A command but `run`, in this process."""
        words = shlex.split(line)
        assert words[0] == "streamlib"
        done = CliRunner().invoke(self._app, words[1:])
        assert done.exit_code == 0, f"{line}: {done.output}{self.log}"
        return done.stdout_bytes

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
        _, _, topic, file, *rest = shlex.split(lines[-1])
        records = (ROOT / file).read_text().splitlines(keepends=True)
        half = len(records) // 2
        for part in (records[:half], records[half:]):
            (self._folder / "part").write_text("".join(part))
            self.command(shlex.join(["streamlib", "produce", topic, str(self._folder / "part"), *rest]))
            if part[0] == records[0]:
                self.until_committed(topic, half)
                self.kill()
                self.start()
        self.until_committed(topic, len(records))

    def consumed(self) -> dict[str, Any]:
        """What is in the outputs, on the day of the sample, after the commands that wait for so many."""
        found = {}
        for line in self.sample.commands:
            if line.startswith("streamlib consume "):
                endless = line.replace(" --follow", "")
                self.command(endless)
                whole = re.sub(r" --count \d+", "", endless)  # more than that would be too much
                found[shlex.split(line)[2]] = self._printed(whole)
        return {topic: self.sample.result(topic, lines) for topic, lines in found.items()}

    def _printed(self, line: str) -> list[dict[str, Any]]:
        yesterday = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"
        return decoded(self.command(line).replace(yesterday.encode(), DATE.encode()))


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
    for command in ("produce", "consume"):
        monkeypatch.setattr(f"streamlib.cli.records.{command}.set_up_logs", lambda level, console: None)
    trial = Trial(sample, kafka_broker.bootstrap_servers, tmp_path)
    yield trial
    trial.kill()


@samples
def test_commands_of_the_docstring_work_and_a_crash_changes_nothing(
    sample: Sample, trial: Trial, products: Products
) -> None:
    (topics,) = (line for line in sample.commands if line.startswith("streamlib broker topic "))
    trial.command(topics)
    trial.start()
    trial.produce()
    expected = {topic: sample.result(topic, sample.expected(topic)) for topic in sample.outputs}
    deadline = time.monotonic() + PATIENCE_S
    while (found := trial.consumed()) != expected and time.monotonic() < deadline:
        time.sleep(0.2)
    assert found == expected, trial.log
