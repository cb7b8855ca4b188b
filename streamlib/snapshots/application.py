"""All workers of an application put together, from what each tells of itself."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from streamlib.snapshots.worker import (
    HotKey,
    Moment,
    NodeSeen,
    PartitionSeen,
    RebalanceSeen,
    TaskComing,
    TopicSeen,
    WorkerSnapshot,
)

HOT_KEYS = 8
_SECOND_MS = 1_000
_SAME_REBALANCE_MS = 5_000
_RANDOM, _SHORT = re.compile(r"[0-9a-f]{32}"), 8
_STATUS = ("ok", "degraded", "stuck")


class Answer(msgspec.Struct, frozen=True):
    """What a worker said when it was asked.

    Args:
        address: where it was asked.
        snapshot: what it said, now or last; None if it never did.
        silent_ms: for how long it has not answered; 0 if it has.
        problem: why it did not.
        is_here: whether it is the one that was asked about the application.
    """

    address: str
    snapshot: WorkerSnapshot | None = None
    silent_ms: int = 0
    problem: str = ""
    is_here: bool = False


class WorkerRow(msgspec.Struct, frozen=True, kw_only=True):
    """One worker among the others: see `WorkerSnapshot`. Without an answer the numbers are the last known."""

    name: str
    address: str
    host: str
    pid: int
    version: str
    state: str
    health: str
    ready: bool
    reasons: tuple[str, ...]
    silent_ms: int
    problem: str
    is_here: bool
    active: int
    standby: int
    restoring: int
    rate_in: float
    rate_out: float
    lag: int
    busy: float
    commit_ms: tuple[float | None, float | None]
    visible_ms: tuple[float | None, float | None]
    open_transaction_ms: float
    totals: dict[str, int]


class TaskRow(msgspec.Struct, frozen=True, kw_only=True):
    """One task, where it runs, and who follows it.

    Args:
        task: its id.
        worker: the name of the one that processes or restores it; "" if nobody says to have it.
        role: `active`, `restoring`, or `standby` if only those are known.
        lag: records behind in all its inputs.
        share, latency_ms, dropped, calls, partitions: see `TaskSeen`.
        coming: how far its restore is.
        standbys: the workers that follow it, and how many offsets they are behind.
        stale: its worker does not answer.
    """

    task: str
    worker: str
    role: str
    lag: int = 0
    share: float | None = None
    latency_ms: float | None = None
    dropped: int = 0
    calls: int = 0
    partitions: tuple[PartitionSeen, ...] = ()
    coming: TaskComing | None = None
    standbys: tuple[tuple[str, int], ...] = ()
    stale: bool = False


class TopicRow(msgspec.Struct, frozen=True):
    """A topic: records per second that are read and written, and how far behind its readers are."""

    rate_in: float
    rate_out: float
    lag: int


class RebalanceRow(msgspec.Struct, frozen=True):
    """A rebalance, and the workers that have taken part in it, with how long it took each, in ms."""

    at_ms: int
    joined: tuple[str, ...]
    left: tuple[str, ...]
    moving: int
    tasks: int
    took_ms: dict[str, float]


class ApplicationSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """An application at a moment; sums and worst cases over the workers that answer."""

    application_id: str
    at_ms: int
    guarantee: str
    health: str
    ready: bool
    reasons: tuple[str, ...]
    rate_in: float
    rate_out: float
    lag: int
    commit_ms: tuple[float | None, float | None]
    visible_ms: tuple[float | None, float | None]
    open_transaction_ms: float
    workers: tuple[WorkerRow, ...]
    tasks: tuple[TaskRow, ...]
    nodes: dict[str, NodeSeen]
    topics: dict[str, TopicRow]
    hot_keys: tuple[HotKey, ...]
    rebalances: tuple[RebalanceRow, ...]
    history: tuple[Moment, ...]


def put_together(answers: Sequence[Answer], at_ms: int) -> ApplicationSnapshot:
    """The application out of what its workers said; at least one of them has."""
    answers = sorted(answers, key=_place)
    names = names_of(answers)
    rows = tuple(_worker(answer, names[number]) for number, answer in enumerate(answers))
    told = [(names[number], answer) for number, answer in enumerate(answers) if answer.snapshot is not None]
    live = [answer.snapshot for answer in answers if answer.snapshot is not None and not answer.silent_ms]
    known = [answer.snapshot for _, answer in told if answer.snapshot is not None]
    assert known, "nobody has said anything"
    tasks = _tasks(told)
    return ApplicationSnapshot(
        application_id=known[0].application_id,
        at_ms=at_ms,
        guarantee=known[0].guarantee,
        health=max((row.health for row in rows), key=_badness),
        ready=all(row.ready for row in rows),
        reasons=tuple(_reasons(rows)),
        rate_in=round(sum(each.rate_in for each in live), 1),
        rate_out=round(sum(each.rate_out for each in live), 1),
        lag=sum(each.lag for each in live),
        commit_ms=_average_and_most([each.commit_ms for each in live]),
        visible_ms=_average_and_most([each.visible_ms for each in live]),
        open_transaction_ms=max((each.open_transaction_ms for each in live), default=0.0),
        workers=rows,
        tasks=tasks,
        nodes=_nodes(live),
        topics=_topics(live, tasks),
        hot_keys=_hot_keys(live),
        rebalances=_rebalances(told),
        history=_history(live),
    )


def names_of(answers: Sequence[Answer]) -> list[str]:
    """What each is called: by the beginning of its id, with the host where that is not the same for all.

    >>> names_of([Answer("10.0.0.1:8080"), Answer("10.0.0.2:8080")])
    ['10.0.0.1:8080', '10.0.0.2:8080']
    """
    hosts = {answer.snapshot.host for answer in answers if answer.snapshot is not None}
    found = []
    for answer in answers:
        snapshot = answer.snapshot
        if snapshot is None or not snapshot.worker_id:
            found.append(answer.address)
        else:
            name = snapshot.worker_id[:_SHORT] if _RANDOM.fullmatch(snapshot.worker_id) else snapshot.worker_id
            found.append(name if len(hosts) == 1 else f"{snapshot.host}/{name}")
    counts = Counter(found)
    return [name if counts[name] == 1 else answer.address for name, answer in zip(found, answers, strict=True)]


def _place(answer: Answer) -> tuple[str, int]:
    host, _, port = answer.address.rpartition(":")
    return host, int(port) if port.isdecimal() else 0


def _badness(health: str) -> int:
    return _STATUS.index(health) if health in _STATUS else len(_STATUS)


def _reasons(rows: Iterable[WorkerRow]) -> Iterator[str]:
    for row in sorted(rows, key=lambda row: -_badness(row.health)):
        if row.silent_ms:
            yield f"{row.name} does not answer since {row.silent_ms / 1000:.0f} s: {row.problem}"
        yield from (f"{row.name}: {reason}" for reason in row.reasons)


def _worker(answer: Answer, name: str) -> WorkerRow:
    seen, silent = answer.snapshot, answer.silent_ms > 0
    active = 0 if seen is None else len(seen.tasks)
    coming = () if seen is None else seen.coming
    return WorkerRow(
        name=name,
        address=answer.address,
        host="" if seen is None else seen.host,
        pid=0 if seen is None else seen.pid,
        version="" if seen is None else seen.version,
        state="UNKNOWN" if silent or seen is None else seen.state,
        health="degraded" if silent or seen is None else seen.health,
        ready=not silent and seen is not None and seen.ready,
        reasons=() if silent or seen is None else seen.reasons,
        silent_ms=answer.silent_ms,
        problem=answer.problem,
        is_here=answer.is_here,
        active=active,
        standby=sum(each.standby for each in coming),
        restoring=sum(not each.standby for each in coming),
        rate_in=0.0 if seen is None else seen.rate_in,
        rate_out=0.0 if seen is None else seen.rate_out,
        lag=0 if seen is None else seen.lag,
        busy=0.0 if seen is None else seen.busy,
        commit_ms=(None, None) if seen is None else seen.commit_ms,
        visible_ms=(None, None) if seen is None else seen.visible_ms,
        open_transaction_ms=0.0 if seen is None else seen.open_transaction_ms,
        totals={} if seen is None else seen.totals,
    )


def _tasks(told: Sequence[tuple[str, Answer]]) -> tuple[TaskRow, ...]:
    """Who answers is believed more than who was asked last a while ago: tasks move."""
    rows: dict[str, TaskRow] = {}
    standbys: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, answer in sorted(told, key=lambda each: -each[1].silent_ms):
        snapshot, stale = answer.snapshot, answer.silent_ms > 0
        assert snapshot is not None
        for each in snapshot.coming:
            if each.standby:
                if not stale:
                    standbys[each.task].append((name, each.remaining))
            elif each.task not in rows or rows[each.task].stale:
                rows[each.task] = TaskRow(task=each.task, worker=name, role="restoring", coming=each, stale=stale)
        for task in snapshot.tasks:
            rows[task.task] = TaskRow(
                task=task.task,
                worker=name,
                role="active",
                lag=sum(each.lag or 0 for each in task.partitions),
                share=task.share,
                latency_ms=task.latency_ms,
                dropped=task.dropped,
                calls=task.calls,
                partitions=task.partitions,
                stale=stale,
            )
    for missing in standbys.keys() - rows.keys():
        rows[missing] = TaskRow(task=missing, worker="", role="standby")
    ordered = sorted(rows, key=task_order)
    return tuple(msgspec.structs.replace(rows[task], standbys=tuple(standbys[task])) for task in ordered)


def task_order(task: str) -> tuple[int, int]:
    """`0_10` comes after `0_9`.

    >>> sorted(["0_10", "1_0", "0_9"], key=task_order)
    ['0_9', '0_10', '1_0']
    """
    subtopology, _, partition = task.partition("_")
    return int(subtopology), int(partition)


def _average_and_most(each: Sequence[tuple[float | None, float | None]]) -> tuple[float | None, float | None]:
    averages = [average for average, _ in each if average is not None]
    most = max((most for _, most in each if most is not None), default=None)
    return (sum(averages) / len(averages) if averages else None), most


def _nodes(live: Sequence[WorkerSnapshot]) -> dict[str, NodeSeen]:
    """Time adds up: two workers that are always at a node make 2."""
    busy: Counter[str] = Counter()
    rates: Counter[str] = Counter()
    for snapshot in live:
        for node, seen in snapshot.nodes.items():
            busy[node] += seen.busy  # type: ignore[assignment]
            if seen.rate is not None:
                rates[node] += seen.rate  # type: ignore[assignment]
    return {node: NodeSeen(busy[node], rates.get(node)) for node in sorted(busy)}


def _topics(live: Sequence[WorkerSnapshot], tasks: Sequence[TaskRow]) -> dict[str, TopicRow]:
    seen: dict[str, list[TopicSeen]] = defaultdict(list)
    for snapshot in live:
        for topic, each in snapshot.topics.items():
            seen[topic].append(each)
    lags: Counter[str] = Counter()
    for task in tasks:
        for partition in task.partitions:
            lags[partition.topic] += partition.lag or 0
    return {
        topic: TopicRow(
            round(sum(each.rate_in for each in seen[topic]), 1),
            round(sum(each.rate_out for each in seen[topic]), 1),
            lags[topic],
        )
        for topic in sorted({*seen, *lags})
    }


def _hot_keys(live: Sequence[WorkerSnapshot]) -> tuple[HotKey, ...]:
    """A key belongs to one partition, and so to one worker, unless it has just moved."""
    totals: dict[str, Counter[str]] = defaultdict(Counter)
    over: Counter[tuple[str, str]] = Counter()
    of: dict[str, dict[int, int]] = defaultdict(dict)
    for number, snapshot in enumerate(live):
        for each in snapshot.hot_keys:
            totals[each.topic][each.key] += each.count
            over[each.topic, each.key] += each.over
            of[each.topic][number] = each.of
    return tuple(
        HotKey(topic, key, count, over[topic, key], sum(of[topic].values()))
        for topic in sorted(totals)
        for key, count in totals[topic].most_common(HOT_KEYS)
    )


def _rebalances(told: Sequence[tuple[str, Answer]]) -> tuple[RebalanceRow, ...]:
    """Newest first. Each worker tells of the same one, with a clock and a number of its own."""
    seen = [(each, name) for name, answer in told if answer.snapshot for each in answer.snapshot.rebalances]
    groups: list[list[tuple[RebalanceSeen, str]]] = []
    for each, name in sorted(seen, key=lambda pair: pair[0].at_ms):
        for group in reversed(groups):
            if each.at_ms - group[0][0].at_ms > _SAME_REBALANCE_MS:
                continue
            if name not in (other for _, other in group) and (each.moving, each.tasks) == (
                group[0][0].moving, group[0][0].tasks,
            ):  # fmt: skip
                group.append((each, name))
                break
        else:
            groups.append([(each, name)])
    return tuple(_rebalance(group) for group in reversed(groups))


def _rebalance(group: Sequence[tuple[RebalanceSeen, str]]) -> RebalanceRow:
    """To one that has just come, everybody is new: who has been there longest says who joined."""
    oldest = max((each for each, _ in group), key=lambda each: each.number)
    took: Mapping[str, float] = {name: each.took_ms for each, name in group}
    return RebalanceRow(oldest.at_ms, oldest.joined, oldest.left, oldest.moving, oldest.tasks, dict(took))


def _history(live: Sequence[WorkerSnapshot]) -> tuple[Moment, ...]:
    """By seconds; the last one may not have been told by all yet, and is left out then."""
    seconds: dict[int, list[Moment]] = defaultdict(list)
    for snapshot in live:
        latest: dict[int, Moment] = {moment.at_ms // _SECOND_MS: moment for moment in snapshot.history}
        for second, moment in latest.items():
            seconds[second].append(moment)
    last = min((s.history[-1].at_ms // _SECOND_MS for s in live if s.history), default=0)
    found = []
    for second in sorted(seconds):
        moments = seconds[second]
        if second > last:
            break
        commits = [each.commit_ms for each in moments if each.commit_ms is not None]
        found.append(
            Moment(
                second * _SECOND_MS,
                round(sum(each.rate_in for each in moments), 1),
                round(sum(each.rate_out for each in moments), 1),
                sum(each.lag for each in moments),
                sum(commits) / len(commits) if commits else None,
            )
        )
    return tuple(found)
