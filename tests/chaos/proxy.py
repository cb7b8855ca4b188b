"""A TCP proxy in front of one broker that breaks connections on order.

A connection is named after the `client_id` of its first Kafka request, so that a fault can hit one worker and spare
the others. What a fault has swallowed is never made up for: that connection stays as it is until its client or its
broker gives it up, also after the fault is over, as behind a firewall that forgot it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Callable, Iterable
from enum import Enum
from struct import Struct

import msgspec

HOST = "127.0.0.1"
CHUNK_BYTES = 1 << 16

_HEADER = Struct(">ihhih")  # size, API key, API version, correlation id, length of the client id
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: closing sends RST instead of FIN


class Direction(Enum):
    """Which way bytes go."""

    REQUEST = "request"
    RESPONSE = "response"


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with the network; without `client`, for everybody.

    Args:
        client: only connections of this `client_id`.
        latency_ms: each chunk is late by this much,
        jitter_ms: and by up to this much more.
        silent: what goes these ways is swallowed: both is a black hole, one a half-open connection.
        refuse: new connections are reset at once.
        cut_after_bytes: a connection is reset when this many more bytes went its way, wherever in a message that is.
        cut: the way whose bytes count for that.
    """

    client: str | None = None
    latency_ms: int = 0
    jitter_ms: int = 0
    silent: frozenset[Direction] = frozenset()
    refuse: bool = False
    cut_after_bytes: int | None = None
    cut: Direction = Direction.REQUEST

    def hits(self, client: str | None) -> bool:
        """Whether a connection of this client suffers from it."""
        return self.client is None or self.client == client


class Counts(msgspec.Struct):
    """What a proxy has done so far."""

    connections: int = 0
    refused: int = 0
    cut: int = 0
    swallowed_bytes: int = 0
    delayed_chunks: int = 0

    @classmethod
    def total(cls, counts: Iterable[Counts]) -> Counts:
        """Of several proxies."""
        return cls(*map(sum, zip(*map(msgspec.structs.astuple, counts), strict=True)))


class Proxy:
    """Listens on `port` and passes everything on to the broker's `target_port`, but for the fault that is set."""

    def __init__(self, port: int, target_port: int, rng: random.Random) -> None:
        self.port = port
        self.counts = Counts()
        self.fault: Fault | None = None
        self._target_port = target_port
        self._rng = rng
        self._server: asyncio.Server | None = None
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._accept, HOST, self.port)

    async def close(self) -> None:
        """Stop listening and reset every connection."""
        assert self._server is not None
        self._server.close()
        self.reset()
        await asyncio.gather(*self._tasks)  # a reset connection ends by itself
        await self._server.wait_closed()

    def set(self, fault: Fault | None) -> None:
        """From now on this is wrong, or nothing. Connections that are open suffer, too."""
        self.fault = fault
        for link in self._links:
            link.sent = dict.fromkeys(Direction, 0)

    def reset(self, client: str | None = None) -> None:
        """Reset the connections there are, of one client or of all."""
        for link in list(self._links):
            if client is None or link.client == client:
                self._cut(link)

    def fault_of(self, link: Link) -> Fault | None:
        """What is wrong for this connection."""
        return self.fault if self.fault is not None and self.fault.hits(link.client) else None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.counts.connections += 1
        if self.fault is not None and self.fault.refuse and self.fault.client is None:
            self.counts.refused += 1
            _abort(writer)
            return
        with contextlib.suppress(OSError):
            await self._serve(reader, writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            broker_reader, broker_writer = await asyncio.open_connection(HOST, self._target_port)
        except OSError:  # the broker is down: the client sees a reset
            _abort(writer)
            return
        link = Link(writer, broker_writer)
        self._links.add(link)
        pumps = [
            asyncio.ensure_future(self._pump(link, Direction.REQUEST, reader, broker_writer)),
            asyncio.ensure_future(self._pump(link, Direction.RESPONSE, broker_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            link.abort()
            self._links.discard(link)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, link: Link, way: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            if way is Direction.REQUEST and link.client is None:
                link.client = client_id(chunk)
            fault = self.fault_of(link)
            if fault is not None and fault.refuse:
                self.counts.refused += 1
                self._cut(link)
                return
            if way in link.silent or (fault is not None and way in fault.silent):
                link.silent.add(way)
                self.counts.swallowed_bytes += len(chunk)
                continue
            if fault is not None:
                await self._delay(fault)
                chunk = self._shorten(link, way, fault, chunk)
            writer.write(chunk)
            await writer.drain()
            link.sent[way] += len(chunk)
            if fault is not None and _is_spent(link, way, fault):
                self._cut(link)
                return

    async def _delay(self, fault: Fault) -> None:
        if fault.latency_ms or fault.jitter_ms:
            self.counts.delayed_chunks += 1
            await asyncio.sleep((fault.latency_ms + self._rng.uniform(0, fault.jitter_ms)) / 1000)

    def _shorten(self, link: Link, way: Direction, fault: Fault, chunk: bytes) -> bytes:
        if fault.cut_after_bytes is None or way is not fault.cut:
            return chunk
        return chunk[: max(fault.cut_after_bytes - link.sent[way], 0)]

    def _cut(self, link: Link) -> None:
        self.counts.cut += 1
        link.abort()


class Link:
    """One connection through the proxy."""

    def __init__(self, client_writer: asyncio.StreamWriter, broker_writer: asyncio.StreamWriter) -> None:
        self.client: str | None = None
        self.silent: set[Direction] = set()  # these ways are dead for as long as it lives
        self.sent = dict.fromkeys(Direction, 0)  # bytes since the fault was set
        self._writers = (client_writer, broker_writer)

    def abort(self) -> None:
        """Reset both sides."""
        for writer in self._writers:
            _abort(writer)


def client_id(request: bytes) -> str | None:
    """Who sent it, by the header that every Kafka request begins with."""
    if len(request) < _HEADER.size:
        return None
    length: int = _HEADER.unpack_from(request)[-1]
    return request[_HEADER.size : _HEADER.size + length].decode(errors="replace") if length >= 0 else None


def _is_spent(link: Link, way: Direction, fault: Fault) -> bool:
    return fault.cut_after_bytes is not None and way is fault.cut and link.sent[way] >= fault.cut_after_bytes


def _abort(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


Draw = Callable[[random.Random, str | None], Fault]
"""Makes a fault of one kind, for one client or for all."""


def slow(rng: random.Random, client: str | None) -> Fault:
    """Everything is late."""
    return Fault(client=client, latency_ms=rng.choice((5, 20, 100, 400)), jitter_ms=rng.choice((0, 20, 200)))


def cut(rng: random.Random, client: str | None) -> Fault:
    """Connections break in the middle of a request or a response, again and again."""
    way = rng.choice(tuple(Direction))
    return Fault(client=client, cut=way, cut_after_bytes=int(10 ** rng.uniform(0.5, 4.5)))


def black_hole(_: random.Random, client: str | None) -> Fault:
    """Everything is accepted and nothing arrives."""
    return Fault(client=client, silent=frozenset(Direction))


def half_open(rng: random.Random, client: str | None) -> Fault:
    """One way is dead: requests never arrive, or they are carried out and the answers never arrive."""
    return Fault(client=client, silent=frozenset({rng.choice(tuple(Direction))}))


def refuse(_: random.Random, client: str | None) -> Fault:
    """Nobody gets in, and who is in is thrown out."""
    return Fault(client=client, refuse=True)


KINDS: dict[str, Draw] = {
    "slow": slow,
    "cut": cut,
    "black hole": black_hole,
    "half-open": half_open,
    "refuse": refuse,
}
"""The network's faults by name."""
