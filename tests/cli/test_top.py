"""`streamlib top`, of consoles that listen here."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from streamlib.cli.top.asking import Asking, NoAnswerError, console_url
from streamlib.cli.top.screen import Screen
from streamlib.security import Secret
from streamlib.snapshots.application import ApplicationSnapshot
from streamlib.web.server import WebServer
from tests.web.shop import Worker, consoles

TOKEN = "a-token-that-nobody-guesses"
Top = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def server() -> Iterator[WebServer]:
    with consoles([Worker(number, TOKEN) for number in range(3)]) as servers:
        yield servers[0]


@pytest.fixture
def top() -> Top:
    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "streamlib", "top", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables}, check=False)

    return run


def test_it_shows_the_application_once_where_there_is_no_terminal(server: WebServer, top: Top) -> None:
    done = top(str(server.address.port), STREAMLIB_WEB_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    for text in ("shop  degraded  3 workers, 24 tasks", "worker-1", "restoring 1_11 on worker-2", "customer-7", "0_10"):
        assert text in done.stdout
    assert TOKEN not in done.stdout


def test_json_is_one_snapshot(server: WebServer, top: Top, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    done = top(f"http://{server.address}/", "--json", "--token-file", str(file))
    assert done.returncode == 0, done.stderr
    snapshot = msgspec.json.decode(done.stdout, type=ApplicationSnapshot)
    assert [len(snapshot.workers), len(snapshot.tasks)] == [3, 24]


def test_a_token_that_is_missing_is_asked_for_in_one_line(server: WebServer, top: Top) -> None:
    done = top(str(server.address.port), STREAMLIB_WEB_TOKEN="")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "wants its token: set STREAMLIB_WEB_TOKEN" in line


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("127.0.0.1:1", "error: http://127.0.0.1:1 does not answer: Connection refused"),
        ("ftp://shop", "error: 'ftp://shop' is no address of a web console: give a URL such as http://"),
        ("shop:99999999", "error: 'shop:99999999' is no address of a web console"),
    ],
)
def test_what_is_no_console_ends_it_with_one_line(top: Top, url: str, message: str) -> None:
    done = top(url)
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert line.startswith(message)


def test_another_server_is_told_from_a_console() -> None:
    with WebServer(Worker(0), "0") as server, pytest.raises(NoAnswerError, match="status 404: is it a console"):
        Asking(console_url(str(server.address)), None).snapshot()


@pytest.mark.parametrize("width", [60, 80, 160])
def test_the_screen_fits(server: WebServer, width: int) -> None:
    snapshot = Asking(console_url(str(server.address)), Secret(TOKEN)).snapshot()
    console = Console(width=width, file=io.StringIO())
    with console.capture() as captured:
        console.print(Screen(snapshot, "no answer since 12 s: Connection refused"))
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= width
    assert any("no answer since 12 s" in line for line in lines)
    assert any("worker-2" in line and "rebalancing" in line for line in lines)
