"""Watches a run from outside: what must never happen, and whether everything is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from streamlib.engine.plan import Plan
from streamlib.records import TopicPartition
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
        """What is wrong once everybody has stopped."""
        for transactional_id in self._cluster.transactions.open_transactions():
            yield f"the transaction of {transactional_id} is left open"
        if pending := self._cluster.offsets.pending(self._group_id):
            yield f"offsets are left pending: {pending}"
        for host, disk in disks.items():
            for task_id in self._plan.tasks:
                for name in (str(task_id), f"{task_id}.aside-{disk.identity}"):
                    if name in disk.folders:
                        yield from (f"{host}, {name}: {what}" for what in self._beyond(name, disk))

    def _beyond(self, name: str, disk: Disk) -> Iterator[str]:
        """Positions behind the end of what is committed: somebody wrote to a store too early."""
        task_id = next(task_id for task_id in self._plan.tasks if name.split(".")[0] == str(task_id))
        positions = disk.folders[name].content.positions()
        for partition, store in self._plan.changelogs(task_id).items():
            end = self._cluster.topics.log(partition).last_stable_offset
            if positions.get(store, 0) > end:
                yield f"store {store} claims position {positions[store]}, {partition} ends at {end}"
