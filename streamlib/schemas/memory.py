"""A registry in memory, for tests: it keeps schemas and gives ids, and refuses nothing."""

from __future__ import annotations

from streamlib.schemas.schema import Registered, Schema, UnknownSchemaError


class InMemoryClient:
    """A registry without a server (`streamlib.schemas.schema.Client`). Compatibility is not checked."""

    def __init__(self) -> None:
        self._ids: dict[Schema, int] = {}
        self._subjects: dict[str, list[Schema]] = {}

    @property
    def address(self) -> str:
        return "memory"

    def by_id(self, schema_id: int) -> Schema:
        for schema, known_id in self._ids.items():
            if known_id == schema_id:
                return schema
        raise UnknownSchemaError(f"schema {schema_id} not found")

    def register(self, subject: str, schema: Schema) -> int:
        versions = self._subjects.setdefault(subject, [])
        if schema not in versions:
            versions.append(schema)
        return self._ids.setdefault(schema, len(self._ids) + 1)

    def look_up(self, subject: str, schema: Schema) -> Registered:
        versions = self._versions(subject)
        if schema not in versions:
            raise UnknownSchemaError(f"schema not found in subject {subject}")
        return Registered(self._ids[schema], schema, versions.index(schema) + 1)

    def latest(self, subject: str) -> Registered:
        return self.version(subject, len(self._versions(subject)))

    def version(self, subject: str, version: int) -> Registered:
        versions = self._versions(subject)
        if not 1 <= version <= len(versions):
            raise UnknownSchemaError(f"version {version} of subject {subject} not found")
        return Registered(self._ids[versions[version - 1]], versions[version - 1], version)

    def versions(self, subject: str) -> list[int]:
        return list(range(1, len(self._versions(subject)) + 1))

    def _versions(self, subject: str) -> list[Schema]:
        if subject not in self._subjects:
            raise UnknownSchemaError(f"subject {subject} not found")
        return self._subjects[subject]
