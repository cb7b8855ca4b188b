"""`examples/sessions.py`: when a visit is over, and what becomes of clicks that come late."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from examples.sessions import Click, Visit, topology
from streamlib.testing import TopologyTestDriver

MINUTE = 60_000
BEGIN = datetime(2026, 1, 5, 10, tzinfo=UTC)


class Shop:
    def __init__(self, driver: TopologyTestDriver) -> None:
        self.driver = driver
        self._clicks = driver.input_topic("clicks", key=str, value=Click)
        self._visits = driver.output_topic("visits", key=str, value=Visit)

    def click(self, minute: float, page: str = "/", paid: int = 0, visitor: str = "ann") -> None:
        self._clicks.pipe_input(visitor, Click(page, paid), int(BEGIN.timestamp() * 1000 + minute * MINUTE))

    def visits(self) -> list[tuple[float, float, int]]:
        """Of those that are over: minutes from and to, clicks."""
        told = [visit for visit in self._visits.read_values() if visit is not None]
        return [(self._minute(visit.begin), self._minute(visit.end), visit.clicks) for visit in told]

    @staticmethod
    def _minute(moment: datetime) -> float:
        return (moment - BEGIN) / timedelta(minutes=1)


@pytest.fixture
def shop() -> Iterator[Shop]:
    with TopologyTestDriver(topology().build()) as driver:
        yield Shop(driver)


@pytest.mark.parametrize("order", list(itertools.permutations((0, 20, 34))))
def test_clicks_with_short_gaps_are_one_visit_in_any_order(shop: Shop, order: tuple[int, ...]) -> None:
    for minute in order:
        shop.click(minute)
    assert shop.visits() == []
    shop.click(34 + 35, visitor="bob")  # gap and grace of ann's are not over yet
    assert shop.visits() == []
    shop.click(34 + 35.1, visitor="bob")
    assert shop.visits() == [(0, 34, 3)]


def test_longer_gap_makes_two_visits_and_a_late_click_makes_one_of_them_again(shop: Shop) -> None:
    shop.click(0)
    shop.click(31, "/tea")
    shop.click(16, "/paid", paid=500)
    shop.click(120, visitor="bob")
    assert shop.visits() == [(0, 31, 3)]
    shop.click(200)
    shop.click(231)
    shop.click(300)
    assert shop.visits() == [(120, 120, 1), (200, 200, 1), (231, 231, 1)]


def test_summary_counts_pages_once_and_money_always(shop: Shop) -> None:
    for minute, page, paid in ((0, "/", 0), (1, "/tea", 0), (2, "/tea", 0), (3, "/paid", 500), (4, "/paid", 700)):
        shop.click(minute, page, paid)
    shop.click(100, visitor="bob")
    (visit,) = shop.driver.output_topic("visits", key=str, value=Visit).read_values()
    assert visit is not None
    assert (visit.clicks, visit.pages, visit.paid, visit.bought) == (5, 3, 1200, True)


def test_click_that_is_too_late_is_logged_and_changes_nothing(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.click(0)
    shop.click(100, visitor="bob")
    assert shop.visits() == [(0, 0, 1)]
    with caplog.at_level(logging.WARNING, "examples.sessions"):
        shop.click(1)
    assert "a click of ann came" in caplog.text
    shop.click(200, visitor="cid")
    assert shop.visits() == [(100, 100, 1)]


def test_last_visit_is_told_when_nobody_clicks_any_more(shop: Shop) -> None:
    shop.click(0)
    shop.driver.advance_wall_clock(timedelta(minutes=35))
    assert shop.visits() == []
    shop.driver.advance_wall_clock(timedelta(minutes=2))
    assert shop.visits() == [(0, 0, 1)]


def test_health_checks_are_no_clicks(shop: Shop) -> None:
    shop.click(0, "/health")
    shop.click(100, visitor="bob")
    shop.click(200, visitor="cid")
    assert shop.visits() == [(100, 100, 1)]
