"""What one seed stands for: a workload, workers, settings, and a list of faults."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import msgspec

from streamlib.simulation.faults import Drawing, Fault, GracefulMove, MarkersSlow, RequestDelayed
from streamlib.simulation.workloads import WORKLOADS

BROKERS = 3
_SLOW_MARKERS = 0.2  # of the scenarios: the brokers are slow with them all the time
_AT_LEAST_ONCE = 0.4  # of the scenarios whose workload can be judged without exactly-once
_SHARED_DISK = 0.15


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One run, except for what the seed decides on the way (order, latencies).

    Args:
        seed: decides everything that is not said here.
        workload: its name in `streamlib.simulation.workloads.WORKLOADS`.
        workers: how many hosts with a worker each.
        transaction_version: 2 as brokers from 4.0 on, 1 as those before.
        static: whether workers are static members.
        inputs: how many records.
        transactional_inputs: whether they come in transactions, of which some are aborted.
        poison: whether some input records cannot be decoded, and are skipped.
        num_standby_replicas: as in `StreamsConfig`; so are the next three.
        acceptable_recovery_lag: how many changelog offsets a store may be behind to count as caught up.
        max_warmup_replicas: how many tasks are warmed up at once.
        heartbeat_interval_ms: how often workers say that they are alive.
        shared_disk: whether the first two workers keep their state in one directory.
        slow_ms: how long a look at the clock takes on each host: a slice of work ends before all of it is done.
        horizon_ms: how long faults happen. After that there are none, and everything has to drain.
        faults: what goes wrong.
    """

    seed: int
    workload: str
    workers: int = 2
    guarantee: Literal["exactly_once_v2", "at_least_once"] = "exactly_once_v2"
    transaction_version: int = 2
    static: bool = False
    inputs: int = 30
    transactional_inputs: bool = False
    poison: bool = False
    num_standby_replicas: int = 0
    acceptable_recovery_lag: int = 10_000
    max_warmup_replicas: int = 2
    heartbeat_interval_ms: int = 2_000
    shared_disk: bool = False
    slow_ms: float = 0.0
    horizon_ms: float = 5_000.0
    faults: tuple[Fault, ...] = ()

    @property
    def hosts(self) -> tuple[str, ...]:
        """Their names."""
        return host_names(self.workers)

    @property
    def exact(self) -> bool:
        """Whether nothing may come twice: at least once, too, it may not as long as work only moves."""
        return self.guarantee == "exactly_once_v2" or all(isinstance(fault, GracefulMove) for fault in self.faults)


def host_names(workers: int) -> tuple[str, ...]:
    """What the hosts of so many workers are called."""
    return tuple(f"w{number}" for number in range(workers))


class Size(msgspec.Struct, frozen=True):
    """How large the scenarios are that are drawn."""

    workers: tuple[int, ...]
    inputs: tuple[int, int]
    faults: int
    horizons_ms: tuple[float, ...]
    moves_only: bool = False
    heartbeat_interval_ms: int = 500


FULL = Size((1, 2, 2, 2, 3), (10, 60), 8, (5_000.0, 10_000.0, 16_000.0))
SMALL = Size((1, 2), (6, 14), 4, (3_000.0,), heartbeat_interval_ms=1_500)
"""Three times as many of them in the same time."""
MOVES = Size((2, 3, 3), (10, 40), 8, (8_000.0, 14_000.0), moves_only=True)
"""Nothing but joins, leaves, restarts, kills and pauses of workers, which make work move."""


def draw_scenario(seed: int, workloads: Sequence[str], size: Size = FULL) -> Scenario:
    """The scenario of a seed."""
    rng = random.Random(seed)
    workers = rng.choice(size.workers)
    horizon_ms = rng.choice(size.horizons_ms)
    workload = rng.choice(list(workloads))
    repeatable = WORKLOADS[workload].check_repeated is not None
    scenario = Scenario(
        seed=seed,
        workload=workload,
        workers=workers,
        guarantee="at_least_once" if repeatable and rng.random() < _AT_LEAST_ONCE else "exactly_once_v2",
        transaction_version=rng.choice([1, 2, 2]),
        static=rng.random() < 0.4,
        inputs=rng.randint(*size.inputs),
        transactional_inputs=rng.random() < 0.3,
        poison=rng.random() < 0.1,
        num_standby_replicas=rng.choice([0, 0, 1, 2]),
        acceptable_recovery_lag=rng.choice([0, 5, 5, 10_000]),
        max_warmup_replicas=rng.choice([1, 2, 2]),
        heartbeat_interval_ms=size.heartbeat_interval_ms,
        shared_disk=workers > 1 and rng.random() < _SHARED_DISK,
        slow_ms=rng.choice([0.0, 0.0, 5.0, 60.0]),
        horizon_ms=horizon_ms,
        faults=_draw_faults(rng, workers, horizon_ms, size),
    )
    if scenario.guarantee == "exactly_once_v2":
        return scenario
    return msgspec.structs.replace(scenario, faults=tuple(f for f in scenario.faults if not _is_late_commit(f)))


def _is_late_commit(fault: Fault) -> bool:
    """A coordinator takes a plain commit that arrives late for a new one of the same generation, and goes back.

    At least once that costs a repeat at the next start and nothing else, but until then nothing would look drained.
    """
    return isinstance(fault, RequestDelayed) and fault.api == "OffsetCommit"


def _draw_faults(rng: random.Random, workers: int, horizon_ms: float, size: Size) -> tuple[Fault, ...]:
    drawing = Drawing(rng, host_names(workers), BROKERS, horizon_ms * 0.8)
    if size.moves_only:
        return drawing.draw_moves(rng.randint(1, size.faults))
    faults = drawing.draw(rng.randint(0, size.faults))
    if rng.random() < _SLOW_MARKERS:
        faults += (MarkersSlow(0.0, horizon_ms, rng.choice([200.0, 2_000.0])),)
    return faults
