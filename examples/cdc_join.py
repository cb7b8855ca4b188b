"""Change data capture: two tables of a database, as Debezium writes their changes, joined by foreign key into a third.

Shows envelopes with before, after and operation, tombstones behind deletes, keys that are JSON, a join by foreign key:
an order changes when its customer does, moves to another customer, waits for one that does not exist yet, and goes when
it is deleted.

    streamlib broker topic shop.db.customers shop.db.orders orders-with-customers --partitions 3
    streamlib run examples/cdc_join.py
    streamlib produce shop.db.customers --json --recent --key json --value json < examples/data/cdc_join/customers.jsonl
    streamlib produce shop.db.orders --json --recent --key json --value json < examples/data/cdc_join/orders.jsonl
    streamlib consume orders-with-customers --from-beginning

What is in the result at last is the same each time. What it was in between depends on which change is seen first, as
the changes of two tables have no order among each other.
"""

from typing import Generic, Literal, TypeVar

import msgspec

from streamlib import KTable, StreamsBuilder

R = TypeVar("R")


class Id(msgspec.Struct, frozen=True):
    """The primary key of a row, which is the key of its records."""

    id: int


class Change(msgspec.Struct, Generic[R]):
    """Debezium's envelope, without schemas (`value.converter.schemas.enable=false`); more fields do no harm.

    `op` is c(reate), u(pdate), d(elete), or r(ead) in the first snapshot. Behind a delete comes a tombstone.
    """

    op: Literal["c", "u", "d", "r"]
    before: R | None = None
    after: R | None = None


class Customer(msgspec.Struct):
    """A row of `customers`."""

    id: int
    name: str
    city: str


class Order(msgspec.Struct):
    """A row of `orders`; in cents."""

    id: int
    customer_id: int | None
    amount: int


class OrderWithCustomer(msgspec.Struct):
    """A row of the result."""

    amount: int
    customer: str | None
    city: str | None


def table(builder: StreamsBuilder, topic: str, row: type[R]) -> KTable[Id, R]:
    """The table whose changes are in a topic. Nothing is left of a row that was deleted, by envelope or tombstone."""

    def after(change: Change[R] | None) -> R | None:
        return None if change is None else change.after

    changes = builder.stream(topic, key=Id, value=Change[row])  # type: ignore[valid-type]
    return changes.map_values(after, value=row).to_table(store=topic.rpartition(".")[2])


def customer_of(order: Order) -> Id | None:
    """The key of an order's customer."""
    return None if order.customer_id is None else Id(order.customer_id)


def joined(order: Order, customer: Customer | None) -> OrderWithCustomer:
    """An order, and its customer if there is one."""
    if customer is None:
        return OrderWithCustomer(order.amount, None, None)
    return OrderWithCustomer(order.amount, customer.name, customer.city)


def topology() -> StreamsBuilder:
    """Changes of customers and orders in, changes of orders with their customers out."""
    builder = StreamsBuilder()
    customers = table(builder, "shop.db.customers", Customer)
    orders = table(builder, "shop.db.orders", Order)
    result = orders.left_join(customers, joined, foreign_key=customer_of, result=OrderWithCustomer, name="customer-of")
    result.to_stream().to("orders-with-customers")
    return builder


config = {"application_id": "cdc-join", "processing_guarantee": "exactly_once_v2"}
