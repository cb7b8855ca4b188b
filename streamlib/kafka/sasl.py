"""Who we are, said over a connection: SASL's mechanisms, and the requests that carry them (KIP-152, KIP-368).

A mechanism is a generator: it yields what is to be sent and is given what came back. The broker's last answer says how
long the session lasts. aiokafka's own exchange keeps that to itself, takes a token for accepted before the broker has
answered, and prints passwords in its debug log.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections.abc import Generator
from typing import Any, TypeAlias

from streamlib.errors import ErrorCode, KafkaError
from streamlib.kafka.errors import error_row
from streamlib.kafka.oauth import TokenSource
from streamlib.kafka.pool import Wire
from streamlib.kafka.protocol.messages.cluster import SASL_AUTHENTICATE, SASL_HANDSHAKE
from streamlib.kafka.protocol.request import Request
from streamlib.kafka.protocol.schema import Api
from streamlib.security import OAuthToken, Security

Exchange: TypeAlias = Generator[bytes, bytes, None]

_VERSION = 1  # of both requests: brokers from 2.2 on have it
_TOKEN_HINT = "check the token's audience, scope and expiry against what the broker asks for"
_SCRAM_HASHES = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}
# RFC 7677 asks for 4096 at least; more than the other bound would keep us busy for too long.
_SCRAM_ITERATIONS = range(4096, 1_000_000)


class Authenticator:
    """Says who we are, with one set of credentials; for one event loop.

    Args:
        security: with SASL settings.
        timeout_s: for getting a token.
    """

    def __init__(self, security: Security, timeout_s: float) -> None:
        self._security = security
        self._tokens = TokenSource(security, timeout_s)

    async def prepare(self) -> Exchange:
        """Get together what it takes; a token may have to be asked for.

        Raises:
            ConnectionFailedError: nobody gives a token now.
            KafkaError: we get none.
        """
        security = self._security
        if security.sasl_mechanism == "OAUTHBEARER":
            return oauthbearer(await self._tokens.token())
        assert security.sasl_username is not None
        assert security.sasl_password is not None
        name, password = security.sasl_username, security.sasl_password.reveal()
        if security.sasl_mechanism in _SCRAM_HASHES:
            return scram(_SCRAM_HASHES[security.sasl_mechanism], name, password, secrets.token_urlsafe(24))
        return plain(name, password)

    async def authenticate(self, connection: Wire, where: str, exchange: Exchange) -> float:
        """Say it; returns for how many seconds it holds, 0 for as long as the connection does.

        Raises:
            KafkaError: the broker refuses, or is not who it says it is.
            OSError: the connection broke; or aiokafka's error that says so.
        """
        mechanism = self._security.sasl_mechanism
        answer = await _ask(connection, SASL_HANDSHAKE, {"mechanism": mechanism})
        if answer.error_code != ErrorCode.NONE:
            offered = f"it offers {', '.join(answer.mechanisms)}, not {mechanism}; " if answer.mechanisms else ""
            raise KafkaError(answer.error_code, "SaslHandshake", where, offered + error_row(answer.error_code).hint)
        token: bytes | None = next(exchange)
        while token is not None:
            answer = await _ask(connection, SASL_AUTHENTICATE, {"auth_bytes": token})
            if answer.error_code != ErrorCode.NONE:
                hint = _TOKEN_HINT if mechanism == "OAUTHBEARER" else error_row(answer.error_code).hint
                raise KafkaError(answer.error_code, "SaslAuthenticate", where, f"{answer.error_message}; {hint}")
            token = await _reply(exchange, answer.auth_bytes, where)
        return float(answer.session_lifetime_ms) / 1000


def plain(username: str, password: str) -> Exchange:
    """RFC 4616.

    >>> next(plain("ann", "secret"))
    b'\\x00ann\\x00secret'
    """
    yield b"\0".join((b"", username.encode(), password.encode()))


def scram(algorithm: str, username: str, password: str, nonce: str) -> Exchange:
    """RFC 5802: both sides show that they know the password, and neither sends it.

    Raises:
        ValueError: the broker does not know the password, or makes no sense.
    """
    first = f"n={username.replace('=', '=3D').replace(',', '=2C')},r={nonce}"
    challenge = (yield f"n,,{first}".encode()).decode()
    asked = _attributes(challenge)
    if not asked["r"].startswith(nonce) or int(asked["i"]) not in _SCRAM_ITERATIONS:
        raise ValueError("its challenge is not to ours, or too easy or too hard to answer")
    salted = hashlib.pbkdf2_hmac(algorithm, password.encode(), base64.b64decode(asked["s"]), int(asked["i"]))
    final = f"c=biws,r={asked['r']}"
    message = f"{first},{challenge},{final}".encode()
    client_key = hmac.digest(salted, b"Client Key", algorithm)
    signature = hmac.digest(hashlib.new(algorithm, client_key).digest(), message, algorithm)
    proof = bytes(ours ^ theirs for ours, theirs in zip(client_key, signature, strict=True))
    verdict = _attributes((yield f"{final},p={base64.b64encode(proof).decode()}".encode()).decode())
    expected = hmac.digest(hmac.digest(salted, b"Server Key", algorithm), message, algorithm)
    if not hmac.compare_digest(base64.b64decode(verdict["v"]), expected):
        raise ValueError("it does not know the password: it is not the broker it says it is")


def oauthbearer(token: OAuthToken) -> Exchange:
    """RFC 7628."""
    extensions = "".join(f"\x01{name}={value}" for name, value in token.extensions.items())
    challenge = yield f"n,,\x01auth=Bearer {token.value.reveal()}{extensions}\x01\x01".encode()
    if challenge:
        yield b"\x01"  # what it has against the token; the refusal comes after this


async def _ask(connection: Wire, api: Api, body: dict[str, Any]) -> Any:
    answer = await connection.send(Request(api, _VERSION, body))
    return answer.body(api, _VERSION)


async def _reply(exchange: Exchange, challenge: bytes, where: str) -> bytes | None:
    """The next thing to send. In a thread, for SCRAM hashes thousands of times to make guessing expensive."""
    try:
        return await asyncio.to_thread(_step, exchange, challenge)
    except (ValueError, KeyError) as error:
        reason = error if isinstance(error, ValueError) else "its answer makes no sense"
        detail = f"the broker failed to authenticate itself: {reason}"
        raise KafkaError(ErrorCode.SASL_AUTHENTICATION_FAILED, "SaslAuthenticate", where, detail) from None


def _step(exchange: Exchange, challenge: bytes) -> bytes | None:
    try:
        return exchange.send(challenge)
    except StopIteration:
        return None


def _attributes(message: str) -> dict[str, str]:
    return {name: value for name, _, value in (part.partition("=") for part in message.split(","))}
