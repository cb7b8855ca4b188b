"""`streamlib run --web` on a real broker: three workers, 24 tasks, and each worker shows all of them."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest

from streamlib import StreamsConfig
from streamlib.cli.client import opened, text_record
from streamlib.kafka.connection import Connection
from streamlib.kafka.reading import partitions_of
from streamlib.testing.plugin import KafkaTarget

PATIENCE_S = 60
PARTITIONS = 12
PORTION = 1_200  # records
TOKEN = "a-token-that-nobody-guesses"

MODULE = """
from streamlib import DeadLetter, StreamsBuilder

def checked(line: str) -> str:
    if line == "poison":
        raise ValueError("poison is not a line")
    return line

builder = StreamsBuilder()
lines = builder.stream("{source}", key=str, value=str).map_values(checked, on_error=DeadLetter("{dead}"))
counts = lines.group_by(lambda _, line: line, key=str).count(store="counts")
counts.to_stream().to("{sink}")
topology = builder.build()
"""


class Shop:
    """An application with topics of its own."""

    def __init__(self, kafka: KafkaTarget, folder: Path, connection: Connection, name: str) -> None:
        self.name, self._kafka, self._folder, self._connection = name, kafka, folder, connection
        self.source, self.sink, self.dead = (f"{name}-{each}" for each in ("in", "out", "dead"))
        self.port = three_free_ports()
        (folder / "shop.py").write_text(MODULE.format(source=self.source, sink=self.sink, dead=self.dead))

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", "streamlib", "run", "shop.py", "--workers", "3"]
        command += ["--web", f"127.0.0.1:{self.port}", "--application-id", self.name]
        command += ["--bootstrap-servers", self._kafka.bootstrap_servers]
        command += ["--processing-guarantee", "exactly_once_v2", "--set", f"state_dir={self._folder / 'state'}"]
        (self._folder / "token").write_text(TOKEN)
        command += ["--set", f"web_token_file={self._folder / 'token'}"]
        with (self._folder / "log").open("wb") as output:
            process = subprocess.Popen(command, cwd=self._folder, stderr=output)
        try:
            yield process
        finally:
            process.kill()  # its workers die with it
            process.wait()

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    async def produce(self, count: int, line: str = "") -> None:
        producer = self._connection.producer(None)
        await producer.init()
        for number, partition in enumerate(partitions_of(self.source, PARTITIONS) * (count // PARTITIONS)):
            text = line or ("often" if number % 2 else f"line {number % 500}")
            producer.send(partition, [text_record(f"key {number % 7}", text.encode())])
        await producer.flush()
        await producer.close()

    async def get(self, worker: int, path: str) -> Any:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port + worker}", headers=headers) as client:
            try:
                return (await client.get(path, timeout=20)).raise_for_status().json()
            except httpx.TransportError:
                return None  # it has not begun to listen

    async def nodes(self) -> list[str]:
        """The names of the topology's nodes."""
        return [box["text"] for box in (await self.get(0, "/api/topology"))["layout"]["boxes"]]


def three_free_ports() -> int:
    """The first of three that follow each other."""
    while True:
        with socket.socket() as one, socket.socket() as two, socket.socket() as three:
            one.bind(("127.0.0.1", 0))
            first = int(one.getsockname()[1])
            try:
                two.bind(("127.0.0.1", first + 1))
                three.bind(("127.0.0.1", first + 2))
            except (OSError, OverflowError):
                continue
            return first


@asynccontextmanager
async def made(kafka: KafkaTarget, folder: Path, name: str) -> AsyncIterator[Shop]:
    config = StreamsConfig(application_id=name, bootstrap_servers=kafka.bootstrap_servers)
    async with opened(config) as connection:
        shop = Shop(kafka, folder, connection, name)
        for topic, partitions in ((shop.source, PARTITIONS), (shop.sink, 3), (shop.dead, 1)):
            await connection.admin().create_topic(topic, partitions)
        yield shop


@pytest.fixture
async def shop(kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Shop]:
    async with made(kafka_broker, tmp_path, unique_name("shop")) as ready:
        yield ready


async def eventually(ask: Callable[[], Awaitable[Any]], wanted: Callable[[Any], bool]) -> Any:
    """The first answer that is as wanted."""
    with anyio.fail_after(PATIENCE_S):
        while True:
            found = await ask()
            if found is not None and wanted(found):
                return found
            await anyio.sleep(0.1)


def is_well(app: dict[str, Any]) -> bool:
    return bool(
        [worker["state"] for worker in app["workers"]] == ["RUNNING"] * 3
        and [task["role"] for task in app["tasks"]] == ["active"] * 24
        and app["ready"]
        and app["rebalances"]  # which workers look for once a second
    )


async def test_each_worker_shows_the_whole_application(shop: Shop) -> None:
    between = f"{shop.name}-counts-repartition"
    flows = {(shop.source, "rate_in"), (between, "rate_in"), (between, "rate_out"), (shop.sink, "rate_out")}
    # Rates are told from one second to the next, and nodes are looked at twenty times in one.
    flowed, busy = set[tuple[str, str]](), set[str]()

    async def look(worker: int) -> Any:
        if app := await shop.get(worker, "/api/application"):
            flowed.update((topic, way) for topic, way in flows if app["topics"].get(topic, {}).get(way))
            busy.update(name for name, node in app["nodes"].items() if node["busy"])
        return app

    produced = 6_000
    await shop.produce(produced)
    with shop.running() as process:
        seen = [await eventually(partial(look, each), is_well) for each in range(3)]
        for number, app in enumerate(seen):
            assert app["application_id"] == shop.name
            assert sorted(worker["address"] for worker in app["workers"] if worker["is_here"]) == [
                f"127.0.0.1:{shop.port + number}"
            ]
            assert {task["worker"] for task in app["tasks"]} == {worker["name"] for worker in app["workers"]}
        with anyio.fail_after(PATIENCE_S):
            while flowed != flows or not busy:
                await shop.produce(PORTION)
                produced += PORTION
                await look(1)
        await shop.produce(12, "poison")

        def done(app: dict[str, Any]) -> bool:
            return bool(
                sum(each["totals"]["records_in"] for each in app["workers"]) >= 2 * produced and app["lag"] == 0
            )

        app = await eventually(partial(look, 1), done)
        assert {key["key"] for key in app["hot_keys"]} >= {"often"}
        assert app["nodes"].keys() <= set(await shop.nodes())
        assert busy <= set(await shop.nodes())
        letters = await eventually(lambda: shop.get(2, "/api/dead-letters"), lambda found: bool(found["topics"]))
        (topic,) = letters["topics"]
        assert topic["topic"] == shop.dead
        assert {letter["message"] for letter in topic["newest"]} == {"poison is not a line"}
        (store,) = (await shop.get(0, "/stores"))["stores"]
        assert (store["name"], store["partitions"]) == ("counts", PARTITIONS)
        often = [await shop.get(each, "/stores/counts/keys/often") for each in range(3)]
        assert [row["value"] for row in often] == [produced // 2] * 3
        later = await eventually(
            lambda: shop.get(1, "/api/application"), lambda found: bool(found["at_ms"] > app["at_ms"])
        )
        assert len(later["history"]) > 0
        process.send_signal(signal.SIGINT)
        assert await anyio.to_thread.run_sync(process.wait, 30) == 0, shop.log
    assert TOKEN not in shop.log


async def test_a_worker_that_is_held_is_shown_as_silent(shop: Shop) -> None:
    with shop.running():
        await eventually(lambda: shop.get(0, "/api/application"), is_well)
        app = await shop.get(0, "/api/application")
        held = next(worker for worker in app["workers"] if not worker["is_here"])
        process = subprocess.run(["kill", "-STOP", str(held["pid"])], check=True)
        assert process.returncode == 0
        try:
            silent = await eventually(
                lambda: shop.get(0, "/api/application"), lambda app: any(w["silent_ms"] for w in app["workers"])
            )
        finally:
            subprocess.run(["kill", "-CONT", str(held["pid"])], check=True)
        (row,) = (worker for worker in silent["workers"] if worker["silent_ms"])
        assert (row["address"], row["state"], row["ready"]) == (held["address"], "UNKNOWN", False)
        assert any(f"{held['name']} does not answer since" in reason for reason in silent["reasons"])
        assert all(task["stale"] == (task["worker"] == held["name"]) for task in silent["tasks"])
        await eventually(lambda: shop.get(0, "/api/application"), is_well)
