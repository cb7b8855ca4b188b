"""What an application has to be allowed: it runs with that, and without one of it says which is missing."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import psutil
import pytest

from streamlib.cli.client import connected, read_committed, text_record
from streamlib.cli.demo.lines import text_lines
from streamlib.cli.demo.verdict import Verdict, judge
from streamlib.kafka.connection import Connection
from streamlib.kafka.reading import partitions_of
from tests.security.conftest import PASSWORD, Fortress
from tests.security.running import Ended, environment, refused, run

pytestmark = pytest.mark.broker

LINES = list(text_lines(400))
_PARTITIONS = 4


def rights(name: str) -> dict[str, tuple[str, str, str]]:
    """All that a word count needs which reads `NAME-in` and writes `NAME-out`, as docs/pages/security.md has it."""
    return {
        "input": ("TOPIC", f"{name}-in", "READ"),
        "output": ("TOPIC", f"{name}-out", "WRITE"),
        "internal topics": ("TOPIC", f"{name}-counts*", "CREATE READ WRITE DELETE DESCRIBE_CONFIGS"),
        "group": ("GROUP", name, "READ"),
        "transactional ids": ("TRANSACTIONAL_ID", f"{name}-*", "WRITE"),
    }


@asynccontextmanager
async def topics(fortress: Fortress, name: str) -> AsyncIterator[Connection]:
    """Input and output, with all lines in the input."""
    async with connected(fortress.broker.bootstrap_servers, "test") as connection:
        for topic in ("in", "out"):
            await connection.admin().create_topic(f"{name}-{topic}", _PARTITIONS)
        await produce(connection, name, LINES[:200])
        yield connection


def lag(folder: Path, name: str, settings: dict[str, Any]) -> Ended:
    return run(folder, name, settings, name, "--json", command="lag")


async def produce(connection: Connection, name: str, lines: list[str]) -> None:
    producer = connection.producer(None)
    await producer.init()
    for number, line in enumerate(lines):
        producer.send(partitions_of(f"{name}-in", _PARTITIONS)[number % _PARTITIONS], [text_record("k", line.encode())])
    await producer.flush()
    await producer.close()


async def counts(connection: Connection, name: str) -> dict[str, list[int]]:
    seen: dict[str, list[int]] = {}
    async for record in read_committed(connection, partitions_of(f"{name}-out", _PARTITIONS)):
        seen.setdefault((record.key or b"").decode(), []).append(int.from_bytes(record.value or b"", "big"))
    return seen


async def verdict(connection: Connection, name: str) -> Verdict:
    """Once as many counts are there as words."""
    expected = sum(len(line.split()) for line in LINES)
    with anyio.fail_after(60):
        while True:
            seen = await counts(connection, name)
            if sum(map(len, seen.values())) >= expected:
                return judge(LINES, seen)
            await anyio.sleep(0.2)


async def test_two_workers_count_exactly_once_over_sasl_ssl_though_one_is_killed(
    fortress: Fortress, unique_name: Callable[[str], str], tmp_path: Path
) -> None:
    name = unique_name("words")
    fortress.add_user(name)
    fortress.allow(f"User:{name}", *rights(name).values())
    env = environment(tmp_path, name, fortress.sasl("SCRAM-SHA-512", name) | {"session_timeout_ms": 3000})
    command = [sys.executable, "-m", "streamlib", "run", "words.py", "--workers", "2", "--log-level", "debug"]
    async with topics(fortress, name) as connection:
        with (tmp_path / "log").open("wb") as output:
            process = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=output, stdout=output)
        try:
            with anyio.fail_after(60):
                while not await counts(connection, name):
                    await anyio.sleep(0.1)
            psutil.Process(process.pid).children()[0].kill()
            await produce(connection, name, LINES[200:])
            assert (await verdict(connection, name)).holds
            asked = await anyio.to_thread.run_sync(lag, tmp_path, name, fortress.sasl("SCRAM-SHA-512", name))
            assert asked.code == 0, asked.output
            process.send_signal(signal.SIGINT)
            code = await anyio.to_thread.run_sync(process.wait, 30)
        finally:
            process.kill()
            process.wait()
    log = (tmp_path / "log").read_text()
    assert code == 0, log
    assert PASSWORD not in log
    assert "AUTHORIZATION" not in log


@pytest.mark.parametrize(
    ("missing", "what", "hint"),
    [
        ("input", "{name}-in", "Read"),
        ("output", "{name}-out", "Write"),
        ("internal topics", "{name}-counts", "Create"),
        ("group", "{name}", "grant this principal Read on the group"),
        ("transactional ids", "{name}-", "grant this principal Write and Describe on the transactional id"),
    ],
)
async def test_a_right_that_is_missing_is_named(
    fortress: Fortress, unique_name: Callable[[str], str], tmp_path: Path, missing: str, what: str, hint: str
) -> None:
    name = unique_name("words")
    fortress.add_user(name)
    fortress.allow(f"User:{name}", *(right for part, right in rights(name).items() if part != missing))
    async with topics(fortress, name):
        settings = fortress.sasl("SCRAM-SHA-512", name)
        ended = await anyio.to_thread.run_sync(run, tmp_path, name, settings)
    refused(ended, "AUTHORIZATION_FAILED", what.format(name=name), hint)


async def test_the_right_to_look_at_topics_that_are_there_already_is_named(
    fortress: Fortress, unique_name: Callable[[str], str], tmp_path: Path
) -> None:
    name = unique_name("words")
    fortress.add_user(name)
    fortress.allow(
        f"User:{name}", *({**rights(name), "internal topics": ("TOPIC", f"{name}-*", "CREATE READ WRITE")}.values())
    )
    async with topics(fortress, name) as connection:
        await connection.admin().create_topic(f"{name}-counts-changelog", _PARTITIONS, {"cleanup.policy": "compact"})
        ended = await anyio.to_thread.run_sync(run, tmp_path, name, fortress.sasl("SCRAM-SHA-512", name))
    refused(ended, f"topic {name}-counts-changelog", "grant this principal DescribeConfigs on the topic")
