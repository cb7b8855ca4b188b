"""Brokers that refuse credentials which they have taken before: one that was restarted or replaced loads them late."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from streamlib import StreamsConfig
from streamlib.errors import ErrorCode
from streamlib.kafka.client import ClientSettings, KafkaClient
from streamlib.kafka.connection import Connection
from tests.errors.application import Running, Site, until_more_than
from tests.errors.injection import Faults, faulty_pool
from tests.errors.together import Case, Verdicts, cases
from tests.exactly_once.harness import numbered

SHORT: dict[str, Any] = {"delivery_timeout_ms": 3000, "request_timeout_ms": 1500}
PATIENCE_S = 2.0


async def that_worked_before_are_tried_again(ground: Site) -> None:
    faults = Faults()
    worker = await ground.running(faults, **SHORT)
    deny(faults)
    await ground.produce(numbered(8))
    await asyncio.sleep(3)
    assert await until_more_than(5, lambda: faults.network.attempts, worker), worker.error

    def told() -> int:
        """What is tried for two seconds is told."""
        return sum("it worked before" in record.getMessage() for record in ground.log)

    assert await until_more_than(0, told, worker), worker.error
    faults.heal()
    await ground.finish(worker)
    said = [record.getMessage() for record in ground.log if record.levelno >= logging.WARNING]
    refused = [line for line in said if "SASL_AUTHENTICATION_FAILED" in line]
    assert len(refused) < 10, said
    assert any("it worked before" in line for line in refused), said


async def that_stay_refused_stop_the_worker(ground: Site) -> None:
    faults = Faults()

    async def impatient(config: StreamsConfig) -> Connection:
        settings = ClientSettings(
            bootstrap_servers=config.bootstrap_servers,
            authentication_patience_ms=int(PATIENCE_S * 1000),
            **SHORT,
        )
        return Connection(config, await KafkaClient.connect(settings, faulty_pool(config, faults)))

    worker = await ground.running(faults, connect=impatient)
    began_s = asyncio.get_running_loop().time()
    deny(faults)
    await ground.produce(numbered(8))
    await worker.ended()
    assert asyncio.get_running_loop().time() - began_s > PATIENCE_S
    assert_refused(worker)
    again = ground.start()
    await ground.finish(again)


async def that_were_never_taken_stop_the_worker_at_once(ground: Site) -> None:
    faults = Faults()
    faults.network.denies = True
    worker = ground.start(faults)
    await worker.ended()
    assert faults.network.attempts == 1
    assert_refused(worker)


def deny(faults: Faults) -> None:
    faults.network.denies = True
    faults.cut_all()


def assert_refused(worker: Running) -> None:
    assert worker.refusal.code == ErrorCode.SASL_AUTHENTICATION_FAILED
    assert "SASL_AUTHENTICATION_FAILED" in str(worker.refusal)


CASES = cases(
    that_worked_before_are_tried_again,
    that_stay_refused_stop_the_worker,
    that_were_never_taken_stop_the_worker_at_once,
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_credentials(case: Case, verdicts: Verdicts) -> None:
    verdicts.check(case)
