"""A pool of connections that breaks chosen requests: real sockets, a real broker, and faults in between.

    faults = Faults()
    faults.add("EndTxn", refused(ErrorCode.PRODUCER_FENCED))                 the broker never sees the next EndTxn
    faults.add("Produce", replaced(ErrorCode.REQUEST_TIMED_OUT), times=3)    it does, but the answer says otherwise
    faults.add("Fetch", cut, when=lambda body: body["max_wait_ms"] > 0)
    connection = await Connection.open(config, faulty_pool(config, faults))

What happens to a request is a function of the connection and the request; everything else about a fault (which
requests, how many) is the same for all of them. Faults of the network as a whole are attributes of `Network`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from streamlib.config import StreamsConfig
from streamlib.errors import ConnectionFailedError, ErrorCode, KafkaError
from streamlib.kafka.cluster import Address
from streamlib.kafka.connector import Connector
from streamlib.kafka.pool import Answer, ConnectionPool, Link, Wire
from streamlib.kafka.protocol.codec import as_decoded
from streamlib.kafka.protocol.request import Request
from streamlib.kafka.protocol.schema import Api
from streamlib.security import Security
from tests.errors.places import PLACES

Body: TypeAlias = Mapping[str, Any]
Level = Literal["whole", "each", "first"]
CONNECT_TIMEOUT_MS = 10_000
UNANSWERED_S = 1.0  # until a connection that nobody answers is given up


class Line(msgspec.Struct, frozen=True):
    """The connection that a request is about to take; `another` opens one that the client does not know of."""

    wire: Wire
    another: Callable[[], Awaitable[Wire]]


Act: TypeAlias = Callable[[Line, Request], Awaitable[Answer]]


class Fault(msgspec.Struct):
    """Which requests of an API meet which fate: `times` of those that fit, after `skip` of them."""

    api: str
    act: Act
    skip: int = 0
    times: int | None = 1
    when: Callable[[Body], bool] = lambda _: True
    hits: int = 0

    def due(self, request: Request) -> bool:
        """Count the request; whether this is one to break."""
        if request.api.name != self.api or self.spent or not self.when(request.content):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.hits += 1
        return True

    @property
    def spent(self) -> bool:
        return self.times is not None and self.hits >= self.times


class Network:
    """What is wrong between this client and all brokers, from now on."""

    def __init__(self) -> None:
        self.refuses = False  # nobody listens
        self.swallows = False  # packets get lost: nothing fails, nothing answers
        self.denies = False  # brokers refuse the credentials of whoever connects
        self.attempts = 0  # to connect, while something was wrong

    async def connect(self, address: Address) -> None:
        """What a new connection meets."""
        if not (self.refuses or self.swallows or self.denies):
            return
        self.attempts += 1
        if self.refuses:
            raise ConnectionFailedError("Connect", str(address), "[Errno 111] Connection refused")
        if self.denies:
            raise KafkaError(58, "SaslAuthenticate", f"broker at {address}", "Authentication failed: invalid user")
        await asyncio.sleep(UNANSWERED_S)
        raise ConnectionFailedError("Connect", str(address), "no answer in time")


class Faults:
    """The faults of one client, and what it asked for."""

    def __init__(self) -> None:
        self.network = Network()
        self.faults: list[Fault] = []
        self.granted: Counter[str] = Counter()  # requests by API that came through and were not refused, since `forget`
        self._wires: list[Wire] = []

    def add(self, api: str, act: Act, **options: Any) -> Fault:
        """Break requests of this API from now on."""
        assert api in PLACES, f"nothing is known of {api}"
        fault = Fault(api, act, **options)
        self.faults.append(fault)
        return fault

    def heal(self) -> None:
        """From now on all is well; what is under way stays broken."""
        self.faults.clear()
        self.network.refuses = self.network.swallows = self.network.denies = False

    def forget(self) -> None:
        """Count requests from now on."""
        self.granted.clear()

    def cut_all(self) -> None:
        """Close every connection there is."""
        for wire in self._wires:
            wire.close()
        self._wires.clear()

    async def send(self, line: Line, request: Request) -> Answer:
        """The request's fate: the first fault that is due decides."""
        if self.network.swallows:
            await _for_ever()
        for fault in self.faults:
            if fault.due(request):
                return await fault.act(line, request)
        answer = await line.wire.send(request)
        self.granted[request.api.name] += not getattr(answer.body(request.api, request.version), "error_code", 0)
        return answer

    def opened(self, wire: Wire) -> None:
        self._wires = [other for other in self._wires if other.connected()]
        self._wires.append(wire)


class _Opener:
    """Opens connections that are real, but for the faults."""

    def __init__(self, connector: Connector, faults: Faults) -> None:
        self._connector = connector
        self._faults = faults

    async def open(self, node: int, address: Address, number: int) -> Link:
        await self._faults.network.connect(address)
        link = await self._connector.open(node, address, number)
        self._faults.opened(link.connection)

        async def another() -> Wire:
            return (await self._connector.open(node, address, number)).connection

        line = Line(link.connection, another)
        return msgspec.structs.replace(link, connection=_FaultyWire(line, self._faults))


class _FaultyWire:
    def __init__(self, line: Line, faults: Faults) -> None:
        self._line = line
        self._faults = faults

    def send(self, request: Request) -> Awaitable[Answer]:
        return self._faults.send(self._line, request)

    def connected(self) -> bool:
        return self._line.wire.connected()

    def close(self) -> Any:
        return self._line.wire.close()


def faulty_pool(config: StreamsConfig, faults: Faults) -> ConnectionPool:
    """Real connections with these faults."""
    connector = Connector(config.application_id, Security(), CONNECT_TIMEOUT_MS, 540_000)
    return ConnectionPool(_Opener(connector, faults).open)


def every(number: int) -> Callable[[Body], bool]:
    """Fits the n-th request, the 2n-th, and so on: what is asked again comes through."""
    count = itertools.count(1)
    return lambda _: next(count) % number == 0


# What may happen to a request


def refused(code: int, level: Level | None = None) -> Act:
    """Answered with the code, unseen by the broker: where brokers say it, unless a level of the answer is given."""

    async def act(line: Line, request: Request) -> Answer:
        api = request.api
        answer = PLACES[api.name].answer(request.content, request.version)
        body = as_decoded(api, "response", request.version)(answer)
        _set_code(body, api, code, level)
        return _Made(body)

    return act


def replaced(code: int, level: Level | None = None) -> Act:
    """Carried out by the broker; its answer is given the code."""
    return altered(lambda body, api: _set_code(body, api, code, level))


def altered(change: Callable[[Any, Api], None]) -> Act:
    """Carried out by the broker; its answer is changed on the way back."""

    async def act(line: Line, request: Request) -> Answer:
        answer = await line.wire.send(request)
        body = answer.body(request.api, request.version)
        change(body, request.api)
        return _Made(body)

    return act


async def lost_before(line: Line, request: Request) -> Answer:
    """The connection breaks before anything is sent."""
    line.wire.close()
    raise ConnectionResetError("cut before it was sent")


async def cut(line: Line, request: Request) -> Answer:
    """The connection breaks right behind the request."""
    sending = asyncio.ensure_future(line.wire.send(request))
    await asyncio.sleep(0.0005)
    line.wire.close()
    return await sending


async def lost_after(line: Line, request: Request) -> Answer:
    """The broker carries it out; the connection breaks before its answer comes."""
    await line.wire.send(request)
    line.wire.close()
    raise ConnectionResetError("cut before the answer")


async def swallowed(line: Line, request: Request) -> Answer:
    """Nothing is sent and nothing fails: the caller has to give up by itself."""
    return await _for_ever()


async def unanswered(line: Line, request: Request) -> Answer:
    """The broker carries it out, and the client never hears."""
    await line.wire.send(request)
    return await _for_ever()


def late(seconds: float) -> Act:
    """Held up on the way and carried out so much later, even if the client has given up on it by then."""

    async def act(line: Line, request: Request) -> Answer:
        return await asyncio.shield(keep(_sent_later(line, request, seconds)))

    return act


def held(seconds: float) -> Act:
    """Sent so much later, as long as the client waits for it."""

    async def act(line: Line, request: Request) -> Answer:
        await asyncio.sleep(seconds)
        return await line.wire.send(request)

    return act


# Helpers


class _Made:
    """An answer that no broker gave, or not like this."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def body(self, api: Api, version: int) -> Any:
        return self._body


def _set_code(body: Any, api: Api, code: int, level: Level | None) -> None:
    place = PLACES[api.name]
    wanted = level or place.usual(ErrorCode(code))
    if wanted == "whole":
        for holder in place.wholes(body):
            setattr(holder, place.field, code)
        return
    items = list(place.items(body))
    assert items, f"{api.name}: there is nothing to refuse in this request"
    for item in items[:1] if wanted == "first" else items:
        setattr(item, place.field, code)


async def _sent_later(line: Line, request: Request, seconds: float) -> Answer:
    wire = await line.another()
    await asyncio.sleep(seconds)
    try:
        return await wire.send(request)
    finally:
        wire.close()


_UNDER_WAY: set[asyncio.Task[Answer]] = set()


def keep(work: Coroutine[Any, Any, Answer]) -> asyncio.Task[Answer]:
    """As a task that nobody has to wait for; the event loop alone would forget it."""
    task = asyncio.create_task(work)
    _UNDER_WAY.add(task)
    task.add_done_callback(_forgotten)
    return task


def _forgotten(task: asyncio.Task[Answer]) -> None:
    _UNDER_WAY.discard(task)
    if not task.cancelled():
        task.exception()  # the connection was closed before: as good as never sent


async def _for_ever() -> Answer:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")
