"""Answers that never arrive, transactions that outlive their timeout, ids that the broker forgot."""

from __future__ import annotations

from typing import Any

import pytest

from streamlib.errors import ErrorCode
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
async def test_a_connection_cut_after_the_request_was_sent_loses_and_repeats_nothing(bench: Bench, api: str) -> None:
    await survives(bench, {"act": "cut", "api": api, "nth": 2})


@pytest.mark.parametrize(
    "code",
    [
        ErrorCode.PRODUCER_FENCED,
        ErrorCode.INVALID_PRODUCER_EPOCH,
        ErrorCode.INVALID_TXN_STATE,
        ErrorCode.INVALID_PRODUCER_ID_MAPPING,  # what an id hears that was idle for longer than its expiry
        ErrorCode.UNKNOWN_PRODUCER_ID,
        ErrorCode.CONCURRENT_TRANSACTIONS,
    ],
    ids=lambda code: code.name,
)
async def test_an_end_of_transaction_answered_with_an_error_loses_and_repeats_nothing(
    bench: Bench, code: ErrorCode
) -> None:
    """The broker has carried it out: the worst case, for the answer says that it has not."""
    await survives(bench, {"act": "answer", "api": "EndTxn", "nth": 1, "code": int(code)})


@pytest.mark.parametrize("api", ["Produce", "TxnOffsetCommit", "EndTxn"])
async def test_a_request_delayed_beyond_its_timeout_loses_and_repeats_nothing(bench: Bench, api: str) -> None:
    await survives(bench, {"act": "delay", "api": api, "nth": 2, "ms": 3000}, request_timeout_ms=2000)


@pytest.mark.parametrize("api", ["TxnOffsetCommit", "EndTxn"])
async def test_a_transaction_that_outlived_its_timeout_is_done_again(bench: Bench, api: str) -> None:
    """The broker aborts it; the work is redone."""
    status = await survives(bench, {"act": "delay", "api": api, "nth": 2, "ms": 4000}, transaction_timeout_ms=1000)
    assert status["redone"] >= 1


async def test_user_code_slower_than_the_transaction_timeout_does_not_loop(bench: Bench) -> None:
    bench.topology = "slow_counter"
    inputs = [("a", "x"), ("a", "slow:2.5"), ("a", "y"), ("b", "slow:2.5"), ("b", "z")]
    worker = bench.start(transaction_timeout_ms=1000)
    for record in inputs:
        await bench.produce([record])
    await bench.until_all_committed(worker)
    assert worker.status["redone"] <= 2
    await worker.stop()
    check_counts(inputs, await bench.read())
