"""`examples/deduplication.py`: each notice counts once, whatever the order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from examples.deduplication import Notice, topology
from streamlib.testing import TopologyTestDriver

HOUR = 3_600_000


class Account:
    def __init__(self, driver: TopologyTestDriver) -> None:
        self.driver = driver
        self._notices = driver.input_topic("notices", key=str, value=Notice)
        self._balances = driver.output_topic("balances", key=str, value=int)

    def tell(self, hour: float, id: str, amount: int = 10, account: str = "ann") -> int | None:
        """The new balance; None if it does not count."""
        self._notices.pipe_input(account, Notice(id, amount), int(hour * HOUR))
        balances = self._balances.read_values()
        return balances[0] if balances else None


@pytest.fixture
def account() -> Iterator[Account]:
    with TopologyTestDriver(topology().build()) as driver:
        yield Account(driver)


@pytest.mark.parametrize("hours", list(itertools.permutations((10, 22, 34))))
def test_repetitions_within_a_day_count_once_in_any_order(account: Account, hours: tuple[float, ...]) -> None:
    assert [account.tell(hour, "n1") is not None for hour in hours] == [True, False, False]


def test_same_id_counts_again_after_more_than_a_day(account: Account) -> None:
    assert account.tell(10, "n1") == 10
    assert account.tell(34, "n1") is None
    assert account.tell(34.01, "n1") == 20


def test_same_id_of_another_account_counts(account: Account) -> None:
    assert account.tell(10, "n1") == 10
    assert account.tell(10, "n1", account="bob") == 10


def test_what_is_remembered_goes(account: Account) -> None:
    for hour in range(0, 24 * 20, 6):
        account.tell(hour, f"n{hour}")
    assert len(account.driver.store("delivered")) <= 4 * 3  # two days, and what its segment still has
