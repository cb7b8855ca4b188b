"""Sinks: encode a record, choose its partition, put it into the outbox.

The default partition is murmur2 of the key's bytes, so that a key lands where any other Kafka client puts it; a key in
a window lands where the key in it does (`WindowedStreamPartitioner`). Records without a key go to one partition for a
while, then to the next (KIP-480's sticky partitions, without chance in it).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import msgspec

from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.site import Work, short, user_error
from streamlib.engine.outbox import Place
from streamlib.errors import ProcessingError, RecordTooLargeError, SerializationError
from streamlib.partitioning import partitioner_for
from streamlib.records import Headers, OutRecord
from streamlib.serdes import Place as AtTopic
from streamlib.serdes import PlacedSerde
from streamlib.topology.nodes import SinkNode
from streamlib.windows import window_bytes

Encode: TypeAlias = Callable[[Any, Any, int, Headers], OutRecord]
EncoderOf: TypeAlias = Callable[[str], Encode]

_BATCH_HEADER_BYTES = 61

STICKY_RECORDS = 100
"""So many records without a key in a row share a partition, and so a batch."""


def compile_sink(node: SinkNode, topic: str | None, work: Work, *, measured: bool = False) -> NodeFn:
    """`topic` is the full name; None if it is chosen per record. `measured`: a record that is too large to be written
    is this node's error; otherwise it is found when it is about to be sent."""
    most_bytes = work.max_record_bytes if measured else None
    if topic is None or not work.outbox.knows(topic):
        choose = _topic_chooser(node, topic, work)
        return _topic_per_record(_encoders(node, most_bytes), choose, lambda name: placer(node, name, work), work)
    if node.partitioner is not None or measured:
        return _placed(_encoder(node, most_bytes), placer(node, topic, work))
    if len(work.outbox.slots(topic)) == 1:
        return _single_partition(node, topic, work)
    return _partitioned_by_key(node, topic, work)


def _single_partition(node: SinkNode, topic: str, work: Work) -> NodeFn:
    slots = work.outbox.slots(topic)
    encode_key, encode_value = node.key.encode, node.value.encode

    def sink(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        try:
            raw_key = None if key is None else encode_key(key)
            raw_value = None if value is None else encode_value(value)
        except Exception as error:
            raise _unencodable(node, topic, key, value, error) from error
        slots[0].append((raw_key, raw_value, timestamp, headers))

    return sink


def _partitioned_by_key(node: SinkNode, topic: str, work: Work) -> NodeFn:
    slots = work.outbox.slots(topic)
    encode_key, encode_value = node.key.encode, node.value.encode
    partition_of = partitioner_for(len(slots))
    next_without_key = _sticky(len(slots), work.facts.task_id.partition)
    window = window_bytes(node.key)

    def sink(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        try:
            raw_key = None if key is None else encode_key(key)
            raw_value = None if value is None else encode_value(value)
        except Exception as error:
            raise _unencodable(node, topic, key, value, error) from error
        partition = next_without_key() if raw_key is None else partition_of(raw_key[:-window] if window else raw_key)
        slots[partition].append((raw_key, raw_value, timestamp, headers))

    return sink


def _placed(encode: Encode, place: Place) -> NodeFn:
    def sink(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        place(key, value, encode(key, value, timestamp, headers))

    return sink


def _topic_chooser(node: SinkNode, topic: str | None, work: Work) -> Callable[[Any, Any, int], str]:
    """f(key, value, timestamp) -> full topic name."""
    if topic is not None:
        return lambda key, value, timestamp: topic
    choose, cursor = node.topic, work.cursor
    assert not isinstance(choose, str), "a topic by name has a full name"

    def chosen(key: Any, value: Any, timestamp: int) -> str:
        try:
            return choose(key, value, cursor.context(timestamp))
        except Exception as error:
            raise user_error(node.name, key, error) from error

    return chosen


def _topic_per_record(
    encoder_of: EncoderOf, choose: Callable[[Any, Any, int], str], place_in: Callable[[str], Place], work: Work
) -> NodeFn:
    """The topic is the user's choice, or its partitions are not known yet: then records wait, in order."""
    outbox = work.outbox
    places: dict[str, Place] = {}

    def place_for(topic: str) -> Place:
        if topic not in places:
            places[topic] = place_in(topic)
        return places[topic]

    def sink(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        topic = choose(key, value, timestamp)
        record = encoder_of(topic)(key, value, timestamp, headers)
        if outbox.knows(topic):
            place_for(topic)(key, value, record)
        else:
            outbox.hold(topic, key, value, record, place_for)

    return sink


def placer(node: SinkNode, topic: str, work: Work) -> Place:
    """Puts encoded records into the partitions of one topic."""
    slots = work.outbox.slots(topic)
    count, partitioner = len(slots), node.partitioner
    partition_of = partitioner_for(count)
    next_without_key = _sticky(count, work.facts.task_id.partition)
    window = window_bytes(node.key)

    def by_key(key: Any, value: Any, record: OutRecord) -> None:
        raw_key = record[0]
        partition = next_without_key() if raw_key is None else partition_of(raw_key[:-window] if window else raw_key)
        slots[partition].append(record)

    def by_user(key: Any, value: Any, record: OutRecord) -> None:
        assert partitioner is not None
        try:
            partition = partitioner(topic, key, value, count)
        except Exception as error:
            raise user_error(node.name, key, error) from error
        if not 0 <= partition < count:
            raise ProcessingError(
                f"node {node.name}: the partitioner chose partition {partition!r} of {topic}, which has {count} "
                f"(key {short(key)})",
                node=node.name,
            )
        slots[partition].append(record)

    return by_key if partitioner is None else by_user


def _sticky(count: int, first: int) -> Callable[[], int]:
    """Partitions for records without a key: the same for a while, then the next."""
    placed = first * STICKY_RECORDS

    def choose() -> int:
        nonlocal placed
        partition = placed // STICKY_RECORDS % count
        placed += 1
        return partition

    return choose


def _encoders(node: SinkNode, most_bytes: int | None) -> EncoderOf:
    """f(topic) -> the encoder of its records. Most serdes write the same to every topic."""
    encode = _encoder(node, most_bytes)
    if isinstance(node.topic, str) or not any(isinstance(each, PlacedSerde) for each in (node.key, node.value)):
        return lambda topic: encode

    @cache
    def of(topic: str) -> Encode:
        key, value = node.key.at(AtTopic(topic=topic, is_key=True)), node.value.at(AtTopic(topic=topic))
        return _encoder(msgspec.structs.replace(node, key=key, value=value), most_bytes)

    return of


def _encoder(node: SinkNode, most_bytes: int | None) -> Encode:
    """With a limit, what is larger is an error."""
    encode_key, encode_value = node.key.encode, node.value.encode
    topic = node.topic if isinstance(node.topic, str) else "its topic"

    def encode(key: Any, value: Any, timestamp: int, headers: Headers) -> OutRecord:
        try:
            raw_key = None if key is None else encode_key(key)
            raw_value = None if value is None else encode_value(value)
        except Exception as error:
            raise _unencodable(node, topic, key, value, error) from error
        return raw_key, raw_value, timestamp, headers

    if most_bytes is None:
        return encode

    def measured(key: Any, value: Any, timestamp: int, headers: Headers) -> OutRecord:
        record = encode(key, value, timestamp, headers)
        if (size := batch_bytes(record)) > most_bytes:
            raise _too_large(node, topic, record, (size, most_bytes))
        return record

    return measured


def batch_bytes(record: OutRecord) -> int:
    """How large a batch with nothing but this record is, before compression. Source: `DefaultRecordBatch`.

    >>> batch_bytes((b"key", b"value", 0, ()))
    76
    """
    key, value, _, headers = record
    size = 3 + _sized(key) + _sized(value) + _varint_bytes(len(headers))
    size += sum(_sized(name.encode()) + _sized(content) for name, content in headers)
    return _BATCH_HEADER_BYTES + _varint_bytes(size) + size


def _sized(data: bytes | None) -> int:
    """Bytes after their length."""
    return 1 if data is None else _varint_bytes(len(data)) + len(data)


def _varint_bytes(number: int) -> int:
    """Zigzag: twice the number, seven bits a byte."""
    return max((number.bit_length() + 7) // 7, 1)


def _too_large(node: SinkNode, topic: str, record: OutRecord, size: tuple[int, int]) -> RecordTooLargeError:
    key, value, _, _ = record
    return RecordTooLargeError(
        f"node {node.name} cannot write a record of {size[0]:,} bytes (key {len(key or b''):,}, value "
        f"{len(value or b''):,}) to {topic}: max_request_size is {size[1]:,}; raise it, and max.message.bytes of the "
        "topic, or write smaller records",
        topic=topic,
        node=node.name,
    )


def _unencodable(node: SinkNode, topic: str, key: object, value: object, error: Exception) -> SerializationError:
    return SerializationError(
        f"node {node.name} cannot write the record with key {short(key)} ({type(key).__name__}) and value "
        f"{short(value)} ({type(value).__name__}) to {topic}: {error}; it writes keys as {node.key.name} and values as "
        f"{node.value.name}: give the sink the types it gets, .to(topic, key=..., value=...)",
        topic=topic,
        node=node.name,
    )
