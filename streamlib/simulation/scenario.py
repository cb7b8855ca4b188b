"""What one seed stands for: a workload, workers, settings, and a list of faults."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import msgspec

from streamlib.simulation.faults import Drawing, Fault, MarkersSlow

BROKERS = 3
_SLOW_MARKERS = 0.2  # of the scenarios: the brokers are slow with them all the time


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
    horizon_ms: float = 5_000.0
    faults: tuple[Fault, ...] = ()

    @property
    def hosts(self) -> tuple[str, ...]:
        """Their names."""
        return host_names(self.workers)


def host_names(workers: int) -> tuple[str, ...]:
    """What the hosts of so many workers are called."""
    return tuple(f"w{number}" for number in range(workers))


class Size(msgspec.Struct, frozen=True):
    """How large the scenarios are that are drawn."""

    workers: tuple[int, ...]
    inputs: tuple[int, int]
    faults: int
    horizons_ms: tuple[float, ...]


FULL = Size((1, 2, 2, 2, 3), (10, 60), 8, (5_000.0, 10_000.0, 16_000.0))
SMALL = Size((1, 2, 2), (8, 20), 4, (5_000.0,))
"""Twice as many of them in the same time."""


def draw_scenario(seed: int, workloads: Sequence[str], size: Size = FULL) -> Scenario:
    """The scenario of a seed."""
    rng = random.Random(seed)
    workers = rng.choice(size.workers)
    horizon_ms = rng.choice(size.horizons_ms)
    faults = Drawing(rng, host_names(workers), BROKERS, horizon_ms * 0.8).draw(rng.randint(0, size.faults))
    if rng.random() < _SLOW_MARKERS:
        faults += (MarkersSlow(0.0, horizon_ms, rng.choice([200.0, 2_000.0])),)
    return Scenario(
        seed=seed,
        workload=rng.choice(list(workloads)),
        workers=workers,
        transaction_version=rng.choice([1, 2, 2]),
        static=rng.random() < 0.4,
        inputs=rng.randint(*size.inputs),
        transactional_inputs=rng.random() < 0.3,
        poison=rng.random() < 0.1,
        horizon_ms=horizon_ms,
        faults=faults,
    )
