"""The wire format: golden bytes, and what holds for every message and version."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamlib.kafka.protocol.codec import Part, as_decoded, decode_whole, encode
from streamlib.kafka.protocol.messages import APIS
from streamlib.kafka.protocol.messages.consumer import ASSIGNMENT, SUBSCRIPTION
from streamlib.kafka.protocol.primitives import DecodeError, EncodeError
from streamlib.kafka.protocol.schema import Api, Field, Message, covers

# Building the strategies takes longer than using them.
thorough = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])

GOLDEN: list[tuple[str, Part, int, dict[str, Any], str]] = [
    (
        "Heartbeat",
        "request",
        3,
        {"group_id": "g", "generation_id": 5, "member_id": "m-1", "group_instance_id": None},
        "0001 67 00000005 0003 6d2d31 ffff",
    ),
    (
        "Heartbeat",
        "request",
        4,
        {"group_id": "g", "generation_id": 5, "member_id": "m-1", "group_instance_id": "i"},
        "02 67 00000005 04 6d2d31 02 69 00",
    ),
    (
        "Metadata",
        "request",
        12,
        {"topics": [{"name": "t"}], "allow_auto_topic_creation": False},
        "02" + 16 * "00" + "02 74 00 00 00 00",
    ),
    ("Metadata", "request", 9, {"topics": None}, "00 01 00 00 00"),
    (
        "Produce",
        "request",
        7,
        {
            "acks": -1,
            "timeout_ms": 1000,
            "topic_data": [{"name": "t", "partition_data": [{"index": 2, "records": b"\xab\xcd"}]}],
        },
        "ffff ffff 000003e8 00000001 0001 74 00000001 00000002 00000002 abcd",
    ),
    (
        "Produce",
        "response",
        10,
        {
            "responses": [
                {
                    "name": "t",
                    "partition_responses": [
                        {"index": 1, "error_code": 6, "current_leader": {"leader_id": 3, "leader_epoch": 9}}
                    ],
                }
            ]
        },
        # index, error, base offset, append time, start offset, no record errors, null message
        "02 02 74 02 00000001 0006 0000000000000000 ffffffffffffffff ffffffffffffffff 01 00"
        # one tag: number 0, 9 bytes: leader, epoch, no tags; then the ends of partition, topic and response
        "01 00 09 00000003 00000009 00" + "00 00000000 00",
    ),
    (
        "ApiVersions",
        "response",
        3,
        {
            "api_keys": [{"api_key": 18, "max_version": 4}],
            "finalized_features_epoch": 7,
            "finalized_features": [{"name": "tv", "max_version_level": 2, "min_version_level": 1}],
        },
        "0000 02 0012 0000 0004 00 00000000 02 01 08 0000000000000007 02 09 02 03 7476 0002 0001 00",
    ),
]


@pytest.mark.parametrize(("name", "part", "version", "body", "wire"), GOLDEN)
def test_golden_bytes(name: str, part: Part, version: int, body: dict[str, Any], wire: str) -> None:
    data = bytes.fromhex(wire)
    assert b"".join(encode(APIS[name], part, version, body)) == data
    decoded = decode_whole(APIS[name], part, version, data)
    for key, value in body.items():
        assert same(getattr(decoded, key), value)


def test_golden_subscription() -> None:
    body = {
        "topics": ["t"],
        "user_data": b"u",
        "owned_partitions": [{"topic": "t", "partitions": [4]}],
        "generation_id": 3,
    }
    wire = "00000001 0001 74 00000001 75 00000001 0001 74 00000001 00000004 00000003 ffff"
    assert b"".join(encode(SUBSCRIPTION, "request", 3, body)) == bytes.fromhex(wire)


def test_golden_assignment() -> None:
    body = {"assigned_partitions": [{"topic": "t", "partitions": [1, 2]}], "user_data": None}
    wire = "00000001 0001 74 00000002 00000001 00000002 ffffffff"
    assert b"".join(encode(ASSIGNMENT, "request", 3, body)) == bytes.fromhex(wire)


def test_unknown_field_is_refused() -> None:
    with pytest.raises(EncodeError, match="no field 'group'"):
        encode(APIS["Heartbeat"], "request", 4, {"group": "g"})


def test_field_of_a_later_version_is_refused_unless_it_is_its_default() -> None:
    old = APIS["Heartbeat"]
    assert encode(old, "request", 2, {"group_instance_id": None})
    with pytest.raises(EncodeError, match="only in versions 3"):
        encode(old, "request", 2, {"group_instance_id": "i"})


def test_ignorable_field_of_a_later_version_is_left_out() -> None:
    join = APIS["JoinGroup"]
    assert encode(join, "request", 7, {"reason": "why"}) == encode(join, "request", 7, {})


def test_null_is_refused_where_the_protocol_has_none() -> None:
    with pytest.raises(EncodeError, match="member_id: null"):
        encode(APIS["Heartbeat"], "request", 4, {"member_id": None})


def test_wrong_type_is_an_encode_error() -> None:
    with pytest.raises(EncodeError, match="Heartbeat v4 request"):
        encode(APIS["Heartbeat"], "request", 4, {"generation_id": "5"})


def test_absent_fields_read_as_their_default() -> None:
    decoded = decode_whole(APIS["ApiVersions"], "response", 0, bytes.fromhex("0000 00000000"))
    assert decoded.finalized_features_epoch == -1
    assert decoded.finalized_features == []


def test_unknown_tag_is_skipped() -> None:
    wire = bytes.fromhex("00000000 0000 01 63 02 abcd")
    assert decode_whole(APIS["Heartbeat"], "response", 4, wire).error_code == 0


@pytest.mark.parametrize(
    "wire",
    [
        "00000000 0000 01 00 05 ab",  # a tag that ends behind the message
        "00000000 0000 ff ff ff ff ff 01",  # a varint without end
        "00000000 0000",  # no tag section
    ],
)
def test_broken_tags_are_decode_errors(wire: str) -> None:
    with pytest.raises(DecodeError, match="Heartbeat v4 response"):
        decode_whole(APIS["Heartbeat"], "response", 4, bytes.fromhex(wire))


def test_wild_array_length_is_refused_before_anything_is_allocated() -> None:
    with pytest.raises(DecodeError, match="elements announced"):
        decode_whole(APIS["DeleteGroups"], "request", 0, bytes.fromhex("7fffffff"))


def test_records_are_decoded_without_a_copy() -> None:
    partition = {"index": 0, "records": b"abc"}
    body = {"topic_data": [{"name": "t", "partition_data": [partition]}]}
    wire = b"".join(encode(APIS["Produce"], "request", 12, body))
    records = decode_whole(APIS["Produce"], "request", 12, wire).topic_data[0].partition_data[0].records
    assert isinstance(records, memoryview)
    assert records.obj is wire


@thorough
@given(st.data())
def test_every_message_of_every_version_survives_the_round_trip(data: st.DataObject) -> None:
    message, part, version = data.draw(messages())
    body = data.draw(bodies(fields_of(message, part), version))
    wire = b"".join(encode(message, part, version, body))
    decoded = decode_whole(message, part, version, wire)
    assert same(decoded, body)


@thorough
@given(st.data())
def test_message_without_bytes_is_what_comes_back_from_bytes(data: st.DataObject) -> None:
    message, part, version = data.draw(messages())
    body = data.draw(bodies(fields_of(message, part), version))
    decoded = decode_whole(message, part, version, b"".join(encode(message, part, version, body)))
    assert msgspec.to_builtins(as_decoded(message, part, version)(body)) == msgspec.to_builtins(decoded)


@thorough
@given(st.data())
def test_truncated_message_is_a_decode_error(data: st.DataObject) -> None:
    message, part, version = data.draw(messages())
    body = data.draw(bodies(fields_of(message, part), version))
    wire = b"".join(encode(message, part, version, body))
    kept = data.draw(st.integers(0, max(len(wire) - 1, 0)))
    if kept < len(wire):
        with pytest.raises(DecodeError):
            decode_whole(message, part, version, wire[:kept])
    with pytest.raises(DecodeError, match="left over"):
        decode_whole(message, part, version, wire + b"\x00")


@thorough
@given(st.data(), st.binary(max_size=200))
def test_noise_is_decoded_or_refused_but_never_crashes(data: st.DataObject, noise: bytes) -> None:
    message, part, version = data.draw(messages())
    try:
        decode_whole(message, part, version, noise)
    except DecodeError:
        return


ALL: list[tuple[Api | Message, Part]] = [
    *((api, part) for api in APIS.values() for part in ("request", "response")),
    (SUBSCRIPTION, "request"),
    (ASSIGNMENT, "request"),
]


@st.composite
def messages(draw: st.DrawFn) -> tuple[Api | Message, Part, int]:
    """Any message in any of its versions."""
    message, part = draw(st.sampled_from(ALL))
    return message, part, draw(st.integers(*message.versions))


def fields_of(message: Api | Message, part: Part) -> tuple[Field, ...]:
    fields: tuple[Field, ...] = message.fields if isinstance(message, Message) else getattr(message, part)
    return fields


def bodies(fields: tuple[Field, ...], version: int) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the fields that the version has; a single struct has no default and has to be given."""
    present = {field.name: values(field, version) for field in fields if covers(field.versions, version)}
    needed = {name: present.pop(name) for name in [f.name for f in fields if f.kind == "struct"] if name in present}
    return st.fixed_dictionaries(needed, optional=present)


def values(field: Field, version: int) -> st.SearchStrategy[Any]:
    single = scalars(field, field.kind.removeprefix("[]"), version)
    value = st.lists(single, max_size=3) if field.kind.startswith("[]") else single
    return value | st.none() if covers(field.nullable, version) else value


def scalars(field: Field, kind: str, version: int) -> st.SearchStrategy[Any]:
    match kind:
        case "struct":
            return bodies(field.fields, version)
        case "string":
            return st.text(max_size=200)
        case "bytes" | "records":
            return st.binary(max_size=200)
        case "bool":
            return st.booleans()
        case "uuid":
            return st.uuids() | st.none()
        case "uint16":
            return st.integers(0, 2**16 - 1)
        case _:
            bits = int(kind.removeprefix("int")) - 1
            return st.integers(-(2**bits), 2**bits - 1)


def same(decoded: Any, given: Any) -> bool:
    """Whether everything that was given came back."""
    match given:
        case dict():
            return all(same(getattr(decoded, name), value) for name, value in given.items())
        case list():
            return len(decoded) == len(given) and all(map(same, decoded, given))
        case uuid.UUID() if given.int == 0:
            return decoded is None
        case _:
            assert not isinstance(decoded, msgspec.Struct)
            return bool(decoded == given)
