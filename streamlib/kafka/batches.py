"""Record batches (magic 2): built on their way out, taken apart on their way in.

aiokafka's Cython code does what costs per record (varints, checksums, compression); what is decided per batch is here:
sizes, producer state, control markers, aborted transactions. Format:
https://kafka.apache.org/documentation/#recordbatch
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import aiokafka.codec
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from streamlib.errors import ConfigError, ErrorCode, KafkaError
from streamlib.kafka.errors import error_row
from streamlib.records import FetchedRecord, OutRecord, TopicPartition

_MAGIC = 2
_HEADER = struct.Struct(">qiibIhiqqqhii")
_OFFSET_AND_LENGTH = struct.Struct(">qi")
_MAGIC_AT = 16
_CODEC_MASK = 0x07
_TRANSACTIONAL = 0x10
_CONTROL = 0x20
_ABORT_MARKER = b"\x00\x00"
_NO_HEADERS: list[tuple[str, bytes | None]] = []
_LAST_SEQUENCE = 2**31 - 1
_SHOWN_KEY_BYTES = 60
# Not in `ErrorCode`: no broker says it to us.
_UNSUPPORTED_COMPRESSION_TYPE = 76

_CODEC_NAMES = ("none", "gzip", "snappy", "lz4", "zstd")
_CODEC_CHECKS: Mapping[str, Callable[[], bool]] = {
    "none": lambda: True,
    "gzip": aiokafka.codec.has_gzip,
    "snappy": aiokafka.codec.has_snappy,
    "lz4": aiokafka.codec.has_lz4,
    "zstd": aiokafka.codec.has_zstd,
}


class BatchBuilder:
    """Records of one partition on their way out; takes more until it is full or built.

    The producer's id, epoch and sequence are written when it is built, so a batch that never leaves uses up no
    sequence numbers.

    Args:
        partition: where the records go.
        codec: the number of a compression codec, from `codec_number`.
        transactional: whether the batch is part of a transaction.
        max_bytes: the size (uncompressed) at which the batch is full; one record may be larger.
        max_record_bytes: the size a record must not exceed.
    """

    __slots__ = ("_builder", "_max_record_bytes", "count", "partition")

    def __init__(
        self, partition: TopicPartition, codec: int, transactional: bool, max_bytes: int, max_record_bytes: int
    ) -> None:
        assert max_bytes <= max_record_bytes, "only a batch's first record is measured"
        self.partition = partition
        self.count = 0
        self._max_record_bytes = max_record_bytes
        self._builder = DefaultRecordBatchBuilder(_MAGIC, codec, transactional, -1, -1, -1, max_bytes)

    @property
    def size_bytes(self) -> int:
        """What is written so far, header included, before compression."""
        size: int = self._builder.size()
        return size

    def extend(self, records: Sequence[OutRecord], start: int = 0) -> int:
        """Append records from index `start` on while they fit; returns the index of the first that did not.

        Raises:
            KafkaError: MESSAGE_TOO_LARGE, a record is too large for any batch.
        """
        append, first = self._builder.append, self.count
        offset = first - start
        for index in range(start, len(records)):
            key, value, timestamp, headers = records[index]
            if append(index + offset, timestamp, key, value, list(headers) if headers else _NO_HEADERS) is None:
                self.count = index + offset
                return index
            if index + offset == 0:
                # A batch takes any first record. Later ones are smaller than the batch, or do not fit.
                self._check_first(key, value)
        self.count = len(records) + offset
        return len(records)

    def build(self, producer_id: int, epoch: int, base_sequence: int) -> bytearray:
        """The finished batch; the builder takes no more after that."""
        assert self.count, "a batch has a record"
        self._builder.set_producer_state(producer_id, epoch, base_sequence)
        built: bytearray = self._builder.build()
        return built

    def _check_first(self, key: bytes | None, value: bytes | None) -> None:
        if self.size_bytes <= self._max_record_bytes:
            return
        detail = (
            f"a record of {self.size_bytes} bytes (key {len(key or b'')}, value {len(value or b'')}), with key "
            f"{_shortened(key)}, is larger than max_request_size ({self._max_record_bytes}); raise it, and "
            "max.message.bytes of the topic, or write smaller records"
        )
        raise KafkaError(ErrorCode.MESSAGE_TOO_LARGE, "Produce", str(self.partition), detail)


def records_in(data: bytearray) -> list[OutRecord]:
    """What a built batch was made of."""
    batch: Any = DefaultRecordBatch(data)
    return [(record.key, record.value, record.timestamp, tuple(record.headers)) for record in batch]


def _shortened(key: bytes | None) -> str:
    if key is None or len(key) <= _SHOWN_KEY_BYTES:
        return repr(key)
    return f"{key[:_SHOWN_KEY_BYTES]!r}..."


def next_sequence(sequence: int, count: int) -> int:
    """The sequence number `count` records later: 0 follows 2^31 - 1 (`DefaultRecordBatch.incrementSequence`).

    >>> next_sequence(2**31 - 2, 3)
    1
    """
    return (sequence + count) & _LAST_SEQUENCE


def codec_number(name: str) -> int:
    """The protocol's number of a compression codec.

    Raises:
        ConfigError: there is no such codec, or its library is not installed.
    """
    check = _CODEC_CHECKS.get(name)
    if check is None:
        raise ConfigError(f"compression_type {name!r} is not one of {', '.join(_CODEC_NAMES)}")
    if not check():
        raise ConfigError(f"compression_type {name!r} needs a library: pip install cramjam")
    return _CODEC_NAMES.index(name)


class RecordBatch:
    """A fetched batch; implements `streamlib.records.FetchedBatch`.

    Holds the bytes as they came in, `records()` decompresses them. Without bytes it only moves the position.
    """

    __slots__ = ("_data", "_start", "next_offset", "partition")

    def __init__(self, partition: TopicPartition, data: memoryview | None, start: int, next_offset: int) -> None:
        self.partition = partition
        self.next_offset = next_offset
        self._data = data
        self._start = start

    def __repr__(self) -> str:
        return f"RecordBatch({self.partition}, {self._start} to {self.next_offset}, {self.size_bytes} bytes)"

    @property
    def size_bytes(self) -> int:
        """What it takes in memory, compressed as it came."""
        return 0 if self._data is None else len(self._data)

    def records(self) -> Iterable[FetchedRecord]:
        """The records from the fetched position on: a broker gives whole batches, also when asked for their middle."""
        if self._data is None:
            return ()
        batch: Any = DefaultRecordBatch(self._data)
        if batch.base_offset >= self._start:
            decoded: Iterable[FetchedRecord] = batch
            return decoded
        return [record for record in batch if record.offset >= self._start]


class AbortedTransaction(NamedTuple):
    """An entry of the index of aborted transactions that comes with a Fetch response."""

    first_offset: int
    producer_id: int


def read_batches(
    partition: TopicPartition, data: bytes, position: int, aborted: Iterable[AbortedTransaction] = ()
) -> list[RecordBatch]:
    """The batches in a partition's part of a Fetch response, without control markers and aborted transactions.

    What is left out moves `next_offset` of the batch before it, or makes a batch without records. A last batch that
    is cut off (brokers cut at a size) is ignored. Works as Java's `CompletedFetch`: the index names all aborted
    transactions that overlap what was fetched, so nothing is carried over from one response to the next.

    Args:
        partition: where the data comes from.
        data: one batch after the other.
        position: the offset that was asked for.
        aborted: the index of aborted transactions; none when reading uncommitted records.

    Raises:
        KafkaError: CORRUPT_MESSAGE or UNSUPPORTED_VERSION (a format from before Kafka 0.11).
    """
    batches: list[RecordBatch] = []
    index = sorted(aborted, reverse=True)
    open_aborts: set[int] = set()
    for header, raw in split_batches(partition, data):
        if header.next_offset <= position:
            continue
        while index and index[-1].first_offset <= header.last_offset:
            open_aborts.add(index.pop().producer_id)
        if header.is_control:
            if _is_abort_marker(raw):
                open_aborts.discard(header.producer_id)
            _skip(batches, partition, position, header.next_offset)
        elif header.is_transactional and header.producer_id in open_aborts:
            _skip(batches, partition, position, header.next_offset)
        else:
            batches.append(RecordBatch(partition, raw, position, header.next_offset))
        position = header.next_offset
    return batches


class BatchHeader(NamedTuple):
    """What stands before the records of a batch, in the format's order."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    first_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.last_offset_delta + 1

    @property
    def is_control(self) -> bool:
        return bool(self.attributes & _CONTROL)

    @property
    def is_transactional(self) -> bool:
        return bool(self.attributes & _TRANSACTIONAL)


def split_batches(partition: TopicPartition, data: bytes | bytearray) -> Iterator[tuple[BatchHeader, memoryview]]:
    """Each whole batch in `data`, checked, with its header; one that is cut off is the end.

    Raises:
        KafkaError: CORRUPT_MESSAGE or UNSUPPORTED_VERSION (a format from before Kafka 0.11).
    """
    view, at = memoryview(data), 0
    while at + _OFFSET_AND_LENGTH.size <= len(data):
        offset, length = _OFFSET_AND_LENGTH.unpack_from(data, at)
        end = at + _OFFSET_AND_LENGTH.size + length
        if end > len(data):
            return
        _check_format(partition, offset, view[at:end])
        header = BatchHeader._make(_HEADER.unpack_from(data, at))
        _check_content(partition, header, view[at:end])
        yield header, view[at:end]
        at = end


def _check_format(partition: TopicPartition, offset: int, raw: memoryview) -> None:
    if len(raw) <= _MAGIC_AT:
        raise _corrupt(partition, offset, f"a batch of {len(raw)} bytes")
    magic = raw[_MAGIC_AT]
    if magic < _MAGIC:
        detail = f"offset {offset}: message format v{magic} is from before Kafka 0.11; write the topic anew"
        raise KafkaError(ErrorCode.UNSUPPORTED_VERSION, "Fetch", str(partition), detail)
    if len(raw) < _HEADER.size:
        raise _corrupt(partition, offset, f"a batch of {len(raw)} bytes")


def _check_content(partition: TopicPartition, header: BatchHeader, raw: memoryview) -> None:
    if not DefaultRecordBatch(raw).validate_crc():
        raise _corrupt(partition, header.base_offset, "the checksum does not match")
    codec = header.attributes & _CODEC_MASK
    if not codec:
        return
    name = _CODEC_NAMES[codec] if codec < len(_CODEC_NAMES) else f"codec {codec}"
    check = _CODEC_CHECKS.get(name)
    if check is None or not check():
        detail = f"offset {header.base_offset} is compressed with {name}: pip install cramjam"
        raise KafkaError(_UNSUPPORTED_COMPRESSION_TYPE, "Fetch", str(partition), detail)


def _corrupt(partition: TopicPartition, offset: int, detail: str) -> KafkaError:
    hint = error_row(ErrorCode.CORRUPT_MESSAGE).hint
    return KafkaError(ErrorCode.CORRUPT_MESSAGE, "Fetch", str(partition), f"offset {offset}: {detail}; {hint}")


def _is_abort_marker(raw: memoryview) -> bool:
    """A control record's key is a version and a type, 0 = abort, 1 = commit (KIP-98).

    Compaction may leave a batch without its marker, once nothing of the transaction is left (`CompletedFetch`, too,
    takes that for no abort).
    """
    marker: Any = next(iter(DefaultRecordBatch(raw)), None)
    return marker is not None and bool(marker.key[2:4] == _ABORT_MARKER)


def _skip(batches: list[RecordBatch], partition: TopicPartition, position: int, next_offset: int) -> None:
    if batches:
        batches[-1].next_offset = next_offset
        return
    batches.append(RecordBatch(partition, None, position, next_offset))
