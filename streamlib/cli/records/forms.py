"""How keys and values look on a terminal, and which bytes they are: those of streamlib's serdes, which are Kafka's."""

from __future__ import annotations

import struct
from enum import StrEnum
from typing import Any

import msgspec

from streamlib.cli.dlq.screen import readable
from streamlib.cli.times import shown_time
from streamlib.serdes import Serde, serde_for

_TIME_BYTES = 8


class Form(StrEnum):
    """A type of keys or values, by its name in a topology; `json` is that of Structs, `hex` says nothing of it."""

    STR = "str"
    INT = "int"
    FLOAT = "float"
    JSON = "json"
    HEX = "hex"


class KeyForm(StrEnum):
    """The same, and keys of windows and of sessions, whose own key is text."""

    STR = "str"
    INT = "int"
    FLOAT = "float"
    JSON = "json"
    HEX = "hex"
    WINDOWED = "windowed"
    SESSION = "session"


_SERDES: dict[str, Serde[Any]] = {"str": serde_for(str), "int": serde_for(int), "float": serde_for(float)}


def encode(form: Form, text: str) -> bytes:
    r"""The bytes of what somebody has typed.

    Raises:
        ValueError: the text is none of the form.

    >>> encode(Form.INT, "5"), encode(Form.JSON, '{"a": 1}')
    (b'\x00\x00\x00\x00\x00\x00\x00\x05', b'{"a": 1}')
    """
    match form:
        case Form.STR:
            return text.encode()
        case Form.HEX:
            return bytes.fromhex(text)
        case Form.JSON:
            msgspec.json.decode(text)
            return text.encode()
    return _packed(form, int(text) if form is Form.INT else float(text))


def encode_value(form: Form, value: Any) -> bytes:
    """The bytes of a value that has come as JSON.

    Raises:
        TypeError: the value is none of the form.
        ValueError: likewise.
    """
    match form:
        case Form.JSON:
            return msgspec.json.encode(value)
        case Form.HEX:
            return bytes.fromhex(value)
        case Form.FLOAT if isinstance(value, int):
            return _packed(form, float(value))
    return _packed(form, value)


def show(form: str, data: bytes | None) -> str:
    r"""For a terminal: escaped where it would act upon it.

    Raises:
        ValueError: the bytes are none of the form.

    >>> show("int", b"\0" * 7 + b"\5"), show("str", b"ann"), show("windowed", b"ann" + b"\0" * 8), show("str", None)
    ('5', 'ann', 'ann@1970-01-01 00:00:00.000Z', 'null')
    """
    if data is None:
        return "null"
    match form:
        case "hex":
            return f"0x{data.hex()}"
        case "str" | "json":
            return readable(data)
        case "windowed":
            key, (start,) = _cut(data, 1)
            return f"{readable(key)}@{shown_time(start)}"
        case "session":
            key, (end, start) = _cut(data, 2)
            return f"{readable(key)}@{shown_time(start)}..{shown_time(end)}"
    return str(_unpacked(form, data))


def as_json(name: str, form: str, data: bytes | None) -> dict[str, Any]:
    r"""Members of an object: the value by its name; text that is not UTF-8, and `hex`, by the name with `_hex`.

    Raises:
        ValueError: the bytes are none of the form.

    >>> as_json("key", "windowed", b"ann" + b"\0" * 8), as_json("value", "str", b"\xff")
    ({'key': 'ann', 'start': 0}, {'value_hex': 'ff'})
    """
    if data is None:
        return {name: None}
    match form:
        case "hex":
            return {f"{name}_hex": data.hex()}
        case "json":
            return {name: msgspec.json.decode(data)}
        case "str":
            return _text(name, data)
        case "windowed":
            key, (start,) = _cut(data, 1)
            return {**_text(name, key), "start": start}
        case "session":
            key, (end, start) = _cut(data, 2)
            return {**_text(name, key), "start": start, "end": end}
    return {name: _unpacked(form, data)}


def _packed(form: Form, value: Any) -> bytes:
    try:
        return _SERDES[form].encode(value)
    except struct.error:
        raise ValueError(f"{value} is too large for 8 bytes") from None


def _unpacked(form: str, data: bytes) -> Any:
    try:
        return _SERDES[form].decode(data)
    except struct.error:
        raise ValueError(f"{'an int' if form == 'int' else 'a float'} has 8 bytes, not {len(data)}") from None


def _text(name: str, data: bytes) -> dict[str, str]:
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_hex": data.hex()}


def _cut(data: bytes, times: int) -> tuple[bytes, list[int]]:
    """A key, and the times in ms behind it (WindowKeySchema, SessionKeySchema)."""
    size = times * _TIME_BYTES
    if len(data) < size:
        raise ValueError(f"{len(data)} bytes are no key of a window")
    key, rest = data[: len(data) - size], data[len(data) - size :]
    return key, [int.from_bytes(rest[at : at + _TIME_BYTES], "big", signed=True) for at in range(0, size, _TIME_BYTES)]
