"""Keys as text, for addresses and command lines, and rows as JSON.

    key type               as text
    str                    as it is
    bytes                  base64
    uuid.UUID              its text
    anything else          JSON: 7, 2.5, true, {"user":"ann","shop":3}

In answers bytes are base64, too.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from streamlib.errors import SerializationError
from streamlib.serdes import Serde, plain_type
from streamlib.topology.nodes import StoreSpec


def key_of(spec: StoreSpec, text: str) -> Any:
    """A key of a store, from text.

    Raises:
        SerializationError: it is none; says what one looks like.
    """
    plain = plain_type(spec.key.type)
    read = _PLAIN.get(plain) if isinstance(plain, type) else None
    try:
        key = text if read is None and plain is str else _from_json(spec.key, text) if read is None else read(text)
        spec.key.encode(key)
    except Exception as error:
        raise SerializationError(
            f"store {spec.name}: {text!r:.80} is no key of it: {error}; its keys are {spec.key.name}, "
            f"given as {expected(spec.key)}"
        ) from error
    return key


def expected(serde: Serde[Any]) -> str:
    """How a key is written as text.

    >>> from streamlib import Serdes
    >>> expected(Serdes.string()), expected(Serdes.long())
    ('plain text', 'JSON')
    """
    plain = plain_type(serde.type)
    named = {str: "plain text", bytes: "base64", uuid.UUID: "the text of a UUID"}
    return named.get(plain, "JSON") if isinstance(plain, type) else "JSON"


def as_json(value: Any) -> msgspec.Raw:
    """A value as JSON; what JSON has no form for as text.

    >>> bytes(as_json({"count": 3, "raw": b"ab"}))
    b'{"count":3,"raw":"YWI="}'
    """
    try:
        return msgspec.Raw(_ENCODER.encode(value))
    except (TypeError, ValueError):  # keys of a dict, say
        return msgspec.Raw(_ENCODER.encode(str(value)))


def _from_json(serde: Serde[Any], text: str) -> Any:
    if serde.type is None:
        return msgspec.json.decode(text)
    return msgspec.json.decode(text, type=serde.type)


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error


_PLAIN: dict[type, Callable[[str], Any]] = {bytes: _from_base64, uuid.UUID: uuid.UUID}
_ENCODER = msgspec.json.Encoder(enc_hook=str)
