"""`streamlib query` against stores over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from streamlib.cli.main import make_app
from streamlib.security import Secret
from streamlib.testing import TopologyTestDriver
from streamlib.web.server import WebServer
from streamlib.web.stores.routes import StoreRoutes
from tests.monitoring.sample import Told
from tests.queries.test_http import App, Local, pipe, topology

TOKEN = "a-token-that-nobody-guesses"


@pytest.fixture
def url() -> Iterator[str]:
    with TopologyTestDriver(topology(), config=App.config) as driver:
        pipe(driver, "words", str, *((f"k{number:04}", "x", 61_000) for number in range(1_200)), ("ann", "x", 61_000))
        routes = StoreRoutes(App(Local(driver))).routes()
        with WebServer(Told(), "0", token=Secret(TOKEN), routes=routes) as server:
            yield f"http://{server.address}"


def asked(url: str, *arguments: str, token: str = TOKEN) -> tuple[int, str, str]:
    runner = CliRunner(env={"STREAMLIB_WEB_TOKEN": token})
    result = runner.invoke(make_app(["query"]), ["query", *arguments, "--url", url])
    return result.exit_code, result.stdout, str(result.exception or "")


def test_a_key_is_its_value(url: str) -> None:
    assert asked(url, "counts", "ann")[:2] == (0, "1\n")
    exit_code, out, _ = asked(url, "counts", "ann", "--json")
    assert (exit_code, json.loads(out)["value"]) == (0, 1)


def test_rows_are_lines_however_many_pages_they_take(url: str) -> None:
    exit_code, out, _ = asked(url, "counts", "--prefix", "k", "--limit", "5000")
    assert (exit_code, out.splitlines()) == (0, [f"k{number:04}\t1" for number in range(1_200)])
    assert len(asked(url, "counts", "--limit", "7", "--json")[1].splitlines()) == 7


def test_windows_have_their_times(url: str) -> None:
    assert asked(url, "minutes", "ann")[1] == "1970-01-01T00:01:00.000Z..1970-01-01T00:02:00.000Z\t1\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["counts", "nobody"], "store counts has no 'nobody'"),
        (["count"], "the topology has no store 'count'; it has brief, counts"),
        (["counts", "--from-ms", "1"], "does not go with these"),
    ],
)
def test_what_there_is_none_of_is_an_error(url: str, arguments: list[str], says: str) -> None:
    exit_code, out, error = asked(url, *arguments)
    assert (exit_code, out, says in error) == (1, "", True)


def test_without_the_token_nothing_is_told(url: str) -> None:
    exit_code, _, error = asked(url, "counts", "ann", token="")
    assert exit_code == 1
    assert "status 401: set STREAMLIB_WEB_TOKEN" in error


def test_where_nobody_listens_that_is_said() -> None:
    exit_code, _, error = asked("http://127.0.0.1:1", "counts", "ann")
    assert (exit_code, "does not answer" in error) == (1, True)
