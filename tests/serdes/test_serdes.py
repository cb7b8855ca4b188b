"""Bytes are Kafka's; a serde never writes what it is not for."""

from __future__ import annotations

import dataclasses
import json
import struct
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal, NewType, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlib.errors import TopologyError
from streamlib.serdes import Serde, Serdes, serde_for

FIXTURES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "fixtures/serdes.json").read_text())
BY_JAVA_TYPE: dict[str, Serde[Any]] = {"string": Serdes.string(), "long": Serdes.long(), "int": Serdes.integer()}


class Order(msgspec.Struct):
    user: str
    amount: float


class Other(msgspec.Struct):
    user: str
    amount: float


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Named(TypedDict):
    name: str


Identifier = NewType("Identifier", int)

SAMPLES: list[tuple[Any, Any]] = [
    (int, -5),
    (float, 1.5),
    (str, "é😀"),
    (bytes, b"\x00\xff"),
    (bool, True),
    (uuid.UUID, uuid.UUID(int=7)),
    (Order, Order("ann", 2.5)),
    (Point, Point(1, 2)),
    (Named, {"name": "ann"}),
    (list[int], [1, 2]),
    (dict[str, Order], {"a": Order("ann", 1.0)}),
    (tuple[int, str], (1, "a")),
    (Literal["a"], "a"),
    (int | str, "a"),
    (Any, [1, "a", None]),
]


@pytest.mark.parametrize("row", FIXTURES, ids=str)
def test_bytes_are_those_of_kafkas_serdes(row: dict[str, Any]) -> None:
    serde = BY_JAVA_TYPE[row["type"]]
    assert serde.encode(row["value"]).hex() == row["hex"]
    assert serde.decode(bytes.fromhex(row["hex"])) == row["value"]


@pytest.mark.parametrize(("kind", "value"), SAMPLES, ids=str)
def test_what_is_written_can_be_read(kind: Any, value: Any) -> None:
    serde = serde_for(kind)
    assert serde.decode(serde.encode(value)) == value


@pytest.mark.parametrize(
    "kind", [int, float, str, bytes, bool, uuid.UUID, None, Order, Point, Named, list[int]], ids=str
)
def test_a_value_of_another_type_is_refused(kind: Any) -> None:
    serde = serde_for(kind)
    fitting = {float: (int, float), Named: (dict,), list[int]: (list,)}.get(kind, (kind,))
    samples = (5, 1.5, "a", b"a", True, uuid.UUID(int=1), Order("a", 1.0), Other("a", 1.0), Point(1, 2), {"a": 1}, [1])
    for value in samples:
        if type(value) in fitting:
            continue
        with pytest.raises(TypeError):
            serde.encode(value)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (int, b"123"),
        (float, b"123456789"),
        (str, b"\xff"),
        (bool, b"\x01\x01"),
        (uuid.UUID, b"x"),
        (None, b"x"),
        (Order, b'{"user": 3}'),
        (list[int], b"{}"),
    ],
    ids=str,
)
def test_bytes_of_another_type_are_refused(kind: Any, data: bytes) -> None:
    with pytest.raises((ValueError, struct.error, msgspec.MsgspecError)):
        serde_for(kind).decode(data)


@pytest.mark.parametrize("kind", [int | str, list[int] | int, Serdes.json(int)], ids=str)
def test_a_bool_is_not_an_int_in_json_either(kind: Any) -> None:
    with pytest.raises(TypeError, match="cannot encode bool"):
        serde_for(kind).encode(True)
    assert serde_for(int | bool).encode(True) == b"true"


def test_an_int_may_stand_where_a_float_does() -> None:
    assert serde_for(float | str).encode(1) == b"1"
    assert serde_for(float).decode(serde_for(float).encode(1)) == 1.0


def test_literals_of_several_types_are_json() -> None:
    serde = serde_for(Literal["a", 1])
    assert [serde.decode(serde.encode(value)) for value in ("a", 1)] == ["a", 1]
    with pytest.raises(msgspec.ValidationError):
        serde.decode(b"2")


def test_a_number_out_of_range_is_refused() -> None:
    with pytest.raises(struct.error):
        Serdes.long().encode(1 << 63)
    with pytest.raises(struct.error):
        Serdes.integer().encode(1 << 31)
    with pytest.raises(struct.error):
        Serdes.short().encode(1 << 15)


@pytest.mark.parametrize(
    ("hint", "plain"),
    [
        (int | None, int),
        (Annotated[str, "a comment"], str),
        (Identifier, int),
        (None, type(None)),
        (float | None, float),
        (Literal["red", "blue"], str),
        (Literal[1] | None, int),
    ],
    ids=str,
)
def test_a_hint_is_seen_through(hint: Any, plain: Any) -> None:
    assert serde_for(hint) is serde_for(plain)


def test_a_serde_stands_for_itself() -> None:
    assert serde_for(Serdes.integer()) is Serdes.integer()


def test_text_uuids_are_text() -> None:
    assert Serdes.uuid().encode(uuid.UUID(int=0)) == b"00000000-0000-0000-0000-000000000000"


def test_structs_are_json_or_msgpack_by_choice() -> None:
    order = Order("ann", 2.5)
    assert serde_for(Order).encode(order) == b'{"user":"ann","amount":2.5}'
    assert Serdes.msgpack(Order).encode(order) == msgspec.msgpack.encode(order)
    assert Serdes.msgpack(Order).decode(Serdes.msgpack(Order).encode(order)) == order


class Placed(msgspec.Struct, tag=True):
    item: str


class Cancelled(msgspec.Struct, tag=True):
    why: str | None = None


@pytest.mark.parametrize("form", [Serdes.json, Serdes.msgpack])
def test_structs_with_tags_are_told_apart(form: Any) -> None:
    serde = form(Placed | Cancelled)
    for event in (Placed("book"), Cancelled(), Cancelled("late")):
        assert serde.decode(serde.encode(event)) == event
    with pytest.raises(TypeError, match="cannot encode str"):
        serde.encode("book")
    with pytest.raises(msgspec.ValidationError, match="Returned"):
        serde.decode(form(dict).encode({"type": "Returned"}))


def test_java_widths() -> None:
    assert Serdes.short().encode(-1) == b"\xff\xff"
    assert Serdes.single().decode(Serdes.single().encode(0.5)) == 0.5
    assert len(Serdes.double().encode(1)) == 8


def test_a_type_without_a_format_is_an_error_at_once() -> None:
    with pytest.raises(TopologyError, match="no serde for"):
        serde_for(complex | set[object] | frozenset[int])


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_any_long_survives(value: int) -> None:
    assert Serdes.long().decode(Serdes.long().encode(value)) == value


@given(st.floats(allow_nan=False))
def test_any_double_survives(value: float) -> None:
    assert Serdes.double().decode(Serdes.double().encode(value)) == value


@given(st.text(), st.binary(), st.uuids(), st.booleans())
def test_any_other_plain_value_survives(text: str, raw: bytes, identifier: uuid.UUID, flag: bool) -> None:
    for value in (text, raw, identifier, flag):
        serde = serde_for(type(value))
        assert serde.decode(serde.encode(value)) == value


@given(st.builds(Order, st.text(), st.floats(allow_nan=False, allow_infinity=False)))
def test_any_struct_survives(order: Order) -> None:
    for serde in (Serdes.json(Order), Serdes.msgpack(Order)):
        assert serde.decode(serde.encode(order)) == order


@given(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-(1 << 63), (1 << 63) - 1))
def test_longs_of_one_sign_keep_their_order_as_bytes(one: int, other: int) -> None:
    """Rows of a store are sorted by their keys' bytes; negative numbers come last, as in Java."""
    encode = Serdes.long().encode
    assert (encode(one) < encode(other)) == ((one < 0, one) < (other < 0, other))
