"""What a message of the Kafka protocol looks like, as data.

The tables under `messages/` are written with these words. Their facts are those of Kafka's own message
definitions (`clients/src/main/resources/common/message/*.json`), for the versions that brokers from 2.5 on
and streamlib share.

    F("error_code", "int16", "7+", ignorable=True)       a field, present from version 7 on
    array("topics", F(...), F(...), nullable="1+")       an array of structs
    struct("current_leader", F(...), tag=0)              one struct, here a tagged field (KIP-482)

An `ignorable` field that the negotiated version does not have is left out; any other one must hold its
default then.
"""

from __future__ import annotations

from typing import Any

import msgspec

VersionRange = tuple[int, int]
"""First and last version, both inclusive."""

NEWEST = 1 << 15


class Field(msgspec.Struct, frozen=True, eq=False):
    """One field. `kind` is "int32", "string", "struct" ..., with "[]" before it for an array of those."""

    name: str
    kind: str
    versions: str = "0+"
    fields: tuple[Field, ...] = ()
    nullable: str = ""
    default: Any = msgspec.UNSET
    tag: int | None = None
    ignorable: bool = False

    @property
    def default_value(self) -> Any:
        """What the field is when nothing is said."""
        if self.default is not msgspec.UNSET:
            return self.default
        if self.kind.startswith("[]"):
            return []
        return _DEFAULTS.get(self.kind, 0)


class Api(msgspec.Struct, frozen=True, eq=False):
    """A request and its response.

    `versions` are those streamlib speaks; from `flexible` on they have compact and tagged fields (KIP-482).
    """

    name: str
    key: int
    versions: VersionRange
    flexible: int
    request: tuple[Field, ...]
    response: tuple[Field, ...]


class Message(msgspec.Struct, frozen=True, eq=False):
    """A message that travels inside another one as bytes."""

    name: str
    versions: VersionRange
    flexible: int
    fields: tuple[Field, ...]


_DEFAULTS: dict[str, Any] = {
    "bool": False,
    "bytes": b"",
    "float64": 0.0,
    "records": None,
    "string": "",
    "struct": None,
    "uuid": None,
}


def array(name: str, *fields: Field, versions: str = "0+", **options: Any) -> Field:
    """A field that holds any number of structs."""
    return Field(name, "[]struct", versions, fields, **options)


def struct(name: str, *fields: Field, versions: str = "0+", **options: Any) -> Field:
    """A field that holds one struct."""
    return Field(name, "struct", versions, fields, **options)


def version_range(text: str) -> VersionRange:
    """Read "7+", "3-8", "4" or "" (in no version)."""
    if not text:
        return (NEWEST, -1)
    first, dash, last = text.partition("-")
    if first.endswith("+"):
        return int(first[:-1]), NEWEST
    return int(first), int(last if dash else first)


def covers(text: str, version: int) -> bool:
    """Whether the range written as `text` has this version."""
    first, last = version_range(text)
    return first <= version <= last
