"""Work that moves: workers join, leave, restart, are replaced, killed and paused, with standbys and without."""

from __future__ import annotations

import os
import random

import pytest

from streamlib.simulation.command import run_scenario, run_seed, run_seeds
from streamlib.simulation.faults import (
    Drawing,
    Fault,
    Joined,
    Killed,
    Left,
    Replaced,
    Restarted,
)
from streamlib.simulation.report import report
from streamlib.simulation.scenario import BROKERS, MOVES, Scenario, draw_scenario, host_names
from streamlib.simulation.simulation import Outcome
from streamlib.simulation.workloads import WORKLOADS
from tests.simulation.mutations import MUTATIONS

ALL = tuple(WORKLOADS)
FIRST_FRESH = 700_000
SEEDS_FOR_A_BUG = 100
REPEATABLE = tuple(name for name, workload in WORKLOADS.items() if workload.check_repeated is not None)


def run(*faults: Fault, **settings: object) -> Outcome:
    options = {"workload": "counter", "workers": 3, "num_standby_replicas": 1, "heartbeat_interval_ms": 500} | settings
    scenario = Scenario(seed=1, horizon_ms=10_000.0, faults=faults, **options)  # type: ignore[arg-type]
    outcome = run_scenario(scenario)
    assert outcome.ok, report(outcome, trace_lines=80)
    return outcome


def times(outcome: Outcome, what: str) -> int:
    return sum(what in line for line in outcome.trace.lines())


def test_two_hundred_random_joins_leaves_kills_and_pauses() -> None:
    """In one run, a few seconds apart: no task ever runs twice, and everything drains."""
    apart_ms, count = 1_500.0, 200
    drawing = Drawing(random.Random(3), host_names(3), BROKERS, apart_ms * count)
    scenario = Scenario(
        seed=3,
        workload="counter",
        workers=3,
        inputs=400,
        num_standby_replicas=1,
        acceptable_recovery_lag=5,
        heartbeat_interval_ms=500,
        horizon_ms=apart_ms * count,
        faults=drawing.draw_moves(count),
    )
    outcome = run_scenario(scenario)
    assert outcome.ok, report(outcome, trace_lines=80)


def test_fresh_seeds_of_moves_find_nothing(pytestconfig: pytest.Config) -> None:
    """Several moves at once, of all workloads; a tenth as many as of the others."""
    seeds = range(FIRST_FRESH, FIRST_FRESH + pytestconfig.getoption("--simulation-seeds") // 10)
    results = list(run_seeds(seeds, ALL, os.cpu_count() or 1, MOVES))
    failed = [result for result in results if result.violations]
    assert not failed, "\n".join(f"SEED={result.seed} {result.workload}: {result.violations[0]}" for result in failed)
    assert sum(result.faults for result in results) >= len(results)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("demoted_task_goes_on", "in the same generation"),
        ("standbys_read_beyond_what_is_stable", "is stable"),
        ("tasks_given_away_before_their_owners_let_go", ""),
    ],
)
def test_bug_of_moving_work_is_found_by_moves_alone(name: str, told: str) -> None:
    """Two owners are told as such: neither would be refused. So is a standby that is ahead of what is stable."""
    with MUTATIONS[name]():
        outcomes = (run_seed(seed, ALL, MOVES) for seed in range(SEEDS_FOR_A_BUG))
        found = next((o for o in outcomes if any(told in violation for violation in o.violations)), None)
    assert found is not None, f"not found within {SEEDS_FOR_A_BUG} seeds"


def test_added_worker_starts_when_it_is_added() -> None:
    lines = list(run(Joined("w2", 4_000.0)).trace.lines())
    assert next(float(line.split()[0]) for line in lines if "w2 starts" in line) == 4_000.0


@pytest.mark.parametrize("static", [False, True])
def test_worker_that_leaves_for_good_does_not_come_back(*, static: bool) -> None:
    outcome = run(Left("w0", 4_000.0, None), static=static)
    assert times(outcome, "w0 starts") == 1
    assert times(outcome, "w0 -> broker") > 0
    assert times(outcome, "LeaveGroup") > 0


def test_last_worker_always_comes_back() -> None:
    outcome = run(*(Left(name, 4_000.0, None) for name in ("w0", "w1", "w2")))
    assert sorted(times(outcome, f"{name} starts") for name in ("w0", "w1", "w2")) == [1, 1, 2]


def test_static_worker_that_restarts_does_not_leave() -> None:
    outcome = run(Restarted("w0", 4_000.0), static=True)
    assert times(outcome, "w0 starts") == 2
    lines = list(outcome.trace.lines())
    back = [number for number, line in enumerate(lines) if "w0 starts" in line][1]
    assert not any("LeaveGroup" in line for line in lines[:back])


@pytest.mark.parametrize("fresh", [False, True])
def test_all_workers_are_replaced_one_after_the_other(*, fresh: bool) -> None:
    outcome = run(Replaced(5_100.0, 200.0, leave=True, fresh=fresh))
    assert [times(outcome, f"{name} starts") for name in ("w0", "w1", "w2")] == [2, 2, 2]
    assert (times(outcome, "transactional_id=app-w1.1-0") > 0) == fresh


def test_two_workers_on_one_disk_are_no_standbys_of_each_other() -> None:
    """The third host is the only other place; otherwise the run would not come to rest."""
    run(Killed("w0", 4_000.0, 9_000.0), Left("w1", 6_000.0, 500.0), shared_disk=True, num_standby_replicas=2)


def test_what_is_drawn_is_moves_and_nothing_else() -> None:
    kinds = {type(fault).__name__ for seed in range(300) for fault in draw_scenario(seed, ALL, MOVES).faults}
    assert kinds == {"Joined", "Stopped", "Left", "Restarted", "Replaced", "Killed", "Frozen"}


@pytest.mark.parametrize("workload", REPEATABLE)
def test_nothing_is_lost_at_least_once(workload: str) -> None:
    for nth in range(6):
        faults = (Killed("w0", 2_000.0 + 300 * nth, 500.0), Killed("w1", 3_000.0 + 300 * nth, 9_000.0))
        run(*faults, workload=workload, guarantee="at_least_once")


@pytest.mark.parametrize("workload", ["counter", *REPEATABLE])
def test_moves_repeat_nothing_at_least_once(workload: str) -> None:
    faults = (Joined("w2", 1_500.0), Left("w0", 2_500.0, 1_000.0), Restarted("w1", 4_000.0))
    run(*faults, workload=workload, guarantee="at_least_once")
    assert Scenario(seed=1, workload=workload, guarantee="at_least_once", faults=faults).exact
