"""The table of errors: which API can say which code, and what the library then does.

`SAYS` is what a broker from 2.5 to 4.x may answer to the requests that we make (Kafka's javadoc of the response
classes, and what `KafkaApis`, `GroupCoordinator`, `TransactionCoordinator` and `ReplicaManager` put in there). What is
to happen follows from the library's own two tables, except for what stands in `EXCEPTIONS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import NamedTuple

from streamlib.errors import ErrorCode as E
from streamlib.kafka.errors import ERROR_TABLE
from streamlib.runtime.failures import ACTIONS, Action


class Outcome(Enum):
    """What the library does about an answer, as one can see it from outside."""

    RETRIED = "the same request again"
    REDONE = "new epochs, work redone"
    REJOINED = "tasks dropped, joined again"
    JOINED = "joined again, tasks kept"
    STOPPED = "stopped with a message"
    PASSED = "passed over"


_COORDINATOR = (E.COORDINATOR_LOAD_IN_PROGRESS, E.COORDINATOR_NOT_AVAILABLE, E.NOT_COORDINATOR)
_PRODUCER = (
    E.CONCURRENT_TRANSACTIONS,
    E.INVALID_PRODUCER_EPOCH,
    E.INVALID_PRODUCER_ID_MAPPING,
    E.INVALID_TXN_STATE,
    E.PRODUCER_FENCED,
    E.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    E.TRANSACTION_ABORTABLE,
)
_LEADER = (
    E.FENCED_LEADER_EPOCH,
    E.KAFKA_STORAGE_ERROR,
    E.LEADER_NOT_AVAILABLE,
    E.NOT_LEADER_OR_FOLLOWER,
    E.OFFSET_NOT_AVAILABLE,
    E.REPLICA_NOT_AVAILABLE,
    E.TOPIC_AUTHORIZATION_FAILED,
    E.UNKNOWN_LEADER_EPOCH,
    E.UNKNOWN_TOPIC_OR_PARTITION,
)
_MEMBER = (E.FENCED_INSTANCE_ID, E.GROUP_AUTHORIZATION_FAILED, E.UNKNOWN_MEMBER_ID)

SAYS: Mapping[str, tuple[E, ...]] = {
    "Produce": (
        *(E.UNKNOWN_SERVER_ERROR, E.CORRUPT_MESSAGE, E.UNKNOWN_TOPIC_OR_PARTITION, E.NOT_LEADER_OR_FOLLOWER),
        *(E.REQUEST_TIMED_OUT, E.MESSAGE_TOO_LARGE, E.INVALID_TOPIC_EXCEPTION, E.RECORD_LIST_TOO_LARGE),
        *(E.NOT_ENOUGH_REPLICAS, E.NOT_ENOUGH_REPLICAS_AFTER_APPEND, E.TOPIC_AUTHORIZATION_FAILED),
        *(E.CLUSTER_AUTHORIZATION_FAILED, E.INVALID_TIMESTAMP, E.OUT_OF_ORDER_SEQUENCE_NUMBER),
        *(E.DUPLICATE_SEQUENCE_NUMBER, E.KAFKA_STORAGE_ERROR, E.UNKNOWN_PRODUCER_ID, E.INVALID_RECORD),
        E.UNSUPPORTED_COMPRESSION_TYPE,
        *_PRODUCER,
    ),
    "Fetch": (E.UNKNOWN_SERVER_ERROR, E.OFFSET_OUT_OF_RANGE, E.CORRUPT_MESSAGE, *_LEADER),
    "ListOffsets": (E.UNKNOWN_SERVER_ERROR, *_LEADER),
    "DeleteRecords": (
        *(E.UNKNOWN_SERVER_ERROR, E.OFFSET_OUT_OF_RANGE, E.UNKNOWN_TOPIC_OR_PARTITION, E.NOT_LEADER_OR_FOLLOWER),
        *(E.REQUEST_TIMED_OUT, E.TOPIC_AUTHORIZATION_FAILED, E.POLICY_VIOLATION, E.KAFKA_STORAGE_ERROR),
    ),
    "JoinGroup": (
        *(E.UNKNOWN_SERVER_ERROR, E.INCONSISTENT_GROUP_PROTOCOL, E.INVALID_GROUP_ID, E.INVALID_SESSION_TIMEOUT),
        *(E.REBALANCE_IN_PROGRESS, E.MEMBER_ID_REQUIRED, E.GROUP_MAX_SIZE_REACHED),
        *_MEMBER,
        *_COORDINATOR,
    ),
    "SyncGroup": (
        *(E.UNKNOWN_SERVER_ERROR, E.ILLEGAL_GENERATION, E.INCONSISTENT_GROUP_PROTOCOL, E.REBALANCE_IN_PROGRESS),
        *_MEMBER,
        *_COORDINATOR,
    ),
    "Heartbeat": (
        *(E.UNKNOWN_SERVER_ERROR, E.ILLEGAL_GENERATION, E.REBALANCE_IN_PROGRESS),
        *_MEMBER,
        *_COORDINATOR,
    ),
    "LeaveGroup": (E.UNKNOWN_SERVER_ERROR, *_MEMBER, *_COORDINATOR),
    "OffsetFetch": (
        *(E.UNKNOWN_SERVER_ERROR, E.UNKNOWN_TOPIC_OR_PARTITION, E.TOPIC_AUTHORIZATION_FAILED),
        *(E.UNSTABLE_OFFSET_COMMIT, E.GROUP_AUTHORIZATION_FAILED),
        *_COORDINATOR,
    ),
    "OffsetCommit": (
        *(E.UNKNOWN_SERVER_ERROR, E.UNKNOWN_TOPIC_OR_PARTITION, E.REQUEST_TIMED_OUT, E.ILLEGAL_GENERATION),
        *(E.REBALANCE_IN_PROGRESS, E.TOPIC_AUTHORIZATION_FAILED),
        *(E.OFFSET_METADATA_TOO_LARGE, E.INVALID_COMMIT_OFFSET_SIZE),
        *_MEMBER,
        *_COORDINATOR,
    ),
    "TxnOffsetCommit": (
        *(E.UNKNOWN_SERVER_ERROR, E.UNKNOWN_TOPIC_OR_PARTITION, E.REQUEST_TIMED_OUT, E.ILLEGAL_GENERATION),
        *(E.TOPIC_AUTHORIZATION_FAILED, E.INVALID_GROUP_ID),
        *(E.OFFSET_METADATA_TOO_LARGE, E.INVALID_COMMIT_OFFSET_SIZE),
        *_MEMBER,
        *_COORDINATOR,
        *_PRODUCER,
    ),
    "InitProducerId": (
        *(E.UNKNOWN_SERVER_ERROR, E.REQUEST_TIMED_OUT, E.CLUSTER_AUTHORIZATION_FAILED, E.INVALID_REQUEST),
        *(E.INVALID_TRANSACTION_TIMEOUT, E.CONCURRENT_TRANSACTIONS, E.INVALID_PRODUCER_EPOCH, E.PRODUCER_FENCED),
        *(E.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, E.TRANSACTION_ABORTABLE),
        *_COORDINATOR,
    ),
    "AddPartitionsToTxn": (
        *(E.UNKNOWN_SERVER_ERROR, E.UNKNOWN_TOPIC_OR_PARTITION, E.TOPIC_AUTHORIZATION_FAILED),
        E.OPERATION_NOT_ATTEMPTED,
        *_COORDINATOR,
        *_PRODUCER,
    ),
    "AddOffsetsToTxn": (E.UNKNOWN_SERVER_ERROR, E.GROUP_AUTHORIZATION_FAILED, *_COORDINATOR, *_PRODUCER),
    "EndTxn": (E.UNKNOWN_SERVER_ERROR, *_COORDINATOR, *_PRODUCER),
    "Metadata": (
        *(E.UNKNOWN_SERVER_ERROR, E.UNKNOWN_TOPIC_OR_PARTITION, E.LEADER_NOT_AVAILABLE, E.INVALID_TOPIC_EXCEPTION),
        E.TOPIC_AUTHORIZATION_FAILED,
    ),
    "FindCoordinator": (
        *(E.UNKNOWN_SERVER_ERROR, E.COORDINATOR_NOT_AVAILABLE, E.COORDINATOR_LOAD_IN_PROGRESS),
        *(E.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, E.INVALID_REQUEST),
    ),
    "CreateTopics": (
        *(E.UNKNOWN_SERVER_ERROR, E.REQUEST_TIMED_OUT, E.INVALID_TOPIC_EXCEPTION, E.TOPIC_AUTHORIZATION_FAILED),
        *(E.CLUSTER_AUTHORIZATION_FAILED, E.TOPIC_ALREADY_EXISTS, E.INVALID_PARTITIONS, E.INVALID_REPLICATION_FACTOR),
        *(E.INVALID_CONFIG, E.NOT_CONTROLLER, E.INVALID_REQUEST, E.POLICY_VIOLATION, E.THROTTLING_QUOTA_EXCEEDED),
    ),
    "DescribeConfigs": (
        *(E.UNKNOWN_SERVER_ERROR, E.UNKNOWN_TOPIC_OR_PARTITION, E.INVALID_TOPIC_EXCEPTION, E.INVALID_REQUEST),
        E.TOPIC_AUTHORIZATION_FAILED,
    ),
}

# What members of a streams group hear (KIP-1071). The workers here are of the other kind: what is done about it is
# shown in `tests/kafka/test_streams_group.py`.
STREAMS_SAYS: Mapping[str, tuple[E, ...]] = {
    "StreamsGroupHeartbeat": (
        *(E.UNKNOWN_SERVER_ERROR, E.UNKNOWN_MEMBER_ID, E.FENCED_MEMBER_EPOCH, E.UNRELEASED_INSTANCE_ID),
        *(E.GROUP_ID_NOT_FOUND, E.INVALID_REQUEST, E.INVALID_GROUP_ID, E.GROUP_MAX_SIZE_REACHED, E.UNSUPPORTED_VERSION),
        *(E.GROUP_AUTHORIZATION_FAILED, E.TOPIC_AUTHORIZATION_FAILED, E.CLUSTER_AUTHORIZATION_FAILED),
        *(E.STREAMS_INVALID_TOPOLOGY, E.STREAMS_INVALID_TOPOLOGY_EPOCH, E.STREAMS_TOPOLOGY_FENCED),
        *_COORDINATOR,
    ),
    "StreamsGroupDescribe": (
        *(E.UNKNOWN_SERVER_ERROR, E.GROUP_ID_NOT_FOUND, E.INVALID_GROUP_ID),
        *(E.GROUP_AUTHORIZATION_FAILED, E.TOPIC_AUTHORIZATION_FAILED),
        *_COORDINATOR,
    ),
    "OffsetCommit": (E.STALE_MEMBER_EPOCH,),
}

# Before any request: to whoever connects (`tests/errors/test_credentials.py`).
AT_CONNECTING = frozenset({E.SASL_AUTHENTICATION_FAILED, E.UNSUPPORTED_SASL_MECHANISM, E.ILLEGAL_SASL_STATE})

# Only between brokers, in requests that we do not make, or in versions of them that we do not speak.
NEVER_HEARD = frozenset(
    {
        E.NONE,
        E.BROKER_NOT_AVAILABLE,
        E.TRANSACTION_COORDINATOR_FENCED,
        E.UNKNOWN_TOPIC_ID,
        E.INCONSISTENT_TOPIC_ID,
        E.TRANSACTIONAL_ID_NOT_FOUND,
        E.UNSUPPORTED_VERSION,  # versions are agreed upon before
        # Only in streams groups, see above.
        *(E.FENCED_MEMBER_EPOCH, E.UNRELEASED_INSTANCE_ID, E.STALE_MEMBER_EPOCH, E.GROUP_ID_NOT_FOUND),
        *(E.STREAMS_INVALID_TOPOLOGY, E.STREAMS_INVALID_TOPOLOGY_EPOCH, E.STREAMS_TOPOLOGY_FENCED),
    }
)

_START_ONLY = frozenset({"CreateTopics", "DescribeConfigs"})
_STOP_ONLY = frozenset({"LeaveGroup"})
_ALSO_AT_START = frozenset(
    {"InitProducerId", "JoinGroup", "SyncGroup", "OffsetFetch", "ListOffsets", "FindCoordinator", "Metadata"}
)
# Told from the truth: that a topic exists that does not is no answer to be survived.
_ONLY_HIDDEN = frozenset({("CreateTopics", E.TOPIC_ALREADY_EXISTS)})
# Told of what was asked, before anything is done.
_ONLY_REFUSED = frozenset({("Produce", E.MESSAGE_TOO_LARGE)})
# Requests that leave something behind at the broker, so that it matters whether a refused one was carried out.
_WITH_EFFECT = frozenset(
    {
        *("Produce", "TxnOffsetCommit", "EndTxn", "OffsetCommit", "AddPartitionsToTxn", "AddOffsetsToTxn"),
        *("InitProducerId", "JoinGroup", "SyncGroup", "CreateTopics", "LeaveGroup", "DeleteRecords"),
    }
)

_BY_PARTITION = frozenset({"Produce", "Fetch", "ListOffsets", "OffsetCommit", "TxnOffsetCommit"})

_ANY = frozenset(E)
_REDONE = frozenset(code for code, action in ACTIONS.items() if action in (Action.REDO, Action.FENCED))
_TRANSACTIONAL = ("Produce", "TxnOffsetCommit", "EndTxn", "InitProducerId", "AddPartitionsToTxn", "AddOffsetsToTxn")
_HELD_BACK = ("JoinGroup", "SyncGroup")
_MEMBERSHIP = ("JoinGroup", "SyncGroup", "Heartbeat")

# What differs from what the two tables of the library say, and at which requests: the caller knows better there.
EXCEPTIONS: Mapping[tuple[str, str], Mapping[frozenset[E], Outcome]] = {
    # The group goes on, with us if we join.
    ("JoinGroup", "*"): {
        frozenset({E.MEMBER_ID_REQUIRED}): Outcome.RETRIED,
        frozenset({E.REBALANCE_IN_PROGRESS}): Outcome.JOINED,
    },
    ("SyncGroup", "*"): {frozenset({E.REBALANCE_IN_PROGRESS}): Outcome.JOINED},
    ("Heartbeat", "*"): {frozenset({E.REBALANCE_IN_PROGRESS}): Outcome.JOINED},
    # What is known of a topic stays until the requests themselves are refused.
    ("Metadata", "work"): {_ANY: Outcome.RETRIED},
    # Another worker was quicker; the topic is checked like any other.
    ("CreateTopics", "start"): {frozenset({E.TOPIC_ALREADY_EXISTS}): Outcome.PASSED},
    # A batch of several records leaves again in smaller ones; that of a single one is shown in `test_pathological.py`.
    ("Produce", "*"): {frozenset({E.MESSAGE_TOO_LARGE}): Outcome.RETRIED},
    # Nothing is there that would have to be redone.
    ("InitProducerId", "start"): {_REDONE: Outcome.RETRIED},
    ("FindCoordinator", "start"): {_REDONE: Outcome.RETRIED},
}


class How(Enum):
    """How a request fails."""

    REFUSED = "refused"  # the broker does nothing
    HIDDEN = "hidden"  # it does what was asked, but the answer says something else
    PARTLY = "partly"  # the same, for one partition of the request only
    LOST = "lost"  # it does so, and the connection breaks before its answer comes
    CUT = "cut"  # the connection breaks right behind the request
    UNANSWERED = "unanswered"  # the broker does so, and nothing is heard of it


class Row(NamedTuple):
    """One fate of one request."""

    api: str
    code: E
    phase: str  # "start", "work", or "stop" of a worker
    how: How = How.REFUSED

    def __str__(self) -> str:
        return f"{self.phase}-{self.api}-{self.code.name}-{self.how.value}"

    @property
    def outcome(self) -> Outcome:
        for phase in (self.phase, "*"):
            for codes, outcome in EXCEPTIONS.get((self.api, phase), {}).items():
                if self.code in codes:
                    return outcome
        return by_the_tables(self)

    @property
    def kind(self) -> tuple[object, ...]:
        """What rows have in common that go the same way through the code."""
        return self.api, self.phase, self.how, self.outcome


def by_the_tables(row: Row) -> Outcome:
    if ERROR_TABLE[row.code].retriable:
        return Outcome.RETRIED
    if row.api in ("LeaveGroup", "DeleteRecords"):
        return Outcome.PASSED  # not worth a failure
    if row.api in _START_ONLY or (row.api == "Metadata" and row.phase == "start"):
        return Outcome.STOPPED  # nothing is running that could be redone
    match ACTIONS[row.code]:
        case Action.REDO | Action.FENCED:
            return Outcome.REJOINED if row.api in _MEMBERSHIP else Outcome.REDONE
        case Action.MIGRATED:
            return Outcome.REJOINED
        case Action.FATAL:
            return Outcome.STOPPED


def all_rows() -> Iterator[Row]:
    for api, codes in SAYS.items():
        for phase in phases(api):
            for code in codes:
                for how in _ways(api, code):
                    yield Row(api, code, phase, how)
        for how in _losses(api):
            yield Row(api, E.NETWORK_EXCEPTION, phases(api)[-1], how)


def _ways(api: str, code: E) -> Iterator[How]:
    if (api, code) not in _ONLY_HIDDEN:
        yield How.REFUSED
    if (api, code) in _ONLY_REFUSED:
        return
    if api in _WITH_EFFECT:
        yield How.HIDDEN
    if api in _BY_PARTITION:
        yield How.PARTLY


def _losses(api: str) -> tuple[How, ...]:
    if api in _HELD_BACK:
        return (How.LOST, How.CUT)  # a broker may take minutes to answer them
    return (How.LOST, How.CUT, How.UNANSWERED)


def one_of_each_kind() -> Iterator[Row]:
    """Every code once at least, and each way through the code, as far as it makes much of a difference."""
    kinds, codes = set(), set()
    for row in all_rows():
        matters = row.how in (How.REFUSED, How.LOST) or row.api in _TRANSACTIONAL
        if row.code not in codes or (matters and row.kind not in kinds):
            kinds.add(row.kind)
            codes.add(row.code)
            yield row


def phases(api: str) -> tuple[str, ...]:
    """When the request is made, the phase that matters most last."""
    if api in _START_ONLY:
        return ("start",)
    if api in _STOP_ONLY:
        return ("stop",)
    return ("start", "work") if api in _ALSO_AT_START else ("work",)
