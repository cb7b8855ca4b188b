"""What an application measures, and how it is: the values, with the name, unit and meaning of each.

The classes below are the catalogue: each field is a metric, and its annotation says the rest. Whoever shows metrics to
others (`streamlib.monitoring`) goes through `Metrics.samples` and needs no list of its own. Names are Kafka Streams'
with underscores for dashes, where it has them (KIP-444, KIP-869); `docs/pages/monitoring.md` has all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, get_args, get_origin, get_type_hints

import msgspec

RecordingLevel: TypeAlias = Literal["INFO", "DEBUG"]
Kind: TypeAlias = Literal["counter", "gauge"]


class Metric(NamedTuple):
    """What a number means. A counter only grows; a gauge is as it is, or as it was in the last half minute."""

    kind: Kind
    unit: str
    text: str
    level: RecordingLevel = "INFO"


class Sample(NamedTuple):
    """One number, as it is shown to others. `name` begins with its group: `task_process_total`."""

    name: str
    metric: Metric
    labels: Mapping[str, str]
    value: float


def _of(kind: Kind, level: RecordingLevel = "INFO") -> Any:
    def of(unit: str, text: str) -> Metric:
        return Metric(kind, unit, text, level)

    return of


_counter, _gauge = _of("counter"), _of("gauge")
_debug_counter, _debug_gauge = _of("counter", "DEBUG"), _of("gauge", "DEBUG")

Number: TypeAlias = float | None
"""None: there was nothing to measure, or the recording level leaves it out."""


class ClientMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """The application in this process."""

    state: Annotated[str, _gauge("", "State of the application; the label says which, the value is 1")]
    version: Annotated[str, _gauge("", "Version of streamlib; the label says which, the value is 1")]
    alive_stream_threads: Annotated[int, _gauge("workers", "Workers that run in this process: 1 or 0")]
    failed_stream_threads: Annotated[int, _gauge("workers", "Workers that an error has stopped: 1 or 0")]
    health: Annotated[int, _gauge("", "0: ok, 1: degraded, 2: stuck")]
    ready: Annotated[int, _gauge("", "1 if every assigned task is processing")]


class WorkerMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """What Kafka Streams measures of a thread, and its consumer and producer."""

    process_total: Annotated[int, _counter("records", "Records processed, dropped and redone ones included")]
    process_rate: Annotated[Number, _gauge("records/s", "Records processed")]
    process_latency_avg: Annotated[Number, _gauge("ms", "Time per record, from the time of slices")]
    process_latency_max: Annotated[Number, _gauge("ms", "Highest time per record of one slice")]
    process_ratio: Annotated[Number, _gauge("", "Part of the time spent processing records")]
    punctuate_total: Annotated[int, _counter("calls", "Punctuators called because of the wall clock")]
    punctuate_rate: Annotated[Number, _gauge("calls/s", "Punctuators called because of the wall clock")]
    punctuate_latency_avg: Annotated[Number, _gauge("ms", "Time per punctuator")]
    punctuate_latency_max: Annotated[Number, _gauge("ms", "Highest time per punctuator of one turn")]
    punctuate_ratio: Annotated[Number, _gauge("", "Part of the time spent in punctuators")]
    poll_total: Annotated[int, _counter("turns", "Times that fetched records were taken over")]
    poll_rate: Annotated[Number, _gauge("turns/s", "Times that fetched records were taken over")]
    poll_latency_avg: Annotated[Number, _gauge("ms", "Time to take fetched records over")]
    poll_latency_max: Annotated[Number, _gauge("ms", "Highest time to take fetched records over")]
    poll_ratio: Annotated[Number, _gauge("", "Part of the time spent taking fetched records over")]
    commit_total: Annotated[int, _counter("commits", "Commits that succeeded")]
    commit_rate: Annotated[Number, _gauge("commits/s", "Commits that succeeded")]
    commit_latency_avg: Annotated[Number, _gauge("ms", "Time from the sealing of a commit to its end")]
    commit_latency_max: Annotated[Number, _gauge("ms", "Highest time from the sealing of a commit to its end")]
    commit_ratio: Annotated[Number, _gauge("", "Part of the time in which a commit was under way")]
    commit_failed_total: Annotated[int, _counter("commits", "Commits that failed, or whose outcome was not known")]
    commits_held_total: Annotated[int, _counter("commits", "Commits that waited for calls of async functions")]
    visible_latency_avg: Annotated[
        Number, _gauge("ms", "Time from the processing of the first record of a commit to its end")
    ]
    visible_latency_max: Annotated[Number, _gauge("ms", "Highest time from processing to the end of the commit")]
    transactions_aborted_total: Annotated[int, _counter("transactions", "Transactions, or their like, given up")]
    open_transaction_age: Annotated[float, _gauge("ms", "Age of the open transaction, 0 if none is")]
    redone_total: Annotated[int, _counter("times", "Times that work since the last commit was redone")]
    records_produced_total: Annotated[int, _counter("records", "Records written to topics, changelogs not counted")]
    records_produced_rate: Annotated[Number, _gauge("records/s", "Records written to topics")]
    tasks: Annotated[int, _gauge("tasks", "Tasks that process")]
    rebalance_total: Annotated[int, _counter("rebalances", "Rebalances this worker took part in")]
    rebalance_time_total: Annotated[float, _counter("ms", "Time in rebalances, from each join to its assignment")]
    rebalance_latency_last: Annotated[Number, _gauge("ms", "Time the last rebalance took")]
    last_rebalance_seconds_ago: Annotated[Number, _gauge("s", "Time since the last rebalance")]
    records_lag_max: Annotated[Number, _gauge("records", "Highest lag of a partition")]
    records_lag_p99: Annotated[Number, _gauge("records", "99th percentile of the lag over partitions and time")]
    stuck_partitions: Annotated[int, _gauge("partitions", "Partitions with lag that did not move for too long")]
    hanging_transaction_age: Annotated[
        float, _gauge("ms", "Longest time that an open transaction of others has held up an input")
    ]
    input_buffer_bytes_total: Annotated[int, _gauge("bytes", "Fetched records that wait to be processed")]
    uncommitted_bytes: Annotated[int, _gauge("bytes", "Outputs and state that no commit has begun with")]
    cache_size_bytes_total: Annotated[int, _gauge("bytes", "What the record caches hold")]
    calls_in_flight: Annotated[int, _gauge("calls", "Calls of async functions under way")]
    oldest_call_age: Annotated[float, _gauge("ms", "For how long the oldest of them is under way")]
    active_restoring_tasks: Annotated[int, _gauge("tasks", "Tasks that are being restored")]
    standby_updating_tasks: Annotated[int, _gauge("tasks", "Standbys that are followed")]
    restore_total: Annotated[int, _counter("records", "Records restored for tasks to run")]
    restore_rate: Annotated[Number, _gauge("records/s", "Records restored for tasks to run")]
    restore_remaining_records_total: Annotated[int, _gauge("offsets", "Changelog offsets left to restore")]


class TaskMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """One task that runs here."""

    active_process_ratio: Annotated[Number, _gauge("", "The task's part of the time spent processing records")]
    dropped_records_total: Annotated[int, _counter("records", "Records dropped by a rule or a policy")]
    dropped_records_rate: Annotated[Number, _gauge("records/s", "Records dropped by a rule or a policy")]
    record_e2e_latency_min: Annotated[Number, _gauge("ms", "Lowest age of the last record of a slice")]
    record_e2e_latency_avg: Annotated[Number, _gauge("ms", "Age of the last record of each slice")]
    record_e2e_latency_max: Annotated[Number, _gauge("ms", "Highest age of the last record of a slice")]
    calls_pending: Annotated[int, _gauge("calls", "Calls that have not gone on, those that wait included")]
    process_total: Annotated[Number, _debug_counter("records", "Records processed")] = None
    process_rate: Annotated[Number, _debug_gauge("records/s", "Records processed")] = None
    process_latency_avg: Annotated[Number, _debug_gauge("ms", "Time per record")] = None
    process_latency_max: Annotated[Number, _debug_gauge("ms", "Highest time per record of one slice")] = None


class RestoringMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """A task on its way, or a standby."""

    restore_records: Annotated[int, _gauge("records", "Records written to its stores so far")]
    restore_remaining_records: Annotated[int, _gauge("offsets", "Changelog offsets that it is behind")]
    restore_records_rate: Annotated[float, _gauge("records/s", "Records written to its stores, since the start")]


class PartitionMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """An input partition of a task that runs here."""

    records_lag: Annotated[Number, _gauge("records", "Records to the last stable offset; missing before it is known")]
    standing_time: Annotated[float, _gauge("ms", "For how long its commits do not move although there is lag")]
    unstable_records: Annotated[int, _gauge("records", "Records behind the last stable offset: not committed yet")]


class NodeMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """A processor node of a task."""

    process_total: Annotated[int, _debug_counter("records", "Records that came to the node")]
    process_rate: Annotated[Number, _debug_gauge("records/s", "Records that came to the node")]


class StoreMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """A store of a task, as far as it goes to the disk: what was written since the last commit is read from memory."""

    get_total: Annotated[int, _debug_counter("reads", "Rows asked for by key")]
    get_rate: Annotated[Number, _debug_gauge("reads/s", "Rows asked for by key")]
    get_latency_avg: Annotated[Number, _debug_gauge("ms", "Time per row")]
    get_latency_max: Annotated[Number, _debug_gauge("ms", "Highest time for a row")]
    range_total: Annotated[int, _debug_counter("reads", "Ranges opened")]
    range_rate: Annotated[Number, _debug_gauge("reads/s", "Ranges opened")]
    put_total: Annotated[int, _debug_counter("rows", "Rows written: for each key one in a commit")]
    put_rate: Annotated[Number, _debug_gauge("rows/s", "Rows written: for each key one in a commit")]
    flush_total: Annotated[int, _debug_counter("commits", "Commits that wrote to the store")]
    flush_latency_avg: Annotated[Number, _debug_gauge("ms", "Time per commit, all stores of the task together")]
    flush_latency_max: Annotated[Number, _debug_gauge("ms", "Highest time of a commit, all stores together")]


class CacheMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """The record cache of a table."""

    hit_ratio_avg: Annotated[Number, _debug_gauge("", "Part of the updates that took the place of one that waited")]


Group: TypeAlias = (
    ClientMetrics
    | WorkerMetrics
    | TaskMetrics
    | RestoringMetrics
    | PartitionMetrics
    | NodeMetrics
    | StoreMetrics
    | CacheMetrics
)

GROUPS: Mapping[type[Group], tuple[str, tuple[str, ...]]] = {
    ClientMetrics: ("client", ()),
    WorkerMetrics: ("worker", ()),
    TaskMetrics: ("task", ("task",)),
    RestoringMetrics: ("restoring", ("task", "standby")),
    PartitionMetrics: ("partition", ("task", "topic", "partition")),
    NodeMetrics: ("node", ("task", "node")),
    StoreMetrics: ("store", ("task", "store")),
    CacheMetrics: ("record_cache", ("task", "store")),
}
"""What the names of a group's metrics begin with, and the labels beside those that all have."""

COMMON_LABELS = ("application_id", "worker")
"""Labels of every metric. A worker is called by its place in the state directory, which outlives its process."""


@functools.cache
def catalogue(group: type[Group]) -> Mapping[str, Metric]:
    """The metrics of a group by field.

    >>> catalogue(WorkerMetrics)["commit_total"].unit
    'commits'
    """
    found = {}
    for name, hint in get_type_hints(group, include_extras=True).items():
        assert get_origin(hint) is Annotated, f"{group.__name__}.{name} says nothing of itself"
        found[name] = next(each for each in get_args(hint) if isinstance(each, Metric))
    return found


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of everything that is measured.

    `worker` is None while there is none. Keys are the labels of `GROUPS`, in that order. What a level of
    `metrics_recording_level` does not record is missing.

    >>> none = Metrics(application_id="shop", worker_id="", client=ClientMetrics(
    ...     state="CREATED", version="1", alive_stream_threads=0, failed_stream_threads=0, health=1, ready=0))
    >>> [sample.name for sample in none.samples() if sample.metric.unit]
    ['client_alive_stream_threads', 'client_failed_stream_threads']
    """

    application_id: str
    worker_id: str
    client: ClientMetrics
    worker: WorkerMetrics | None = None
    tasks: Mapping[str, TaskMetrics] = {}
    restoring: Mapping[tuple[str, str], RestoringMetrics] = {}
    partitions: Mapping[tuple[str, str, str], PartitionMetrics] = {}
    nodes: Mapping[tuple[str, str], NodeMetrics] = {}
    stores: Mapping[tuple[str, str], StoreMetrics] = {}
    caches: Mapping[tuple[str, str], CacheMetrics] = {}

    def samples(self) -> Iterator[Sample]:
        """Every number there is, to be shown to others."""
        yield from self._samples_of(self.client, ())
        if self.worker is not None:
            yield from self._samples_of(self.worker, ())
        for task, of_task in self.tasks.items():
            yield from self._samples_of(of_task, (task,))
        for groups in (self.restoring, self.partitions, self.nodes, self.stores, self.caches):
            assert isinstance(groups, Mapping)
            for place, group in groups.items():
                yield from self._samples_of(group, place)

    def _samples_of(self, group: Group, place: tuple[str, ...]) -> Iterator[Sample]:
        prefix, names = GROUPS[type(group)]
        labels = dict(zip((*COMMON_LABELS, *names), (self.application_id, self.worker_id, *place), strict=True))
        for name, metric in catalogue(type(group)).items():
            match getattr(group, name):
                case None:
                    pass
                case str(text):
                    yield Sample(f"{prefix}_{name}", metric, {**labels, name: text}, 1)
                case number:
                    yield Sample(f"{prefix}_{name}", metric, labels, number)


class HealthStatus(IntEnum):
    """How an application is.

    >>> max(HealthStatus.OK, HealthStatus.STUCK).name
    'STUCK'
    """

    OK = 0
    DEGRADED = 1
    STUCK = 2


class Health(msgspec.Struct, frozen=True):
    """How an application is, and why it is not better.

    Args:
        status: `DEGRADED`: results are late or will be, and a restart would not help; `STUCK`: nothing will happen any
            more unless somebody does something.
        ready: whether every task assigned to the worker is processing.
        reasons: what is wrong, the worst first; empty if all is well.

    >>> Health(HealthStatus.OK, True).reasons
    ()
    """

    status: HealthStatus
    ready: bool
    reasons: tuple[str, ...] = ()
