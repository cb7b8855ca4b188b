"""Revenue of each user: JSON orders in, the running total out.

streamlib broker topic orders revenue --partitions 4
streamlib run examples/revenue.py --set commit_interval_ms=200
echo 'ann:{"amount": 12.5, "items": 2}' | streamlib produce orders --separator :
streamlib consume revenue --from-beginning --max 1
"""

import msgspec

from streamlib import StreamsBuilder


class Order(msgspec.Struct):
    """An order as it is in the topic: JSON."""

    amount: float
    items: int = 1


class Revenue(msgspec.Struct):
    """What a user has spent so far; kept and written as JSON."""

    orders: int = 0
    items: int = 0
    total: float = 0.0

    def plus(self, order: Order) -> "Revenue":
        """With one more order."""
        return Revenue(self.orders + 1, self.items + order.items, self.total + order.amount)


def topology() -> StreamsBuilder:
    """Total by user."""
    builder = StreamsBuilder()
    (
        builder.stream("orders", key=str, value=Order)
        .filter(lambda _, order: order.amount > 0)
        .group_by_key()
        .aggregate(Revenue, lambda _, order, revenue: revenue.plus(order), value=Revenue, store="revenue")
        .to_stream()
        .to("revenue")
    )
    return builder


# Settings may live in the module. Options, environment and --config file go before them.
config = {"application_id": "revenue", "processing_guarantee": "exactly_once_v2"}
