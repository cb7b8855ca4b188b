"""What stands before the payload: which schema it was written with.

    byte 0                      0
    bytes 1-4                   schema id, big-endian
    Protobuf only, then         where in the .proto file the message type is: the number of indexes and each of them as
                                zigzag varints; a single 0 stands for the first type of the file

Source: Confluent's wire format, `MessageIndexes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

HEADER = Struct(">bI")
MAGIC = 0


def header(schema_id: int) -> bytes:
    """The five bytes before a payload.

    >>> header(7)
    b'\\x00\\x00\\x00\\x00\\x07'
    """
    return HEADER.pack(MAGIC, schema_id)


def schema_id_of(data: bytes) -> int:
    """The id in front of a payload.

    Raises:
        ValueError: there is none.

    >>> schema_id_of(header(7) + b"payload")
    7
    """
    if len(data) < HEADER.size or data[0] != MAGIC:
        raise ValueError(
            f"no schema id in front of {len(data)} bytes that begin with {data[:5]!r}: they were not written with a "
            "schema registry"
        )
    return int.from_bytes(data[1:5], "big")


def pack_indexes(indexes: Sequence[int]) -> bytes:
    """Where a message type is in its file.

    >>> pack_indexes([0]), pack_indexes([1, 0])
    (b'\\x00', b'\\x04\\x02\\x00')
    """
    if list(indexes) == [0]:
        return b"\0"
    return b"".join(_varint(number) for number in (len(indexes), *indexes))


def unpack_indexes(data: bytes, at: int) -> tuple[tuple[int, ...], int]:
    """The indexes from a place on, and where they end.

    Raises:
        ValueError: they end too early.

    >>> unpack_indexes(pack_indexes([1, 0]) + b"rest", 0)
    ((1, 0), 3)
    """
    count, at = _read_varint(data, at)
    if count == 0:
        return (0,), at
    indexes = []
    for _ in range(count):
        index, at = _read_varint(data, at)
        indexes.append(index)
    return tuple(indexes), at


def _varint(number: int) -> bytes:
    rest, out = number << 1, bytearray()  # zigzag of what is not negative
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value & 1:
                break  # negative
            return value >> 1, at
        shift += 7
    raise ValueError("the message indexes before the payload are cut off or negative")
