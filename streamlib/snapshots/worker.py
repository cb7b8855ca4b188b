"""What one worker tells of itself, once a second. Times are in ms since the epoch, durations say their unit."""

from __future__ import annotations

import msgspec


class Moment(msgspec.Struct, frozen=True, array_like=True):
    """One second of a worker's recent past.

    Args:
        at_ms: when.
        rate_in: records processed per second.
        rate_out: records written per second.
        lag: records behind, in all inputs.
        commit_ms: what a commit took on average; None if there was none.
    """

    at_ms: int
    rate_in: float
    rate_out: float
    lag: int
    commit_ms: float | None


class PartitionSeen(msgspec.Struct, frozen=True):
    """An input of a task: how far it is behind, and for how long it has stood still although it is."""

    topic: str
    partition: int
    lag: int | None
    standing_ms: float


class TaskSeen(msgspec.Struct, frozen=True):
    """A task that processes.

    Args:
        task: its id.
        share: its part of the worker's time, 0 to 1; None if nothing was processed.
        latency_ms: the age of records when they were processed, on average in the last half minute.
        dropped: records left out since it began here.
        calls: of async functions that have not gone on.
        partitions: its inputs.
    """

    task: str
    share: float | None
    latency_ms: float | None
    dropped: int
    calls: int
    partitions: tuple[PartitionSeen, ...] = ()


class StoreComing(msgspec.Struct, frozen=True):
    """A store on its way through its changelog, in offsets."""

    store: str
    done: int
    remaining: int


class TaskComing(msgspec.Struct, frozen=True):
    """A task that is being restored, or a standby that is followed.

    Args:
        task: its id.
        standby: whether it follows another worker's task.
        restored: records written to its stores.
        remaining: changelog offsets to go.
        rate: records per second since the start.
        eta_s: how long the rest takes if it goes on like this; None if nobody can tell.
        stores: the same for each.
    """

    task: str
    standby: bool
    restored: int
    remaining: int
    rate: float
    eta_s: float | None
    stores: tuple[StoreComing, ...] = ()


class NodeSeen(msgspec.Struct, frozen=True):
    """A node of the topology.

    Args:
        busy: the part of the time in which the worker was seen at it, 0 to 1, from samples.
        rate: records per second; counted with `metrics_recording_level="DEBUG"` only.
    """

    busy: float
    rate: float | None = None


class TopicSeen(msgspec.Struct, frozen=True):
    """A topic that is read or written: records per second, in offsets where it is read."""

    rate_in: float = 0.0
    rate_out: float = 0.0


class HotKey(msgspec.Struct, frozen=True):
    """A key that comes often: so many of the last half minute's `of` records, of which `over` may be too many."""

    topic: str
    key: str
    count: int
    over: int
    of: int


class RebalanceSeen(msgspec.Struct, frozen=True):
    """A rebalance, as the worker saw it."""

    at_ms: int
    number: int
    joined: tuple[str, ...]
    left: tuple[str, ...]
    moving: int
    tasks: int
    took_ms: float


class WorkerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A worker at a moment. What it has not measured yet is None, or empty.

    Args:
        application_id: whose worker it is.
        worker_id: its name in the group's rebalances and metrics.
        host: the machine.
        pid: the process there.
        version: of streamlib.
        at_ms: when it was looked at.
        state: of the application in that process, in Kafka Streams' words.
        health: `ok`, `degraded` or `stuck`.
        ready: whether every task assigned to it is processing.
        reasons: why it is not better.
        guarantee: the processing guarantee.
        rate_in: records processed per second, in the last half minute, as everything that follows.
        rate_out: records written per second.
        lag: records behind, in all inputs.
        busy: part of the time spent processing, 0 to 1.
        commit_ms: what a commit took, on average and at most.
        visible_ms: from the processing of a commit's first record to its end, on average and at most.
        open_transaction_ms: age of the open transaction; 0 if none is.
        totals: counts since the start, by name.
    """

    application_id: str
    pid: int
    at_ms: int
    worker_id: str = ""
    host: str = ""
    version: str = ""
    state: str = ""
    health: str = ""
    ready: bool = False
    reasons: tuple[str, ...] = ()
    guarantee: str = ""
    rate_in: float = 0.0
    rate_out: float = 0.0
    lag: int = 0
    busy: float = 0.0
    commit_ms: tuple[float | None, float | None] = (None, None)
    visible_ms: tuple[float | None, float | None] = (None, None)
    open_transaction_ms: float = 0.0
    totals: dict[str, int] = {}
    tasks: tuple[TaskSeen, ...] = ()
    coming: tuple[TaskComing, ...] = ()
    nodes: dict[str, NodeSeen] = {}
    topics: dict[str, TopicSeen] = {}
    hot_keys: tuple[HotKey, ...] = ()
    rebalances: tuple[RebalanceSeen, ...] = ()
    history: tuple[Moment, ...] = ()
