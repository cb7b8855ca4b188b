"""TLS for connections to brokers, and what to say when none comes about."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Iterator

from streamlib.errors import ConfigError, TlsError
from streamlib.kafka.cluster import Address
from streamlib.security import Security

# OpenSSL's X509_V_ERR_...
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})
_OTHER_NAME = frozenset({62, 63, 64})


class TlsContexts:
    """The context for the next connection: made anew when one of its files has changed.

    Raises:
        ConfigError: a file cannot be read or used.
    """

    def __init__(self, security: Security) -> None:
        self._security = security
        self._stamps = _stamps(security)
        self._context = make_context(security)

    def current(self) -> ssl.SSLContext:
        """For a connection that is opened now. While new files do not fit each other, what the old ones held."""
        try:
            stamps = _stamps(self._security)
            if stamps != self._stamps:
                self._context, self._stamps = make_context(self._security), stamps
        except ConfigError:
            return self._context  # they are being replaced, one after the other
        return self._context


def make_context(security: Security) -> ssl.SSLContext:
    """What the settings say.

    Raises:
        ConfigError: a file cannot be read or used.
    """
    try:
        context = ssl.create_default_context(cafile=security.ssl_cafile)
    except ssl.SSLError as error:
        raise ConfigError(f"ssl_cafile {security.ssl_cafile} holds no certificates in PEM: {error.reason}") from error
    context.check_hostname = security.ssl_check_hostname
    if security.ssl_certfile is not None:
        _add_own_certificate(context, security)
    return context


def _add_own_certificate(context: ssl.SSLContext, security: Security) -> None:
    secret = security.ssl_key_password
    assert security.ssl_certfile is not None
    try:
        # Without a password, OpenSSL would ask for it on the terminal.
        context.load_cert_chain(
            security.ssl_certfile, security.ssl_keyfile, lambda: "" if secret is None else secret.reveal()
        )
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or "the password is needed, or another one"
        raise ConfigError(
            f"ssl_certfile {security.ssl_certfile} cannot be used with its key in "
            f"{security.ssl_keyfile or security.ssl_certfile}: {reason}; check that both are PEM and belong together, "
            "and ssl_key_password"
        ) from None


def _stamps(security: Security) -> list[int]:
    """When the files were last written.

    Raises:
        ConfigError: one is not there.
    """
    stamps = []
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        file = getattr(security, name)
        if file is not None:
            try:
                stamps.append(os.stat(file).st_mtime_ns)
            except OSError as error:
                raise ConfigError(f"{name} {file} cannot be read: {error.strerror}") from error
    return stamps


def tls_refusal(error: BaseException, where: str, security: Security) -> TlsError | None:
    """What is wrong, if it is about certificates."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return TlsError(where, _distrust(cause, security))
        if isinstance(cause, ssl.SSLError) and "ALERT" in (reason := str(cause.reason)):
            return TlsError(where, _refused(reason, security))
    return None


def _distrust(error: ssl.SSLCertVerificationError, security: Security) -> str:
    code, words = error.verify_code, error.verify_message.rstrip(".")
    if code == _EXPIRED:
        return f"a certificate of the broker is not valid any more ({words}): renew it, or set this host's clock right"
    if code == _NOT_YET_VALID:
        return f"a certificate of the broker is not valid yet ({words}): is this host's clock right?"
    if code in _UNKNOWN_AUTHORITY:
        known = "this system" if security.ssl_cafile is None else security.ssl_cafile
        return (
            f"the broker's certificate is signed by an authority that {known} does not know ({words}): set ssl_cafile "
            "to that authority's certificate"
        )
    if code in _OTHER_NAME:
        return (
            f"the broker's certificate is for another name ({words}): use a name that it holds in bootstrap_servers "
            "and the brokers' advertised.listeners, or have a certificate made for this one"
        )
    return f"the broker's certificate is not accepted: {words}"


def _refused(reason: str, security: Security) -> str:
    said = reason.lower().replace("_", " ")
    if security.ssl_certfile is None:
        return (
            f"the broker ended the TLS handshake ({said}): if it asks for a certificate of ours, set ssl_certfile and "
            "ssl_keyfile"
        )
    return (
        f"the broker does not accept our certificate {security.ssl_certfile} ({said}): check that it is valid and "
        "signed by an authority in the broker's truststore"
    )


async def speaks_tls(address: Address) -> bool:
    """Whether something at the address answers a TLS handshake. Nothing is sent in it."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        _, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    except ssl.SSLError as error:
        return "ALERT" in str(error.reason)  # it wants a certificate
    except OSError:
        return False
    writer.transport.abort()
    return True


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
