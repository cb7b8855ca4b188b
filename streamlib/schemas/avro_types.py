"""The Avro schema of a Python type.

bool, int, float, str, bytes, None     boolean, long, double, string, bytes, null
Struct, dataclass, TypedDict           record, by the names fields are encoded with; defaults go along
X | None                               union
list, set, tuple of one type           array
dict[str, X]                           map
Enum of text, Literal of text          enum, if each is a name; else string
datetime, date, time                   long timestamp-micros, int date, long time-micros
uuid.UUID                              string uuid
tagged Struct                          record with its tag in front, an enum with one symbol
"""

from __future__ import annotations

import enum
import re
from typing import Any

import msgspec
from msgspec import inspect

from streamlib.errors import TopologyError

PLAIN: dict[type, Any] = {
    inspect.BoolType: "boolean",
    inspect.IntType: "long",
    inspect.FloatType: "double",
    inspect.StrType: "string",
    inspect.BytesType: "bytes",
    inspect.NoneType: "null",
    inspect.DateTimeType: {"type": "long", "logicalType": "timestamp-micros"},
    inspect.DateType: {"type": "int", "logicalType": "date"},
    inspect.TimeType: {"type": "long", "logicalType": "time-micros"},
    inspect.UUIDType: {"type": "string", "logicalType": "uuid"},
}

_SEQUENCES = (inspect.ListType, inspect.SetType, inspect.FrozenSetType, inspect.VarTupleType)
_RECORDS = (inspect.StructType, inspect.DataclassType, inspect.TypedDictType)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def avro_schema(type_: Any, namespace: str | None = None) -> Any:
    """The Avro schema of a type, as JSON values.

    Args:
        type_: the type.
        namespace: of the records in it.

    Raises:
        TopologyError: Avro has nothing for it.

    >>> class Order(msgspec.Struct):
    ...     user: str
    ...     note: str | None = None
    >>> avro_schema(Order, "shop")["fields"][1]
    {'name': 'note', 'type': ['null', 'string'], 'default': None}
    """
    try:
        info = inspect.type_info(type_)
    except TypeError as error:
        raise TopologyError(f"no Avro schema for {type_!r}: {error}") from error
    return _Deriving(type_, namespace).of(info)


class _Deriving:
    """One schema in the making. A record is written out where it comes first, then named."""

    def __init__(self, type_: Any, namespace: str | None) -> None:
        self._type = type_
        self._namespace = namespace
        self._named: dict[type, str] = {}

    def of(self, info: inspect.Type) -> Any:
        if type(info) in PLAIN:
            return PLAIN[type(info)]
        if isinstance(info, inspect.Metadata):
            return self.of(info.type)
        if isinstance(info, _RECORDS):
            return self._record(info)
        if isinstance(info, inspect.UnionType):
            return [self.of(each) for each in sorted(info.types, key=lambda t: not isinstance(t, inspect.NoneType))]
        if isinstance(info, _SEQUENCES):
            return {"type": "array", "items": self.of(info.item_type)}
        if isinstance(info, inspect.DictType) and isinstance(info.key_type, inspect.StrType):
            return {"type": "map", "values": self.of(info.value_type)}
        if isinstance(info, inspect.EnumType):
            return self._enum(info.cls)
        if isinstance(info, inspect.LiteralType):
            return self._symbols(None, list(info.values))
        raise TopologyError(
            f"no Avro schema for {self._type!r}: there is nothing in Avro for {type(info).__name__}; give the schema, "
            "schema=..., with dict as the type, or change the field"
        )

    def _record(self, info: Any) -> Any:
        if info.cls in self._named:
            return self._named[info.cls]
        if getattr(info, "array_like", False):
            raise TopologyError(f"no Avro schema for {info.cls.__name__}: array_like=True has no names for its fields")
        record: dict[str, Any] = self._head("record", info.cls)
        tag = getattr(info, "tag", None)
        fields = [] if tag is None else [{"name": info.tag_field, "type": self._tag(info.cls.__name__, tag)}]
        return {**record, "fields": [*fields, *(self._field(field) for field in info.fields)]}

    def _head(self, kind: str, cls: type) -> dict[str, Any]:
        name = cls.__name__
        self._named[cls] = name if self._namespace is None else f"{self._namespace}.{name}"
        return {"type": kind, "name": name} | ({} if self._namespace is None else {"namespace": self._namespace})

    def _tag(self, name: str, tag: object) -> Any:
        return {"type": "enum", "name": f"{name}_tag", "symbols": [_symbol(tag)]}

    def _enum(self, cls: type[enum.Enum]) -> Any:
        if cls in self._named:
            return self._named[cls]
        return self._symbols(cls, [member.value for member in cls])

    def _symbols(self, cls: type | None, values: list[Any]) -> Any:
        if all(isinstance(value, int) for value in values):
            return "long"
        if not all(isinstance(value, str) for value in values):
            raise TopologyError(f"no Avro schema for {self._type!r}: {values!r} are neither all text nor all numbers")
        if cls is None or not all(_NAME.fullmatch(value) for value in values):
            return "string"
        return {**self._head("enum", cls), "symbols": values}

    def _field(self, field: inspect.Field) -> dict[str, Any]:
        schema, default = self.of(field.type), _default(field)
        if default is msgspec.UNSET:
            return {"name": field.encode_name, "type": schema}
        if isinstance(schema, list) and default is not None and schema[0] == "null":
            schema = [*schema[1:], "null"]  # a default is one of the first type of a union
        return {"name": field.encode_name, "type": schema, "default": default}


def _default(field: inspect.Field) -> Any:
    """The default as JSON; UNSET if there is none, or none that a schema can say."""
    if field.required:
        return msgspec.UNSET
    if field.default_factory is not msgspec.NODEFAULT:
        return {list: [], set: [], frozenset: [], tuple: [], dict: {}}.get(field.default_factory, msgspec.UNSET)
    value = field.default.value if isinstance(field.default, enum.Enum) else field.default
    return value if value is None or isinstance(value, bool | int | float | str) else msgspec.UNSET


def _symbol(tag: object) -> str:
    if isinstance(tag, str) and _NAME.fullmatch(tag):
        return tag
    raise TopologyError(f"the tag {tag!r} cannot be a symbol in Avro: letters, digits and underscores are")
