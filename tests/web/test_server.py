"""The web server, asked over HTTP: who is let in, and what nobody is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from streamlib.errors import ConfigError
from streamlib.metrics import Health, HealthStatus
from streamlib.monitoring.address import Address
from streamlib.security import Secret
from streamlib.web.server import WebServer
from tests.monitoring.sample import Told

TOKEN = "a-token-that-nobody-guesses"
HTML = {"Accept": "text/html"}


def echo(request: Request) -> JSONResponse:
    return JSONResponse({"query": str(request.url.query)})


def serving(app: Told, token: str | None) -> WebServer:
    return WebServer(app, "0", token=Secret(token) if token else None, routes=[Route("/api/echo", echo)])


@pytest.fixture
def app() -> Told:
    return Told()


@pytest.fixture
def open_to_all(app: Told) -> Iterator[httpx.Client]:
    with serving(app, None) as server, httpx.Client(base_url=f"http://{server.address}") as client:
        yield client


@pytest.fixture
def guarded(app: Told) -> Iterator[httpx.Client]:
    with serving(app, TOKEN) as server, httpx.Client(base_url=f"http://{server.address}") as client:
        yield client


def test_on_this_host_no_token_is_needed(open_to_all: httpx.Client) -> None:
    assert open_to_all.get("/api/echo?a=1").json() == {"query": "a=1"}
    assert 'application_id="shop"' in open_to_all.get("/metrics").text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8080", "shop.localhost", "[::1]:80"])
def test_names_of_this_host_are_answered(open_to_all: httpx.Client, host: str) -> None:
    assert open_to_all.get("/api/echo", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io:80", "10.0.0.1", ""])
def test_another_name_for_this_host_is_refused(open_to_all: httpx.Client, host: str) -> None:
    """DNS rebinding: a page of another site would be same-origin with us."""
    for path in ("/", "/api/echo", "/health", "/metrics"):
        assert open_to_all.get(path, headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1"])
def test_beyond_this_host_a_token_is_needed(host: str) -> None:
    with pytest.raises(ConfigError, match=r"is open to others, .*: set web_token .STREAMLIB_WEB_TOKEN"):
        WebServer(Told(), Address(host, 0))


def test_a_short_token_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"less than 16 characters") as caught:
        WebServer(Told(), "0", token=Secret("tiny"))
    assert "tiny" not in str(caught.value)


@pytest.mark.parametrize("path", ["/", "/api/echo", "/metrics", "/static/console.js", "/nowhere", "/docs/../api/echo"])
@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Cookie": f"streamlib-shop={TOKEN}"}, HTML],
    ids=str,
)
def test_without_the_token_nothing_is_shown(guarded: httpx.Client, path: str, headers: dict[str, str]) -> None:
    answer = guarded.get(path, headers=headers)
    assert answer.status_code == 401
    assert TOKEN not in answer.text
    assert ("<form" in answer.text) == (headers is HTML)


def test_the_token_lets_programs_in(guarded: httpx.Client) -> None:
    assert guarded.get("/api/echo", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_the_form_gives_browsers_a_cookie(guarded: httpx.Client) -> None:
    assert "This is not the token" in guarded.post("/login", data={"token": "wrong"}, headers=HTML).text
    assert guarded.get("/api/echo").status_code == 401
    answer = guarded.post("/login", data={"token": f" {TOKEN} "}, headers=HTML)
    assert answer.status_code == 303
    cookie = answer.headers["Set-Cookie"]
    assert TOKEN not in cookie
    for part in ("HttpOnly", "SameSite=strict", "Max-Age=43200"):
        assert part in cookie
    assert guarded.get("/api/echo").status_code == 200


def test_a_link_with_the_token_leads_on_without_it(guarded: httpx.Client) -> None:
    answer = guarded.get(f"/api/echo?a=1&token={TOKEN}&b=2", headers=HTML)
    assert (answer.status_code, answer.headers["Location"]) == (303, "./echo?a=1&b=2")
    assert guarded.get("/api/echo?a=1&b=2").json() == {"query": "a=1&b=2"}
    assert guarded.get("/api/echo?token=wrong").status_code == 401


def test_a_cookie_ends_and_cannot_be_made_to_last(guarded: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    guarded.post("/login", data={"token": TOKEN})
    (value,) = guarded.cookies.values()
    until, _, signature = value.partition(".")
    longer = {"Cookie": f"streamlib-shop={int(until) + 9999}.{signature}"}
    guarded.cookies.clear()
    assert guarded.get("/api/echo", headers={"Cookie": f"streamlib-shop={value}"}).status_code == 200
    assert guarded.get("/api/echo", headers=longer).status_code == 401
    monkeypatch.setattr("streamlib.web.login.time.time", lambda: int(until) + 1)
    assert guarded.get("/api/echo", headers={"Cookie": f"streamlib-shop={value}"}).status_code == 401


def test_probes_need_no_token_but_get_no_reasons(app: Told, guarded: httpx.Client) -> None:
    app.said = Health(HealthStatus.STUCK, False, ("shop-orders-0 stands still",))
    for path in ("/health", "/ready"):
        answer = guarded.get(path)
        assert (answer.status_code, answer.json()["reasons"]) == (503, [])
        asked = guarded.get(path, headers={"Authorization": f"Bearer {TOKEN}"})
        assert asked.json()["reasons"] == ["shop-orders-0 stands still"]


def test_every_answer_has_the_headers_browsers_obey(guarded: httpx.Client, open_to_all: httpx.Client) -> None:
    answers = [
        guarded.get("/"),
        guarded.get("/", headers=HTML),
        open_to_all.get("/nowhere"),
        open_to_all.get("/health"),
    ]
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Server" not in answer.headers
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_files_may_be_kept_but_are_asked_for_again(open_to_all: httpx.Client) -> None:
    answer = open_to_all.get("/static/console.js")
    assert answer.headers["Cache-Control"] == "no-cache"
    again = open_to_all.get("/static/console.js", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_form_of_any_size_is_not_read(guarded: httpx.Client) -> None:
    assert guarded.post("/login", content=b"token=" + b"x" * 100_000).status_code == 413


def test_a_port_that_is_taken_is_told() -> None:
    with WebServer(Told(), "0") as server, pytest.raises(ConfigError, match=r"cannot listen on .* console"):
        WebServer(Told(), server.address)


def test_it_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())
    with WebServer(Told(), "0") as server, httpx.Client(base_url=f"http://{server.address}") as client:
        assert client.get("/health").status_code == 200
    left = [thread for thread in threading.enumerate() if thread not in before and thread.is_alive()]
    assert [thread.name for thread in left if thread.name == "web"] == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{server.address}/health")
