"""What each of Avro, Protobuf and JSON Schema has to offer to a serde."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from streamlib.schemas.schema import Client, Registered, Schema, SchemaType, UnknownSchemaError

Write: TypeAlias = Callable[[Any], bytes]
"""A value to what comes after the schema id."""

Read: TypeAlias = Callable[[bytes], Any]
"""A whole record, the schema id included, to a value."""


class Format(Protocol):
    """One type in one format."""

    @property
    def kind(self) -> SchemaType: ...
    @property
    def name(self) -> str:
        """The format and the type, for messages."""
        ...

    @property
    def type(self) -> Any:
        """The Python type."""
        ...

    @property
    def record_name(self) -> str:
        """What the type is called in schemas; some subjects are made of it."""
        ...

    def own(self, client: Client, *, register: bool) -> Schema | None:
        """The schema of the type, its references looked up or registered; None if it has none."""
        ...

    def writer(self, schema: Schema, client: Client) -> Write:
        """How values are written with a schema, its own or a later one."""
        ...

    def reader(self, schema: Schema, client: Client) -> Read:
        """How records are read that were written with a schema."""
        ...


def referenced(schema: Schema, client: Client) -> dict[str, str]:
    """The texts of all schemas that one refers to, by name, those before others that these refer to."""
    texts: dict[str, str] = {}
    for reference in schema.references:
        try:
            found: Registered = client.version(reference.subject, reference.version)
        except UnknownSchemaError as error:
            raise ValueError(
                f"the schema refers to {reference.name}, version {reference.version} of subject {reference.subject}, "
                f"which the registry does not have: {error}"
            ) from error
        texts |= {**referenced(found.schema, client), reference.name: found.schema.schema}
    return texts
