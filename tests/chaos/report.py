"""The figures of a run, and how people read them."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tests.chaos.faults import Done
from tests.chaos.proxy import Counts
from tests.chaos.stalls import Recovery, Stall
from tests.chaos.verdict import Tally


class Report(msgspec.Struct):
    """What came of a run."""

    seed: int
    seconds: float
    inputs: int = 0
    input_transactions: int = 0
    input_aborted: int = 0
    outputs: dict[str, Tally] = {}
    faults: dict[str, int] = {}
    worker_kills: int = 0
    worker_starts: int = 0
    worker_unstarted: int = 0
    worker_overdue: int = 0
    broker_kills: int = 0
    leaders_moved: int = 0
    network: Counts = msgspec.field(default_factory=Counts)
    recoveries: dict[str, Recovery] = {}
    longest_stall: Stall = Stall()
    drain_seconds: float = 0.0
    feed_errors: dict[str, int] = {}
    violations: list[str] = []
    timeline: list[Done] = []
    lost: int = 0
    duplicated: int = 0
    worst_recovery_ms: int = 0

    @property
    def holds(self) -> bool:
        """Whether it was exactly once."""
        return not self.violations and all(tally.exact for tally in self.outputs.values())


def summary(report: Report) -> str:
    """A screen of text that ends with the verdict."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    yield f"input     {report.inputs:,} records in {report.input_transactions:,} transactions,"
    yield f"          {report.input_aborted:,} more were aborted on purpose"
    for topic, tally in report.outputs.items():
        yield f"{topic:10}{tally.records:,} records, lost {tally.lost}, too many {tally.duplicated}"
        yield from (f"          {example}" for example in tally.examples)
    yield f"workers   {report.worker_kills} killed, {report.worker_starts} starts, {report.worker_unstarted} without a"
    yield f"          broker to start with, {report.worker_overdue} killed since they did not stop in time"
    yield f"brokers   {report.broker_kills} killed, leaders of {report.leaders_moved} partitions moved"
    network = report.network
    yield (
        f"network   {network.cut} connections cut, {network.refused} refused, "
        f"{network.swallowed_bytes:,} bytes swallowed, {network.delayed_chunks:,} chunks delayed"
    )
    yield f"faults    {sum(report.faults.values())}; all partitions had output again after (median, worst, worst alone)"
    for kind, count in report.faults.items():
        yield f"          {count:4} {kind:36}{_recovery(report.recoveries.get(kind))}"
    stall = report.longest_stall
    yield f"longest   {stall.length_ms / 1000:.1f} s without output of a partition, in it: {', '.join(stall.faults)}"
    yield f"drained   in {report.drain_seconds} s"
    yield from (f"VIOLATION {text}" for text in report.violations)
    yield "exactly once: it holds" if report.holds else "exactly once: IT DOES NOT HOLD"
    yield f"          lost {report.lost}, duplicated {report.duplicated}, seed {report.seed}"


def _recovery(recovery: Recovery | None) -> str:
    if recovery is None:
        return ""
    text = f"{recovery.median_ms / 1000:6.1f} s {recovery.worst_ms / 1000:6.1f} s"
    return f"{text} {recovery.worst_alone_ms / 1000:6.1f} s" if recovery.alone else text
