"""Batches as a broker handles them."""

from __future__ import annotations

import pytest

from streamlib.errors import ErrorCode, KafkaError
from streamlib.kafka.batches import AbortedTransaction, BatchBuilder, codec_number, read_batches, split_batches
from streamlib.kafka.broker_batches import StoredRecord, end_marker, placed, received, stored_records, thinned
from streamlib.records import OutRecord, TopicPartition

ORDERS = TopicPartition("orders", 3)
LARGE = 1 << 20
RECORDS: list[OutRecord] = [(b"k%d" % n, b"v" * 50, 1_000 - n, [("n", b"%d" % n)]) for n in range(5)]


def built(codec: str = "none", *, producer_id: int = 7) -> bytes:
    builder = BatchBuilder(ORDERS, codec_number(codec), True, LARGE, LARGE)
    builder.extend(RECORDS)
    return bytes(builder.build(producer_id, 2, 40))


def test_received_header_tells_who_wrote_what() -> None:
    header = received(ORDERS, built())
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 2, 40)
    assert (header.last_offset_delta, header.record_count) == (4, 5)
    assert header.is_transactional


def test_only_one_whole_batch_of_a_client_is_received() -> None:
    marker = end_marker(7, 2, commit=True, timestamp=5)
    for data in (b"", built() + built(), built()[:-1], marker):
        with pytest.raises(KafkaError) as caught:
            received(ORDERS, data)
        assert caught.value.code == ErrorCode.INVALID_RECORD


def test_damaged_batch_is_not_received() -> None:
    data = bytearray(built())
    data[-1] ^= 1
    with pytest.raises(KafkaError) as caught:
        received(ORDERS, bytes(data))
    assert caught.value.code == ErrorCode.CORRUPT_MESSAGE


def test_placed_batch_has_its_offsets_and_its_checksum_holds() -> None:
    sent = built()
    [(header, _)] = split_batches(ORDERS, placed(sent, 100))
    assert (header.base_offset, header.last_offset) == (100, 104)
    assert [record.offset for record in stored_records(placed(sent, 100))] == [100, 101, 102, 103, 104]
    assert sent == built()


@pytest.mark.parametrize(("commit", "visible"), [(False, [6, 7, 8, 9, 10]), (True, [])])
def test_only_an_abort_marker_ends_an_aborted_transaction(commit: bool, visible: list[int]) -> None:
    marker = end_marker(7, 2, commit=commit, timestamp=9)
    data = placed(built(), 0) + placed(marker, 5) + placed(built(), 6)
    read = read_batches(ORDERS, data, 0, [AbortedTransaction(0, 7)])
    assert [record.offset for batch in read for record in batch.records()] == visible


def test_marker_carries_producer_epoch_and_time() -> None:
    [(header, _)] = split_batches(ORDERS, end_marker(7, 2, commit=True, timestamp=9))
    assert (header.is_control, header.is_transactional) == (True, True)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 2, -1)
    assert header.max_timestamp == 9


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_thinned_batch_keeps_offsets_and_its_end(codec: str) -> None:
    data = placed(built(codec), 100)
    [(header, _)] = split_batches(ORDERS, data)
    kept = thinned(header, data, {101, 103})
    assert kept is not None
    [(thin, _)] = split_batches(ORDERS, kept)
    assert (thin.base_offset, thin.last_offset, thin.record_count) == (100, 104, 2)
    assert (thin.producer_id, thin.producer_epoch, thin.base_sequence) == (7, 2, 40)
    assert thin.is_transactional
    assert stored_records(kept) == [StoredRecord(100 + n, *RECORDS[n]) for n in (1, 3)]


def test_batch_without_records_is_gone() -> None:
    data = built()
    [(header, _)] = split_batches(ORDERS, data)
    assert thinned(header, data, set()) is None
