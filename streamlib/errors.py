"""Every error that streamlib raises, and the broker's error codes.

Each message says what happened, where (topic, partition, offset, node, key) and what to do.
Exceptions of user functions are chained (`raise ... from`), never swallowed.

    StreamsError
      ConfigError              a wrong option, found before anything starts
        ExtraMissingError      what is asked for needs an extra that is not installed; also an ImportError
      TopologyError            a topology that cannot run: unknown node, no serde, inputs that are not co-partitioned
      SerializationError       bytes that cannot be decoded, or a value that cannot be encoded
        RecordTooLargeError    a result is larger than max_request_size
      ProcessingError          a user function raised
      StateStoreError          a store cannot be opened, read or restored
        LockError              another process holds the state directory
      KafkaError               the broker refused a request
        ConnectionFailedError  no broker answered; the request may or may not have been carried out
        TlsError               no encrypted connection came about: a certificate, or a listener that speaks otherwise
        UnsupportedBrokerError the broker is too old for what the application asks
      SchemaRegistryError      a schema registry refused a request
        SchemaRegistryUnavailableError  it does not answer; also a ConnectionFailedError: the work is redone
      InvalidStateStoreError   a store cannot be asked
        UnknownStateStoreError there is no such store
        InvalidStateStorePartitionError  another worker has it; says which
        StreamsStoppedError    the application has ended
        StateStoreNotAvailableError      not now: try again
          StreamsRebalancingError        tasks change hands
          StateStoreMigratedError        the task went to another worker while it was asked
          StreamsNotStartedError         the application does not run yet
      TaskMigratedError        another member owns the task now; the work since the last commit is redone there
"""

from __future__ import annotations

from enum import IntEnum


class StreamsError(Exception):
    """The root of every error streamlib raises on purpose."""


class ConfigError(StreamsError):
    """An option is unknown, malformed, or contradicts another one."""


class ExtraMissingError(ConfigError, ImportError):
    """What is asked for needs packages that an extra brings along.

    >>> str(ExtraMissingError("streamlib.monitoring.prometheus", "prometheus"))
    "streamlib.monitoring.prometheus needs an extra: pip install 'streamlib[prometheus]'"
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an extra: pip install 'streamlib[{extra}]'")


class TopologyError(StreamsError):
    """The topology cannot be built or cannot run on these topics."""


class LifespanError(StreamsError):
    """What the topology's functions need could not be opened (`StreamsBuilder.add_lifespan`); its cause says why.

    >>> str(LifespanError("database", ConnectionRefusedError(111, "Connection refused")))
    'lifespan database could not be opened: ConnectionRefusedError: [Errno 111] Connection refused'
    """

    def __init__(self, name: str, error: Exception) -> None:
        super().__init__(f"lifespan {name} could not be opened: {type(error).__name__}: {error}")


class InvalidStateStoreError(StreamsError):
    """A store cannot be asked, or not like this. The kinds tell whether it helps to ask again, or elsewhere."""


class UnknownStateStoreError(InvalidStateStoreError):
    """The topology has no store of this name."""


class InvalidStateStorePartitionError(InvalidStateStoreError):
    """This worker does not have the partition that was asked for, and nothing says that it soon will.

    `owner` is the endpoint (`HOST:PORT`) of the worker that has it; None if that is not known.
    """

    def __init__(self, message: str, *, owner: str | None = None) -> None:
        super().__init__(message)
        self.owner = owner


class StreamsStoppedError(InvalidStateStoreError):
    """The application has ended; another worker may have the store."""


class StateStoreNotAvailableError(InvalidStateStoreError):
    """A store cannot be asked right now: it is being restored, say. Ask again after a moment."""


class StreamsRebalancingError(StateStoreNotAvailableError):
    """Tasks are changing hands, and nobody may answer for this one yet."""


class StateStoreMigratedError(StateStoreNotAvailableError):
    """The task went away while its store was asked: to another worker, or back to its last commit."""


class StreamsNotStartedError(StateStoreNotAvailableError):
    """The application has to be started before this can be asked."""


class TaskMigratedError(StreamsError):
    """This member lost the task; what it did since the last commit is dropped here and redone by the new owner."""


class StateStoreError(StreamsError):
    """A state store cannot be opened, read, written or restored."""


class LockError(StateStoreError):
    """Another process holds the lock of a state directory."""


class SerializationError(StreamsError):
    """Bytes could not be decoded, or a value could not be encoded.

    Attributes hold what is known of the place; a value that was never in a topic has no offset.
    """

    def __init__(
        self,
        message: str,
        *,
        topic: str | None = None,
        partition: int | None = None,
        offset: int | None = None,
        node: str | None = None,
    ) -> None:
        super().__init__(message)
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.node = node


class RecordTooLargeError(SerializationError):
    """A result is larger than `max_request_size`, and its sink's policy has asked for that to be looked at."""


class ProcessingError(StreamsError):
    """A user function raised; the cause is chained, the transaction is aborted."""

    def __init__(
        self,
        message: str,
        *,
        node: str,
        topic: str | None = None,
        partition: int | None = None,
        offset: int | None = None,
    ) -> None:
        super().__init__(message)
        self.node = node
        self.topic = topic
        self.partition = partition
        self.offset = offset


class KafkaError(StreamsError):
    """The broker answered a request with an error code (`code`), or the answer made no sense.

    `api` is the request's name in the protocol, `where` the topic-partition, group or transactional id it was about.
    """

    def __init__(self, code: int, api: str, where: str = "", detail: str | None = None) -> None:
        self.code = code
        self.api = api
        self.where = where
        name = _NAMES.get(code, f"error code {code}")
        super().__init__(": ".join(part for part in (f"{api} of {where}" if where else api, name, detail) if part))


class ConnectionFailedError(KafkaError):
    """No usable answer came back. The broker may or may not have carried the request out."""

    def __init__(self, api: str, where: str = "", detail: str | None = None) -> None:
        super().__init__(ErrorCode.NETWORK_EXCEPTION, api, where, detail)


class TlsError(KafkaError):
    """No encrypted connection came about: a certificate is not accepted, or the listener speaks something else.

    Decided on like refused credentials (SASL_AUTHENTICATION_FAILED), as Kafka's clients do: TLS has no code of its own.
    """

    def __init__(self, where: str, detail: str) -> None:
        super().__init__(ErrorCode.SASL_AUTHENTICATION_FAILED, "Connect", where, detail)
        self.args = (f"Connect to {where}: {detail}",)


class UnsupportedBrokerError(KafkaError):
    """The broker does not offer a request version that is needed; says which broker release does."""

    def __init__(self, api: str, detail: str) -> None:
        super().__init__(ErrorCode.UNSUPPORTED_VERSION, api, "", detail)


class SchemaRegistryError(StreamsError):
    """A schema registry refused what was asked: no right to, no such subject, an incompatible schema."""


class SchemaRegistryUnavailableError(SchemaRegistryError, ConnectionFailedError):
    """A schema registry gave no usable answer in time. The work since the last commit is done again."""


def registry_failure(error: BaseException) -> SchemaRegistryError | None:
    """The failure of a schema registry that led to an error; None if none did. No record is to blame for one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, SchemaRegistryError):
            return seen
        seen = seen.__cause__
    return None


class ErrorCode(IntEnum):
    """Error codes of the Kafka protocol that streamlib decides on (org.apache.kafka.common.protocol.Errors)."""

    UNKNOWN_SERVER_ERROR = -1
    NONE = 0
    OFFSET_OUT_OF_RANGE = 1
    CORRUPT_MESSAGE = 2
    UNKNOWN_TOPIC_OR_PARTITION = 3
    LEADER_NOT_AVAILABLE = 5
    NOT_LEADER_OR_FOLLOWER = 6
    REQUEST_TIMED_OUT = 7
    BROKER_NOT_AVAILABLE = 8
    REPLICA_NOT_AVAILABLE = 9
    MESSAGE_TOO_LARGE = 10
    OFFSET_METADATA_TOO_LARGE = 12
    NETWORK_EXCEPTION = 13
    COORDINATOR_LOAD_IN_PROGRESS = 14
    COORDINATOR_NOT_AVAILABLE = 15
    NOT_COORDINATOR = 16
    INVALID_TOPIC_EXCEPTION = 17
    RECORD_LIST_TOO_LARGE = 18
    NOT_ENOUGH_REPLICAS = 19
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20
    ILLEGAL_GENERATION = 22
    INCONSISTENT_GROUP_PROTOCOL = 23
    INVALID_GROUP_ID = 24
    UNKNOWN_MEMBER_ID = 25
    INVALID_SESSION_TIMEOUT = 26
    REBALANCE_IN_PROGRESS = 27
    INVALID_COMMIT_OFFSET_SIZE = 28
    TOPIC_AUTHORIZATION_FAILED = 29
    GROUP_AUTHORIZATION_FAILED = 30
    CLUSTER_AUTHORIZATION_FAILED = 31
    INVALID_TIMESTAMP = 32
    UNSUPPORTED_SASL_MECHANISM = 33
    ILLEGAL_SASL_STATE = 34
    UNSUPPORTED_VERSION = 35
    TOPIC_ALREADY_EXISTS = 36
    INVALID_PARTITIONS = 37
    INVALID_REPLICATION_FACTOR = 38
    INVALID_CONFIG = 40
    NOT_CONTROLLER = 41
    INVALID_REQUEST = 42
    POLICY_VIOLATION = 44
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45
    DUPLICATE_SEQUENCE_NUMBER = 46
    INVALID_PRODUCER_EPOCH = 47
    INVALID_TXN_STATE = 48
    INVALID_PRODUCER_ID_MAPPING = 49
    INVALID_TRANSACTION_TIMEOUT = 50
    CONCURRENT_TRANSACTIONS = 51
    TRANSACTION_COORDINATOR_FENCED = 52
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53
    OPERATION_NOT_ATTEMPTED = 55
    KAFKA_STORAGE_ERROR = 56
    SASL_AUTHENTICATION_FAILED = 58
    UNKNOWN_PRODUCER_ID = 59
    GROUP_ID_NOT_FOUND = 69
    FENCED_LEADER_EPOCH = 74
    UNKNOWN_LEADER_EPOCH = 75
    UNSUPPORTED_COMPRESSION_TYPE = 76
    OFFSET_NOT_AVAILABLE = 78
    MEMBER_ID_REQUIRED = 79
    GROUP_MAX_SIZE_REACHED = 81
    FENCED_INSTANCE_ID = 82
    INVALID_RECORD = 87
    UNSTABLE_OFFSET_COMMIT = 88
    THROTTLING_QUOTA_EXCEEDED = 89
    PRODUCER_FENCED = 90
    UNKNOWN_TOPIC_ID = 100
    INCONSISTENT_TOPIC_ID = 103
    TRANSACTIONAL_ID_NOT_FOUND = 105
    FENCED_MEMBER_EPOCH = 110
    UNRELEASED_INSTANCE_ID = 111
    STALE_MEMBER_EPOCH = 113
    TRANSACTION_ABORTABLE = 120
    STREAMS_INVALID_TOPOLOGY = 130
    STREAMS_INVALID_TOPOLOGY_EPOCH = 131
    STREAMS_TOPOLOGY_FENCED = 132


_NAMES: dict[int, str] = {code.value: code.name for code in ErrorCode}
