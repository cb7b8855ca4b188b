"""Fixtures of the broker tests."""

import random
import socket
from contextlib import ExitStack, suppress

import pytest

PORTS = 10


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on, nor on the next ones.

    Below those that the system gives to clients: a broker of three nodes takes several in a row, and by then somebody
    else's connection may have got one of them.
    """
    while True:
        first = random.randrange(20_000, 32_000)
        with ExitStack() as held, suppress(OSError):
            for port in range(first, first + PORTS):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
