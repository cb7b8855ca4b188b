"""`examples/leaderboard.py`: who is on it, and what workers say over HTTP, whichever is asked."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import anyio
import httpx
import msgspec
import pytest

from examples import leaderboard
from examples.leaderboard import Best, Score, topology
from streamlib.cli.client import connected
from streamlib.kafka.connection import Connection
from streamlib.partitioning import partition_for
from streamlib.records import OutRecord, TopicPartition
from streamlib.testing import TopologyTestDriver
from streamlib.testing.plugin import KafkaTarget
from tests.examples.samples import NEXT_DAY_MS, ROOT

PATIENCE_S = 60


class Board:
    def __init__(self, driver: TopologyTestDriver) -> None:
        self._driver = driver
        self._scores = driver.input_topic("scores", key=str, value=Score)

    def score(self, player: str, points: int, game: str = "chess") -> None:
        self._scores.pipe_input(player, Score(game, points))

    def best(self, game: str = "chess") -> list[tuple[str, int]]:
        found: Best = self._driver.store("best").get(game) or Best()
        return [(entry.player, entry.points) for entry in found.entries]


@pytest.fixture
def board() -> Iterator[Board]:
    with TopologyTestDriver(topology().build()) as driver:
        yield Board(driver)


def test_totals_decide_and_names_at_the_same_total(board: Board) -> None:
    for player, points in (("bob", 20), ("ann", 30), ("bob", 10), ("cid", 31)):
        board.score(player, points)
    assert board.best() == [("cid", 31), ("ann", 30), ("bob", 30)]


def test_games_have_boards_of_their_own(board: Board) -> None:
    board.score("ann", 30)
    board.score("ann", 5, "go")
    board.score("bob", 0, "go")
    assert (board.best(), board.best("go"), board.best("tennis")) == ([("ann", 30)], [("ann", 5)], [])


def test_board_ends_with_the_last_place_and_who_dropped_out_comes_back(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaderboard, "KEPT", 2)
    for player, points in (("ann", 10), ("bob", 20), ("cid", 30), ("bob", 5)):
        board.score(player, points)
    assert board.best() == [("cid", 30), ("bob", 25)]
    board.score("ann", 16)
    assert board.best() == [("cid", 30), ("ann", 26)]


MAIN = "import anyio, sys; from examples import leaderboard as l; l.config['application_id'] = sys.argv[2]; "
MAIN += "anyio.run(l.main, int(sys.argv[1]))"


class Worker:
    """What `python -m examples.leaderboard` runs, as an application of the test's own."""

    def __init__(self, port: int, name: str, servers: str, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / f"{port}.log"
        settings = {"BOOTSTRAP_SERVERS": servers, "STATE_DIR": str(folder / str(port)), "SESSION_TIMEOUT_MS": "6000"}
        environment = {f"STREAMLIB_{name}": value for name, value in settings.items()}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", MAIN, str(port), name],
                env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(PATIENCE_S) == 0, self.log


@pytest.fixture
def ports() -> tuple[int, int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(2)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        first, second = (int(each.getsockname()[1]) for each in sockets)
        return first, second


@pytest.fixture
async def connection(kafka_broker: KafkaTarget) -> AsyncIterator[Connection]:
    if kafka_broker.broker is None:
        pytest.skip("examples have names of their own, and a cluster that was given by address may know them")
    async with connected(kafka_broker.bootstrap_servers, "test") as connection:
        for topic in ("scores", "leaderboards"):
            await connection.admin().create_topic(topic, 2)
        yield connection
        await connection.admin().delete_topics(["scores", "leaderboards"])


async def produce(connection: Connection, scores: list[tuple[str, Score]]) -> None:
    producer = connection.producer(None)
    await producer.init()
    for player, score in scores:
        record: OutRecord = (player.encode(), msgspec.json.encode(score), NEXT_DAY_MS, ())
        producer.send(TopicPartition("scores", partition_for(player.encode(), 2)), [record])
    await producer.flush()
    await producer.close()


async def eventually(holds: Callable[[], bool], *workers: Worker) -> None:
    with anyio.move_on_after(PATIENCE_S):
        while not await anyio.to_thread.run_sync(holds):
            assert all(worker.process.poll() is None for worker in workers), [worker.log for worker in workers]
            await anyio.sleep(0.1)
        return
    raise AssertionError([worker.log for worker in workers])


async def test_any_worker_tells_of_any_game_and_one_that_is_left_tells_of_all(
    connection: Connection,
    kafka_broker: KafkaTarget,
    ports: tuple[int, int],
    unique_name: Callable[[str], str],
    tmp_path: Path,
) -> None:
    games = [f"game-{number}" for number in range(8)]  # some in each partition
    await produce(connection, [(player, Score(game, 3)) for game in games for player in ("bob", "ann")])
    name = unique_name("leaderboard")
    workers = [Worker(port, name, kafka_broker.bootstrap_servers, tmp_path) for port in ports]
    first, second = workers
    moved: set[str] = set()

    def told_by(asked: Worker, points: int) -> bool:
        """Whether it says the right thing of all games; who had to answer goes to `moved`."""
        expected = [{"player": "ann", "points": points}, {"player": "bob", "points": points}]
        with httpx.Client(follow_redirects=True) as client:
            for game in games:
                try:
                    answer = client.get(f"{asked.url}/top/{game}", params={"n": 2})
                except httpx.TransportError:
                    return False  # not up yet, or just gone
                if answer.status_code != 200 or answer.json() != expected:
                    return False
                if answer.history:
                    moved.add(asked.url)
        return True

    try:
        await eventually(lambda: told_by(first, 3) and told_by(second, 3) and len(moved) == 2, *workers)
        await anyio.to_thread.run_sync(first.stop)
        await produce(connection, [(player, Score(game, 4)) for game in games for player in ("bob", "ann")])
        await eventually(lambda: told_by(second, 7), second)
        await anyio.to_thread.run_sync(second.stop)
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.wait()
