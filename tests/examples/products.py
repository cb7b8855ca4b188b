"""The service of `examples/order_enrichment.py`: files over HTTP, with troubles that a test may plan."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Products:
    """What the server does, and how it was used."""

    def __init__(self) -> None:
        self.works = True
        self.takes_s = 0.0
        self.hidden: Counter[str] = Counter()  # how often a file is not there yet
        self.asked: Counter[str] = Counter()
        self.most_at_once = 0
        self.url = ""
        self._now = 0
        self._lock = threading.Lock()

    def status_of(self, name: str) -> int:
        """Of the answer to a request for a file, which takes a while."""
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            self.asked[name] += 1
            works, hidden = self.works, self.hidden[name] > 0
            self.hidden[name] -= hidden
        time.sleep(self.takes_s)
        with self._lock:
            self._now -= 1
        return 404 if works and hidden else 200 if works else 503


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, products: Products, *arguments: object, **options: object) -> None:
        self._products = products
        super().__init__(*arguments, **options)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        status = self._products.status_of(Path(self.path).stem)
        if status == 200:
            super().do_GET()
        else:
            self.send_error(status)

    def log_message(self, format: str, *arguments: object) -> None: ...


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Workers are killed in the middle of an answer."""


@contextmanager
def served(folder: Path) -> Iterator[Products]:
    products = Products()
    server = _Server(("127.0.0.1", 0), partial(_Handler, products, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    products.url = f"http://127.0.0.1:{server.server_port}/products"
    try:
        yield products
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
