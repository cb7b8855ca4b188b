"""The same errors on other ways through the library: without transactions, and while stores are restored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from streamlib.errors import ErrorCode
from tests.errors.application import Site
from tests.errors.injection import Faults, refused, replaced
from tests.errors.together import NEW, OLD, Case, Verdicts, cases_of
from tests.exactly_once.harness import numbered

NEEDS_A_NEW_PRODUCER = [
    ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
    ErrorCode.UNKNOWN_PRODUCER_ID,
    ErrorCode.INVALID_PRODUCER_EPOCH,
    ErrorCode.DUPLICATE_SEQUENCE_NUMBER,
]
WHILE_RESTORING = [
    ErrorCode.UNKNOWN_SERVER_ERROR,
    ErrorCode.OFFSET_OUT_OF_RANGE,
    ErrorCode.NOT_LEADER_OR_FOLLOWER,
    ErrorCode.KAFKA_STORAGE_ERROR,
]


async def an_idempotent_producer_without_transactions_is_replaced(ground: Site, code: ErrorCode) -> None:
    """The broker has written the records, so they come again: at least once."""
    faults = Faults()
    worker = await ground.running(faults, processing_guarantee="at_least_once")
    faults.add("Produce", replaced(code))
    faults.forget()
    await ground.produce(numbered(8))
    assert await ground.until_all_committed(worker), worker.error
    assert faults.granted["InitProducerId"] == 1
    assert await worker.stop() is None
    await ground.check_none_lost()


async def a_changelog_that_cannot_be_read_is_read_again(ground: Site, code: ErrorCode) -> None:
    worker = await ground.running()
    assert await worker.stop() is None
    faults = Faults()
    fault = faults.add("Fetch", refused(code), times=2, when=_reads_changelog(ground))
    await ground.produce(numbered(8))
    again = ground.start(faults)
    assert await ground.until_all_committed(again), again.error
    assert fault.spent
    await ground.finish(again)


async def a_changelog_that_may_not_be_read_stops_the_worker(ground: Site, code: ErrorCode) -> None:
    worker = await ground.running()
    assert await worker.stop() is None
    faults = Faults()
    faults.add("Fetch", refused(code), when=_reads_changelog(ground))
    again = ground.start(faults)
    await again.ended()
    assert again.refusal.code == code
    assert "counts-changelog" in str(again.refusal)
    await ground.produce(numbered(8))
    await ground.finish(ground.start())


def _reads_changelog(ground: Site) -> Callable[[Any], bool]:
    return lambda body: any(topic["topic"].endswith("-changelog") for topic in body["topics"])


CASES = [
    *cases_of(an_idempotent_producer_without_transactions_is_replaced, *NEEDS_A_NEW_PRODUCER, versions=(NEW, OLD)),
    *cases_of(a_changelog_that_cannot_be_read_is_read_again, *WHILE_RESTORING),
    *cases_of(a_changelog_that_may_not_be_read_stops_the_worker, ErrorCode.TOPIC_AUTHORIZATION_FAILED),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_other_ways(case: Case, verdicts: Verdicts) -> None:
    verdicts.check(case)
