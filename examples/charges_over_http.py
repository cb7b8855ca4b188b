"""Orders charged by an HTTP service: each of them once, however often the service is called.

    CHARGES_URL=http://localhost:8080/charges streamlib run examples/charges_over_http.py

Needs `pip install httpx`, a service that takes an `Idempotency-Key`, and the topics `orders` and `receipts`; see
README.md beside this file.

A worker that is killed has made calls whose results it had not committed; the next one makes them again. The service
knows by the key that it has charged for this record, and gives the receipt it gave then. While it is down or
overloaded, records wait, and it is never called more than a hundred times a second.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import msgspec

from streamlib import CircuitBreaker, RateLimit, Service, StreamsBuilder, record_metadata


class Order(msgspec.Struct):
    """An order as it is in the topic: JSON. In cents."""

    amount: int


class Receipt(msgspec.Struct):
    """What the service answers."""

    id: str
    amount: int


class Charges:
    """The service, behind a client that is open while the worker runs."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: httpx.AsyncClient | None = None

    @asynccontextmanager
    async def client(self) -> AsyncIterator[None]:
        """Open it; nobody is connected to before the first call."""
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=32), timeout=None) as self._client:
            yield

    async def charge(self, user: str, order: Order) -> Receipt:
        """Have the user charged for the order, unless that has been done."""
        record = record_metadata()
        assert record is not None, "called for a record"
        assert self._client is not None, "open while the worker runs"
        response = await self._client.post(
            self._url, json={"user": user, "amount": order.amount}, headers={"Idempotency-Key": record.id}
        )
        response.raise_for_status()
        return msgspec.json.decode(response.content, type=Receipt)


def down(error: Exception) -> bool:
    """Whether the service does not work; "400 Bad Request" is the order's fault."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (429, 500, 502, 503, 504)
    return isinstance(error, httpx.TransportError | TimeoutError)


def topology(source: str = "orders", sink: str = "receipts") -> StreamsBuilder:
    """Orders in, receipts out."""
    charges = Charges(os.environ.get("CHARGES_URL", "http://localhost:8080/charges"))
    service = Service(
        "charges",
        rate_limit=RateLimit(100, per=timedelta(seconds=1)),
        breaker=CircuitBreaker(failures=5, open_for=timedelta(seconds=2), errors=down),
    )
    builder = StreamsBuilder()
    builder.add_lifespan(charges.client)
    (
        builder.stream(source, key=str, value=Order)
        .map_values(charges.charge, with_key=True, concurrency=16, timeout=timedelta(seconds=10), service=service)
        .to(sink)
    )
    return builder


config = {"application_id": "charges", "processing_guarantee": "exactly_once_v2"}
