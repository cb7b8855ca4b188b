"""Exactly-once stream processing for Kafka in async Python.

Define a topology with `StreamsBuilder`, run it with `KafkaStreams` or `streamlib run`, test it without a broker with
`streamlib.testing.TopologyTestDriver`.
"""

from typing import TYPE_CHECKING, Any

from streamlib.config import StreamsConfig
from streamlib.dsl.aggregators import Aggregation, Collect, Earliest, Latest, Max, Mean, Min, Sum
from streamlib.dsl.builder import StreamsBuilder
from streamlib.dsl.cogroup import CogroupedKStream, SessionWindowedCogroupedKStream, TimeWindowedCogroupedKStream
from streamlib.dsl.global_table import GlobalKTable
from streamlib.dsl.grouped import KGroupedStream
from streamlib.dsl.kstream import BranchedKStream, KStream
from streamlib.dsl.ktable import KTable
from streamlib.dsl.materialized import Materialized
from streamlib.dsl.processor import (
    Cancellable,
    FixedKeyProcessor,
    FixedKeyProcessorContext,
    Processor,
    ProcessorContext,
    PunctuationType,
)
from streamlib.dsl.session_windowed import SessionWindowedKStream
from streamlib.dsl.stores import Stores
from streamlib.dsl.suppressed import BufferConfig, Suppressed
from streamlib.dsl.table_grouped import KGroupedTable
from streamlib.dsl.transformer import ValueTransformer
from streamlib.dsl.windowed import EmitStrategy, TimeWindowedKStream
from streamlib.engine.calls import record_metadata
from streamlib.errors import (
    ConfigError,
    ExtraMissingError,
    KafkaError,
    LockError,
    ProcessingError,
    RecordTooLargeError,
    SchemaRegistryError,
    SchemaRegistryUnavailableError,
    SerializationError,
    StateStoreError,
    StreamsError,
    StreamsNotStartedError,
    TaskMigratedError,
    TopologyError,
)
from streamlib.metrics import Health, HealthStatus, Metrics
from streamlib.policies import DeadLetter, Fail, FailedRecord, Retry, RetryTopics, Skip
from streamlib.records import FixedKeyRecord, Record, RecordMetadata, TopicPartition
from streamlib.restore_listener import RestoreListener
from streamlib.row_versions import upgrades
from streamlib.security import OAuthToken, Secret
from streamlib.serdes import Serde, Serdes
from streamlib.state.versioned import VersionedRecord
from streamlib.topology.services import CircuitBreaker, RateLimit, Service
from streamlib.topology.timestamps import (
    FailOnInvalidTimestamp,
    LogAndSkipOnInvalidTimestamp,
    UsePartitionTimeOnInvalidTimestamp,
    WallclockTimestampExtractor,
)
from streamlib.topology.topology import Topology
from streamlib.windows import (
    JoinWindows,
    LateRecord,
    SessionWindows,
    SlidingWindows,
    TimeWindows,
    UnlimitedWindows,
    Window,
    Windowed,
    session_windowed,
    time_windowed,
)

if TYPE_CHECKING:
    from streamlib.app import KafkaStreams, State

    __version__: str

__all__ = [
    "Aggregation",
    "BranchedKStream",
    "BufferConfig",
    "Cancellable",
    "CircuitBreaker",
    "CogroupedKStream",
    "Collect",
    "ConfigError",
    "DeadLetter",
    "Earliest",
    "EmitStrategy",
    "ExtraMissingError",
    "Fail",
    "FailOnInvalidTimestamp",
    "FailedRecord",
    "FixedKeyProcessor",
    "FixedKeyProcessorContext",
    "FixedKeyRecord",
    "GlobalKTable",
    "Health",
    "HealthStatus",
    "JoinWindows",
    "KGroupedStream",
    "KGroupedTable",
    "KStream",
    "KTable",
    "KafkaError",
    "KafkaStreams",
    "LateRecord",
    "Latest",
    "LockError",
    "LogAndSkipOnInvalidTimestamp",
    "Materialized",
    "Max",
    "Mean",
    "Metrics",
    "Min",
    "OAuthToken",
    "ProcessingError",
    "Processor",
    "ProcessorContext",
    "PunctuationType",
    "RateLimit",
    "Record",
    "RecordMetadata",
    "RecordTooLargeError",
    "RestoreListener",
    "Retry",
    "RetryTopics",
    "SchemaRegistryError",
    "SchemaRegistryUnavailableError",
    "Secret",
    "Serde",
    "Serdes",
    "SerializationError",
    "Service",
    "SessionWindowedCogroupedKStream",
    "SessionWindowedKStream",
    "SessionWindows",
    "Skip",
    "SlidingWindows",
    "State",
    "StateStoreError",
    "Stores",
    "StreamsBuilder",
    "StreamsConfig",
    "StreamsError",
    "StreamsNotStartedError",
    "Sum",
    "Suppressed",
    "TaskMigratedError",
    "TimeWindowedCogroupedKStream",
    "TimeWindowedKStream",
    "TimeWindows",
    "TopicPartition",
    "Topology",
    "TopologyError",
    "UnlimitedWindows",
    "UsePartitionTimeOnInvalidTimestamp",
    "ValueTransformer",
    "VersionedRecord",
    "WallclockTimestampExtractor",
    "Window",
    "Windowed",
    "record_metadata",
    "session_windowed",
    "time_windowed",
    "upgrades",
]


def __getattr__(name: str) -> Any:
    """What runs a topology is imported when it is asked for, with the client: to define one, neither is needed."""
    if name in ("KafkaStreams", "State"):
        from streamlib import app

        return getattr(app, name)
    if name == "__version__":
        from importlib.metadata import version

        return version("streamlib")
    raise AttributeError(f"module 'streamlib' has no attribute {name!r}")
