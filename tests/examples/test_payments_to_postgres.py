"""`examples/payments_to_postgres.py` against a real PostgreSQL: workers are killed, the database is, too."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from tests.exactly_once.harness import Bench, Worker
from tests.examples.postgres import Postgres, running

COUNT_ATTEMPTS = """
CREATE TABLE payments (record_id text PRIMARY KEY, account text NOT NULL, amount bigint NOT NULL);
CREATE TABLE attempts (record_id text NOT NULL);
CREATE FUNCTION attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(0.01);
    INSERT INTO attempts VALUES (NEW.record_id);
    RETURN NEW;
END $$;
CREATE TRIGGER attempted BEFORE INSERT ON payments FOR EACH ROW EXECUTE FUNCTION attempt();
"""
"""A row in `attempts` for each payment that is written, whether the database has it already or not."""


@pytest.fixture
def postgres(monkeypatch: pytest.MonkeyPatch) -> Iterator[Postgres]:
    with running() as server:
        monkeypatch.setenv("POSTGRES_DSN", server.dsn)
        yield server


async def query(server: Postgres, sql: str) -> list[Any]:
    connection = await asyncpg.connect(server.dsn)
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


async def test_workers_and_a_database_that_are_killed_take_each_payment_once(bench: Bench, postgres: Postgres) -> None:
    bench.topology = "payments"
    connection = await asyncpg.connect(postgres.dsn)
    await connection.execute(COUNT_ATTEMPTS)
    await connection.close()
    payments = [("abcdefghijkl"[number % 12], 100 + number) for number in range(600)]
    await bench.produce([(account, json.dumps({"amount": amount})) for account, amount in payments])
    for taken in (100, 250):
        victim = bench.start()
        await bench.until(lambda taken=taken: reached(postgres, taken), victim)  # type: ignore[misc]
        victim.kill()
    worker = bench.start()
    await bench.until(lambda: reached(postgres, 350), worker)
    postgres.stop()
    await bench.until(lambda: opened_breaker(worker), worker)
    postgres.start()
    await bench.until_all_committed(worker)
    await worker.stop()

    balances: dict[str, int] = defaultdict(int)
    for account, amount in payments:
        balances[account] += amount
    assert dict(await query(postgres, "SELECT account, balance FROM balances")) == balances
    found = await query(postgres, "SELECT account, amount FROM payments")
    assert sorted(found) == sorted(payments)
    [(attempts,)] = await query(postgres, "SELECT count(*) FROM attempts")
    assert attempts > len(payments), "nothing was written twice: this test shows nothing"


async def reached(postgres: Postgres, taken: int) -> bool:
    [(count,)] = await query(postgres, "SELECT count(*) FROM payments")
    return bool(count >= taken)


async def opened_breaker(worker: Worker) -> bool:
    services = worker.status.get("services") or {}
    return bool(services) and services["postgres"]["opened"] > 0
