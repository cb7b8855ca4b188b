"""What the cluster knows of open transactions (KIP-664): at the partitions, and at their coordinators.

A partition's leader knows which producer has a transaction open in it, and from which offset on. What that transaction
is called, since when it is open and how long it may be, only its coordinator knows. Brokers from 3.0 on tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import msgspec

from streamlib.errors import ErrorCode, KafkaError
from streamlib.kafka.by_topic import answers, nested
from streamlib.kafka.client import KafkaClient
from streamlib.kafka.errors import check_code
from streamlib.kafka.leaders import by_leader
from streamlib.records import TopicPartition

_LANE = "admin"
_COMPLETE = ("CompleteCommit", "CompleteAbort", "Empty", "Dead")


class OpenAtPartition(msgspec.Struct, frozen=True):
    """A transaction that a partition waits for the end of. Readers of committed records get no further than
    `start_offset`. `last_timestamp_ms` is that of the last record the producer has written there, -1 if unknown."""

    partition: TopicPartition
    producer_id: int
    producer_epoch: int
    start_offset: int
    last_timestamp_ms: int


class Transaction(msgspec.Struct, frozen=True):
    """A transaction as its coordinator knows it; `partitions` are those it still has to end in.

    `state` is "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit" ...; `start_ms` -1 while none is open.
    """

    transactional_id: str
    state: str
    producer_id: int
    producer_epoch: int
    start_ms: int
    timeout_ms: int
    partitions: frozenset[TopicPartition]

    @property
    def complete(self) -> bool:
        """Whether the coordinator thinks that there is nothing left to end."""
        return self.state in _COMPLETE


class KafkaTransactions:
    """Asks about transactions. Raises `UnsupportedBrokerError` from brokers before 3.0."""

    def __init__(self, client: KafkaClient) -> None:
        self._client = client

    async def open_at(self, partitions: Iterable[TopicPartition]) -> list[OpenAtPartition]:
        """The transactions that are open in the partitions, as their leaders know them.

        Raises:
            KafkaError: TOPIC_AUTHORIZATION_FAILED; Read is needed.
        """
        left = set(partitions)
        found: list[OpenAtPartition] = []
        await self._client.retrying(lambda: self._open_at_once(left, found))
        return sorted(found, key=lambda each: (each.partition, each.start_offset))

    async def list_ids(self, *, states: Sequence[str] = (), producer_ids: Sequence[int] = ()) -> list[str]:
        """The transactional ids that the coordinators know, of these states and producers if any are given."""
        body = {"state_filters": list(states), "producer_id_filters": list(producer_ids)}
        found = [await self._client.retrying(partial(self._list_once, node, body)) for node in self._client.brokers]
        return sorted(set(chain.from_iterable(found)))

    async def describe(self, transactional_ids: Iterable[str]) -> list[Transaction]:
        """What the coordinators know; ids they know nothing of are left out."""
        found = [await self._client.retrying(partial(self._describe_once, name)) for name in transactional_ids]
        return [transaction for transaction in found if transaction is not None]

    async def _open_at_once(self, left: set[TopicPartition], found: list[OpenAtPartition]) -> None:
        for node, group in (await by_leader(self._client, sorted(left))).items():
            topics = [
                {"name": topic, "partition_indexes": [tp.partition for tp in tps]} for topic, tps in nested(group)
            ]
            response = await self._client.call("DescribeProducers", {"topics": topics}, node=node, lane=_LANE)
            for partition, answer in answers(response.topics):
                check_code(answer.error_code, "DescribeProducers", str(partition), answer.error_message)
                found += _open_of(partition, answer.active_producers)
                left.discard(partition)

    async def _list_once(self, node: int, body: dict[str, Any]) -> list[str]:
        response = await self._client.call("ListTransactions", body, node=node, lane=_LANE)
        check_code(response.error_code, "ListTransactions", f"broker {node}")
        return [each.transactional_id for each in response.transaction_states]

    async def _describe_once(self, transactional_id: str) -> Transaction | None:
        where = f"transactional id {transactional_id}"
        node = await self._client.coordinator(transactional_id, "transaction")
        body = {"transactional_ids": [transactional_id]}
        response = await self._client.call("DescribeTransactions", body, node=node, lane=_LANE, where=where)
        answer = response.transaction_states[0]
        try:
            check_code(answer.error_code, "DescribeTransactions", where)
        except KafkaError as error:
            if error.code == ErrorCode.TRANSACTIONAL_ID_NOT_FOUND:
                return None
            raise
        partitions = frozenset(TopicPartition(each.topic, index) for each in answer.topics for index in each.partitions)
        return Transaction(
            transactional_id,
            answer.transaction_state,
            answer.producer_id,
            answer.producer_epoch,
            answer.transaction_start_time_ms,
            answer.transaction_timeout_ms,
            partitions,
        )


def _open_of(partition: TopicPartition, producers: Iterable[Any]) -> list[OpenAtPartition]:
    return [
        OpenAtPartition(
            partition,
            producer.producer_id,
            producer.producer_epoch,
            producer.current_txn_start_offset,
            producer.last_timestamp,
        )
        for producer in producers
        if producer.current_txn_start_offset >= 0
    ]
