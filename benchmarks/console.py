"""How quick the web console is with 24 tasks on three workers, and what it costs to look at it.

    python -m benchmarks.console [--seconds 10] [--pages 3]

Three consoles show workers that are made up, each with as much to tell as a real one; no Kafka is needed. Measured are
the snapshots as JSON, the time until a browser shows the numbers (with /usr/bin/chromium, if it is there), and the CPU
time of this process, in which all three consoles run, while pages ask once a second.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from streamlib.web.server import WebServer
from tests.web.browser import CHROMIUM, as_seen, chromium
from tests.web.shop import Worker, consoles

REQUESTS = 20
LOADS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--pages", type=int, default=3)
    arguments = parser.parse_args()
    with consoles([Worker(number) for number in range(3)]) as servers:
        requests(servers[0])
        polling(servers, arguments.pages, arguments.seconds)
        if CHROMIUM.exists():
            loading(servers[0])


def requests(server: WebServer) -> None:
    """One snapshot after the other."""
    with httpx.Client(base_url=f"http://{server.address}") as client:
        for path in ("/api/worker", "/api/application", "/api/topology"):
            times, raw, sent = [], 0, 0
            for _ in range(REQUESTS):
                time.sleep(0.55 if path == "/api/application" else 0)  # until it is asked for anew
                began = time.perf_counter()
                answer = client.get(path)
                times.append(time.perf_counter() - began)
                raw, sent = len(answer.content), int(answer.headers["Content-Length"])
            print(f"{path:18} {median_ms(times):6.1f} ms, {raw / 1000:.1f} kB, {sent / 1000:.1f} kB compressed")


def polling(servers: list[WebServer], pages: int, seconds: int) -> None:
    """What it costs to be looked at."""
    idle = cpu_of(lambda: time.sleep(seconds))

    def look() -> None:
        clients = [httpx.Client(base_url=f"http://{servers[0].address}") for _ in range(pages)]
        for _ in range(seconds):
            began = time.monotonic()
            for client in clients:
                client.get("/api/application")
            time.sleep(max(0, 1 - (time.monotonic() - began)))
        for client in clients:
            client.close()

    busy = cpu_of(look)
    print(f"three consoles     {idle / seconds:.2%} of a core with nobody looking")
    print(
        f"                   {busy / seconds:.2%} with {pages} pages that ask once a second (their requests included)"
    )


def cpu_of(do: Callable[[], None]) -> float:
    began = time.process_time()
    do()
    return time.process_time() - began


def loading(server: WebServer) -> None:
    """Until the numbers are there, with nothing in the browser's cache."""
    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder)) as browser:
        times = []
        for _ in range(LOADS):
            page = browser.new_page()
            as_seen(page, "desktop", "light")
            began = time.perf_counter()
            page.goto(f"http://{server.address}/", wait_until="commit")
            page.locator("tbody tr").nth(2).wait_for()
            times.append(time.perf_counter() - began)
            page.close()
        print(f"page               {median_ms(times):.0f} ms until the numbers are there, of {LOADS}")


def median_ms(times: list[float]) -> float:
    return statistics.median(times) * 1000


if __name__ == "__main__":
    main()
