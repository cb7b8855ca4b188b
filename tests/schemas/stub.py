"""An HTTP server that says what a test wants a registry to say, and remembers what it was asked."""

from __future__ import annotations

import json
import ssl
import threading
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self


class Asked(NamedTuple):
    method: str
    path: str
    authorization: str | None
    body: Any


class Stub:
    """`answers` are given in turn, the last one again and again: a status, then JSON or text.

    `on` has what is answered to some methods whatever the turn, or a function that says it.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        stub = self
        self.asked: list[Asked] = []
        self.answers: deque[tuple[int, Any]] = deque([(200, [])])
        self.on: dict[str, tuple[int, Any] | Callable[[Asked], tuple[int, Any]]] = {}

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                said = json.loads(body) if body else None
                stub.asked.append(Asked(self.command, self.path, self.headers.get("Authorization"), said))
                answer = stub.on.get(self.command) or stub.next_answer()
                status, content = answer(stub.asked[-1]) if callable(answer) else answer
                data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self.url = f"http{'s' if context else ''}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def next_answer(self) -> tuple[int, Any]:
        return self.answers.popleft() if len(self.answers) > 1 else self.answers[0]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
