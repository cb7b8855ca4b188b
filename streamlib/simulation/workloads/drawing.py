"""What random inputs are made of: keys of each partition, and times that mostly go on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from string import ascii_lowercase

from streamlib.partitioning import partition_for
from streamlib.simulation.workloads.workload import PARTITIONS

START_MS = 1_000_000
"""When the first records are from."""


def keys_of(partition: int, number: int) -> tuple[str, ...]:
    """The first few letters that belong to a partition, so that joins and repartitioned records meet.

    >>> keys_of(0, 3), keys_of(1, 3)
    (('a', 'b', 'c'), ('d', 'f', 'g'))
    """
    letters = (letter for letter in ascii_lowercase if partition_for(letter.encode(), PARTITIONS) == partition)
    return tuple(letter for _, letter in zip(range(number), letters, strict=False))


class Times:
    """The times of one partition's records, in ms.

    Args:
        rng: decides.
        step_ms: how far they go on at most, from one record to the next.
        late_ms: how far a late record is behind at most.
        late_share: how many are late.
    """

    def __init__(self, rng: random.Random, step_ms: int, late_ms: int = 0, late_share: float = 0.0) -> None:
        self._rng = rng
        self._step_ms = step_ms
        self._late_ms = late_ms
        self._late_share = late_share
        self.latest = START_MS

    def next(self) -> int:
        """The next record's time."""
        if self._rng.random() < self._late_share:
            return self.latest - self._rng.randint(0, self._late_ms)
        self.latest += self._rng.randint(0, self._step_ms)
        return self.latest


class Draw:
    """Draws records one after the other: for each a partition, a key of it and a name that no other has."""

    def __init__(self, rng: random.Random, keys: int) -> None:
        self._rng = rng
        self._keys = [keys_of(partition, keys) for partition in range(PARTITIONS)]

    def records(self, number: int) -> Iterator[tuple[int, str, str]]:
        """So many: partition, key, name."""
        for serial in range(number):
            partition = self._rng.randrange(PARTITIONS)
            yield partition, self._rng.choice(self._keys[partition]), f"n{serial}"

    def times(self, step_ms: int, late_ms: int = 0, late_share: float = 0.0) -> list[Times]:
        """Times for each partition."""
        return [Times(self._rng, step_ms, late_ms, late_share) for _ in range(PARTITIONS)]
