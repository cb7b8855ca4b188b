"""`examples/charges_over_http.py` against a real HTTP server: workers are killed, the server fails."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anyio
import msgspec
import pytest

from tests.exactly_once.harness import Bench, Worker


class Charged(msgspec.Struct, frozen=True):
    user: str
    amount: int


class Till:
    """What the server remembers: a charge for each key, and how often it was asked for it."""

    def __init__(self) -> None:
        self.charges: dict[str, Charged] = {}
        self.asked: Counter[str] = Counter()
        self.times: list[float] = []
        self.works = True
        self.lock = threading.Lock()

    def charge(self, key: str, charged: Charged) -> bytes | None:
        """The receipt; None if it does not work. Takes a while, so that workers are killed in the middle."""
        with self.lock:
            self.times.append(time.monotonic())
            if not self.works:
                return None
            self.asked[key] += 1
            assert self.charges.setdefault(key, charged) == charged, "one key for two charges"
        time.sleep(0.02)
        return json.dumps({"id": f"receipt of {key}", "amount": charged.amount}).encode()


@pytest.fixture
def till(monkeypatch: pytest.MonkeyPatch) -> Iterator[Till]:
    till = Till()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            charged = msgspec.json.decode(self.rfile.read(int(self.headers["Content-Length"])), type=Charged)
            receipt = till.charge(self.headers["Idempotency-Key"], charged)
            self.send_response(503 if receipt is None else 200)
            self.send_header("Content-Length", str(len(receipt or b"")))
            self.end_headers()
            self.wfile.write(receipt or b"")

        def log_message(self, format: str, *arguments: object) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Workers are killed in the middle of an answer."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("CHARGES_URL", f"http://127.0.0.1:{server.server_port}/charges")
    yield till
    server.shutdown()
    server.server_close()
    thread.join()


async def test_workers_that_are_killed_and_an_outage_charge_each_order_once(bench: Bench, till: Till) -> None:
    bench.topology = "charges"
    orders = [("abcdefgh"[number % 8], number) for number in range(300)]
    await bench.produce([(user, json.dumps({"amount": amount})) for user, amount in orders])
    for charged in (40, 120):
        victim = bench.start()
        await bench.until(lambda charged=charged: reached(till, charged), victim)  # type: ignore[misc]
        victim.kill()
    till.works = False
    worker = bench.start()
    await bench.until(lambda: opened_breaker(worker), worker)
    await anyio.sleep(3)
    before = len(till.times)
    await anyio.sleep(3)
    assert len(till.times) - before <= 3, "while it is down it is tried every two seconds"
    till.works = True
    await bench.until_all_committed(worker)
    await worker.stop()

    assert sorted((charge.user, charge.amount) for charge in till.charges.values()) == sorted(orders)
    assert sum(till.asked.values()) > len(orders), "nothing was asked for twice: this test shows nothing"
    receipts = [msgspec.json.decode(str(record.value)) for record in await bench.read(value=str)]
    assert sorted(receipt["amount"] for receipt in receipts) == [amount for _, amount in orders]
    assert {receipt["id"] for receipt in receipts} == {f"receipt of {key}" for key in till.charges}


async def reached(till: Till, charged: int) -> bool:
    return len(till.charges) >= charged


async def opened_breaker(worker: Worker) -> bool:
    services = worker.status.get("services") or {}
    return bool(services) and services["charges"]["breaker"] == "open"
