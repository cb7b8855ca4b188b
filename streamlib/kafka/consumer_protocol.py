"""What group members tell each other through the coordinator, as bytes (KIP-429, KIP-792).

A two-byte version goes first. Newer versions only append fields, so one that we do not know is read as the
newest that we do (`ConsumerProtocolSubscription.json`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from streamlib.kafka.by_topic import nested
from streamlib.kafka.protocol.codec import decode, encode
from streamlib.kafka.protocol.messages.consumer import ASSIGNMENT, SUBSCRIPTION
from streamlib.kafka.protocol.primitives import DecodeError
from streamlib.kafka.protocol.schema import Message
from streamlib.records import TopicPartition
from streamlib.runtime.ports import Assignment, Subscription

_VERSION_BYTES = 2


def encode_subscription(subscription: Subscription) -> bytes:
    """What a member says when it joins."""
    body = {
        "topics": list(subscription.topics),
        "user_data": subscription.user_data,
        "owned_partitions": _by_topic(subscription.owned),
        "generation_id": subscription.generation,
    }
    return _encode(SUBSCRIPTION, body)


def decode_subscription(data: bytes) -> Subscription:
    """The inverse of `encode_subscription`, for the leader. Raises `DecodeError`."""
    message = _decode(SUBSCRIPTION, data)
    return Subscription(
        tuple(message.topics),
        _partitions(message.owned_partitions),
        message.generation_id,
        message.user_data or b"",
    )


def encode_assignment(assignment: Assignment) -> bytes:
    """What the leader tells one member."""
    body = {
        "assigned_partitions": _by_topic(assignment.partitions),
        "user_data": assignment.user_data,
    }
    return _encode(ASSIGNMENT, body)


def decode_assignment(data: bytes) -> Assignment:
    """The inverse of `encode_assignment`; no bytes at all is nothing assigned. Raises `DecodeError`."""
    if not data:
        return Assignment(())
    message = _decode(ASSIGNMENT, data)
    return Assignment(_partitions(message.assigned_partitions), message.user_data or b"")


def _encode(message: Message, body: dict[str, Any]) -> bytes:
    version = message.versions[1]
    return b"".join([version.to_bytes(_VERSION_BYTES, "big"), *encode(message, "request", version, body)])


def _decode(message: Message, data: bytes) -> Any:
    version = int.from_bytes(data[:_VERSION_BYTES], "big", signed=True)
    if len(data) < _VERSION_BYTES or version < 0:
        raise DecodeError(f"{message.name}: no version in {data[:_VERSION_BYTES]!r}")
    value, _ = decode(message, "request", min(version, message.versions[1]), data, _VERSION_BYTES)
    return value


def _by_topic(partitions: Iterable[TopicPartition]) -> list[dict[str, Any]]:
    return [{"topic": topic, "partitions": [tp.partition for tp in group]} for topic, group in nested(partitions)]


def _partitions(topics: Any) -> tuple[TopicPartition, ...]:
    return tuple(TopicPartition(topic.topic, partition) for topic in topics for partition in topic.partitions)
