"""What members tell each other, as bytes."""

from __future__ import annotations

import pytest

from streamlib.kafka.consumer_protocol import (
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from streamlib.kafka.protocol.primitives import DecodeError
from streamlib.records import TopicPartition
from streamlib.runtime.ports import Assignment, Subscription

OWNED = (TopicPartition("a", 0), TopicPartition("a", 2), TopicPartition("b", 1))


def test_subscription_survives_the_round_trip() -> None:
    subscription = Subscription(("a", "b"), OWNED, 7, b"data")
    assert decode_subscription(encode_subscription(subscription)) == subscription


def test_assignment_survives_the_round_trip() -> None:
    assignment = Assignment(OWNED, b"data")
    assert decode_assignment(encode_assignment(assignment)) == assignment


def test_no_bytes_are_no_assignment() -> None:
    assert decode_assignment(b"") == Assignment(())


def test_first_version_claims_nothing() -> None:
    data = bytes.fromhex("0000 00000001 0001 61 ffffffff")
    assert decode_subscription(data) == Subscription(("a",), (), -1, b"")


def test_newer_version_is_read_as_far_as_it_is_known() -> None:
    subscription = Subscription(("a",), OWNED, 7, b"data")
    newer = b"\x00\x09" + encode_subscription(subscription)[2:] + b"something new"
    assert decode_subscription(newer) == subscription


@pytest.mark.parametrize("data", [b"\x00", b"\xff\xff\x00", b"\x00\x03\x00\x00"])
def test_anything_else_is_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_subscription(data)
    with pytest.raises(DecodeError):
        decode_assignment(data)
