"""Compiles the message tables into encoders and decoders, one pair of closures for each message and version.

Bodies to encode are dicts; a name that the table does not know is an error, a missing one takes its
default. Decoded messages are light records with one attribute for each field of the table; fields that the
version does not have hold their default, so readers need not look at the version.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Any, Literal

import msgspec

from streamlib.kafka.protocol import primitives
from streamlib.kafka.protocol.primitives import (
    FIXED_FORMATS,
    Codec,
    DecodeError,
    Decoder,
    EncodeError,
    Encoder,
    decode_uvarint,
    encode_uvarint,
)
from streamlib.kafka.protocol.schema import Api, Field, Message, covers

Part = Literal["request", "response"]

_Write = Callable[[list[Any], Mapping[str, Any]], None]
_Read = Callable[[bytes, int, list[Any]], int]
_Step = tuple[_Write, _Read]


def encode(message: Api | Message, part: Part, version: int, body: Mapping[str, Any]) -> list[Any]:
    """The body as pieces to be joined. Raises `EncodeError`."""
    out: list[Any] = []
    try:
        _codec(message, part, version)[0](out, body)
    except (struct.error, TypeError, AttributeError, EncodeError) as error:
        raise EncodeError(f"{message.name} v{version} {part}: {error}") from error
    return out


def decode(message: Api | Message, part: Part, version: int, buffer: bytes, at: int = 0) -> tuple[Any, int]:
    """The message that starts at `at`, and where it ends. Raises `DecodeError`."""
    try:
        return _codec(message, part, version)[1](buffer, at)
    except (struct.error, IndexError, UnicodeDecodeError, DecodeError) as error:
        reason = "it ends too early" if isinstance(error, struct.error | IndexError) else error
        raise DecodeError(f"{message.name} v{version} {part} of {len(buffer) - at} bytes: {reason}") from error


def decode_whole(message: Api | Message, part: Part, version: int, buffer: bytes, at: int = 0) -> Any:
    """Like `decode`, but the message has to end where the buffer ends."""
    value, end = decode(message, part, version, buffer, at)
    if end != len(buffer):
        raise DecodeError(f"{message.name} v{version} {part}: {len(buffer) - end} bytes left over")
    return value


@cache
def _codec(message: Api | Message, part: Part, version: int) -> Codec:
    fields = message.fields if isinstance(message, Message) else getattr(message, part)
    return _compile(message.name, fields, version, version >= message.flexible)


def _compile(name: str, fields: tuple[Field, ...], version: int, flexible: bool) -> Codec:
    present = [field for field in fields if covers(field.versions, version)]
    plain = [field for field in present if field.tag is None]
    tagged = {field.tag: field for field in present if field.tag is not None}
    steps = [step for run in _runs(plain) for step in _steps(name, run, version, flexible)]
    absent = [field for field in fields if field not in present]
    check = _name_check(present, absent)
    write_tags, read_tags = _tag_section(name, tagged, version, flexible)
    writes = [write for write, _ in steps]
    reads = [read for _, read in steps]
    make = _record_class(name, [*plain, *tagged.values(), *absent], len(plain))

    def encode_struct(out: list[Any], body: Mapping[str, Any]) -> None:
        check(body)
        for write in writes:
            write(out, body)
        write_tags(out, body)

    def decode_struct(buffer: bytes, at: int) -> tuple[Any, int]:
        values: list[Any] = []
        for read in reads:
            at = read(buffer, at, values)
        at = read_tags(buffer, at, values)
        return make(*values), at

    return encode_struct, decode_struct


def _record_class(name: str, fields: Sequence[Field], required: int) -> type[msgspec.Struct]:
    """A record type whose first fields are given by position and whose others have defaults."""
    columns: list[Any] = [(field.name, Any) for field in fields[:required]]
    columns += [(field.name, Any, field.default_value) for field in fields[required:]]
    # No cycles can arise, so the garbage collector need not look at them.
    return msgspec.defstruct(name, columns, gc=False)


def _runs(fields: Iterable[Field]) -> Iterable[list[Field]]:
    """Neighbours of fixed width together, all others alone."""
    for is_fixed, run in groupby(fields, key=lambda field: field.kind in FIXED_FORMATS):
        if is_fixed:
            yield list(run)
            continue
        for field in run:
            yield [field]


def _steps(name: str, run: list[Field], version: int, flexible: bool) -> Iterable[_Step]:
    if run[0].kind in FIXED_FORMATS:
        return [_fixed_step(run)]
    return [_field_step(name, run[0], version, flexible)]


def _fixed_step(run: list[Field]) -> _Step:
    """All numbers that stand beside each other go through one `struct` call."""
    layout = struct.Struct(">" + "".join(FIXED_FORMATS[field.kind] for field in run))
    pack, unpack_from, size = layout.pack, layout.unpack_from, layout.size
    columns = [(field.name, field.default_value) for field in run]

    def write(out: list[Any], body: Mapping[str, Any]) -> None:
        out.append(pack(*[body.get(name, default) for name, default in columns]))

    def read(buffer: bytes, at: int, values: list[Any]) -> int:
        values.extend(unpack_from(buffer, at))
        return at + size

    return write, read


def _field_step(owner: str, field: Field, version: int, flexible: bool) -> _Step:
    encode_value, decode_value = _value_codec(owner, field, version, flexible)
    name, default = field.name, field.default_value

    def write(out: list[Any], body: Mapping[str, Any]) -> None:
        try:
            encode_value(out, body.get(name, default))
        except EncodeError as error:
            raise EncodeError(f"{name}: {error}") from error

    def read(buffer: bytes, at: int, values: list[Any]) -> int:
        value, at = decode_value(buffer, at)
        values.append(value)
        return at

    return write, read


def _value_codec(owner: str, field: Field, version: int, flexible: bool) -> Codec:
    nullable = covers(field.nullable, version)
    if not field.kind.startswith("[]"):
        return _scalar_codec(owner, field, field.kind, version, flexible, nullable)
    element = _scalar_codec(owner, field, field.kind[2:], version, flexible, nullable=False)
    return primitives.array_of(element, flexible, nullable)


def _scalar_codec(owner: str, field: Field, kind: str, version: int, flexible: bool, nullable: bool) -> Codec:
    match kind:
        case "string":
            return primitives.string(flexible, nullable)
        case "bytes":
            return primitives.byte_string(flexible, nullable)
        case "records":
            return primitives.byte_string(flexible, nullable, view=True)
        case "uuid":
            return primitives.uuid_codec()
        case "struct":
            inner = _compile(f"{owner}.{field.name}", field.fields, version, flexible)
            return primitives.nullable_struct(inner) if nullable else inner
        case _:
            return primitives.fixed(kind)


def _name_check(present: list[Field], absent: list[Field]) -> Callable[[Mapping[str, Any]], None]:
    """Refuse names that the table does not know, and values that this version cannot say."""
    known = frozenset(field.name for field in present)
    others = {field.name: field for field in absent}

    def check(body: Mapping[str, Any]) -> None:
        if body.keys() <= known:
            return
        for name in body.keys() - known:
            field = others.get(name)
            if field is None:
                raise EncodeError(f"there is no field {name!r}; there are {', '.join(sorted(known))}")
            if not field.ignorable and body[name] != field.default_value:
                raise EncodeError(f"{name!r} is only in versions {field.versions}")

    return check


def _tag_section(name: str, tagged: Mapping[int, Field], version: int, flexible: bool) -> _Step:
    """Tagged fields come last: count, then for each tag its number, its size and its bytes (KIP-482)."""
    if not flexible:
        return _write_no_tags, _read_no_tags
    codecs = {tag: _value_codec(name, field, version, flexible) for tag, field in sorted(tagged.items())}
    encoders = [(tag, tagged[tag], codec[0]) for tag, codec in codecs.items()]
    # By position: where the value goes in the list of the tagged fields' values.
    decoders = {tag: (place, codecs[tag][1]) for place, tag in enumerate(tagged)}
    defaults = [field.default_value for field in tagged.values()]
    array_places = [place for place, default in enumerate(defaults) if default == []]

    def write(out: list[Any], body: Mapping[str, Any]) -> None:
        given = [
            (tag, encode_value, body[field.name])
            for tag, field, encode_value in encoders
            if field.name in body and body[field.name] != field.default_value
        ]
        out.append(encode_uvarint(len(given)))
        for tag, encode_value, value in given:
            _write_tag(out, tag, encode_value, value)

    def read(buffer: bytes, at: int, values: list[Any]) -> int:
        first = len(values)
        values.extend(defaults)
        for place in array_places:
            values[first + place] = []  # one for each record
        count, at = decode_uvarint(buffer, at)
        for _ in range(count):
            tag, at = decode_uvarint(buffer, at)
            size, at = decode_uvarint(buffer, at)
            if tag in decoders:
                place, decode_value = decoders[tag]
                values[first + place] = _read_tag(buffer, at, size, tag, decode_value)
            at += size
        if at > len(buffer):
            raise DecodeError("a tagged field ends behind the message")
        return at

    return write, read


def _write_no_tags(out: list[Any], body: Mapping[str, Any]) -> None:
    del out, body


def _read_no_tags(buffer: bytes, at: int, values: list[Any]) -> int:
    del buffer, values
    return at


def _write_tag(out: list[Any], tag: int, encode_value: Encoder, value: Any) -> None:
    pieces: list[Any] = []
    encode_value(pieces, value)
    data = b"".join(pieces)
    out += (encode_uvarint(tag), encode_uvarint(len(data)), data)


def _read_tag(buffer: bytes, at: int, size: int, tag: int, decode_value: Decoder) -> Any:
    value, end = decode_value(buffer, at)
    if end != at + size:
        raise DecodeError(f"tagged field {tag} takes {end - at} bytes, but announces {size}")
    return value


# Without bytes


@cache
def as_decoded(message: Api | Message, part: Part, version: int) -> Callable[[Mapping[str, Any]], Any]:
    """What makes of a body the record that `decode` would give after `encode`: the same, without the bytes between.

    For a cluster in the same process.
    """
    fields = message.fields if isinstance(message, Message) else getattr(message, part)
    return _recorder(message.name, fields, version)


def _recorder(name: str, fields: tuple[Field, ...], version: int) -> Callable[[Mapping[str, Any]], Any]:
    present = [field for field in fields if covers(field.versions, version)]
    absent = [field for field in fields if field not in present]
    check = _name_check(present, absent)
    make = _record_class(name, [*present, *absent], len(present))
    names = [field.name for field in present]
    defaults = [field.default_value for field in present]
    converters = [_value_recorder(name, field, version) for field in present]
    converted = [(place, convert) for place, convert in enumerate(converters) if convert is not None]

    def record(body: Mapping[str, Any]) -> Any:
        check(body)
        values = list(map(body.get, names, defaults))
        for place, convert in converted:
            values[place] = convert(values[place])
        return make(*values)

    return record


def _value_recorder(owner: str, field: Field, version: int) -> Callable[[Any], Any] | None:
    """What to make of a value; None if it stays as it is."""
    is_array, kind = field.kind.startswith("[]"), field.kind.removeprefix("[]")
    if kind != "struct":
        return list if is_array and not covers(field.nullable, version) else None
    record = _recorder(f"{owner}.{field.name}", field.fields, version)
    if is_array:
        return lambda values: None if values is None else [record(value) for value in values]
    return lambda value: None if value is None else record(value)
