"""Plays one row of the table: a counting application on a real broker, the error in the middle of its work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from streamlib.errors import ErrorCode
from streamlib.kafka.errors import ERROR_TABLE
from streamlib.topology.topology import Topology
from tests.errors.application import Running, Site, counter, disk_counter, until_spent
from tests.errors.injection import Act, Body, Fault, Faults, cut, lost_after, refused, replaced, unanswered
from tests.errors.rows import How, Outcome, Row
from tests.errors.together import NEW, OLD, Case
from tests.exactly_once.harness import numbered
from tests.exactly_once.topologies import regrouped

_OLD_TRANSACTIONS = ("AddPartitionsToTxn", "AddOffsetsToTxn")
_LOSSES = (How.LOST, How.CUT, How.UNANSWERED)
_HARMLESS = (Outcome.RETRIED, Outcome.PASSED, Outcome.JOINED)
AGAIN = 2  # how often in a row an error comes that is asked again


class Asked(NamedTuple):
    """What only certain ways of recovery do."""

    redone: int = 0
    inits: int = 0
    joins: int = 0


# What makes the library ask for this in the middle of its work, and what that alone makes it ask for.
_REDO = ("EndTxn", ErrorCode.INVALID_TXN_STATE, Asked(redone=1, inits=2))
_REBALANCE = ("Heartbeat", ErrorCode.REBALANCE_IN_PROGRESS, Asked(joins=1))
PROVOKED_BY: dict[str, tuple[str, ErrorCode, Asked]] = {
    "InitProducerId": _REDO,
    "OffsetFetch": _REDO,
    "ListOffsets": _REDO,
    "JoinGroup": _REBALANCE,
    "SyncGroup": _REBALANCE,
    "FindCoordinator": ("EndTxn", ErrorCode.NOT_COORDINATOR, Asked()),
    "Metadata": ("Produce", ErrorCode.NOT_LEADER_OR_FOLLOWER, Asked()),
}


def case_of(row: Row) -> Case:
    """Fails if the library does something else than the row says, or counts wrongly."""

    async def play(ground: Site) -> None:
        ground.settings.update(_settings(row))
        match row.phase:
            case "start":
                await _at_start(ground, row)
            case "work":
                await _at_work(ground, row)
            case "stop":
                await _at_stop(ground, row)

    return Case(str(row), play, OLD if row.api in _OLD_TRANSACTIONS else NEW, _topology(row))


def _topology(row: Row) -> Callable[[str, str], Topology]:
    if row.api == "DeleteRecords":
        return regrouped
    return disk_counter if row.how is How.HIDDEN else counter


def _settings(row: Row) -> dict[str, Any]:
    # Metadata that is not answered is waited for as long as a connection, which is as long as a transaction by default.
    impatient = {"request_timeout_ms": 500, "transaction_timeout_ms": 60_000} if row.how is How.UNANSWERED else {}
    return impatient | _settings_of(row.api)


def _settings_of(api: str) -> dict[str, Any]:
    match api:
        case "OffsetCommit":
            return {"processing_guarantee": "at_least_once"}
        case "DeleteRecords":
            return {"repartition_purge_interval_ms": 100}
        case "LeaveGroup":  # a static member does not leave
            return {"group_instance_id": None, "session_timeout_ms": 2_000}
        case "Heartbeat":  # one that is not answered is sent again before the session ends
            return {"session_timeout_ms": 6000}
        case _:
            return {}


async def _at_start(ground: Site, row: Row) -> None:
    faults = Faults()
    fault = _plant(faults, row)
    if row.api == "DescribeConfigs":  # asked of topics that are there
        await _run_without_faults(ground, row)
    await ground.produce(numbered(8))
    worker = ground.start(faults)
    await _run_into(ground, worker, fault)
    await _judge(ground, row, worker, Asked(inits=2, joins=1))


async def _at_work(ground: Site, row: Row) -> None:
    faults = Faults()
    worker = await ground.running(faults)
    fault = _plant(faults, row)
    usual = _provoke(faults, row)
    faults.forget()
    await ground.produce(numbered(8))
    await _run_into(ground, worker, fault)
    await _judge(ground, row, worker, usual)


async def _at_stop(ground: Site, row: Row) -> None:
    faults = Faults()
    worker = await ground.running(faults)
    fault = _plant(faults, row)
    await worker.stop()
    assert fault.hits, f"nobody asked for {row.api}"
    assert worker.error is None
    await _finish(ground, row)


def _plant(faults: Faults, row: Row) -> Fault:
    once = row.how is How.CUT or (row.api, row.phase) == ("Metadata", "work")
    asked_again = ERROR_TABLE[row.code].retriable and not once
    return faults.add(
        row.api,
        _act(row),
        times=AGAIN if asked_again else 1,
        when=_WHICH.get(row.api, _any),
    )


def _act(row: Row) -> Act:
    match row.how:
        case How.REFUSED if row.api != "Metadata":
            return refused(row.code)
        case How.REFUSED | How.HIDDEN:
            return replaced(row.code)
        case How.PARTLY:
            return replaced(row.code, "first")
        case How.LOST:
            return lost_after
        case How.CUT:
            return cut
        case How.UNANSWERED:
            return unanswered


def _any(body: Body) -> bool:
    return True


_WHICH: Mapping[str, Callable[[Body], bool]] = {
    "FindCoordinator": lambda body: body["key_type"] == 1,
    "Metadata": lambda body: bool(body["topics"]),
}


def _provoke(faults: Faults, row: Row) -> Asked:
    if row.api not in PROVOKED_BY:
        return Asked()
    api, code, usual = PROVOKED_BY[row.api]
    faults.add(api, refused(code))
    return usual


async def _run_into(ground: Site, worker: Running, fault: Fault) -> None:
    """Until the error has happened, and all is committed, more work included, or the worker has ended."""
    await until_spent(fault, worker)
    assert fault.hits, f"nobody asked for {fault.api}: {worker.error}"
    if await ground.until_all_committed(worker):
        await ground.produce(numbered(4))
        await ground.until_all_committed(worker)


async def _judge(ground: Site, row: Row, worker: Running, usual: Asked) -> None:
    if row.outcome is Outcome.STOPPED:
        await worker.ended()
        _check_message(row, worker)
    else:
        assert worker.alive, f"it ended with {worker.error}"
        _check_recovery(row, _asked(worker), usual)
        assert await worker.stop() is None
    await _finish(ground, row)


def _check_message(row: Row, worker: Running) -> None:
    assert worker.refusal.code == row.code
    hint = ERROR_TABLE[row.code].hint
    assert hint, f"{row.code.name} does not say what to do"
    for part in (row.api, row.code.name, hint):
        assert part in str(worker.refusal)


def _asked(worker: Running) -> Asked:
    granted = worker.faults.granted
    return Asked(worker.status.redone, granted["InitProducerId"], granted["JoinGroup"])


def _check_recovery(row: Row, done: Asked, usual: Asked) -> None:
    said = f"{done}, {usual} would be usual"
    match row.outcome:
        case Outcome.RETRIED | Outcome.PASSED:
            assert done.redone == usual.redone, said
            # One that was cut off may be answered all the same, and what is lost is shut out by a new epoch (KIP-98).
            assert done.inits == usual.inits or row.how in _LOSSES, said
            assert done.joins == usual.joins or row.how is not How.REFUSED, said
        case Outcome.JOINED:
            assert done[:2] == usual[:2], said
            assert done.joins > 0, said
        case Outcome.REDONE:
            assert done.redone > usual.redone, said
            assert done.joins == usual.joins, said
        case Outcome.REJOINED:
            assert done.inits > usual.inits, said
            assert done.joins > 0, said
        case Outcome.STOPPED:
            raise AssertionError("judged by its message")


async def _finish(ground: Site, row: Row) -> None:
    """What is committed is exact, and a worker without faults does the rest."""
    await _check(ground, row)
    if _is_harmless(row):
        return
    await _run_without_faults(ground, row)
    await _check(ground, row)


def _is_harmless(row: Row) -> bool:
    """Hardly anything has happened, and so hardly anything can be wrong that only a restart would show."""
    return row.outcome in _HARMLESS and row.how is How.REFUSED and row.api != "DeleteRecords"


async def _run_without_faults(ground: Site, row: Row) -> None:
    worker = ground.start()
    await ground.produce(numbered(4))
    assert await ground.until_all_committed(worker), worker.error
    if row.api == "DeleteRecords":  # behind a repartition topic, of which nothing unread may be deleted
        await ground.check_regrouped(worker)
    assert await worker.stop() is None


async def _check(ground: Site, row: Row) -> None:
    match row.api:
        case "OffsetCommit":
            await ground.check_none_lost()
        case "DeleteRecords":
            pass  # checked while a worker is there to read what has been regrouped
        case _:
            await ground.check_exact()
