"""A table joined with the rows of another that it refers to, through two internal topics and back.

Which results there are on the way depends on the order in which things meet. No two rows are joined twice, no result
goes back behind the one before it, and the last one of each row is right. That holds for a left join; in an inner one a
result may stay that should go (`streamlib/engine/operators/foreign_key.py`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import msgspec

from streamlib.dsl.builder import StreamsBuilder
from streamlib.foreign_keys import combined_keys
from streamlib.simulation.differences import Row
from streamlib.simulation.workloads.drawing import Draw, keys_of
from streamlib.simulation.workloads.reading import Store, Topic
from streamlib.simulation.workloads.workload import PARTITIONS, Input, Seen, Workload
from streamlib.topology.topology import Topology


class Order(msgspec.Struct, frozen=True):
    """A row that refers to another; no two have the same name."""

    user: str
    name: str


ORDERS = Topic("orders", str, Order)
USERS = Topic("users", str, str)
OUT = Topic("out", str, str)
ORDER_ROWS = Store("order-rows", str, Order)
USER_ROWS = Store("user-rows", str, str)
JOINED = Store("joined", str, str)
SUBSCRIPTIONS = Store("user-subscription-store", combined_keys(USERS.key, ORDERS.key), bytes)
USER_KEYS = {partition: keys_of(partition, 2) for partition in range(PARTITIONS)}

Versions: TypeAlias = Mapping[str, Sequence[Row]]
"""The changes of each key of a table."""

NO_USER = -1


class Step(NamedTuple):
    """Of which version of an order, and of which of its user, a result is; `NO_USER` if there is none."""

    order: int
    user: int


def topology() -> Topology:
    builder = StreamsBuilder()
    orders = builder.table(ORDERS.name, key=str, value=Order, store=ORDER_ROWS.name)
    users = builder.table(USERS.name, key=str, value=str, store=USER_ROWS.name)
    result = orders.left_join(users, joined, foreign_key=_user_of, name="user", store=JOINED.name, result=str)
    result.to_stream().to(OUT.name)
    return builder.build()


def joined(order: Order, user: str | None) -> str:
    """The names of both rows, a dash where there is no user."""
    return f"{order.name}+{user or '-'}"


def _user_of(order: Order) -> str:
    return order.user


def inputs(rng: random.Random, count: int) -> list[Input]:
    """Changes of both tables, a sixth of them deletes."""
    draw = Draw(rng, keys=2)
    times = {topic.name: draw.times(step_ms=50, late_ms=200, late_share=0.3) for topic in (ORDERS, USERS)}
    drawn: list[Input] = []
    for partition, key, name in draw.records(count):
        exists = rng.random() < 0.85
        if rng.random() < 0.6:
            order = Order(rng.choice(USER_KEYS[rng.randrange(PARTITIONS)]), name) if exists else None
            drawn.append(ORDERS.record(partition, key, order, times[ORDERS.name][partition].next()))
        else:
            user, time = rng.choice(USER_KEYS[partition]), times[USERS.name][partition].next()
            drawn.append(USERS.record(partition, user, name if exists else None, time))
    return drawn


def check(seen: Seen) -> list[str]:
    orders, users = _versions(ORDERS.inputs(seen)), _versions(USERS.inputs(seen))
    rows, last = OUT.outputs_by_key(seen), _last_results(orders, users)
    found: list[str] = []
    for key in sorted({*orders, *rows}, key=str):
        found += _compare_steps(rows.get(key, []), _steps(orders.get(key, []), users))
        found += _compare_last(key, rows.get(key, []), last.get(key))
    return [
        *found,
        *ORDER_ROWS.holds(seen, _last_rows(orders)),
        *USER_ROWS.holds(seen, _last_rows(users)),
        *JOINED.holds_values(seen, last),
        *_compare_subscriptions(seen, orders),
    ]


def _versions(partitions: Mapping[int, Sequence[Row]]) -> Versions:
    versions: dict[str, list[Row]] = {}
    for rows in partitions.values():
        for row in rows:
            versions.setdefault(row.key, []).append(row)
    return versions


def _last_rows(versions: Versions) -> dict[str, tuple[object, int]]:
    """The rows at the end: value and time."""
    last = {key: rows[-1] for key, rows in versions.items()}
    return {key: (row.value, row.timestamp) for key, row in last.items() if row.value is not None}


def _compare_subscriptions(seen: Seen, orders: Versions) -> list[str]:
    """Each order at the end, and none that was before, hears of changes of its user."""
    wanted = {(order.user, key) for key, (order, _) in _last_rows(orders).items() if isinstance(order, Order)}
    there = SUBSCRIPTIONS.keys(seen)
    missing = [f"order {key!r} does not hear of user {user!r}" for user, key in sorted(wanted - there)]
    surplus = [f"{key!r} should not be there" for key in sorted(there - wanted, key=repr)]
    return [f"store {SUBSCRIPTIONS.name}: {each}" for each in missing + surplus]


def _last_results(orders: Versions, users: Versions) -> dict[str, str]:
    """The results of the rows at the end."""
    results: dict[str, str] = {}
    for key, versions in orders.items():
        order: Order | None = versions[-1].value
        if order is not None:
            results[key] = joined(order, users[order.user][-1].value if order.user in users else None)
    return results


def _steps(orders: Sequence[Row], users: Versions) -> dict[str, Step]:
    """The results that one key can have, and of which versions they are."""
    steps: dict[str, Step] = {}
    for number, order in enumerate(orders):
        if order.value is None:
            continue
        steps[joined(order.value, None)] = Step(number, NO_USER)
        for version, user in enumerate(users.get(order.value.user, ())):
            if user.value is not None:
                steps[joined(order.value, user.value)] = Step(number, version)
    return steps


def _compare_steps(rows: Sequence[Row], steps: Mapping[str, Step]) -> list[str]:
    """Each result is of rows that belong together, and of later ones than the result before it. That there is no user
    may be said again and again."""
    found: list[str] = []
    last = Step(0, NO_USER)
    for row in rows:
        if row.value is None:
            continue
        step = steps.get(row.value)
        if step is None:
            found.append(f"{row.place}: {row.result} is of no rows that belong together")
        elif step.order < last.order or (step.order == last.order and NO_USER < step.user <= last.user):
            found.append(f"{row.place}: {row.result} " + ("comes twice" if step == last else "goes back"))
        else:
            last = max(last, step)
    return found


def _compare_last(key: object, rows: Sequence[Row], wanted: str | None) -> list[str]:
    """The last result of a key is that of the last rows."""
    last = rows[-1].value if rows else None
    if last == wanted:
        return []
    where = rows[-1].place if rows else f"topic {OUT.name}"
    return [f"{where}: the last result of {key!r} is {last!r}, not {wanted!r}"]


FOREIGN_KEY = Workload(
    name="foreign_key",
    about="results of a join by foreign key never go back and are never the same, and the last ones are right",
    topics={topic.name: PARTITIONS for topic in (ORDERS, USERS, OUT)},
    outputs=(OUT.name,),
    topology=topology,
    inputs=inputs,
    check=check,
)
