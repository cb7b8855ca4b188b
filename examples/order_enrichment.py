"""Order enrichment: each order is completed with what an HTTP service knows of its product.

Shows awaited functions: many calls at a time, those of one customer in order, a timeout, a circuit breaker while the
service is down, another try for products that it does not know yet, and dead letters for those it never knows. Needs
`pip install httpx`. Files will do for a service:

    python -m http.server 8081 --directory examples/data/order_enrichment
    streamlib broker topic web-orders completed-orders orders-without-product --partitions 2
    streamlib run examples/order_enrichment.py
    streamlib produce web-orders --json --recent --value json < examples/data/order_enrichment/web-orders.jsonl
    streamlib consume completed-orders --from-beginning --max 5
    streamlib consume orders-without-product --from-beginning --max 1

PRODUCTS_URL says where the service is, if not there.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import msgspec

from streamlib import CircuitBreaker, DeadLetter, FailedRecord, Retry, Service, StreamsBuilder


class Order(msgspec.Struct):
    """An order as it is in the topic; its key is the customer."""

    id: int
    sku: str
    quantity: int


class Product(msgspec.Struct):
    """What the service answers. In cents."""

    name: str
    price: int


class CompletedOrder(msgspec.Struct):
    """An order with all that others need."""

    id: int
    name: str
    quantity: int
    total: int


class Products:
    """The service, behind a client that is open while the worker runs."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: httpx.AsyncClient | None = None

    @asynccontextmanager
    async def client(self) -> AsyncIterator[None]:
        """Open it; nobody is connected to before the first call."""
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=64), timeout=None) as self._client:
            yield

    async def complete(self, order: Order) -> CompletedOrder:
        """Ask for the product; it may be asked for more than once, which changes nothing there."""
        assert self._client is not None, "open while the worker runs"
        response = await self._client.get(f"{self._url}/{order.sku}.json")
        response.raise_for_status()
        product = msgspec.json.decode(response.content, type=Product)
        return CompletedOrder(order.id, product.name, order.quantity, order.quantity * product.price)


def down(error: Exception) -> bool:
    """Whether the service does not work: all orders wait until it does."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (429, 500, 502, 503, 504)
    return isinstance(error, httpx.TransportError | TimeoutError)


def is_unknown(error: Exception) -> bool:
    """Whether the service does not know the product, which may be too new."""
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code == 404


def topology(
    source: str = "web-orders", sink: str = "completed-orders", dead: str = "orders-without-product"
) -> StreamsBuilder:
    """Orders in, completed orders out."""

    def decide(failed: FailedRecord) -> Retry | DeadLetter:
        """What becomes of an order that the service refuses."""
        if is_unknown(failed.error):
            return Retry(delays=[timedelta(seconds=0.5), timedelta(seconds=1)], then=DeadLetter(dead))
        return DeadLetter(dead)

    products = Products(os.environ.get("PRODUCTS_URL", "http://localhost:8081/products"))
    service = Service("products", breaker=CircuitBreaker(failures=5, open_for=timedelta(seconds=1), errors=down))
    builder = StreamsBuilder()
    builder.add_lifespan(products.client)
    (
        builder.stream(source, key=str, value=Order)
        .map_values(
            products.complete,
            concurrency=50,
            ordered="key",
            timeout=timedelta(seconds=2),
            service=service,
            on_error=decide,
            name="complete",
        )
        .to(sink)
    )
    return builder


config = {"application_id": "order-enrichment", "processing_guarantee": "exactly_once_v2"}
