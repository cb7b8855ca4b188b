"""Values to bytes and back, by type hint, in Kafka's own formats.

    type                 bytes                                          Kafka's serde
    int                  8 bytes, big-endian, signed                    LongSerde
    float                8-byte IEEE double                             DoubleSerde
    str                  UTF-8                                          StringSerde
    bytes                as they are                                    BytesSerde
    bool                 one byte                                       BooleanSerde
    uuid.UUID            its text in UTF-8                              UUIDSerde
    None                 no bytes                                       VoidSerde
    Struct, dataclass,   JSON by msgspec; msgpack by choice
    list, dict, ...

Where a serde is used it is told its place (`Serde.at`): most are the same everywhere, those of a schema registry learn
their subject there, those of types with `upgrades` (`streamlib.row_versions`) whether rows carry a version.

None is never encoded: a null key or value stays null. Encoding is strict about the Python type (of the whole value, not
of what is inside), so that a serde that does not fit is an error where it happens and never a topic full of something
else.
"""

from __future__ import annotations

import struct
import threading
import types
import typing
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast

import msgspec

from streamlib.errors import TopologyError
from streamlib.row_versions import Upgrade, upgrades_of

T = TypeVar("T")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a serde is at work.

    Attributes:
        topic: the topic's full name; a store's is its changelog's, whether it has one or not.
        is_key: whether keys are written, or values.
        is_internal: whether the application alone reads it: stores, changelogs, repartition topics.
        writes: whether anything is encoded there; a source only decodes.
        preparations: what has to be done before the application runs, each of which may block; serdes add to it.

    >>> Place(topic="orders").is_key
    False
    """

    topic: str
    is_key: bool = False
    is_internal: bool = False
    writes: bool = True
    preparations: list[Callable[[], None]] = []


class Serde(msgspec.Struct, Generic[T], frozen=True):
    """How values of one type become bytes. `type` is the Python type it is for, None if it is not known.

    `encode` raises TypeError, ValueError or `msgspec.MsgspecError` for a value it is not for, `decode` for bytes it
    cannot read; the caller knows the place and says it.

    >>> serde_for(int).encode(1)
    b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x01'
    """

    name: str
    type: Any
    encode: Callable[[T], bytes]
    decode: Callable[[bytes], T]

    def at(self, place: Place) -> Serde[T]:
        """The serde as it is at one place; the same everywhere unless it is a `PlacedSerde`."""
        return self


class PlacedSerde(Serde[T], frozen=True):
    """A serde that depends on where it is used: `bind` gives the one of a place.

    >>> chosen = PlacedSerde("s", str, str.encode, bytes.decode, lambda place: Serdes.string())
    >>> chosen.at(Place(topic="orders")).name
    'string'
    """

    bind: Callable[[Place], Serde[T]]

    def at(self, place: Place) -> Serde[T]:
        """The serde as it is at one place."""
        return self.bind(place)


class MsgspecSerde(Serde[T], frozen=True):
    """JSON or MessagePack by msgspec: `form` says which. `version`: of rows, if older ones are upgraded; else 1."""

    form: str
    version: int = 1


def placed_with(make: Callable[..., Serde[Any]], *inner: Serde[Any]) -> Serde[Any]:
    """`make(*inner)`, for a serde that is made from others: it depends on its place if one of them does."""
    made = make(*inner)
    if not any(isinstance(each, PlacedSerde) for each in inner):
        return made
    return PlacedSerde(
        made.name, made.type, made.encode, made.decode, lambda place: make(*(each.at(place) for each in inner))
    )


def serde_for(type_: Any) -> Serde[Any]:
    """The serde of a type hint; a `Serde` is returned as it is.

    A generic class may bring its own: its `__serde__(argument)` is asked for the serde of `Class[argument]`.

    Raises:
        TopologyError: neither Kafka nor msgspec has a format for it.

    >>> serde_for(str).decode(b"ann")
    'ann'
    """
    if isinstance(type_, Serde):
        return type_
    plain = plain_type(type_)
    if isinstance(plain, type | None) and plain in _BUILT_IN:
        return _BUILT_IN[plain]
    if (own := getattr(typing.get_origin(plain) or plain, "__serde__", None)) is not None:
        return _brought(plain, own)
    return Serdes.json(type_)


def _brought(type_: Any, own: Callable[..., Serde[Any]]) -> Serde[Any]:
    """The serde that a generic class has for its arguments."""
    arguments = typing.get_args(type_)
    if not arguments:
        raise TopologyError(f"no serde for {type_.__name__} alone: say of what, such as {type_.__name__}[str]")
    return own(*arguments)


class Serdes:
    """Serdes by name, for where the type hint alone does not say it.

    >>> Serdes.integer().encode(1)
    b'\\x00\\x00\\x00\\x01'
    """

    @staticmethod
    def string() -> Serde[str]:
        """UTF-8 text."""
        return _STRING

    @staticmethod
    def long() -> Serde[int]:
        """8 bytes, big-endian; what `int` stands for."""
        return _LONG

    @staticmethod
    def integer() -> Serde[int]:
        """4 bytes, big-endian; Java's Integer."""
        return _INTEGER

    @staticmethod
    def short() -> Serde[int]:
        """2 bytes, big-endian; Java's Short."""
        return _SHORT

    @staticmethod
    def double() -> Serde[float]:
        """8-byte double; what `float` stands for."""
        return _DOUBLE

    @staticmethod
    def single() -> Serde[float]:
        """4-byte float; Java's Float."""
        return _SINGLE

    @staticmethod
    def boolean() -> Serde[bool]:
        """One byte."""
        return _BOOLEAN

    @staticmethod
    def bytes() -> Serde[bytes]:
        """Bytes as they are."""
        return _BYTES

    @staticmethod
    def uuid() -> Serde[uuid.UUID]:
        """The text of a UUID."""
        return _UUID

    @staticmethod
    def void() -> Serde[None]:
        """Nothing but null."""
        return _VOID

    @staticmethod
    def json(type_: type[T]) -> Serde[T]:
        """JSON of anything msgspec handles, checked against the type when it is read.

        Raises:
            TopologyError: msgspec does not handle the type.
        """
        try:
            return _msgspec(_JSON, type_)
        except TypeError as error:
            raise _unsupported(type_, error) from error

    @staticmethod
    def msgpack(type_: type[T]) -> Serde[T]:
        """MessagePack of anything msgspec handles.

        Raises:
            TopologyError: msgspec does not handle the type.
        """
        try:
            return _msgspec(_MSGPACK, type_)
        except TypeError as error:
            raise _unsupported(type_, error) from error


def _unsupported(type_: Any, error: Exception) -> TopologyError:
    return TopologyError(
        f"no serde for {type_!r}: {error}; use str, int, float, bytes, uuid.UUID, a msgspec.Struct, "
        "or a Serde of your own"
    )


class _Form(msgspec.Struct, frozen=True):
    """A format of msgspec's. A row whose version is above 1 begins with one byte, `version_base` plus the version.

    No JSON begins with a byte from 0x80 on, and no object or list in MessagePack with one below that."""

    name: str
    encoder: Callable[[], Callable[[Any], bytes]]
    decoder: Callable[[Any], Callable[[bytes], Any]]
    version_base: int


_first_look = threading.Lock()


def json_decoder(type_: type[T]) -> Callable[[bytes], T]:
    """What reads JSON of a type; may be called by several threads at once.

    msgspec 0.22 crashes where two threads are the first to make a decoder of one type.
    """
    with _first_look:
        return msgspec.json.Decoder(type_).decode


def _msgpack_decoder(type_: type[T]) -> Callable[[bytes], T]:
    with _first_look:
        return msgspec.msgpack.Decoder(type_).decode


_JSON = _Form("json", lambda: msgspec.json.Encoder().encode, json_decoder, 0x80)
_MSGPACK = _Form("msgpack", lambda: msgspec.msgpack.Encoder().encode, _msgpack_decoder, 0)


def _msgspec(form: _Form, type_: Any) -> Serde[Any]:
    name = f"{form.name}({type_.__name__ if isinstance(type_, type) else type_})"
    encode, decode = _checked(name, type_, form.encoder()), form.decoder(type_)
    steps = upgrades_of(plain_type(type_))
    plain = MsgspecSerde(name, type_, encode, decode, form.name)
    if not steps:
        return plain
    rows = _with_version(form, plain, steps)
    # Whoever looks at rows without knowing of what place, in a tool for instance, reads both.
    either = _versioned_decode(form, plain, steps, decode)
    # Keys have none: they are looked up, and partitioned, by their bytes.
    return PlacedSerde(
        name, type_, encode, either, lambda place: rows if place.is_internal and not place.is_key else plain
    )


def _with_version(form: _Form, plain: MsgspecSerde[Any], steps: Sequence[Upgrade]) -> Serde[Any]:
    """As rows of the application's own are written: with their version, and older ones made into new ones."""
    encode, prefix = plain.encode, bytes((form.version_base + steps[-1].version,))

    def encode_row(value: Any) -> bytes:
        return prefix + encode(value)

    first = steps[0]
    oldest = _upgrading(form.decoder(first.old), steps) if first.version == 2 else None
    decode_row = _versioned_decode(form, plain, steps, oldest)
    return MsgspecSerde(plain.name, plain.type, encode_row, decode_row, form.name, steps[-1].version)


def _versioned_decode(
    form: _Form, plain: MsgspecSerde[Any], steps: Sequence[Upgrade], unmarked: Callable[[bytes], Any] | None
) -> Callable[[bytes], Any]:
    """Rows by their version; `unmarked` reads those that say none."""
    base, current = form.version_base, form.version_base + steps[-1].version
    older = {
        base + step.version - 1: _upgrading(form.decoder(step.old), steps[number:])
        for number, step in enumerate(steps)
        if step.version > 2
    }
    decode_current = plain.decode

    def decode(data: bytes) -> Any:
        first = data[0] if data else None
        if first == current:
            return decode_current(data[1:])
        if first in older:
            return older[first](data[1:])
        if unmarked is not None and (first is None or not 0 < first - base < 0x80):
            return unmarked(data)
        version = first - base if first is not None and 0 < first - base < 0x80 else 1
        raise ValueError(
            f"a row of version {version}, and {plain.name} reads versions {steps[0].version - 1} to "
            f"{steps[-1].version}: "
            + (
                "a newer program has written it"
                if version > steps[-1].version
                else "declare how it is upgraded, @upgrades(...), until no such row is left"
            )
        )

    return decode


def _upgrading(decode: Callable[[bytes], Any], steps: Sequence[Upgrade]) -> Callable[[bytes], Any]:
    """Rows of one version to the newest, step by step."""

    def upgraded(data: bytes) -> Any:
        value = decode(data)
        for step in steps:
            try:
                value = step.by(value)
            except Exception as error:
                raise ValueError(
                    f"a row of version {step.version - 1} cannot be upgraded to {step.version}: {error!r}"
                ) from error
        return value

    return upgraded


def _checked(name: str, type_: Any, encode: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """Refuses values that are of another type, as far as isinstance can tell."""
    expected = _classes(type_)
    if expected is None:
        return encode
    classes = expected
    refused = bool if int in classes and bool not in classes else None  # to isinstance a bool is an int

    def checked(value: Any) -> bytes:
        if not isinstance(value, classes) or value.__class__ is refused:
            raise TypeError(f"{name} cannot encode {type(value).__name__}")
        return encode(value)

    return checked


def without_null(type_: Any) -> Any:
    """`X | None` as X, for null needs no serde; anything else as it is.

    >>> without_null(int | None)
    <class 'int'>
    """
    if typing.get_origin(type_) not in (typing.Union, types.UnionType):
        return type_
    parts = [part for part in typing.get_args(type_) if part is not type(None)]
    return parts[0] if len(parts) == 1 else type_


def plain_type(type_: Any) -> Any:
    """The type behind `X | None`, `Annotated[X, ...]`, `NewType("Name", X)`, `type Name = X`, literals of one type.

    >>> plain_type(int | None)
    <class 'int'>
    """
    bare = without_null(type_)
    if bare is not type_:
        return plain_type(bare)
    if typing.get_origin(type_) is typing.Annotated:
        return plain_type(typing.get_args(type_)[0])
    if isinstance(type_, typing.NewType):
        return plain_type(type_.__supertype__)
    if type(type_).__name__ == "TypeAliasType":  # Python 3.12
        return plain_type(type_.__value__)
    if typing.get_origin(type_) is typing.Literal:
        kinds = {type(value) for value in typing.get_args(type_) if value is not None}
        return kinds.pop() if len(kinds) == 1 else type_
    return type_


def _classes(type_: Any) -> tuple[type, ...] | None:
    """What isinstance can check of a hint; None if it cannot say anything."""
    type_ = plain_type(type_)
    if type_ is float:
        return (float, int)  # as type checkers have it
    origin = typing.get_origin(type_)
    if origin in (typing.Union, types.UnionType):
        parts = [_classes(part) for part in typing.get_args(type_) if part is not type(None)]
        if any(part is None for part in parts):
            return None
        return tuple(each for part in parts for each in cast(tuple[type, ...], part))
    if isinstance(origin, type):
        return (origin,)
    if typing.is_typeddict(type_):
        return (dict,)
    return (type_,) if isinstance(type_, type) and type_ not in (object, Any) else None


def _number(name: str, format_: str, kind: type, example: type) -> Serde[Any]:
    packer = struct.Struct(format_)
    pack, unpack, refused = packer.pack, packer.unpack, bool

    def encode(value: Any) -> bytes:
        if value.__class__ is kind or (isinstance(value, kind) and not isinstance(value, refused)):
            return pack(value)
        raise TypeError(f"{name} cannot encode {type(value).__name__}")

    def decode(data: bytes) -> Any:
        return unpack(data)[0]

    return Serde(name, example, encode, decode)


def _encode_float(value: Any) -> bytes:
    if value.__class__ is float or (isinstance(value, int | float) and not isinstance(value, bool)):
        return struct.pack(">d", value)
    raise TypeError(f"double cannot encode {type(value).__name__}")


def _encode_bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"bytes cannot encode {type(value).__name__}")
    return value


def _encode_boolean(value: Any) -> bytes:
    if not isinstance(value, bool):
        raise TypeError(f"boolean cannot encode {type(value).__name__}")
    return b"\x01" if value else b"\x00"


def _decode_boolean(data: bytes) -> bool:
    if len(data) != 1:
        raise ValueError(f"a boolean is one byte, not {len(data)}")
    return data != b"\x00"


def _encode_uuid(value: Any) -> bytes:
    if not isinstance(value, uuid.UUID):
        raise TypeError(f"uuid cannot encode {type(value).__name__}")
    return str(value).encode()


def _decode_uuid(data: bytes) -> uuid.UUID:
    return uuid.UUID(data.decode())


def _encode_void(value: Any) -> bytes:
    raise TypeError(f"only null can be written here, not {type(value).__name__}")


def _decode_void(data: bytes) -> None:
    """Kafka's VoidDeserializer accepts nothing but null."""
    raise ValueError(f"only null is expected here, not {len(data)} bytes")


def _encode_string(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    raise TypeError(f"string cannot encode {type(value).__name__}")


_STRING: Serde[str] = Serde("string", str, _encode_string, bytes.decode)
_LONG: Serde[int] = _number("long", ">q", int, int)
_INTEGER: Serde[int] = _number("integer", ">i", int, int)
_SHORT: Serde[int] = _number("short", ">h", int, int)
_DOUBLE: Serde[float] = Serde("double", float, _encode_float, _number("double", ">d", float, float).decode)
_SINGLE: Serde[float] = _number("float", ">f", float, float)
_BOOLEAN: Serde[bool] = Serde("boolean", bool, _encode_boolean, _decode_boolean)
_BYTES: Serde[bytes] = Serde("bytes", bytes, _encode_bytes, bytes)
_UUID: Serde[uuid.UUID] = Serde("uuid", uuid.UUID, _encode_uuid, _decode_uuid)
_VOID: Serde[None] = Serde("void", type(None), _encode_void, _decode_void)

_BUILT_IN: dict[Any, Serde[Any]] = {
    int: _LONG,
    float: _DOUBLE,
    str: _STRING,
    bytes: _BYTES,
    bool: _BOOLEAN,
    uuid.UUID: _UUID,
    None: _VOID,
    type(None): _VOID,
}
