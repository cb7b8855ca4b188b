"""Deduplication: a payment provider delivers its notices at least once, and each of them counts once.

Shows `deduplicate` by an id within a day, whatever the order; what it remembers goes after two days. Behind it balances
are right, although half of the input is there twice. Exactly-once alone cannot do that: two records that a producer has
written are two records.

    streamlib broker topic notices notices-once balances --partitions 2
    streamlib run examples/deduplication.py
    streamlib produce notices --json --recent --value json < examples/data/deduplication/notices.jsonl
    streamlib consume notices-once --from-beginning --max 6
    streamlib consume balances --value int --from-beginning --max 6
"""

from datetime import timedelta

import msgspec

from streamlib import StreamsBuilder, Sum


class Notice(msgspec.Struct):
    """What the provider tells of an account, which is the key. In cents; `attempt` counts deliveries."""

    id: str
    amount: int
    attempt: int = 1


def topology() -> StreamsBuilder:
    """Notices in; the same without repetitions, and balances, out."""
    builder = StreamsBuilder()
    once = builder.stream("notices", key=str, value=Notice).deduplicate(
        timedelta(days=1), id_selector=lambda _, notice: notice.id, id=str, store="delivered"
    )
    once.to("notices-once")
    balances = once.group_by_key().aggregate(Sum(of=lambda notice: notice.amount, type=int), store="balances")
    balances.to_stream().to("balances")
    return builder


config = {"application_id": "deduplication", "processing_guarantee": "exactly_once_v2"}
