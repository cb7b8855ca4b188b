"""Answers that never arrive, transactions that outlive their timeout, ids that the broker forgot."""

from __future__ import annotations

from typing import Any

import pytest

from tests.exactly_once.harness import Bench, check_counts, numbered

APIS = ["Produce", "TxnOffsetCommit", "EndTxn", "InitProducerId", "OffsetFetch", "JoinGroup", "SyncGroup"]


async def survives(bench: Bench, *faults: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """Run with the faults; the counts have to be exact. Returns the last status."""
    inputs = numbered(0)
    worker = bench.start(*faults, **settings)
    for start in range(0, 60, 10):
        inputs += numbered(10, start=start)
        await bench.produce(numbered(10, start=start))
        await bench.until_all_committed(worker)
    status = worker.status
    await worker.stop()
    check_counts(inputs, await bench.read())
    return status


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("nth", [1, 3])
async def test_a_lost_answer_loses_and_repeats_nothing(bench: Bench, api: str, nth: int) -> None:
    if nth > 1 and api in ("InitProducerId", "OffsetFetch", "JoinGroup", "SyncGroup"):
        pytest.skip("asked only once")
    await survives(bench, {"act": "lose-reply", "api": api, "nth": nth})


@pytest.mark.parametrize("api", ["Produce", "TxnOffsetCommit", "EndTxn"])
async def test_a_request_delayed_beyond_its_timeout_loses_and_repeats_nothing(bench: Bench, api: str) -> None:
    await survives(bench, {"act": "delay", "api": api, "nth": 2, "ms": 3000}, request_timeout_ms=2000)


@pytest.mark.parametrize("api", ["TxnOffsetCommit", "EndTxn"])
async def test_a_transaction_that_outlived_its_timeout_is_done_again(bench: Bench, api: str) -> None:
    """The broker aborts it; the work is redone, once."""
    status = await survives(bench, {"act": "delay", "api": api, "nth": 2, "ms": 4000}, transaction_timeout_ms=1000)
    assert status["redone"] >= 1
