"""Building and taking apart record batches, on bytes made by hand."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.util import calc_crc32c

from streamlib.errors import ConfigError, ErrorCode, KafkaError
from streamlib.kafka import batches
from streamlib.kafka.batches import (
    AbortedTransaction,
    BatchBuilder,
    RecordBatch,
    codec_number,
    next_sequence,
    read_batches,
)
from streamlib.records import OutRecord, TopicPartition

ORDERS = TopicPartition("orders", 3)
LARGE = 1 << 20
_BASE_OFFSET = struct.Struct(">q")
_ATTRIBUTES_AT, _CRC_AT = 21, 17
_TRANSACTIONAL, _CONTROL = 0x10, 0x20
_ABORT, _COMMIT = 0, 1


def records(count: int, size: int = 10) -> list[OutRecord]:
    return [(b"%d" % number, b"v" * size, 1_000 + number, ()) for number in range(count)]


def builder(codec: str = "none", max_bytes: int = LARGE, max_record_bytes: int = LARGE) -> BatchBuilder:
    return BatchBuilder(ORDERS, codec_number(codec), True, max_bytes, max_record_bytes)


def batch(values: Sequence[OutRecord], offset: int, *, producer_id: int = -1, codec: str = "none") -> bytes:
    """As a broker keeps it: with its offset, transactional if it has a producer id."""
    building = BatchBuilder(ORDERS, codec_number(codec), producer_id >= 0, LARGE, LARGE)
    assert building.extend(values) == len(values)
    return at_offset(building.build(producer_id, 0, 0), offset)


def marker(offset: int, producer_id: int, kind: int) -> bytes:
    """The control batch that ends a transaction."""
    building = BatchBuilder(ORDERS, 0, True, LARGE, LARGE)
    building.extend([(struct.pack(">hh", 0, kind), b"\x00" * 6, 1_000, ())])
    raw = building.build(producer_id, 0, -1)
    raw[_ATTRIBUTES_AT + 1] |= _CONTROL
    return at_offset(with_checksum(raw), offset)


def at_offset(raw: bytearray, offset: int) -> bytes:
    _BASE_OFFSET.pack_into(raw, 0, offset)
    return bytes(raw)


def with_checksum(raw: bytearray) -> bytearray:
    struct.pack_into(">I", raw, _CRC_AT, calc_crc32c(bytes(raw[_ATTRIBUTES_AT:])))
    return raw


def offsets(read: Sequence[RecordBatch]) -> list[int]:
    return [record.offset for each in read for record in each.records()]


# --- building


def test_built_batch_carries_producer_state_timestamps_and_headers() -> None:
    building = builder()
    building.extend([(b"k", b"v", 5_000, [("trace", b"1"), ("empty", None)]), (None, None, 4_000, ())])
    built = DefaultRecordBatch(bytes(building.build(7, 2, 40)))
    assert (built.producer_id, built.producer_epoch, built.base_sequence) == (7, 2, 40)
    assert built.is_transactional
    assert built.validate_crc()
    assert built.max_timestamp == 5_000
    assert [(r.offset, r.key, r.value, r.timestamp, list(r.headers)) for r in built] == [
        (0, b"k", b"v", 5_000, [("trace", b"1"), ("empty", None)]),
        (1, None, None, 4_000, []),
    ]


def test_records_that_do_not_fit_are_left_for_the_next_batch() -> None:
    values, taken, sizes = records(100, size=100), 0, []
    while taken < len(values):
        building = builder(max_bytes=1_000)
        taken = building.extend(values, taken)
        sizes.append(building.size_bytes)
    assert len(sizes) > 10
    assert max(sizes) <= 1_000


def test_batch_goes_on_growing_between_calls() -> None:
    building = builder()
    building.extend(records(3))
    building.extend(records(2))
    assert building.count == 5
    assert [record.offset for record in DefaultRecordBatch(bytes(building.build(1, 0, 0)))] == [0, 1, 2, 3, 4]


def test_record_larger_than_a_batch_has_a_batch_for_itself() -> None:
    values = [*records(1), (b"big", b"v" * 2_000, 1_000, ()), *records(1)]
    counts, taken = [], 0
    while taken < len(values):
        building = builder(max_bytes=1_000)
        taken = building.extend(values, taken)
        counts.append(building.count)
    assert counts == [1, 1, 1]


def test_record_too_large_for_any_batch_is_refused_with_its_place_and_sizes() -> None:
    building = builder(max_bytes=1_000, max_record_bytes=2_000)
    with pytest.raises(KafkaError, match=r"orders-3.*key 3, value 2000.*max_request_size \(2000\)") as refused:
        building.extend([(b"key", b"v" * 2_000, 1_000, ())])
    assert refused.value.code == ErrorCode.MESSAGE_TOO_LARGE


def test_sequence_numbers_wrap_to_zero() -> None:
    assert next_sequence(0, 10) == 10
    assert next_sequence(2**31 - 2, 1) == 2**31 - 1
    assert next_sequence(2**31 - 1, 1) == 0
    assert next_sequence(2**31 - 3, 10) == 7


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_batches_read_back(codec: str) -> None:
    if codec != "gzip":
        pytest.importorskip("cramjam")
    raw = batch(records(50, size=100), 10, codec=codec)
    assert len(raw) < 5_000
    [read] = read_batches(ORDERS, raw, 10)
    assert offsets([read]) == list(range(10, 60))
    assert read.size_bytes == len(raw)


def test_unknown_or_missing_codec_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="brotli"):
        codec_number("brotli")
    monkeypatch.setattr(batches, "_CODEC_CHECKS", {"zstd": lambda: False})
    with pytest.raises(ConfigError, match="pip install cramjam"):
        codec_number("zstd")


# --- reading


def test_batches_come_out_one_by_one_with_their_next_offsets() -> None:
    raw = batch(records(3), 100) + batch(records(2), 103)
    read = read_batches(ORDERS, raw, 100)
    assert [each.next_offset for each in read] == [103, 105]
    assert offsets(read) == [100, 101, 102, 103, 104]
    assert sum(each.size_bytes for each in read) == len(raw)


def test_records_can_be_read_twice() -> None:
    [read] = read_batches(ORDERS, batch(records(3), 100), 100)
    assert offsets([read]) == offsets([read]) == [100, 101, 102]


def test_records_below_the_position_are_skipped() -> None:
    raw = batch(records(5), 100) + batch(records(5), 105)
    assert offsets(read_batches(ORDERS, raw, 103)) == [103, 104, 105, 106, 107, 108, 109]
    assert offsets(read_batches(ORDERS, raw, 105)) == [105, 106, 107, 108, 109]


def test_batch_that_is_cut_off_is_ignored() -> None:
    first, second = batch(records(3), 0), batch(records(3), 3)
    for cut in (1, 30, len(second) - 1):
        assert offsets(read_batches(ORDERS, first + second[:cut], 0)) == [0, 1, 2]
    assert read_batches(ORDERS, first[:10], 0) == []


def test_damaged_batch_is_refused() -> None:
    raw = bytearray(batch(records(3), 7))
    raw[-1] ^= 1
    with pytest.raises(KafkaError, match=r"orders-3.*offset 7.*checksum") as refused:
        read_batches(ORDERS, bytes(raw), 0)
    assert refused.value.code == ErrorCode.CORRUPT_MESSAGE


def test_format_from_before_0_11_is_refused() -> None:
    raw = bytearray(batch(records(3), 7))
    raw[16] = 1
    with pytest.raises(KafkaError, match=r"orders-3: .*format v1"):
        read_batches(ORDERS, bytes(raw), 0)


def test_commit_marker_moves_the_position_of_the_batch_before() -> None:
    raw = batch(records(3), 0, producer_id=7) + marker(3, 7, _COMMIT)
    [read] = read_batches(ORDERS, raw, 0)
    assert read.next_offset == 4
    assert offsets([read]) == [0, 1, 2]


def test_markers_alone_make_one_batch_without_records() -> None:
    raw = marker(3, 7, _COMMIT) + marker(4, 8, _ABORT) + marker(5, 9, _COMMIT)
    [read] = read_batches(ORDERS, raw, 3)
    assert (read.next_offset, read.size_bytes, list(read.records())) == (6, 0, [])


def test_a_control_batch_whose_marker_was_compacted_away_moves_the_position() -> None:
    """Cleaners keep the batch, for the producer's sake, when nothing of its transaction is left."""
    empty = bytearray(marker(3, 7, _COMMIT)[:61])
    struct.pack_into(">i", empty, 8, len(empty) - 12)
    struct.pack_into(">i", empty, 57, 0)  # so many records
    [read] = read_batches(ORDERS, bytes(with_checksum(empty)) + batch(records(2), 4), 3)[1:]
    assert (read.next_offset, offsets([read])) == (6, [4, 5])


def test_aborted_transactions_are_left_out() -> None:
    raw = b"".join(
        [
            batch(records(2), 0, producer_id=7),
            batch(records(2), 2, producer_id=8),
            batch(records(2), 4, producer_id=7),
            marker(6, 7, _ABORT),
            batch(records(1), 7),
            marker(8, 8, _COMMIT),
            batch(records(1), 9, producer_id=7),
            marker(10, 7, _COMMIT),
        ]
    )
    read = read_batches(ORDERS, raw, 0, [AbortedTransaction(0, 7)])
    assert offsets(read) == [2, 3, 7, 9]
    assert read[-1].next_offset == 11


def test_one_producer_aborts_twice_and_commits_between() -> None:
    raw = b"".join(
        [
            batch(records(1), 0, producer_id=7) + marker(1, 7, _ABORT),
            batch(records(1), 2, producer_id=7) + marker(3, 7, _COMMIT),
            batch(records(1), 4, producer_id=7) + marker(5, 7, _ABORT),
        ]
    )
    assert offsets(read_batches(ORDERS, raw, 0, [AbortedTransaction(4, 7), AbortedTransaction(0, 7)])) == [2]


def test_fetch_that_begins_inside_an_aborted_transaction_leaves_out_its_rest() -> None:
    raw = batch(records(4), 10, producer_id=7) + marker(14, 7, _ABORT) + batch(records(1), 15, producer_id=7)
    read = read_batches(ORDERS, raw, 12, [AbortedTransaction(3, 7)])
    assert [each.next_offset for each in read] == [15, 16]
    assert offsets(read) == [15]


def test_uncommitted_reading_takes_aborted_records_but_no_markers() -> None:
    raw = batch(records(2), 0, producer_id=7) + marker(2, 7, _ABORT)
    assert offsets(read_batches(ORDERS, raw, 0)) == [0, 1]
