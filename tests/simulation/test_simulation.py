"""The simulator: it finds nothing in the code as it is, and each of the known bugs when it is planted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from streamlib.simulation.command import run_scenario, run_seed, run_seeds
from streamlib.simulation.faults import Fault, FrozenAtRequest, Killed, KilledAtRequest, Moment, RequestLost
from streamlib.simulation.report import report
from streamlib.simulation.scenario import SMALL, Scenario, draw_scenario
from streamlib.simulation.workloads import WORKLOADS
from tests.simulation.mutations import MUTATIONS, SHOWN_BY

ALL = tuple(WORKLOADS)
KEPT = Path(__file__).with_name("seeds.txt")
FIRST_FRESH = 500_000
SEEDS_FOR_A_BUG = 400
"""Within so many seeds each planted bug has to be found; a second costs some thirty of them."""
SEEDS_OF_A_RARE_ONE = {"lost_tasks_committed": range(1_400, 1_600)}
"""It takes a lost membership in the middle of one commit and a crash right after: about one seed in 450 shows it, so it
is looked for where one is."""
FOUND_LAST = {
    "changes_made_during_a_commit_written_with_it": 14,
    "commit_repeated_after_an_unknown_outcome": 94,
    "lost_tasks_committed": 1_449,
    "offsets_committed_before_the_outputs": 284,
    "offsets_committed_by_anybody": 177,
    "offsets_committed_of_what_came_during_the_commit": 147,
    "offsets_read_while_a_transaction_is_pending": 45,
    "overlay_kept_after_a_roll_back": 17,
    "rest_of_the_changelog_skipped_by_a_promotion": 59,
    "restored_to_the_last_stable_offset_only": 80,
    "stores_written_before_the_transaction_ends": 38,
}
"""The first seeds that find those that take long: looked at first, which saves the time of those before it. Wherever
workers or scenarios change, it may be another one; all others are looked at then."""


def kept_scenarios() -> list[Scenario]:
    """Scenarios that failed once, as they were: a seed alone means something else when the drawing changes."""
    lines = (line for line in KEPT.read_text().splitlines() if line and not line.startswith("#"))
    return [msgspec.json.decode(line, type=Scenario) for line in lines]


@pytest.mark.parametrize("scenario", kept_scenarios(), ids=lambda scenario: f"{scenario.workload}-{scenario.seed}")
def test_what_failed_once_does_not_fail_again(scenario: Scenario) -> None:
    outcome = run_scenario(scenario)
    assert outcome.ok, report(outcome, trace_lines=80)


def test_fresh_seeds_find_nothing(pytestconfig: pytest.Config) -> None:
    """As many as the option says; the seeds are the same each time, so that a failure is this commit's."""
    count = pytestconfig.getoption("--simulation-seeds")
    seeds = range(FIRST_FRESH, FIRST_FRESH + count)
    failed = [result for result in run_seeds(seeds, ALL, os.cpu_count() or 1, SMALL) if result.violations]
    assert not failed, "\n".join(f"SEED={result.seed} {result.workload}: {result.violations[0]}" for result in failed)


@pytest.mark.parametrize("name", MUTATIONS)
def test_planted_bug_is_found(name: str) -> None:
    with MUTATIONS[name]():
        workloads = SHOWN_BY.get(name, ALL)
        seeds = SEEDS_OF_A_RARE_ONE.get(name, range(SEEDS_FOR_A_BUG))
        first = (FOUND_LAST[name],) if name in FOUND_LAST else ()
        found = next((seed for seed in (*first, *seeds) if not run_seed(seed, workloads).ok), None)
    assert found is not None, f"not found within {len(seeds)} seeds"


def test_a_seed_replays_identically() -> None:
    first, second = run_seed(7, ALL), run_seed(7, ALL)
    assert first.digest == second.digest
    assert list(first.trace.lines()) == list(second.trace.lines())
    assert first.digest != run_seed(8, ALL).digest


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_a_seed_replays_identically_in_another_process(hash_seed: str) -> None:
    """Where strings and tuples hash otherwise, and sets have another order."""
    seeds = range(20, 50)
    script = (
        "from streamlib.simulation.command import run_seed; from streamlib.simulation.workloads import WORKLOADS; "
        f"print(*[run_seed(seed, tuple(WORKLOADS)).digest for seed in {seeds!r}])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [run_seed(seed, ALL).digest for seed in seeds]


def test_scenarios_survive_being_written_down() -> None:
    scenario = draw_scenario(11, ALL)
    assert scenario.faults
    assert msgspec.json.decode(msgspec.json.encode(scenario), type=Scenario) == scenario


def faults_of(*faults: Fault) -> Scenario:
    return Scenario(seed=1, workload="counter", workers=2, horizon_ms=10_000.0, faults=faults)


@pytest.mark.parametrize("moment", ["before", "sent", "after"])
@pytest.mark.parametrize("api", ["Produce", "TxnOffsetCommit", "EndTxn", "InitProducerId", "JoinGroup", "OffsetFetch"])
def test_kill_around_every_request_loses_nothing(api: str, moment: Moment) -> None:
    for nth in (1, 2):
        outcome = run_scenario(faults_of(KilledAtRequest("w0", api, nth, moment, 500.0)))
        assert outcome.ok, report(outcome, trace_lines=80)
        assert any("w0 is killed" in line for line in outcome.trace.lines()) or (api, nth) == ("OffsetFetch", 2)


def test_worker_that_wakes_up_behind_its_session_is_fenced() -> None:
    """A stop of the world between the offsets and the end of the transaction: the others have gone on when it wakes."""
    outcome = run_scenario(faults_of(FrozenAtRequest("w0", "TxnOffsetCommit", 2, "after", 9_000.0)))
    assert outcome.ok, report(outcome, trace_lines=80)
    lines = list(outcome.trace.lines())
    assert any("w0 wakes up" in line for line in lines)
    assert any(("w0 <-" in line and "INVALID_PRODUCER_EPOCH" in line) or "UNKNOWN_MEMBER_ID" in line for line in lines)


def test_killed_worker_runs_nothing_any_more() -> None:
    """No `finally` either: it does not leave the group, nor end its transaction."""
    outcome = run_scenario(faults_of(Killed("w0", 3_000.0, 6_000.0)))
    assert outcome.ok, report(outcome, trace_lines=80)
    lines = list(outcome.trace.lines())
    killed = next(number for number, line in enumerate(lines) if "w0 is killed" in line)
    back = next(number for number, line in enumerate(lines) if "w0 starts" in line and number > killed)
    assert not any("w0 ->" in line for line in lines[killed:back])


def test_report_tells_seed_faults_and_trace() -> None:
    scenario = faults_of(RequestLost("w0", "EndTxn", 2, quietly=False))
    with MUTATIONS["sequences_not_reset"]():
        outcome = run_scenario(scenario)
    text = report(outcome, trace_lines=10)
    assert "SEED=1" in text
    assert "RequestLost(host='w0', api='EndTxn', nth=2, quietly=False)" in text
    assert "OUT_OF_ORDER_SEQUENCE_NUMBER" in text
    assert "the last 10 of" in text
