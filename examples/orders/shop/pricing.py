"""What orders cost. Plain functions of records: no streams here, so that they are tested as what they are."""

from __future__ import annotations

from shop.records import Order, Payment, Settled


def total(order: Order) -> int:
    """The price of all items.

    Raises:
        ValueError: a quantity or a price makes no sense.
    """
    for item in order.items:
        if item.quantity < 1 or item.price < 0:
            raise ValueError(f"{item.quantity} of {item.sku} for {item.price}")
    return sum(item.quantity * item.price for item in order.items)


def settled(order: Order, payment: Payment | None) -> Settled:
    """An order with a payment, or with none."""
    return Settled(order.customer, order.country, total(order), 0 if payment is None else payment.amount)
