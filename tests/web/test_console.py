"""What the console answers, asked over HTTP, and what its workers say of each other."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import msgspec
import pytest

from streamlib.monitoring.address import Address
from streamlib.web.console import Console
from streamlib.web.server import WebServer
from tests.web.shop import PASSWORD, Worker, consoles

TOKEN = "a-token-that-nobody-guesses"


@pytest.fixture
def workers() -> list[Worker]:
    return [Worker(number, TOKEN) for number in range(3)]


@pytest.fixture
def clients(workers: list[Worker]) -> Iterator[list[httpx.Client]]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with consoles(workers) as servers:
        made = [httpx.Client(base_url=f"http://{server.address}", headers=headers) for server in servers]
        yield made
        for client in made:
            client.close()


def test_any_worker_shows_all_of_them(clients: list[httpx.Client]) -> None:
    for client in clients:
        app = client.get("/api/application").json()
        assert sorted(worker["name"] for worker in app["workers"]) == ["worker-0", "worker-1", "worker-2"]
        assert [worker["is_here"] for worker in app["workers"]].count(True) == 1
        assert len(app["tasks"]) == 24


def test_no_secret_is_told_anywhere(clients: list[httpx.Client]) -> None:
    for path in ("/", "/api/worker", "/api/application", "/api/topology", "/api/dead-letters", "/metrics", "/health"):
        answer = clients[0].get(path)
        assert answer.status_code == 200
        assert PASSWORD not in answer.text
        assert TOKEN not in answer.text
    settings = clients[0].get("/api/topology").json()["settings"]
    assert settings["sasl_password"] == settings["web_token"] == "set, and not shown"
    assert settings["sasl_username"] == "shop"


def test_without_the_token_neither_page_nor_numbers_are_told(clients: list[httpx.Client]) -> None:
    for path in ("/", "/api/worker", "/api/application", "/api/topology", "/api/dead-letters", "/static/console.js"):
        assert httpx.get(clients[0].base_url.join(path)).status_code == 401


def test_a_worker_with_another_token_is_said() -> None:
    own, other = Worker(0, TOKEN), Worker(1, TOKEN + "-another")
    server = WebServer(other, "0", token=other.config.web_token, routes=Console(other).routes())
    with server:
        rows = asked_by(own, server.address)
    assert rows[0]["problem"] == "it answers with status 401: is its web_token another one?"


def test_another_application_at_the_address_is_said() -> None:
    other = Worker(1)
    said = msgspec.structs.replace(other.snapshot(), application_id="else")
    other.snapshot = lambda: said  # type: ignore[method-assign]
    with consoles([other]) as servers:
        rows = asked_by(Worker(0), servers[0].address)
    assert rows[0]["problem"] == "it belongs to the application else"


def test_what_is_no_console_is_said() -> None:
    with WebServer(Worker(1), "0") as server:
        rows = asked_by(Worker(0), server.address)
    assert rows[0]["problem"] == "it answers with status 404"


def test_an_address_that_leads_back_to_the_worker_itself_is_another_machines(workers: list[Worker]) -> None:
    with consoles(workers[:1]) as servers:
        rows = asked_by(workers[0], servers[0].address)
    assert [(row["problem"], row["state"]) for row in rows] == [
        ("its console listens on its own machine only", "UNKNOWN")
    ]


def asked_by(worker: Worker, other: Address) -> list[dict[str, object]]:
    """What the worker tells of the other."""
    console = Console(worker, lambda: [other])
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with WebServer(worker, "0", token=worker.config.web_token, routes=console.routes()) as server:
        app = httpx.get(f"http://{server.address}/api/application", headers=headers).json()
    console.close()
    return [row for row in app["workers"] if not row["is_here"]]


def test_who_is_slow_holds_up_nobody_and_is_asked_once_at_a_time(
    clients: list[httpx.Client], workers: list[Worker]
) -> None:
    clients[0].get("/api/application")
    asked: list[int] = []
    plain = workers[1].snapshot

    def slow() -> object:
        asked.append(1)
        time.sleep(1.0)
        return plain()

    workers[1].snapshot = slow  # type: ignore[method-assign, assignment]
    for _ in range(4):
        app = clients[0].get("/api/application").json()
        assert len(app["workers"]) == 3
        (held,) = (worker for worker in app["workers"] if worker["name"] == "worker-1")
        assert held["rate_in"] > 0  # as it was
    assert len(asked) < 4


def test_dead_letters_that_cannot_be_read_are_an_answer_too() -> None:
    worker = Worker(0)  # whose broker is not there
    console = Console(worker)
    with WebServer(worker, "0", routes=console.routes()) as server:
        answer = httpx.get(f"http://{server.address}/api/dead-letters", timeout=30)
    console.close()
    assert answer.status_code == 503
    assert "localhost:1" in answer.json()["error"]
    assert PASSWORD not in answer.text
