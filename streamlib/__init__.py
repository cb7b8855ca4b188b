"""Exactly-once stream processing for Kafka in async Python.

Define a topology with `StreamsBuilder`, run it with `KafkaStreams` or `streamlib run`, test it without a broker with
`streamlib.testing.TopologyTestDriver`.
"""

from streamlib.app import KafkaStreams, State
from streamlib.config import StreamsConfig
from streamlib.dsl.builder import StreamsBuilder
from streamlib.dsl.grouped import KGroupedStream
from streamlib.dsl.kstream import BranchedKStream, KStream
from streamlib.dsl.ktable import KTable
from streamlib.dsl.materialized import Materialized
from streamlib.dsl.processor import Processor, ProcessorContext
from streamlib.dsl.stores import Stores
from streamlib.errors import (
    ConfigError,
    KafkaError,
    LockError,
    ProcessingError,
    SerializationError,
    StateStoreError,
    StreamsError,
    StreamsNotStartedError,
    TaskMigratedError,
    TopologyError,
)
from streamlib.records import Record, RecordMetadata
from streamlib.serdes import Serde, Serdes
from streamlib.topology.topology import Topology

__all__ = [
    "BranchedKStream",
    "ConfigError",
    "KGroupedStream",
    "KStream",
    "KTable",
    "KafkaError",
    "KafkaStreams",
    "LockError",
    "Materialized",
    "ProcessingError",
    "Processor",
    "ProcessorContext",
    "Record",
    "RecordMetadata",
    "Serde",
    "Serdes",
    "SerializationError",
    "State",
    "StateStoreError",
    "Stores",
    "StreamsBuilder",
    "StreamsConfig",
    "StreamsError",
    "StreamsNotStartedError",
    "TaskMigratedError",
    "Topology",
    "TopologyError",
]
