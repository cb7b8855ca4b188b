"""Requests made by hand, one at a time, whose answers are looked at code by code.

`RawProducer` holds what such a client has to remember and nothing else: it repeats nothing by itself, and what a broker
refuses is a return value. `settled` repeats what only asks for patience.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from streamlib.errors import ErrorCode, KafkaError
from streamlib.kafka.batches import BatchBuilder, next_sequence
from streamlib.kafka.by_topic import answers, nested
from streamlib.kafka.client import CoordinatorKind, KafkaClient, Response
from streamlib.kafka.errors import error_row
from streamlib.records import GroupMetadata, TopicPartition
from tests.ports.cluster import Cluster

NOW_MS = time.time_ns() // 1_000_000
"""The records' timestamp. An old one would not do: a broker begins a new segment where it meets a marker's."""

REFUSED = -1
"""The base offset of what was not written."""

# The highest versions of the two kinds of transactions, as the product speaks them.
_VERSIONS: Mapping[int, Mapping[str, int]] = {
    2: {"Produce": 12, "TxnOffsetCommit": 5, "EndTxn": 5},
    1: {"Produce": 11, "TxnOffsetCommit": 4, "EndTxn": 4},
}
_BATCH_BYTES = 1 << 20
_MOST_TRIES = 5_000
_KNOWN = frozenset(code.value for code in ErrorCode)


class Written(NamedTuple):
    """A broker's answer to one batch: the offset is that of its first record."""

    code: int
    offset: int


T = TypeVar("T", bound=int | Written)


async def refusal(request: Awaitable[object]) -> int:
    """The code that a port raises; NONE if it does not."""
    try:
        await request
    except KafkaError as error:
        return _named(error.code)
    return ErrorCode.NONE


def _named(code: int) -> int:
    """With a name for those who read what failed, if it has one."""
    return ErrorCode(code) if code in _KNOWN else code


async def settled(cluster: Cluster, ask: Callable[[], Awaitable[T]]) -> T:
    """The first answer that does not only ask for patience, as while a marker is on its way."""
    for _ in range(_MOST_TRIES):
        answer = await ask()
        code = answer.code if isinstance(answer, Written) else answer
        if not error_row(code).retriable:
            return answer
        await cluster.passes(1)
    raise AssertionError("it never settled")


async def ask_coordinator(
    client: KafkaClient, kind: CoordinatorKind, key: str, api: str, body: Mapping[str, Any], version: int | None = None
) -> Response:
    """One request to whoever coordinates the group or transactional id."""
    node = await client.retrying(lambda: client.coordinator(key, kind))
    return await client.call(api, body, node=node, max_version=version)


class RawProducer:
    """A producer by hand: id, epoch and the next sequence of each partition are all it has.

    Args:
        cluster: the one under test.
        transactional_id: None for plain sends.
    """

    def __init__(self, cluster: Cluster, transactional_id: str | None = None) -> None:
        self._cluster = cluster
        self._client = cluster.client
        self.transactional_id = transactional_id
        self.producer_id, self.epoch = -1, -1
        self.sequences: dict[TopicPartition, int] = {}

    def twin(self) -> RawProducer:
        """Another one with the same id and epoch: what it knew at this moment."""
        twin = RawProducer(self._cluster, self.transactional_id)
        twin.producer_id, twin.epoch, twin.sequences = self.producer_id, self.epoch, dict(self.sequences)
        return twin

    async def init(self, *, timeout_ms: int = 10_000, go_on: bool = False) -> int:
        """InitProducerId; with `go_on` as the holder of the id and epoch at hand (KIP-360)."""
        body = {"transactional_id": self.transactional_id, "transaction_timeout_ms": timeout_ms}
        if go_on:
            body |= {"producer_id": self.producer_id, "producer_epoch": self.epoch}
        if self.transactional_id is None:
            answer = await self._client.call("InitProducerId", body)
        else:
            answer = await self._ask("InitProducerId", body)
        if answer.error_code == ErrorCode.NONE:
            self._adopt(answer.producer_id, answer.producer_epoch)
        return _named(answer.error_code)

    async def produce(
        self, partition: TopicPartition, *values: str, sequence: int | None = None, version: int | None = None
    ) -> Written:
        """One batch; the next sequence goes on only if it is accepted and none is given."""
        expected = self.sequences.get(partition, 0)
        batch = BatchBuilder(partition, 0, self.transactional_id is not None, _BATCH_BYTES, _BATCH_BYTES)
        batch.extend([(b"k", value.encode(), NOW_MS, ()) for value in values])
        data = batch.build(self.producer_id, self.epoch, expected if sequence is None else sequence)
        written = await self.produce_bytes(partition, data, version)
        if written.code == ErrorCode.NONE and sequence is None:
            self.sequences[partition] = next_sequence(expected, len(values))
        return written

    async def produce_bytes(
        self, partition: TopicPartition, data: bytes | bytearray, version: int | None = None
    ) -> Written:
        """A batch as it is; the sequence does not go on."""
        await _know_leader(self._client, partition)
        body = {
            "transactional_id": self.transactional_id,
            "acks": -1,
            "timeout_ms": 10_000,
            "topic_data": [
                {"name": partition.topic, "partition_data": [{"index": partition.partition, "records": data}]}
            ],
        }
        node = self._client.leader(partition)
        response = await self._client.call("Produce", body, node=node, max_version=version or self._version("Produce"))
        answer = response.responses[0].partition_responses[0]
        return Written(_named(answer.error_code), answer.base_offset)

    async def add_partitions(self, *partitions: TopicPartition) -> dict[TopicPartition, int]:
        """AddPartitionsToTxn."""
        topics = [{"name": topic, "partitions": [tp.partition for tp in group]} for topic, group in nested(partitions)]
        answer = await self._ask("AddPartitionsToTxn", {**self._who, "topics": topics})
        return {
            TopicPartition(topic.name, result.partition_index): _named(result.partition_error_code)
            for topic in answer.results_by_topic
            for result in topic.results_by_partition
        }

    async def add_group(self, group_id: str) -> int:
        """AddOffsetsToTxn."""
        answer = await self._ask("AddOffsetsToTxn", {**self._who, "group_id": group_id})
        return _named(answer.error_code)

    async def commit_offset(
        self, who: GroupMetadata, partition: TopicPartition, offset: int, version: int | None = None
    ) -> int:
        """TxnOffsetCommit of one partition."""
        committed = [
            {"partition_index": partition.partition, "committed_offset": offset, "committed_metadata": f"at {offset}"}
        ]
        body = {
            **self._who,
            "group_id": who.group_id,
            "generation_id": who.generation,
            "member_id": who.member_id,
            "group_instance_id": who.instance_id,
            "topics": [{"name": partition.topic, "partitions": committed}],
        }
        version = version or self._version("TxnOffsetCommit")
        answer = await ask_coordinator(self._client, "group", who.group_id, "TxnOffsetCommit", body, version)
        [(_, result)] = answers(answer.topics)
        return _named(result.error_code)

    async def end(self, *, commit: bool, version: int | None = None) -> int:
        """EndTxn; takes over the epoch in the answer (KIP-890)."""
        answer = await self._ask("EndTxn", {**self._who, "committed": commit}, version or self._version("EndTxn"))
        if answer.error_code == ErrorCode.NONE and answer.producer_id >= 0:
            self._adopt(answer.producer_id, answer.producer_epoch)
        return _named(answer.error_code)

    # As a producer does it: with patience, and with what its kind of transactions asks for

    async def start(self) -> RawProducer:
        """`init`, until it works."""
        _accepted(await settled(self._cluster, self.init))
        return self

    async def enlist(self, *partitions: TopicPartition) -> None:
        """Make the partitions part of the transaction, where that is not Produce's work."""
        if self.transactional_id is None or self._cluster.transaction_version >= 2:
            return

        async def ask() -> int:
            return max((await self.add_partitions(*partitions)).values())

        _accepted(await settled(self._cluster, ask))

    async def write(self, partition: TopicPartition, *values: str) -> int:
        """Records as part of the transaction; returns the first one's offset."""
        await self.enlist(partition)
        written = await settled(self._cluster, lambda: self.produce(partition, *values))
        _accepted(written.code)
        return written.offset

    async def write_offset(self, who: GroupMetadata, partition: TopicPartition, offset: int) -> int:
        """A consumed offset as part of the transaction; returns what the group says to it."""
        if self._cluster.transaction_version < 2:
            _accepted(await settled(self._cluster, lambda: self.add_group(who.group_id)))
        return await settled(self._cluster, lambda: self.commit_offset(who, partition, offset))

    async def finish(self, *, commit: bool) -> None:
        """`end`, until it works."""
        _accepted(await settled(self._cluster, lambda: self.end(commit=commit)))

    # What goes into all requests

    @property
    def _who(self) -> dict[str, Any]:
        return {
            "transactional_id": self.transactional_id,
            "producer_id": self.producer_id,
            "producer_epoch": self.epoch,
        }

    def _version(self, api: str) -> int:
        return _VERSIONS[self._cluster.transaction_version][api]

    async def _ask(self, api: str, body: Mapping[str, Any], version: int | None = None) -> Response:
        assert self.transactional_id is not None
        return await ask_coordinator(self._client, "transaction", self.transactional_id, api, body, version)

    def _adopt(self, producer_id: int, epoch: int) -> None:
        if (producer_id, epoch) != (self.producer_id, self.epoch):
            self.sequences.clear()
        self.producer_id, self.epoch = producer_id, epoch


async def new_producer(cluster: Cluster) -> RawProducer:
    """Initialised, with a new transactional id."""
    return await RawProducer(cluster, cluster.name("tx")).start()


async def in_transaction(cluster: Cluster) -> tuple[RawProducer, TopicPartition]:
    """A producer that has written "a" to a new partition and goes on."""
    producer, partition = await new_producer(cluster), await cluster.partition()
    await producer.write(partition, "a")
    return producer, partition


def _accepted(code: int) -> None:
    assert code == ErrorCode.NONE


async def _know_leader(client: KafkaClient, partition: TopicPartition) -> None:
    if client.leader(partition) is None:
        await client.refresh_metadata([partition.topic])
