"""Which open transactions will not end by themselves, and what is said about them."""

from __future__ import annotations

from typing import Any

import pytest

from streamlib.kafka.transactions import OpenAtPartition, Transaction
from streamlib.records import TopicPartition
from streamlib.verify.hanging import OpenTransaction, open_transactions

PARTITION = TopicPartition("orders", 3)
OPEN = OpenAtPartition(PARTITION, producer_id=7, producer_epoch=1, start_offset=42, last_timestamp_ms=90_000)


def known(**changes: Any) -> Transaction:
    values = {
        "transactional_id": "shop-1",
        "state": "Ongoing",
        "producer_id": 7,
        "producer_epoch": 1,
        "start_ms": 80_000,
        "timeout_ms": 60_000,
        "partitions": frozenset({PARTITION}),
    }
    return Transaction(**{**values, **changes})


def judged(*transactions: Transaction, now_ms: int = 100_000) -> OpenTransaction:
    (found,) = open_transactions([OPEN], transactions, [OPEN], now_ms)
    return found


def test_one_within_its_timeout_ends_by_itself() -> None:
    found = judged(known())
    assert (found.transactional_id, found.since_ms, found.age_ms) == ("shop-1", 80_000, 20_000)
    assert (found.hanging, found.advice) == (None, None)


def test_one_beyond_its_timeout_hangs_and_its_owner_can_end_it() -> None:
    found = judged(known(), now_ms=140_001)
    assert found.hanging == "it is open for longer than its timeout of 60000 ms"
    assert found.advice is not None
    assert "start what writes as 'shop-1' again" in found.advice


@pytest.mark.parametrize(
    ("transactions", "why"),
    [
        ([], "no coordinator knows it"),
        ([known(producer_id=8)], "no coordinator knows it"),
        ([known(state="CompleteCommit", start_ms=-1)], "its coordinator thinks that it has ended here"),
        ([known(state="Empty", start_ms=-1)], "its coordinator thinks that it has ended here"),
        ([known(partitions=frozenset())], "its coordinator thinks that it has ended here"),
    ],
)
def test_one_that_nobody_will_end_hangs_and_has_to_be_ended_by_force(transactions: list[Transaction], why: str) -> None:
    found = judged(*transactions)
    assert found.hanging == why
    assert found.advice is not None
    assert found.advice.startswith(
        "kafka-transactions.sh --bootstrap-server ... abort --topic orders --partition 3 --start-offset 42"
    )


def test_without_a_coordinator_its_age_is_that_of_its_last_record() -> None:
    assert judged().age_ms == 10_000


def test_one_that_ended_while_its_coordinator_was_asked_is_none() -> None:
    again = OpenAtPartition(PARTITION, 7, 2, start_offset=50, last_timestamp_ms=99_000)
    assert open_transactions([OPEN], [known(state="CompleteCommit")], [again], 100_000) == []
    assert open_transactions([OPEN], [known(state="CompleteCommit")], [], 100_000) == []
