"""A record as a line of JSON, in the form that `streamlib dlq show --json` has, too.

    {"key": "ann", "value": {"amount": 3}, "timestamp": "2026-01-01T12:00:00Z", "headers": []}

All but the value may be left out. Text is written as UTF-8, everything else as JSON, unless a type is given: 5 as `int`
is eight bytes, as Kafka's LongSerde writes it. What is neither text nor of the given type is in `key_hex`, `value_hex`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Annotated, Any

import msgspec

from streamlib.cli.errors import UsageError
from streamlib.records import Headers, OutRecord
from streamlib.serdes import Serde, Serdes

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

_TOLD_BESIDE = frozenset(
    {
        *("topic", "partition", "offset", "exception", "message", "stacktrace"),
        *("source_topic", "source_partition", "source_offset", "node", "application"),
    }
)
"""What 'dlq show --json' tells of a record, which is not part of it."""


class Form(Enum):
    """What the bytes of keys or values are."""

    ANY = "any"
    INT = "int"
    FLOAT = "float"

    @property
    def serde(self) -> Serde[Any] | None:
        """How they are written; None: text as it is, everything else as JSON."""
        return {Form.ANY: None, Form.INT: Serdes.long(), Form.FLOAT: Serdes.double()}[self]


class Header(msgspec.Struct, forbid_unknown_fields=True):
    """One header; its value is text."""

    name: str
    value: str | None = None
    value_hex: str | None = None


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """What a line says."""

    key: Any = None
    value: Any = None
    key_hex: str | None = None
    value_hex: str | None = None
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)] | int | None = None
    headers: list[Header] = []

    @classmethod
    def read(cls, text: bytes) -> Line:
        """Read one.

        Raises:
            ValueError: it is not JSON, or says something else.
        """
        found = msgspec.json.decode(text)
        if isinstance(found, Mapping):
            found = {name: told for name, told in found.items() if name not in _TOLD_BESIDE}
        return msgspec.convert(found, cls)

    def record(self, key: Form, value: Form, now_ms: int) -> OutRecord:
        """The record, of this moment if no time is said.

        Raises:
            ValueError, TypeError: key or value is not of its type.
        """
        headers = tuple((header.name, _encoded(header.value, header.value_hex, None)) for header in self.headers)
        return (
            _encoded(self.key, self.key_hex, key.serde),
            _encoded(self.value, self.value_hex, value.serde),
            self._timestamp_ms(now_ms),
            headers,
        )

    def _timestamp_ms(self, now_ms: int) -> int:
        match self.timestamp:
            case None:
                return now_ms
            case datetime() as moment:
                return (moment - _EPOCH) // _MILLISECOND
            case timestamp_ms:
                return timestamp_ms


def line_of(record: OutRecord, key: Form, value: Form) -> bytes:
    """The line of JSON that gives this record again.

    Raises:
        UsageError: key or value is not of its type.
    """
    raw_key, raw_value, timestamp, headers = record
    line = {
        **_decoded("key", raw_key, key),
        **_decoded("value", raw_value, value),
        "timestamp": _moment(timestamp),
        **({"headers": _headers(headers)} if headers else {}),
    }
    return msgspec.json.encode(line)


def _encoded(given: Any, in_hex: str | None, serde: Serde[Any] | None) -> bytes | None:
    if in_hex is not None:
        return bytes.fromhex(in_hex)
    if given is None:
        return None
    if serde is not None:
        return serde.encode(given)
    return given.encode() if isinstance(given, str) else msgspec.json.encode(given)


def _decoded(name: str, data: bytes | None, form: Form) -> dict[str, Any]:
    if data is None:
        return {name: None}
    if form.serde is not None:
        try:
            return {name: form.serde.decode(data)}
        except (ValueError, struct.error) as error:
            raise UsageError(f"a {name} is not of type {form.value}: {error}: leave --{name} out") from None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return {f"{name}_hex": data.hex()}
    return {name: _json_or_text(text)}


def _json_or_text(text: str) -> Any:
    if text[:1] not in ("{", "["):
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _headers(headers: Headers) -> list[dict[str, Any]]:
    return [{"name": name, **_header_value(value)} for name, value in headers]


def _header_value(value: bytes | None) -> dict[str, str | None]:
    if value is None:
        return {"value": None}
    try:
        return {"value": value.decode()}
    except UnicodeDecodeError:
        return {"value_hex": value.hex()}


def _moment(timestamp_ms: int) -> str | int:
    try:
        moment = datetime.fromtimestamp(timestamp_ms // 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return timestamp_ms  # beyond the year 9999
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{timestamp_ms % 1000:03d}Z"
