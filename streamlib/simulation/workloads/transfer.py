"""Moves between accounts. Whatever happens, nothing is gained or lost: both balances change in one transaction."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import msgspec

from streamlib.dsl.builder import StreamsBuilder
from streamlib.dsl.processor import ProcessorContext
from streamlib.dsl.stores import Stores
from streamlib.records import Record
from streamlib.simulation.differences import Result, Row
from streamlib.simulation.workloads.drawing import Draw, keys_of
from streamlib.simulation.workloads.reading import Store, Topic
from streamlib.simulation.workloads.workload import PARTITIONS, Input, Seen, Workload
from streamlib.topology.topology import Topology

ACCOUNTS = 3
"""In each partition. They begin with nothing and may be overdrawn."""


class Move(msgspec.Struct, frozen=True):
    """From the account that is the record's key."""

    to: str
    amount: int


IN = Topic("moves", str, Move)
OUT = Topic("balances", str, int)
BALANCES = Store("accounts", str, int, timed=False)


class Bank:
    """Keeps the balances, and says both of a move."""

    def init(self, context: ProcessorContext) -> None:
        self._context = context
        self._balances = context.state_store(BALANCES.name)

    def process(self, record: Record[str, Move]) -> None:
        """Do a move."""
        move = record.value
        for account, amount in ((record.key, -move.amount), (move.to, move.amount)):
            balance = (self._balances.get(account) or 0) + amount
            self._balances.put(account, balance)
            self._context.forward(record.with_key(account).with_value(balance))


def topology() -> Topology:
    builder = StreamsBuilder()
    builder.add_state_store(Stores.key_value_store(BALANCES.name, key=str, value=int))
    balances = builder.stream(IN.name, key=str, value=Move).process(Bank, BALANCES.name, key=str, value=int)
    balances.to(OUT.name)
    return builder.build()


def inputs(rng: random.Random, count: int) -> list[Input]:
    """Moves between two accounts of one partition."""
    draw = Draw(rng, keys=ACCOUNTS)
    times = draw.times(step_ms=50)
    drawn: list[Input] = []
    for partition, account, _ in draw.records(count):
        other = rng.choice([each for each in keys_of(partition, ACCOUNTS) if each != account])
        drawn.append(IN.record(partition, account, Move(other, rng.randint(1, 100)), times[partition].next()))
    return drawn


def moved(rows: Iterable[Row]) -> list[Result]:
    """Both balances of each move."""
    balances: dict[str, int] = {}
    results: list[Result] = []
    for row in rows:
        for account, amount in ((row.key, -row.value.amount), (row.value.to, row.value.amount)):
            balances[account] = balances.get(account, 0) + amount
            results.append(Result(account, balances[account], row.timestamp))
    return results


def check(seen: Seen) -> list[str]:
    expected = {partition: moved(rows) for partition, rows in IN.inputs(seen).items()}
    last = {result.key: result.value for results in expected.values() for result in results}
    sums = [found for rows in OUT.outputs(seen).values() for found in _sums(rows)]
    return sums + OUT.in_order(seen, expected) + BALANCES.holds(seen, last)


def _sums(rows: Sequence[Row]) -> list[str]:
    """Whether the last balances come to nothing after each move; needs no knowledge of the moves."""
    balances: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        if not isinstance(row.value, int):
            return [f"{row.place}: {row.value!r} is no balance"]
        balances[row.key] = row.value
        if number % 2 == 0 and (total := sum(balances.values())) != 0:
            return [f"{row.place}: all balances come to {total}, not 0"]
    return [f"{rows[-1].place}: half a move"] if len(rows) % 2 else []


TRANSFER = Workload(
    name="transfer",
    about="the balances of all accounts come to nothing after each move, and are right",
    topics={IN.name: PARTITIONS, OUT.name: PARTITIONS},
    outputs=(OUT.name,),
    topology=topology,
    inputs=inputs,
    check=check,
)
