"""What keys and values of a store look like, kept beside its rows, and whether rows of one shape are read as another.

    a shape         how bytes are made (`form`), and for JSON and MessagePack the fields, as plain JSON values; values
                    have one for each version there may be rows of (`streamlib.row_versions`)
    is compatible   a field more that has a default, a field less that had one, wider types and bounds
    is not          a field less that every row has, a field more that no row has, another type, tag or order
    keys            have to be the same: one more field, and no row would be found again

Serdes of one's own and of a schema registry say nothing here; the latter have the registry to check them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec
from msgspec import inspect

from streamlib.row_versions import FIRST_VERSION, upgrades_of
from streamlib.serdes import MsgspecSerde, Serde, Serdes, plain_type
from streamlib.topology.nodes import StoreSpec

Description: TypeAlias = dict[str, Any]
"""A type in JSON values. Objects are described once each, in `objects`, for types may contain themselves."""

_BUILT_IN = tuple(
    make() for make in (
        Serdes.string, Serdes.long, Serdes.integer, Serdes.short, Serdes.double, Serdes.single, Serdes.boolean,
        Serdes.bytes, Serdes.uuid, Serdes.void,
    )
)  # fmt: skip
_OBJECTS = (inspect.StructType, inspect.DataclassType, inspect.TypedDictType, inspect.NamedTupleType)
_LISTS = (inspect.ListType, inspect.SetType, inspect.FrozenSetType, inspect.VarTupleType)
_AS_TEXT = frozenset({"date", "time", "timedelta", "uuid", "decimal"})  # in JSON and in MessagePack
_LOWER_BOUNDS, _UPPER_BOUNDS = ("ge", "gt", "min_length"), ("le", "lt", "max_length")
_BOUNDS = (*_LOWER_BOUNDS, *_UPPER_BOUNDS, "multiple_of", "pattern")


class Shape(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one kind of bytes is made; the types by version, for JSON and MessagePack."""

    form: str
    versions: dict[int, Description] = {}


class StoreShape(msgspec.Struct, frozen=True, omit_defaults=True):
    """The keys and values of a store; None where nothing is known."""

    key: Shape | None = None
    value: Shape | None = None

    @staticmethod
    def of(spec: StoreSpec) -> StoreShape:
        """What a store's serdes write now."""
        return StoreShape(_shape(spec.key), _shape(spec.value))

    def problems(self, spec: StoreSpec) -> list[str]:
        """Why rows of this shape cannot be read by a store as it is now; none if they can."""
        found = []
        if (key := _shape(spec.key)) is not None and self.key is not None and key != self.key:
            found.append(f"its keys are not what they were ({spec.key.name} now)")
        if self.value is not None and (value := _shape(spec.value)) is not None:
            found += _value_problems(self.value, value, spec.value)
        return found

    def with_rows_of(self, spec: StoreSpec) -> StoreShape:
        """With what the store writes from now on; rows of earlier versions stay."""
        now = StoreShape.of(spec)
        if self.value is None or now.value is None:
            return now
        return StoreShape(now.key, Shape(now.value.form, {**self.value.versions, **now.value.versions}))


def _shape(serde: Serde[Any]) -> Shape | None:
    if isinstance(serde, MsgspecSerde):
        return Shape(serde.form, {version: describe(type_) for version, type_ in _readable(serde).items()})
    return Shape(serde.name) if any(serde is each for each in _BUILT_IN) else None


def _value_problems(kept: Shape, now: Shape, serde: Serde[Any]) -> Iterator[str]:
    if kept.form != now.form:
        yield f"its values were written as {kept.form}, and are {now.form} now"
        return
    readable = _readable(serde)
    for version, described in sorted(kept.versions.items()):
        if version > max(readable):
            yield f"a newer program has written values of version {version}, this one reads up to {max(readable)}"
        elif version not in readable:
            yield f"there may be values of version {version}, and how they are upgraded is not declared any more"
        else:
            of_version = f" (version {version})" if len(readable) > 1 else ""
            yield from (f"{each}{of_version}" for each in differences(described, describe(readable[version])))


def _readable(serde: Serde[Any]) -> dict[int, Any]:
    """The types that rows may be of, by version: after a restore there may be some of each."""
    if not isinstance(serde, MsgspecSerde):
        return {}
    steps = upgrades_of(plain_type(serde.type)) if serde.version > FIRST_VERSION else ()
    return {**{step.version - 1: step.old for step in steps}, serde.version: serde.type}


# --- what a type looks like -------------------------------------------------------------------------------------------


def describe(type_: Any) -> Description:
    """A type as JSON values: the same for types with the same rows.

    >>> describe(list[int])
    {'type': {'kind': 'list', 'of': {'kind': 'int'}}, 'objects': []}
    """
    return _Describing().whole(inspect.type_info(type_))


class _Describing:
    def __init__(self) -> None:
        self._numbers: dict[type, int] = {}
        self._objects: list[Description] = []

    def whole(self, info: inspect.Type) -> Description:
        return {"type": self._of(info), "objects": self._objects}

    def _of(self, info: Any) -> Description:
        if isinstance(info, inspect.Metadata):
            return self._of(info.type)
        if isinstance(info, _OBJECTS):
            return {"kind": "object", "number": self._object(info)}
        bounds = {name: value for name in _BOUNDS if (value := getattr(info, name, None)) is not None}
        if isinstance(info, _LISTS):
            return {"kind": "list", "of": self._of(info.item_type), **bounds}
        if isinstance(info, inspect.TupleType):
            return {"kind": "tuple", "each": [self._of(item) for item in info.item_types]}
        if isinstance(info, inspect.DictType):
            return {"kind": "dict", "key": self._of(info.key_type), "of": self._of(info.value_type), **bounds}
        if isinstance(info, inspect.UnionType):
            return {"kind": "union", "each": [self._of(each) for each in info.types]}
        if isinstance(info, inspect.EnumType):
            return {"kind": "enum", "values": [member.value for member in info.cls]}
        if isinstance(info, inspect.LiteralType):
            return {"kind": "enum", "values": list(info.values)}
        return {"kind": type(info).__name__.removesuffix("Type").lower(), **bounds}

    def _object(self, info: Any) -> int:
        if info.cls in self._numbers:
            return self._numbers[info.cls]
        number = self._numbers[info.cls] = len(self._objects)
        described: Description = {"fields": {}}
        self._objects.append(described)
        if isinstance(info, inspect.NamedTupleType) or getattr(info, "array_like", False):
            described["in_order"] = True
        if getattr(info, "forbid_unknown_fields", False):
            described["strict"] = True
        if getattr(info, "tag", None) is not None:
            described["tag"] = [info.tag_field, info.tag]
        for field in info.fields:
            described["fields"][field.encode_name] = {"of": self._of(field.type), "required": field.required}
        return number


# --- what has changed -------------------------------------------------------------------------------------------------


def differences(old: Description, new: Description) -> list[str]:
    """What keeps rows of one type from being read as another.

    >>> differences(describe(dict[str, int]), describe(dict[str, str]))
    ['each value was int and is str']
    """
    return list(_Comparing(old["objects"], new["objects"]).types("", old["type"], new["type"]))


class _Comparing:
    def __init__(
        self,
        old_objects: list[Description],
        new_objects: list[Description],
        compared: frozenset[tuple[int, int]] = frozenset(),
    ) -> None:
        self._old = old_objects
        self._new = new_objects
        self._compared = set(compared)  # or under way, where types contain themselves

    def types(self, place: str, old: Description, new: Description) -> Iterator[str]:
        if new["kind"] in ("any", "raw"):
            return
        if old["kind"] == "union":
            for each in old["each"]:
                yield from self.types(place, each, new)
        elif new["kind"] == "union":
            yield from self._one_of(place, old, new["each"])
        elif old["kind"] == new["kind"]:
            yield from self._within(place, old, new)
        elif not _is_wider(old, new):
            yield f"{place or 'it'} was {_word(old)} and is {_word(new)}"

    def _one_of(self, place: str, old: Description, choices: list[Description]) -> Iterator[str]:
        known = frozenset(self._compared)
        found = [list(_Comparing(self._old, self._new, known).types(place, old, each)) for each in choices]
        if all(found):
            alike = [problems for problems, each in zip(found, choices, strict=True) if each["kind"] == old["kind"]]
            none_fits = f"{place or 'it'} was {_word(old)} and cannot be that any more"
            yield from alike[0] if len(alike) == 1 else [none_fits]

    def _within(self, place: str, old: Description, new: Description) -> Iterator[str]:
        match old["kind"]:
            case "object":
                yield from self._objects(place, old["number"], new["number"])
            case "list":
                yield from self.types(f"each item{_of(place)}", old["of"], new["of"])
            case "dict":
                yield from self.types(f"each key{_of(place)}", old["key"], new["key"])
                yield from self.types(f"each value{_of(place)}", old["of"], new["of"])
            case "tuple" if len(old["each"]) != len(new["each"]):
                yield f"{place or 'it'} had {len(old['each'])} items and has {len(new['each'])}"
            case "tuple":
                for number, (before, now) in enumerate(zip(old["each"], new["each"], strict=True)):
                    yield from self.types(f"item {number}{_of(place)}", before, now)
            case "enum":
                if gone := [value for value in old["values"] if value not in new["values"]]:
                    yield f"{place or 'it'} may be {gone[0]!r}, which is no value any more"
        yield from _tighter(place, old, new)

    def _objects(self, place: str, old_number: int, new_number: int) -> Iterator[str]:
        if (old_number, new_number) in self._compared:
            return
        self._compared.add((old_number, new_number))
        old, new = self._old[old_number], self._new[new_number]
        if old.get("tag") != new.get("tag"):
            yield f"the tag{_of(place)} was {old.get('tag')} and is {new.get('tag')}"
        if old.get("in_order") != new.get("in_order"):
            yield f"{place or 'it'} was written as {'a list' if old.get('in_order') else 'an object'}"
        elif old.get("in_order") and list(old["fields"]) != list(new["fields"])[: len(old["fields"])]:
            yield f"the order of the fields{_of(place)} has changed, and array_like goes by it"
        yield from self._fields(place, old, new)

    def _fields(self, place: str, old: Description, new: Description) -> Iterator[str]:
        for name, field in old["fields"].items():
            if name in new["fields"]:
                yield from self.types(_field(place, name), field["of"], new["fields"][name]["of"])
            elif field["required"] or new.get("strict"):
                yield f"{_field(place, name)} is not there any more"
        for name, field in new["fields"].items():
            if name not in old["fields"] and field["required"]:
                yield f"{_field(place, name)} is new and has no default"


def _field(place: str, name: str) -> str:
    return f"{place}.{name}" if place.startswith("field ") else f"field {name}{_of(place)}"


def _of(place: str) -> str:
    return f" of {place}" if place else ""


def _is_wider(old: Description, new: Description) -> bool:
    """Whether everything that was one kind can be read as the other."""
    match old["kind"], new["kind"]:
        case "int", "float":
            return True
        case "enum", "str":
            return all(isinstance(value, str) for value in old["values"])
        case "enum", "int":
            return all(isinstance(value, int) for value in old["values"])
        case kind, "str":
            return kind in _AS_TEXT and not any(name in new for name in _BOUNDS)
        case _:
            return False


def _tighter(place: str, old: Description, new: Description) -> Iterator[str]:
    for name in _BOUNDS:
        before, now = old.get(name), new.get(name)
        if now is None or now == before:
            continue
        wider = before is not None and (
            (name in _LOWER_BOUNDS and now <= before) or (name in _UPPER_BOUNDS and now >= before)
        )
        if not wider:
            yield f"{place or 'it'} has to have {name} {now!r}, which it did not have to before"


def _word(described: Description) -> str:
    match described["kind"]:
        case "none":
            return "None"
        case "enum":
            return f"one of {described['values']}"
        case kind:
            return str(kind)
