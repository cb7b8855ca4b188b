"""The values that travel through every layer: partitions, records, batches, offsets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import msgspec

K = TypeVar("K")
V = TypeVar("V")

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]
"""Record headers in order; names may repeat. Treat as read-only: one value is shared by all nodes a record visits."""

OutRecord: TypeAlias = tuple[bytes | None, bytes | None, int, Headers]
"""An encoded record on its way out: key, value, timestamp in ms, headers."""


class TopicPartition(NamedTuple):
    """One partition of one topic, by the topic's full name."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"

    def at(self, offset: int) -> str:
        """One record's place, in words.

        >>> TopicPartition("orders", 3).at(42)
        'topic orders, partition 3, offset 42'
        """
        return f"topic {self.topic}, partition {self.partition}, offset {offset}"


class TaskId(NamedTuple):
    """Subtopology and partition; prints as Kafka Streams writes it, `0_3`."""

    subtopology: int
    partition: int

    def __str__(self) -> str:
        return f"{self.subtopology}_{self.partition}"


class HostInfo(NamedTuple):
    """Where a worker's HTTP server is: what its `application_server` says.

    >>> HostInfo.parse("orders-0.internal:8080")
    HostInfo(host='orders-0.internal', port=8080)
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> HostInfo:
        """`HOST:PORT`; a host of IPv6 is in brackets.

        Raises:
            ValueError: it is not that.
        """
        found = re.fullmatch(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})", text.strip())
        if found is None or not 0 < int(found[2]) <= 65_535:
            raise ValueError(f"{text!r} is not HOST:PORT, such as 10.1.2.3:8080")
        return cls(found[1].strip("[]"), int(found[2]))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class OffsetAndMetadata(NamedTuple):
    """An offset to commit: the next record to process, and text that comes back with it (the task's stream time)."""

    offset: int
    metadata: str = ""


class GroupMetadata(NamedTuple):
    """Who commits offsets; the coordinator refuses an old generation (KIP-447)."""

    group_id: str
    generation: int
    member_id: str
    instance_id: str | None


class FetchedRecord(Protocol):
    """A record as it comes out of a record batch; still bytes."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


class FetchedBatch(Protocol):
    """Some consecutive records of one partition, decompressed only when `records()` is called.

    A batch may have no record at all: control markers and aborted data still move the position to `next_offset`.
    """

    @property
    def partition(self) -> TopicPartition: ...
    @property
    def next_offset(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    def records(self) -> Iterable[FetchedRecord]: ...


class Record(msgspec.Struct, Generic[K, V], frozen=True):
    """A record as user code sees it in `process`: key, value, timestamp in ms since the epoch, headers.

    >>> Record("ann", 3, 1000).with_value(4)
    Record(key='ann', value=4, timestamp=1000, headers=())
    """

    key: K
    value: V
    timestamp: int
    headers: Headers = ()

    def with_key(self, key: Any) -> Record[Any, V]:
        """The same record under another key."""
        return Record(key, self.value, self.timestamp, self.headers)

    def with_value(self, value: Any) -> Record[K, Any]:
        """The same record with another value."""
        return Record(self.key, value, self.timestamp, self.headers)

    def with_timestamp(self, timestamp: int) -> Record[K, V]:
        """The same record at another time, in ms."""
        return Record(self.key, self.value, timestamp, self.headers)

    def with_headers(self, headers: Headers) -> Record[K, V]:
        """The same record with other headers."""
        return Record(self.key, self.value, self.timestamp, headers)


class FixedKeyRecord(msgspec.Struct, Generic[K, V], frozen=True):
    """A record as user code sees it in `process_values`: as `Record`, but the key stays as it is.

    >>> FixedKeyRecord("ann", 3, 1000).with_value(4)
    FixedKeyRecord(key='ann', value=4, timestamp=1000, headers=())
    """

    key: K
    value: V
    timestamp: int
    headers: Headers = ()

    def with_value(self, value: Any) -> FixedKeyRecord[K, Any]:
        """The same record with another value."""
        return FixedKeyRecord(self.key, value, self.timestamp, self.headers)

    def with_timestamp(self, timestamp: int) -> FixedKeyRecord[K, V]:
        """The same record at another time, in ms."""
        return FixedKeyRecord(self.key, self.value, timestamp, self.headers)

    def with_headers(self, headers: Headers) -> FixedKeyRecord[K, V]:
        """The same record with other headers."""
        return FixedKeyRecord(self.key, self.value, self.timestamp, headers)


class RecordMetadata(NamedTuple):
    """Where the record that is being processed came from.

    Attributes:
        topic: that it was read from, an internal one behind a repartition.
        partition: of the topic.
        offset: in the partition.
        derived: which of the results of `flat_map` and `flat_map_values` it is: one number for each of those above that
            it has come through since it was read. Empty if there was none.

    >>> RecordMetadata("orders", 3, 42).offset
    42
    """

    topic: str
    partition: int
    offset: int
    derived: tuple[int, ...] = ()

    @property
    def id(self) -> str:
        """The same whenever the record is processed, again after a crash too, and no other record's.

        `topic-partition-offset`, with `-index` for each `flat_map` it came through. What `merge` or two branches make
        of one record has the same id twice, and so has what stores, windows and joins lead to: see "The outside world"
        in the documentation.

        >>> RecordMetadata("orders", 3, 42).id
        'orders-3-42'
        >>> RecordMetadata("orders", 3, 42, (0, 7)).id
        'orders-3-42-0-7'
        """
        return "-".join((self.topic, *map(str, (self.partition, self.offset, *self.derived))))
