"""JSON with a schema: JSON text behind the id. The type is what values are checked against; a schema that is given is
what they are checked against besides (`jsonschema`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

from streamlib.errors import TopologyError
from streamlib.schemas.format import Read, Write, referenced
from streamlib.schemas.framing import HEADER
from streamlib.schemas.schema import Client, Schema, SchemaType
from streamlib.serdes import json_decoder

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class JsonFormat:
    """Values of one type as JSON (`streamlib.schemas.format.Format`).

    Args:
        type_: any type msgspec handles.
        schema: the text of its schema; made from the type if not given.

    Raises:
        TopologyError: msgspec cannot handle the type, or the schema given is none.
    """

    kind: SchemaType = "JSON"

    def __init__(self, type_: Any, schema: str | None = None) -> None:
        self.type = type_
        self._text = json.dumps(_derived(type_)) if schema is None else schema
        self._given = schema is not None
        title = _loaded(self._text, type_).get("title")
        self.record_name = title or getattr(type_, "__name__", str(type_))
        self.name = f"json-schema({self.record_name})"
        if self._given:
            _validator(self._text, {}, type_)  # what is wrong with it is said now

    def own(self, client: Client, *, register: bool) -> Schema | None:
        return Schema(self._text, self.kind)

    def writer(self, schema: Schema, client: Client) -> Write:
        dump = msgspec.json.Encoder().encode
        if not self._given and schema.schema == self._text:
            return dump
        check = _validator(schema.schema, referenced(schema, client), self.type)

        def encode(value: Any) -> bytes:
            data = dump(value)
            check(msgspec.json.decode(data))
            return data

        return encode

    def reader(self, schema: Schema, client: Client) -> Read:
        load, at = json_decoder(self.type), HEADER.size
        if not self._given:
            return lambda data: load(data[at:])
        check = _validator(self._text, {}, self.type)

        def decode(data: bytes) -> Any:
            check(msgspec.json.decode(data[at:]))
            return load(data[at:])

        return decode


def _derived(type_: Any) -> dict[str, Any]:
    """The schema of a type, its own definition at the top, where registries look for it."""
    try:
        schema = msgspec.json.schema(type_)
    except TypeError as error:
        raise TopologyError(f"no JSON Schema for {type_!r}: {error}; give the schema, schema=...") from error
    definitions = schema.pop("$defs", {})
    name = schema.get("$ref", "").removeprefix("#/$defs/")
    if name in definitions and f"#/$defs/{name}" not in json.dumps(definitions):
        schema = definitions.pop(name)
    return {"$schema": DIALECT, **schema} | ({"$defs": definitions} if definitions else {})


def _loaded(text: str, type_: Any) -> dict[str, Any]:
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise TopologyError(f"the JSON Schema of {type_!r} is no JSON: {error}") from error
    return schema if isinstance(schema, dict) else {}


def _validator(text: str, references: dict[str, str], type_: Any) -> Callable[[Any], None]:
    """f(value) that raises ValueError with the first thing that is wrong."""
    from jsonschema.exceptions import SchemaError, best_match
    from jsonschema.validators import validator_for
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT202012

    schema = json.loads(text)
    kind = validator_for(schema, default=validator_for({"$schema": DIALECT}))
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise TopologyError(f"the JSON Schema of {type_!r} is none: {error.message}") from error
    others = [
        (name, Resource.from_contents(json.loads(other), default_specification=DRAFT202012))
        for name, other in references.items()
    ]
    validator = kind(schema, registry=Registry().with_resources(others))

    def check(value: Any) -> None:
        if not validator.is_valid(value):
            error = best_match(validator.iter_errors(value))
            raise ValueError(f"{error.json_path}: {error.message}")

    return check
