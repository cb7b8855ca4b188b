"""What a type checker makes of the DSL. Checked by mypy (`test_typing.py`), never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any, assert_type
from uuid import UUID

import msgspec

from streamlib import (
    BufferConfig,
    Cancellable,
    CircuitBreaker,
    CogroupedKStream,
    Collect,
    DeadLetter,
    EmitStrategy,
    FixedKeyProcessorContext,
    FixedKeyRecord,
    JoinWindows,
    KGroupedStream,
    KGroupedTable,
    KStream,
    KTable,
    Latest,
    Materialized,
    Max,
    Mean,
    ProcessorContext,
    PunctuationType,
    RateLimit,
    Record,
    Retry,
    RetryTopics,
    Serdes,
    Service,
    SessionWindowedKStream,
    SessionWindows,
    Stores,
    StreamsBuilder,
    StreamsConfig,
    Sum,
    Suppressed,
    TimeWindowedKStream,
    TimeWindows,
    Topology,
    WallclockTimestampExtractor,
    Windowed,
)
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
assert_type(orders.map_values(lambda order: order if order.amount else None).to_table(), KTable[str, Order])
assert_type(users.filter(lambda key, user: user.name == key), KTable[str, User])
assert_type(users.map_values(lambda user: user.name), KTable[str, str])
assert_type(users.map_values(lambda key, user: len(key), with_key=True), KTable[str, int])
assert_type(users.to_stream(), KStream[str, User])
assert_type(users.to_stream(lambda key, user: len(key)), KStream[int, User])
by_name = users.group_by(lambda key, user: (user.name, len(key)))
assert_type(by_name, KGroupedTable[str, int])
assert_type(users.group_by(lambda key, user: (user.name or None, len(key) or None)), KGroupedTable[str, int])
assert_type(by_name.count(store=Materialized(persistent=False)), KTable[str, int])
assert_type(by_name.reduce(lambda old, new: old + new, lambda old, gone: old - gone), KTable[str, int])
assert_type(
    by_name.aggregate(lambda: 0.0, lambda key, n, total: total + n, lambda key, n, total: total - n), KTable[str, float]
)
by_name.reduce(lambda old, new: old.upper(), lambda old, gone: old)  # type: ignore[attr-defined]

# Windows
tumbling = TimeWindows.of_size(timedelta(seconds=10), grace=timedelta(0))
windowed = orders.group_by_key().windowed_by(tumbling, on_late=lambda late: print(late.value.amount, late.window.end))
assert_type(windowed, TimeWindowedKStream[str, Order])
assert_type(windowed.emit_strategy(EmitStrategy.on_window_close()), TimeWindowedKStream[str, Order])
assert_type(windowed.count(), KTable[Windowed[str], int])
assert_type(windowed.reduce(lambda old, new: new), KTable[Windowed[str], Order])
totals = windowed.aggregate(lambda: 0.0, lambda key, order, total: total + order.amount)
assert_type(totals, KTable[Windowed[str], float])
assert_type(windowed.count().to_stream(), KStream[Windowed[str], int])
assert_type(windowed.count().to_stream(lambda window, n: window.start), KStream[int, int])
orders.group_by_key().windowed_by(tumbling, on_late=lambda late: late.value.price)  # type: ignore[attr-defined]
orders.group_by_key().windowed_by(timedelta(seconds=10))  # type: ignore[call-overload]

# Sessions
sessions = orders.group_by_key().windowed_by(
    SessionWindows.of_inactivity_gap(timedelta(minutes=5), grace=timedelta(0)), on_late=lambda late: print(late.key)
)
assert_type(sessions, SessionWindowedKStream[str, Order])
assert_type(sessions.emit_strategy(EmitStrategy.on_window_close()).count(), KTable[Windowed[str], int])
assert_type(sessions.reduce(lambda old, new: new), KTable[Windowed[str], Order])
assert_type(
    sessions.aggregate(
        lambda: 0.0, lambda key, order, total: total + order.amount, lambda key, one, other: one + other
    ),
    KTable[Windowed[str], float],
)
sessions.aggregate(lambda: 0.0, lambda key, order, total: total + order.amount)  # type: ignore[call-overload]

# Cogroups
cogrouped = orders.group_by_key().cogroup(lambda key, order, total: total + order.amount)
assert_type(cogrouped, CogroupedKStream[str, float])
cogrouped = cogrouped.cogroup(users.to_stream().group_by_key(), lambda key, user, total: total + len(user.name))
assert_type(cogrouped.aggregate(lambda: 0.0), KTable[str, float])
assert_type(cogrouped.windowed_by(tumbling).aggregate(lambda: 0.0), KTable[Windowed[str], float])
assert_type(
    cogrouped.windowed_by(SessionWindows.of_inactivity_gap(timedelta(1), grace=timedelta(0))).aggregate(
        lambda: 0.0, lambda key, one, other: one + other
    ),
    KTable[Windowed[str], float],
)
cogrouped.cogroup(orders.group_by_key(), lambda key, user, total: user.name)  # type: ignore[attr-defined]
orders.group_by(lambda key, order: 1).cogroup(lambda key, order, n: n + 1).cogroup(
    orders.group_by_key(),  # type: ignore[arg-type]
    lambda key, order, n: n,
)

# Ready aggregations
assert_type(orders.group_by_key().aggregate(Sum(of=lambda order: order.amount)), KTable[str, float])
assert_type(orders.group_by_key().aggregate(Mean(of=lambda order: order.amount), store="m"), KTable[str, float])
assert_type(orders.group_by_key().aggregate(Latest()), KTable[str, Order])
assert_type(orders.group_by_key().windowed_by(tumbling).aggregate(Collect()), KTable[Windowed[str], list[Order]])
assert_type(sessions.aggregate(Max(of=lambda order: order.user, type=str)), KTable[Windowed[str], str])
orders.group_by_key().aggregate(Sum(of=lambda order: order.price))  # type: ignore[attr-defined]

# Joins
assert_type(orders.join(users, lambda order, user: user.name), KStream[str, str])
assert_type(orders.join(users, lambda key, order, user: (key, user), with_key=True), KStream[str, tuple[str, User]])
assert_type(orders.left_join(users, lambda order, user: user), KStream[str, User | None])
orders.left_join(users, lambda order, user: user.name)  # type: ignore[union-attr]
prices = builder.table("prices", key=str, value=float, store=Materialized(history_retention=timedelta(hours=1)))
assert_type(orders.join(prices, lambda order, price: price, grace=timedelta(minutes=1)), KStream[str, float])
orders.join(prices, lambda order, price: price, grace=60)  # type: ignore[call-overload]
visits = builder.stream("visits", key=str, value=User)
hour = JoinWindows.of_time_difference(timedelta(hours=1), grace=timedelta(0))
assert_type(orders.join(visits, lambda order, visit: (order, visit), hour), KStream[str, tuple[Order, User]])
assert_type(orders.join(visits, lambda key, order, visit: key, hour, with_key=True, store="j"), KStream[str, str])
assert_type(orders.left_join(visits, lambda order, visit: visit, hour, store=("l", "r")), KStream[str, User | None])
assert_type(
    orders.outer_join(visits, lambda order, visit: (order, visit), JoinWindows.eager(timedelta(hours=1))),
    KStream[str, tuple[Order | None, User | None]],
)
orders.left_join(visits, lambda order, visit: visit.name, hour)  # type: ignore[union-attr]
orders.join(visits, lambda order, visit: visit)  # type: ignore[call-overload]
orders.join(users, lambda order, user: user, hour)  # type: ignore[call-overload]
orders.outer_join(users, lambda order, user: user, hour)  # type: ignore[call-overload]
JoinWindows.of_time_difference(5, grace=timedelta(0))  # type: ignore[arg-type]
names = users.map_values(lambda user: user.name)
assert_type(users.join(names, lambda user, name: (user, name)), KTable[str, tuple[User, str]])
assert_type(users.left_join(names, lambda user, name: name), KTable[str, str | None])
assert_type(users.outer_join(names, lambda user, name: (user, name)), KTable[str, tuple[User | None, str | None]])
users.outer_join(names, lambda user, name: user.name)  # type: ignore[union-attr]
users.join(by_name.count(), lambda user, count: count + "")  # type: ignore[operator]
orders.map(lambda key, order: (1, order)).join(users, lambda order, user: user)  # type: ignore[arg-type]


class Greeting:
    def init(self, context: ProcessorContext) -> None: ...
    def transform(self, key: str, value: User | None) -> str:
        return key


assert_type(users.transform_values(Greeting), KTable[str, str])
names.transform_values(Greeting)  # type: ignore[arg-type]

# Joins of tables by foreign key
latest = orders.map_values(lambda order: order).select_key(lambda key, order: 1).to_table()
assert_type(
    latest.join(users, lambda order, user: (order, user), foreign_key=lambda order: order.user),
    KTable[int, tuple[Order, User]],
)
assert_type(
    latest.left_join(
        users, lambda order, user: user, foreign_key=lambda key, order: f"{key}{order.user}", foreign_key_with_key=True
    ),
    KTable[int, User | None],
)
latest.left_join(users, lambda order, user: user.name, foreign_key=lambda order: order.user)  # type: ignore[union-attr]
latest.join(users, lambda order, user: user.name, foreign_key=lambda order: order.amount)  # type: ignore[arg-type, return-value]
latest.join(users, lambda order, user: user.name)  # type: ignore[arg-type]

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


class EnrichValues:
    def init(self, context: FixedKeyProcessorContext) -> None:
        self.context = context
        ticks = context.schedule(timedelta(seconds=1), PunctuationType.STREAM_TIME, lambda time_ms: time_ms + 1)
        assert_type(ticks, Cancellable)
        context.schedule(1, PunctuationType.STREAM_TIME, print)  # type: ignore[arg-type]

    def process(self, record: FixedKeyRecord[str, Order]) -> None:
        assert_type(record.key, str)
        self.context.forward(record.with_value(record.value.amount))
        self.context.forward(Record(record.key, record.value, 0))  # type: ignore[arg-type]


class EnrichUsers:
    def init(self, context: FixedKeyProcessorContext) -> None: ...
    def process(self, record: FixedKeyRecord[str, User]) -> None: ...


assert_type(orders.process(Enrich, Stores.key_value_store("seen", key=str, value=int)), KStream[Any, Any])
assert_type(orders.process(Enrich, key=str, value=float), KStream[str, float])
assert_type(orders.process_values(EnrichValues, value=float), KStream[str, float])
assert_type(orders.process_values(EnrichValues), KStream[str, Any])
orders.process(OfUsers)  # type: ignore[arg-type]
orders.process_values(EnrichUsers)  # type: ignore[arg-type]
assert_type(Topology().add_source("in", "in").add_processor("p", Enrich, "in").add_sink("out", "o", "p"), Topology)
assert_type(StreamsBuilder(optimize=True, strict_naming=True).topology, Topology)
StreamsBuilder().stream("in", key=str, value=int, on_deserialization_error=DeadLetter("dead"))
StreamsConfig(application_id="app", on_processing_error="drop")  # type: ignore[arg-type]
patient = Retry([timedelta(seconds=1)], then=DeadLetter("dead"))
Retry([timedelta(seconds=1)], then=patient)  # type: ignore[arg-type]
StreamsConfig(application_id="app", on_processing_error=patient, on_production_error=lambda failed: "skip")
assert_type(orders.map_values(lambda order: order.amount, on_error=patient), KStream[str, float])
assert_type(orders.filter(lambda key, order: True, on_error=lambda failed: patient), KStream[str, Order])
assert_type(orders.process_values(EnrichValues, value=float, on_error="skip"), KStream[str, float])
assert_type(orders.group_by_key().aggregate(lambda: 0, lambda k, v, n: n + 1, on_error=patient), KTable[str, int])
parked = RetryTopics([timedelta(hours=1)], then=DeadLetter("dead"), keep_order=True)
assert_type(orders.map_values(lambda order: order.amount, on_error=parked), KStream[str, float])
RetryTopics([timedelta(hours=1)], then=patient)  # type: ignore[arg-type]
orders.to("out", on_error="drop")  # type: ignore[arg-type]
orders.to("out", partitioner=lambda topic, key, order, partitions: 0)
orders.to(lambda key, order, context: "out")

held_back = Suppressed.until_time_limit(timedelta(seconds=5), BufferConfig.max_records(100))
assert_type(users.suppress(held_back), KTable[str, User])
users.suppress(BufferConfig.unbounded())  # type: ignore[arg-type]
Suppressed.until_time_limit(5, BufferConfig.unbounded())  # type: ignore[arg-type]
assert_type(orders.deduplicate(timedelta(seconds=5)), KStream[str, Order])
assert_type(orders.deduplicate(timedelta(seconds=5), id_selector=lambda key, order: order.amount), KStream[str, Order])
orders.deduplicate(5)  # type: ignore[arg-type]
orders.deduplicate(timedelta(seconds=5), id_selector=lambda order: order)  # type: ignore[misc,arg-type]
Stores.lru_map("latest", key=str, value=int, max_entries="3")  # type: ignore[arg-type]
Stores.key_value_store("seen", key=str, value=int, ttl=5)  # type: ignore[arg-type]


# -- Functions that are awaited ----------------------------------------------------------------------------------------


async def price(order: Order) -> float:
    return order.amount


async def named(key: str, order: Order) -> tuple[int, str]:
    return len(key), order.user


async def parts(order: Order) -> list[int]:
    return [int(order.amount)]


async def streamed(order: Order) -> AsyncIterator[int]:
    yield int(order.amount)


async def pairs(key: str, order: Order) -> AsyncIterator[tuple[int, str]]:
    yield len(key), order.user


async def known(key: str, order: Order) -> bool:
    return True


async def keyed(key: str, order: Order) -> float:
    return order.amount


assert_type(orders.map_values(price, concurrency=8, ordered="partition"), KStream[str, float])
assert_type(orders.map_values(keyed, with_key=True, timeout=timedelta(seconds=1)), KStream[str, float])
assert_type(orders.map(named, ordered="none"), KStream[int, str])
assert_type(orders.flat_map_values(parts), KStream[str, int])
assert_type(orders.flat_map_values(streamed), KStream[str, int])
assert_type(orders.flat_map(pairs), KStream[int, str])
assert_type(orders.filter(known, concurrency=2), KStream[str, Order])
market = Service("market", RateLimit(10), CircuitBreaker(errors=lambda error: isinstance(error, OSError)))
assert_type(orders.map_values(price, service=market), KStream[str, float])
assert_type(orders.with_record_id(), KStream[str, Order])
clocked = builder.stream("clocked", key=str, value=Order, timestamp_extractor=WallclockTimestampExtractor())
assert_type(clocked, KStream[str, Order])
assert_type(orders.peek(keyed), KStream[str, Order])
orders.map_values(price, ordered="keys")  # type: ignore[call-overload]
