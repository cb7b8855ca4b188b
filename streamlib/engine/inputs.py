"""One input partition of a task: what is buffered, how far it is processed, and its partition time.

    enqueue --> batches --> records of the current batch --> head --> node
                            ^ position: the next record not processed

The position moves past a record when it is done, past dropped ones too, and past batches without records (control
markers, aborted data). A record that fails stays in front of it. It also moves past records whose calls are awaited:
those are `unfinished`, and the lowest of them is the offset to commit.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from struct import Struct
from struct import error as StructError
from typing import Any, NamedTuple, Protocol, TypeAlias

from streamlib.engine.cursor import NO_TIME, Cursor
from streamlib.engine.progress import Progress, decode_progress, encode_progress
from streamlib.errors import ProcessingError, SchemaRegistryError, SerializationError, TopologyError
from streamlib.records import FetchedBatch, FetchedRecord, Headers, OffsetAndMetadata, TopicPartition
from streamlib.serdes import Serde

NodeFn: TypeAlias = Callable[[Any, Any, int, Headers], None]
"""A compiled node: f(key, value, timestamp, headers). Tables pass `(new value, old value)` as the value."""

SkipUndecodable: TypeAlias = Callable[[TopicPartition, FetchedRecord, SerializationError], None]
"""Told of a record that cannot be decoded and is skipped."""


class Slice(Protocol):
    """How long a task may go on."""

    @property
    def left(self) -> int:
        """After so many records `passed` has to be asked."""
        ...

    @property
    def over(self) -> bool:
        """Whether it was over when that was asked last."""
        ...

    def passed(self, records: int) -> bool:
        """So many more records are processed; returns whether the slice is over by now."""
        ...


class Endless:
    """A slice that is never over."""

    left = 1 << 30
    over = False

    def passed(self, records: int) -> bool:
        """Never."""
        return False


ENDLESS = Endless()

_TIME = Struct(">bq")  # version, partition time
_LENGTH = Struct(">i")
_MS = Struct(">q")
PREFETCHED_RECORDS = 1_000
MAX_METADATA_BYTES = 4096
"""The brokers' default of `offset.metadata.max.bytes`."""


class ConsumedRecord(NamedTuple):
    """A record as a timestamp extractor sees it: decoded, with its place in the topic."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: Any
    value: Any
    headers: Headers


class CompiledSource(NamedTuple):
    """Where a partition's records go, and how their bytes become values. What cannot become one is skipped with the
    knowledge of `skip`; it is an error if that is None. `prefetch` is told the keys of records that come next."""

    node: str
    forward: NodeFn
    key: Serde[Any]
    value: Serde[Any]
    timestamp_extractor: Callable[[Any, int], int] | None
    skip: SkipUndecodable | None = None
    prefetch: Sequence[Callable[[Sequence[bytes]], None]] = ()


class _Head(NamedTuple):
    """The next record of an input with a timestamp extractor, decoded to learn its time."""

    key: Any
    value: Any
    timestamp: int


class Input:
    """The buffer and position of one partition."""

    def __init__(self, partition: TopicPartition, source: CompiledSource, cursor: Cursor, start: OffsetAndMetadata):
        metadata = decode_metadata(start.metadata)
        self.partition = partition
        self.partition_time = metadata.partition_time
        self.fetched = start.offset  # where the next batch has to go on
        self.committed = start.offset  # the position that the last commit has, begun or done
        self.unfinished: Mapping[int, int] = {}  # offsets below the position, lowest first, with their calls
        self._committed_unfinished = 0
        self._before = _since(start.offset, metadata.progress)
        self.end_offset: int | None = None  # as last heard from the broker
        self.idle_deadline_ms: int | None = None
        self.buffered_bytes = 0
        self._position = start.offset
        self._source = source
        self._cursor = cursor
        self._waiting: deque[FetchedBatch] = deque()
        self._current: FetchedBatch | None = None
        self._records: list[FetchedRecord] = []
        self._index = 0  # of the head in `_records`
        self._prefetched = 0  # rows of the records before this one were
        self._head: _Head | None = None
        self._head_decoded = False  # whether the head is known to be decodable

    @property
    def position(self) -> int:
        """The offset of the next record not processed."""
        return self._position

    @property
    def caught_up(self) -> bool:
        """Whether all that the broker is known to have was fetched. Not before the broker was asked."""
        return self.end_offset is not None and self.fetched >= self.end_offset

    @property
    def moved(self) -> bool:
        """Whether records were finished, or only passed, since the last commit."""
        return self._position != self.committed or len(self.unfinished) != self._committed_unfinished

    @property
    def low_water(self) -> int:
        """The offset below which everything is done."""
        first = next(iter(self.unfinished), None)
        return self._position if first is None else first

    def offset_to_commit(self, stream_times: Mapping[str, int]) -> OffsetAndMetadata:
        """The low-water mark, and what else is known."""
        progress = self._progress()
        metadata = Metadata(self.partition_time, stream_times, progress)
        return OffsetAndMetadata(self.low_water if progress is None else progress.first, encode_metadata(metadata))

    def settle(self) -> None:
        """What is done by now is being committed: `moved` goes on from here."""
        self.committed, self._committed_unfinished = self._position, len(self.unfinished)

    def _progress(self) -> Progress | None:
        """Which records are done beyond the low-water mark, by this run of the task or one before it."""
        position, before = self._position, self._before
        if before is not None and position >= before.until:
            before = self._before = None
        if before is None and not self.unfinished:
            return None
        left = () if before is None else tuple(offset for offset in before.unfinished if offset >= position)
        unfinished = (*self.unfinished, *left)
        until = position if before is None else before.until
        return Progress(unfinished[0] if unfinished else position, until, unfinished)

    def enqueue(self, batch: FetchedBatch) -> None:
        """Append a batch; batches come in offset order."""
        assert batch.next_offset >= self.fetched, f"{self.partition}: {batch.next_offset} after {self.fetched}"
        self.fetched = batch.next_offset
        self.buffered_bytes += batch.size_bytes
        self._waiting.append(batch)
        if self._current is None:
            self._load()

    def head_timestamp(self) -> int | None:
        """The time of the next record, or None if there is none.

        Raises:
            SerializationError, ProcessingError: its time depends on its value, which cannot be had.
        """
        if self._source.timestamp_extractor is None:
            if self._source.skip is not None:
                self._skip_undecodable_heads()
            return self._records[self._index].timestamp if self._current is not None else None
        while self._current is not None and self._head is None:
            self._prepare_head()
        return None if self._head is None else self._head.timestamp

    def run(self, bound: int, limit: int, slice_: Slice) -> None:
        """Process up to `limit` records of the current batch, none later than `bound`, until the slice is over.

        Stops after a record that makes a punctuator due.
        """
        self._cursor.partition = self.partition
        if self._source.prefetch:
            if self._index >= self._prefetched:
                self._prefetch()
            limit = min(limit, self._prefetched - self._index)
        if self._source.timestamp_extractor is None:
            self._run_batch(bound, limit, slice_)
        else:
            self._run_head()
            slice_.passed(1)

    def _run_batch(self, bound: int, limit: int, slice_: Slice) -> None:
        """The hot loop."""
        cursor, source = self._cursor, self._source
        forward, decode_key, decode_value = source.forward, source.key.decode, source.value.decode
        partition_time = self.partition_time
        records, start = self._records, self._index
        index = told = start
        last = min(start + limit, len(records))
        try:
            while index < last:
                for record in records[index : min(index + slice_.left, last)]:
                    timestamp = record.timestamp
                    if timestamp > bound:
                        return
                    cursor.record = record
                    try:
                        key = record.key
                        if key is not None:
                            key = decode_key(key)
                        value = record.value
                        if value is not None:
                            value = decode_value(value)
                    except Exception as error:
                        self._skip(record, error)
                        index += 1
                        continue
                    if timestamp < 0:
                        raise self._invalid_timestamp(record)
                    if timestamp > partition_time:
                        partition_time = timestamp
                        if timestamp > cursor.stream_time:
                            cursor.stream_time = timestamp
                    forward(key, value, timestamp, record.headers)
                    index += 1
                    if cursor.stream_time >= cursor.punctuation_due_ms:
                        return
                if slice_.passed(index - told):
                    return
                told = index
        finally:
            self.partition_time = partition_time
            cursor.records_in += index - start
            slice_.passed(index - told)
            self._advance_to(index)

    def _prefetch(self) -> None:
        first, self._prefetched = self._index, self._index + PREFETCHED_RECORDS
        keys = [key for record in self._records[first : self._prefetched] if (key := record.key) is not None]
        for prefetch in self._source.prefetch:
            prefetch(keys)

    def _run_head(self) -> int:
        """One record, decoded when it became the head."""
        head = self._head
        assert head is not None, "run without a head"
        record = self._cursor.record = self._records[self._index]
        self.partition_time = max(self.partition_time, head.timestamp)
        self._cursor.stream_time = max(self._cursor.stream_time, head.timestamp)
        self._source.forward(head.key, head.value, head.timestamp, record.headers)
        self._cursor.records_in += 1
        self._advance_to(self._index + 1)
        return 1

    def _prepare_head(self) -> None:
        """Decode the next record and extract its time; a negative time drops it (`RecordQueue.updateHead`)."""
        record = self._records[self._index]
        self._cursor.partition, self._cursor.record = self.partition, record
        try:
            key, value = self._decoded(record)
        except Exception as error:
            self._skip(record, error)
            self._pass_head()
            return
        timestamp = self._extract(record, key, value)
        if timestamp >= 0:
            self._head = _Head(key, value, timestamp)
            return
        self._cursor.dropped += 1
        self._pass_head()

    def _skip_undecodable_heads(self) -> None:
        """The time of a record that will be skipped must not decide which input goes first."""
        while self._current is not None and not self._head_decoded:
            record = self._records[self._index]
            try:
                self._decoded(record)
                self._head_decoded = True
            except Exception as error:
                self._skip(record, error)
                self._pass_head()

    def _decoded(self, record: FetchedRecord) -> tuple[Any, Any]:
        key = None if record.key is None else self._source.key.decode(record.key)
        value = None if record.value is None else self._source.value.decode(record.value)
        return key, value

    def _skip(self, record: FetchedRecord, error: Exception) -> None:
        """Have a record skipped that cannot be decoded, if that is the policy.

        Raises:
            SerializationError: it is not.
            SchemaRegistryError: it could not be tried.
        """
        if isinstance(error, SchemaRegistryError):
            error.args = (f"{error} [reading {self.partition.at(record.offset)}]",)
            raise error
        failure = self._undecodable(record, error)
        failure.__cause__ = error
        if self._source.skip is None:
            raise failure
        self._source.skip(self.partition, record, failure)

    def _pass_head(self) -> None:
        self._cursor.records_in += 1
        self._advance_to(self._index + 1)

    def _extract(self, record: FetchedRecord, key: Any, value: Any) -> int:
        extractor = self._source.timestamp_extractor
        assert extractor is not None
        consumed = ConsumedRecord(*self.partition, record.offset, record.timestamp, key, value, record.headers)
        try:
            return extractor(consumed, self.partition_time)
        except SerializationError:
            raise  # a ready one's, which names the place
        except Exception as error:
            raise ProcessingError(
                f"source {self._source.node}: the timestamp extractor raised {error!r}",
                node=self._source.node,
            ) from error

    def _advance_to(self, index: int) -> None:
        """Everything before `index` in the current batch is done."""
        if index == self._index:
            return
        self._head = None
        self._head_decoded = False
        self._index = index
        if index < len(self._records):
            self._position = self._records[index].offset
            return
        self._finish_current()
        self._load()

    def _load(self) -> None:
        """Make the next batch with records the current one; pass those without."""
        while self._waiting:
            batch = self._current = self._waiting.popleft()
            self._records = list(batch.records())
            if self._records and self._records[0].offset < self._position:
                self._records = [record for record in self._records if record.offset >= self._position]
            if self._before is not None:
                self._records = _not_done(self._records, self._before)
            self._index = self._prefetched = 0
            if self._records:
                return
            self._finish_current()

    def _finish_current(self) -> None:
        batch = self._current
        assert batch is not None, "no batch to finish"
        assert batch.next_offset >= self._position, "a position never goes back"
        self._position = batch.next_offset
        self.buffered_bytes -= batch.size_bytes
        self._current = None
        self._records = []
        self._index = 0

    def _invalid_timestamp(self, record: FetchedRecord) -> SerializationError:
        return SerializationError(
            f"{self.partition.at(record.offset)}: the record has no valid timestamp ({record.timestamp}): "
            "write it with a producer that sets one, or give the source a timestamp_extractor",
            topic=self.partition.topic,
            partition=self.partition.partition,
            offset=record.offset,
            node=self._source.node,
        )

    def _undecodable(self, record: FetchedRecord, error: Exception) -> SerializationError:
        return SerializationError(
            f"{self.partition.at(record.offset)}: the record cannot be decoded: {error!s}; source "
            f"{self._source.node} reads keys as {self._source.key.name} and values as {self._source.value.name}: "
            "give the stream the types the topic holds",
            topic=self.partition.topic,
            partition=self.partition.partition,
            offset=record.offset,
            node=self._source.node,
        )


class Metadata(NamedTuple):
    """What is committed beside an offset: the partition's time, the stream times of the task's operators, and which
    records from the offset on are done already, if any are."""

    partition_time: int = NO_TIME
    stream_times: Mapping[str, int] = {}
    progress: Progress | None = None


def encode_metadata(metadata: Metadata) -> str:
    """As the text of a committed offset: Kafka Streams' `TopicPartitionMetadata`, version 1 if there is nothing but
    the partition time, else version 2, whose `ProcessorMetadata` holds the operators' times by node. Version 3, which
    Kafka Streams does not know, is version 2 and then the progress.

    Raises:
        TopologyError: it is more than brokers take (`offset.metadata.max.bytes`).

    >>> decode_metadata(encode_metadata(Metadata(1700000000000, {"count": 1600000000000}))).stream_times
    {'count': 1600000000000}
    """
    if not metadata.stream_times and metadata.progress is None:
        return b64encode(_TIME.pack(1, metadata.partition_time)).decode("ascii")
    version = 2 if metadata.progress is None else 3
    parts = [_TIME.pack(version, metadata.partition_time), _LENGTH.pack(len(metadata.stream_times))]
    for node, ms in metadata.stream_times.items():
        name = node.encode()
        parts += (_LENGTH.pack(len(name)), name, _MS.pack(ms))
    if metadata.progress is not None:
        parts.append(encode_progress(metadata.progress))
    text = b64encode(b"".join(parts)).decode("ascii")
    if len(text) > MAX_METADATA_BYTES:
        raise TopologyError(
            f"the stream times of {len(metadata.stream_times)} operators in one subtopology take {len(text)} bytes of "
            f"offset metadata, brokers take {MAX_METADATA_BYTES}: give windowed operators shorter names (name=), or "
            "put a repartition between them"
        )
    return text


def room_for_progress(nodes: Iterable[str]) -> int:
    """How many unfinished records fit into metadata beside the stream times of these operators.

    A gap takes three bytes at most, unless offsets jump by two million.
    """
    times = sum(_LENGTH.size + len(node.encode()) + _MS.size for node in nodes)
    return (MAX_METADATA_BYTES // 4 * 3 - _TIME.size - _LENGTH.size - 20 - times) // 3


def decode_metadata(text: str) -> Metadata:
    """Metadata out of the text of a committed offset; nothing known if it is not ours or Kafka Streams'."""
    try:
        raw = b64decode(text, validate=True)
        version, partition_time = _TIME.unpack_from(raw)
        if version == 1:
            return Metadata(partition_time)
        if version not in (2, 3):
            return Metadata()
        stream_times, end = _stream_times(raw)
        return Metadata(partition_time, stream_times, decode_progress(raw[end:]) if version == 3 else None)
    except (Base64Error, ValueError, StructError):
        return Metadata()


def _stream_times(raw: bytes) -> tuple[dict[str, int], int]:
    """The times, and where they end."""
    at = _TIME.size
    count = _LENGTH.unpack_from(raw, at)[0]
    at += _LENGTH.size
    times: dict[str, int] = {}
    for _ in range(count):
        length = _LENGTH.unpack_from(raw, at)[0]
        at += _LENGTH.size
        times[raw[at : at + length].decode()] = _MS.unpack_from(raw, at + length)[0]
        at += length + _MS.size
    return times, at


def _since(start: int, progress: Progress | None) -> Progress | None:
    """What is known of the records from an offset on. Of a topic that was made anew since, nothing is."""
    if progress is None or start < progress.first or start >= progress.until:
        return None
    return progress


def _not_done(records: list[FetchedRecord], progress: Progress) -> list[FetchedRecord]:
    unfinished = set(progress.unfinished)
    return [record for record in records if record.offset >= progress.until or record.offset in unfinished]
