"""What is a compatible change of a type, and what is not."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlib.row_versions import upgrades
from streamlib.serdes import Place, Serde, Serdes, serde_for
from streamlib.state.shapes import StoreShape, describe, differences
from streamlib.topology.nodes import StoreSpec

Min = msgspec.Meta


def struct(*fields: Any, **options: Any) -> Any:
    return msgspec.defstruct("Row", fields, **options)


class Tree(msgspec.Struct):
    left: Tree | None = None


class Colour(enum.Enum):
    RED = "red"


class Pair(NamedTuple):
    a: int


COMPATIBLE = [
    (struct(("a", int)), struct(("a", int), ("b", str, ""))),  # new, with a default
    (struct(("a", int), ("b", str, "")), struct(("a", int))),  # a rollback of that
    (struct(("a", int)), struct(("a", int | None))),
    (struct(("a", int)), struct(("a", float))),
    (struct(("a", int)), struct(("a", Any))),
    (struct(("a", int), ("b", int)), struct(("b", int), ("a", int))),
    (struct(("a", int)), struct(("a", int), ("b", int, 0), array_like=False)),
    (struct(("a", int), array_like=True), struct(("a", int), ("b", int, 0), array_like=True)),
    (struct(("a", Annotated[int, Min(ge=3)])), struct(("a", Annotated[int, Min(ge=2)]))),
    (struct(("a", Annotated[int, Min(ge=3)])), struct(("a", int))),
    (struct(("a", Literal["x"])), struct(("a", Literal["x", "y"]))),
    (struct(("a", Literal["x"])), struct(("a", str))),
    (struct(("a", Literal["red"])), struct(("a", Colour))),
    (struct(("a", list[int])), struct(("a", set[int]))),
    (struct(("a", uuid.UUID)), struct(("a", str))),
    (struct(("a", int | str)), struct(("a", str | int | None))),
    (struct(("a", dict[str, int])), struct(("a", dict[str, float]))),
    (struct(("userName", int)), struct(("user_name", int), rename="camel")),
    (Tree, Tree),
    (Pair, Pair),
]

INCOMPATIBLE = [
    (struct(("a", int)), struct(("b", int)), ["field a is not there any more", "field b is new and has no default"]),
    (struct(("a", int)), struct(("a", int), ("b", str)), ["field b is new and has no default"]),
    (struct(("a", int), ("b", str)), struct(("a", int)), ["field b is not there any more"]),
    (struct(("a", int)), struct(("a", str)), ["field a was int and is str"]),
    (struct(("a", datetime)), struct(("a", str)), ["field a was datetime and is str"]),
    (struct(("a", float)), struct(("a", int)), ["field a was float and is int"]),
    (struct(("a", int | None)), struct(("a", int)), ["field a was None and is int"]),
    (struct(("a", int | None)), struct(("a", str | None)), ["field a was int and cannot be that any more"]),
    (struct(("a", list[int])), struct(("a", list[str])), ["each item of field a was int and is str"]),
    (struct(("a", dict[str, int])), struct(("a", dict[int, int])), ["each key of field a was str and is int"]),
    (struct(("a", tuple[int, int])), struct(("a", tuple[int])), ["field a had 2 items and has 1"]),
    (struct(("a", tuple[int, int])), struct(("a", tuple[int, str])), ["item 1 of field a was int and is str"]),
    (struct(("a", Literal["x", "y"])), struct(("a", Literal["x"])), ["field a may be 'y', which is no value any more"]),
    (struct(("a", int)), struct(("a", Annotated[int, Min(ge=0)])), ["field a has to have ge 0, which it did not"]),
    (struct(("a", int)), struct(("a", int), tag="b"), ["the tag was None and is ['type', 'b']"]),
    (struct(("a", int)), struct(("a", int), array_like=True), ["it was written as an object"]),
    (
        struct(("a", int), ("b", int), array_like=True),
        struct(("b", int), ("a", int), array_like=True),
        ["the order of the fields has changed"],
    ),
    (struct(("a", int), ("b", int, 0)), struct(("a", int), forbid_unknown_fields=True), ["field b is not there"]),
    (struct(("r", struct(("a", int)))), struct(("r", struct(("a", str)))), ["field r.a was int and is str"]),
    (
        struct(("r", list[struct(("a", int))])),  # type: ignore[misc]
        struct(("r", list[struct(("b", int, 0))])),  # type: ignore[misc]
        ["field a of each item of field r is not there any more"],
    ),
    (
        struct(("a", struct(("x", int)) | None)),
        struct(("a", struct(("x", str)) | None)),
        ["field a.x was int and is str"],
    ),
    (dict, list, ["it was dict and is list"]),
]


@pytest.mark.parametrize(("old", "new"), COMPATIBLE)
def test_a_compatible_change_has_no_differences(old: Any, new: Any) -> None:
    assert differences(describe(old), describe(new)) == []


@pytest.mark.parametrize(("old", "new", "wanted"), INCOMPATIBLE)
def test_an_incompatible_change_is_named(old: Any, new: Any, wanted: list[str]) -> None:
    found = differences(describe(old), describe(new))
    assert len(found) == len(wanted)
    for text, begin in zip(found, wanted, strict=True):
        assert text.startswith(begin)


ROWS: dict[Any, Callable[[], Any]] = {
    int: lambda: st.integers(-9, 9),
    float: lambda: st.floats(-9, 9, allow_nan=False),
    str: lambda: st.text(max_size=2),
    list[int]: lambda: st.lists(st.integers(0, 9), max_size=2),
    int | None: lambda: st.none() | st.integers(0, 9),
    str | int: lambda: st.text(max_size=2) | st.integers(0, 9),
    Literal["x", "y"]: lambda: st.sampled_from(["x", "y"]),
    Annotated[int, Min(ge=0)]: lambda: st.integers(0, 9),
}
FIELDS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(list(ROWS)), st.booleans()), unique_by=lambda field: field[0]
)


@given(FIELDS, FIELDS, st.data(), st.booleans())
def test_rows_of_a_type_without_differences_can_be_read(
    old: list[Any], new: list[Any], data: st.DataObject, in_order: bool
) -> None:
    """No false alarm is promised; that there is none missing is."""

    def made(fields: list[Any]) -> tuple[Any, dict[str, Any]]:
        needed = sorted(fields, key=lambda field: bool(field[2]))
        drawn = {name: data.draw(ROWS[type_]()) for name, type_, _ in needed}
        declared = [
            (name, type_, msgspec.field(default_factory=partial(drawn.get, name))) if default else (name, type_)
            for name, type_, default in needed
        ]
        return struct(*declared, array_like=in_order), drawn

    (before, row), (now, _) = made(old), made(new)
    if not differences(describe(before), describe(now)):
        for serde in (Serdes.json, Serdes.msgpack):
            serde(now).decode(serde(before).encode(before(**row)))


# --- of a store -------------------------------------------------------------------------------------------------------


def spec(key: Any = str, value: Any = int) -> StoreSpec:
    place = Place(topic="t", is_internal=True)
    return StoreSpec(name="s", kind="key_value", key=serde_for(key), value=serde_for(value).at(place))


class First(msgspec.Struct):
    amount: float


@upgrades(First, lambda old: Second(0))
class Second(msgspec.Struct):
    cents: int


@upgrades(Second, lambda old: Third(0), version=3)
class Third(msgspec.Struct):
    minor: int


class SecondAlone(msgspec.Struct):
    cents: int


@upgrades(SecondAlone, lambda old: ThirdWithoutFirst(0), version=3)
class ThirdWithoutFirst(msgspec.Struct):
    minor: int


MINE: Serde[Any] = Serde("mine", str, str.encode, bytes.decode)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (spec(), spec(), None),
        (spec(), spec(value=str), "its values were written as long, and are string now"),
        (spec(value=First), spec(value=Serdes.msgpack(First)), "its values were written as json, and are msgpack now"),
        (spec(key=str), spec(key=int), "its keys are not what they were (long now)"),
        (spec(key=First), spec(key=struct(("amount", float), ("b", int, 0))), "its keys are not what they were"),
        (spec(key=First), spec(key=struct(("amount", float))), None),  # the name is not in the rows
        (spec(value=MINE), spec(value=str), None),  # nothing is known
        (spec(value=First), spec(value=SecondAlone), "field amount is not there any more"),
        (spec(value=First), spec(value=Second), None),
        (spec(value=First), spec(value=Third), None),
        (spec(value=Second), spec(value=Third), None),
        (spec(value=Third), spec(value=Second), "a newer program has written values of version 3"),
        (spec(value=Second), spec(value=ThirdWithoutFirst), "there may be values of version 1"),
        (spec(value=struct(("amount", str))), spec(value=Second), "field amount was str and is float (version 1)"),
    ],
)
def test_a_store_reads_what_was_written_or_says_why_not(old: StoreSpec, new: StoreSpec, problem: str | None) -> None:
    found = msgspec.json.decode(msgspec.json.encode(StoreShape.of(old)), type=StoreShape).problems(new)
    assert found == [] if problem is None else found[0].startswith(problem)
