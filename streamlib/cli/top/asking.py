"""Asks a worker's console about the whole application."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import SplitResult, urlsplit

import msgspec

from streamlib.cli.errors import UsageError
from streamlib.errors import StreamsError
from streamlib.security import Secret
from streamlib.snapshots.application import ApplicationSnapshot

DEFAULT_URL = "http://127.0.0.1:8080"
PATIENCE_S = 4.0


class NoAnswerError(StreamsError):
    """The console did not answer, or not as one."""


def console_url(text: str) -> SplitResult:
    """`http://HOST:PORT`, `HOST:PORT` or a port of this host.

    Raises:
        UsageError: it is none of these.

    >>> console_url("8080").geturl(), console_url("shop:80/console/").geturl()
    ('http://127.0.0.1:8080', 'http://shop:80/console')
    """
    if text.isdecimal():
        text = f"127.0.0.1:{text}"
    url = urlsplit(text if "://" in text else f"http://{text}")
    try:
        usable = url.scheme in ("http", "https") and url.hostname and (url.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"{text!r} is no address of a web console: give a URL such as {DEFAULT_URL}, or a port")
    return url._replace(path=url.path.rstrip("/"), query="", fragment="")


class Asking:
    """Asks one console, again and again.

    Args:
        url: of the console.
        token: its `web_token`.
    """

    def __init__(self, url: SplitResult, token: Secret | None) -> None:
        self._url = url
        self._token = token

    def body(self) -> bytes:
        """The JSON of an `ApplicationSnapshot`.

        Raises:
            NoAnswerError: there is none.
        """
        status, body = self.get(f"{self._url.path}/api/application")
        if status == 401:
            raise NoAnswerError(
                f"{self._url.geturl()} wants its token: set STREAMLIB_WEB_TOKEN to what the application has, or give "
                "--token-file"
            )
        if status != 200:
            raise NoAnswerError(f"{self._url.geturl()} answers with status {status}: is it a console of 'run --web'?")
        return body

    def snapshot(self) -> ApplicationSnapshot:
        """The same as a value.

        Raises:
            NoAnswerError: there is none.
        """
        try:
            return msgspec.json.decode(self.body(), type=ApplicationSnapshot)
        except msgspec.DecodeError as error:
            raise NoAnswerError(
                f"{self._url.geturl()} says something else than a console of this version: {error}"
            ) from error

    def get(self, path: str) -> tuple[int, bytes]:
        """The status and the body of a page.

        Raises:
            NoAnswerError: there is none.
        """
        kind = HTTPSConnection if self._url.scheme == "https" else HTTPConnection
        assert self._url.hostname is not None
        connection = kind(self._url.hostname, self._url.port, timeout=PATIENCE_S)
        try:
            connection.request("GET", path, headers=self._headers())
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise NoAnswerError(f"{self._url.geturl()} does not answer: {reason}") from None
        finally:
            connection.close()

    def _headers(self) -> dict[str, str]:
        return {} if self._token is None else {"Authorization": f"Bearer {self._token.reveal()}"}
