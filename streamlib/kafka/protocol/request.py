"""Puts our messages on an aiokafka connection.

`AIOKafkaConnection.send` asks a request for no more than `prepare(versions)`, and what that gives for a
header, a body and a way to read the response; so requests of any API and version travel over aiokafka's
connections, with its TLS and SASL. A test pins the contract (`tests/kafka/test_request.py`), the version
range pins aiokafka.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from typing import Any

from streamlib.kafka.protocol.codec import decode_whole, encode
from streamlib.kafka.protocol.primitives import EncodeError
from streamlib.kafka.protocol.schema import Api

_HEADER = struct.Struct(">hhih")
_CORRELATION_ID_BYTES = 4


class Response:
    """A response as it came in; decoded by whoever waits for it, so a cancelled call costs nothing more."""

    __slots__ = ("_at", "_buffer")

    def __init__(self, buffer: bytes, at: int) -> None:
        self._buffer = buffer
        self._at = at

    @classmethod
    def decode(cls, stream: io.BytesIO) -> Response:
        """Called by the connection, behind the correlation id. `getvalue` does not copy."""
        return cls(stream.getvalue(), stream.tell())

    def body(self, api: Api, version: int) -> Any:
        """What the broker answered. Raises `DecodeError`."""
        return decode_whole(api, "response", version, self._buffer, self._at + _header_rest(api, version))


class Request:
    """One message on its way out; `version` has been negotiated before."""

    def __init__(self, api: Api, version: int, body: Mapping[str, Any]) -> None:
        self.RESPONSE_TYPE = Response  # the name AIOKafkaConnection looks for
        self.api = api
        self.version = version
        self.content = body

    def __repr__(self) -> str:
        return f"{self.api.name}v{self.version}"

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> Request:
        """Asked by the connection, which knows the broker's version ranges. Raises `EncodeError`."""
        lowest, highest = versions.get(self.api.key, (-1, -1))
        if not lowest <= self.version <= highest:
            raise EncodeError(f"{self!r}: the broker offers versions {lowest} to {highest}")
        return self

    def build_request_header(self, correlation_id: int, client_id: str) -> _Frame:
        """Asked by the connection: it sends the header's `encode()` and the body's `encode()`, joined."""
        name = client_id.encode()
        header = _HEADER.pack(self.api.key, self.version, correlation_id, len(name)) + name
        tags = b"\x00" if self.version >= self.api.flexible else b""
        self._frame = b"".join([header, tags, *encode(self.api, "request", self.version, self.content)])
        return _Frame()

    def encode(self) -> bytes:
        """The whole frame: header and body are joined once, a produce request may be large."""
        return self._frame

    def parse_response_header(self, stream: io.BytesIO) -> _ResponseHeader:
        """Asked by the connection, which compares the correlation id."""
        return _ResponseHeader(int.from_bytes(stream.read(_CORRELATION_ID_BYTES), "big"))


class _Frame:
    """A header of no bytes: they are part of the frame that `Request.encode` gives."""

    @staticmethod
    def encode() -> bytes:
        return b""


class _ResponseHeader:
    __slots__ = ("correlation_id",)

    def __init__(self, correlation_id: int) -> None:
        self.correlation_id = correlation_id


def _header_rest(api: Api, version: int) -> int:
    """Flexible responses have a (here empty) tag section in the header, except ApiVersions (KIP-511)."""
    return 1 if version >= api.flexible and api.name != "ApiVersions" else 0
