"""Pictures of a worker for the console, one whenever somebody looks, with the last minutes in the background."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from streamlib.config import StreamsConfig
from streamlib.engine.operators.site import short
from streamlib.engine.plan import Plan
from streamlib.metrics import NodeMetrics, PartitionMetrics, TaskMetrics, WorkerMetrics
from streamlib.records import TopicPartition
from streamlib.runtime.membership import Rebalance
from streamlib.runtime.restoration import Restoration
from streamlib.runtime.sampling import Sampling
from streamlib.runtime.worker import Observation
from streamlib.serdes import Serde
from streamlib.snapshots.worker import (
    HotKey,
    Moment,
    NodeSeen,
    PartitionSeen,
    RebalanceSeen,
    StoreComing,
    TaskComing,
    TaskSeen,
    TopicSeen,
    WorkerSnapshot,
)
from streamlib.topology.nodes import SourceNode

HISTORY_S = 180
REBALANCES = 50
RATE_S = 10
"""Rates of topics are those of the last so many seconds."""

HOT_KEYS = 8

Measured = tuple[
    WorkerMetrics,
    Mapping[str, TaskMetrics],
    Mapping[tuple[str, str, str], PartitionMetrics],
    Mapping[tuple[str, str], NodeMetrics],
]


class _Counts:
    """How far each input is, and how many records were written to each topic, at some time."""

    def __init__(self, at_ms: float, low_water: Mapping[TopicPartition, int], seen: Observation, written: Counter[str]):
        self.at_ms = at_ms
        self.low_water = low_water
        self.records_in = seen.status.records_in
        self.records_out = seen.status.records_out
        self.written = written


class Album:
    """Of one worker; everything is for its loop.

    Args:
        config: the settings that are shown.
        key_serdes: by topic, how its keys are read.
        sampling: what is sampled.
        now_ms: the wall clock.
    """

    def __init__(
        self,
        config: StreamsConfig,
        key_serdes: Mapping[str, Serde[Any]],
        sampling: Sampling,
        now_ms: Callable[[], float] = lambda: time.time() * 1000,
    ) -> None:
        self._config = config
        self._key_serdes = key_serdes
        self.sampling = sampling
        self._now_ms = now_ms
        self._history: deque[Moment] = deque(maxlen=HISTORY_S)
        self._rebalances: deque[RebalanceSeen] = deque(maxlen=REBALANCES)
        self._counts: deque[_Counts] = deque(maxlen=RATE_S + 1)

    def look(self, seen: Observation, commit_ms: float | None, rebalance: Rebalance | None) -> None:
        """A second has passed; `rebalance` if there was one in it."""
        now_ms = self._now_ms()
        self.sampling.turn()
        before = self._counts[-1] if self._counts else None
        counts = _Counts(seen.meter.elapsed_ms(), seen.low_water, seen, self.sampling.written.copy())
        self._counts.append(counts)
        if before is not None:
            took_s = max(counts.at_ms - before.at_ms, 1) / 1000
            rate_in = max(counts.records_in - before.records_in, 0) / took_s
            rate_out = max(counts.records_out - before.records_out, 0) / took_s
            self._history.append(Moment(int(now_ms), round(rate_in, 1), round(rate_out, 1), _lag(seen), commit_ms))
        if rebalance is not None:
            self._rebalances.append(
                RebalanceSeen(
                    int(now_ms), rebalance.number, rebalance.joined, rebalance.left, rebalance.moving,
                    rebalance.tasks, rebalance.took_ms,
                )
            )  # fmt: skip

    def picture(self, seen: Observation, measured: Measured) -> WorkerSnapshot:
        """The worker as it is now; what the application knows better is filled in there."""
        worker, tasks, partitions, nodes = measured
        inputs: dict[str, list[PartitionSeen]] = {task: [] for task in tasks}
        for (task, topic, partition), each in partitions.items():
            lag = None if each.records_lag is None else int(each.records_lag)
            inputs[task].append(PartitionSeen(topic, int(partition), lag, each.standing_time))
        return WorkerSnapshot(
            application_id=self._config.application_id,
            pid=os.getpid(),
            at_ms=int(self._now_ms()),
            guarantee=self._config.processing_guarantee,
            rate_in=round(worker.process_rate or 0.0, 1),
            rate_out=round(worker.records_produced_rate or 0.0, 1),
            lag=_lag(seen),
            busy=worker.process_ratio or 0.0,
            commit_ms=(worker.commit_latency_avg, worker.commit_latency_max),
            visible_ms=(worker.visible_latency_avg, worker.visible_latency_max),
            open_transaction_ms=worker.open_transaction_age,
            totals={
                "records_in": worker.process_total,
                "records_out": worker.records_produced_total,
                "commits": worker.commit_total,
                "commits_failed": worker.commit_failed_total,
                "transactions_aborted": worker.transactions_aborted_total,
                "redone": worker.redone_total,
                "rebalances": worker.rebalance_total,
                "calls_in_flight": worker.calls_in_flight,
                "dropped": seen.status.dropped,
            },
            tasks=tuple(_task(task, each, inputs[task]) for task, each in tasks.items()),
            coming=tuple(coming(each) for each in sorted(seen.restorations, key=lambda each: each.id)),
            nodes=self._nodes(nodes),
            topics=self._topics(),
            hot_keys=self.hot_keys(),
            rebalances=tuple(self._rebalances),
            history=tuple(self._history),
        )

    def _nodes(self, counted: Mapping[tuple[str, str], NodeMetrics]) -> dict[str, NodeSeen]:
        busy = self.sampling.busy()
        rates: Counter[str] = Counter()
        for (_, node), each in counted.items():
            rates[node] += each.process_rate or 0.0  # type: ignore[assignment]
        return {
            node: NodeSeen(round(busy.get(node, 0.0), 4), round(rates[node], 1) if node in rates else None)
            for node in sorted(busy.keys() | rates.keys())
        }

    def _topics(self) -> dict[str, TopicSeen]:
        if len(self._counts) < 2:
            return {}
        first, last = self._counts[0], self._counts[-1]
        took_s = max(last.at_ms - first.at_ms, 1) / 1000
        read: Counter[str] = Counter()
        for earlier, later in pairwise(self._counts):
            for partition, position in later.low_water.items():
                read[partition.topic] += max(position - earlier.low_water.get(partition, position), 0)
        written = last.written - first.written
        return {
            topic: TopicSeen(round(read[topic] / took_s, 1), round(written[topic] / took_s, 1))
            for topic in sorted(read.keys() | last.written.keys())
        }

    def hot_keys(self) -> tuple[HotKey, ...]:
        """Those of each topic that came most often, as people read them."""
        return tuple(
            HotKey(each.topic, self._key_text(each.topic, each.key), each.count, each.over, each.of)
            for each in self.sampling.hot_keys(HOT_KEYS)
        )

    def _key_text(self, topic: str, key: bytes) -> str:
        serde = self._key_serdes.get(topic)
        try:
            value = key if serde is None else serde.decode(key)
        except Exception:  # a user's serde may raise anything
            value = key
        return value if isinstance(value, str) and len(value) <= 80 else short(value)


def key_serdes_of(plan: Plan) -> dict[str, Serde[Any]]:
    """By the topics' full names, how sources read their keys."""
    return {
        plan.full_name(topic): node.key
        for nodes in plan.subtopologies
        for node in nodes.values()
        if isinstance(node, SourceNode)
        for topic in node.topics
    }


def _lag(seen: Observation) -> int:
    return sum(max(seen.ends[p] - mark, 0) for p, mark in seen.low_water.items() if p in seen.ends)


def _task(task: str, metrics: TaskMetrics, partitions: list[PartitionSeen]) -> TaskSeen:
    return TaskSeen(
        task, metrics.active_process_ratio, metrics.record_e2e_latency_avg, metrics.dropped_records_total,
        metrics.calls_pending, tuple(partitions),
    )  # fmt: skip


def coming(restoration: Restoration) -> TaskComing:
    """How far a restore or a standby is."""
    stores = tuple(
        StoreComing(each.store, max(each.position - each.start, 0), each.remaining)
        for each in restoration.changelogs.values()
    )
    return TaskComing(
        str(restoration.id), restoration.endless, restoration.restored, restoration.remaining,
        round(restoration.rate, 1), None if restoration.endless else restoration.eta_s, stores,
    )  # fmt: skip
