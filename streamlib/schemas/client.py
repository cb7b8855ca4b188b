"""The registry's HTTP interface, as Confluent defines it and Karapace, Apicurio and Redpanda speak it.

Requests are few: schemas do not change once they have an id. They block, so they are made before the application runs,
or, for an id that turns up later, once, within `timeout_s`.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote, unquote, urlsplit

import msgspec

from streamlib.errors import ConfigError, ExtraMissingError, SchemaRegistryError, SchemaRegistryUnavailableError
from streamlib.schemas.schema import Reference, Registered, Schema, SchemaType, UnknownSchemaError

try:
    import urllib3
    from urllib3.exceptions import HTTPError
    from urllib3.util import Timeout
except ImportError as error:
    raise ExtraMissingError("streamlib.schemas", "schemas") from error

T = TypeVar("T")

Token: TypeAlias = str | Callable[[], str]

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 1.0
NOT_FOUND = 404
AGAIN = frozenset({408, 429})
"""The registry is there and says: later. So are all its own failures, from 500 on."""


class _Stored(msgspec.Struct, rename="camel"):
    """What the registry answers, one way or another."""

    id: int = 0
    version: int = 0
    schema: str = ""
    schema_type: SchemaType | None = "AVRO"
    references: list[Reference] | None = None

    def registered(self) -> Registered:
        return Registered(
            self.id, Schema(self.schema, self.schema_type or "AVRO", tuple(self.references or ())), self.version
        )


class _Refusal(msgspec.Struct):
    error_code: int = 0
    message: str | None = None


# Here, not where threads use them: msgspec 0.22 crashes where two of them read a type nobody has read before.
_STORED = msgspec.json.Decoder(_Stored)
_VERSIONS = msgspec.json.Decoder(list[int])
_REFUSAL = msgspec.json.Decoder(_Refusal)


class HttpClient:
    """A registry behind one or several URLs (`streamlib.schemas.schema.Client`).

    Raises:
        ConfigError: a URL is none, or several ways to log in are given.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        basic_auth: tuple[str, str] | None = None,
        bearer_token: Token | None = None,
        ssl_context: ssl.SSLContext | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        parsed = [_parsed(url) for url in urls]
        if not parsed:
            raise ConfigError("a schema registry needs a URL, such as http://localhost:8081")
        self._urls = [url for url, _ in parsed]
        in_url = next((user for _, user in parsed if user is not None), None)
        if sum(each is not None for each in (basic_auth, bearer_token, in_url)) > 1:
            raise ConfigError("log in to the schema registry in one way: basic_auth=, bearer_token= or user in the URL")
        self._basic = basic_auth or in_url
        self._token = bearer_token
        self._timeout_s = timeout_s
        # We repeat on our own; and nobody is followed elsewhere, with our password.
        self._pool = urllib3.PoolManager(ssl_context=ssl_context, retries=False)

    @property
    def address(self) -> str:
        return ",".join(self._urls)

    def by_id(self, schema_id: int) -> Schema:
        return self._ask("GET", f"/schemas/ids/{schema_id}", _STORED).registered().schema

    def register(self, subject: str, schema: Schema) -> int:
        return self._ask("POST", f"/subjects/{_quoted(subject)}/versions", _STORED, schema).id

    def look_up(self, subject: str, schema: Schema) -> Registered:
        return self._ask("POST", f"/subjects/{_quoted(subject)}", _STORED, schema).registered()

    def latest(self, subject: str) -> Registered:
        return self._ask("GET", f"/subjects/{_quoted(subject)}/versions/latest", _STORED).registered()

    def version(self, subject: str, version: int) -> Registered:
        return self._ask("GET", f"/subjects/{_quoted(subject)}/versions/{version}", _STORED).registered()

    def versions(self, subject: str) -> list[int]:
        return self._ask("GET", f"/subjects/{_quoted(subject)}/versions", _VERSIONS)

    def _ask(self, method: str, path: str, decoder: msgspec.json.Decoder[T], body: Schema | None = None) -> T:
        """Ask one URL after the other, again and again, until there is an answer or the time is over."""
        ends_s, pause_s, attempt = time.monotonic() + self._timeout_s, FIRST_PAUSE_S, 0
        while True:
            url = self._urls[attempt % len(self._urls)]
            attempt += 1
            why = self._try(method, url + path, ends_s, body)
            if not isinstance(why, str):
                return self._answer(f"{method} {path}", why, decoder)
            left_s = ends_s - time.monotonic()
            if left_s <= pause_s:
                raise SchemaRegistryUnavailableError(
                    f"{method} {path}", f"the schema registry at {self.address}",
                    f"{why}; no answer within {self._timeout_s:g} s: is it running, and reachable from here?",
                )  # fmt: skip
            if attempt % len(self._urls) == 0:
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _try(self, method: str, url: str, ends_s: float, body: Schema | None) -> urllib3.BaseHTTPResponse | str:
        """The answer, or why there is none yet."""
        left_s = max(ends_s - time.monotonic(), 0.001)
        data = None if body is None else msgspec.json.encode(_posted(body))
        try:
            response = self._pool.request(
                method, url, body=data, headers=self._headers(), timeout=Timeout(total=left_s)
            )
        except HTTPError as error:
            return f"{type(error).__name__}: {error}"
        return f"status {response.status}" if response.status in AGAIN or response.status >= 500 else response

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": f"{MEDIA_TYPE}, application/json", "Content-Type": MEDIA_TYPE}
        if self._basic is not None:
            headers |= urllib3.make_headers(basic_auth=":".join(self._basic))
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token() if callable(self._token) else self._token}"
        return headers

    def _answer(self, what: str, response: urllib3.BaseHTTPResponse, decoder: msgspec.json.Decoder[T]) -> T:
        if response.status < 300:
            try:
                return decoder.decode(response.data)
            except msgspec.MsgspecError as error:
                raise SchemaRegistryError(
                    f"{what}: what answers at {self.address} is no schema registry: {error}; is the path in the URL "
                    "right? (Apicurio: /apis/ccompat/v7)"
                ) from error
        said = _said(response)
        match response.status:
            case 404:
                raise UnknownSchemaError(f"{what}: {said}")
            case 401 | 403:
                raise SchemaRegistryError(
                    f"{what}: the schema registry at {self.address} does not let us ({response.status}: {said}): check "
                    "basic_auth= or bearer_token=, and the rights of that user"
                )
            case _:
                raise SchemaRegistryError(
                    f"{what}: the schema registry at {self.address} refuses ({response.status}: {said})"
                )


def _parsed(url: str) -> tuple[str, tuple[str, str] | None]:
    """The URL without user and password, and these."""
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("the URL of a schema registry begins with http:// or https:// and names a host")
    host = parts.netloc.rpartition("@")[2]
    user = None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}", user


def _posted(schema: Schema) -> dict[str, Any]:
    """Older registries know no type but Avro, and no references."""
    posted: dict[str, Any] = {"schema": schema.schema}
    if schema.schema_type != "AVRO":
        posted["schemaType"] = schema.schema_type
    if schema.references:
        posted["references"] = schema.references
    return posted


def _said(response: urllib3.BaseHTTPResponse) -> str:
    try:
        refusal = _REFUSAL.decode(response.data)
    except msgspec.MsgspecError:
        return response.data[:200].decode(errors="replace") or "no reason given"
    return f"{refusal.message or 'no reason given'} (error code {refusal.error_code})"


def _quoted(subject: str) -> str:
    return quote(subject, safe="")
