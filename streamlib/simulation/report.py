"""A run in words: the seed, what went wrong, what had been made to go wrong, and how it came about."""

from __future__ import annotations

from collections.abc import Iterator

from streamlib.simulation.simulation import Outcome


def report(outcome: Outcome, *, trace_lines: int) -> str:
    """All there is to know of a run; of the trace its last lines."""
    return "\n".join(_lines(outcome, trace_lines))


def _lines(outcome: Outcome, trace_lines: int) -> Iterator[str]:
    scenario = outcome.scenario
    yield f"SEED={scenario.seed}  {scenario.workload}, {scenario.workers} worker(s), {scenario.guarantee}"
    yield (
        f"{scenario.inputs} inputs{' in transactions' if scenario.transactional_inputs else ''}"
        f"{', with poison' if scenario.poison else ''}; {'static' if scenario.static else 'dynamic'} members; "
        f"transaction.version {scenario.transaction_version}; {outcome.took_ms / 1000:.1f} s of virtual time; "
        f"trace {outcome.digest}"
    )
    yield (
        f"{scenario.num_standby_replicas} standby(s), acceptable lag {scenario.acceptable_recovery_lag}, "
        f"{scenario.max_warmup_replicas} warm-up(s){', w0 and w1 on one disk' if scenario.shared_disk else ''}"
    )
    yield "faults:" if scenario.faults else "no faults"
    yield from (f"  {fault}" for fault in scenario.faults)
    if outcome.ok:
        yield "nothing is wrong"
        return
    yield "what is wrong:"
    yield from (f"  {violation}" for violation in outcome.violations)
    lines = list(outcome.trace.lines())
    yield f"the last {min(trace_lines, len(lines))} of {len(lines)} events:"
    yield from (f"  {line}" for line in lines[-trace_lines:])
