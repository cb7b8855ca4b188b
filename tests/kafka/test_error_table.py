"""The table of error codes: total, and what each row says."""

from __future__ import annotations

import pytest

from streamlib.errors import ConnectionFailedError, ErrorCode, KafkaError, UnsupportedBrokerError
from streamlib.kafka.errors import ERROR_TABLE, Refresh, check_code, error_row

# Retriable and what it refreshes; every code that is not here is final.
RETRIABLE: dict[ErrorCode, Refresh] = {
    ErrorCode.CORRUPT_MESSAGE: "none",
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: "metadata",
    ErrorCode.LEADER_NOT_AVAILABLE: "metadata",
    ErrorCode.NOT_LEADER_OR_FOLLOWER: "metadata",
    ErrorCode.REQUEST_TIMED_OUT: "none",
    ErrorCode.BROKER_NOT_AVAILABLE: "metadata",
    ErrorCode.REPLICA_NOT_AVAILABLE: "metadata",
    ErrorCode.NETWORK_EXCEPTION: "everything",
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS: "none",
    ErrorCode.COORDINATOR_NOT_AVAILABLE: "coordinator",
    ErrorCode.NOT_COORDINATOR: "coordinator",
    ErrorCode.NOT_ENOUGH_REPLICAS: "none",
    ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND: "none",
    ErrorCode.NOT_CONTROLLER: "metadata",
    ErrorCode.CONCURRENT_TRANSACTIONS: "none",
    ErrorCode.KAFKA_STORAGE_ERROR: "metadata",
    ErrorCode.FENCED_LEADER_EPOCH: "metadata",
    ErrorCode.UNKNOWN_LEADER_EPOCH: "metadata",
    ErrorCode.OFFSET_NOT_AVAILABLE: "none",
    ErrorCode.UNSTABLE_OFFSET_COMMIT: "none",
    ErrorCode.THROTTLING_QUOTA_EXCEEDED: "none",
    ErrorCode.UNKNOWN_TOPIC_ID: "metadata",
    ErrorCode.INCONSISTENT_TOPIC_ID: "metadata",
}

FOR_USERS = [
    ErrorCode.TOPIC_AUTHORIZATION_FAILED,
    ErrorCode.GROUP_AUTHORIZATION_FAILED,
    ErrorCode.CLUSTER_AUTHORIZATION_FAILED,
    ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    ErrorCode.INVALID_REPLICATION_FACTOR,
    ErrorCode.INVALID_SESSION_TIMEOUT,
    ErrorCode.INVALID_TRANSACTION_TIMEOUT,
    ErrorCode.MESSAGE_TOO_LARGE,
    ErrorCode.INCONSISTENT_GROUP_PROTOCOL,
    ErrorCode.FENCED_INSTANCE_ID,
    ErrorCode.PRODUCER_FENCED,
]


def test_every_code_has_a_row_and_no_row_is_without_a_code() -> None:
    assert set(ERROR_TABLE) == set(ErrorCode)


@pytest.mark.parametrize("code", list(ErrorCode), ids=lambda code: code.name)
def test_row(code: ErrorCode) -> None:
    row = error_row(code)
    assert row.retriable is (code in RETRIABLE)
    assert row.refresh == RETRIABLE.get(code, "none")
    assert row.retriable or not row.quick


@pytest.mark.parametrize("code", FOR_USERS, ids=lambda code: code.name)
def test_message_says_where_and_what_to_do(code: ErrorCode) -> None:
    with pytest.raises(KafkaError) as raised:
        check_code(code, "Produce", "orders-3", "the broker's words")
    message = str(raised.value)
    assert raised.value.code == code
    for part in ("Produce of orders-3", code.name, "the broker's words", error_row(code).hint):
        assert part in message


def test_no_error_is_no_error() -> None:
    check_code(ErrorCode.NONE, "Produce")


def test_unknown_code_is_final() -> None:
    assert not error_row(31_000).retriable
    with pytest.raises(KafkaError, match="error code 31000"):
        check_code(31_000, "Produce")


def test_lost_connection_is_retriable_and_an_old_broker_is_not() -> None:
    assert error_row(ConnectionFailedError("Fetch").code).retriable
    assert not error_row(UnsupportedBrokerError("Fetch", "too old").code).retriable
