"""Protobuf: messages of generated classes. The registry has the .proto file they come from, and those it imports."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError, Message

from streamlib.errors import TopologyError
from streamlib.schemas.format import Read, Write
from streamlib.schemas.framing import HEADER, pack_indexes, unpack_indexes
from streamlib.schemas.schema import Client, Reference, Schema, SchemaType

KNOWN = ("google/protobuf/", "google/type/", "confluent/")
"""Files that every registry has by itself."""


class ProtobufFormat:
    """Messages of one generated class (`streamlib.schemas.format.Format`).

    Raises:
        TopologyError: it is no such class.
    """

    kind: SchemaType = "PROTOBUF"

    def __init__(self, type_: Any) -> None:
        if not (isinstance(type_, type) and issubclass(type_, Message)):
            raise TopologyError(f"Protobuf needs a class that protoc has generated from a .proto file, not {type_!r}")
        self.type = type_
        self._descriptor: Any = type_.DESCRIPTOR
        self._indexes = tuple(_indexes(self._descriptor))
        self.record_name = self._descriptor.full_name
        self.name = f"protobuf({self.record_name})"

    def own(self, client: Client, *, register: bool) -> Schema | None:
        return _schema(self._descriptor.file, client, register)

    def writer(self, schema: Schema, client: Client) -> Write:
        place, type_, name = pack_indexes(self._indexes), self.type, self.name

        def encode(value: Any) -> bytes:
            if not isinstance(value, type_):
                raise TypeError(f"{name} cannot encode {type(value).__name__}")
            return place + bytes(value.SerializeToString())

        return encode

    def reader(self, schema: Schema, client: Client) -> Read:
        parse, at, first = self.type.FromString, HEADER.size, b"\0"[0]

        def decode(data: bytes) -> Any:
            if len(data) <= at:
                raise ValueError("the record ends before its message indexes")
            start = at + 1 if data[at] == first else unpack_indexes(data, at)[1]
            try:
                return parse(data[start:])
            except DecodeError as error:
                raise ValueError(str(error)) from error

        return decode


def _indexes(descriptor: Any) -> list[int]:
    """The way from the file to the message type, by the numbers of the types around it."""
    around = descriptor.containing_type
    if around is None:
        return [list(descriptor.file.message_types_by_name).index(descriptor.name)]
    return [*_indexes(around), [nested.name for nested in around.nested_types].index(descriptor.name)]


def _schema(file: FileDescriptor, client: Client, register: bool) -> Schema:
    references = [
        _reference(imported, client, register) for imported in file.dependencies if not imported.name.startswith(KNOWN)
    ]
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    return Schema(b64encode(proto.SerializeToString()).decode("ascii"), "PROTOBUF", tuple(references))


def _reference(file: FileDescriptor, client: Client, register: bool) -> Reference:
    """An imported file is a subject of its own, called by its path, as Confluent's serializers have it."""
    schema = _schema(file, client, register)
    if register:
        client.register(file.name, schema)
    return Reference(file.name, file.name, client.look_up(file.name, schema).version)
