"""Writes a workload's inputs while the workers run: plainly, or in transactions of which some are aborted."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence

from streamlib.kafka.batches import BatchBuilder
from streamlib.records import OutRecord, TopicPartition
from streamlib.simulation.cluster.cluster import Cluster
from streamlib.simulation.workloads.workload import Input

_FIRST_PRODUCER_ID = 1_000_000
_BATCH_BYTES = 1 << 20
_ABORTED = 0.25  # of the transactions
_POISON: OutRecord = (b"\xff", b"\xff poison", 0, ())


class Feeder:
    """Somebody else's producer. Keeps what a worker should see of each input partition, with its offset."""

    def __init__(self, cluster: Cluster, rng: random.Random, *, transactional: bool, poison: bool) -> None:
        self._cluster = cluster
        self._rng = rng
        self._transactional = transactional
        self._poison = poison
        self._producer_ids = itertools.count(_FIRST_PRODUCER_ID)
        self.written: dict[TopicPartition, list[tuple[int, OutRecord]]] = {}

    def write(self, inputs: Sequence[Input]) -> None:
        """Write some of the inputs, in their order."""
        for partition, group in itertools.groupby(inputs, key=lambda item: item.partition):
            records = [item.record for item in group]
            if self._transactional and self._rng.random() < _ABORTED:
                self._write(partition, records, commit=False)
            if self._poison and self._rng.random() < 0.1:
                self._write(partition, [_POISON], commit=True)
            offset = self._write(partition, records, commit=True)
            self.written.setdefault(partition, []).extend((offset + n, record) for n, record in enumerate(records))

    def _write(self, partition: TopicPartition, records: Iterable[OutRecord], *, commit: bool) -> int:
        """One batch, with a producer id of its own if it is a transaction; returns its first offset."""
        log = self._cluster.topics.log(partition)
        builder = BatchBuilder(partition, 0, self._transactional, _BATCH_BYTES, _BATCH_BYTES)
        builder.extend(list(records))
        if not self._transactional:
            return log.append(bytes(builder.build(-1, -1, -1)))
        producer_id = next(self._producer_ids)
        offset = log.append(bytes(builder.build(producer_id, 0, 0)))
        log.append_marker(producer_id, 0, commit=commit, timestamp=0)
        return offset
