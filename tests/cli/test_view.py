from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from streamlib.cli.report import Report
from streamlib.cli.supervisor import Phase, Totals, WorkerView
from streamlib.cli.view import Rate, Restoring, Sum, View
from streamlib.runtime.worker import WorkerStatus


def view(index: int, *, tasks: int = 2, lag: int = 3, restoring: dict[str, int] | None = None) -> WorkerView:
    status = WorkerStatus(
        tasks=tuple(f"{index}_{partition}" for partition in range(tasks)),
        standbys={},
        restoring=restoring or {},
        records_in=1000,
        records_out=500,
        records_restored=0,
        commits=7,
        redone=0,
        rebalances=1,
        last_rebalance=None,
        lag=lag,
    )
    report = Report(status=status, running=True, time_s=0, cpu_s=0, peak_bytes=0)
    return WorkerView(index, Phase.RUNNING, 100 + index, index, Totals(10, 5, 1).plus(report), report)


SILENT = WorkerView(1, Phase.WAITING, None, 1, Totals(10, 5, 1), None)


def test_sum_counts_earlier_lives_of_a_worker_that_is_down() -> None:
    total = Sum.of([view(0), SILENT])
    assert (total.tasks, total.records_in, total.records_out, total.commits) == (2, 1020, 510, 9)
    assert (total.lag, total.restarts) == (3, 1)


def test_rate_is_over_the_last_moments_and_never_negative() -> None:
    rate = Rate()
    assert rate.update(0.0, 0) == 0
    assert rate.update(1.0, 100) == 100
    assert rate.update(10.0, 100 + 9 * 50) == 50
    assert rate.update(11.0, 50) == 0


def test_restoring_is_the_part_of_what_was_left_at_first() -> None:
    restoring = Restoring()
    assert restoring.update({"0_1": 200}) == {"0_1": 0}
    assert restoring.update({"0_1": 50}) == {"0_1": 0.75}
    assert restoring.update({}) == {}
    assert restoring.update({"0_1": 10}) == {"0_1": 0}


def test_log_line_says_it_all() -> None:
    shown = View(lambda: [view(0, restoring={"0_7": 50}), SILENT], Console(file=io.StringIO()))
    assert shown.line() == (
        "tasks 2+0  in 1,020 (0/s)  out 510  lag 3  commits 9  restarts 1  restoring 0_7 0% (50 left)"
    )


def test_terminal_gets_a_table_with_a_bar() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=120)
    with View(lambda: [view(0, restoring={"0_7": 50}), SILENT], console, headline=lambda: "lines 5"):
        pass
    text = file.getvalue()
    for piece in ("lines 5", "0_0 0_1", "1,010", "waiting", "restoring 0_7", "50 records left"):
        assert piece in text


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), force_terminal=False)


def test_log_gets_a_line_now_and_then(console: Console) -> None:
    lines: list[str] = []
    with View(lambda: [view(0)], console, log_line=lines.append, every_s=0.01):
        deadline = time.monotonic() + 10
        while len(lines) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert lines[0].startswith("tasks 2  in 1,010")
