"""Who is let in, and what browsers are told about every answer.

On this host alone, without a token: everybody, but only under a name of this host, so that no web page can make its
own name point here and read what it is told (DNS rebinding). With a token, who has it: as `Authorization: Bearer`, or
as the cookie of the login. No answer may be framed, and scripts come from files of ours only.
"""

from __future__ import annotations

import hmac
import ipaddress

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamlib.errors import ConfigError
from streamlib.monitoring.address import Address
from streamlib.security import Secret
from streamlib.web.login import LOGIN_PATH, Login

SHORTEST_TOKEN = 16

OPEN_PATHS = ("/health", "/ready", LOGIN_PATH, "/static/login.css")
"""What probes ask, and what is needed to log in. Without a token, /health and /ready give no reasons."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def check_token(address: Address, token: Secret | None) -> None:
    """Beyond this host there has to be a token, and one that cannot be guessed.

    Raises:
        ConfigError: there is none, or a short one.

    >>> check_token(Address("127.0.0.1", 8080), None)
    >>> check_token(Address("0.0.0.0", 8080), None)
    Traceback (most recent call last):
    streamlib.errors.ConfigError: 0.0.0.0:8080 is open to others, who could read topics and stores: set web_token ...
    """
    if token is None and not is_loopback(address.host):
        raise ConfigError(
            f"{address} is open to others, who could read topics and stores: set web_token "
            "(STREAMLIB_WEB_TOKEN in the environment), or listen on 127.0.0.1 only"
        )
    if token is not None and len(token.reveal()) < SHORTEST_TOKEN:
        raise ConfigError(
            f"web_token has less than {SHORTEST_TOKEN} characters, so that it could be guessed: "
            'python -c "import secrets; print(secrets.token_urlsafe())" makes one'
        )


def is_loopback(host: str) -> bool:
    """Whether a name or address stands for this host alone.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.2", "::1", "0.0.0.0", "example.org")]
    [True, True, True, False, False]
    """
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761: never anybody else
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def host_of(header: str) -> str:
    """The name in a Host header, without its port.

    >>> host_of("localhost:8080"), host_of("[::1]:8080"), host_of("127.0.0.1")
    ('localhost', '::1', '127.0.0.1')
    """
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


class Guard:
    """Stands before everything else. ASGI middleware.

    Args:
        app: what is behind it.
        address: where the server listens.
        login: knows the token.
    """

    def __init__(self, app: ASGIApp, *, address: Address, login: Login) -> None:
        self._app = app
        self._only_here = is_loopback(address.host)
        self._login = login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        scope["streamlib.authorized"] = self._is_authorized(scope)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                # Files are asked for again, and not sent again if they are the same; numbers are kept by nobody.
                is_file = scope["path"].startswith("/static/")
                headers.setdefault("Cache-Control", "no-cache" if is_file else "no-store")
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        if self._only_here and not is_loopback(host_of(Headers(scope=scope).get("host", ""))):
            return PlainTextResponse("this server answers to localhost and 127.0.0.1 only\n", status_code=421)
        request = Request(scope)
        if "token" in request.query_params:
            return self._login.from_link(request)
        if scope["streamlib.authorized"] or scope["path"] in OPEN_PATHS:
            return None
        return self._login.asked_for(request)

    def _is_authorized(self, scope: Scope) -> bool:
        if self._login.token is None:
            return True
        request = Request(scope)
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and same(given.strip(), self._login.token.reveal()):
            return True
        return self._login.is_logged_in(request)


def same(given: str, wanted: str) -> bool:
    """Whether they are equal, which takes as long either way."""
    return hmac.compare_digest(given.encode(), wanted.encode())
