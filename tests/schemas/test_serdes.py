"""What serdes with a registry write and read, in a topology and alone."""

from __future__ import annotations

import datetime
import enum
import json
import subprocess
import sys
import uuid
from datetime import timedelta
from typing import Any, Literal

import msgspec
import pytest

from streamlib import Record, StreamsBuilder, TimeWindows, Topology, Windowed
from streamlib.engine.plan import make_plan
from streamlib.errors import (
    ConfigError,
    SchemaRegistryError,
    SchemaRegistryUnavailableError,
    SerializationError,
    TopologyError,
)
from streamlib.schemas import SchemaRegistry, Subject
from streamlib.schemas.framing import header
from streamlib.schemas.schema import Reference, Schema
from streamlib.serdes import Place, Serde
from streamlib.testing import TopologyTestDriver, simulate
from tests.schemas.stub import Stub

ORDERS = Place(topic="orders")


class Kind(enum.Enum):
    IN = "in"
    OUT = "out"


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    lives: int


class Tree(msgspec.Struct):
    number: int
    children: list[Tree] = []


class Everything(msgspec.Struct, rename="camel"):
    user_name: str
    cents: int
    ratio: float
    yes: bool
    raw: bytes
    tags: list[str]
    counts: dict[str, int]
    kind: Kind
    at: datetime.datetime
    on: datetime.date
    ident: uuid.UUID
    pet: Cat | Dog
    pets: list[Cat | Dog] = []
    note: str | None = None
    least: int = 3
    other: Kind = Kind.OUT


class Order(msgspec.Struct):
    user: str
    cents: int


EVERYTHING = Everything(
    "ann", -3, 0.5, True, b"\xff\x00", ["a"], {"x": 1}, Kind.OUT,
    datetime.datetime(2020, 1, 2, 3, 4, 5, 6, datetime.UTC), datetime.date(2020, 1, 2), uuid.UUID(int=7), Dog(1),
    [Cat(9), Dog(1)],
)  # fmt: skip

ORDER_V1 = json.dumps(
    {"type": "record", "name": "Order", "fields": [{"name": "user", "type": "string"}, {"name": "old", "type": "long"}]}
)


def placed(serde: Serde[Any], place: Place = ORDERS) -> Serde[Any]:
    return serde.at(place)


@pytest.mark.parametrize("form", ["avro", "json_schema"])
def test_every_kind_of_value_comes_back(form: str) -> None:
    serde = placed(getattr(SchemaRegistry.in_memory(), form)(Everything))
    data = serde.encode(EVERYTHING)
    assert data[:5] == header(1)
    assert serde.decode(data) == EVERYTHING


@pytest.mark.parametrize("form", ["avro", "json_schema"])
def test_structs_with_tags_are_told_apart(form: str) -> None:
    serde = placed(getattr(SchemaRegistry.in_memory(), form)(Cat | Dog))
    for pet in (Cat(9), Dog(9)):
        assert serde.decode(serde.encode(pet)) == pet


def test_a_type_that_contains_itself_comes_back() -> None:
    serde = placed(SchemaRegistry.in_memory().avro(Tree, namespace="shop"))
    assert serde.decode(serde.encode(Tree(1, [Tree(2)]))) == Tree(1, [Tree(2)])


def test_messages_come_back(shop_pb2: Any) -> None:
    serde = placed(SchemaRegistry.in_memory().protobuf(shop_pb2.Customer.Address))
    message = shop_pb2.Customer.Address(city="Rome")
    assert serde.encode(message) == header(1) + b"\x04\x00\x00" + message.SerializeToString()
    assert serde.decode(serde.encode(message)) == message


def test_a_message_of_another_type_is_refused(shop_pb2: Any) -> None:
    serde = placed(SchemaRegistry.in_memory().protobuf(shop_pb2.Order))
    with pytest.raises(TypeError, match=r"protobuf\(shop.Order\) cannot encode Customer"):
        serde.encode(shop_pb2.Customer())


def test_fields_that_were_added_and_removed_are_resolved() -> None:
    class Order(msgspec.Struct):
        user: str
        cents: int = 5

    registry = SchemaRegistry.in_memory()
    old = placed(registry.avro(dict, schema=ORDER_V1))
    new = placed(registry.avro(Order))
    assert new.decode(old.encode({"user": "ann", "old": 1})) == Order("ann", 5)


def test_a_record_that_cannot_be_resolved_names_schema_and_field() -> None:
    registry = SchemaRegistry.in_memory()
    data = placed(registry.avro(dict, schema=ORDER_V1)).encode({"user": "ann", "old": 1})
    with pytest.raises(ValueError, match=r"schema id 1, cannot be read as avro\(Order\).*cents"):
        placed(registry.avro(Order)).decode(data)


def test_without_a_schema_of_its_own_a_dict_is_what_was_written() -> None:
    registry = SchemaRegistry.in_memory()
    data = placed(registry.avro(Order)).encode(Order("ann", 3))
    any_order = placed(registry.avro(dict))
    assert any_order.decode(data) == {"user": "ann", "cents": 3}
    with pytest.raises(TopologyError, match="no schema to write to subject orders-value"):
        any_order.encode({"user": "ann"})


def test_avro_takes_other_schemas_by_reference() -> None:
    registry = SchemaRegistry.in_memory()
    registry._client.register("kinds", Schema(json.dumps({"type": "enum", "name": "Kind", "symbols": ["IN", "OUT"]})))
    outer = {"type": "record", "name": "R", "fields": [{"name": "kind", "type": "Kind"}]}
    schema_id = registry._client.register(
        "orders-value", Schema(json.dumps(outer), "AVRO", (Reference("Kind", "kinds", 1),))
    )
    assert registry.avro(dict).decode(header(schema_id) + b"\x02") == {"kind": "OUT"}


@pytest.mark.parametrize(
    ("type_", "why"),
    [
        (dict[int, str], "DictType"),
        (Literal["a", 1], "neither all text nor all numbers"),
        (object(), "no Avro schema"),
        (msgspec.defstruct("S", ["a"], array_like=True), "array_like"),
    ],
)
def test_what_avro_cannot_say_is_refused_at_once(type_: Any, why: str) -> None:
    with pytest.raises(TopologyError, match=why):
        SchemaRegistry.in_memory().avro(type_)


def test_a_class_that_protoc_did_not_make_is_refused() -> None:
    with pytest.raises(TopologyError, match="protoc has generated"):
        SchemaRegistry.in_memory().protobuf(Order)


def test_json_is_checked_against_a_schema_that_is_given_both_ways() -> None:
    schema = json.dumps(
        {"title": "Order", "type": "object", "properties": {"cents": {"type": "integer", "minimum": 0}}}
    )
    registry = SchemaRegistry.in_memory()
    strict = placed(registry.json_schema(dict, schema=schema))
    lax = placed(registry.json_schema(dict))
    assert strict.decode(strict.encode({"cents": 1})) == {"cents": 1}
    with pytest.raises(ValueError, match=r"\$\.cents: -1 is less than the minimum of 0"):
        strict.encode({"cents": -1})
    with pytest.raises(ValueError, match=r"-1 is less than the minimum of 0"):
        strict.decode(lax.encode({"cents": -1}))


def test_bytes_without_a_schema_id_are_said_to_be_that() -> None:
    with pytest.raises(ValueError, match="not written with a schema registry"):
        SchemaRegistry.in_memory().avro(Order).decode(b'{"user": "ann"}')


def test_a_schema_of_another_format_is_refused() -> None:
    registry = SchemaRegistry.in_memory()
    data = placed(registry.json_schema(Order)).encode(Order("ann", 3))
    with pytest.raises(ValueError, match=r"schema id 1 is JSON, and avro\(Order\) reads and writes AVRO"):
        registry.avro(Order).decode(data)


# --- subjects ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "subjects"),
    [
        ("topic", {"orders-key", "orders-value"}),
        ("record", {"shop.Order"}),
        ("topic_record", {"orders-shop.Order"}),
        (lambda at: f"{at.topic}/{at.is_key}/{at.record_name}", {"orders/True/shop.Order", "orders/False/shop.Order"}),
    ],
)
def test_subjects_are_called_as_the_strategy_says(strategy: Any, subjects: set[str]) -> None:
    registry = SchemaRegistry.in_memory(subject_strategy=strategy)
    serde = registry.avro(Order, namespace="shop")
    for is_key in (True, False):
        serde.at(Place(topic="orders", is_key=is_key)).encode(Order("ann", 3))
    assert set(registry._client._subjects) == subjects  # type: ignore[attr-defined]


def test_a_strategy_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="'topic', 'record', 'topic_record' or a function, not 'topics'"):
        SchemaRegistry("http://host", subject_strategy="topics")  # type: ignore[arg-type]


def test_a_function_is_told_what_a_subject_is_made_of() -> None:
    told: list[Subject] = []

    def called(subject: Subject) -> str:
        told.append(subject)
        return "s"

    placed(SchemaRegistry.in_memory(subject_strategy=called).avro(Order)).encode(Order("ann", 3))
    assert told == [Subject("orders", False, "Order")]


def test_without_a_topic_nothing_can_be_written() -> None:
    with pytest.raises(TypeError, match="does not know its topic"):
        SchemaRegistry.in_memory().avro(Order).encode(Order("ann", 3))


def test_an_unregistered_schema_is_refused_where_none_is_to_be_registered() -> None:
    registry = SchemaRegistry.in_memory(auto_register=False)
    serde = placed(registry.avro(Order))
    with pytest.raises(SchemaRegistryError, match=r"avro\(Order\) is not in subject orders-value.*auto_register=True"):
        serde.encode(Order("ann", 3))
    registry._client.register("orders-value", Schema(json.dumps({"type": "string"})))
    with pytest.raises(SchemaRegistryError, match="not in subject orders-value"):
        serde.encode(Order("ann", 3))
    registry._client.register("orders-value", _schema_of(Order))
    assert serde.decode(serde.encode(Order("ann", 3))) == Order("ann", 3)


def _schema_of(type_: type) -> Schema:
    registry = SchemaRegistry.in_memory()
    placed(registry.avro(type_)).encode(type_("ann", 3))
    return registry._client.by_id(1)


def test_the_newest_schema_of_the_subject_is_written_if_so_configured(stub: Stub) -> None:
    fields = [{"name": "user", "type": "string"}, {"name": "added", "type": "long", "default": 8}]
    latest = json.dumps({"type": "record", "name": "Order", "fields": fields})
    stub.answers[0] = (200, {"id": 9, "version": 2, "schema": latest, "subject": "orders-value"})
    serde = placed(SchemaRegistry(stub.url, use_latest_version=True).avro(Order))
    assert serde.encode(Order("ann", 3)) == header(9) + b"\x06ann\x10"
    assert [each.path for each in stub.asked] == ["/subjects/orders-value/versions/latest"]


# --- in a topology ----------------------------------------------------------------------------------------------------


def counting(registry: SchemaRegistry) -> Topology:
    """Through a repartition topic into a store of totals, in Avro everywhere."""
    builder = StreamsBuilder()
    orders = builder.stream("orders", key=str, value=registry.avro(Order))
    by_user = orders.group_by(lambda _, order: order.user, key=str, name="by-user")
    totals = by_user.reduce(lambda left, right: Order(left.user, left.cents + right.cents), store="totals")
    totals.to_stream().to("out", value=registry.json_schema(Order))
    return builder.build()


def test_sinks_stores_and_repartition_topics_have_subjects_of_their_own() -> None:
    registry = SchemaRegistry.in_memory()
    with TopologyTestDriver(counting(registry)) as driver:
        orders = driver.input_topic("orders", key=str, value=registry.avro(Order))
        out = driver.output_topic("out", key=str, value=registry.json_schema(Order))
        orders.pipe_input("x", Order("ann", 3))
        orders.pipe_input("y", Order("ann", 4))
        assert out.read_key_values() == [("ann", Order("ann", 3)), ("ann", Order("ann", 7))]
        application = driver._config.application_id
        assert driver.store("totals").get("ann") == Order("ann", 7)
    assert set(registry._client._subjects) == {  # type: ignore[attr-defined]
        "orders-value",  # by the test
        f"{application}-by-user-repartition-value",
        f"{application}-totals-changelog-value",
        "out-value",
    }


def test_a_topic_that_is_chosen_record_by_record_has_its_own_subject() -> None:
    registry = SchemaRegistry.in_memory()
    builder = StreamsBuilder()
    orders = builder.stream("orders", key=str, value=registry.avro(Order))
    orders.to(lambda key, order, context: f"of-{order.user}")
    with TopologyTestDriver(builder.build()) as driver:
        topic = driver.input_topic("orders", key=str, value=registry.avro(Order))
        topic.pipe_input("x", Order("ann", 3))
        topic.pipe_input("x", Order("bob", 3))
        assert driver.output_topic("of-bob", key=str, value=registry.avro(Order)).read_values() == [Order("bob", 3)]
    assert set(registry._client._subjects) == {"orders-value", "of-ann-value", "of-bob-value"}  # type: ignore[attr-defined]


def test_windowed_keys_and_changes_of_tables_are_written_with_it() -> None:
    registry = SchemaRegistry.in_memory()
    order = registry.avro(Order)
    builder = StreamsBuilder()
    orders = builder.stream("orders", key=order, value=order)
    windows = orders.group_by_key().windowed_by(TimeWindows.of_size(timedelta(seconds=1), grace=timedelta(0)))
    windows.count(store="counts").to_stream().to("windows")
    table = builder.table("rows", key=str, value=order)
    by_user = table.group_by(lambda _, row: (row.user, row), key=str, name="regrouped")
    by_user.count(store="per-user").to_stream().to("users")
    with TopologyTestDriver(builder.build()) as driver:
        driver.input_topic("orders", key=order, value=order).pipe_input(Order("k", 1), Order("v", 2), timestamp_ms=0)
        windowed = driver.output_topic("windows", key=Windowed[order], value=int)  # type: ignore[valid-type]
        assert windowed.read_key_values() == [(Windowed(Order("k", 1), 0, 1000), 1)]
        rows = driver.input_topic("rows", key=str, value=order)
        rows.pipe_input("1", Order("ann", 1))
        rows.pipe_input("1", Order("bob", 1))
        users = driver.output_topic("users", key=str, value=int).read_key_values()
        assert users == [("ann", 1), ("ann", 0), ("bob", 1)]
        application = driver._config.application_id
    assert {"windows-key", f"{application}-regrouped-repartition-value"} <= set(registry._client._subjects)  # type: ignore[attr-defined]


def test_tables_joined_by_foreign_key_compare_rows_as_their_stores_have_them() -> None:
    registry = SchemaRegistry.in_memory()
    builder = StreamsBuilder()
    orders = builder.table("orders", key=str, value=registry.avro(Order), store="orders")
    users = builder.table("users", key=str, value=registry.json_schema(Order))
    joined = orders.join(
        users, lambda order, user: order.cents + user.cents, foreign_key=lambda order: order.user, result=int
    )
    joined.to_stream().to("out")
    with TopologyTestDriver(builder.build()) as driver:
        users_in = driver.input_topic("users", key=str, value=registry.json_schema(Order))
        users_in.pipe_input("ann", Order("ann", 10))
        driver.input_topic("orders", key=str, value=registry.avro(Order)).pipe_input("1", Order("ann", 3))
        users_in.pipe_input("ann", Order("ann", 20))
        assert driver.output_topic("out", key=str, value=int).read_key_values() == [("1", 13), ("1", 23)]


def test_under_faults_everything_is_there_once() -> None:
    registry = SchemaRegistry.in_memory()
    topology = counting(registry)
    for seed in range(3):
        simulate(topology, {"orders": [Record("ab"[n % 2], Order("ab"[n % 2], n), n) for n in range(30)]}, seed=seed)


def test_what_is_to_be_asked_is_asked_before_anything_runs(stub: Stub) -> None:
    topology = counting(SchemaRegistry(stub.url))
    plan = make_plan(topology, "app", {"orders": 1, "out": 1})
    assert stub.asked == []
    stub.on["GET"] = (404, {"error_code": 40401, "message": "Subject not found"})
    stub.answers[0] = (200, {"id": 4})
    for prepare in plan.preparations:
        prepare()
    assert sorted((each.method, each.path.split("/")[2]) for each in stub.asked) == [
        ("GET", "app-by-user-repartition-value"),
        ("GET", "orders-value"),
        ("POST", "app-by-user-repartition-value"),
        ("POST", "app-totals-changelog-value"),
        ("POST", "out-value"),
    ]
    (totals,) = plan.stores(plan.tasks[-1])
    totals.value.encode(Order("ann", 3))
    assert len(stub.asked) == 5


def test_what_a_source_has_is_read_ahead(stub: Stub) -> None:
    old, new = json.dumps("string"), json.dumps("long")
    stub.answers.extendleft(
        reversed(
            [
                (200, [1, 2]),
                (200, {"id": 5, "version": 1, "schema": old}),
                (200, {"id": 6, "version": 2, "schema": new}),
            ]
        )
    )
    preparations: list[Any] = []
    place = Place(topic="orders", writes=False, preparations=preparations)
    serde = SchemaRegistry(stub.url).avro(dict).at(place)
    preparations[0]()
    asked = len(stub.asked)
    read: Any = serde.decode
    assert read(header(5) + b"\x06ann") == "ann"
    assert read(header(6) + b"\x10") == 8
    assert len(stub.asked) == asked == 3


def failing(registry: SchemaRegistry) -> tuple[Topology, Any]:
    builder = StreamsBuilder()
    builder.stream("orders", key=str, value=registry.avro(Order), on_deserialization_error="skip").to("out")
    return builder.build(), header(1) + b"\x06ann\x06"


def test_an_id_that_the_registry_does_not_have_is_the_record_s_fault(stub: Stub) -> None:
    stub.answers[0] = (404, {"error_code": 40403, "message": "Schema not found"})
    topology, data = failing(SchemaRegistry(stub.url))
    with TopologyTestDriver(topology) as driver:
        for _ in range(5):
            driver.input_topic("orders", key=str).pipe_input("x", data)
        assert driver.output_topic("out").is_empty
    assert [each.path for each in stub.asked] == ["/schemas/ids/1"]  # not once for each record


def test_no_record_is_skipped_because_the_registry_is_down(stub: Stub) -> None:
    stub.answers[0] = (503, "down")
    topology, data = failing(SchemaRegistry(stub.url, timeout=timedelta(seconds=0.2)))
    where = r"\[reading topic orders, partition 0, offset 0"
    down = pytest.raises(SchemaRegistryUnavailableError, match=rf"schema id 1: .*status 503.*{where}")
    with TopologyTestDriver(topology) as driver, down:
        driver.input_topic("orders", key=str).pipe_input("x", data)


def test_a_sink_s_failing_registry_is_no_fault_of_the_value(stub: Stub) -> None:
    stub.answers[0] = (503, "down")
    registry = SchemaRegistry(stub.url, timeout=timedelta(seconds=0.2))
    builder = StreamsBuilder()
    inputs = builder.stream("in", key=str, value=bytes)
    inputs.map_values(lambda value: Order("ann", 3), value=registry.avro(Order)).to("out")
    down = pytest.raises(SchemaRegistryUnavailableError, match=r"subject out-value, avro\(Order\): POST")
    with TopologyTestDriver(builder.build()) as driver, down:
        driver.input_topic("in", key=str).pipe_input("x", b"")


def test_a_record_that_does_not_fit_its_schema_is_the_record_s_fault() -> None:
    registry = SchemaRegistry.in_memory()
    builder = StreamsBuilder()
    builder.stream("orders", key=str, value=registry.avro(Order)).to("out")
    with TopologyTestDriver(builder.build()) as driver:
        placed(registry.avro(Order)).encode(Order("ann", 3))
        with pytest.raises(SerializationError, match=r"orders.*schema id 1, cannot be read as avro\(Order\)"):
            driver.input_topic("orders", key=str).pipe_input("x", header(1) + b"\x06a")


def test_nothing_of_it_is_imported_with_streamlib() -> None:
    code = (
        "import sys, streamlib; "
        "print([m for m in sys.modules if m.split('.')[0] in ('fastavro', 'google', 'urllib3', 'jsonschema') "
        "or m.startswith('streamlib.schemas')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
