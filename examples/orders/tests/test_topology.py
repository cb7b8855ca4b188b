from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from shop.records import Customer, Item, Order, Payment, Reminder, Revenue
from shop.topology import topology

from streamlib import Record
from streamlib.testing import TopologyTestDriver, simulate

MINUTE = 60_000
NOON_MS = int(datetime(2026, 1, 5, 12, tzinfo=UTC).timestamp() * 1000)


class Shop:
    """The application without a broker. Times are in minutes after noon."""

    def __init__(self, driver: TopologyTestDriver) -> None:
        self._driver = driver
        self._orders = driver.input_topic("orders", key=str, value=Order)
        self._payments = driver.input_topic("payments", key=str, value=Payment)
        self._customers = driver.input_topic("customers", key=str, value=Customer)

    def customer(self, id: str, name: str) -> None:
        self._customers.pipe_input(id, Customer(name, f"{id}@example.org"), NOON_MS)

    def order(self, id: str, minute: float, price: int = 1000, customer: str = "ann", country: str = "DE") -> None:
        order = Order(customer, country, (Item("tea", 1, price),))
        self._orders.pipe_input(id, order, NOON_MS + int(minute * MINUTE))

    def pay(self, id: str, minute: float, amount: int = 1000) -> None:
        self._payments.pipe_input(id, Payment(amount), NOON_MS + int(minute * MINUTE))

    def reminders(self) -> list[tuple[str | None, Reminder | None]]:
        return self._driver.output_topic("reminders", key=str, value=Reminder).read_key_values()

    def revenue(self) -> list[tuple[str | None, Revenue | None]]:
        return self._driver.output_topic("revenue", key=str, value=Revenue).read_key_values()

    def failed(self) -> list[bytes | None]:
        return [record.key for record in self._driver.output_topic("orders-failed").read_records()]


@pytest.fixture
def shop() -> Iterator[Shop]:
    with TopologyTestDriver(topology().build()) as driver:
        shop = Shop(driver)
        shop.customer("ann", "Ann")
        yield shop


def test_order_that_is_paid_in_time_brings_revenue_and_no_reminder(shop: Shop) -> None:
    shop.order("o1", 0)
    shop.pay("o1", 59)
    shop.order("o2", 300)
    shop.pay("o2", 301)
    assert shop.reminders() == []
    assert shop.revenue() == [("DE", Revenue(datetime(2026, 1, 5, 12, tzinfo=UTC), 1, 1000))]


def test_order_that_is_not_paid_within_the_hour_and_its_grace_leads_to_one_reminder(shop: Shop) -> None:
    shop.order("o1", 0, price=4870)
    shop.order("o2", 64)
    assert shop.reminders() == []
    shop.order("o3", 66)
    assert shop.reminders() == [("ann", Reminder("Ann", "ann@example.org", 4870))]
    shop.pay("o1", 70)
    assert shop.reminders() == []


def test_payment_that_comes_before_its_order_in_the_stream_counts(shop: Shop) -> None:
    shop.pay("o1", 2)
    shop.order("o1", 1)
    shop.order("o9", 200)
    shop.pay("o9", 201)
    assert shop.revenue() == [("DE", Revenue(datetime(2026, 1, 5, 12, tzinfo=UTC), 1, 1000))]


def test_order_that_makes_no_sense_is_put_aside(shop: Shop) -> None:
    shop.order("o1", 0, price=-5)
    assert shop.failed() == [b"o1"]


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_lost_or_twice_when_workers_are_killed(seed: int) -> None:
    at = [NOON_MS + number * MINUTE for number in range(20)]
    orders = [Record(f"o{n}", Order("ann", "DE", (Item("tea", 1, 100),)), at[n]) for n in range(20)]
    payments = [Record(f"o{n}", Payment(100), at[n] + 1) for n in range(0, 20, 2)]
    customers = [Record("ann", Customer("Ann", "ann@example.org"), NOON_MS)]
    simulate(topology().build(), {"orders": orders, "payments": payments, "customers": customers}, seed=seed)
