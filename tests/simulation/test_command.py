"""The command line of the simulator."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from streamlib.simulation.command import main
from tests.simulation.mutations import MUTATIONS

app = typer.Typer()
app.command()(main)


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_seeds_without_a_failure_are_counted() -> None:
    code, output = invoke("--seeds", "5", "--jobs", "1", "--small")
    assert code == 0, output
    assert "5 seeds" in output
    assert "0 failed" in output


def test_failing_seed_is_told_with_the_command_that_runs_it_again(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with MUTATIONS["sequences_not_reset"]():
        code, output = invoke("--seeds", "50", "--jobs", "1", "--workload", "counter", "--trace", str(trace))
    assert code == 1, output
    assert "SEED=1 counter" in output
    assert "again with: python -m streamlib.simulation --seed 1 --workload counter" in output
    assert "OUT_OF_ORDER_SEQUENCE_NUMBER" in trace.read_text()


def test_one_seed_is_told_whole() -> None:
    code, output = invoke("--seed", "3", "--workload", "ledger")
    assert code == 0, output
    assert "SEED=3  ledger" in output
    assert "nothing is wrong" in output


@pytest.mark.parametrize("name", ["nonsense", ""])
def test_unknown_workload_is_refused_with_those_there_are(name: str) -> None:
    code, output = invoke("--workload", name)
    assert code == 2
    assert "counter" in output
