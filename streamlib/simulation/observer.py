"""Watches a run from outside: what must never happen, and whether everything is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from streamlib.engine.plan import Plan
from streamlib.records import OutRecord, TopicPartition
from streamlib.simulation.checks import StoreCopy, drained, no_hanging_transaction, store_follows_changelog
from streamlib.simulation.cluster.basics import Refused
from streamlib.simulation.cluster.cluster import Cluster
from streamlib.simulation.cluster.log import PartitionLog
from streamlib.simulation.disk import Disk


class Observer:
    """Looks at the cluster and the disks; changes nothing."""

    def __init__(self, cluster: Cluster, plan: Plan, group_id: str) -> None:
        self._cluster = cluster
        self._plan = plan
        self._group_id = group_id
        self._inputs = [partition for task_id in plan.tasks for partition in plan.inputs(task_id)]
        self._committed: dict[TopicPartition, int] = {}
        self.violations: list[str] = []

    def look(self) -> None:
        """Committed offsets never go back, and never pass what may be read."""
        for partition, at in self._cluster.offsets.committed(self._group_id).items():
            before = self._committed.get(partition, 0)
            if at.offset < before:
                self.violations.append(f"the committed offset of {partition} went back from {before} to {at.offset}")
            if at.offset > before and at.offset > self._cluster.topics.log(partition).last_stable_offset:
                self.violations.append(f"the committed offset {at.offset} of {partition} lies beyond what may be read")
            self._committed[partition] = at.offset

    def backlog(self) -> dict[str, int]:
        """How much of each input is not committed yet, -1 if it does not exist; those that are done are left out."""
        committed = self._cluster.offsets.committed(self._group_id)
        left = {}
        for partition in self._inputs:
            log = self._log(partition)
            if log is None:
                left[str(partition)] = -1
                continue
            at = committed[partition].offset if partition in committed else log.start_offset
            if log.end_offset > at:
                left[str(partition)] = log.end_offset - at
        return left

    def _log(self, partition: TopicPartition) -> PartitionLog | None:
        """None as long as the topic has not been created."""
        try:
            return self._cluster.topics.log(partition)
        except Refused:
            return None

    def drained(self) -> bool:
        """Whether all inputs are processed and committed, markers included, and no transaction is open."""
        return not self.backlog() and not self._cluster.transactions.open_transactions()

    def at_the_end(self, disks: Mapping[str, Disk]) -> Iterator[str]:
        """What is wrong once everybody has stopped and all markers have landed."""
        topics = self._cluster.topics
        logs = {partition: topics.log(partition) for partition in topics.partitions(topics.names())}
        ends = {partition: log.end_offset for partition, log in logs.items()}
        yield from drained(self._offsets(), {partition: ends[partition] for partition in self._inputs})
        yield from no_hanging_transaction({p: log.last_stable_offset for p, log in logs.items()}, ends)
        for transactional_id in self._cluster.transactions.open_transactions():
            yield f"the transaction of {transactional_id} is left open"
        if pending := self._cluster.offsets.pending(self._group_id):
            yield f"offsets are left pending: {pending}"
        for host, disk in disks.items():
            for copy, changelog in self._copies(disk):
                found = store_follows_changelog(copy, records_of(logs[changelog]), ends[changelog])
                yield from (f"disk of {host}: {what}" for what in found)

    def _offsets(self) -> dict[TopicPartition, int]:
        return {partition: at.offset for partition, at in self._cluster.offsets.committed(self._group_id).items()}

    def _copies(self, disk: Disk) -> Iterator[tuple[StoreCopy, TopicPartition]]:
        """All stores on a disk that have a changelog, also those of tasks that have moved on since."""
        for task_id in self._plan.tasks:
            specs = {spec.name: spec for spec in self._plan.stores(task_id)}
            for folder in disk.copies(task_id).values():
                content = folder.content
                for changelog, store in self._plan.changelogs(task_id).items():
                    if specs[store].persistent:
                        position = content.positions().get(store, 0)
                        rows = dict(content.scan(store, None, None))
                        yield StoreCopy(task_id, specs[store], rows, position), changelog


def records_of(log: PartitionLog) -> list[tuple[int, OutRecord]]:
    """What a reader of committed records finds, with offsets."""
    return [(row.offset, (row.key, row.value, row.timestamp, row.headers)) for row in log.committed_records()]
