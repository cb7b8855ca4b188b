"""When a worker is called degraded or stuck, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from streamlib.config import StreamsConfig
from streamlib.engine.calls import Call
from streamlib.metrics import HealthStatus
from streamlib.records import TopicPartition
from streamlib.runtime.watchdog import Finding, Watchdog
from streamlib.runtime.worker import Observation
from tests.runtime.fakes import Bench

P0, P1 = TopicPartition("orders", 0), TopicPartition("orders", 1)
TIMEOUT_MS = 60_000


@pytest.fixture
def watchdog() -> Watchdog:
    return Watchdog(StreamsConfig(application_id="shop", watchdog_timeout_ms=TIMEOUT_MS))


def seen(**changes: Any) -> Observation:
    """A worker that is well, but for these changes."""
    fields: dict[str, Any] = {"running": True, "settled": True, **changes}
    return msgspec.structs.replace(Bench().worker.observe(), **fields)


def look(watchdog: Watchdog, seconds: int, start_s: int = 0, **changes: Any) -> list[Finding]:
    """What is found after so many seconds in which nothing changes but that the coordinator answers."""
    observation = seen(**changes)
    for second in range(start_s, start_s + seconds + 1):
        heard = {} if "heard" in changes else {"heard": second}
        watchdog.look(msgspec.structs.replace(observation, **heard), second * 1000.0)
    return watchdog.findings


def behind(mark: int, end: int) -> Mapping[str, Any]:
    return {"committed": {P0: mark}, "ends": {P0: end}}


def test_a_worker_that_has_nothing_to_do_is_well(watchdog: Watchdog) -> None:
    assert look(watchdog, 300, **behind(7, 7)) == []


def test_a_partition_that_waits_to_be_tried_again_is_well(watchdog: Watchdog) -> None:
    assert look(watchdog, 300, **behind(7, 20), resting={P0}) == []
    assert look(watchdog, 59, 301, **behind(7, 20)) == []  # from then on it counts


def test_a_partition_with_lag_that_does_not_move_is_stuck_after_the_timeout(watchdog: Watchdog) -> None:
    assert look(watchdog, 59, **behind(7, 20)) == []
    (found,) = look(watchdog, 1, 60, **behind(7, 25))  # more lag is no progress
    assert found.status is HealthStatus.STUCK
    assert "orders, partition 0, offset 7" in found.text
    assert "18 records to go" in found.text
    assert watchdog.stuck_partitions == [P0]
    assert look(watchdog, 1, 62, **behind(8, 25)) == []
    assert watchdog.standing_ms(P0) == 1000


def test_a_partition_is_not_stuck_between_two_rare_commits() -> None:
    rare = StreamsConfig(application_id="shop", commit_interval_ms=50_000, transaction_timeout_ms=60_000)
    watchdog = Watchdog(rare)
    assert look(watchdog, 99, **behind(7, 20)) == []
    assert look(watchdog, 1, 100, **behind(7, 20))


def test_a_partition_that_is_owned_no_longer_is_forgotten(watchdog: Watchdog) -> None:
    assert look(watchdog, 70, **behind(7, 20))
    assert look(watchdog, 1, 71) == []
    assert look(watchdog, 59, 73, **behind(7, 20)) == []


def test_time_in_which_nobody_looked_does_not_count(watchdog: Watchdog) -> None:
    watchdog.look(seen(**behind(7, 20)), 0)
    watchdog.look(seen(**behind(7, 20)), 3_600_000)
    assert watchdog.findings == []


def test_a_transaction_of_others_that_holds_up_an_input_degrades(watchdog: Watchdog) -> None:
    held_up: dict[str, Any] = {"unstable": {P1: 3}, "ends": {P1: 100}, "committed": {P1: 100}}
    assert look(watchdog, 59, **held_up) == []
    (found,) = look(watchdog, 1, 60, **held_up)
    assert found.status is HealthStatus.DEGRADED
    assert found.text == "hanging transaction: one that somebody else left open holds up orders-1 for 61 s"
    assert look(watchdog, 1, 62, **held_up | {"ends": {P1: 103}}) == []


def test_an_open_transaction_that_outlives_its_timeout_is_stuck(watchdog: Watchdog) -> None:
    assert look(watchdog, 1, open_transaction_ms=59_999.0) == []
    (found,) = look(watchdog, 1, 2, open_transaction_ms=60_000.0)
    assert found.status is HealthStatus.STUCK
    assert "hanging transaction: this worker's has been open for 60 s" in found.text


def test_a_coordinator_that_says_nothing_degrades(watchdog: Watchdog) -> None:
    assert look(watchdog, 9, heard=9) == []  # session_timeout_ms
    (found,) = look(watchdog, 1, 10, heard=9)
    assert found == (
        HealthStatus.DEGRADED,
        "broker unreachable: the group's coordinator is silent for 11 s",
    )
    assert look(watchdog, 1, 12, heard=10) == []


def test_a_long_rebalance_degrades(watchdog: Watchdog) -> None:
    assert look(watchdog, 5, running=False, settled=False) == []
    assert look(watchdog, 1, 6, running=False, settled=False) == [(HealthStatus.DEGRADED, "rebalancing for 7.0 s")]
    assert look(watchdog, 1, 8) == []


def test_a_call_that_does_not_end_is_stuck(watchdog: Watchdog) -> None:
    class Line:
        name = "enrich"

    call = Call(Line(), "ann", 1, 0, ())  # type: ignore[arg-type]
    assert look(watchdog, 1, oldest_call=(call, 59_999.0)) == []
    (found,) = look(watchdog, 1, 2, oldest_call=(call, 61_000.0))
    assert found.status is HealthStatus.STUCK
    assert "a call of node enrich has not ended for 61 s" in found.text


def test_what_is_stuck_is_told_before_what_is_degraded(watchdog: Watchdog) -> None:
    found = look(watchdog, 61, **behind(7, 20), heard=1)
    assert [each.status for each in found] == [HealthStatus.STUCK, HealthStatus.DEGRADED]
