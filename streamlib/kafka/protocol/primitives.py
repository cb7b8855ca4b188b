"""Encoders and decoders of the protocol's basic types.

An encoder appends pieces to a list that is joined once. A decoder gets the whole buffer and a position and
gives the value and the next position; it never reads past the end of the buffer (`DecodeError`). Types:
https://kafka.apache.org/protocol#protocol_types
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from typing import Any, TypeAlias

Encoder: TypeAlias = Callable[[list[Any], Any], None]
Decoder: TypeAlias = Callable[[bytes, int], tuple[Any, int]]
Codec: TypeAlias = tuple[Encoder, Decoder]

FIXED_FORMATS = {
    "bool": "?",
    "int8": "b",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "float64": "d",
}
"""Types of fixed width, as `struct` writes them."""

_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")


class EncodeError(ValueError):
    """A body that the protocol cannot say: unknown field, wrong type, not in this version."""


class DecodeError(ValueError):
    """Bytes that are not the message they should be."""


def fixed(kind: str) -> Codec:
    """Numbers and booleans."""
    layout = struct.Struct(">" + FIXED_FORMATS[kind])
    pack, unpack_from, size = layout.pack, layout.unpack_from, layout.size

    def encode(out: list[Any], value: Any) -> None:
        out.append(pack(value))

    def decode(buffer: bytes, at: int) -> tuple[Any, int]:
        return unpack_from(buffer, at)[0], at + size

    return encode, decode


def encode_uvarint(value: int) -> bytes:
    """An unsigned number, seven bits a byte, the lowest first."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_uvarint(buffer: bytes, at: int) -> tuple[int, int]:
    """The inverse of `encode_uvarint`; refuses more than the five bytes that 32 bits take."""
    value = buffer[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    for shift in (7, 14, 21, 28):
        at += 1
        byte = buffer[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
    raise DecodeError(f"a varint at byte {at - 4} is longer than five bytes")


def length(flexible: bool, wide: bool) -> tuple[Callable[[int], bytes], Decoder]:
    """How a length is written; -1 means null. Compact forms write length + 1 as a varint."""
    if flexible:
        return (lambda n: encode_uvarint(n + 1)), _compact_length
    layout = _INT32 if wide else _INT16
    pack, unpack_from, size = layout.pack, layout.unpack_from, layout.size
    return pack, lambda buffer, at: (unpack_from(buffer, at)[0], at + size)


def string(flexible: bool, nullable: bool) -> Codec:
    """UTF-8 text."""
    write_length, read_length = length(flexible, wide=False)

    def encode(out: list[Any], value: str | None) -> None:
        if value is None:
            out.append(_null(write_length, nullable))
            return
        data = value.encode()
        out.append(write_length(len(data)))
        out.append(data)

    def decode(buffer: bytes, at: int) -> tuple[str | None, int]:
        size, at = read_length(buffer, at)
        if size < 0:
            return _read_null(nullable, at)
        end = _end(buffer, at, size)
        return buffer[at:end].decode(), end

    return encode, decode


def byte_string(flexible: bool, nullable: bool, *, view: bool = False) -> Codec:
    """Bytes; with `view` they are decoded as a memoryview on the response, without a copy (for records)."""
    write_length, read_length = length(flexible, wide=True)

    def encode(out: list[Any], value: Any) -> None:
        if value is None:
            out.append(_null(write_length, nullable))
            return
        out.append(write_length(len(value)))
        out.append(value)

    def decode(buffer: bytes, at: int) -> tuple[Any, int]:
        size, at = read_length(buffer, at)
        if size < 0:
            return _read_null(nullable, at)
        end = _end(buffer, at, size)
        return (memoryview(buffer)[at:end] if view else buffer[at:end]), end

    return encode, decode


def uuid_codec() -> Codec:
    """Sixteen bytes; all zero is None."""

    def encode(out: list[Any], value: uuid.UUID | None) -> None:
        out.append(value.bytes if value is not None else bytes(16))

    def decode(buffer: bytes, at: int) -> tuple[uuid.UUID | None, int]:
        end = _end(buffer, at, 16)
        data = buffer[at:end]
        return (uuid.UUID(bytes=data) if any(data) else None), end

    return encode, decode


def array_of(element: Codec, flexible: bool, nullable: bool) -> Codec:
    """Any number of elements of one type."""
    write_length, read_length = length(flexible, wide=True)
    encode_element, decode_element = element

    def encode(out: list[Any], values: Any) -> None:
        if values is None:
            out.append(_null(write_length, nullable))
            return
        out.append(write_length(len(values)))
        for value in values:
            encode_element(out, value)

    def decode(buffer: bytes, at: int) -> tuple[list[Any] | None, int]:
        count, at = read_length(buffer, at)
        if count < 0:
            return _read_null(nullable, at)
        # Every element takes a byte at least: a wild count must not make us allocate before we notice.
        _end(buffer, at, count)
        values = []
        for _ in range(count):
            value, at = decode_element(buffer, at)
            values.append(value)
        return values, at

    return encode, decode


def nullable_struct(inner: Codec) -> Codec:
    """A struct that may be null: a byte, -1 for null, goes before it (KIP-893)."""
    encode_inner, decode_inner = inner

    def encode(out: list[Any], value: Any) -> None:
        if value is None:
            out.append(b"\xff")
            return
        out.append(b"\x01")
        encode_inner(out, value)

    def decode(buffer: bytes, at: int) -> tuple[Any, int]:
        if buffer[at] >= 0x80:
            return None, at + 1
        return decode_inner(buffer, at + 1)

    return encode, decode


def _compact_length(buffer: bytes, at: int) -> tuple[int, int]:
    size, at = decode_uvarint(buffer, at)
    return size - 1, at


def _null(write_length: Callable[[int], bytes], nullable: bool) -> bytes:
    if not nullable:
        raise EncodeError("null is not allowed here")
    return write_length(-1)


def _read_null(nullable: bool, at: int) -> tuple[None, int]:
    if not nullable:
        raise DecodeError(f"null before byte {at}, where it is not allowed")
    return None, at


def _end(buffer: bytes, at: int, size: int) -> int:
    end = at + size
    if end > len(buffer):
        raise DecodeError(f"{size} bytes or elements announced at byte {at}, but only {len(buffer) - at} are left")
    return end
