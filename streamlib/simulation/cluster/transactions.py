"""The transaction coordinator: producer ids, transactions and their markers, before and after KIP-890.

What it decides is in `transaction_state.py`; here is what it does. An outcome is certain with the answer to EndTxn, and
only then its markers are written, one to each partition and group, each in its own time:

    EndTxn ──> PREPARE_* ──> answer
                  ├─soon─> marker in partition a ─┐
                  ├─soon─> marker in partition b ─┼─ the last one ──> COMPLETE_*
                  └─soon─> marker in group g ─────┘

Simpler than a broker: its own log is written at once, so a request never meets one that is half done, other than
markers; a transaction that lasts too long is aborted at once, and not by the next sweep; it forgets nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from streamlib.errors import ErrorCode
from streamlib.records import TopicPartition
from streamlib.simulation.cluster.basics import Body, Handler, Refused, Reply, Timer, Timers
from streamlib.simulation.cluster.coordinators import Coordinators
from streamlib.simulation.cluster.topics import Topics
from streamlib.simulation.cluster.transaction_state import NO_PRODUCER, Owner, State, TransactionalId

EndInGroup: TypeAlias = Callable[[str, int, int, bool], None]
"""Writes a marker to a group's offsets: group id, producer id, epoch, whether it commits. May raise `Refused`."""

MAX_TIMEOUT_MS = 900_000
"""`transaction.max.timeout.ms`."""
_RETRY_MS = 20.0
# From this version on EndTxn gives a new epoch.
_END_WITH_NEW_EPOCH = 5


class Hanging(NamedTuple):
    """A transaction that is open in a log and that no coordinator will ever end."""

    partition: TopicPartition
    producer_id: int
    first_offset: int


class TransactionCoordinator:
    """All transactional ids of the cluster; which broker coordinates which is `Coordinators`' matter.

    Args:
        timers: its time.
        topics: where markers go, and what may be added to a transaction.
        coordinators: who may be asked.
        end_in_group: writes markers for offsets.
        version: the cluster's `transaction.version`: 2 with KIP-890, 1 before.
    """

    def __init__(
        self, timers: Timers, topics: Topics, coordinators: Coordinators, end_in_group: EndInGroup, *, version: int
    ) -> None:
        self._timers = timers
        self._topics = topics
        self._coordinators = coordinators
        self._end_in_group = end_in_group
        self.version = version
        self._ids: dict[str, TransactionalId] = {}
        self._timeouts: dict[str, Timer] = {}  # of those that are ongoing
        self._producer_ids = itertools.count()
        self.handlers: Mapping[str, Handler] = {
            "InitProducerId": self._init_producer_id,
            "AddPartitionsToTxn": self._add_partitions,
            "AddOffsetsToTxn": self._add_offsets,
            "EndTxn": self._end_txn,
        }

    # For checkers

    def names(self) -> list[str]:
        """All transactional ids, in order of their first use."""
        return list(self._ids)

    def open_transactions(self) -> list[str]:
        """The transactional ids whose transaction is not complete."""
        return [name for name, entry in self._ids.items() if entry.open]

    def find(self, transactional_id: str) -> TransactionalId | None:
        """What is known of a transactional id; to be read only."""
        return self._ids.get(transactional_id)

    def hanging(self) -> list[Hanging]:
        """What is open in a log though the coordinator knows nothing of it: readers would wait for ever."""
        known = {(entry.producer_id, each) for entry in self._ids.values() if entry.open for each in entry.partitions}
        return [
            Hanging(partition, producer_id, first_offset)
            for partition in self._topics.partitions(self._topics.names())
            for producer_id, first_offset in self._topics.log(partition).open_transactions.items()
            if (producer_id, partition) not in known
        ]

    # For the injection of faults

    def expire(self, transactional_id: str) -> None:
        """Its transaction, if it is ongoing, has lasted for too long."""
        entry = self._ids.get(transactional_id)
        if entry is not None and entry.state is State.ONGOING:
            self._fence(entry)

    def expire_all(self) -> None:
        """All transactions have lasted for too long."""
        for name in self.open_transactions():
            self.expire(name)

    def fence(self, transactional_id: str) -> None:
        """Somebody else initialises it, as often as it takes; nobody does if it was never used."""
        entry = self._ids.get(transactional_id)
        if entry is None:
            return
        try:
            self._init(transactional_id, entry.timeout_ms, None)
        except Refused:
            self._timers.call_later(_RETRY_MS, partial(self.fence, transactional_id))

    def fence_all(self, prefix: str) -> None:
        """The same for all that begin so."""
        for name in [name for name in self._ids if name.startswith(prefix)]:
            self.fence(name)

    # For leaders of partitions and coordinators of groups, which ask on behalf of a producer

    def enlist(self, transactional_id: str, producer_id: int, epoch: int, partition: TopicPartition) -> None:
        """Make the partition part of the transaction, which begins if none is ongoing (KIP-890).

        Raises:
            Refused: INVALID_PRODUCER_EPOCH, INVALID_PRODUCER_ID_MAPPING; CONCURRENT_TRANSACTIONS, COORDINATOR_*: later.
        """
        entry = self._asked_by_broker(transactional_id, Owner(producer_id, epoch), TransactionalId.check_add)
        self._add(entry, partitions=[partition])

    def enlist_group(self, transactional_id: str, producer_id: int, epoch: int, group_id: str) -> None:
        """The same for a group whose offsets are written."""
        entry = self._asked_by_broker(transactional_id, Owner(producer_id, epoch), TransactionalId.check_add)
        self._add(entry, groups=[group_id])

    def verify(self, transactional_id: str, producer_id: int, epoch: int, partition: TopicPartition) -> None:
        """Raise `Refused` as `enlist`, and TRANSACTION_ABORTABLE if the partition was not added to the transaction."""
        entry = self._asked_by_broker(transactional_id, Owner(producer_id, epoch), TransactionalId.check_owner)
        if partition not in entry.partitions:
            raise Refused(ErrorCode.TRANSACTION_ABORTABLE)

    def verify_group(self, transactional_id: str, producer_id: int, epoch: int, group_id: str) -> None:
        """The same for a group whose offsets are written."""
        entry = self._asked_by_broker(transactional_id, Owner(producer_id, epoch), TransactionalId.check_owner)
        if group_id not in entry.groups:
            raise Refused(ErrorCode.TRANSACTION_ABORTABLE)

    def _asked_by_broker(
        self, transactional_id: str, who: Owner, check: Callable[[TransactionalId, Owner], None]
    ) -> TransactionalId:
        broker = self._coordinators.find("transaction", transactional_id)
        if broker is None:
            raise Refused(ErrorCode.COORDINATOR_NOT_AVAILABLE)
        try:
            entry = self._known(broker, transactional_id)
            check(entry, who)
        except Refused as refused:
            if refused.code != ErrorCode.PRODUCER_FENCED:
                raise
            # What producers know how to take as an answer to Produce (KIP-588).
            raise Refused(ErrorCode.INVALID_PRODUCER_EPOCH) from refused
        return entry

    # Requests

    def _init_producer_id(self, broker: int, request: Any, version: int, reply: Reply) -> None:
        try:
            producer_id, epoch = self._initialised(broker, request)
        except Refused as refused:
            reply({"error_code": refused.code, "producer_id": NO_PRODUCER, "producer_epoch": -1})
        else:
            reply({"producer_id": producer_id, "producer_epoch": epoch})

    def _initialised(self, broker: int, request: Any) -> Owner:
        name = request.transactional_id
        if name is None:
            return Owner(self._new_producer_id(), 0)
        if not name or (request.producer_id < 0) != (request.producer_epoch < 0):
            raise Refused(ErrorCode.INVALID_REQUEST)
        self._coordinators.check(broker, "transaction", name)
        if not 0 < request.transaction_timeout_ms <= MAX_TIMEOUT_MS:
            raise Refused(ErrorCode.INVALID_TRANSACTION_TIMEOUT)
        who = Owner(request.producer_id, request.producer_epoch) if request.producer_id >= 0 else None
        return self._init(name, request.transaction_timeout_ms, who)

    def _add_partitions(self, broker: int, request: Any, version: int, reply: Reply) -> None:
        asked = [TopicPartition(topic.name, number) for topic in request.topics for number in topic.partitions]
        codes = {each: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION for each in asked if not self._exists(each)}
        others = ErrorCode.OPERATION_NOT_ATTEMPTED if codes else ErrorCode.NONE
        if not codes:
            try:
                self._add(self._extensible(broker, request), partitions=asked)
            except Refused as refused:
                others = refused.code
        reply({"results_by_topic": [_partition_results(topic, codes, others) for topic in request.topics]})

    def _add_offsets(self, broker: int, request: Any, version: int, reply: Reply) -> None:
        code = ErrorCode.NONE
        try:
            self._add(self._extensible(broker, request), groups=[request.group_id])
        except Refused as refused:
            code = refused.code
        reply({"error_code": code})

    def _end_txn(self, broker: int, request: Any, version: int, reply: Reply) -> None:
        try:
            entry = self._known(broker, request.transactional_id)
            if version < _END_WITH_NEW_EPOCH:
                has_markers = entry.end(_owner(request), commit=request.committed)
                answer: Body = {}
            else:
                has_markers = entry.end_with_new_epoch(
                    _owner(request), commit=request.committed, new_producer_id=self._new_producer_id
                )
                answer = {"producer_id": entry.told.producer_id, "producer_epoch": entry.told.epoch}
        except Refused as refused:
            reply({"error_code": refused.code})
            return
        reply(answer)
        if has_markers:
            self._write_markers(entry)

    def _known(self, broker: int, transactional_id: str) -> TransactionalId:
        self._coordinators.check(broker, "transaction", transactional_id)
        entry = self._ids.get(transactional_id)
        if entry is None:
            raise Refused(ErrorCode.INVALID_PRODUCER_ID_MAPPING)
        return entry

    def _extensible(self, broker: int, request: Any) -> TransactionalId:
        entry = self._known(broker, request.transactional_id)
        entry.check_add(_owner(request))
        return entry

    # Transactions

    def _init(self, name: str, timeout_ms: int, who: Owner | None) -> Owner:
        """An epoch; raises CONCURRENT_TRANSACTIONS as long as a transaction is open, and aborts it."""
        entry = self._ids.get(name)
        if entry is None:
            entry = self._ids[name] = TransactionalId(name, self._new_producer_id(), self.version)
        entry.check_init(who)
        if entry.state is State.ONGOING:
            self._fence(entry)
            raise Refused(ErrorCode.CONCURRENT_TRANSACTIONS)
        entry.init(who, timeout_ms, self._new_producer_id)
        return Owner(entry.producer_id, entry.epoch)

    def _add(
        self, entry: TransactionalId, partitions: Iterable[TopicPartition] = (), groups: Iterable[str] = ()
    ) -> None:
        if entry.add(partitions, groups, self._timers.now_ms()):
            self._timeouts[entry.name] = self._timers.call_later(entry.timeout_ms, partial(self._fence, entry))

    def _fence(self, entry: TransactionalId) -> None:
        entry.fence()
        self._write_markers(entry)

    def _exists(self, partition: TopicPartition) -> bool:
        try:
            self._topics.log(partition)
        except Refused:
            return False
        return True

    def _new_producer_id(self) -> int:
        return next(self._producer_ids)

    # Markers

    def _write_markers(self, entry: TransactionalId) -> None:
        """Write them soon, in any order; the last one completes the transaction."""
        if timeout := self._timeouts.pop(entry.name, None):
            timeout.cancel()
        for partition in entry.partitions:
            self._timers.soon(partial(self._mark_partition, entry, partition))
        for group_id in entry.groups:
            self._timers.soon(partial(self._mark_group, entry, group_id))
        if not entry.partitions and not entry.groups:
            self._timers.soon(entry.complete)

    def _mark_partition(self, entry: TransactionalId, partition: TopicPartition) -> None:
        if self._topics.leader(partition) is None:
            self._timers.call_later(_RETRY_MS, partial(self._mark_partition, entry, partition))
            return
        # Refused, because the topic is gone or a newer producer has been there: nobody waits for the marker.
        with suppress(Refused):
            log = self._topics.log(partition)
            log.append_marker(entry.producer_id, entry.epoch, entry.commits, int(self._timers.now_ms()))
        del entry.partitions[partition]
        self._complete_if_marked(entry)

    def _mark_group(self, entry: TransactionalId, group_id: str) -> None:
        with suppress(Refused):
            self._end_in_group(group_id, entry.producer_id, entry.epoch, entry.commits)
        del entry.groups[group_id]
        self._complete_if_marked(entry)

    def _complete_if_marked(self, entry: TransactionalId) -> None:
        if not entry.partitions and not entry.groups:
            entry.complete()


def _owner(request: Any) -> Owner:
    return Owner(request.producer_id, request.producer_epoch)


def _partition_results(topic: Any, codes: Mapping[TopicPartition, ErrorCode], others: ErrorCode) -> Body:
    results = [
        {"partition_index": number, "partition_error_code": codes.get(TopicPartition(topic.name, number), others)}
        for number in topic.partitions
    ]
    return {"name": topic.name, "results_by_partition": results}
