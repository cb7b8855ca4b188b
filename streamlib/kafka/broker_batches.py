"""Record batches as a broker handles them: taken in, given their offsets, thinned out by compaction.

For a broker in the same process; clients need `batches.py` only.
"""

from __future__ import annotations

import struct
from collections.abc import Container
from typing import Any, NamedTuple

from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from streamlib.errors import ErrorCode, KafkaError
from streamlib.kafka.batches import BatchHeader, split_batches
from streamlib.records import Headers, TopicPartition

_MAGIC = 2
_NO_SEQUENCE = -1
_LEADER_EPOCH_AT, _CRC_AT, _ATTRIBUTES_AT, _LAST_OFFSET_DELTA_AT = 12, 17, 21, 23
_CONTROL = 0x20
_CODEC_MASK = 0x07
_NO_LIMIT = 2**31 - 1
# A control record's key is a version and a kind, its value a version and the epoch of the coordinator (KIP-98).
_MARKER_KEY = struct.Struct(">hh")
_MARKER_VALUE = struct.Struct(">hi")
_ABORT, _COMMIT = 0, 1


class StoredRecord(NamedTuple):
    """A record and its place in the log."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: Headers


def received(partition: TopicPartition, data: bytes | bytearray) -> BatchHeader:
    """The header of the batch that a Produce request holds for a partition.

    Raises:
        KafkaError: CORRUPT_MESSAGE or UNSUPPORTED_VERSION; INVALID_RECORD unless it is one batch of a client.
    """
    batches = list(split_batches(partition, data))
    if len(batches) != 1 or len(batches[0][1]) != len(data):
        raise KafkaError(ErrorCode.INVALID_RECORD, "Produce", str(partition), "a request has one batch of a partition")
    [(header, _)] = batches
    if header.is_control:
        raise KafkaError(ErrorCode.INVALID_RECORD, "Produce", str(partition), "only brokers write control batches")
    return header


def placed(data: bytes | bytearray, offset: int) -> bytes:
    """A copy of the batch that begins at this offset of the log. The checksum does not cover what is written."""
    batch = bytearray(data)
    struct.pack_into(">q", batch, 0, offset)
    struct.pack_into(">i", batch, _LEADER_EPOCH_AT, 0)
    return bytes(batch)


def end_marker(producer_id: int, epoch: int, *, commit: bool, timestamp: int) -> bytes:
    """The control batch that ends a producer's transaction in one partition."""
    builder = DefaultRecordBatchBuilder(_MAGIC, 0, True, producer_id, epoch, _NO_SEQUENCE, _NO_LIMIT)
    kind = _MARKER_KEY.pack(0, _COMMIT if commit else _ABORT)
    builder.append(0, timestamp, kind, _MARKER_VALUE.pack(0, 0), [])
    batch: bytearray = builder.build()
    batch[_ATTRIBUTES_AT + 1] |= _CONTROL
    return _with_checksum(batch)


def stored_records(data: bytes | bytearray) -> list[StoredRecord]:
    """The records of one batch."""
    batch: Any = DefaultRecordBatch(data)
    return [StoredRecord(each.offset, each.key, each.value, each.timestamp, each.headers) for each in batch]


def thinned(header: BatchHeader, data: bytes, keep: Container[int]) -> bytes | None:
    """The batch with only the records at the offsets in `keep`; None if there are none.

    What is left stays where it is, and the batch ends where it did: readers see gaps (KIP-98, log compaction).
    """
    records = [record for record in stored_records(data) if record.offset in keep]
    if not records:
        return None
    builder = DefaultRecordBatchBuilder(
        _MAGIC,
        header.attributes & _CODEC_MASK,
        header.is_transactional,
        header.producer_id,
        header.producer_epoch,
        header.base_sequence,
        _NO_LIMIT,
    )
    for offset, key, value, timestamp, headers in records:
        builder.append(offset - header.base_offset, timestamp, key, value, list(headers))
    batch: bytearray = builder.build()
    struct.pack_into(">i", batch, _LAST_OFFSET_DELTA_AT, header.last_offset_delta)
    return placed(_with_checksum(batch), header.base_offset)


def _with_checksum(batch: bytearray) -> bytes:
    struct.pack_into(">I", batch, _CRC_AT, calc_crc32c(bytes(batch[_ATTRIBUTES_AT:])))
    return bytes(batch)
