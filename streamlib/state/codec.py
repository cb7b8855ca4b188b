"""Keys and values of one store to bytes and back, with errors that name the store; rows with a time in front."""

from __future__ import annotations

from struct import Struct
from typing import Any, Generic, NamedTuple, TypeVar

from streamlib.errors import SerializationError, StateStoreError
from streamlib.topology.nodes import StoreSpec

V_co = TypeVar("V_co", covariant=True)

_TIMESTAMP = Struct(">q")
pack_timestamp = _TIMESTAMP.pack
unpack_timestamp = _TIMESTAMP.unpack_from


class ValueAndTimestamp(NamedTuple, Generic[V_co]):
    """A row of a timestamped store: its value and the time it is valid from, in ms."""

    value: V_co
    timestamp: int


class Codec:
    """Keys and values of one store to bytes and back, with errors that name the store."""

    def __init__(self, spec: StoreSpec) -> None:
        self._spec = spec
        self.decode_key = spec.key.decode
        self.decode_value = spec.value.decode

    def encode_key(self, key: Any) -> bytes:
        if key is None:
            raise StateStoreError(f"store {self._spec.name}: a key cannot be None")
        try:
            return self._spec.key.encode(key)
        except Exception as error:
            raise SerializationError(
                f"store {self._spec.name}: cannot encode the key {key!r:.80}: {error}; its keys are "
                f"{self._spec.key.name}"
            ) from error

    def encode_value(self, key: Any, value: Any) -> bytes:
        try:
            return self._spec.value.encode(value)
        except Exception as error:
            raise SerializationError(
                f"store {self._spec.name}: cannot encode the value {value!r:.80} of key {key!r:.80}: {error}; "
                f"its values are {self._spec.value.name}"
            ) from error

    def bounds(self, start: Any, end: Any) -> tuple[bytes | None, bytes | None]:
        """Inclusive typed bounds as `start <= key < end` in bytes."""
        first = None if start is None else self.encode_key(start)
        # The next possible key after `end` is `end` and a zero byte.
        last = None if end is None else self.encode_key(end) + b"\0"
        return first, last


def prefix_end(prefix: bytes) -> bytes | None:
    """The first key after all that begin with `prefix`; None if there is no such key.

    >>> prefix_end(b"ab"), prefix_end(b"a\\xff"), prefix_end(b"\\xff")
    (b'ac', b'b', None)
    """
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else None
