"""Committed offsets of all groups, and those that a transaction still holds back.

Each group's commits are one log, and rules of logs hold: a producer's commits are pending until its marker comes, an
old epoch is refused, and of two commits of one partition the one that was appended later counts, in whatever order
the markers of two transactions land.

A transaction's commit is judged by the group's generation when it is made, and not when the transaction ends: that
is why readers ask for stable offsets (KIP-447).

Sources: `OffsetMetadataManager` (Kafka 4), `GroupMetadata` (3.9).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from streamlib.errors import ErrorCode
from streamlib.kafka.by_topic import nested
from streamlib.records import GroupMetadata, OffsetAndMetadata, TopicPartition
from streamlib.simulation.cluster.basics import Body, Handler, Refused, Reply
from streamlib.simulation.cluster.coordinators import Coordinators
from streamlib.simulation.cluster.groups import GROUP_ID_NOT_FOUND, Groups

MAX_METADATA = 4096
"""Characters that may come with an offset (`offset.metadata.max.bytes`, which counts characters)."""

# First versions of the APIs that do a thing.
_ENLISTS = 5  # TxnOffsetCommit brings the group into the transaction (KIP-890)
_NOT_FOUND_IS_SAID = 9  # OffsetCommit tells an unknown group from an old generation
_MANY_GROUPS = 8  # OffsetFetch asks for several groups


class Transactions(Protocol):
    """What the transaction coordinator is asked before a transaction's offsets are taken."""

    def enlist_group(self, transactional_id: str, producer_id: int, epoch: int, group_id: str) -> None:
        """Make the group part of the transaction, which begins if none is open; raises `Refused`."""
        ...

    def verify_group(self, transactional_id: str, producer_id: int, epoch: int, group_id: str) -> None:
        """Raise `Refused` unless the group is part of the open transaction (AddOffsetsToTxn)."""
        ...


class Commit(NamedTuple):
    """One partition's offset, and its place in the group's log."""

    place: int
    offset: int
    leader_epoch: int
    metadata: str


_NONE = Commit(-1, -1, -1, "")


class OffsetsLog:
    """The commits of one group."""

    def __init__(self) -> None:
        self._end = 0
        self._epochs: dict[int, int] = {}  # the newest seen of each producer id
        self.committed: dict[TopicPartition, Commit] = {}
        self.pending: dict[int, dict[TopicPartition, Commit]] = {}  # by producer id

    def commit(self, offsets: Mapping[TopicPartition, Any]) -> None:
        """Outside of transactions: it counts at once."""
        self.committed |= self._appended(offsets)

    def commit_later(self, producer_id: int, epoch: int, offsets: Mapping[TopicPartition, Any]) -> None:
        """In a transaction. Raises `Refused` if the epoch is old."""
        self._check_epoch(producer_id, epoch)
        if offsets:
            self.pending.setdefault(producer_id, {}).update(self._appended(offsets))

    def end(self, producer_id: int, epoch: int, commit: bool) -> None:
        """The marker. Raises `Refused` if the epoch is old."""
        self._check_epoch(producer_id, epoch)
        for partition, ended in self.pending.pop(producer_id, {}).items():
            if commit and ended.place > self.committed.get(partition, _NONE).place:
                self.committed[partition] = ended

    def unstable(self, partition: TopicPartition) -> bool:
        """Whether a transaction may yet change the partition's offset."""
        return any(partition in offsets for offsets in self.pending.values())

    def clear(self) -> None:
        """All offsets are deleted; markers that are still to come find nothing."""
        self.committed.clear()
        self.pending.clear()

    def _check_epoch(self, producer_id: int, epoch: int) -> None:
        if epoch < self._epochs.get(producer_id, epoch):
            raise Refused(ErrorCode.INVALID_PRODUCER_EPOCH)
        self._epochs[producer_id] = epoch

    def _appended(self, offsets: Mapping[TopicPartition, Any]) -> dict[TopicPartition, Commit]:
        self._end += 1
        return {
            partition: Commit(
                self._end, asked.committed_offset, asked.committed_leader_epoch, asked.committed_metadata or ""
            )
            for partition, asked in offsets.items()
        }


class Offsets:
    """Commits and what is committed. Methods for the simulation do not ask which broker coordinates a group."""

    def __init__(self, coordinators: Coordinators, groups: Groups, transactions: Transactions) -> None:
        self._coordinators = coordinators
        self._groups = groups
        self._transactions = transactions
        self._logs: dict[str, OffsetsLog] = {}
        self.handlers: Mapping[str, Handler] = {
            "OffsetCommit": self._offset_commit,
            "TxnOffsetCommit": self._txn_offset_commit,
            "OffsetFetch": self._offset_fetch,
            "DeleteGroups": self._delete_groups,
        }

    # For the transaction coordinator

    def end_transaction(self, group_id: str, producer_id: int, epoch: int, commit: bool) -> None:
        """Write the marker into the group's log: offsets become valid, or are forgotten.

        Raises:
            Refused: INVALID_PRODUCER_EPOCH, the log has seen a newer one.
        """
        self._log(group_id).end(producer_id, epoch, commit)

    # For checkers

    def committed(self, group_id: str) -> dict[TopicPartition, OffsetAndMetadata]:
        """What is committed, whether or not a transaction is about to change it."""
        return _plain(self._logs[group_id].committed) if group_id in self._logs else {}

    def pending(self, group_id: str) -> dict[int, dict[TopicPartition, OffsetAndMetadata]]:
        """What open transactions hold back, by producer id."""
        log = self._logs.get(group_id, OffsetsLog())
        return {producer_id: _plain(offsets) for producer_id, offsets in log.pending.items()}

    # Requests

    def _offset_commit(self, broker: int, request: Any, version: int, reply: Reply) -> None:
        who = _who(request, request.generation_id_or_member_epoch)
        code: int = ErrorCode.NONE
        try:
            self._coordinators.check(broker, "group", who.group_id)
            if self._is_gone(who):
                code = GROUP_ID_NOT_FOUND if version >= _NOT_FOUND_IS_SAID else ErrorCode.ILLEGAL_GENERATION
            else:
                self._groups.create(who.group_id).check_commit(who)
                self._log(who.group_id).commit(_offsets(request))
        except Refused as refused:
            code = refused.code
        reply(_results(request, code))

    def _txn_offset_commit(self, broker: int, request: Any, version: int, reply: Reply) -> None:
        who = _who(request, request.generation_id)
        code = ErrorCode.NONE
        try:
            self._coordinators.check(broker, "group", who.group_id)
            self._check_transaction(request, version)
            if self._is_gone(who):
                raise Refused(ErrorCode.ILLEGAL_GENERATION)
            self._groups.create(who.group_id).check_transactional_commit(who)
            self._log(who.group_id).commit_later(request.producer_id, request.producer_epoch, _offsets(request))
        except Refused as refused:
            code = refused.code
        reply(_results(request, code))

    def _check_transaction(self, request: Any, version: int) -> None:
        """Before the group is asked: a commit that it refuses may have begun a transaction all the same."""
        ask = self._transactions.enlist_group if version >= _ENLISTS else self._transactions.verify_group
        ask(request.transactional_id, request.producer_id, request.producer_epoch, request.group_id)

    def _is_gone(self, who: GroupMetadata) -> bool:
        """Whether a member speaks of a group that is not there; for others one is made."""
        return who.generation >= 0 and self._groups.find(who.group_id) is None

    def _offset_fetch(self, broker: int, request: Any, version: int, reply: Reply) -> None:
        if version >= _MANY_GROUPS:
            groups = [
                {"group_id": group.group_id, **self._fetched(broker, group, request.require_stable)}
                for group in request.groups
            ]
            reply({"groups": groups})
        else:
            reply(self._fetched(broker, request, request.require_stable))

    def _fetched(self, broker: int, asked: Any, require_stable: bool) -> Body:
        """The answer for one group; all that is committed if no partitions are named."""
        try:
            self._coordinators.check(broker, "group", asked.group_id)
        except Refused as refused:
            return {"error_code": refused.code, "topics": []}
        log = self._logs.get(asked.group_id, OffsetsLog())
        wanted = log.committed if asked.topics is None else _wanted(asked.topics)
        return {
            "topics": [
                {"name": topic, "partitions": [_fetched_one(log, partition, require_stable) for partition in group]}
                for topic, group in nested(wanted)
            ]
        }

    def _delete_groups(self, broker: int, request: Any, version: int, reply: Reply) -> None:
        results = [
            {"group_id": group_id, "error_code": self._delete(broker, group_id)} for group_id in request.groups_names
        ]
        reply({"results": results})

    def _delete(self, broker: int, group_id: str) -> int:
        try:
            self._coordinators.check(broker, "group", group_id)
        except Refused as refused:
            return refused.code
        code = self._groups.delete(group_id)
        if code == ErrorCode.NONE:
            self._log(group_id).clear()
        return code

    def _log(self, group_id: str) -> OffsetsLog:
        return self._logs.setdefault(group_id, OffsetsLog())


def _who(request: Any, generation: int) -> GroupMetadata:
    return GroupMetadata(request.group_id, generation, request.member_id, request.group_instance_id)


def _offsets(request: Any) -> dict[TopicPartition, Any]:
    """What is to be committed, without what is too long."""
    return {
        TopicPartition(topic.name, partition.partition_index): partition
        for topic in request.topics
        for partition in topic.partitions
        if not _too_long(partition)
    }


def _results(request: Any, code: int) -> Body:
    """The answer to a commit: the same code for all, but for what is too long."""
    return {
        "topics": [
            {
                "name": topic.name,
                "partitions": [
                    {
                        "partition_index": partition.partition_index,
                        "error_code": ErrorCode.OFFSET_METADATA_TOO_LARGE
                        if not code and _too_long(partition)
                        else code,
                    }
                    for partition in topic.partitions
                ],
            }
            for topic in request.topics
        ]
    }


def _too_long(partition: Any) -> bool:
    return len(partition.committed_metadata or "") > MAX_METADATA


def _wanted(topics: Any) -> list[TopicPartition]:
    return [TopicPartition(topic.name, number) for topic in topics for number in topic.partition_indexes]


def _fetched_one(log: OffsetsLog, partition: TopicPartition, require_stable: bool) -> Body:
    unstable = require_stable and log.unstable(partition)
    found = _NONE if unstable else log.committed.get(partition, _NONE)
    return {
        "partition_index": partition.partition,
        "committed_offset": found.offset,
        "committed_leader_epoch": found.leader_epoch,
        "metadata": found.metadata,
        "error_code": ErrorCode.UNSTABLE_OFFSET_COMMIT if unstable else ErrorCode.NONE,
    }


def _plain(offsets: Mapping[TopicPartition, Commit]) -> dict[TopicPartition, OffsetAndMetadata]:
    return {partition: OffsetAndMetadata(found.offset, found.metadata) for partition, found in offsets.items()}
