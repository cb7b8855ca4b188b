"""What to do about a broker's refusal: one table decides, for every operation.

Adapters have already repeated whatever may be repeated with the same bytes, so a code that arrives here ends the
transaction in which it happened. The question left is what that says about us:

    REDO      the work since the last commit is void: abort, new epochs, back to the committed offsets, do it again
    FENCED    as REDO, but someone else may be using our transactional id: with back-off, and said aloud
    MIGRATED  the group goes on without us: drop all tasks, join again
    FATAL     trying again cannot help: stop and say why

REDO needs no case distinction by outcome: whether a commit whose answer was lost took effect or not, the committed
offsets and the changelogs tell after the producers are initialised again (KIP-98 fencing finishes the transaction).
Sources: KIP-890, KIP-447, KIP-360, KIP-588; org.apache.kafka.common.protocol.Errors.
"""

from __future__ import annotations

from enum import Enum

from streamlib.errors import ErrorCode, KafkaError


class Action(Enum):
    """What becomes of the open work, and of this member."""

    REDO = "redo"
    FENCED = "fenced"
    MIGRATED = "migrated"
    FATAL = "fatal"


ACTIONS: dict[ErrorCode, Action] = {
    # The outcome is unknown, or the cluster is not ready; nothing is wrong with us.
    ErrorCode.UNKNOWN_SERVER_ERROR: Action.REDO,
    ErrorCode.CORRUPT_MESSAGE: Action.REDO,
    ErrorCode.LEADER_NOT_AVAILABLE: Action.REDO,
    ErrorCode.NOT_LEADER_OR_FOLLOWER: Action.REDO,
    ErrorCode.REQUEST_TIMED_OUT: Action.REDO,
    ErrorCode.BROKER_NOT_AVAILABLE: Action.REDO,
    ErrorCode.REPLICA_NOT_AVAILABLE: Action.REDO,
    ErrorCode.NETWORK_EXCEPTION: Action.REDO,
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS: Action.REDO,
    ErrorCode.COORDINATOR_NOT_AVAILABLE: Action.REDO,
    ErrorCode.NOT_COORDINATOR: Action.REDO,
    ErrorCode.NOT_ENOUGH_REPLICAS: Action.REDO,
    ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND: Action.REDO,
    ErrorCode.NOT_CONTROLLER: Action.REDO,
    ErrorCode.CONCURRENT_TRANSACTIONS: Action.REDO,
    ErrorCode.KAFKA_STORAGE_ERROR: Action.REDO,
    ErrorCode.FENCED_LEADER_EPOCH: Action.REDO,
    ErrorCode.UNKNOWN_LEADER_EPOCH: Action.REDO,
    ErrorCode.OFFSET_NOT_AVAILABLE: Action.REDO,
    ErrorCode.UNSTABLE_OFFSET_COMMIT: Action.REDO,
    ErrorCode.THROTTLING_QUOTA_EXCEEDED: Action.REDO,
    # The position is no longer in the log: the tasks open again by the reset policy.
    ErrorCode.OFFSET_OUT_OF_RANGE: Action.REDO,
    # The transaction cannot be committed, the producer can start another one.
    ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER: Action.REDO,
    ErrorCode.DUPLICATE_SEQUENCE_NUMBER: Action.REDO,
    ErrorCode.UNKNOWN_PRODUCER_ID: Action.REDO,
    ErrorCode.INVALID_PRODUCER_ID_MAPPING: Action.REDO,
    ErrorCode.TRANSACTIONAL_ID_NOT_FOUND: Action.REDO,
    ErrorCode.INVALID_TXN_STATE: Action.REDO,
    ErrorCode.TRANSACTION_ABORTABLE: Action.REDO,
    ErrorCode.OPERATION_NOT_ATTEMPTED: Action.REDO,
    # A newer epoch of our id exists: another process, or the broker after the transaction outlived its timeout.
    ErrorCode.INVALID_PRODUCER_EPOCH: Action.FENCED,
    ErrorCode.PRODUCER_FENCED: Action.FENCED,
    ErrorCode.TRANSACTION_COORDINATOR_FENCED: Action.FENCED,
    # The coordinator does not know this member or generation any more.
    ErrorCode.ILLEGAL_GENERATION: Action.MIGRATED,
    ErrorCode.UNKNOWN_MEMBER_ID: Action.MIGRATED,
    ErrorCode.REBALANCE_IN_PROGRESS: Action.MIGRATED,
    ErrorCode.MEMBER_ID_REQUIRED: Action.MIGRATED,
    # The same in a streams group, where a member has an epoch of its own (KIP-1071).
    ErrorCode.FENCED_MEMBER_EPOCH: Action.MIGRATED,
    ErrorCode.STALE_MEMBER_EPOCH: Action.MIGRATED,
    ErrorCode.GROUP_ID_NOT_FOUND: Action.MIGRATED,
    # Another process runs with our group_instance_id; going on would only throw it out in turn.
    ErrorCode.FENCED_INSTANCE_ID: Action.FATAL,
    ErrorCode.UNRELEASED_INSTANCE_ID: Action.FATAL,
    # Configuration, rights, data, or a broker that is too old.
    ErrorCode.NONE: Action.FATAL,
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: Action.FATAL,
    ErrorCode.MESSAGE_TOO_LARGE: Action.FATAL,
    ErrorCode.OFFSET_METADATA_TOO_LARGE: Action.FATAL,
    ErrorCode.INVALID_TOPIC_EXCEPTION: Action.FATAL,
    ErrorCode.RECORD_LIST_TOO_LARGE: Action.FATAL,
    ErrorCode.INCONSISTENT_GROUP_PROTOCOL: Action.FATAL,
    ErrorCode.INVALID_GROUP_ID: Action.FATAL,
    ErrorCode.INVALID_SESSION_TIMEOUT: Action.FATAL,
    ErrorCode.INVALID_COMMIT_OFFSET_SIZE: Action.FATAL,
    ErrorCode.TOPIC_AUTHORIZATION_FAILED: Action.FATAL,
    ErrorCode.GROUP_AUTHORIZATION_FAILED: Action.FATAL,
    ErrorCode.CLUSTER_AUTHORIZATION_FAILED: Action.FATAL,
    ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: Action.FATAL,
    ErrorCode.INVALID_TIMESTAMP: Action.FATAL,
    ErrorCode.UNSUPPORTED_COMPRESSION_TYPE: Action.FATAL,
    ErrorCode.UNSUPPORTED_SASL_MECHANISM: Action.FATAL,
    ErrorCode.ILLEGAL_SASL_STATE: Action.FATAL,
    ErrorCode.SASL_AUTHENTICATION_FAILED: Action.FATAL,
    ErrorCode.UNSUPPORTED_VERSION: Action.FATAL,
    ErrorCode.TOPIC_ALREADY_EXISTS: Action.FATAL,
    ErrorCode.INVALID_PARTITIONS: Action.FATAL,
    ErrorCode.INVALID_REPLICATION_FACTOR: Action.FATAL,
    ErrorCode.INVALID_CONFIG: Action.FATAL,
    ErrorCode.INVALID_REQUEST: Action.FATAL,
    ErrorCode.POLICY_VIOLATION: Action.FATAL,
    ErrorCode.INVALID_TRANSACTION_TIMEOUT: Action.FATAL,
    ErrorCode.GROUP_MAX_SIZE_REACHED: Action.FATAL,
    ErrorCode.INVALID_RECORD: Action.FATAL,
    ErrorCode.UNKNOWN_TOPIC_ID: Action.FATAL,
    ErrorCode.INCONSISTENT_TOPIC_ID: Action.FATAL,
    ErrorCode.STREAMS_INVALID_TOPOLOGY: Action.FATAL,
    ErrorCode.STREAMS_INVALID_TOPOLOGY_EPOCH: Action.FATAL,
    ErrorCode.STREAMS_TOPOLOGY_FENCED: Action.FATAL,
}


def decide(error: KafkaError) -> Action:
    """The table's answer; a code that no table of ours knows is fatal, because guessing is how records get lost."""
    try:
        return ACTIONS[ErrorCode(error.code)]
    except ValueError:
        return Action.FATAL
