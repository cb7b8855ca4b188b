"""Threads that are the first to read a type, all at once: msgspec 0.22 crashes there, unless somebody looked before."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from tests.web.shop import Worker

# Each child is a process in which nobody has read anything yet. Without precautions every third of them crashes.
RACE = """
import os, sys, threading
import msgspec
from streamlib import StreamsConfig
from streamlib.serdes import Serdes
from streamlib.snapshots.worker import WorkerSnapshot
from streamlib.web import peers

SNAPSHOT = sys.stdin.buffer.read()
sys.setswitchinterval(1e-6)


class Line(msgspec.Struct):
    product: str
    prices: dict[str, float]


class Order(msgspec.Struct):
    lines: tuple[Line, ...]
    gifts: list[Line] | None = None
    parts: dict[str, tuple[Line, ...]] = {}


def console():
    peers.read(SNAPSHOT)


def serdes():
    Serdes.json(Order).decode(b'{"lines":[{"product":"tea","prices":{"a":1}}],"gifts":[],"parts":{"a":[]}}')


def config():
    StreamsConfig.load({"application_id": "shop"}, env={})


def race(act):
    start = threading.Barrier(8)
    def run():
        start.wait()
        act()
    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()


for _ in range(40):
    child = os.fork()
    if child == 0:
        race(globals()[sys.argv[1]])
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        sys.exit(f"a child ended with {os.waitstatus_to_exitcode(status)}")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.parametrize("act", ["console", "serdes", "config"])
def test_threads_that_are_the_first_to_read_a_type_do_no_harm(act: str) -> None:
    snapshot = msgspec.json.encode(Worker(1).snapshot())
    done = subprocess.run([sys.executable, "-c", RACE, act], input=snapshot, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
