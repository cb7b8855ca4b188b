"""Connections to brokers: one for each node and lane, opened independently of each other.

A lane is a connection of its own, because a broker answers the requests of one connection strictly in turn:
what must not wait behind a long poll or a pending join gets another lane. aiokafka's own client holds one
lock while it connects to any broker, so one broker that swallows packets stalls the connections to all;
here each slot connects alone.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping
from typing import Any, Protocol, TypeAlias

import msgspec
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import BrokerResponseError
from aiokafka.errors import KafkaError as AioKafkaError

from streamlib.errors import ConnectionFailedError, ErrorCode, KafkaError, UnsupportedBrokerError
from streamlib.kafka.cluster import Address
from streamlib.kafka.errors import error_row
from streamlib.kafka.protocol.messages.cluster import API_VERSIONS
from streamlib.kafka.protocol.primitives import EncodeError
from streamlib.kafka.protocol.request import Request
from streamlib.kafka.protocol.schema import Api

# aiokafka's own timeout of a request: never. Ours differ from call to call (a join may take minutes).
_NEVER_MS = 10**11
_CLOSE_TIMEOUT_S = 1.0
_SASL_REFUSALS = frozenset(
    {ErrorCode.SASL_AUTHENTICATION_FAILED, ErrorCode.UNSUPPORTED_SASL_MECHANISM, ErrorCode.ILLEGAL_SASL_STATE}
)
# The first version with finalized features (KIP-584); brokers from 2.4 on have it.
_API_VERSIONS_VERSION = 3


class Security(msgspec.Struct, frozen=True, kw_only=True):
    """How to authenticate and encrypt; the names are aiokafka's."""

    security_protocol: str = "PLAINTEXT"
    ssl_context: ssl.SSLContext | None = None
    sasl_mechanism: str = "PLAIN"
    sasl_plain_username: str | None = None
    sasl_plain_password: str | None = None
    sasl_kerberos_service_name: str = "kafka"
    sasl_kerberos_domain_name: str | None = None
    sasl_oauth_token_provider: object | None = None


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

    async def link(self, node: int, lane: Hashable, address: Address) -> Link:
        """The node's connection on this lane. Callers that ask while it opens share the attempt; none can
        cancel it.

        Raises:
            ConnectionFailedError: the broker cannot be reached.
            KafkaError: it refuses our credentials.
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
        if slot is not None:
            _close(slot)

    def drop_lane(self, lane: Hashable) -> None:
        """Close the lane's connections to all nodes."""
        for node, other in list(self._slots):
            if other == lane:
                self.drop(node, lane)

    async def close(self) -> None:
        """Close everything, and wait a moment for the sockets."""
        closing = [waiter for slot in self._slots.values() if (waiter := _close(slot)) is not None]
        self._slots.clear()
        if closing:
            await asyncio.wait(closing, timeout=_CLOSE_TIMEOUT_S)


class Connector:
    """Opens real connections, with one set of credentials."""

    def __init__(self, client_id: str, security: Security, connect_timeout_ms: int, max_idle_ms: int) -> None:
        self._client_id = client_id
        self._security = security
        self._connect_timeout_s = connect_timeout_ms / 1000
        self._max_idle_ms = max_idle_ms

    async def open(self, node: int, address: Address, number: int) -> Link:
        """Connect, authenticate, and ask the broker what it can do."""
        connection = self._connection(address)
        where = f"broker {node} at {address}" if node >= 0 else str(address)
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await connection.connect()
                return await _introduce(connection, number)
        except BaseException as error:
            connection.close()
            raise _explained(error, where) from error

    def _connection(self, address: Address) -> AIOKafkaConnection:
        return AIOKafkaConnection(
            address.host,
            address.port,
            client_id=self._client_id,
            request_timeout_ms=_NEVER_MS,
            max_idle_ms=self._max_idle_ms,
            **msgspec.structs.asdict(self._security),
        )


async def _introduce(connection: AIOKafkaConnection, number: int) -> Link:
    """Ask for versions and features; aiokafka's own question (v0) gives no features."""
    body = {"client_software_name": "streamlib", "client_software_version": "0"}
    response = await connection.send(Request(API_VERSIONS, _API_VERSIONS_VERSION, body))
    answer = response.body(API_VERSIONS, _API_VERSIONS_VERSION)
    return Link(
        number,
        connection,
        {api.api_key: (api.min_version, api.max_version) for api in answer.api_keys},
        {feature.name: feature.max_version_level for feature in answer.finalized_features},
        answer.finalized_features_epoch,
    )


def _explained(error: BaseException, where: str) -> BaseException:
    match error:
        case EncodeError():
            detail = f"{where} is too old: Kafka 2.5 or newer is needed ({error})"
            return UnsupportedBrokerError("ApiVersions", detail)
        case BrokerResponseError(errno=code) if code in _SASL_REFUSALS:
            return KafkaError(code, "SaslAuthenticate", where, f"{error}; {error_row(code).hint}")
        case TimeoutError():
            return ConnectionFailedError("Connect", where, "no answer in time")
        case OSError() | AioKafkaError():
            return ConnectionFailedError("Connect", where, str(error) or type(error).__name__)
        case _:
            return error


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
