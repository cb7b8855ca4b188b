"""The proxy does what its faults say, to whom they say, and nothing else."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest

from tests.chaos.proxy import HOST, KINDS, Direction, Fault, Proxy, client_id


def request(client: str, body: bytes = b"") -> bytes:
    """A Kafka request as far as the proxy reads it."""
    name = client.encode()
    header = b"\0\x12\0\0\0\0\0\1" + len(name).to_bytes(2, "big") + name
    return (len(header) + len(body)).to_bytes(4, "big") + header + body


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """A broker that answers with what it hears; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(1 << 16):
                writer.write(chunk)
        writer.close()

    async with await asyncio.start_server(serve, HOST, 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
async def proxy(echo: int, unused_tcp_port: int) -> AsyncIterator[Proxy]:
    opened = Proxy(unused_tcp_port, echo, random.Random(1))
    await opened.open()
    yield opened
    await opened.close()


Dial = Callable[[], Awaitable["Caller"]]


class Caller:
    """A client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, message: bytes) -> bytes:
        """The answer; what came of it if the connection breaks, and nothing if none comes soon."""
        got = b""
        with suppress(TimeoutError, ConnectionResetError):
            async with asyncio.timeout(0.3):
                self._writer.write(message)
                while len(got) < len(message):
                    chunk = await self._reader.read(1 << 16)
                    if not chunk:
                        break
                    got += chunk
        return got

    @property
    def broken(self) -> bool:
        return self._reader.at_eof() or self._reader.exception() is not None

    def close(self) -> None:
        self._writer.close()


@pytest.fixture
async def dial(proxy: Proxy) -> AsyncIterator[Dial]:
    callers: list[Caller] = []

    async def dialled() -> Caller:
        callers.append(Caller(*await asyncio.open_connection(HOST, proxy.port)))
        return callers[-1]

    yield dialled
    for caller in callers:
        caller.close()


async def test_without_a_fault_everything_passes(dial: Dial) -> None:
    caller = await dial()
    message = request("w1", b"x" * 300_000)
    assert await caller.ask(message) == message


async def test_a_black_hole_swallows_and_stays_dead_after_it_is_gone(proxy: Proxy, dial: Dial) -> None:
    caller = await dial()
    proxy.set(Fault(silent=frozenset(Direction)))
    assert await caller.ask(request("w1")) == b""
    assert not caller.broken
    assert proxy.counts.swallowed_bytes == len(request("w1"))
    proxy.set(None)
    assert await caller.ask(request("w1")) == b""
    again = await dial()
    assert await again.ask(request("w1")) == request("w1")


async def test_a_half_open_connection_carries_requests_and_swallows_answers(proxy: Proxy, dial: Dial) -> None:
    caller = await dial()
    proxy.set(Fault(silent=frozenset({Direction.RESPONSE})))
    assert await caller.ask(request("w1")) == b""
    assert proxy.counts.swallowed_bytes == len(request("w1")), "the echo came back and was swallowed"


async def test_a_cut_comes_after_so_many_bytes_of_its_way(proxy: Proxy, dial: Dial) -> None:
    caller = await dial()
    assert await caller.ask(request("w1")) == request("w1")
    proxy.set(Fault(cut=Direction.RESPONSE, cut_after_bytes=5))
    answer = await caller.ask(request("w1", b"more"))
    assert len(answer) <= 5
    assert caller.broken
    assert proxy.counts.cut == 1


async def test_who_is_refused_is_reset_and_so_is_who_was_in(proxy: Proxy, dial: Dial) -> None:
    caller = await dial()
    assert await caller.ask(request("w1")) == request("w1")
    proxy.set(Fault(refuse=True))
    assert await caller.ask(request("w1")) == b""
    assert caller.broken
    late = await dial()
    assert await late.ask(request("w1")) == b""
    assert late.broken


async def test_a_fault_of_one_client_spares_the_others(proxy: Proxy, dial: Dial) -> None:
    proxy.set(Fault(client="w1", silent=frozenset(Direction)))
    one, two = await dial(), await dial()
    assert await one.ask(request("w1")) == b""
    assert await two.ask(request("w2")) == request("w2")


async def test_slowness_delays_and_keeps_the_order(proxy: Proxy, dial: Dial) -> None:
    proxy.set(Fault(latency_ms=20, jitter_ms=30))
    caller = await dial()
    began_s = asyncio.get_running_loop().time()
    assert await caller.ask(request("w1", b"abc")) == request("w1", b"abc")
    assert asyncio.get_running_loop().time() - began_s >= 0.04  # both ways
    assert proxy.counts.delayed_chunks >= 2


async def test_a_broker_that_is_down_looks_like_a_reset(unused_tcp_port_factory: Callable[[], int]) -> None:
    proxy = Proxy(unused_tcp_port_factory(), unused_tcp_port_factory(), random.Random(1))
    await proxy.open()
    caller = Caller(*await asyncio.open_connection(HOST, proxy.port))
    assert await caller.ask(request("w1")) == b""
    assert caller.broken
    caller.close()
    await proxy.close()


def test_a_client_is_known_by_its_first_request() -> None:
    assert client_id(request("worker-1")) == "worker-1"
    assert client_id(b"\0\0") is None
    assert client_id(request("")[:12] + b"\xff\xff") is None


@pytest.mark.parametrize("kind", KINDS)
def test_faults_come_from_the_seed(kind: str) -> None:
    first, second = (KINDS[kind](random.Random(3), "w1") for _ in range(2))
    assert first == second
    assert first.hits("w1")
    assert not first.hits("w2")
    assert KINDS[kind](random.Random(3), None).hits("w2")
