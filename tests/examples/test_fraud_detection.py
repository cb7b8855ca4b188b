"""The rules of `examples/fraud_detection.py`: what raises an alert, in whatever order payments come, and how often."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from examples.fraud_detection import Alert, Customer, Payment, topology
from streamlib.testing import TopologyTestDriver

SECOND, MINUTE = 1_000, 60_000
NOON_MS = 12 * 60 * MINUTE


class Bank:
    def __init__(self, driver: TopologyTestDriver) -> None:
        self._payments = driver.input_topic("card-payments", key=str, value=Payment)
        self._alerts = driver.output_topic("fraud-alerts", key=str, value=Alert)
        customers = driver.input_topic("customers", key=str, value=Customer)
        customers.pipe_input("ann", Customer("Ann", "DE", hourly_limit=100_00), timestamp_ms=0)

    def pay(self, at_ms: int, amount: int = 1_00, country: str = "DE", customer: str = "ann") -> list[str]:
        """The rules that raise an alert."""
        self._payments.pipe_input(customer, Payment(amount, country), NOON_MS + at_ms)
        return [alert.rule for alert in self._alerts.read_values() if alert is not None]


@pytest.fixture
def bank() -> Iterator[Bank]:
    with TopologyTestDriver(topology().build()) as driver:
        yield Bank(driver)


@pytest.mark.parametrize("order", list(itertools.permutations((5, 20, 35, 50))))
def test_fourth_payment_of_a_minute_is_too_many_in_any_order(bank: Bank, order: tuple[int, ...]) -> None:
    alerts = [bank.pay(second * SECOND) for second in order]
    assert alerts == [[], [], [], ["too many"]]
    assert bank.pay(55 * SECOND) == []  # once for each window
    assert [bank.pay(MINUTE + second * SECOND) for second in (0, 1, 2, 3)] == [[], [], [], ["too many"]]


def test_payments_of_two_minutes_are_not_added_up(bank: Bank) -> None:
    assert [bank.pay(at * SECOND) for at in (50, 55, 59, 60, 61, 62)] == [[]] * 6


def test_late_payment_counts_within_the_grace_and_not_after_it(bank: Bank) -> None:
    for at in (10, 20, 30):
        bank.pay(at * SECOND)
    bank.pay(6 * MINUTE - 1)  # the first minute is open until six minutes have gone
    assert bank.pay(40 * SECOND) == ["too many"]
    bank.pay(2 * MINUTE + 1)
    bank.pay(2 * MINUTE + 2)
    bank.pay(2 * MINUTE + 3)
    bank.pay(8 * MINUTE)
    assert bank.pay(2 * MINUTE + 4) == []


def test_limit_of_an_hour_is_passed_once_in_each_hour_that_has_the_payments(bank: Bank) -> None:
    assert bank.pay(31 * MINUTE, 60_00) == []
    assert bank.pay(45 * MINUTE, 40_00) == []  # just the limit
    assert bank.pay(46 * MINUTE, 1) == ["too much", "too much"]  # in the hours from 12:00 and from 12:30
    assert bank.pay(47 * MINUTE, 50_00) == []


def test_large_amount_abroad_is_told_and_a_small_one_is_not(bank: Bank) -> None:
    assert bank.pay(0, 499_99, "US") == ["too much", "too much"]
    assert bank.pay(2 * 60 * MINUTE, 500_00, "US") == ["too much", "too much", "abroad"]
    assert "abroad" not in bank.pay(4 * 60 * MINUTE, 500_00, "DE")


def test_amount_far_above_the_average_is_unusual_once_there_is_one(bank: Bank) -> None:
    for number in range(4):
        assert bank.pay(number * MINUTE, 2_00) == []
    assert bank.pay(4 * MINUTE, 30_00) == []  # too few before it
    assert bank.pay(5 * MINUTE, 60_00) == []  # the average is 7.60 by now
    assert bank.pay(3 * 60 * MINUTE, 99_00) == []
    assert bank.pay(6 * 60 * MINUTE, 500_00) == ["too much", "too much", "unusual"]


def test_payments_of_somebody_unknown_are_left_out(bank: Bank) -> None:
    assert bank.pay(0, 1_000_00, "US", customer="nobody") == []
