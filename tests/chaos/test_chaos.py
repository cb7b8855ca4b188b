"""The short form of `python -m tests.chaos`: three brokers, three workers, half a minute of what can happen to them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.chaos.report import summary
from tests.chaos.run import Plan, Watch, run

SECONDS = 28


@pytest.mark.broker
@pytest.mark.slow
async def test_nothing_is_lost_and_nothing_comes_twice_while_things_break(tmp_path: Path) -> None:
    plan = Plan(seed=random.SystemRandom().getrandbits(32), seconds=SECONDS, rate=200, short=True, folder=tmp_path)
    report = await run(plan, Watch())
    print(summary(report))
    assert report.holds, (
        f"SEED={plan.seed} --short --minutes {SECONDS / 60:.2f}; all is in {tmp_path}\n{summary(report)}"
    )
    # Which of their faults it was is the seed's choice, and a slow machine's.
    for whose in (": worker", ": broker"):
        assert any(kind.endswith(whose) for kind in report.faults), report.faults
    assert report.network.connections
