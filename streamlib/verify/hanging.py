"""Open transactions: which of them will not end by themselves.

A transaction is ended by its producer, or by its coordinator when its timeout has passed. It hangs if neither will: the
coordinator does not know of it, or thinks that it has ended, or the timeout has passed long since. Readers of committed
records wait for it for ever, and what is written after it cannot be seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from streamlib.kafka.transactions import OpenAtPartition, Transaction


class OpenTransaction(msgspec.Struct, frozen=True):
    """A transaction that is open in a partition.

    Attributes:
        topic: of the partition.
        partition: its number.
        start_offset: readers of committed records get no further.
        producer_id: whose it is.
        producer_epoch: which of the producers with this id.
        transactional_id: what its coordinator calls it; None if none knows it.
        since_ms: when it began; without a coordinator, the time of the last record in it. -1: not known.
        age_ms: how long that is ago.
        timeout_ms: after how long its coordinator ends it; None if none knows it.
        hanging: why it will not end by itself; None if it will.
        advice: what to do about it.
    """

    topic: str
    partition: int
    start_offset: int
    producer_id: int
    producer_epoch: int
    transactional_id: str | None
    since_ms: int
    age_ms: int | None
    timeout_ms: int | None
    hanging: str | None
    advice: str | None


def open_transactions(
    first: Sequence[OpenAtPartition], known: Iterable[Transaction], later: Iterable[OpenAtPartition], now_ms: int
) -> list[OpenTransaction]:
    """What is open, with what its coordinators say of it.

    Args:
        first: what the partitions said.
        known: what the coordinators said after that.
        later: what the partitions said then; a transaction that has ended in between is none.
        now_ms: the wall clock.
    """
    by_producer = {transaction.producer_id: transaction for transaction in known}
    still = {_identity(each): each for each in later}
    lasting = [still[_identity(each)] for each in first if _identity(each) in still]
    return [_judged(each, by_producer, now_ms) for each in lasting]


def _identity(each: OpenAtPartition) -> tuple[object, ...]:
    return each.partition, each.producer_id, each.start_offset


def _judged(each: OpenAtPartition, known: Mapping[int, Transaction], now_ms: int) -> OpenTransaction:
    transaction = known.get(each.producer_id)
    since_ms = each.last_timestamp_ms
    if transaction is not None and not transaction.complete and transaction.start_ms >= 0:
        since_ms = transaction.start_ms
    age_ms = max(now_ms - since_ms, 0) if since_ms >= 0 else None
    hanging = _why_hanging(each, transaction, age_ms)
    return OpenTransaction(
        topic=each.partition.topic,
        partition=each.partition.partition,
        start_offset=each.start_offset,
        producer_id=each.producer_id,
        producer_epoch=each.producer_epoch,
        transactional_id=None if transaction is None else transaction.transactional_id,
        since_ms=since_ms,
        age_ms=age_ms,
        timeout_ms=None if transaction is None else transaction.timeout_ms,
        hanging=hanging,
        advice=None if hanging is None else _advice(each, transaction),
    )


def _why_hanging(each: OpenAtPartition, transaction: Transaction | None, age_ms: int | None) -> str | None:
    if transaction is None:
        return "no coordinator knows it"
    if transaction.complete or each.partition not in transaction.partitions:
        return "its coordinator thinks that it has ended here"
    if age_ms is not None and age_ms > transaction.timeout_ms:
        return f"it is open for longer than its timeout of {transaction.timeout_ms} ms"
    return None


def _advice(each: OpenAtPartition, transaction: Transaction | None) -> str:
    topic, partition = each.partition
    where = f"--topic {topic} --partition {partition} --start-offset {each.start_offset}"
    abort = f"kafka-transactions.sh --bootstrap-server ... abort {where} ends it by force"
    if transaction is None or transaction.complete or each.partition not in transaction.partitions:
        return abort
    return (
        f"start what writes as {transaction.transactional_id!r} again, it ends its own transaction; the coordinator "
        f"aborts it, too, when it looks next (every 10 s by default); if it stays, {abort}"
    )
