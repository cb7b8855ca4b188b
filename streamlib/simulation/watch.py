"""Watches work that moves: who runs which task, what standbys hold, and whether the assignment has come to rest.

It looks into the workers, since a check must not depend on what they say of themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from streamlib.engine.plan import Plan
from streamlib.engine.task import Phase, Task
from streamlib.records import TaskId, TopicPartition
from streamlib.runtime.restoration import Restoration
from streamlib.runtime.worker import Worker
from streamlib.simulation.checks import StoreCopy, store_follows_changelog
from streamlib.simulation.cluster.cluster import Cluster
from streamlib.simulation.hosts import Host
from streamlib.simulation.observer import records_of


class Asked(NamedTuple):
    """What the scenario wants of standbys; `comparable`: stores are what their changelogs say at any time."""

    num_standby_replicas: int
    comparable: bool


class _Seen(NamedTuple):
    following: Restoration | None
    positions: dict[TopicPartition, int | None]


class Watch:
    """Looks at the workers; changes nothing."""

    def __init__(self, cluster: Cluster, plan: Plan, hosts: Mapping[str, Host], group_id: str, asked: Asked) -> None:
        self._cluster = cluster
        self._plan = plan
        self._hosts = hosts
        self._group_id = group_id
        self._asked = asked
        self._stateful = [task_id for task_id in plan.tasks if plan.changelogs(task_id)]
        # What a standby was when it was looked at last: as an active one in between it may have gone further.
        self._seen: dict[Task, _Seen] = {}
        self._found: dict[str, None] = {}  # in order, each once

    @property
    def violations(self) -> list[str]:
        return list(self._found)

    def look(self) -> None:
        """No task runs on two workers whose commits would both be taken, and none where it is a standby, too.

        Cheap enough for every request.
        """
        owners: dict[TaskId, str] = {}
        for name, worker in self._workers():
            if not worker._tasks.running or not self._is_current(worker):
                continue
            for task_id in worker._tasks.running:
                other = owners.setdefault(task_id, name)
                if other != name:
                    self._found[f"task {task_id} runs on {other} and {name} in the same generation"] = None

    def look_at_standbys(self) -> None:
        """They process nothing, read what is committed only, and their rows are those of the changelog."""
        seen = {}
        for name, worker in self._workers():
            for task in worker._tasks.standbys:
                self._found.update((f"{name}: {what}", None) for what in self._wrong_with(worker, task))
                seen[task] = _Seen(worker._restorer._under_way.get(task.id), task.positions_stored())
        self._seen = seen

    @property
    def generation(self) -> int:
        """How many rebalances there were."""
        return self._cluster.groups.generation(self._group_id)

    def unrest(self) -> str | None:
        """Why the assignment is not at rest yet; None if nothing is going to move by itself any more."""
        workers = dict(self._workers())
        away = [name for name, host in self._hosts.items() if host.wanted and not (name in workers and host.up)]
        if away or not all(worker.running for worker in workers.values()):
            return f"{', '.join(away) or 'a worker'} is not back"
        running = Counter(task_id for worker in workers.values() for task_id in worker._tasks.running)
        if running != Counter(self._plan.tasks):
            return f"tasks run as often as this: {dict(running)}"
        return next(self._misplaced(workers), None)

    def _workers(self) -> Iterator[tuple[str, Worker]]:
        for name, host in self._hosts.items():
            if host.up and host.worker is not None:
                yield name, host.worker

    def _is_current(self, worker: Worker) -> bool:
        group = self._cluster.groups.find(self._group_id)
        who = worker._membership.metadata
        return group is not None and who.generation == group.generation and who.member_id in group.members

    def _wrong_with(self, worker: Worker, task: Task) -> Iterator[str]:
        if task._phase is not Phase.CREATED or task.id in worker._tasks.running:
            yield f"standby {task.id} processes records"
        following = worker._restorer._under_way.get(task.id)
        before = self._seen.get(task)
        if before is None or following is None or following is not before.following:
            return  # it has just been opened, or was active until now
        for changelog, position in task.positions_stored().items():
            if position == before.positions[changelog]:
                continue
            stable = self._cluster.topics.log(changelog).last_stable_offset
            if position is not None and position > stable:
                yield f"standby {task.id} is at {position} of {changelog}, of which only {stable} is stable"
            if self._asked.comparable:
                yield from self._differences(task, changelog, following.changelogs[changelog].position)

    def _differences(self, task: Task, changelog: TopicPartition, position: int) -> Iterator[str]:
        """What the store has that the changelog has not up to where the standby is, and the other way round."""
        name = task.changelogs[changelog]
        spec = next(spec for spec in self._plan.stores(task.id) if spec.name == name)
        copy = StoreCopy(task.id, spec, dict(task.backend.scan(name, None, None)), position)
        log = self._cluster.topics.log(changelog)
        for what in store_follows_changelog(copy, records_of(log), log.end_offset):
            yield f"standby, {what}"

    def _misplaced(self, workers: Mapping[str, Worker]) -> Iterator[str]:
        """Standbys that are missing, superfluous, in the wrong place, or behind."""
        disks = {name: id(self._hosts[name].disk) for name in workers}
        due = min(self._asked.num_standby_replicas, len(set(disks.values())) - 1)
        for task_id in self._stateful:
            there = [name for name, worker in workers.items() if task_id in worker._tasks.standby_ids]
            owner = next(name for name, worker in workers.items() if task_id in worker._tasks.running)
            if len(there) != due:
                yield f"task {task_id} of {owner} has standbys on {there}, {due} are due"
            if len({disks[name] for name in (owner, *there)}) != 1 + len(there):
                yield f"task {task_id} of {owner} and its standbys on {there} share a disk"
            for name in there:
                yield from self._behind(name, workers[name], task_id)

    def _behind(self, name: str, worker: Worker, task_id: TaskId) -> Iterator[str]:
        following = worker._restorer._under_way.get(task_id)
        if following is None:
            yield f"standby {task_id} on {name} follows nothing"
            return
        for changelog, progress in following.changelogs.items():
            end = self._cluster.topics.log(changelog).end_offset
            if progress.position < end:
                yield f"standby {task_id} on {name} is at {progress.position} of {changelog}, which ends at {end}"
