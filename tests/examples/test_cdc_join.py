"""`examples/cdc_join.py`: whatever a database does to two tables, the joined one follows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from examples.cdc_join import Change, Customer, Id, Order, OrderWithCustomer, topology
from streamlib.testing import TopologyTestDriver


class Replica:
    """Writes changes as Debezium does, and keeps the joined table as its changes say."""

    def __init__(self, driver: TopologyTestDriver) -> None:
        self._topics = {
            "customers": driver.input_topic("shop.db.customers", key=Id, value=Change),
            "orders": driver.input_topic("shop.db.orders", key=Id, value=Change),
        }
        self._joined = driver.output_topic("orders-with-customers", key=Id, value=OrderWithCustomer)
        self._rows: dict[str, dict[int, Any]] = {"customers": {}, "orders": {}}
        self._result: dict[int, OrderWithCustomer] = {}

    def write(self, table: str, row: Customer | Order) -> None:
        before = self._rows[table].get(row.id)
        self._rows[table][row.id] = row
        operation: Any = "c" if before is None else "u"
        self._topics[table].pipe_input(Id(row.id), Change(operation, before, row))

    def delete(self, table: str, number: int) -> None:
        """An envelope, and a tombstone behind it."""
        if (before := self._rows[table].pop(number, None)) is not None:
            self._topics[table].pipe_input(Id(number), Change("d", before, None))
            self._topics[table].pipe_input(Id(number), None)

    @property
    def result(self) -> dict[int, OrderWithCustomer]:
        for record in self._joined.read_records():
            assert record.key is not None
            if record.value is None:
                del self._result[record.key.id]  # each row is deleted once
            else:
                self._result[record.key.id] = record.value
        return self._result

    @property
    def expected(self) -> dict[int, OrderWithCustomer]:
        """What the database would say."""
        found = {}
        for order in self._rows["orders"].values():
            customer = self._rows["customers"].get(order.customer_id)
            known = (None, None) if customer is None else (customer.name, customer.city)
            found[order.id] = OrderWithCustomer(order.amount, *known)
        return found


@pytest.fixture
def replica() -> Iterator[Replica]:
    with TopologyTestDriver(topology().build()) as driver:
        yield Replica(driver)


def test_order_waits_for_its_customer_and_changes_with_it(replica: Replica) -> None:
    replica.write("orders", Order(101, 1, 500))
    assert replica.result == {101: OrderWithCustomer(500, None, None)}
    replica.write("customers", Customer(1, "Ann", "Ulm"))
    assert replica.result == {101: OrderWithCustomer(500, "Ann", "Ulm")}
    replica.write("customers", Customer(1, "Ann", "Jena"))
    assert replica.result == {101: OrderWithCustomer(500, "Ann", "Jena")}
    replica.delete("customers", 1)
    assert replica.result == {101: OrderWithCustomer(500, None, None)}


def test_order_moves_to_another_customer_and_goes(replica: Replica) -> None:
    replica.write("customers", Customer(1, "Ann", "Ulm"))
    replica.write("customers", Customer(2, "Bob", "Bonn"))
    replica.write("orders", Order(101, 1, 500))
    replica.write("orders", Order(101, 2, 500))
    replica.write("customers", Customer(1, "Ann", "Jena"))  # no longer its customer
    assert replica.result == {101: OrderWithCustomer(500, "Bob", "Bonn")}
    replica.delete("orders", 101)
    assert replica.result == {}


def test_envelope_as_debezium_writes_it_is_understood(replica: Replica) -> None:
    with TopologyTestDriver(topology().build()) as driver:
        envelope = (
            b'{"before":null,"after":{"id":7,"customer_id":null,"amount":5,"note":"new column"},'
            b'"source":{"connector":"postgresql","lsn":24023128},"transaction":null,"op":"r","ts_ms":1767607260000}'
        )
        driver.input_topic("shop.db.orders").pipe_input(b'{"id":7}', envelope)
        out = driver.output_topic("orders-with-customers", key=Id, value=OrderWithCustomer)
        assert out.read_key_values() == [(Id(7), OrderWithCustomer(5, None, None))]


@pytest.mark.parametrize("seed", range(20))
def test_joined_table_is_that_of_the_database_after_any_changes(replica: Replica, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        customer, order = chance.randrange(4), 100 + chance.randrange(5)
        match chance.randrange(5):
            case 0 | 1:
                replica.write("orders", Order(order, chance.choice([None, 0, 1, 2, 3]), chance.randrange(3)))
            case 2:
                replica.write("customers", Customer(customer, chance.choice("AB"), chance.choice("UV")))
            case 3:
                replica.delete("customers", customer)
            case _:
                replica.delete("orders", order)
        assert replica.result == replica.expected
