"""Workers on a real broker: whichever is asked gives the right answer, or says that it cannot now."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from streamlib import (
    InvalidStateStorePartitionError,
    KafkaStreams,
    ProcessingError,
    ReadOnlyKeyValueStore,
    StreamsBuilder,
    StreamsConfig,
    StreamsStoppedError,
    Topology,
)
from streamlib.kafka.connection import Connection
from streamlib.partitioning import partition_for
from streamlib.records import TopicPartition
from streamlib.security import Secret
from streamlib.testing.plugin import KafkaTarget
from streamlib.web.server import WebServer
from streamlib.web.stores.routes import StoreRoutes

MODULE = """
from streamlib import StreamsBuilder

builder = StreamsBuilder()
builder.stream("{source}", key=str, value=str).group_by_key().count(store="counts")
topology = builder.build()
"""
PARTITIONS = 4
PATIENCE_S = 60
TOKEN = "a-token-that-nobody-guesses"
KEYS = [f"key-{number:03}" for number in range(40)]

pytestmark = pytest.mark.broker


class Worker:
    """A running application, and its stores over HTTP."""

    def __init__(self, app: KafkaStreams, client: httpx.AsyncClient, endpoint: str) -> None:
        self.app = app
        self.endpoint = endpoint
        self._client = client

    async def get(self, path: str, **parameters: Any) -> tuple[int, dict[str, Any]]:
        response = await self._client.get(f"http://{self.endpoint}{path}", params=parameters)
        body: dict[str, Any] = response.json()
        return response.status_code, body

    async def values(self, keys: Collection[str] = KEYS) -> dict[str, Any]:
        """What it says of each key: its value, or the error."""
        found = {}
        for key in keys:
            _, body = await self.get(f"/stores/counts/keys/{key}")
            found[key] = body.get("value", body.get("error"))
        return found


class Bench:
    """An application's topic on a broker, and its workers."""

    def __init__(self, kafka: KafkaTarget, name: str, folder: Path, **settings: Any) -> None:
        self.name, self._folder = name, folder
        self._settings = {
            "application_id": name,
            "bootstrap_servers": kafka.bootstrap_servers,
            "processing_guarantee": "exactly_once_v2",
            "session_timeout_ms": 6_000,
            "web_token": Secret(TOKEN),
            **settings,
        }

    def config(self, number: int = 0, **settings: Any) -> StreamsConfig:
        return StreamsConfig(**{**self._settings, "state_dir": str(self._folder / str(number)), **settings})

    @property
    def topology(self) -> Topology:
        builder = StreamsBuilder()
        builder.stream(f"{self.name}-in", key=str, value=str).group_by_key().count(store="counts")
        return builder.build()

    async def open(self) -> None:
        connection = await Connection.open(self.config())
        await connection.admin().create_topic(f"{self.name}-in", PARTITIONS)
        await connection.close()

    async def produce(self, keys: Collection[str] = KEYS) -> None:
        connection = await Connection.open(self.config())
        producer = connection.producer(None)
        await producer.init()
        for key in keys:
            partition = TopicPartition(f"{self.name}-in", partition_for(key.encode(), PARTITIONS))
            producer.send(partition, [(key.encode(), b"x", 1_000, ())])
        await producer.flush()
        await producer.close()
        await connection.close()

    @asynccontextmanager
    async def worker(self, number: int, **settings: Any) -> AsyncIterator[Worker]:
        endpoint = f"127.0.0.1:{free_port()}"
        config = self.config(number, application_server=endpoint, **settings)
        app = KafkaStreams(self.topology, config)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(headers=headers, timeout=20) as client, app:
            with WebServer(app, endpoint, token=config.web_token, routes=StoreRoutes(app).routes()):
                yield Worker(app, client, endpoint)


class Held(Bench):
    """With a function after the count that holds the worker, and then fails, if it is to."""

    def __init__(self, kafka: KafkaTarget, name: str, folder: Path) -> None:
        super().__init__(kafka, name, folder)
        self.holds = self.fails = False
        self.held, self.go_on = threading.Event(), threading.Event()

    @property
    def topology(self) -> Topology:
        builder = StreamsBuilder()
        counts = builder.stream(f"{self.name}-in", key=str, value=str).group_by_key().count(store="counts")
        counts.to_stream().foreach(lambda key, count: self._gate())
        return builder.build()

    def _gate(self) -> None:
        if self.holds:
            self.held.set()
            self.go_on.wait(PATIENCE_S)
        if self.fails:
            raise ValueError("the test says so")

    @contextmanager
    def running(self) -> Iterator[tuple[KafkaStreams, str]]:
        """In a thread with an event loop of its own, as in an application of which it is all."""
        config = self.config()
        app = KafkaStreams(self.topology, config)
        loop = asyncio.new_event_loop()

        def run() -> None:
            with suppress(ProcessingError):
                loop.run_until_complete(app.run())

        thread = threading.Thread(target=run)
        with WebServer(app, "0", token=config.web_token, routes=StoreRoutes(app).routes()) as server:
            thread.start()
            try:
                yield app, str(server.address)
            finally:
                self.go_on.set()
                loop.call_soon_threadsafe(app.close)
                thread.join()
                loop.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not await holds():
            await anyio.sleep(0.05)


async def until_all_say(workers: Collection[Worker], wanted: dict[str, Any]) -> None:
    async def holds() -> bool:
        return all([await worker.values() == wanted for worker in workers])

    await eventually(holds)


async def until_shared(workers: Collection[Worker]) -> None:
    async def holds() -> bool:
        shares = [len(worker.app.local_stores.me.active) for worker in workers if worker.app.state.value == "RUNNING"]
        return len(shares) == len(workers) and sum(shares) == PARTITIONS and min(shares) > 0

    await eventually(holds)


async def has_tasks(asked: Worker, endpoint: str) -> bool:
    known = asked.app.streams_metadata()
    return any(str(each.host_info) == endpoint and each.active_tasks for each in known)


@pytest.fixture
async def bench(kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path) -> Bench:
    bench = Bench(kafka_broker, unique_name("queries"), tmp_path)
    await bench.open()
    return bench


@pytest.fixture
async def streams_bench(streams_kafka: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path) -> Bench:
    bench = Bench(streams_kafka, unique_name("queries"), tmp_path, group_protocol="streams", session_timeout_ms=4_000)
    await bench.open()
    return bench


async def test_either_worker_answers_for_every_key(bench: Bench) -> None:
    await check_either_answers(bench)


async def test_either_worker_answers_for_every_key_where_the_brokers_assign(streams_bench: Bench) -> None:
    await check_either_answers(streams_bench)


async def check_either_answers(bench: Bench) -> None:
    await bench.produce()
    async with bench.worker(0) as one, bench.worker(1) as two:
        await until_shared((one, two))
        await until_all_say((one, two), dict.fromkeys(KEYS, 1))
        for asked in (one, two):
            await check_listing(asked)
            assert {key: (await asked.get(f"/stores/counts/keys/{key}"))[0] for key in ("nobody", "no", "none")} == {
                "nobody": 404, "no": 404, "none": 404,
            }  # fmt: skip
            status, body = await asked.get("/stores")
            assert (status, set(body["stores"][0]["active"].values())) == (200, {one.endpoint, two.endpoint})
        await check_in_process((one, two))


async def check_listing(asked: Worker) -> None:
    """Rows of all partitions, whoever has them, each once."""
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        status, body = await asked.get("/stores/counts", limit=7, **cursor)
        assert (status, len(body["rows"]) <= 7) == (200, True)
        found += [row["key"] for row in body["rows"]]
        if body["cursor"] is None:
            break
        cursor = {"cursor": body["cursor"]}
    assert sorted(found) == KEYS


async def check_in_process(workers: Collection[Worker]) -> None:
    """Each key is there where the metadata say, and the other worker says where that is."""
    for key in KEYS:
        for worker in workers:
            view = worker.app.store("counts", ReadOnlyKeyValueStore[str, int])
            owner = worker.app.query_metadata_for_key("counts", key)
            assert owner.active is not None
            if owner.active.is_local:
                assert await view.get(key) == 1
            else:
                with pytest.raises(InvalidStateStorePartitionError) as caught:
                    await view.get(key)
                assert caught.value.owner == str(owner.active_host)
    shown: list[tuple[str, int]] = []
    for worker in workers:
        shown += [row async for row in worker.app.store("counts").all()]
    assert sorted(shown) == [(key, 1) for key in KEYS]


async def test_while_tasks_move_no_answer_is_wrong(bench: Bench, tmp_path: Path) -> None:
    await check_moves(bench, tmp_path)


async def test_while_the_brokers_move_tasks_no_answer_is_wrong(streams_bench: Bench, tmp_path: Path) -> None:
    await check_moves(streams_bench, tmp_path)


async def check_moves(bench: Bench, tmp_path: Path) -> None:
    """Workers come, go, and are killed; all the time every key has the value it has, or cannot be had."""
    await bench.produce()
    said: set[tuple[int, Any]] = set()
    asking = True

    async def ask(worker: Worker) -> None:
        while asking:
            for key in KEYS:
                status, body = await worker.get(f"/stores/counts/keys/{key}")
                said.add((status, body.get("value")))

    async with bench.worker(0) as one, bench.worker(1) as two:
        await until_shared((one, two))
        await until_all_say((one, two), dict.fromkeys(KEYS, 1))
        async with anyio.create_task_group() as children:
            children.start_soon(ask, one)
            children.start_soon(ask, two)
            async with bench.worker(2) as three:
                await until_shared((one, two, three))
            await until_shared((one, two))
            process = Process(bench, tmp_path)
            try:
                await eventually(lambda: has_tasks(one, process.endpoint))
            finally:
                process.kill()
            await until_shared((one, two))
            await until_all_say((one, two), dict.fromkeys(KEYS, 1))
            asking = False
    assert (200, 1) in said
    assert said <= {(200, 1), (503, None)}


class Process:
    """A worker in a process of its own, which can be killed."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.endpoint = f"127.0.0.1:{free_port()}"
        (folder / "counting.py").write_text(MODULE.format(source=f"{bench.name}-in"))
        (folder / "token").write_text(TOKEN)
        config = bench.config()
        command = [sys.executable, "-m", "streamlib", "run", "counting.py", "--web", self.endpoint]
        command += ["--application-id", bench.name, "--bootstrap-servers", config.bootstrap_servers]
        command += ["--processing-guarantee", "exactly_once_v2", "--set", f"state_dir={folder / 'process'}"]
        command += ["--set", f"web_token_file={folder / 'token'}", "--set", f"group_protocol={config.group_protocol}"]
        command += ["--set", f"session_timeout_ms={config.session_timeout_ms}"]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


async def test_copies_answer_by_choice(bench: Bench) -> None:
    await bench.produce()
    async with bench.worker(0, num_standby_replicas=1) as one, bench.worker(1, num_standby_replicas=1) as two:
        await until_shared((one, two))

        async def both_have_all() -> bool:
            answers = [
                (await worker.get(f"/stores/counts/keys/{key}", stale="true"))[1]
                for worker in (one, two)
                for key in KEYS
            ]
            workers = {worker.app.local_stores.me.worker for worker in (one, two)}
            here = {answer.get("worker") for answer in answers[: len(KEYS)]}
            lags = {answer.get("lag") for answer in answers}
            return (
                all(answer.get("value") == 1 for answer in answers)
                and len(workers) == 2
                and here == {one.app.local_stores.me.worker}
                and lags == {0}
                and {answer["stale"] for answer in answers} == {True, False}
            )

        await eventually(both_have_all)
        lags = one.app.all_local_store_partition_lags()
        assert sorted(lags["counts"]) == list(range(PARTITIONS))
        assert {lag.offset_lag for lag in lags["counts"].values()} == {0}
        stale = one.app.store("counts", ReadOnlyKeyValueStore[str, int], stale=True)
        assert sorted([row async for row in stale.all()]) == [(key, 1) for key in KEYS]


async def test_what_is_not_committed_is_seen_by_nobody_even_while_a_function_holds_the_worker(
    kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path
) -> None:
    bench = Held(kafka_broker, unique_name("queries"), tmp_path)
    await bench.open()
    await bench.produce(["ann"])
    with bench.running() as (app, endpoint), httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}) as client:

        def count() -> Any:
            body = client.get(f"http://{endpoint}/stores/counts/keys/ann").json()
            return body.get("value", body.get("error"))

        await eventually(lambda: is_(count() == 1))
        bench.holds = True
        await bench.produce(["ann"])
        await asyncio.to_thread(bench.held.wait, PATIENCE_S)
        for _ in range(20):  # it is counted, and the worker's loop stands still
            assert count() == 1
        bench.fails = True
        bench.go_on.set()
        await eventually(lambda: is_(count() == "stopped"))
        with pytest.raises(StreamsStoppedError):
            app.store("counts")
    bench.holds = bench.fails = False
    with bench.running() as (_, endpoint), httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        seen: set[Any] = set()

        async def has_two() -> bool:
            body = client.get(f"http://{endpoint}/stores/counts/keys/ann").json()
            seen.add(body.get("value", body.get("error")))
            return 2 in seen

        await eventually(has_two)
        assert seen <= {1, 2, "not_started", "rebalancing", "not_available"}


async def is_(value: bool) -> bool:
    return value
