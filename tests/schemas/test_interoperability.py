"""On a real registry: what Confluent's own serializers write is read here, and the other way round."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from streamlib.errors import SchemaRegistryError
from streamlib.schemas import SchemaRegistry
from streamlib.schemas.framing import header
from streamlib.serdes import Place
from tests.schemas.test_serdes import EVERYTHING, Everything, Order

pytestmark = [pytest.mark.broker, pytest.mark.slow]

INDEXES = {"use.deprecated.format": False}


@pytest.fixture
def theirs(registry_url: str) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": registry_url}) as client:
        yield client


def context(topic: str) -> SerializationContext:
    return SerializationContext(topic, MessageField.VALUE)


def text(client: SchemaRegistryClient, topic: str) -> str:
    return str(client.get_latest_version(f"{topic}-value").schema.schema_str)


def test_avro_of_ours_is_read(
    registry_url: str, theirs: SchemaRegistryClient, unique_name: Callable[[str], str]
) -> None:
    topic = unique_name("avro")
    data = SchemaRegistry(registry_url).avro(Everything, namespace="shop").at(Place(topic=topic)).encode(EVERYTHING)
    read = AvroDeserializer(theirs)(data, context(topic))
    assert read["userName"] == "ann"
    assert read["at"] == EVERYTHING.at
    assert read["pets"] == [{"type": "Cat", "lives": 9}, {"type": "Dog", "lives": 1}]


def test_avro_of_theirs_is_read(
    registry_url: str, theirs: SchemaRegistryClient, unique_name: Callable[[str], str]
) -> None:
    topic = unique_name("avro")
    serde = SchemaRegistry(registry_url).avro(Everything, namespace="shop").at(Place(topic=topic))
    ours = serde.encode(EVERYTHING)
    write = AvroSerializer(theirs, text(theirs, topic), conf={"auto.register.schemas": False})
    as_read = AvroDeserializer(theirs)(ours, context(topic))
    assert write(as_read, context(topic)) == ours
    assert serde.decode(write(as_read, context(topic))) == EVERYTHING


def test_json_of_ours_is_read_and_theirs_by_us(
    registry_url: str, theirs: SchemaRegistryClient, unique_name: Callable[[str], str]
) -> None:
    topic = unique_name("json")
    serde = SchemaRegistry(registry_url).json_schema(Everything).at(Place(topic=topic))
    ours = serde.encode(EVERYTHING)
    as_read = JSONDeserializer(text(theirs, topic), schema_registry_client=theirs)(ours, context(topic))
    assert as_read == msgspec.to_builtins(EVERYTHING)
    written = JSONSerializer(text(theirs, topic), theirs)(as_read, context(topic))
    assert serde.decode(written) == EVERYTHING


def test_protobuf_is_the_same_bytes(
    registry_url: str, theirs: SchemaRegistryClient, unique_name: Callable[[str], str], shop_pb2: Any
) -> None:
    for message in (shop_pb2.Order(user="ann", cents=3), shop_pb2.Customer.Address(city="Rome"), shop_pb2.Customer()):
        topic = unique_name("protobuf")
        serde = SchemaRegistry(registry_url).protobuf(type(message)).at(Place(topic=topic))
        ours = serde.encode(message)
        assert ours == ProtobufSerializer(type(message), theirs, INDEXES)(message, context(topic))
        assert ProtobufDeserializer(type(message), INDEXES)(ours, context(topic)) == message
        assert serde.decode(ours) == message


def test_what_has_been_registered_is_found_again(
    registry_url: str, unique_name: Callable[[str], str], shop_pb2: Any
) -> None:
    place = Place(topic=unique_name("again"))
    first, second = SchemaRegistry(registry_url), SchemaRegistry(registry_url, auto_register=False)
    for serdes in (
        [registry.protobuf(shop_pb2.Order).at(place) for registry in (first, second)],
        [registry.avro(Order).at(Place(topic=f"{place.topic}-avro")) for registry in (first, second)],
        [registry.json_schema(Order).at(Place(topic=f"{place.topic}-json")) for registry in (first, second)],
    ):
        value = shop_pb2.Order(user="ann") if "protobuf" in serdes[0].name else Order("ann", 3)
        assert serdes[0].encode(value) == serdes[1].encode(value)


def test_an_incompatible_schema_is_refused_with_its_subject(
    registry_url: str, theirs: SchemaRegistryClient, unique_name: Callable[[str], str]
) -> None:
    topic = unique_name("refused")
    theirs.set_compatibility(f"{topic}-value", "FULL")
    registry = SchemaRegistry(registry_url)
    registry.avro(Order).at(Place(topic=topic)).encode(Order("ann", 3))
    other = msgspec.defstruct("Order", [("user", int), ("new", str)])
    with pytest.raises(SchemaRegistryError, match=rf"subject {topic}-value, avro\(Order\).*refuses \(409"):
        registry.avro(other).at(Place(topic=topic)).encode(other(1, "x"))


def test_the_newest_version_is_written_and_read_as_the_type(
    registry_url: str, theirs: SchemaRegistryClient, unique_name: Callable[[str], str]
) -> None:
    from confluent_kafka.schema_registry import Schema

    topic = unique_name("latest")
    fields = [{"name": "user", "type": "string"}, {"name": "cents", "type": "long"}]
    added = [*fields, {"name": "added", "type": "long", "default": 8}]
    for each in (fields, added):
        schema = json.dumps({"type": "record", "name": "Order", "fields": each})
        latest = theirs.register_schema(f"{topic}-value", Schema(schema, "AVRO"))
    serde = SchemaRegistry(registry_url, use_latest_version=True).avro(Order).at(Place(topic=topic))
    data = serde.encode(Order("ann", 3))
    assert data == header(latest) + b"\x06ann\x06\x10"
    assert serde.decode(data) == Order("ann", 3)
