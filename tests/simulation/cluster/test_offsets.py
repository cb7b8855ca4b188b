"""The model's committed offsets, rule by rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from streamlib.errors import ErrorCode
from streamlib.records import OffsetAndMetadata, TopicPartition
from streamlib.simulation.cluster.basics import Refused
from streamlib.simulation.cluster.groups import GROUP_ID_NOT_FOUND, NON_EMPTY_GROUP
from streamlib.simulation.cluster.offsets import MAX_METADATA, Offsets
from tests.simulation.cluster.asking import ask
from tests.simulation.cluster.test_groups import SESSION_MS, Coordinator, G

IN0, IN1 = (TopicPartition("in", number) for number in (0, 1))
PRODUCER, OTHER = 7, 8


class AnyTransaction:
    """A transaction coordinator that says yes, or what it is told to; and writes down what it was asked."""

    def __init__(self) -> None:
        self.refusal: ErrorCode | None = None
        self.asked: list[tuple[object, ...]] = []

    def enlist_group(self, transactional_id: str, producer_id: int, epoch: int, group_id: str) -> None:
        self._ask("enlist", transactional_id, producer_id, epoch, group_id)

    def verify_group(self, transactional_id: str, producer_id: int, epoch: int, group_id: str) -> None:
        self._ask("verify", transactional_id, producer_id, epoch, group_id)

    def _ask(self, *what: object) -> None:
        self.asked.append(what)
        if self.refusal is not None:
            raise Refused(self.refusal)


class OffsetsCoordinator(Coordinator):
    """The same with offsets."""

    def __init__(self) -> None:
        super().__init__()
        self.transactions = AnyTransaction()
        self.offsets = Offsets(self.coordinators, self.groups, self.transactions)

    def commit(
        self,
        offset: int,
        generation: int = -1,
        member_id: str = "",
        *,
        version: int = 9,
        broker: int = 0,
        **fields: Any,
    ) -> int:
        """Commit an offset of `IN0`; returns the code."""
        body = {
            "group_id": G,
            "generation_id_or_member_epoch": generation,
            "member_id": member_id,
            "topics": _topics({IN0: offset}),
        }
        answer = ask(self.offsets.handlers, "OffsetCommit", body | fields, version=version, broker=broker).answer
        return _one_code(answer)

    def commit_later(
        self,
        offset: int,
        generation: int = -1,
        member_id: str = "",
        *,
        producer: int = PRODUCER,
        epoch: int = 0,
        version: int = 5,
        broker: int = 0,
        **fields: Any,
    ) -> int:
        """The same in a transaction."""
        body = {
            "transactional_id": "tx",
            "group_id": G,
            "producer_id": producer,
            "producer_epoch": epoch,
            "generation_id": generation,
            "member_id": member_id,
            "topics": _topics({IN0: offset}),
        }
        answer = ask(self.offsets.handlers, "TxnOffsetCommit", body | fields, version=version, broker=broker).answer
        return _one_code(answer)

    def end(self, *, commit: bool, producer: int = PRODUCER, epoch: int = 0) -> None:
        self.offsets.end_transaction(G, producer, epoch, commit)

    def fetch(self, *partitions: TopicPartition, stable: bool = True, version: int = 9) -> dict[TopicPartition, Any]:
        """The answers for these partitions, or for all."""
        named = [{"name": at.topic, "partition_indexes": [at.partition]} for at in partitions] or None
        one = {"group_id": G, "topics": named}
        body = {"groups": [one]} if version >= 8 else one
        flag = {"require_stable": stable} if version >= 7 else {}
        answer = ask(self.offsets.handlers, "OffsetFetch", body | flag, version=version).answer
        ours = answer.groups[0] if version >= 8 else answer
        assert ours.error_code == ErrorCode.NONE
        return {
            TopicPartition(topic.name, answer.partition_index): answer
            for topic in ours.topics
            for answer in topic.partitions
        }

    def committed(self) -> int | None:
        """The offset of `IN0`."""
        found = self.offsets.committed(G).get(IN0)
        return found.offset if found is not None else None


def _topics(offsets: Mapping[TopicPartition, int], metadata: str | None = None) -> list[dict[str, Any]]:
    return [
        {
            "name": at.topic,
            "partitions": [
                {"partition_index": at.partition, "committed_offset": offset, "committed_metadata": metadata}
            ],
        }
        for at, offset in offsets.items()
    ]


def _one_code(answer: Any) -> int:
    (code,) = {partition.error_code for topic in answer.topics for partition in topic.partitions}
    assert isinstance(code, int)
    return code


@pytest.fixture
def at() -> OffsetsCoordinator:
    return OffsetsCoordinator()


# Plain commits


def test_commit_of_a_member_counts_at_once(at: OffsetsCoordinator) -> None:
    member = at.alone()
    assert at.commit(5, 1, member) == ErrorCode.NONE
    assert at.committed() == 5
    assert at.commit(3, 1, member) == ErrorCode.NONE
    assert at.committed() == 3


def test_metadata_comes_back(at: OffsetsCoordinator) -> None:
    at.commit(0, topics=_topics({IN0: 5}, "time=7"))
    assert at.offsets.committed(G) == {IN0: OffsetAndMetadata(5, "time=7")}
    assert at.fetch(IN0)[IN0].metadata == "time=7"


def test_commit_is_checked(at: OffsetsCoordinator) -> None:
    first, second = at.statics("a", "b")
    assert at.commit(5, 1, first, group_instance_id="a") == ErrorCode.NONE
    assert at.commit(5, 2, first) == ErrorCode.ILLEGAL_GENERATION
    assert at.commit(5, -1, first) == ErrorCode.ILLEGAL_GENERATION
    assert at.commit(5, 1, "nobody") == ErrorCode.UNKNOWN_MEMBER_ID
    assert at.commit(5, 1, second, group_instance_id="a") == ErrorCode.FENCED_INSTANCE_ID
    assert at.commit(5, 1, first, group_instance_id="c") == ErrorCode.UNKNOWN_MEMBER_ID


def test_outsider_commits_to_an_empty_group_only(at: OffsetsCoordinator) -> None:
    assert at.commit(5) == ErrorCode.NONE
    member = at.alone()
    assert at.commit(6) == ErrorCode.UNKNOWN_MEMBER_ID
    at.leave((member, None))
    assert at.commit(7) == ErrorCode.NONE
    assert at.commit(8, 1, member) == ErrorCode.UNKNOWN_MEMBER_ID
    assert at.committed() == 7


@pytest.mark.parametrize(("version", "code"), [(8, ErrorCode.ILLEGAL_GENERATION), (9, GROUP_ID_NOT_FOUND)])
def test_member_of_a_group_that_is_not_there_cannot_commit(at: OffsetsCoordinator, version: int, code: int) -> None:
    assert at.commit(5, 1, "member-1", version=version) == code
    assert at.commit_later(5, 1, "member-1") == ErrorCode.ILLEGAL_GENERATION
    assert at.groups.names() == []


def test_commit_is_taken_while_members_join_and_refused_before_they_sync(at: OffsetsCoordinator) -> None:
    first, second = at.pair()
    at.join(first)
    assert at.commit(5, 2, second) == ErrorCode.NONE
    at.join(second, b"new")
    assert at.commit(6, 2, second) == ErrorCode.ILLEGAL_GENERATION
    assert at.commit(6, 3, second) == ErrorCode.REBALANCE_IN_PROGRESS
    at.sync(3, first, {second: b"all"})
    assert at.commit(7, 3, second) == ErrorCode.NONE


def test_commit_keeps_a_session_alive(at: OffsetsCoordinator) -> None:
    member = at.alone()
    for offset in range(3):
        at.timers.advance(SESSION_MS - 1)
        assert at.commit(offset, 1, member) == ErrorCode.NONE


def test_commit_in_a_transaction_does_not_keep_a_session_alive(at: OffsetsCoordinator) -> None:
    member = at.alone()
    at.timers.advance(SESSION_MS - 1)
    assert at.commit_later(1, 1, member) == ErrorCode.NONE
    at.timers.advance(1)
    assert at.commit_later(2, 1, member) == ErrorCode.UNKNOWN_MEMBER_ID


def test_metadata_that_is_too_long_is_refused_alone(at: OffsetsCoordinator) -> None:
    topics = _topics({IN0: 5}, "x" * (MAX_METADATA + 1)) + _topics({IN1: 6}, "x" * MAX_METADATA)
    for api, ids in (("OffsetCommit", {}), ("TxnOffsetCommit", {"producer_id": PRODUCER})):
        answer = ask(at.offsets.handlers, api, {"group_id": G, "topics": topics} | ids).answer
        codes = [topic.partitions[0].error_code for topic in answer.topics]
        assert codes == [ErrorCode.OFFSET_METADATA_TOO_LARGE, ErrorCode.NONE]
    assert list(at.offsets.committed(G)) == [IN1]
    assert [list(offsets) for offsets in at.offsets.pending(G).values()] == [[IN1]]


# Commits in transactions


def test_commit_in_a_transaction_waits_for_its_marker(at: OffsetsCoordinator) -> None:
    at.commit(1)
    assert at.commit_later(5) == ErrorCode.NONE
    assert at.committed() == 1
    assert at.offsets.pending(G) == {PRODUCER: {IN0: OffsetAndMetadata(5)}}
    at.end(commit=True)
    assert at.committed() == 5
    assert at.offsets.pending(G) == {}


def test_aborted_commit_is_forgotten(at: OffsetsCoordinator) -> None:
    at.commit(1)
    at.commit_later(5)
    at.end(commit=False)
    assert at.committed() == 1
    assert at.offsets.pending(G) == {}


def test_transactions_of_two_producers_are_pending_side_by_side(at: OffsetsCoordinator) -> None:
    at.commit_later(5)
    at.commit_later(6, producer=OTHER)
    at.end(commit=False)
    assert at.offsets.pending(G) == {OTHER: {IN0: OffsetAndMetadata(6)}}


@pytest.mark.parametrize("order", [(PRODUCER, OTHER), (OTHER, PRODUCER)])
def test_commit_that_was_made_last_wins_in_whatever_order_the_markers_land(
    at: OffsetsCoordinator, order: tuple[int, int]
) -> None:
    at.commit_later(5)
    at.commit_later(6, producer=OTHER)
    for producer in order:
        at.end(commit=True, producer=producer)
    assert at.committed() == 6


def test_plain_commit_that_was_made_last_wins_over_a_transaction(at: OffsetsCoordinator) -> None:
    at.commit_later(5)
    at.commit(6)
    at.end(commit=True)
    assert at.committed() == 6


def test_last_commit_of_a_transaction_counts(at: OffsetsCoordinator) -> None:
    at.commit_later(5)
    at.commit_later(4)
    at.end(commit=True)
    assert at.committed() == 4


def test_commit_in_a_transaction_is_taken_in_every_state_under_the_generation(at: OffsetsCoordinator) -> None:
    first, second = at.pair()
    assert at.commit_later(1, 2, first) == ErrorCode.NONE
    at.join(first)
    assert at.commit_later(2, 2, first) == ErrorCode.NONE
    at.join(second)
    assert at.commit_later(3, 2, first) == ErrorCode.ILLEGAL_GENERATION
    assert at.commit_later(4, 3, first) == ErrorCode.NONE


def test_commit_in_a_transaction_is_checked(at: OffsetsCoordinator) -> None:
    first, second = at.statics("a", "b")
    assert at.commit_later(5, 1, first, group_instance_id="a") == ErrorCode.NONE
    assert at.commit_later(5, 0, first) == ErrorCode.ILLEGAL_GENERATION
    assert at.commit_later(5, -1, first) == ErrorCode.ILLEGAL_GENERATION
    assert at.commit_later(5, 1, "nobody") == ErrorCode.UNKNOWN_MEMBER_ID
    assert at.commit_later(5, 1, second, group_instance_id="a") == ErrorCode.FENCED_INSTANCE_ID


def test_commit_of_nobody_in_particular_is_taken(at: OffsetsCoordinator) -> None:
    at.alone()
    assert at.commit_later(5) == ErrorCode.NONE
    assert at.commit_later(6, version=2) == ErrorCode.NONE


def test_generation_is_checked_at_the_commit_and_not_at_the_end(at: OffsetsCoordinator) -> None:
    first, second = at.pair()
    at.commit_later(5, 2, second)
    at.leave((second, None))
    assert at.join(first).answer.generation_id == 3
    at.end(commit=True)
    assert at.committed() == 5


def test_refusal_leaves_the_transaction_as_it_is(at: OffsetsCoordinator) -> None:
    member = at.alone()
    at.commit_later(5, 1, member)
    at.commit_later(6, 0, member)
    at.end(commit=True)
    assert at.committed() == 5


def test_old_epoch_is_refused(at: OffsetsCoordinator) -> None:
    at.commit_later(5, epoch=1)
    assert at.commit_later(6, epoch=0) == ErrorCode.INVALID_PRODUCER_EPOCH
    assert at.commit_later(6, epoch=0, producer=OTHER) == ErrorCode.NONE
    at.end(commit=False, epoch=2)
    assert at.commit_later(7, epoch=1) == ErrorCode.INVALID_PRODUCER_EPOCH
    assert at.commit_later(7, epoch=2) == ErrorCode.NONE


def test_old_marker_is_refused(at: OffsetsCoordinator) -> None:
    at.commit_later(5, epoch=1)
    with pytest.raises(Refused) as refused:
        at.end(commit=True, epoch=0)
    assert refused.value.code == ErrorCode.INVALID_PRODUCER_EPOCH
    assert at.committed() is None
    assert at.offsets.pending(G)


def test_marker_that_comes_again_has_no_effect(at: OffsetsCoordinator) -> None:
    at.commit_later(5)
    at.end(commit=True)
    at.commit(6)
    at.end(commit=True)
    assert at.committed() == 6


def test_new_protocol_enlists_the_group_and_the_old_one_has_done_so(at: OffsetsCoordinator) -> None:
    at.commit_later(5, version=5)
    at.commit_later(5, version=4)
    assert at.transactions.asked == [("enlist", "tx", PRODUCER, 0, G), ("verify", "tx", PRODUCER, 0, G)]


@pytest.mark.parametrize("version", [4, 5])
def test_refusal_of_the_transaction_coordinator_goes_into_the_answer(at: OffsetsCoordinator, version: int) -> None:
    at.transactions.refusal = ErrorCode.CONCURRENT_TRANSACTIONS
    assert at.commit_later(5, version=version) == ErrorCode.CONCURRENT_TRANSACTIONS
    assert at.offsets.pending(G) == {}


def test_commit_that_the_group_refuses_has_enlisted_it_all_the_same(at: OffsetsCoordinator) -> None:
    at.alone()
    assert at.commit_later(5, 1, "nobody") == ErrorCode.UNKNOWN_MEMBER_ID
    assert len(at.transactions.asked) == 1


# Reading


def test_nothing_committed_is_minus_one(at: OffsetsCoordinator) -> None:
    answer = at.fetch(IN0)[IN0]
    assert (answer.committed_offset, answer.error_code, answer.metadata) == (-1, ErrorCode.NONE, "")


@pytest.mark.parametrize("version", [7, 8, 9])
def test_who_wants_stable_offsets_is_told_that_they_are_not(at: OffsetsCoordinator, version: int) -> None:
    at.commit(1)
    at.commit_later(5)
    answer = at.fetch(IN0, version=version)[IN0]
    assert (answer.error_code, answer.committed_offset) == (ErrorCode.UNSTABLE_OFFSET_COMMIT, -1)
    at.end(commit=True)
    assert at.fetch(IN0, version=version)[IN0].committed_offset == 5


@pytest.mark.parametrize("version", [5, 6, 7, 9])
def test_others_are_given_the_old_offset(at: OffsetsCoordinator, version: int) -> None:
    at.commit(1)
    at.commit_later(5)
    answer = at.fetch(IN0, stable=False, version=version)[IN0]
    assert (answer.error_code, answer.committed_offset) == (ErrorCode.NONE, 1)


def test_other_partitions_are_stable(at: OffsetsCoordinator) -> None:
    at.commit(0, topics=_topics({IN1: 4}))
    at.commit_later(5)
    answers = at.fetch(IN0, IN1)
    assert answers[IN0].error_code == ErrorCode.UNSTABLE_OFFSET_COMMIT
    assert answers[IN1].committed_offset == 4


def test_all_that_is_committed_can_be_asked_for(at: OffsetsCoordinator) -> None:
    at.commit(1)
    at.commit_later(5, topics=_topics({IN1: 5}))
    assert list(at.fetch()) == [IN0]
    assert list(at.fetch(version=7)) == [IN0]


# The coordinator


def test_another_broker_commits_and_tells_nothing(at: OffsetsCoordinator) -> None:
    assert at.commit(5, broker=1) == ErrorCode.NOT_COORDINATOR
    assert at.commit_later(5, broker=1) == ErrorCode.NOT_COORDINATOR
    assert at.transactions.asked == []
    one = {"group_id": G, "topics": []}
    fetched = ask(at.offsets.handlers, "OffsetFetch", one, version=7, broker=1).answer
    assert fetched.error_code == ErrorCode.NOT_COORDINATOR
    (group,) = ask(at.offsets.handlers, "OffsetFetch", {"groups": [one]}, broker=1).answer.groups
    assert group.error_code == ErrorCode.NOT_COORDINATOR
    (result,) = ask(at.offsets.handlers, "DeleteGroups", {"groups_names": [G]}, broker=1).answer.results
    assert result.error_code == ErrorCode.NOT_COORDINATOR


def test_offsets_survive_a_move(at: OffsetsCoordinator) -> None:
    at.commit(1)
    at.commit_later(5)
    at.groups.moved(G)
    assert at.committed() == 1
    at.end(commit=True)
    assert at.committed() == 5


def test_deleted_group_has_no_offsets(at: OffsetsCoordinator) -> None:
    def delete() -> int:
        (result,) = ask(at.offsets.handlers, "DeleteGroups", {"groups_names": [G]}).answer.results
        assert result.group_id == G
        code: int = result.error_code
        return code

    assert delete() == GROUP_ID_NOT_FOUND
    member = at.alone()
    at.commit(1, 1, member)
    at.commit_later(2, 1, member)
    assert delete() == NON_EMPTY_GROUP
    at.leave((member, None))
    assert delete() == ErrorCode.NONE
    at.end(commit=True)
    assert at.committed() is None
    assert at.groups.names() == []
