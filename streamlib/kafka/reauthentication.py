"""A connection whose session ends, and is renewed in time on the same connection (KIP-368).

The broker answers what was sent before the renewal first. What is to be sent during it waits, and goes out in the order
it came: a producer's batches may not overtake each other, which they could on a second connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import Awaitable
from typing import Any

from aiokafka.errors import KafkaError as AioKafkaError

from streamlib.errors import StreamsError
from streamlib.kafka.pool import Answer, Wire
from streamlib.kafka.protocol.request import Request
from streamlib.kafka.sasl import Authenticator

log = logging.getLogger("streamlib.kafka")

# Of a session's life, when it is renewed: Kafka's own window. By chance, so that not all connections do it at once.
_EARLIEST, _LATEST = 0.85, 0.95
# Brokers take no second renewal within a second of the first.
_SHORTEST_S = 1.1
_PAUSE_S = 1.0


class RenewedConnection:
    """Implements `Wire`, for a session that lasts `lifetime_s` from now. It is renewed when something is sent."""

    def __init__(self, connection: Wire, authenticator: Authenticator, where: str, lifetime_s: float) -> None:
        self._connection = connection
        self._authenticator = authenticator
        self._where = where
        self._loop = asyncio.get_running_loop()
        self._renewal: asyncio.Task[None] | None = None
        self._exchanging = False  # while the broker takes nothing but SASL
        self._held: list[tuple[Request, asyncio.Future[Answer]]] = []  # empty unless a renewal is under way
        self._due_s = self._over_s = math.inf
        self._begin(self._loop.time(), lifetime_s)

    def send(self, request: Request) -> Awaitable[Answer]:
        """Send a request, or keep it until the renewal that is under way is over."""
        now_s = self._loop.time()
        if self._renewal is None and now_s >= self._due_s and self._connection.connected():
            self._renewal = self._loop.create_task(self._renew())
        # Whoever sends anything else after its session is over is disconnected.
        if not self._exchanging and (now_s < self._over_s or self._renewal is None):
            return self._connection.send(request)
        answer = self._loop.create_future()
        self._held.append((request, answer))
        return answer

    def connected(self) -> bool:
        """Whether it is open."""
        return self._connection.connected()

    def close(self) -> Any:
        """Close it; what is held back fails, too."""
        if self._renewal is not None:
            self._renewal.cancel()
        self._fail_held(ConnectionError("closed while its session was renewed"))
        return self._connection.close()

    def _begin(self, now_s: float, lifetime_s: float) -> None:
        if lifetime_s <= 0:  # it lasts as long as the connection
            return
        self._over_s = now_s + lifetime_s
        self._due_s = now_s + max(_SHORTEST_S, lifetime_s * random.uniform(_EARLIEST, _LATEST))

    async def _renew(self) -> None:
        """Nothing is held back while a token is got, unless the session is over already."""
        try:
            exchange = await self._authenticator.prepare()
        except StreamsError as error:
            self._put_off(error)
            return
        self._exchanging = True
        began_s = self._loop.time()
        try:
            lifetime_s = await self._authenticator.authenticate(self._connection, self._where, exchange)
        except (AioKafkaError, OSError, StreamsError) as error:
            self._give_up(error)
            return
        self._due_s = self._over_s = math.inf
        self._begin(began_s, lifetime_s)
        self._renewal, self._exchanging = None, False
        held, self._held = self._held, []
        for request, answer in held:
            self._pass_on(request, answer)
        log.debug("the session with %s is renewed, for %.0f s", self._where, lifetime_s)

    def _put_off(self, error: StreamsError) -> None:
        """While the session goes on, there may be another token to be had."""
        if self._held or self._loop.time() >= self._over_s:
            self._give_up(error)
            return
        log.warning("the session with %s cannot be renewed now: %s", self._where, error)
        self._due_s, self._renewal = self._loop.time() + _PAUSE_S, None

    def _give_up(self, error: Exception) -> None:
        """The next connection finds out whether the credentials are good, and that is where patience is."""
        log.warning("the session with %s could not be renewed, so it is connected anew: %s", self._where, error)
        self._fail_held(ConnectionError(f"its session could not be renewed: {error}"))
        self._connection.close()

    def _pass_on(self, request: Request, answer: asyncio.Future[Answer]) -> None:
        """Send what was held back, unless nobody waits for it any more."""
        if answer.done():
            return
        try:
            sent = asyncio.ensure_future(self._connection.send(request))  # written now, answered later
        except (AioKafkaError, OSError) as error:
            answer.set_exception(error)
            return
        sent.add_done_callback(lambda done: _copy(done, answer))

    def _fail_held(self, error: Exception) -> None:
        held, self._held = self._held, []
        for _, answer in held:
            if not answer.done():
                answer.set_exception(error)
                with contextlib.suppress(ConnectionError):
                    answer.exception()  # whoever waits gets it; asyncio complains if nobody does


def _copy(done: asyncio.Future[Answer], answer: asyncio.Future[Answer]) -> None:
    if answer.done():
        done.cancelled() or done.exception()
    elif done.cancelled():
        answer.cancel()
    elif (error := done.exception()) is not None:
        answer.set_exception(error)
    else:
        answer.set_result(done.result())
