"""What to do about each error code of the protocol: one table.

`retriable` says that the same bytes may be sent again. Codes that are not retriable go up: to the
membership, the transaction or the user. Retriable or not follows `org.apache.kafka.common.protocol.Errors`,
except where the caller has to decide (generations, rebalances).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

from streamlib.errors import ErrorCode, KafkaError

Refresh = Literal["none", "metadata", "coordinator", "everything"]


class ErrorRow(msgspec.Struct, frozen=True):
    """One row: may it be repeated, what is stale, what can a user do about it.

    `quick` marks states that pass within milliseconds; they are asked again sooner.
    """

    retriable: bool
    refresh: Refresh = "none"
    hint: str = ""
    quick: bool = False


def error_row(code: int) -> ErrorRow:
    """The row of a code; one that streamlib does not know is final."""
    return ERROR_TABLE.get(code, _UNKNOWN)


def check_code(code: int, api: str, where: str = "", message: str | None = None) -> None:
    """Raise a `KafkaError` that says what to do, unless the code is 0. `message` is what the broker said."""
    if code == ErrorCode.NONE:
        return
    hint = error_row(code).hint
    raise KafkaError(code, api, where, "; ".join(part for part in (message, hint) if part) or None)


def _again(hint: str = "", refresh: Refresh = "none", *, quick: bool = False) -> ErrorRow:
    return ErrorRow(True, refresh, hint, quick)


def _final(hint: str = "") -> ErrorRow:
    return ErrorRow(False, "none", hint)


_UNKNOWN = _final("an unknown code; see https://kafka.apache.org/protocol#protocol_error_codes")
_OVERTAKEN = "another producer with this transactional id has taken over"
_TOPOLOGY = "the group runs another topology: use a new application_id, or stop all and run a classic worker once"
_MEMBERSHIP = "the group has moved on without this member; it has to join again"

ERROR_TABLE: Mapping[int, ErrorRow] = MappingProxyType(
    {
        ErrorCode.UNKNOWN_SERVER_ERROR: _final("the broker failed in an unexpected way, its log says how"),
        ErrorCode.NONE: _final(),
        ErrorCode.OFFSET_OUT_OF_RANGE: _final("the log does not hold this offset (retention?)"),
        ErrorCode.CORRUPT_MESSAGE: _again("the bytes were damaged on the way"),
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: _again(
            "check that the topic exists and that this client may describe it", "metadata"
        ),
        ErrorCode.LEADER_NOT_AVAILABLE: _again("the partition has no leader now", "metadata"),
        ErrorCode.NOT_LEADER_OR_FOLLOWER: _again("the leader has moved", "metadata"),
        ErrorCode.REQUEST_TIMED_OUT: _again("the replicas did not answer in time"),
        ErrorCode.BROKER_NOT_AVAILABLE: _again("the broker is not up", "metadata"),
        ErrorCode.REPLICA_NOT_AVAILABLE: _again("the broker has no copy of the partition now", "metadata"),
        ErrorCode.MESSAGE_TOO_LARGE: _final("raise max.message.bytes of the topic or write smaller records"),
        ErrorCode.OFFSET_METADATA_TOO_LARGE: _final(
            "raise offset.metadata.max.bytes of the brokers, or split the topology with repartition()"
        ),
        ErrorCode.NETWORK_EXCEPTION: _again("the broker did not answer, or cannot be reached", "everything"),
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS: _again("the coordinator is starting", quick=True),
        ErrorCode.COORDINATOR_NOT_AVAILABLE: _again("there is no coordinator now", "coordinator"),
        ErrorCode.NOT_COORDINATOR: _again("the coordinator has moved", "coordinator", quick=True),
        ErrorCode.INVALID_TOPIC_EXCEPTION: _final("check the topic's name"),
        ErrorCode.RECORD_LIST_TOO_LARGE: _final("raise segment.bytes of the topic or write smaller batches"),
        # Also what a broker says when two first writes of one transaction meet (measured with KIP-890).
        ErrorCode.NOT_ENOUGH_REPLICAS: _again(
            "fewer replicas are in sync than min.insync.replicas asks for", quick=True
        ),
        ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND: _again(
            "fewer replicas are in sync than min.insync.replicas asks for"
        ),
        ErrorCode.ILLEGAL_GENERATION: _final(_MEMBERSHIP),
        ErrorCode.INCONSISTENT_GROUP_PROTOCOL: _final(
            "another kind of consumer uses this group id: choose another application_id, or stop that one"
        ),
        ErrorCode.INVALID_GROUP_ID: _final("check application_id"),
        ErrorCode.UNKNOWN_MEMBER_ID: _final(_MEMBERSHIP),
        ErrorCode.INVALID_SESSION_TIMEOUT: _final(
            "session_timeout_ms must lie between the broker's group.min.session.timeout.ms and "
            "group.max.session.timeout.ms"
        ),
        ErrorCode.REBALANCE_IN_PROGRESS: _final("the group is rebalancing; this member has to join again"),
        ErrorCode.INVALID_COMMIT_OFFSET_SIZE: _final("raise message.max.bytes of the brokers"),
        ErrorCode.TOPIC_AUTHORIZATION_FAILED: _final(
            "grant this principal Read, Write and Describe on the topic (and Create for internal topics)"
        ),
        ErrorCode.GROUP_AUTHORIZATION_FAILED: _final("grant this principal Read on the group"),
        ErrorCode.CLUSTER_AUTHORIZATION_FAILED: _final(
            "grant this principal the operation on the cluster (Create; IdempotentWrite before 3.0)"
        ),
        ErrorCode.INVALID_TIMESTAMP: _final(
            "the record's timestamp is outside what the topic's message.timestamp.* settings allow"
        ),
        ErrorCode.UNSUPPORTED_SASL_MECHANISM: _final(
            "choose one of the mechanisms of the broker's sasl.enabled.mechanisms"
        ),
        ErrorCode.ILLEGAL_SASL_STATE: _final("check security_protocol: does the broker's listener speak SASL?"),
        ErrorCode.UNSUPPORTED_VERSION: _final("the broker is too old or too new for this request"),
        ErrorCode.TOPIC_ALREADY_EXISTS: _final("choose another name, or delete the topic first"),
        ErrorCode.INVALID_PARTITIONS: _final("the number of partitions is not allowed"),
        ErrorCode.INVALID_REPLICATION_FACTOR: _final("fewer brokers than replicas asked for"),
        ErrorCode.INVALID_CONFIG: _final("the broker refuses a setting of the topic"),
        ErrorCode.NOT_CONTROLLER: _again("the controller has moved", "metadata"),
        ErrorCode.INVALID_REQUEST: _final("the broker does not take a request of this kind; its log says why"),
        ErrorCode.POLICY_VIOLATION: _final("a policy of the cluster forbids it"),
        ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER: _final("an earlier batch of this producer is missing"),
        ErrorCode.DUPLICATE_SEQUENCE_NUMBER: _final("the batch is older than the last five of this producer"),
        ErrorCode.INVALID_PRODUCER_EPOCH: _final(_OVERTAKEN),
        ErrorCode.INVALID_TXN_STATE: _final("the transaction is not in a state that allows this"),
        ErrorCode.INVALID_PRODUCER_ID_MAPPING: _final("the coordinator has forgotten this producer id"),
        ErrorCode.INVALID_TRANSACTION_TIMEOUT: _final(
            "transaction_timeout_ms is above the broker's transaction.max.timeout.ms"
        ),
        ErrorCode.CONCURRENT_TRANSACTIONS: _again("the one before is not complete yet", quick=True),
        ErrorCode.TRANSACTION_COORDINATOR_FENCED: _final("the coordinator of the transaction has moved"),
        ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: _final(
            "grant this principal Write and Describe on the transactional id"
        ),
        ErrorCode.OPERATION_NOT_ATTEMPTED: _final("another part of the same request failed"),
        ErrorCode.KAFKA_STORAGE_ERROR: _again("the broker's disk failed", "metadata"),
        ErrorCode.SASL_AUTHENTICATION_FAILED: _final("check user name and password, and that the brokers know them"),
        ErrorCode.UNKNOWN_PRODUCER_ID: _final("retention removed this producer's records"),
        ErrorCode.GROUP_ID_NOT_FOUND: _final(_MEMBERSHIP),
        ErrorCode.FENCED_LEADER_EPOCH: _again("the leader has moved, and the broker knows more than we do", "metadata"),
        ErrorCode.UNKNOWN_LEADER_EPOCH: _again("the leader has moved, and the broker has not heard of it", "metadata"),
        ErrorCode.UNSUPPORTED_COMPRESSION_TYPE: _final("choose a compression_type that the brokers know"),
        ErrorCode.OFFSET_NOT_AVAILABLE: _again("a new leader does not know its high watermark yet"),
        ErrorCode.MEMBER_ID_REQUIRED: _final("join again with the member id that came with the answer"),
        ErrorCode.GROUP_MAX_SIZE_REACHED: _final("the broker's group.max.size allows no further member"),
        ErrorCode.FENCED_INSTANCE_ID: _final(
            "another process runs with the same group_instance_id: it has to be unique for each process"
        ),
        ErrorCode.INVALID_RECORD: _final("a compacted topic takes no record without a key"),
        ErrorCode.UNSTABLE_OFFSET_COMMIT: _again("a transaction over these offsets is pending", quick=True),
        ErrorCode.THROTTLING_QUOTA_EXCEEDED: _again("a quota of the cluster is used up"),
        ErrorCode.PRODUCER_FENCED: _final(_OVERTAKEN),
        ErrorCode.UNKNOWN_TOPIC_ID: _again("the topic was deleted and created anew", "metadata"),
        ErrorCode.INCONSISTENT_TOPIC_ID: _again("the topic was deleted and created anew", "metadata"),
        ErrorCode.TRANSACTIONAL_ID_NOT_FOUND: _final("the coordinator has forgotten this transactional id"),
        ErrorCode.FENCED_MEMBER_EPOCH: _final(_MEMBERSHIP),
        ErrorCode.UNRELEASED_INSTANCE_ID: _final("another process is still a member with the same group_instance_id"),
        ErrorCode.STALE_MEMBER_EPOCH: _final(_MEMBERSHIP),
        ErrorCode.TRANSACTION_ABORTABLE: _final("the transaction has to be aborted"),
        ErrorCode.STREAMS_INVALID_TOPOLOGY: _final(_TOPOLOGY),
        ErrorCode.STREAMS_INVALID_TOPOLOGY_EPOCH: _final(_TOPOLOGY),
        ErrorCode.STREAMS_TOPOLOGY_FENCED: _final(_TOPOLOGY),
    }
)
"""Every code of `ErrorCode`, with what to do about it."""
