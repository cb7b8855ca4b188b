"""Payments into PostgreSQL: each of them once, however often it is written.

    POSTGRES_DSN=postgresql://localhost/shop streamlib run examples/payments_to_postgres.py

Needs `pip install asyncpg`, a database, and the topic `payments`; see README.md beside this file.

A worker that is killed has written payments whose offsets it had not committed; the next one writes them again. The id
of the record tells the database that it has them: in one statement it takes the payment if it is new, and only then
adds it to the balance. While the database is down, records wait.
"""

import asyncio
import os
from datetime import timedelta

import asyncpg
import msgspec

from streamlib import CircuitBreaker, Service, StreamsBuilder, record_metadata

TABLES = """
CREATE TABLE IF NOT EXISTS payments (record_id text PRIMARY KEY, account text NOT NULL, amount bigint NOT NULL);
CREATE TABLE IF NOT EXISTS balances (account text PRIMARY KEY, balance bigint NOT NULL);
"""

TAKE = """
WITH taken AS (
    INSERT INTO payments (record_id, account, amount) VALUES ($1, $2, $3)
    ON CONFLICT (record_id) DO NOTHING
    RETURNING account, amount
)
INSERT INTO balances (account, balance) SELECT account, amount FROM taken
ON CONFLICT (account) DO UPDATE SET balance = balances.balance + excluded.balance
"""


class Payment(msgspec.Struct):
    """A payment as it is in the topic: JSON. In cents."""

    amount: int


class Database:
    """The tables, behind a pool of connections that the first call opens, in the worker's event loop."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._opening = asyncio.Lock()
        self._pool: asyncpg.Pool | None = None

    async def take(self, account: str, payment: Payment) -> None:
        """Write a payment, unless it is there."""
        record = record_metadata()
        assert record is not None, "called for a record"
        pool = await self._open()
        await pool.execute(TAKE, record.id, account, payment.amount)

    async def _open(self) -> asyncpg.Pool:
        async with self._opening:
            if self._pool is None:
                pool = await asyncpg.create_pool(self._dsn, min_size=1, max_size=8)
                await pool.execute(TABLES)
                self._pool = pool
            return self._pool


def topology(source: str = "payments") -> StreamsBuilder:
    """Each payment to the database; of an account one after the other."""
    database = Database(os.environ.get("POSTGRES_DSN", "postgresql://localhost/postgres"))
    trouble = (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.CannotConnectNowError)
    service = Service("postgres", breaker=CircuitBreaker(open_for=timedelta(seconds=5), errors=trouble))
    builder = StreamsBuilder()
    builder.stream(source, key=str, value=Payment).foreach(
        database.take, concurrency=32, timeout=timedelta(seconds=10), service=service
    )
    return builder


config = {"application_id": "payments", "processing_guarantee": "exactly_once_v2"}
