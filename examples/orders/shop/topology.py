"""The streams: orders and their payments, reminders, revenue.

orders, payments --left join, within an hour--> settled-orders
                                            --> reminders, with the customer, for those without a payment
                                            --> revenue, by country and hour
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from shop.pricing import settled, total
from shop.records import Customer, Order, Payment, Reminder, Revenue, Settled
from streamlib import (
    DeadLetter,
    EmitStrategy,
    JoinWindows,
    KStream,
    StreamsBuilder,
    TimeWindows,
    Windowed,
)

PAID_WITHIN = JoinWindows.of_time_difference(timedelta(0), grace=timedelta(minutes=5)).after(timedelta(hours=1))
AN_HOUR = TimeWindows.of_size(timedelta(hours=1), grace=timedelta(minutes=5))


def topology() -> StreamsBuilder:
    """The whole application. Everything that is kept has a name, so that it survives changes of the rest."""
    builder = StreamsBuilder(strict_naming=True)
    orders = builder.stream("orders", key=str, value=Order).filter(
        lambda _, order: total(order) > 0, on_error=DeadLetter("orders-failed"), name="priced"
    )
    payments = builder.stream("payments", key=str, value=Payment)
    all_settled = orders.left_join(
        payments, settled, PAID_WITHIN, store=("orders-waiting", "payments-waiting"), result=Settled, name="settled"
    )
    all_settled.to("settled-orders")
    reminders(builder, all_settled).to("reminders")
    revenue(all_settled).to("revenue")
    return builder


def reminders(builder: StreamsBuilder, orders: KStream[str, Settled]) -> KStream[str, Reminder]:
    """One for each order that nobody has paid for an hour, under the customer's id."""
    customers = builder.table("customers", key=str, value=Customer, store="customers")
    return (
        orders.filter(lambda _, order: order.paid == 0)
        .select_key(lambda _, order: order.customer, key=str)
        .join(
            customers,
            lambda order, customer: Reminder(customer.name, customer.email, order.total),
            result=Reminder,
            name="by-customer",
        )
    )


def revenue(orders: KStream[str, Settled]) -> KStream[str, Revenue]:
    """What has come in, final when its hour is over."""
    per_hour = (
        orders.filter(lambda _, order: order.paid > 0)
        .group_by(lambda _, order: order.country, key=str, name="by-country")
        .windowed_by(AN_HOUR, idle_timeout=timedelta(minutes=10))
        .emit_strategy(EmitStrategy.on_window_close())
        .aggregate(
            lambda: (0, 0),
            lambda _, order, sums: (sums[0] + 1, sums[1] + order.paid),
            value=tuple[int, int],
            store="revenue-per-hour",
        )
    )
    return per_hour.to_stream().map(_told, key=str, value=Revenue)


def _told(window: Windowed[str], sums: tuple[int, int]) -> tuple[str, Revenue]:
    return window.key, Revenue(datetime.fromtimestamp(window.start / 1000, UTC), *sums)
