"""A worker that was idle for longer than the brokers remember transactional ids goes on all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from streamlib.testing.broker import Broker
from streamlib.testing.plugin import KafkaTarget
from tests.errors.application import counter, site
from tests.errors.together import NEW, OLD
from tests.exactly_once.harness import numbered

FORGETFUL = {
    "transactional.id.expiration.ms": "1000",
    "transaction.remove.expired.transaction.cleanup.interval.ms": "200",
    "producer.id.expiration.ms": "1000",
    "producer.id.expiration.check.interval.ms": "200",
}


@pytest.mark.broker
@pytest.mark.parametrize("version", [NEW, OLD])
async def test_ids_that_the_brokers_forgot(
    unique_name: Callable[[str], str], tmp_path: Path, version: str, request: pytest.FixtureRequest
) -> None:
    if version == OLD and not request.config.getoption("--all-errors"):
        pytest.skip("with --all-errors only")
    with Broker.start(version, config=FORGETFUL) as broker:
        kafka = KafkaTarget(broker.bootstrap_servers, version, broker)
        async with site(kafka, unique_name("idle"), tmp_path, counter, []) as ground:
            worker = await ground.running()
            await asyncio.sleep(3)
            await ground.produce(numbered(8))
            assert await ground.until_all_committed(worker), worker.error
            assert worker.status.redone > 0, "the broker has forgotten nothing, so this shows nothing"
            await ground.finish(worker)
