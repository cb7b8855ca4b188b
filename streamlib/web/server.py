"""The web server of a worker: a thread with an event loop of its own, behind a guard."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from streamlib.errors import ConfigError
from streamlib.monitoring.address import Address, parse_address
from streamlib.monitoring.observed import Observed
from streamlib.security import Secret
from streamlib.web.guard import Guard, check_token
from streamlib.web.login import Login
from streamlib.web.probes import probe_routes

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 15
FINISH_S = 1
"""For so long answers under way may go on when the server stops."""

MOST_CONNECTIONS = 200
BACKLOG = 64

STATIC = Mount("/static", StaticFiles(packages=[("streamlib.web", "static")]))


class WebServer:
    """Listens from the beginning of a `with` block to its end.

        async with KafkaStreams(topology, config) as app:
            with WebServer(app, "8080", token=config.web_token, routes=console_routes(app)):
                ...

    Args:
        app: the application that is asked.
        address: `HOST:PORT`, or a port, which is then open to this host only. Port 0 is any that is free.
        token: who has it is let in; beyond this host nobody else is.
        routes: what is served besides `/metrics`, `/health` and `/ready`.

    Raises:
        ConfigError: the address is none, or taken, or open to others without a token.
    """

    def __init__(
        self,
        app: Observed,
        address: str | Address,
        *,
        token: Secret | None = None,
        routes: Sequence[BaseRoute] = (),
    ) -> None:
        wanted = parse_address(address) if isinstance(address, str) else address
        check_token(wanted, token)
        self._socket = _listen(wanted)
        host, port, *_ = self._socket.getsockname()
        self._address = Address(str(host), int(port))
        login = Login(app.metrics().application_id, token)
        site = Starlette(
            routes=[*probe_routes(app), *login.routes(), STATIC, *routes],
            middleware=[Middleware(Guard, address=wanted, login=login), Middleware(GZipMiddleware, minimum_size=2_000)],
        )
        self._server = uvicorn.Server(
            uvicorn.Config(
                site,
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=MOST_CONNECTIONS,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=FINISH_S,
            )
        )
        self._thread = threading.Thread(target=self._serve, name="web", daemon=True)

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._address

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        try:
            asyncio.run(self._server.serve(sockets=[self._socket]))
        except Exception:  # the worker goes on without it
            log.exception("the web server has stopped")


def _listen(address: Address) -> socket.socket:
    try:
        (family, kind, protocol, _, place), *_ = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a worker that comes back finds its port
            listening.bind(place)
            listening.listen(BACKLOG)
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {address} for the web console: {error.strerror or error}; choose another address"
        ) from error
    return listening
