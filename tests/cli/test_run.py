"""`streamlib run` as a user runs it, on a real broker."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from streamlib.cli.client import connected, read_committed, text_record
from streamlib.cli.demo.lines import text_lines
from streamlib.cli.demo.verdict import Verdict, judge
from streamlib.kafka.connection import Connection
from streamlib.kafka.reading import partitions_of
from streamlib.testing.plugin import KafkaTarget
from tests.cli.conftest import MODULE, Command, Write

EXAMPLES = Path(__file__).parents[2] / "examples"
LINES = list(text_lines(200))


class Setting(msgspec.Struct, frozen=True):
    """An example in a folder of its own, with topics of its own."""

    kafka: KafkaTarget
    folder: Path
    connection: Connection
    source: str
    sink: str

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """`streamlib run` on the example; nothing of it is left behind."""
        command = [sys.executable, "-m", "streamlib", "run", "example.py", *arguments]
        command += ["--bootstrap-servers", self.kafka.bootstrap_servers, "--application-id", f"{self.source}-app"]
        command += ["--set", f"state_dir={self.folder / 'state'}"]
        with (self.folder / "out").open("wb") as out, (self.folder / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=self.folder, stdout=out, stderr=log)
        try:
            yield process
        finally:
            process.kill()  # its workers die with it
            process.wait()

    @property
    def log(self) -> list[str]:
        """What the command has written to standard error."""
        return (self.folder / "log").read_text().splitlines()

    async def produce(self, values: list[bytes]) -> None:
        producer = self.connection.producer(None)
        await producer.init()
        partitions = partitions_of(self.source, 4)
        for number, value in enumerate(values):
            producer.send(partitions[number % 4], [text_record(None, value)])
        await producer.flush()
        await producer.close()

    async def verdict(self) -> Verdict:
        """Once as many counts are there as words."""
        expected = sum(len(line.split()) for line in LINES)
        with anyio.fail_after(60):
            while True:
                seen: dict[str, list[int]] = {}
                async for record in read_committed(self.connection, partitions_of(self.sink, 4)):
                    counts = seen.setdefault((record.key or b"").decode(), [])
                    counts.append(int.from_bytes(record.value or b"", "big"))
                if sum(map(len, seen.values())) >= expected:
                    return judge(LINES, seen)
                await anyio.sleep(0.2)


@asynccontextmanager
async def setting(
    kafka: KafkaTarget, folder: Path, name: str, example: str, source: str, sink: str
) -> AsyncIterator[Setting]:
    text = (EXAMPLES / example).read_text()
    text = text.replace(f'"{source}"', f'"{name}-{source}"').replace(f'"{sink}")', f'"{name}-{sink}")')
    (folder / "example.py").write_text(text)
    async with connected(kafka.bootstrap_servers, "test") as connection:
        for topic in (source, sink):
            await connection.admin().create_topic(f"{name}-{topic}", 4)
        yield Setting(kafka, folder, connection, f"{name}-{source}", f"{name}-{sink}")


@pytest.fixture
async def word_count(
    kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path
) -> AsyncIterator[Setting]:
    async with setting(kafka_broker, tmp_path, unique_name("cli"), "word_count.py", "lines", "word-counts") as made:
        yield made


@pytest.fixture
async def revenue(
    kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path
) -> AsyncIterator[Setting]:
    async with setting(kafka_broker, tmp_path, unique_name("cli"), "revenue.py", "orders", "revenue") as made:
        yield made


TRACING = """
import os
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from streamlib.monitoring.tracing import OpenTelemetryTracing

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=open(f"spans-{os.getpid()}", "w"))))
tracing = OpenTelemetryTracing(provider)
"""


async def test_two_workers_count_words_and_leave_nothing_behind(word_count: Setting) -> None:
    with (word_count.folder / "example.py").open("a") as example:
        example.write(TRACING)
    with word_count.running("--workers", "2", "--json") as process:
        await word_count.produce([line.encode() for line in LINES])
        assert (await word_count.verdict()).holds
        workers = psutil.Process(process.pid).children()
        assert len(workers) == 2
        process.send_signal(signal.SIGINT)
        code = await anyio.to_thread.run_sync(process.wait, 30)
    assert code == 0, word_count.log
    assert not any(worker.is_running() for worker in workers)
    told = msgspec.json.decode((word_count.folder / "out").read_bytes().splitlines()[-1])
    assert [each["worker"] for each in told["workers"]] == [1, 2]
    assert told["records_in"] >= len(LINES)
    spans = [path.read_text() for path in word_count.folder.glob("spans-*")]
    assert sum(f'"name": "send {word_count.sink}"' in each for each in spans) == 2, "each worker traces"


async def test_each_worker_shows_its_metrics_and_health_at_a_port_of_its_own(word_count: Setting) -> None:
    port = two_free_ports()
    with word_count.running("--workers", "2", "--metrics", str(port)) as process:
        await word_count.produce([line.encode() for line in LINES])
        assert (await word_count.verdict()).holds
        with anyio.fail_after(30):
            while [await answer(each, "/ready") for each in (port, port + 1)] != [200, 200]:
                await anyio.sleep(0.2)
        process_total = 0.0
        for each in (port, port + 1):
            assert await answer(each, "/health") == 200
            for family in text_string_to_metric_families(await body(each, "/metrics")):
                process_total += sum(s.value for s in family.samples if s.name == "streamlib_worker_process_total")
        assert process_total == len(LINES) + sum(len(line.split()) for line in LINES)  # and by their words once more
        process.send_signal(signal.SIGINT)
        assert await anyio.to_thread.run_sync(process.wait, 30) == 0, word_count.log


def two_free_ports() -> int:
    """The first of two that follow each other."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            try:
                two.bind(("127.0.0.1", one.getsockname()[1] + 1))
            except (OSError, OverflowError):
                continue
            return int(one.getsockname()[1])


async def answer(port: int, path: str) -> int:
    """The status; 0 if nobody listens."""
    try:
        return (await anyio.to_thread.run_sync(asked, port, path))[0]
    except OSError:
        return 0


async def body(port: int, path: str) -> str:
    return (await anyio.to_thread.run_sync(asked, port, path))[1]


def asked(port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_metrics_at_no_address_end_the_run_with_one_line(write_module: Write, streamlib: Command) -> None:
    write_module("flows", MODULE)
    for workers in ("1", "2"):
        done = streamlib("run", "flows", "--metrics", "somewhere", "--log-level", "error", "--workers", workers)
        assert done.returncode != 0
        assert done.stderr.splitlines() == [
            "error: 'somewhere' is no address for metrics: give HOST:PORT, or a port, such as 9464"
        ]


async def test_one_worker_runs_in_the_command_itself(word_count: Setting) -> None:
    with word_count.running() as process:
        await word_count.produce([line.encode() for line in LINES])
        assert (await word_count.verdict()).holds
        assert psutil.Process(process.pid).children() == []
        process.send_signal(signal.SIGTERM)
        assert await anyio.to_thread.run_sync(process.wait, 30) == 0, word_count.log


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_poison_ends_the_run_with_one_line_that_says_where(revenue: Setting, workers: str) -> None:
    await revenue.produce([b"{not json"])
    with revenue.running("--workers", workers, "--log-level", "error") as process:
        assert await anyio.to_thread.run_sync(process.wait, 40) == 1
    assert len(revenue.log) == 1
    assert revenue.log[0].startswith("error: ")
    assert f"topic {revenue.source}, partition 0" in revenue.log[0]


async def test_user_function_that_fails_is_shown_with_the_record_and_its_own_frames(word_count: Setting) -> None:
    path = word_count.folder / "example.py"
    path.write_text(path.read_text().replace("lambda line: line.lower().split()", "lambda line: [line[1000]]"))
    await word_count.produce([b"short"])
    with word_count.running("--workers", "2", "--log-level", "error") as process:
        assert await anyio.to_thread.run_sync(process.wait, 40) == 1
    first, *trace = word_count.log
    assert first.startswith("error: ")
    assert f"topic {word_count.source}, partition 0" in first
    assert "example.py" in trace[0]
    assert trace[-1] == "IndexError: string index out of range"


def test_unreachable_broker_is_one_line(write_module: Write, streamlib: Command) -> None:
    write_module("flows", MODULE)
    arguments = ("--bootstrap-servers", "127.0.0.1:1", "--set", "request_timeout_ms=1000", "--log-level", "error")
    for workers in ("1", "2"):
        done = streamlib("run", "flows", *arguments, "--workers", workers)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("error: ")
        assert "127.0.0.1:1" in done.stderr
