"""Exactly-once stream processing for Kafka in async Python.

Define a topology with `StreamsBuilder`, run it with `KafkaStreams` or `streamlib run`, test it without a broker with
`streamlib.testing.TopologyTestDriver`.
"""

import importlib
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
    InvalidStateStoreError,
    InvalidStateStorePartitionError,
    KafkaError,
    LifespanError,
    LockError,
    ProcessingError,
    RecordTooLargeError,
    SchemaRegistryError,
    SchemaRegistryUnavailableError,
    SerializationError,
    StateStoreError,
    StateStoreMigratedError,
    StateStoreNotAvailableError,
    StreamsError,
    StreamsNotStartedError,
    StreamsRebalancingError,
    StreamsStoppedError,
    TaskMigratedError,
    TopologyError,
    UnknownStateStoreError,
)
from streamlib.metrics import Health, HealthStatus, Metrics
from streamlib.policies import DeadLetter, Fail, FailedRecord, Retry, RetryTopics, Skip
from streamlib.records import FixedKeyRecord, HostInfo, Record, RecordMetadata, TopicPartition
from streamlib.restore_listener import RestoreListener
from streamlib.row_versions import upgrades
from streamlib.security import OAuthToken, Secret
from streamlib.serdes import Serde, Serdes
from streamlib.state.codec import ValueAndTimestamp
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
    from streamlib.queries.metadata import KeyQueryMetadata, StreamsMetadata
    from streamlib.queries.views import (
        ReadOnlyKeyValueStore,
        ReadOnlySessionStore,
        ReadOnlyVersionedStore,
        ReadOnlyWindowStore,
    )
    from streamlib.runtime.local_stores import LagInfo

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
    "HostInfo",
    "InvalidStateStoreError",
    "InvalidStateStorePartitionError",
    "JoinWindows",
    "KGroupedStream",
    "KGroupedTable",
    "KStream",
    "KTable",
    "KafkaError",
    "KafkaStreams",
    "KeyQueryMetadata",
    "LagInfo",
    "LateRecord",
    "Latest",
    "LifespanError",
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
    "ReadOnlyKeyValueStore",
    "ReadOnlySessionStore",
    "ReadOnlyVersionedStore",
    "ReadOnlyWindowStore",
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
    "StateStoreMigratedError",
    "StateStoreNotAvailableError",
    "Stores",
    "StreamsBuilder",
    "StreamsConfig",
    "StreamsError",
    "StreamsMetadata",
    "StreamsNotStartedError",
    "StreamsRebalancingError",
    "StreamsStoppedError",
    "Sum",
    "Suppressed",
    "TaskMigratedError",
    "TimeWindowedCogroupedKStream",
    "TimeWindowedKStream",
    "TimeWindows",
    "TopicPartition",
    "Topology",
    "TopologyError",
    "UnknownStateStoreError",
    "UnlimitedWindows",
    "UsePartitionTimeOnInvalidTimestamp",
    "ValueAndTimestamp",
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


_OF_RUNNING = {
    "KafkaStreams": "app",
    "KeyQueryMetadata": "queries.metadata",
    "LagInfo": "runtime.local_stores",
    "ReadOnlyKeyValueStore": "queries.views",
    "ReadOnlySessionStore": "queries.views",
    "ReadOnlyVersionedStore": "queries.views",
    "ReadOnlyWindowStore": "queries.views",
    "State": "app",
    "StreamsMetadata": "queries.metadata",
}


def __getattr__(name: str) -> Any:
    """What runs a topology is imported when it is asked for, with the client: to define one, neither is needed."""
    if name in _OF_RUNNING:
        return getattr(importlib.import_module(f"streamlib.{_OF_RUNNING[name]}"), name)
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("streamlib")
    raise AttributeError(f"module 'streamlib' has no attribute {name!r}")
