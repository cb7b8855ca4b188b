"""The failure table, row by row."""

from __future__ import annotations

import pytest

from streamlib.errors import ErrorCode, KafkaError
from streamlib.runtime.failures import ACTIONS, Action, decide


def test_every_code_has_a_row() -> None:
    assert set(ACTIONS) == set(ErrorCode)


@pytest.mark.parametrize("code", ErrorCode)
def test_the_row_is_the_answer(code: ErrorCode) -> None:
    assert decide(KafkaError(code, "Produce")) is ACTIONS[code]


def test_an_unheard_of_code_is_fatal() -> None:
    assert decide(KafkaError(31_999, "Produce")) is Action.FATAL


@pytest.mark.parametrize(
    ("code", "action"),
    [
        # KIP-890: a transaction that outlived its timeout shows as a newer epoch of our own id.
        (ErrorCode.INVALID_PRODUCER_EPOCH, Action.FENCED),
        (ErrorCode.PRODUCER_FENCED, Action.FENCED),
        # KAFKA-16699: an idle transactional id expired.
        (ErrorCode.INVALID_PRODUCER_ID_MAPPING, Action.REDO),
        # "not committed", never success.
        (ErrorCode.INVALID_TXN_STATE, Action.REDO),
        (ErrorCode.TRANSACTION_ABORTABLE, Action.REDO),
        (ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, Action.REDO),
        # The outcome is unknown: the committed offsets will tell.
        (ErrorCode.NETWORK_EXCEPTION, Action.REDO),
        # KIP-447: the coordinator knows a later generation, or not us.
        (ErrorCode.ILLEGAL_GENERATION, Action.MIGRATED),
        (ErrorCode.UNKNOWN_MEMBER_ID, Action.MIGRATED),
        # KIP-1071: the member's epoch is not the coordinator's, or there is no such group any more.
        (ErrorCode.FENCED_MEMBER_EPOCH, Action.MIGRATED),
        (ErrorCode.STALE_MEMBER_EPOCH, Action.MIGRATED),
        (ErrorCode.GROUP_ID_NOT_FOUND, Action.MIGRATED),
        (ErrorCode.STREAMS_INVALID_TOPOLOGY, Action.FATAL),
        # Two processes with one instance id: the older one stops.
        (ErrorCode.FENCED_INSTANCE_ID, Action.FATAL),
        (ErrorCode.UNRELEASED_INSTANCE_ID, Action.FATAL),
        (ErrorCode.MESSAGE_TOO_LARGE, Action.FATAL),
        (ErrorCode.TOPIC_AUTHORIZATION_FAILED, Action.FATAL),
    ],
)
def test_what_matters_most(code: ErrorCode, action: Action) -> None:
    assert decide(KafkaError(code, "EndTxn")) is action
