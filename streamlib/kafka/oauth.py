"""Tokens for OAUTHBEARER: from the user's function, or by OAuth's client credentials grant (RFC 6749, 4.4)."""

from __future__ import annotations

import asyncio
import base64
import http.client
import inspect
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from streamlib.errors import ConnectionFailedError, ErrorCode, KafkaError
from streamlib.security import OAuthToken, Secret, Security

_USED_FOR = 0.8  # of a token's life; sessions are renewed later than that, with a new token
_LONGEST_ANSWER_BYTES = 1 << 20
_PASSES = frozenset({408, 429})


class TokenSource:
    """Gives tokens, and each of them again as long as it is good.

    Args:
        security: with a provider, or with what the grant needs.
        timeout_s: how long getting one may take.
    """

    def __init__(self, security: Security, timeout_s: float) -> None:
        self._security = security
        self._timeout_s = timeout_s
        self._kept: OAuthToken | None = None
        self._good_until_s = 0.0
        self._lock = asyncio.Lock()

    async def token(self) -> OAuthToken:
        """A token; those who ask at once wait for the same.

        Raises:
            ConnectionFailedError: none is to be had now.
            KafkaError: we get none, whenever we ask.
        """
        async with self._lock:
            if self._kept is not None and time.time() < self._good_until_s:
                return self._kept
            asked_at_s = time.time()
            self._kept = await self._new()
            expires_at_s = (self._kept.expires_at_ms or 0) / 1000
            self._good_until_s = asked_at_s + _USED_FOR * (expires_at_s - asked_at_s)
            return self._kept

    async def _new(self) -> OAuthToken:
        if self._security.sasl_oauth_token_provider is None:
            return await asyncio.to_thread(granted, self._security, self._timeout_s)
        return await provided(self._security.sasl_oauth_token_provider)


async def provided(provider: Any) -> OAuthToken:
    """A token of the user's function.

    Raises:
        ConnectionFailedError: the function raised; the cause is chained.
        KafkaError: it returned something else.
    """
    name = getattr(provider, "__qualname__", type(provider).__name__)
    where = f"sasl_oauth_token_provider {name}"
    try:
        if inspect.iscoroutinefunction(provider):
            found = await provider()
        else:
            found = await asyncio.to_thread(provider)
            found = await found if inspect.isawaitable(found) else found
    except Exception as error:
        raise ConnectionFailedError("Token", where, f"it raised {type(error).__name__}: {error}") from error
    if not isinstance(found, OAuthToken):
        detail = f"it has to return an OAuthToken, not {type(found).__name__}"
        raise KafkaError(ErrorCode.SASL_AUTHENTICATION_FAILED, "Token", where, detail)
    return found


def granted(security: Security, timeout_s: float) -> OAuthToken:
    """Ask the token endpoint. Blocks.

    Raises:
        ConnectionFailedError: it does not answer, or not now.
        KafkaError: it refuses.
    """
    url = security.sasl_oauthbearer_token_endpoint_url
    assert url is not None
    try:
        with _opener().open(_grant_request(url, security), timeout=timeout_s) as response:
            answer = _ANSWER.decode(response.read(_LONGEST_ANSWER_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(url, error.code, error.read(_LONGEST_ANSWER_BYTES)) from None
    except (OSError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        raise ConnectionFailedError("Token", url, reason) from None
    except msgspec.DecodeError:
        detail = "the answer holds no token: check sasl_oauthbearer_token_endpoint_url"
        raise KafkaError(ErrorCode.SASL_AUTHENTICATION_FAILED, "Token", url, detail) from None
    life_s = answer.expires_in
    return OAuthToken(answer.access_token, None if life_s is None else int((time.time() + life_s) * 1000))


class _Answer(msgspec.Struct):
    access_token: Secret
    expires_in: float | None = None


def _as_secret(kind: type, value: Any) -> Any:
    assert kind is Secret
    if not isinstance(value, str):
        raise TypeError("a token is text")
    return Secret(value)


class _Refusal(msgspec.Struct):
    error: str = ""
    error_description: str = ""


# Here, not where threads use them: msgspec 0.22 crashes where two of them read a type nobody has read before.
_ANSWER = msgspec.json.Decoder(_Answer, dec_hook=_as_secret)
_REFUSAL = msgspec.json.Decoder(_Refusal)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would take the secret along."""

    def redirect_request(self, *_: object) -> None:
        return None


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_NoRedirects)


def _grant_request(url: str, security: Security) -> urllib.request.Request:
    secret = security.sasl_oauthbearer_client_credentials_client_secret
    assert secret is not None
    client_id = security.sasl_oauthbearer_client_credentials_client_id or ""
    credentials = f"{quote(client_id, safe='')}:{quote(secret.reveal(), safe='')}"
    form = {"grant_type": "client_credentials"}
    if security.sasl_oauthbearer_scope is not None:
        form["scope"] = security.sasl_oauthbearer_scope
    headers = {
        "Authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}",
        "Accept": "application/json",
    }
    return urllib.request.Request(url, urlencode(form).encode(), headers, method="POST")


def _refusal(url: str, status: int, body: bytes) -> KafkaError:
    try:
        said = _REFUSAL.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = _Refusal()
    words = ": ".join(part for part in (f"HTTP {status}", said.error, said.error_description) if part)
    if status >= 500 or status in _PASSES:
        return ConnectionFailedError("Token", url, words)
    detail = f"{words}; check sasl_oauthbearer_client_credentials_client_id, its secret and sasl_oauthbearer_scope"
    return KafkaError(ErrorCode.SASL_AUTHENTICATION_FAILED, "Token", url, detail)
