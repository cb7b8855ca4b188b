"""Connections to brokers: one for each node and lane, opened independently of each other.

A lane is a connection of its own, because a broker answers the requests of one connection strictly in turn:
what must not wait behind a long poll or a pending join gets another lane. aiokafka's own client holds one
lock while it connects to any broker, so one broker that swallows packets stalls the connections to all;
here each slot connects alone.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping
from typing import Any, Protocol, TypeAlias

import msgspec

from streamlib.errors import ConnectionFailedError
from streamlib.kafka.cluster import Address
from streamlib.kafka.protocol.request import Request
from streamlib.kafka.protocol.schema import Api

_CLOSE_TIMEOUT_S = 1.0


class Wire(Protocol):
    """What a connection has to be able to do; `AIOKafkaConnection` is one."""

    def send(self, request: Request) -> Awaitable[Answer]:
        """Send a request; raises `OSError` or aiokafka's errors if no answer comes."""
        ...

    def connected(self) -> bool: ...

    def close(self) -> Any:
        """Begin to close; what waits for an answer fails."""
        ...


class Answer(Protocol):
    """A response that has not been decoded yet."""

    def body(self, api: Api, version: int) -> Any: ...


class Link(msgspec.Struct, frozen=True):
    """An open connection, and what the broker at its end could do when it was opened, as the pool's `number`-th."""

    number: int
    connection: Wire
    versions: Mapping[int, tuple[int, int]]
    features: Mapping[str, int]
    features_epoch: int


OpenLink: TypeAlias = Callable[[int, Address, int], Coroutine[Any, Any, Link]]
"""Opens a connection: to a node, at an address, as the pool's n-th."""


class Pool(Protocol):
    """Where a client gets its connections from; `ConnectionPool` opens real ones, tests and the simulation others."""

    async def link(self, node: int, lane: Hashable, address: Address) -> Link: ...
    def drop(self, node: int, lane: Hashable) -> None: ...
    def drop_lane(self, lane: Hashable) -> None: ...
    async def close(self) -> None: ...


class _Slot(msgspec.Struct, frozen=True):
    address: Address
    task: asyncio.Task[Link]

    @property
    def usable(self) -> bool:
        """Still connecting, or connected."""
        if not self.task.done():
            return True
        if self.task.cancelled() or self.task.exception() is not None:
            return False
        return bool(self.task.result().connection.connected())


class ConnectionPool:
    """Opens connections when they are asked for, and again after they broke.

    Args:
        open_link: opens one connection to a node at an address, the pool's n-th: `Connector.open` for real ones.
    """

    def __init__(self, open_link: OpenLink) -> None:
        self._open_link = open_link
        self._numbers = itertools.count()
        self._slots: dict[tuple[int, Hashable], _Slot] = {}
        self._closing: set[asyncio.Future[Any]] = set()  # connections that were dropped, until their sockets are closed

    async def link(self, node: int, lane: Hashable, address: Address) -> Link:
        """The node's connection on this lane. Callers that ask while it opens share the attempt; none can
        cancel it.

        Raises:
            ConnectionFailedError: the broker cannot be reached.
            KafkaError: it refuses our credentials.
            TlsError: there is no trust, or no TLS, between us.
            UnsupportedBrokerError: it is too old to say what it can do.
        """
        slot = self._slots.get((node, lane))
        if slot is None or slot.address != address or not slot.usable:
            self.drop(node, lane)
            slot = _Slot(address, asyncio.create_task(self._open_link(node, address, next(self._numbers))))
            slot.task.add_done_callback(_look_at_failure)
            self._slots[node, lane] = slot
        try:
            return await asyncio.shield(slot.task)
        except asyncio.CancelledError:
            if _being_cancelled():
                raise
            # Not we, but the attempt was cancelled, by `drop` or `close`.
            raise ConnectionFailedError("Connect", str(address), "closed while it was being opened") from None

    def drop(self, node: int, lane: Hashable) -> None:
        """Close one connection; whoever waits on it gets a `ConnectionFailedError`."""
        slot = self._slots.pop((node, lane), None)
        if slot is not None and (waiter := _close(slot)) is not None:
            self._closing.add(waiter)
            waiter.add_done_callback(self._closing.discard)

    def drop_lane(self, lane: Hashable) -> None:
        """Close the lane's connections to all nodes."""
        for node, other in list(self._slots):
            if other == lane:
                self.drop(node, lane)

    async def close(self) -> None:
        """Close everything, and wait a moment for the sockets."""
        for node, lane in list(self._slots):
            self.drop(node, lane)
        if self._closing:
            await asyncio.wait(self._closing.copy(), timeout=_CLOSE_TIMEOUT_S)


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _close(slot: _Slot) -> asyncio.Future[Any] | None:
    """Begin to close; returns what to wait for."""
    if not slot.task.done():
        slot.task.cancel()
        return slot.task
    if slot.task.cancelled() or slot.task.exception() is not None:
        return None
    closed: asyncio.Future[Any] | None = slot.task.result().connection.close()
    return closed


def _look_at_failure(task: asyncio.Task[Link]) -> None:
    """Those who waited may all have been cancelled; asyncio complains of exceptions that nobody looked at."""
    if not task.cancelled():
        task.exception()
