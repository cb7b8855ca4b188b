"""The comparison on a real broker, small."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.compare.data import Data, fill
from benchmarks.compare.errors import PeerMissingError
from benchmarks.compare.jobs import JOBS, WrongOutputError
from benchmarks.compare.measure import PeerFailedError, Setting, measure
from benchmarks.compare.peers import CACHE_BYTES, EXACTLY_ONCE, PEERS, Task
from streamlib.cli.client import connected
from streamlib.kafka.connection import Connection
from streamlib.testing.plugin import KafkaTarget

ROOT = Path(__file__).parents[2]
DATA = Data.of(records=2000, keys=40, partitions=2)


@pytest.fixture
async def connection(kafka_broker: KafkaTarget) -> AsyncIterator[Connection]:
    async with connected(kafka_broker.bootstrap_servers, "benchmark-test") as connection:
        yield connection


@pytest.fixture
async def setting(connection: Connection, unique_name: Callable[[str], str]) -> Setting:
    """A keyed count of 2,000 records that are there."""
    source = unique_name("events")
    await connection.admin().create_topic(source, DATA.partitions)
    await fill(connection, source, DATA)
    return Setting(JOBS["keyed-count"], EXACTLY_ONCE, DATA, source, "", commit_interval_ms=100)


@pytest.mark.parametrize("cache_bytes", [0, CACHE_BYTES])
async def test_a_run_has_figures_once_its_output_was_checked(
    kafka_broker: KafkaTarget, connection: Connection, setting: Setting, tmp_path: Path, cache_bytes: int
) -> None:
    command = PEERS["streamlib"].prepare(tmp_path)
    setting = msgspec.structs.replace(setting, cache_bytes=cache_bytes)
    figures = await measure(connection, kafka_broker.bootstrap_servers, setting, command, warm_up=0)
    assert figures.records_per_s > 0
    assert figures.cpu_s_per_million > 0
    assert figures.peak_mib > 20


async def test_kafka_streams_counts_the_same(
    kafka_broker: KafkaTarget, connection: Connection, setting: Setting, tmp_path: Path
) -> None:
    try:
        command = PEERS["kafka-streams"].prepare(tmp_path)
    except PeerMissingError as error:
        pytest.skip(str(error))
    figures = await measure(connection, kafka_broker.bootstrap_servers, setting, command, warm_up=0)
    assert figures.records_per_s > 0


async def test_a_program_that_does_another_job_has_no_figures(
    kafka_broker: KafkaTarget, connection: Connection, setting: Setting, tmp_path: Path
) -> None:
    command = PEERS["streamlib"].prepare(tmp_path)

    def does_nothing_but_copy(task: Task) -> list[str]:
        return ["env", "BENCHMARK_JOB=passthrough", *command(task)]

    with pytest.raises(WrongOutputError):
        await measure(connection, kafka_broker.bootstrap_servers, setting, does_nothing_but_copy, warm_up=0)


async def test_a_program_that_ends_has_no_figures(
    kafka_broker: KafkaTarget, connection: Connection, setting: Setting
) -> None:
    ends = [sys.executable, "-c", "raise SystemExit('out of order')"]
    with pytest.raises(PeerFailedError, match="out of order"):
        await measure(connection, kafka_broker.bootstrap_servers, setting, lambda task: ends, warm_up=0)


def run_benchmark(module: str, kafka: KafkaTarget, json: Path, **options: str) -> tuple[str, Any]:
    """What it prints, and its JSON."""
    options |= {"bootstrap-servers": kafka.bootstrap_servers, "json": str(json)}
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, msgspec.json.decode(json.read_bytes())


def test_a_comparison_writes_table_and_json(kafka_broker: KafkaTarget, tmp_path: Path) -> None:
    text, results = run_benchmark(
        "benchmarks.compare",
        kafka_broker,
        tmp_path / "figures.json",
        peers="streamlib",
        jobs="table-join",
        guarantees=EXACTLY_ONCE,
        records="2000",
    )
    assert "table-join, exactly once" in text
    assert [(run["peer"], run["job"], run["problem"]) for run in results["runs"]] == [("streamlib", "table-join", None)]
    assert results["runs"][0]["figures"]["cpu_s_per_million"] > 0


def test_two_workers_share_the_records_of_a_scaling_run(kafka_broker: KafkaTarget, tmp_path: Path) -> None:
    text, results = run_benchmark(
        "benchmarks.scaling", kafka_broker, tmp_path / "figures.json", axes="workers", workers="2", records="2000"
    )
    assert "keyed count over workers" in text
    assert [run["point"]["workers"] for run in results["runs"]] == [2]
    assert results["runs"][0]["figures"]["records_per_s"] > 0


def test_a_profile_divides_all_the_time_among_the_stages(kafka_broker: KafkaTarget, tmp_path: Path) -> None:
    text, results = run_benchmark(
        "benchmarks.profile", kafka_broker, tmp_path / "figures.json", **{"records": "20000", "interval-ms": "0.5"}
    )
    assert "us per record" in text
    profile = results["profile"]
    assert sum(profile["stages"].values()) == pytest.approx(profile["cpu_us"])
    assert sum(profile["lines"].values()) == pytest.approx(profile["cpu_us"])
    assert {"process", "deserialise"} & profile["stages"].keys()
