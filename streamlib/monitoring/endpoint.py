"""`/metrics`, `/health` and `/ready` over HTTP, from a thread of its own: it answers while a function holds the worker.

/metrics   for Prometheus, in its text format or OpenMetrics, as asked for
/health    200 while the application gets anywhere, 503 if it is stuck; the reasons as JSON
/ready     200 while every assigned task is processing, 503 otherwise
"""

from __future__ import annotations

import logging
import socket
import socketserver
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from streamlib.errors import ConfigError
from streamlib.metrics import Health, HealthStatus
from streamlib.monitoring.address import Address, parse_address
from streamlib.monitoring.observed import Observed, as_json
from streamlib.monitoring.prometheus import Exposition

log = logging.getLogger(__name__)

REQUEST_S = 5.0
"""A client that sends nothing for so long is hung up on."""


class MetricsEndpoint:
    """Listens from the beginning of a `with` block to its end.

        async with KafkaStreams(topology, config) as app:
            with MetricsEndpoint(app, "9464"):
                ...

    Args:
        app: the application that is asked.
        address: `HOST:PORT`, or a port, which is then open to this host only. Port 0 is any that is free.

    Raises:
        ConfigError: the address is none, or taken.
    """

    def __init__(self, app: Observed, address: str | Address) -> None:
        wanted = parse_address(address) if isinstance(address, str) else address
        self._exposition = Exposition(app)
        self._app = app
        endpoint = self

        class Handler(_Handler):
            shown = endpoint

        try:
            self._server = _Server(wanted, Handler)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {wanted} for metrics: {error.strerror or error}; choose another address"
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)

    @property
    def address(self) -> Address:
        """Where it listens."""
        host, port, *_ = self._server.server_address
        return Address(str(host), int(port))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """The metrics, and their content type, in the format that is accepted."""
        return self._exposition.encode(accept)

    def health(self) -> Health:
        """How the application is."""
        return self._app.health()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True  # a worker that comes back finds its port, though connections to it linger
    block_on_close = False

    def __init__(self, address: Address, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Without a look at the name service, as `HTTPServer` has it: that may take long, and the name is not used."""
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone away is no matter for anybody's log."""
        if not isinstance(sys.exception(), OSError):
            log.exception("a request for metrics or health failed")


class _Handler(BaseHTTPRequestHandler):
    shown: MetricsEndpoint
    timeout = REQUEST_S

    def do_GET(self) -> None:
        match urlsplit(self.path).path:
            case "/metrics":
                self._answer(HTTPStatus.OK, *self.shown.metrics(self.headers.get("Accept", "")))
            case "/health":
                health = self.shown.health()
                self._tell(health, health.status is not HealthStatus.STUCK)
            case "/ready":
                health = self.shown.health()
                self._tell(health, health.ready)
            case _:
                self._answer(HTTPStatus.NOT_FOUND, b"/metrics, /health and /ready are here\n", "text/plain")

    def log_message(self, format: str, *args: object) -> None:
        """One is asked every few seconds; that is not worth a line."""

    def _tell(self, health: Health, well: bool) -> None:
        status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
        self._answer(status, as_json(health), "application/json")

    def _answer(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
