"""What a type checker makes of the DSL. Checked by mypy (`test_typing.py`), never run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_type
from uuid import UUID

import msgspec

from streamlib import KGroupedStream, KStream, KTable, Record, Serdes, Stores, StreamsBuilder, Topology
from streamlib.serdes import Serde


class Order(msgspec.Struct):
    user: str
    amount: float


class User(msgspec.Struct):
    name: str


builder = StreamsBuilder()
orders = builder.stream("orders", key=str, value=Order)
users = builder.table("users", key=str, value=User)

assert_type(orders, KStream[str, Order])
assert_type(users, KTable[str, User])
assert_type(builder.stream(["a", "b"], key=Serdes.integer(), value=Serdes.msgpack(Order)), KStream[int, Order])
assert_type(builder.stream("lines", key=None, value=str), KStream[Any, str])
assert_type(builder.stream("keyed", key=str), KStream[str, Any])
assert_type(builder.stream("counts", key=str, value=dict[str, int]), KStream[str, dict[str, int]])
assert_type(builder.stream("raw"), KStream[Any, Any])
assert_type(builder.build(), Topology)

# One record at a time
assert_type(orders.filter(lambda key, order: order.amount > 0), KStream[str, Order])
assert_type(orders.filter_not(lambda key, order: order.user == key), KStream[str, Order])
assert_type(orders.map_values(lambda order: order.amount), KStream[str, float])
assert_type(orders.map_values(lambda key, order: (key, order), with_key=True), KStream[str, tuple[str, Order]])
assert_type(orders.flat_map_values(lambda order: order.user.split()), KStream[str, str])
assert_type(orders.flat_map_values(lambda key, order: [key, order.user], with_key=True), KStream[str, str])
assert_type(orders.peek(lambda key, order: print(key, order.amount)), KStream[str, Order])
orders.foreach(print)
orders.map_values(lambda order: order.price)  # type: ignore[attr-defined]
orders.map_values(lambda key, order: key)  # type: ignore[arg-type, misc]
orders.filter(lambda order: True)  # type: ignore[arg-type, misc]

# The key may change
assert_type(orders.map(lambda key, order: (order.amount, key)), KStream[float, str])
assert_type(orders.flat_map(lambda key, order: [(1, key)]), KStream[int, str])
assert_type(orders.select_key(lambda key, order: UUID(order.user)), KStream[UUID, Order])

# Several streams
assert_type(orders.merge(orders), KStream[str, Order])
assert_type(
    orders.split().branch(lambda key, order: order.amount > 1).default_branch(), Mapping[str, KStream[str, Order]]
)
assert_type(orders.repartition(name="r"), KStream[str, Order])
orders.merge(orders.map_values(str))  # type: ignore[arg-type]

# Groups and tables
assert_type(orders.group_by_key(), KGroupedStream[str, Order])
assert_type(orders.group_by(lambda key, order: order.amount), KGroupedStream[float, Order])
assert_type(orders.group_by_key().count(), KTable[str, int])
assert_type(orders.group_by_key().reduce(lambda old, new: new), KTable[str, Order])
assert_type(
    orders.group_by_key().aggregate(lambda: 0.0, lambda key, order, total: total + order.amount), KTable[str, float]
)
assert_type(orders.to_table(), KTable[str, Order])
assert_type(users.filter(lambda key, user: user.name == key), KTable[str, User])
assert_type(users.map_values(lambda user: user.name), KTable[str, str])
assert_type(users.map_values(lambda key, user: len(key), with_key=True), KTable[str, int])
assert_type(users.to_stream(), KStream[str, User])
assert_type(users.to_stream(lambda key, user: len(key)), KStream[int, User])

# Joins
assert_type(orders.join(users, lambda order, user: user.name), KStream[str, str])
assert_type(orders.join(users, lambda key, order, user: (key, user), with_key=True), KStream[str, tuple[str, User]])
assert_type(orders.left_join(users, lambda order, user: user), KStream[str, User | None])
orders.left_join(users, lambda order, user: user.name)  # type: ignore[union-attr]
orders.map(lambda key, order: (1, order)).join(users, lambda order, user: user)  # type: ignore[arg-type]

# Serdes
assert_type(Serdes.json(Order), Serde[Order])
assert_type(Serdes.long(), Serde[int])


class Enrich:
    def init(self, context: Any) -> None:
        self.context = context

    def process(self, record: Record[str, Order]) -> None:
        self.context.forward(record.with_value(record.value.amount))


class OfUsers:
    def init(self, context: Any) -> None: ...
    def process(self, record: Record[str, User]) -> None: ...


assert_type(orders.process(Enrich, Stores.key_value_store("seen", key=str, value=int)), KStream[Any, Any])
orders.process(OfUsers)  # type: ignore[arg-type]
orders.to("out", partitioner=lambda topic, key, order, partitions: 0)
orders.to(lambda key, order, context: "out")
