"""Reads a cluster back when all is over, and puts the verdict into the report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from tests.chaos import verdict
from tests.chaos.faults import Done
from tests.chaos.feed import INPUTS
from tests.chaos.readback import Readback, Row
from tests.chaos.report import Report
from tests.chaos.stalls import longest_stall, recoveries
from tests.chaos.stores import STORES, Stored

OUTPUTS = ("counts", "ledger", "windows", "words")
HANGING_S = 30  # the transaction timeout, the broker's sweep, and patience


def judge(report: Report, readback: Readback, prefix: str, disks: Sequence[Stored]) -> dict[str, list[Row]]:
    """Outputs, changelogs, disks and transactions; the inputs are what the topics hold, not what was sent.

    Returns:
        what was read, by topic without the prefix.
    """
    read = {topic: readback.read(prefix + topic) for topic in (*INPUTS, *OUTPUTS)}
    changelogs = {store: readback.read(f"{prefix}{store}-changelog") for store in STORES}
    report.inputs = sum(len(read[topic]) for topic in INPUTS)
    recounts = {
        "counts": verdict.count_keys(read["events"]),
        "words": verdict.count_words(read["lines"]),
        "windows": verdict.count_windows(read["events"]),
    }
    _judge_outputs(report, read, recounts)
    for store, wanted in recounts.items():
        report.violations += verdict.check_table(f"changelog of {store}", verdict.table(changelogs[store]), wanted)
    report.violations += verdict.check_disks(disks, changelogs)
    report.violations += [f"transaction left open: {where}" for where in _hanging(readback)]
    return read


def judge_pace(report: Report, outputs: Sequence[Row], faults: Sequence[Done]) -> None:
    """How long an output stood still."""
    report.longest_stall = longest_stall(outputs, faults)
    report.recoveries = recoveries(outputs, faults)
    report.worst_recovery_ms = max((recovery.worst_ms for recovery in report.recoveries.values()), default=0)


def _judge_outputs(report: Report, read: Mapping[str, Sequence[Row]], recounts: Mapping[str, verdict.Counts]) -> None:
    for topic, wanted in recounts.items():
        named = verdict.named_windows(wanted) if topic == "windows" else wanted
        report.outputs[topic] = verdict.check_counts(read[topic], named)
    report.outputs["ledger"] = verdict.check_ledger(read["ledger"], read["events"])
    report.lost = sum(tally.lost for tally in report.outputs.values())
    report.duplicated = sum(tally.duplicated for tally in report.outputs.values())


def _hanging(readback: Readback) -> list[str]:
    until_s = time.monotonic() + HANGING_S
    while (hanging := readback.hanging()) and time.monotonic() < until_s:
        time.sleep(0.5)
    return hanging
