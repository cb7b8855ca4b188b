"""What a topology is made of: sources, processors, sinks and stores, as plain values.

A processor holds an *operator* (`operators.py`): what it does, as data. The engine compiles operators into closures;
nothing here runs anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import msgspec

from streamlib.policies import PolicyOption
from streamlib.serdes import Serde
from streamlib.topology.operators import Operator
from streamlib.topology.timestamps import ReadyExtractor

OffsetReset: TypeAlias = Literal["earliest", "latest"]

TopicChooser: TypeAlias = Callable[[Any, Any, Any], str]
"""Chooses a sink's topic per record: f(key, value, record context) -> topic name."""

Partitioner: TypeAlias = Callable[[str, Any, Any, int], int]
"""Chooses a partition: f(topic, key, value, partition count) -> partition."""

TimestampExtractor: TypeAlias = Callable[[Any, int], int] | ReadyExtractor
"""Chooses a record's time: f(ConsumedRecord, partition time in ms) -> ms; negative drops the record. Or a ready one."""


class SourceNode(msgspec.Struct, frozen=True, kw_only=True):
    """Reads topics. `topics` are names as written by the user; internal ones get the application's prefix later.

    `pattern`: a regular expression; the topics are those whose whole name it matches, and `topics` is empty.
    `is_global`: every worker reads all partitions of it, into a store that all its tasks may read.
    `on_deserialization_error`: what becomes of a record that cannot be decoded, if not what the configuration says.
    """

    name: str
    topics: tuple[str, ...]
    key: Serde[Any]
    value: Serde[Any]
    pattern: str | None = None
    is_global: bool = False
    timestamp_extractor: TimestampExtractor | None = None
    offset_reset: OffsetReset | None = None
    on_deserialization_error: PolicyOption | None = None


class ProcessorNode(msgspec.Struct, frozen=True, kw_only=True):
    """Does something to each record its parents forward. `stores` are the names of the stores it may use.

    `sends_old_values`: it makes a table whose changes carry the value from before, because something downstream asks.
    `on_error`: what becomes of a record at which its function raises, if not what the configuration says.
    """

    name: str
    operator: Operator
    parents: tuple[str, ...]
    stores: tuple[str, ...] = ()
    sends_old_values: bool = False
    on_error: PolicyOption | None = None


class SinkNode(msgspec.Struct, frozen=True, kw_only=True):
    """Writes to a topic, fixed or chosen per record.

    `on_error`: what becomes of a record that cannot be written, if not what the configuration says.
    """

    name: str
    topic: str | TopicChooser
    key: Serde[Any]
    value: Serde[Any]
    parents: tuple[str, ...]
    partitioner: Partitioner | None = None
    on_error: PolicyOption | None = None


Node: TypeAlias = SourceNode | ProcessorNode | SinkNode

StoreKind: TypeAlias = Literal[
    "key_value",
    "timestamped_key_value",
    "window",
    "timestamped_window",
    "session",
    "versioned",
    "buffer",
]

WINDOW_CHANGELOG_EXTRA_RETENTION_MS = 24 * 60 * 60 * 1000
"""Kafka Streams' `windowstore.changelog.additional.retention.ms`: a broker's clock and stream time may differ."""


class StoreSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A state store, by name.

    `changelog=False` means its content is not kept in Kafka and is lost with the disk. `cached`: it is a table's, and
    of several changes of a row between two commits only the last has to go on to the nodes below.
    """

    name: str
    kind: StoreKind
    key: Serde[Any]
    value: Serde[Any]
    persistent: bool = True
    changelog: bool = True
    changelog_config: dict[str, str] = {}
    cached: bool = False

    @property
    def changelog_topic(self) -> str:
        """The changelog's name without the application's prefix."""
        return f"{self.name}-changelog"

    @property
    def topic_config(self) -> dict[str, str]:
        """The changelog topic's settings: those of its kind, then the user's."""
        return {"cleanup.policy": "compact", **self.changelog_config}


class RetainedStoreSpec(StoreSpec, frozen=True, kw_only=True):
    """A store that forgets: rows older than `retention_ms` behind the newest are not seen any more.

    `time_ordered`: rows can be read by time alone, which emitting on close needs.
    """

    retention_ms: int
    time_ordered: bool = False

    @property
    def topic_config(self) -> dict[str, str]:
        """The broker drops what the store has forgotten, a day later."""
        retention_ms = min(self.retention_ms + WINDOW_CHANGELOG_EXTRA_RETENTION_MS, (1 << 63) - 1)
        return {"cleanup.policy": "compact,delete", "retention.ms": str(retention_ms), **self.changelog_config}


class WindowStoreSpec(RetainedStoreSpec, frozen=True, kw_only=True):
    """Rows by key and window start. `retain_duplicates`: several rows for one key and start, in the order of puts."""

    window_size_ms: int
    retain_duplicates: bool = False


class SessionStoreSpec(RetainedStoreSpec, frozen=True, kw_only=True):
    """Rows by key, session start and session end."""

    kind: StoreKind = "session"


class VersionedStoreSpec(StoreSpec, frozen=True, kw_only=True):
    """Rows by key with what they were before, for `history_retention_ms` behind the newest of all."""

    kind: StoreKind = "versioned"
    history_retention_ms: int

    @property
    def topic_config(self) -> dict[str, str]:
        """The broker keeps all versions of a key while they can be asked for, and a day longer.

        Source: `VersionedChangelogTopicConfig`.
        """
        lag_ms = min(self.history_retention_ms + WINDOW_CHANGELOG_EXTRA_RETENTION_MS, (1 << 63) - 1)
        return {"cleanup.policy": "compact", "min.compaction.lag.ms": str(lag_ms), **self.changelog_config}


class TtlStoreSpec(StoreSpec, frozen=True, kw_only=True):
    """A key-value store whose rows expire when stream time is `ttl_ms` past their own times."""

    ttl_ms: int


class LruStoreSpec(StoreSpec, frozen=True, kw_only=True):
    """A key-value store in memory that keeps the `max_entries` rows that were read or written last."""

    max_entries: int


class BufferStoreSpec(StoreSpec, frozen=True, kw_only=True):
    """Records that wait for their time. `retain_duplicates`: several for one key, in the order they came."""

    kind: StoreKind = "buffer"
    retain_duplicates: bool = False


class RepartitionTopic(msgspec.Struct, frozen=True, kw_only=True):
    """An internal topic that carries records to the task that owns their new key.

    `partitions=None`: as many as the largest topic that feeds it.
    """

    name: str
    partitions: int | None = None
