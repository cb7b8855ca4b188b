"""Changes of a table as a repartition topic carries them, in Kafka Streams' own format.

    bytes                                                        last byte
    old value                                                    0
    new value                                                    1
    length of the new value (zigzag varint), new value, old      2
    as 0, 1 and 2, then a byte: whether it was the latest        3, 4, 5 (only read)

Source: `ChangedSerializer`, `ChangedDeserializer` (KIP-904).
"""

from __future__ import annotations

from typing import Any, TypeAlias

from streamlib.serdes import Serde, placed_with

Change: TypeAlias = tuple[Any, Any]
"""New and old value; None is no row."""

_OLD, _NEW, _BOTH = b"\x00", b"\x01", b"\x02"
_WITH_LATEST = 3
"""From this flag on there is one more byte, for changes of versioned tables that came out of order."""


def changes_of(value: Serde[Any]) -> Serde[Change]:
    """The serde of changes of rows that `value` writes.

    >>> from streamlib.serdes import Serdes
    >>> serde = changes_of(Serdes.string())
    >>> serde.encode(("new", "old")), serde.decode(b"old\\x00")
    (b'\\x06newold\\x02', (None, 'old'))
    """
    return placed_with(_changes_of, value)


def _changes_of(value: Serde[Any]) -> Serde[Change]:
    encode_value, decode_value = value.encode, value.decode

    def encode(change: Change) -> bytes:
        new, old = change
        if new is None:
            if old is None:
                raise ValueError("a change has a new or an old value")
            return encode_value(old) + _OLD
        raw = encode_value(new)
        return raw + _NEW if old is None else _varint(len(raw)) + raw + encode_value(old) + _BOTH

    def decode(data: bytes) -> Change:
        flag, end = data[-1], len(data) - 1
        if flag >= _WITH_LATEST:
            flag, end = flag - _WITH_LATEST, end - 1
        match flag:
            case 0:
                return None, decode_value(data[:end])
            case 1:
                return decode_value(data[:end]), None
            case 2:
                length, at = _read_varint(data)
                return decode_value(data[at : at + length]), decode_value(data[at + length : end])
            case _:
                raise ValueError(f"no change of a table ends with the byte {data[-1]}")

    return Serde(f"changes of {value.name}", tuple, encode, decode)


def _varint(number: int) -> bytes:
    """A length as `ByteUtils.writeVarint` writes it: zigzag, so twice the number, seven bits a byte."""
    rest, out = number << 1, bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def _read_varint(data: bytes) -> tuple[int, int]:
    """The length at the start, and where it ends."""
    value = shift = at = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value >> 1, at
        shift += 7
