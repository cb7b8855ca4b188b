"""What goes on for long: all brokers gone, too few replicas, no coordinator. Nobody has to be restarted afterwards."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from streamlib.errors import ErrorCode
from streamlib.kafka.pool import Answer
from streamlib.kafka.protocol.request import Request
from tests.errors.application import Site, until_more_than
from tests.errors.injection import Faults, Line, refused, replaced
from tests.errors.together import Case, Verdicts, cases, cases_of
from tests.exactly_once.harness import numbered

DELIVERY_S = 3.0  # how long one thing is tried, in here
SHORT: dict[str, Any] = {"delivery_timeout_ms": 3000, "request_timeout_ms": 1500}
STAY = [
    ("Produce", ErrorCode.NOT_ENOUGH_REPLICAS),
    ("Produce", ErrorCode.NOT_LEADER_OR_FOLLOWER),
    ("EndTxn", ErrorCode.COORDINATOR_NOT_AVAILABLE),
    ("TxnOffsetCommit", ErrorCode.COORDINATOR_LOAD_IN_PROGRESS),
    ("Fetch", ErrorCode.LEADER_NOT_AVAILABLE),
]


async def all_brokers_gone_for_longer_than_the_delivery_timeout(ground: Site) -> None:
    faults = Faults()
    worker = await ground.running(faults, **SHORT)
    faults.network.refuses = True
    faults.cut_all()
    await ground.produce(numbered(8))
    await asyncio.sleep(2 * DELIVERY_S)
    assert worker.alive, worker.error
    assert faults.network.attempts
    faults.heal()
    await ground.finish(worker)


async def brokers_that_swallow_everything_for_long(ground: Site) -> None:
    """No connection breaks: each request has to be given up by itself."""
    faults = Faults()
    worker = await ground.running(faults, **SHORT)
    faults.network.swallows = True
    await ground.produce(numbered(8))
    await asyncio.sleep(2 * DELIVERY_S)
    assert worker.alive, worker.error
    faults.heal()
    await ground.finish(worker)


async def an_error_that_stays_beyond_the_delivery_timeout(ground: Site, what: tuple[str, ErrorCode]) -> None:
    api, code = what
    faults = Faults()
    worker = await ground.running(faults, **SHORT)
    fault = faults.add(api, refused(code), times=None)
    await ground.produce(numbered(8))
    await asyncio.sleep(1.5 * DELIVERY_S)
    assert await until_more_than(3, lambda: fault.hits, worker), worker.error
    faults.heal()
    await ground.finish(worker)


async def transactions_that_cannot_begin_in_time_stop_the_worker(ground: Site) -> None:
    """Nothing runs yet that could be lost; whoever started it should hear of it."""
    faults = Faults()
    faults.add("InitProducerId", refused(ErrorCode.COORDINATOR_NOT_AVAILABLE), times=None)
    worker = ground.start(faults, **SHORT)
    await worker.ended()
    assert worker.refusal.code == ErrorCode.COORDINATOR_NOT_AVAILABLE
    await ground.produce(numbered(8))
    again = ground.start()
    await ground.finish(again)


async def a_group_without_coordinator_keeps_its_tasks(ground: Site, code: ErrorCode) -> None:
    """One that comes back knows its members. For longer than the session here; the broker does hear the heartbeats."""
    faults = Faults()
    worker = await ground.running(faults, session_timeout_ms=6_000)
    faults.forget()
    fault = faults.add("Heartbeat", replaced(code), times=None)
    await asyncio.sleep(8)
    assert await until_more_than(3, lambda: fault.hits, worker), worker.error
    faults.heal()
    await ground.produce(numbered(8))
    assert await ground.until_all_committed(worker), worker.error
    assert not faults.granted["InitProducerId"] + faults.granted["JoinGroup"]
    await ground.finish(worker)


async def an_outage_is_a_handful_of_lines_in_the_log(ground: Site) -> None:
    faults = Faults()
    worker = await ground.running(faults, **SHORT)

    async def outage(line: Line, request: Request) -> Answer:
        faults.network.refuses = True
        faults.cut_all()
        raise ConnectionResetError("the beginning of the end")

    faults.add("EndTxn", outage)  # with work at hand
    await ground.produce(numbered(8))
    await asyncio.sleep(10)
    assert await until_more_than(30, lambda: faults.network.attempts, worker), worker.error
    faults.heal()
    await ground.finish(worker)
    warnings = [record.getMessage() for record in ground.log if record.levelno >= logging.WARNING]
    assert 1 < len(warnings) < faults.network.attempts / 3, "\n".join(warnings)


CASES = [
    *cases(
        all_brokers_gone_for_longer_than_the_delivery_timeout,
        brokers_that_swallow_everything_for_long,
        an_outage_is_a_handful_of_lines_in_the_log,
        transactions_that_cannot_begin_in_time_stop_the_worker,
    ),
    *cases_of(an_error_that_stays_beyond_the_delivery_timeout, *STAY),
    *cases_of(
        a_group_without_coordinator_keeps_its_tasks,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_worker_outlives(case: Case, verdicts: Verdicts) -> None:
    verdicts.check(case)
