"""What tables joined by foreign key tell each other: keys, messages and the hash of rows, Kafka Streams' bit for bit.

    subscription    from the left table to the task that has the row a left row points to, and kept there
    response        from there back to the left row's task, once for each subscription and change of the row it is for

    combined key    length of the foreign key (4 bytes), foreign key, primary key
    subscription    version (1 byte), instruction (1 byte), hash (16 bytes), primary key, partition (4 bytes)
    response        version (1 byte), hash (16 bytes), row of the right table

Numbers are big-endian. The highest bit of a version says that there is no hash, since the left row is gone. A
subscription of version 0, from before Kafka Streams 3.4, has no partition.

The hash is of the left row. A response to a row that has changed in the meantime does not have the hash of the new one,
and is ignored: another response is on its way.

Source: KIP-213, `CombinedKeySchema`, `SubscriptionWrapperSerde`, `SubscriptionResponseWrapperSerde`, `Murmur3`.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Any, NamedTuple

import mmh3

from streamlib.serdes import Serde

_SEED = 104729  # of Hive's Murmur3, which Kafka's is
_NO_HASH = 0x80
_HASH_BYTES = 16
_WITH_PARTITION = 1
_RESPONSE_VERSION = 0

_HASH = Struct(">QQ")
_LENGTH = Struct(">i")
_PARTITION = Struct(">i")


class Instruction(IntEnum):
    """What is to be done about a subscription (`SubscriptionWrapper.Instruction`)."""

    UNSUBSCRIBE = 0
    """The row points elsewhere now; from there comes the answer."""

    UNSUBSCRIBE_AND_RESPOND = 1
    """The row points nowhere now; say so."""

    SUBSCRIBE_AND_RESPOND = 2
    """Respond, with nothing if there is nothing."""

    SUBSCRIBE = 3
    """Respond if there is something."""


class Subscription(NamedTuple):
    """A left row, by its key, follows the row of a foreign key. `partition` is the one the left row came from."""

    instruction: Instruction
    hash: bytes | None
    primary_key: bytes
    partition: int | None


class Response(NamedTuple):
    """What the right table has for a left row with this hash; `value` is None if it has nothing.

    `partition` is where it has to go. It is not written.
    """

    hash: bytes | None
    value: bytes | None
    partition: int | None = None


class CombinedKey(NamedTuple):
    """The key of a kept subscription."""

    foreign_key: Any
    primary_key: Any


def row_hash(row: bytes) -> bytes:
    """The 128-bit murmur3 of an encoded row.

    >>> row_hash(b"21").hex()
    'f17eca1051f3195faa02832bb26585e5'
    """
    return _HASH.pack(*mmh3.mmh3_x64_128_utupledigest(row, _SEED))


def subscriptions_prefix(foreign_key: bytes) -> bytes:
    """What the combined keys of all subscriptions to a foreign key begin with; the primary key is the rest.

    >>> subscriptions_prefix(b"ab")
    b'\\x00\\x00\\x00\\x02ab'
    """
    return _LENGTH.pack(len(foreign_key)) + foreign_key


def combined_keys(foreign_key: Serde[Any], primary_key: Serde[Any]) -> Serde[CombinedKey]:
    """The serde of combined keys.

    >>> from streamlib.serdes import Serdes
    >>> serde = combined_keys(Serdes.string(), Serdes.string())
    >>> serde.decode(serde.encode(CombinedKey("f", "p")))
    CombinedKey(foreign_key='f', primary_key='p')
    """

    def encode(key: CombinedKey) -> bytes:
        return subscriptions_prefix(foreign_key.encode(key.foreign_key)) + primary_key.encode(key.primary_key)

    def decode(data: bytes) -> CombinedKey:
        end = 4 + _LENGTH.unpack_from(data)[0]
        return CombinedKey(foreign_key.decode(data[4:end]), primary_key.decode(data[end:]))

    return Serde(f"combined({foreign_key.name}, {primary_key.name})", CombinedKey, encode, decode)


def pack_subscription(subscription: Subscription) -> bytes:
    """A subscription as bytes.

    >>> pack_subscription(Subscription(Instruction.UNSUBSCRIBE, None, b"key", 1))
    b'\\x81\\x00key\\x00\\x00\\x00\\x01'
    """
    instruction, hashed, primary_key, partition = subscription
    version, tail = (0, b"") if partition is None else (_WITH_PARTITION, _PARTITION.pack(partition))
    if hashed is None:
        return bytes((version | _NO_HASH, instruction)) + primary_key + tail
    return bytes((version, instruction)) + hashed + primary_key + tail


def unpack_subscription(data: bytes, at: int = 0) -> Subscription:
    """The subscription that begins at this place and ends with the data.

    Raises:
        ValueError: it is of a version, or has an instruction, that nobody knew when this was written.
    """
    version, instruction = data[at] & ~_NO_HASH, Instruction(data[at + 1])
    hashed, start = _hash_at(data, at, at + 2)
    if version == 0:
        return Subscription(instruction, hashed, data[start:], None)
    if version > _WITH_PARTITION:
        raise ValueError(f"a subscription of version {version}; {_WITH_PARTITION} is the last one known")
    return Subscription(instruction, hashed, data[start:-4], _PARTITION.unpack_from(data, len(data) - 4)[0])


def pack_response(response: Response) -> bytes:
    """A response as bytes. One with an empty row reads as one with none, as it does in Kafka Streams.

    >>> pack_response(Response(None, b"row"))
    b'\\x80row'
    """
    hashed, value, _ = response
    head = bytes((_RESPONSE_VERSION | _NO_HASH,)) if hashed is None else bytes((_RESPONSE_VERSION,)) + hashed
    return head if value is None else head + value


def unpack_response(data: bytes) -> Response:
    """A response from bytes.

    Raises:
        ValueError: it is of a version that nobody knew when this was written.
    """
    if data[0] & ~_NO_HASH != _RESPONSE_VERSION:
        raise ValueError(f"a response of version {data[0] & ~_NO_HASH}; {_RESPONSE_VERSION} is the only one known")
    hashed, start = _hash_at(data, 0, 1)
    return Response(hashed, data[start:] or None)


def _hash_at(data: bytes, version_at: int, at: int) -> tuple[bytes | None, int]:
    """The hash, if the version's highest bit says there is one, and where it ends."""
    if data[version_at] & _NO_HASH:
        return None, at
    return data[at : at + _HASH_BYTES], at + _HASH_BYTES


SUBSCRIPTIONS: Serde[Subscription] = Serde("subscription", Subscription, pack_subscription, unpack_subscription)
RESPONSES: Serde[Response] = Serde("response", Response, pack_response, unpack_response)
