"""Avro: read with the schema it was written with, into that of the type (schema resolution)."""

from __future__ import annotations

import datetime
import decimal
import json
import uuid
from io import BytesIO
from typing import Any

import fastavro
import msgspec

from streamlib.errors import TopologyError
from streamlib.schemas.avro_types import avro_schema
from streamlib.schemas.format import Read, Write, referenced
from streamlib.schemas.framing import HEADER
from streamlib.schemas.schema import Client, Schema, SchemaType

KEPT = (bytes, bytearray, datetime.datetime, datetime.date, datetime.time, decimal.Decimal, uuid.UUID)
"""What fastavro takes and gives as it is."""


class AvroFormat:
    """Values of one type as Avro (`streamlib.schemas.format.Format`).

    Args:
        type_: `dict` for values as they are in Avro, or any type msgspec converts to and from that.
        schema: the text of its schema; made from the type if not given. None for `dict`: whatever others wrote.
        namespace: of records, if the schema is made from the type.

    Raises:
        TopologyError: there is no schema for the type, or the one given is none.
    """

    kind: SchemaType = "AVRO"

    def __init__(self, type_: Any, schema: str | None = None, namespace: str | None = None) -> None:
        self.type = type_
        self._as_is = type_ is dict
        if schema is None and not self._as_is:
            schema = json.dumps(avro_schema(type_, namespace))
        self._text = schema
        self._parsed = None if schema is None else _parsed(schema, type_)
        name = self._parsed.get("name") if isinstance(self._parsed, dict) else None
        self.record_name = name or getattr(type_, "__name__", str(type_))
        self.name = f"avro({self.record_name})"

    def own(self, client: Client, *, register: bool) -> Schema | None:
        return None if self._text is None else Schema(self._text)

    def writer(self, schema: Schema, client: Client) -> Write:
        parsed: Any = self._parsed if schema.schema == self._text else _resolved(schema, client)
        write, to_builtins, as_is = fastavro.schemaless_writer, msgspec.to_builtins, self._as_is

        def encode(value: Any) -> bytes:
            out = BytesIO()
            write(out, parsed, value if as_is else to_builtins(value, builtin_types=KEPT))
            return out.getvalue()

        return encode

    def reader(self, schema: Schema, client: Client) -> Read:
        written, own, type_ = _resolved(schema, client), self._parsed, self.type
        read, convert, as_is = fastavro.schemaless_reader, msgspec.convert, self._as_is

        def decode(data: bytes) -> Any:
            rest = BytesIO(data)
            rest.seek(HEADER.size)
            value = read(rest, written, own)
            return value if as_is else convert(value, type_, builtin_types=KEPT)

        return decode


def _parsed(schema: str, type_: Any) -> Any:
    try:
        return fastavro.parse_schema(json.loads(schema))
    except Exception as error:
        raise TopologyError(f"the Avro schema of {type_!r} is none: {error}") from error


def _resolved(schema: Schema, client: Client) -> Any:
    named: dict[str, Any] = {}
    for text in referenced(schema, client).values():
        fastavro.parse_schema(json.loads(text), named)
    return fastavro.parse_schema(json.loads(schema.schema), named)
