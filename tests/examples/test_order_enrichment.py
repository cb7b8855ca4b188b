"""`examples/order_enrichment.py` against a real HTTP server that is slow, down, or does not know a product yet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest

from examples.order_enrichment import CompletedOrder, Order, topology
from streamlib.testing import TopologyTestDriver
from tests.exactly_once.harness import Bench, Worker
from tests.examples.products import Products, served
from tests.examples.samples import SAMPLES

FOLDER = SAMPLES["order_enrichment"].folder


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> Iterator[Products]:
    with served(FOLDER) as products:
        monkeypatch.setenv("PRODUCTS_URL", products.url)
        yield products


class Shop:
    def __init__(self, driver: TopologyTestDriver) -> None:
        self.driver = driver
        self._orders = driver.input_topic("web-orders", key=str, value=Order)
        self._completed = driver.output_topic("completed-orders", key=str, value=CompletedOrder)
        self._dead = driver.output_topic("orders-without-product", key=str, value=Order)

    def order(self, number: int, sku: str, customer: str = "ann") -> None:
        self._orders.pipe_input(customer, Order(number, sku, quantity=1))

    @property
    def completed(self) -> list[int]:
        return [order.id for order in self._completed.read_values() if order is not None]

    @property
    def given_up(self) -> list[int]:
        return [order.id for order in self._dead.read_values() if order is not None]


@pytest.fixture
def shop(products: Products) -> Iterator[Shop]:
    with TopologyTestDriver(topology().build(), config=SAMPLES["order_enrichment"].config) as driver:
        yield Shop(driver)


def test_product_that_is_known_a_little_later_is_asked_for_again(shop: Shop, products: Products) -> None:
    products.hidden["t-1"] = 2
    shop.order(1, "t-1")
    assert (shop.completed, shop.given_up, products.asked["t-1"]) == ([1], [], 3)


def test_product_that_nobody_knows_is_given_up(shop: Shop, products: Products) -> None:
    shop.order(1, "x-9")
    shop.order(2, "t-1")
    assert (shop.completed, shop.given_up, products.asked["x-9"]) == ([2], [1], 3)


def test_orders_wait_in_their_order_while_the_service_is_down(shop: Shop, products: Products) -> None:
    products.works = False
    for number in range(8):
        shop.order(number, "t-1", customer="ab"[number % 2])
    shop.driver.advance_wall_clock(timedelta(seconds=30))
    assert shop.driver.services["products"].breaker == "open"
    assert (shop.completed, shop.given_up) == ([], [])
    products.works = True
    shop.driver.advance_wall_clock(timedelta(seconds=2))
    completed = shop.completed
    assert [number for number in completed if number % 2 == 0] == [0, 2, 4, 6]
    assert [number for number in completed if number % 2] == [1, 3, 5, 7]
    assert shop.given_up == []


async def test_worker_that_is_killed_completes_each_order_once_and_in_order(bench: Bench, products: Products) -> None:
    bench.topology = "enriched"
    dead = f"{bench.name}-dead"
    await bench.create_topic(dead)
    products.takes_s = 0.02
    skus = ("t-1", "t-2", "p-7", "x-9")
    orders = [
        ("abcdefgh"[number % 8], Order(number, skus[number % 4 if number < 40 else 0], 1)) for number in range(200)
    ]
    await bench.produce((key, json.dumps({"id": o.id, "sku": o.sku, "quantity": 1})) for key, o in orders)
    victim = bench.start()
    await bench.until(lambda: asked(products, 60), victim)
    victim.kill()
    products.works = False
    worker = bench.start()
    await bench.until(lambda: opened_breaker(worker), worker)
    products.works = True
    await bench.until_all_committed(worker)
    await worker.stop()

    assert 1 < products.most_at_once <= 100, "calls of two tasks, up to 50 each"
    completed = [(seen.key, json.loads(str(seen.value))["id"]) for seen in await bench.read(value=str)]
    given_up = [(seen.key, json.loads(str(seen.value))["id"]) for seen in await bench.read(dead, value=str)]
    for found, is_known in ((completed, True), (given_up, False)):
        wanted = [(key, order.id) for key, order in orders if (order.sku != "x-9") is is_known]
        assert sorted(found) == sorted(wanted)
        for customer in "abcdefgh":
            assert [number for key, number in found if key == customer] == sorted(
                number for key, number in wanted if key == customer
            )


async def asked(products: Products, times: int) -> bool:
    return products.asked.total() >= times


async def opened_breaker(worker: Worker) -> bool:
    services = worker.status.get("services") or {}
    return bool(services) and services["products"]["opened"] > 0
