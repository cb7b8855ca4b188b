"""Requests that arrive when nobody waits for them any more, and clients that nobody hears of for a while."""

from __future__ import annotations

import asyncio
from itertools import product

import pytest

from streamlib.errors import ErrorCode
from streamlib.kafka.pool import Answer
from streamlib.kafka.protocol.request import Request
from tests.errors.application import Running, Site, until
from tests.errors.injection import Faults, Line, every, held, keep, late, refused
from tests.errors.together import NEW, OLD, Case, Verdicts, cases, cases_of
from tests.exactly_once.harness import PARTITIONS, numbered

TIMEOUT_MS = 600
LATE_S = TIMEOUT_MS / 1000 + 0.3
ENOUGH = 3
ADDED_BY_HAND = ("AddPartitionsToTxn", "AddOffsetsToTxn")  # before KIP-890
TRANSACTIONAL = ("Produce", "TxnOffsetCommit", "EndTxn")


async def arrives_after_it_was_given_up(ground: Site, api: str) -> None:
    """The client has asked again by then, and may have got as far as another transaction of the same id."""
    faults = Faults()
    worker = await ground.running(faults, request_timeout_ms=TIMEOUT_MS, delivery_timeout_ms=10_000)
    # Transactions stay open for most of the time, so that what is late meets an open one.
    faults.add("TxnOffsetCommit", held(0.1), times=None, when=lambda _: api != "TxnOffsetCommit")
    fault = faults.add(api, late(LATE_S), times=None, when=every(4))

    async def enough() -> bool:
        await _feed(ground, worker, 1)  # so that transaction follows transaction
        return fault.hits >= ENOUGH

    assert await until(enough, worker), worker.error
    faults.heal()
    await asyncio.sleep(LATE_S)  # until the last of them has arrived
    await ground.produce(numbered(4))
    await ground.finish(worker)


async def _feed(ground: Site, worker: Running, seconds: float) -> None:
    """A few records at a time."""
    ends_s = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < ends_s:
        assert worker.alive, worker.error
        await ground.produce(numbered(4))
        await asyncio.sleep(0.03)


class Straggler:
    """A request that its client gives up and asks again, and that arrives in the middle of the next transaction.

    The middle is where that transaction, of the same id, is about to ask `gate`.
    """

    def __init__(self, faults: Faults, api: str, gate: str) -> None:
        self.arrived = asyncio.Event()
        self._gate = gate
        self._come = asyncio.Event()
        self._id = ""
        self._ended = 0  # transactions of this id since the request was lost
        faults.add(api, self._stray)
        faults.add("TxnOffsetCommit", self._pass, times=None)
        faults.add("EndTxn", self._pass, times=None)

    async def _stray(self, line: Line, request: Request) -> Answer:
        self._id = request.content["transactional_id"]
        keep(self._arrive(line, request))
        raise ConnectionResetError("it has lost its way")

    async def _arrive(self, line: Line, request: Request) -> Answer:
        wire = await line.another()
        await self._come.wait()
        try:
            return await wire.send(request)
        finally:
            wire.close()
            self.arrived.set()

    async def _pass(self, line: Line, request: Request) -> Answer:
        ours = request.content["transactional_id"] == self._id
        if ours and self._ended and request.api.name == self._gate and not self.arrived.is_set():
            self._come.set()
            await self.arrived.wait()
        answer = await line.wire.send(request)
        self._ended += ours and request.api.name == "EndTxn"
        return answer


async def arrives_in_the_next_transaction(ground: Site, what: tuple[str, str]) -> None:
    api, gate = what
    faults = Faults()
    worker = await ground.running(faults)
    straggler = Straggler(faults, api, gate)

    async def arrived() -> bool:
        await ground.produce(numbered(4))
        return straggler.arrived.is_set()

    assert await until(arrived, worker), worker.error
    await ground.produce(numbered(4))
    await ground.finish(worker)


async def a_black_holed_worker_is_replaced_and_fenced(ground: Site) -> None:
    """Nothing it says arrives, for longer than its session, and it does not know."""
    lost = Faults()
    ground.settings.update(session_timeout_ms=6000, request_timeout_ms=1000, transaction_timeout_ms=2000)
    first = ground.start(lost, group_instance_id="first", state_dir=str(ground.bench.folder / "first"))
    other = ground.start(group_instance_id="other", state_dir=str(ground.bench.folder / "other"))
    await _until_shared(ground, first, other)
    lost.network.swallows = True
    await ground.produce(numbered(40))
    assert await ground.until_all_committed(other), other.error
    assert len(other.status.tasks) == PARTITIONS
    lost.heal()
    await ground.produce(numbered(40))
    await _until_shared(ground, first, other)
    assert await ground.until_all_committed(other), other.error
    assert first.alive, first.error
    for worker in (first, other):
        assert await worker.stop() is None
    await ground.check_exact()


async def _until_shared(ground: Site, *workers: Running) -> None:
    async def each_has_a_task() -> bool:
        await ground.produce(numbered(4))
        return all(worker.state == "RUNNING" and len(worker.status.tasks) == 1 for worker in workers)

    assert await until(each_has_a_task, workers[0]), workers[0].error


async def an_abort_that_is_answered_fenced_is_passed_over(ground: Site) -> None:
    """What was to be aborted is so, whoever did it."""
    faults = Faults()
    worker = await ground.running(faults)
    faults.add("TxnOffsetCommit", refused(ErrorCode.ILLEGAL_GENERATION))
    abort = faults.add("EndTxn", refused(ErrorCode.PRODUCER_FENCED), when=lambda body: not body["committed"])
    await ground.produce(numbered(8))
    assert await ground.until_all_committed(worker), worker.error
    assert abort.hits
    assert worker.status.redone == 1
    await ground.finish(worker)


GATES = ("TxnOffsetCommit", "EndTxn")
CASES = [
    *cases_of(arrives_after_it_was_given_up, *TRANSACTIONAL, versions=(NEW, OLD)),
    *cases_of(arrives_in_the_next_transaction, *product(TRANSACTIONAL, GATES), versions=(NEW, OLD)),
    *cases_of(arrives_in_the_next_transaction, *product(ADDED_BY_HAND, GATES), versions=(OLD,)),
    *cases(
        a_black_holed_worker_is_replaced_and_fenced,
        an_abort_that_is_answered_fenced_is_passed_over,
        versions=(NEW, OLD),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_late_and_lost(case: Case, verdicts: Verdicts) -> None:
    verdicts.check(case)
