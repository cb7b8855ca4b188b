"""Looks at a worker once a second, and tells whoever asks what it saw: any thread may ask.

    worker's loop:  tick --> Observation --> Meter, Watchdog        once a second
    any thread:     read --> the loop, or what was seen last while a function holds it

Nothing in the loop waits for those who ask.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import chain

import msgspec

from streamlib.config import StreamsConfig
from streamlib.metrics import (
    CacheMetrics,
    HealthStatus,
    NodeMetrics,
    Number,
    PartitionMetrics,
    RestoringMetrics,
    StoreMetrics,
    TaskMetrics,
    WorkerMetrics,
)
from streamlib.records import TaskId
from streamlib.runtime.album import Album
from streamlib.runtime.meter import HISTORY, Meter, StoreMeter
from streamlib.runtime.restoration import Restoration
from streamlib.runtime.watchdog import Finding, Watchdog
from streamlib.runtime.worker import Observation, Worker
from streamlib.snapshots.worker import WorkerSnapshot

log = logging.getLogger(__name__)

LOOK_S = 1.0
PATIENCE_S = 0.5
"""For so long a thread waits for the loop before it takes what was seen last."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as it was at a moment, by itself: nothing of it changes afterwards."""

    running: bool
    findings: tuple[Finding, ...]
    worker: WorkerMetrics
    tasks: dict[str, TaskMetrics] = {}
    restoring: dict[tuple[str, str], RestoringMetrics] = {}
    partitions: dict[tuple[str, str, str], PartitionMetrics] = {}
    nodes: dict[tuple[str, str], NodeMetrics] = {}
    stores: dict[tuple[str, str], StoreMetrics] = {}
    caches: dict[tuple[str, str], CacheMetrics] = {}
    snapshot: WorkerSnapshot | None = None


class Monitor:
    """Watches one worker in the worker's event loop, from `start` to `stop`. With an album it keeps what the console
    shows."""

    def __init__(self, worker: Worker, config: StreamsConfig, album: Album | None = None) -> None:
        self._album = album
        self._worker = worker
        self._elapsed_ms = worker.meter.elapsed_ms
        self._debug = config.metrics_recording_level == "DEBUG"
        self._watchdog = Watchdog(config)
        self._lags: deque[list[int]] = deque(maxlen=HISTORY)
        self._rebalances = 0
        self._rebalanced_ms: float | None = None  # when it was seen that their number had changed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread_id = 0
        self._timer: asyncio.TimerHandle | None = None
        self._turned_ms = 0.0  # when the loop was seen to turn last
        self._last: Seen | None = None

    def start(self) -> None:
        """Begin to look. The event loop has to run."""
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        if self._album is not None:
            self._album.sampling.start(lambda: self._worker.at_work().node)
        self._tick()

    def stop(self) -> None:
        """Look no more. Counts of the worker stay as they were seen last; tasks, and what they have, are gone."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop = None
        if self._album is not None:
            self._album.sampling.stop()
        if self._last is not None:
            worker = msgspec.structs.replace(self._last.worker, tasks=0)
            self._last = Seen(running=False, findings=self._last.findings, worker=worker)

    def read(self) -> Seen:
        """The worker as it is now, or as it was when its loop turned last."""
        loop = self._loop
        if loop is None or threading.get_ident() == self._thread_id:
            return self._see()
        answer: Future[Seen] = Future()
        try:
            loop.call_soon_threadsafe(self._answer, answer)
            return answer.result(PATIENCE_S)
        except (TimeoutError, RuntimeError):  # held by a function, or closed by now
            answer.cancel()
            assert self._last is not None, "read before start"
            return msgspec.structs.replace(self._last, findings=(*self._held(), *self._last.findings))

    def _answer(self, answer: Future[Seen]) -> None:
        if not answer.set_running_or_notify_cancel():
            return
        try:
            answer.set_result(self._see())
        except Exception as error:  # whoever asked is to hear of it
            answer.set_exception(error)

    def _held(self) -> Iterator[Finding]:
        """What is to be said of a loop that does not turn."""
        held_ms = self._elapsed_ms() - self._turned_ms
        if held_ms < self._watchdog.long_ms:
            return
        stuck = held_ms >= self._watchdog.timeout_ms
        yield Finding(
            HealthStatus.STUCK if stuck else HealthStatus.DEGRADED,
            f"{self._worker.at_work()} has held the worker for {held_ms / 1000:.1f} s",
        )

    def _tick(self) -> None:
        loop = self._loop
        if loop is None:
            return
        self._timer = loop.call_later(LOOK_S, self._tick)
        self._look(self._worker.observe())

    def _look(self, seen: Observation) -> None:
        """What is remembered from one second to the next."""
        meter = seen.meter
        now_ms = self._turned_ms = meter.elapsed_ms()
        self._take_counts(seen)
        meter.look(seen.tasks)
        self._watchdog.look(seen, now_ms)
        self._lags.append([max(seen.ends[p] - mark, 0) for p, mark in seen.low_water.items() if p in seen.ends])
        rebalanced = seen.status.rebalances != self._rebalances
        if rebalanced:
            self._rebalances, self._rebalanced_ms = seen.status.rebalances, now_ms
        if self._album is not None:
            self._album.look(seen, meter.commit.average, seen.status.last_rebalance if rebalanced else None)
        self._last = self._put_together(seen)

    def _take_counts(self, seen: Observation) -> None:
        """What others count."""
        meter = seen.meter
        meter.produced.count = seen.status.records_out
        under_way = sum(each.restored for each in seen.restorations if not each.endless)
        # A restore that is given up is in neither of the two any more.
        meter.restored.count = max(meter.restored.count, seen.status.records_restored + under_way)
        meter.take_counts(seen.tasks)

    def _see(self) -> Seen:
        if self._loop is None:
            assert self._last is not None, "read before start"
            return self._last
        seen = self._worker.observe()
        self._turned_ms = seen.meter.elapsed_ms()
        self._take_counts(seen)
        self._last = self._put_together(seen)
        return self._last

    def _put_together(self, seen: Observation) -> Seen:
        worker, partitions, nodes = self._of_worker(seen), self._of_partitions(seen), _of_nodes(seen.meter)
        tasks = {str(task_id): self._of_task(task_id, seen) for task_id in sorted(seen.tasks)}
        return Seen(
            running=seen.running,
            findings=tuple(self._watchdog.findings),
            worker=worker,
            tasks=tasks,
            restoring={(str(each.id), str(each.endless).lower()): _of_restoration(each) for each in seen.restorations},
            partitions=partitions,
            nodes=nodes,
            stores={
                (str(task_id), store): _of_store(meter, seen.meter.elapsed_ms())
                for task_id, stores in seen.meter.stores.items()
                for store, meter in stores.items()
            },
            caches=_of_caches(seen),
            snapshot=None if self._album is None else self._album.picture(seen, (worker, tasks, partitions, nodes)),
        )

    def _of_worker(self, seen: Observation) -> WorkerMetrics:
        meter, status, now_ms = seen.meter, seen.status, seen.meter.elapsed_ms()
        tasks = seen.tasks.values()
        restoring = [each for each in seen.restorations if not each.endless]
        return WorkerMetrics(
            process_total=status.records_in,
            process_rate=meter.process.rate(now_ms),
            process_latency_avg=meter.process.average,
            process_latency_max=meter.process.most,
            process_ratio=meter.process.ratio(now_ms),
            punctuate_total=int(meter.punctuate.count),
            punctuate_rate=meter.punctuate.rate(now_ms),
            punctuate_latency_avg=meter.punctuate.average,
            punctuate_latency_max=meter.punctuate.most,
            punctuate_ratio=meter.punctuate.ratio(now_ms),
            poll_total=int(meter.poll.count),
            poll_rate=meter.poll.rate(now_ms),
            poll_latency_avg=meter.poll.average,
            poll_latency_max=meter.poll.most,
            poll_ratio=meter.poll.ratio(now_ms),
            commit_total=int(meter.commit.count),
            commit_rate=meter.commit.rate(now_ms),
            commit_latency_avg=meter.commit.average,
            commit_latency_max=meter.commit.most,
            commit_ratio=meter.commit.ratio(now_ms),
            commit_failed_total=meter.commits_failed,
            commits_held_total=status.commits_held,
            visible_latency_avg=meter.visible.average,
            visible_latency_max=meter.visible.most,
            transactions_aborted_total=meter.aborted,
            open_transaction_age=seen.open_transaction_ms,
            redone_total=status.redone,
            records_produced_total=status.records_out,
            records_produced_rate=meter.produced.rate(now_ms),
            tasks=len(tasks),
            rebalance_total=status.rebalances,
            rebalance_time_total=seen.rebalance_ms,
            rebalance_latency_last=None if status.last_rebalance is None else status.last_rebalance.took_ms,
            last_rebalance_seconds_ago=None if self._rebalanced_ms is None else (now_ms - self._rebalanced_ms) / 1000,
            records_lag_max=max(self._lags[-1], default=None) if self._lags else None,
            records_lag_p99=percentile(list(chain.from_iterable(self._lags)), 99),
            stuck_partitions=len(self._watchdog.stuck_partitions),
            hanging_transaction_age=self._watchdog.hanging_ms,
            input_buffer_bytes_total=sum(task.buffered_bytes for task in tasks),
            uncommitted_bytes=sum(task.uncommitted_bytes for task in tasks),
            cache_size_bytes_total=max((task.cache_bytes for task in tasks), default=0),
            calls_in_flight=status.calls_in_flight,
            oldest_call_age=0.0 if seen.oldest_call is None else seen.oldest_call[1],
            active_restoring_tasks=len(restoring),
            standby_updating_tasks=len(seen.restorations) - len(restoring),
            restore_total=int(meter.restored.count),
            restore_rate=meter.restored.rate(now_ms),
            restore_remaining_records_total=sum(each.remaining for each in restoring),
        )

    def _of_task(self, task_id: TaskId, seen: Observation) -> TaskMetrics:
        meter, now_ms = seen.meter.of_task(task_id), seen.meter.elapsed_ms()
        busy, busy_all = meter.process.ratio(now_ms), seen.meter.process.ratio(now_ms)
        return TaskMetrics(
            active_process_ratio=busy / busy_all if busy_all else None,
            dropped_records_total=int(meter.dropped.count),
            dropped_records_rate=meter.dropped.rate(now_ms),
            record_e2e_latency_min=meter.e2e.least,
            record_e2e_latency_avg=meter.e2e.average,
            record_e2e_latency_max=meter.e2e.most,
            calls_pending=seen.tasks[task_id].calls_pending,
            process_total=int(meter.process.count) if self._debug else None,
            process_rate=meter.process.rate(now_ms) if self._debug else None,
            process_latency_avg=meter.process.average if self._debug else None,
            process_latency_max=meter.process.most if self._debug else None,
        )

    def _of_partitions(self, seen: Observation) -> dict[tuple[str, str, str], PartitionMetrics]:
        return {
            (str(task.id), partition.topic, str(partition.partition)): PartitionMetrics(
                records_lag=max(seen.ends[partition] - seen.low_water[partition], 0)
                if partition in seen.ends
                else None,
                standing_time=self._watchdog.standing_ms(partition),
                unstable_records=seen.unstable.get(partition, 0),
            )
            for task in seen.tasks.values()
            for partition in task.inputs
        }


def _of_restoration(restoration: Restoration) -> RestoringMetrics:
    return RestoringMetrics(
        restore_records=restoration.restored,
        restore_remaining_records=restoration.remaining,
        restore_records_rate=restoration.rate,
    )


def _of_nodes(meter: Meter) -> dict[tuple[str, str], NodeMetrics]:
    now_ms = meter.elapsed_ms()
    return {
        (str(task_id), node): NodeMetrics(process_total=int(timing.count), process_rate=timing.rate(now_ms))
        for (task_id, node), timing in meter.nodes.items()
    }


def _of_store(meter: StoreMeter, now_ms: float) -> StoreMetrics:
    return StoreMetrics(
        get_total=int(meter.get.count),
        get_rate=meter.get.rate(now_ms),
        get_latency_avg=meter.get.average,
        get_latency_max=meter.get.most,
        range_total=int(meter.range.count),
        range_rate=meter.range.rate(now_ms),
        put_total=int(meter.put.count),
        put_rate=meter.put.rate(now_ms),
        flush_total=int(meter.flush.count),
        flush_latency_avg=meter.flush.average,
        flush_latency_max=meter.flush.most,
    )


def _of_caches(seen: Observation) -> dict[tuple[str, str], CacheMetrics]:
    found = {}
    for task in seen.tasks.values():
        waiting = task.cached_updates
        for store, count in () if task.counts is None else task.counts.caches.items():
            replaced = count.added - count.passed - waiting.get(store, 0)
            found[str(task.id), store] = CacheMetrics(hit_ratio_avg=replaced / count.added if count.added else None)
    return found


def percentile(values: list[int], part: float) -> Number:
    """The value that `part` percent are not above; None of nothing.

    >>> percentile([1, 2, 3, 100], 50)
    2
    """
    if not values:
        return None
    return sorted(values)[max(math.ceil(len(values) * part / 100) - 1, 0)]
