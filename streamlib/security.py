"""How connections to Kafka are encrypted and authenticated: the settings, and a type for what must not be shown."""

from __future__ import annotations

import hmac
import importlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from streamlib.errors import ConfigError

SecurityProtocol: TypeAlias = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism: TypeAlias = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]

_THIS_HOST = ("localhost", "127.0.0.1", "::1")


class Secret:
    """A password or the like: it is shown nowhere, neither printed nor in logs, errors and JSON.

    >>> password = Secret("kept to ourselves")
    >>> print(password)
    Secret('***')
    >>> password.reveal()
    'kept to ourselves'
    """

    __slots__ = ("_file", "_text")

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise ConfigError(f"a secret has to be text, not {type(text).__name__}")
        self._text = text
        self._file: Path | None = None

    @classmethod
    def from_file(cls, path: str | Path) -> Secret:
        """The content of a file without the line break at its end; read again for each connection, so it may change.

        Raises:
            ConfigError: it cannot be read.
        """
        try:
            secret = cls(_content(Path(path)))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigError(f"cannot read the secret in {path}: {reason}") from None
        secret._file = Path(path)
        return secret

    def reveal(self) -> str:
        """The secret itself."""
        if self._file is not None:
            try:
                self._text = _content(self._file)
            except (OSError, UnicodeDecodeError):
                return self._text  # it is being replaced: the one before may do
        return self._text

    def __repr__(self) -> str:
        return "Secret('***')" if self._file is None else f"Secret.from_file({str(self._file)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)


class OAuthToken(msgspec.Struct, frozen=True):
    """What a token provider returns.

    Args:
        value: the token as it is sent; text becomes a `Secret`.
        expires_at_ms: Unix time; until four fifths of its life have passed it is used again. None: asked for each time.
        extensions: SASL extensions (KIP-342), such as `logicalCluster` of Confluent Cloud.

    >>> OAuthToken("eyJhbGciOi...", expires_at_ms=1_800_000_000_000)
    OAuthToken(value=Secret('***'), expires_at_ms=1800000000000, extensions={})
    """

    value: Secret
    expires_at_ms: int | None = None
    extensions: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        keep_secret(self, ("value",))


TokenProvider: TypeAlias = Callable[[], OAuthToken | Awaitable[OAuthToken]]
"""Gets a token; a function that is not `async` runs in a thread, and may block."""


class Security(msgspec.Struct, frozen=True, kw_only=True):
    """The part of `StreamsConfig` that says how to encrypt and authenticate; see there.

    Raises:
        ConfigError: something is missing, or would have no effect.
    """

    security_protocol: SecurityProtocol = "PLAINTEXT"
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_key_password: Secret | None = None
    ssl_check_hostname: bool = True
    sasl_mechanism: SaslMechanism | None = None
    sasl_username: str | None = None
    sasl_password: Secret | None = None
    sasl_oauth_token_provider: Callable[..., Any] | None = None
    sasl_oauthbearer_token_endpoint_url: str | None = None
    sasl_oauthbearer_client_credentials_client_id: str | None = None
    sasl_oauthbearer_client_credentials_client_secret: Secret | None = None
    sasl_oauthbearer_scope: str | None = None

    def __post_init__(self) -> None:
        keep_secret(self, CONNECTION_SECRETS)
        _check_tls(self)
        _check_sasl(self)

    @property
    def encrypted(self) -> bool:
        """Whether connections are TLS."""
        return self.security_protocol in ("SSL", "SASL_SSL")

    @property
    def authenticated(self) -> bool:
        """Whether SASL tells the brokers who we are."""
        return self.security_protocol in ("SASL_PLAINTEXT", "SASL_SSL")


CONNECTION_SECRETS = ("ssl_key_password", "sasl_password", "sasl_oauthbearer_client_credentials_client_secret")
"""The settings of a connection that are secret."""

KNOWN_ELSEWHERE: Mapping[str, str] = {
    "ssl_truststore_location": "ssl_cafile, a PEM file",
    "ssl_truststore_certificates": "ssl_cafile, a PEM file",
    "ssl_keystore_location": "ssl_certfile and ssl_keyfile, PEM files",
    "ssl_ca_location": "ssl_cafile",
    "ssl_certificate_location": "ssl_certfile",
    "ssl_key_location": "ssl_keyfile",
    "ssl_password": "ssl_key_password",
    "ssl_endpoint_identification_algorithm": "ssl_check_hostname",
    "sasl_jaas_config": "sasl_username and sasl_password",
    "sasl_plain_username": "sasl_username",
    "sasl_plain_password": "sasl_password",
    "sasl_mechanisms": "sasl_mechanism",
    "sasl_login_callback_handler_class": "sasl_oauth_token_provider, module:function",
}
"""What other clients call it, and what it is here."""


def keep_secret(struct: msgspec.Struct, names: tuple[str, ...]) -> None:
    """Make secrets of fields that were given as text. For `__post_init__`, before anything can show them."""
    for name in names:
        value = getattr(struct, name)
        if value is not None and not isinstance(value, Secret):
            try:
                msgspec.structs.force_setattr(struct, name, Secret(value))
            except ConfigError as error:
                raise ConfigError(f"{name}: {error}") from None


def find_provider(path: str) -> Callable[..., Any]:
    """The token provider that a file or the environment names as `module:function`.

    Raises:
        ConfigError: there is none.
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name) if module and name else None
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"sasl_oauth_token_provider {path!r} cannot be imported: {error}") from error
    if not callable(found):
        raise ConfigError(f"sasl_oauth_token_provider has to be module:function, not {path!r}")
    return found  # type: ignore[no-any-return]


def _check_tls(security: Security) -> None:
    names = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_key_password")
    given = [name for name in names if getattr(security, name) is not None]
    if not security.encrypted and given:
        wanted = "SASL_SSL" if security.authenticated else "SSL"
        raise ConfigError(
            f"{given[0]} has no effect with security_protocol={security.security_protocol}, which does not encrypt: "
            f"set security_protocol={wanted}"
        )
    if security.ssl_certfile is None and (needs := [name for name in given if name != "ssl_cafile"]):
        raise ConfigError(f"{needs[0]} is set without ssl_certfile: the certificate that it belongs to")


def _check_sasl(security: Security) -> None:
    given = [name for name in _SASL_NAMES if getattr(security, name) is not None]
    if not security.authenticated:
        if given:
            wanted = "SASL_SSL" if security.encrypted else "SASL_SSL (or SASL_PLAINTEXT)"
            raise ConfigError(
                f"{given[0]} has no effect with security_protocol={security.security_protocol}, which does not "
                f"authenticate: set security_protocol={wanted}"
            )
        return
    match security.sasl_mechanism:
        case None:
            raise ConfigError(
                f"security_protocol={security.security_protocol} needs sasl_mechanism: PLAIN, SCRAM-SHA-256, "
                "SCRAM-SHA-512 or OAUTHBEARER"
            )
        case "OAUTHBEARER":
            _check_oauth(security)
        case mechanism:
            _need(security, mechanism, ("sasl_username", "sasl_password"))
            for name in given:
                if "oauth" in name:
                    raise ConfigError(f"{name} has no effect with sasl_mechanism={mechanism}: leave it out")


_SASL_NAMES = tuple(name for name in Security.__struct_fields__ if name.startswith("sasl_"))
_GRANT = (
    "sasl_oauthbearer_token_endpoint_url",
    "sasl_oauthbearer_client_credentials_client_id",
    "sasl_oauthbearer_client_credentials_client_secret",
)


def _check_oauth(security: Security) -> None:
    for name in ("sasl_username", "sasl_password"):
        if getattr(security, name) is not None:
            raise ConfigError(f"{name} has no effect with sasl_mechanism=OAUTHBEARER: leave it out")
    if security.sasl_oauth_token_provider is None:
        if security.sasl_oauthbearer_token_endpoint_url is None:
            raise ConfigError(
                "sasl_mechanism=OAUTHBEARER needs sasl_oauth_token_provider, a function that gets tokens, or "
                f"{', '.join(_GRANT)}"
            )
        _need(security, "OAUTHBEARER", _GRANT)
        _check_url(security.sasl_oauthbearer_token_endpoint_url)
        return
    for name in (*_GRANT, "sasl_oauthbearer_scope"):
        if getattr(security, name) is not None:
            raise ConfigError(f"{name} has no effect beside sasl_oauth_token_provider: leave one of them out")


def _need(security: Security, mechanism: str, names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(security, name) is None:
            either = f" (or {name}_file)" if name in CONNECTION_SECRETS else ""
            raise ConfigError(f"sasl_mechanism={mechanism} needs {name}{either}")


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _THIS_HOST):
        return
    raise ConfigError(
        f"sasl_oauthbearer_token_endpoint_url has to begin with https://, not {parts.scheme or 'nothing'}: "
        "the client's secret is sent there"
    )


def _content(file: Path) -> str:
    return file.read_text().rstrip("\r\n")
