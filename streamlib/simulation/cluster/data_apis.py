"""Produce, ListOffsets and DeleteRecords: what a partition's leader answers.

A transactional batch is written only if the coordinator knows of it. The leader need not ask if the producer's
transaction is open in its log already; otherwise, by the version of Produce:

    12+  the partition is made part of the transaction (KIP-890)
    11   TRANSACTION_ABORTABLE if it was not added
    10-  INVALID_TXN_STATE, which older clients know
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamlib.errors import ErrorCode
from streamlib.kafka.batches import BatchHeader
from streamlib.records import TopicPartition
from streamlib.simulation.cluster.basics import Body, Handler, Refused, Reply
from streamlib.simulation.cluster.log import PartitionLog
from streamlib.simulation.cluster.topics import Topics
from streamlib.simulation.cluster.transactions import TransactionCoordinator

# First versions of Produce that do a thing.
_ENLISTS = 12
_KNOWS_ABORTABLE = 11
_READ_COMMITTED = 1
_LATEST, _EARLIEST = -1, -2
_TO_THE_END = -1
# As the leader tells producers that the coordinator could not be asked.
_LATER = frozenset(
    {
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,
    }
)


class DataApis:
    """Answers for all leaders.

    Args:
        topics: the logs.
        transactions: whom a leader asks before it writes a transactional batch.
    """

    def __init__(self, topics: Topics, transactions: TransactionCoordinator) -> None:
        self._topics = topics
        self._transactions = transactions
        self.handlers: Mapping[str, Handler] = {
            "Produce": self._produce,
            "ListOffsets": self._list_offsets,
            "DeleteRecords": self._delete_records,
        }

    # Produce

    def _produce(self, broker: int, request: Any, version: int, reply: Reply) -> None:
        assert request.acks == -1, "what not all replicas have may be lost"
        responses = [
            {
                "name": topic.name,
                "partition_responses": [
                    self._produced(
                        broker, TopicPartition(topic.name, asked.index), asked.records or b"", request, version
                    )
                    for asked in topic.partition_data
                ],
            }
            for topic in request.topic_data
        ]
        reply({"responses": responses})

    def _produced(self, broker: int, partition: TopicPartition, data: bytes, request: Any, version: int) -> Body:
        try:
            log = self._topics.led_log(broker, partition)
            base_offset = self._write(log, data, request.transactional_id, version)
        except Refused as refused:
            return {"index": partition.partition, "error_code": refused.code, "base_offset": -1}
        return {"index": partition.partition, "base_offset": base_offset, "log_start_offset": log.start_offset}

    def _write(self, log: PartitionLog, data: bytes, transactional_id: str | None, version: int) -> int:
        header = log.check(data)
        if header.is_transactional:
            if transactional_id is None:
                raise Refused(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
            self._admit(log, header, transactional_id, version)
        return log.append(data, begins_at_zero=header.is_transactional and version >= _ENLISTS)

    def _admit(self, log: PartitionLog, header: BatchHeader, transactional_id: str, version: int) -> None:
        """Raise `Refused` unless the coordinator knows that the partition is part of the transaction."""
        producer_id, epoch = header.producer_id, header.producer_epoch
        # A broker from before KIP-890 does not look at the epoch here.
        if log.has_open_transaction(producer_id, epoch if self._transactions.version >= 2 else None):
            return
        ask = self._transactions.enlist if version >= _ENLISTS else self._transactions.verify
        try:
            ask(transactional_id, producer_id, epoch, log.partition)
        except Refused as refused:
            raise Refused(_as_told(refused.code, version)) from refused

    # ListOffsets

    def _list_offsets(self, broker: int, request: Any, version: int, reply: Reply) -> None:
        committed = request.isolation_level == _READ_COMMITTED
        topics = [
            {
                "name": topic.name,
                "partitions": [
                    self._listed(broker, TopicPartition(topic.name, asked.partition_index), asked.timestamp, committed)
                    for asked in topic.partitions
                ],
            }
            for topic in request.topics
        ]
        reply({"topics": topics})

    def _listed(self, broker: int, partition: TopicPartition, timestamp: int, committed: bool) -> Body:
        try:
            log = self._topics.led_log(broker, partition)
            offset = _offset_at(log, timestamp, committed)
        except Refused as refused:
            return {"partition_index": partition.partition, "error_code": refused.code}
        return {"partition_index": partition.partition, "offset": offset, "leader_epoch": 0}

    # DeleteRecords

    def _delete_records(self, broker: int, request: Any, version: int, reply: Reply) -> None:
        topics = [
            {
                "name": topic.name,
                "partitions": [
                    self._deleted(broker, TopicPartition(topic.name, asked.partition_index), asked.offset)
                    for asked in topic.partitions
                ],
            }
            for topic in request.topics
        ]
        reply({"topics": topics})

    def _deleted(self, broker: int, partition: TopicPartition, offset: int) -> Body:
        try:
            log = self._topics.led_log(broker, partition)
            start = log.delete_before(log.end_offset if offset == _TO_THE_END else offset)
        except Refused as refused:
            return {"partition_index": partition.partition, "low_watermark": -1, "error_code": refused.code}
        return {"partition_index": partition.partition, "low_watermark": start}


def _as_told(code: ErrorCode, version: int) -> ErrorCode:
    """The coordinator's refusal in the words of a Produce response of this version (`ReplicaManager`)."""
    if code in _LATER or (code == ErrorCode.CONCURRENT_TRANSACTIONS and version < _ENLISTS):
        return ErrorCode.NOT_ENOUGH_REPLICAS
    if code == ErrorCode.TRANSACTION_ABORTABLE and version < _KNOWS_ABORTABLE:
        return ErrorCode.INVALID_TXN_STATE
    return code


def _offset_at(log: PartitionLog, timestamp: int, committed: bool) -> int:
    if timestamp == _EARLIEST:
        return log.start_offset
    if timestamp == _LATEST:
        return log.readable_end(committed=committed)
    raise Refused(ErrorCode.INVALID_REQUEST)  # by time: nobody here asks for that
