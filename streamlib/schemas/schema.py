"""What a registry keeps, and the port to it."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

import msgspec

SchemaType: TypeAlias = Literal["AVRO", "PROTOBUF", "JSON"]


class Reference(msgspec.Struct, frozen=True):
    """Another schema that one is made with: what it is called there, and where the registry has it."""

    name: str
    subject: str
    version: int


class Schema(msgspec.Struct, frozen=True, rename="camel"):
    """A schema as the registry keeps it. The registry leaves the type out for Avro."""

    schema: str
    schema_type: SchemaType = "AVRO"
    references: tuple[Reference, ...] = ()


class Registered(msgspec.Struct, frozen=True):
    """A schema, the id that records carry, and its version in the subject it was asked for."""

    id: int
    schema: Schema
    version: int = 0


class UnknownSchemaError(ValueError):
    """The registry answered, and does not have what was asked for."""


class Client(Protocol):
    """A registry. Every call may block, for a time that is bounded.

    Each raises:
        UnknownSchemaError: there is no such id, subject, version or schema.
        SchemaRegistryUnavailableError: no usable answer came in time.
        SchemaRegistryError: the registry refused.
    """

    @property
    def address(self) -> str:
        """For messages; without credentials."""
        ...

    def by_id(self, schema_id: int) -> Schema: ...
    def register(self, subject: str, schema: Schema) -> int:
        """The id of the schema, which is a version of the subject from here on."""
        ...

    def look_up(self, subject: str, schema: Schema) -> Registered:
        """The schema as a version of the subject."""
        ...

    def latest(self, subject: str) -> Registered: ...
    def version(self, subject: str, version: int) -> Registered: ...
    def versions(self, subject: str) -> list[int]:
        """The subject's versions, in order."""
        ...
