"""Says whether a worker gets anywhere, and if not, what stands still.

What has to move is looked at once a second; whoever has not moved for `watchdog_timeout_ms` although it should have is
stuck. What a restart of the worker would not mend (others hold it up, or no broker answers) only degrades it: a
supervisor that restarts what is stuck must not make things worse.

Time counts as far as somebody looks: a process that was stopped for a minute has not stood still for one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Generic, NamedTuple, TypeVar

from streamlib.config import StreamsConfig
from streamlib.engine.calls import Call
from streamlib.metrics import HealthStatus
from streamlib.records import TopicPartition
from streamlib.runtime.worker import Observation

LONGEST_LOOK_MS = 2_000
"""So much time at most counts between two looks."""

LONG_PART = 10
"""A rebalance is long after this part of the timeout; so is a function."""

NAMED = 3
"""So many places are named in a reason, of however many there are."""

K = TypeVar("K", bound=Hashable)


class Finding(NamedTuple):
    """Something that is not as it should be."""

    status: HealthStatus
    text: str


class _Since(NamedTuple):
    mark: object
    since_ms: float


class Standing(Generic[K]):
    """For how long marks have been the same. A key that is not there at a look is forgotten."""

    def __init__(self) -> None:
        self._since: dict[K, _Since] = {}

    def look(self, marks: Mapping[K, object], now_ms: float) -> None:
        """See where everything is."""
        before, self._since = self._since, {}
        for key, mark in marks.items():
            known = before.get(key)
            self._since[key] = known if known is not None and known.mark == mark else _Since(mark, now_ms)

    def age_ms(self, key: K, now_ms: float) -> float:
        """For how long one has not moved; 0 if it is not known."""
        known = self._since.get(key)
        return 0.0 if known is None else now_ms - known.since_ms

    def longest_ms(self, now_ms: float) -> float:
        """For how long that has not moved that stands for the longest."""
        return max((now_ms - each.since_ms for each in self._since.values()), default=0.0)

    def longer_than(self, limit_ms: float, now_ms: float) -> list[K]:
        """Those that have not moved for so long."""
        return [key for key, each in self._since.items() if now_ms - each.since_ms >= limit_ms]


class Watchdog:
    """Looks at one worker.

    Args:
        config: what is to be expected. Where commits are rarer, or a task may wait for longer than a half of
            `watchdog_timeout_ms`, that is what counts.
    """

    def __init__(self, config: StreamsConfig) -> None:
        waits_ms = max(config.commit_interval_ms, config.max_task_idle_ms)
        self.timeout_ms = float(max(config.watchdog_timeout_ms, 2 * waits_ms))
        self.long_ms = self.timeout_ms / LONG_PART
        self._silent_ms = max(self.long_ms, config.session_timeout_ms)
        self._transaction_ms = max(self.timeout_ms, config.transaction_timeout_ms)
        self._looked_ms: float | None = None
        self._now_ms = 0.0  # time that counts
        self._heard: Standing[str] = Standing()
        self._starting: Standing[str] = Standing()
        self._restores: Standing[str] = Standing()
        self._partitions: Standing[TopicPartition] = Standing()
        self._transactions: Standing[TopicPartition] = Standing()
        self.findings: list[Finding] = []

    @property
    def stuck_partitions(self) -> list[TopicPartition]:
        """Those with lag whose commits have not moved for too long."""
        return self._partitions.longer_than(self.timeout_ms, self._now_ms)

    def standing_ms(self, partition: TopicPartition) -> float:
        """For how long a partition's commits have not moved although there is lag."""
        return self._partitions.age_ms(partition, self._now_ms)

    @property
    def hanging_ms(self) -> float:
        """For how long a transaction of others has held up an input, the longest one."""
        return self._transactions.longest_ms(self._now_ms)

    def look(self, seen: Observation, now_ms: float) -> None:
        """See where everything is."""
        if self._looked_ms is not None:
            self._now_ms += min(now_ms - self._looked_ms, LONGEST_LOOK_MS)
        self._looked_ms, now_ms = now_ms, self._now_ms
        behind = {p: at for p, at in seen.committed.items() if seen.ends.get(p, 0) > at and p not in seen.resting}
        self._partitions.look(behind, now_ms)
        self._transactions.look({p: seen.ends.get(p) for p in seen.unstable}, now_ms)
        self._heard.look({"coordinator": seen.heard} if seen.settled else {}, now_ms)
        self._starting.look({} if seen.running else {"tasks": True}, now_ms)
        restoring = [each for each in seen.restorations if not each.endless and each.remaining]
        self._restores.look({str(each.id): each.remaining for each in restoring}, now_ms)
        found = [*self._stuck(seen), *self._degraded(seen)]
        self.findings = sorted(found, key=lambda finding: -finding.status)

    def _stuck(self, seen: Observation) -> Iterator[Finding]:
        if places := self.stuck_partitions:
            yield Finding(HealthStatus.STUCK, self._standing(places, seen))
        if tasks := self._restores.longer_than(self.timeout_ms, self._now_ms):
            yield Finding(
                HealthStatus.STUCK, f"the restore of {_some(tasks)} has stood still for {_s(self.timeout_ms)} or longer"
            )
        if seen.oldest_call is not None and seen.oldest_call[1] >= self.timeout_ms:
            yield Finding(HealthStatus.STUCK, _unanswered(*seen.oldest_call))
        if seen.open_transaction_ms >= self._transaction_ms:
            age = _s(seen.open_transaction_ms)
            yield Finding(HealthStatus.STUCK, f"hanging transaction: this worker's has been open for {age}")

    def _degraded(self, seen: Observation) -> Iterator[Finding]:
        if places := self._transactions.longer_than(self.timeout_ms, self._now_ms):
            yield Finding(
                HealthStatus.DEGRADED,
                f"hanging transaction: one that somebody else left open holds up {_some(places)} "
                f"for {_s(self.hanging_ms)}",
            )
        if self._heard.longer_than(self._silent_ms, self._now_ms):
            silent = _s(self._heard.longest_ms(self._now_ms))
            yield Finding(HealthStatus.DEGRADED, f"broker unreachable: the group's coordinator is silent for {silent}")
        if seen.status.restoring:
            tasks, left = len(seen.status.restoring), sum(seen.status.restoring.values())
            yield Finding(HealthStatus.DEGRADED, f"restoring {tasks} tasks, {left:,} changelog offsets to go")
        elif self._starting.longer_than(self.long_ms, self._now_ms):
            what = "opening tasks" if seen.settled else "rebalancing"
            yield Finding(HealthStatus.DEGRADED, f"{what} for {_s(self._starting.longest_ms(self._now_ms))}")

    def _standing(self, places: list[TopicPartition], seen: Observation) -> str:
        first = max(places, key=self.standing_ms)
        left = seen.ends.get(first, 0) - seen.committed.get(first, 0)
        others = f", {len(places) - 1} more as well" if len(places) > 1 else ""
        return (
            f"stuck partition: {first.at(seen.committed.get(first, 0))} does not move for "
            f"{_s(self.standing_ms(first))}, with {left:,} records to go{others}"
        )


def _unanswered(call: Call, age_ms: float) -> str:
    record = call.record_in_process
    of = "" if record is None else f" for {record[0].at(record[1])}"
    return f"a call of node {call.line.name}{of} has not ended for {_s(age_ms)}: give it a timeout"


def _s(ms: float) -> str:
    return f"{ms / 1000:.0f} s" if ms >= 10_000 else f"{ms / 1000:.1f} s"


def _some(places: list[K]) -> str:
    named = ", ".join(map(str, places[:NAMED]))
    return named if len(places) <= NAMED else f"{named} and {len(places) - NAMED} more"
