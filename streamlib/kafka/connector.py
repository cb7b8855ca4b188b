"""Opens connections to brokers: encrypts, authenticates, asks what they can do, and says why it does not work."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaError as AioKafkaError

from streamlib.errors import ConnectionFailedError, ErrorCode, KafkaError, TlsError, UnsupportedBrokerError
from streamlib.kafka.cluster import Address
from streamlib.kafka.pool import Answer, Link, Wire
from streamlib.kafka.protocol.messages.cluster import API_VERSIONS, SASL_HANDSHAKE
from streamlib.kafka.protocol.primitives import EncodeError
from streamlib.kafka.protocol.request import Request
from streamlib.kafka.reauthentication import RenewedConnection
from streamlib.kafka.sasl import Authenticator
from streamlib.kafka.tls import TlsContexts, speaks_tls, tls_refusal
from streamlib.security import Security

log = logging.getLogger("streamlib.kafka")

# aiokafka's own timeout of a request: never. Ours differ from call to call (a join may take minutes).
_NEVER_MS = 10**11
# The first version with finalized features (KIP-584); brokers from 2.4 on have it.
_API_VERSIONS_VERSION = 3
_LOOK_S = 2.0
_GOODBYE_S = 0.2


class Connector:
    """Opens real connections, with one set of credentials.

    Raises:
        ConfigError: a file of the security settings cannot be used.
    """

    def __init__(self, client_id: str, security: Security, connect_timeout_ms: int, max_idle_ms: int) -> None:
        self._client_id = client_id
        self._security = security
        self._connect_timeout_s = connect_timeout_ms / 1000
        self._max_idle_ms = max_idle_ms
        self._tls = TlsContexts(security) if security.encrypted else None
        self._authenticator = Authenticator(security, self._connect_timeout_s) if security.authenticated else None
        if self._authenticator is not None and self._tls is None:
            log.warning("security_protocol=SASL_PLAINTEXT: credentials and data go over the network unencrypted")

    async def open(self, node: int, address: Address, number: int) -> Link:
        """Connect, authenticate, and ask the broker what it can do.

        Raises:
            TlsError: a certificate is not accepted, or the listener speaks something else.
            ConnectionFailedError: the broker cannot be reached.
            UnsupportedBrokerError: it is too old to say what it can do.
            KafkaError: it refuses our credentials.
        """
        connection = self._connection(address)
        where = f"broker {node} at {address}" if node >= 0 else str(address)
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                # Before there is a connection, so that the broker does not wait for a token that is long in coming.
                exchange = None if self._authenticator is None else await self._authenticator.prepare()
                await connection.connect()
                wire: Wire = connection
                if self._authenticator is not None and exchange is not None:
                    lifetime_s = await self._authenticator.authenticate(connection, where, exchange)
                    wire = RenewedConnection(connection, self._authenticator, where, lifetime_s)
                elif node < 0:
                    wire = _Unproven(connection, functools.partial(self._wants_sasl, where, address))
                return await _introduce(wire, number)
        except (OSError, AioKafkaError) as error:
            connection.close()
            raise await self._explained(error, where, address) from error
        except EncodeError as error:
            connection.close()
            detail = f"{where} is too old: Kafka 2.5 or newer is needed ({error})"
            raise UnsupportedBrokerError("ApiVersions", detail) from error
        except BaseException:
            connection.close()
            raise

    def _connection(self, address: Address) -> AIOKafkaConnection:
        """TLS is aiokafka's part, SASL is ours."""
        kind = AIOKafkaConnection if self._tls is None else _TlsConnection
        return kind(
            address.host,
            address.port,
            client_id=self._client_id,
            request_timeout_ms=_NEVER_MS,
            max_idle_ms=self._max_idle_ms,
            security_protocol="PLAINTEXT" if self._tls is None else "SSL",
            ssl_context=None if self._tls is None else self._tls.current(),
        )

    async def _explained(self, error: BaseException, where: str, address: Address) -> KafkaError:
        refusal = tls_refusal(error, where, self._security)
        if refusal is not None:
            return refusal
        if isinstance(error, TimeoutError):
            return ConnectionFailedError("Connect", where, "no answer in time")
        if not isinstance(error, ConnectionRefusedError) and await self._speaks_otherwise(address):
            return TlsError(where, _otherwise(self._security))
        return ConnectionFailedError("Connect", where, str(error) or type(error).__name__)

    async def _speaks_otherwise(self, address: Address) -> bool:
        """Whether the listener has TLS where we have none, or the other way round: then it hangs up without a word."""
        try:
            async with asyncio.timeout(_LOOK_S):
                return await (speaks_tls(address) if self._tls is None else _speaks_plainly(address))
        except TimeoutError:
            return False

    async def _wants_sasl(self, where: str, address: Address) -> KafkaError | None:
        """What to say if the listener, which has hung up on us, takes nobody without SASL."""
        connection = self._connection(address)
        try:
            async with asyncio.timeout(_LOOK_S):
                await connection.connect()
                answer = await connection.send(Request(SASL_HANDSHAKE, 1, {"mechanism": ""}))
                offered = answer.body(SASL_HANDSHAKE, 1)
        except (OSError, AioKafkaError, EncodeError):
            return None
        finally:
            connection.close()
        if offered.error_code != ErrorCode.UNSUPPORTED_SASL_MECHANISM:
            return None
        protocol = "SASL_PLAINTEXT" if self._tls is None else "SASL_SSL"
        detail = (
            f"the listener takes nobody without SASL: set security_protocol={protocol}, sasl_mechanism (it offers "
            f"{', '.join(offered.mechanisms)}) and the credentials"
        )
        return KafkaError(ErrorCode.ILLEGAL_SASL_STATE, "Connect", where, detail)


class _TlsConnection(AIOKafkaConnection):  # type: ignore[misc]
    """Does not wait for the broker's goodbye: it reads ours only after it has answered what is pending."""

    def close(self, *arguments: Any, **named: Any) -> Any:
        """Close it."""
        transport = None if self._writer is None else self._writer.transport
        closed = super().close(*arguments, **named)
        if transport is not None and not self._loop.is_closed():
            self._loop.call_later(_GOODBYE_S, transport.abort)
        return closed


class _Unproven:
    """A connection without SASL to a listener that may want it: that hangs up at the first request that matters.

    Implements `Wire`. Only connections to `bootstrap_servers` are: brokers name listeners of the same kind.
    """

    def __init__(self, connection: Wire, explain: Callable[[], Awaitable[KafkaError | None]]) -> None:
        self._connection = connection
        self._explain = explain

    async def send(self, request: Request) -> Answer:
        """Send a request; if the listener hangs up, find out whether it wants SASL."""
        try:
            return await self._connection.send(request)
        except (AioKafkaError, OSError) as error:
            raise await self._explain() or error from error

    def connected(self) -> bool:
        """Whether it is open."""
        return self._connection.connected()

    def close(self) -> Any:
        """Close it."""
        return self._connection.close()


async def _introduce(wire: Wire, number: int) -> Link:
    """Ask for versions and features; aiokafka's own question (v0) gives no features."""
    body = {"client_software_name": "streamlib", "client_software_version": "0"}
    response = await wire.send(Request(API_VERSIONS, _API_VERSIONS_VERSION, body))
    answer = response.body(API_VERSIONS, _API_VERSIONS_VERSION)
    return Link(
        number,
        wire,
        {api.api_key: (api.min_version, api.max_version) for api in answer.api_keys},
        {feature.name: feature.max_version_level for feature in answer.finalized_features},
        answer.finalized_features_epoch,
    )


async def _speaks_plainly(address: Address) -> bool:
    """Whether a broker answers at the address without TLS. Nothing but the question for its versions is sent."""
    connection = AIOKafkaConnection(address.host, address.port, request_timeout_ms=_NEVER_MS)
    try:
        await connection.connect()
    except (OSError, AioKafkaError):
        return False
    finally:
        connection.close()
    return True


def _otherwise(security: Security) -> str:
    """What to say to a listener with TLS where we have none, or without where we have it."""
    if security.encrypted:
        wanted = "SASL_PLAINTEXT" if security.authenticated else "PLAINTEXT"
        return f"the listener speaks no TLS: use the port of its encrypted one, or set security_protocol={wanted}"
    wanted = "SASL_SSL" if security.authenticated else "SSL, or SASL_SSL if it asks for a user name"
    return f"the listener speaks TLS: set security_protocol={wanted}"
