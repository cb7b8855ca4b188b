"""A consumer group in memory: members that own tasks and follow changelogs, disks that fill, and a leader that assigns.

After each rebalance the rules that hold at any time are checked from outside; `come_to_rest` lets the group go on
until nothing moves any more, and checks what has to hold then.

What is simpler than in life: all members hear of an assignment at once, and who has become owner of a task has its
stores complete in no time. A task whose stores were far behind then is noted in `cold_starts`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from fractions import Fraction

from streamlib.engine.assignment import Decision, Member, Policy, Share, assign
from streamlib.records import TaskId


class Worker:
    """A member as it is, rather than as it says."""

    def __init__(self, name: str, process: str, host: str, tags: Mapping[str, str], capacity: int) -> None:
        self.name = name
        self.process = process
        self.host = host
        self.tags = tags
        self.capacity = capacity
        self.owned: frozenset[TaskId] = frozenset()
        self.share = Share()
        self.generation = -1
        self.leaving = False

    @property
    def followed(self) -> frozenset[TaskId]:
        return self.share.standby | self.share.warmup


class SimulatedGroup:
    """`ends` are those of the changelogs of stateful tasks; stores not `on_disk` are gone once they are closed."""

    def __init__(
        self, all_tasks: Iterable[TaskId], ends: Mapping[TaskId, int], policy: Policy, on_disk: bool = True
    ) -> None:
        self.tasks = sorted(all_tasks)
        self.ends = dict(ends)
        self.policy = policy
        self.on_disk = on_disk
        self.workers: dict[str, Worker] = {}
        self.disks: dict[str, dict[TaskId, int]] = defaultdict(dict)
        self.generation = 0
        self.due = True
        self.moves = 0  # of tasks from one living owner to the next
        self.cold_starts: list[TaskId] = []
        self.decision = Decision({})
        self._givers: dict[TaskId, Worker] = {}  # who let go of tasks that are on their way

    # --- events -------------------------------------------------------------------------------------------------------

    def join(
        self, name: str, *, process: str = "", host: str = "", tags: Mapping[str, str] | None = None, capacity: int = 1
    ) -> None:
        self.workers[name] = Worker(name, process or name, host, tags or {}, capacity)
        self.due = True

    def kill(self, name: str) -> None:
        gone = self.workers.pop(name)
        self._givers = {task: giver for task, giver in self._givers.items() if giver is not gone}
        self.due = True

    def stop(self, name: str) -> None:
        self.workers[name].leaving = True
        self.due = True

    def wipe(self, process: str) -> None:
        """Lose the stores of a process that does not run."""
        self.disks.pop(process, None)

    def process_records(self, count: int) -> None:
        """Every task that is running writes so many records to its changelogs."""
        for worker in self.workers.values():
            for task in worker.owned & self.ends.keys():
                self.ends[task] += count
                self.disks[worker.process][task] = self.ends[task]

    def catch_up(self, count: int | None = None) -> None:
        """Standbys and warm-ups read so many records; or all there are."""
        for worker in self.workers.values():
            for task in worker.followed:
                if any(task in other.owned and other.process == worker.process for other in self.workers.values()):
                    continue  # the stores are open elsewhere
                position = self.disks[worker.process].get(task, 0)
                end = self.ends[task]
                self.disks[worker.process][task] = end if count is None else min(end, position + count)
        self._claim_warmed_up()

    # --- rebalances ---------------------------------------------------------------------------------------------------

    def members(self) -> list[Member]:
        return [
            Member(
                member_id=worker.name,
                process=worker.process,
                host=worker.host,
                tags=worker.tags,
                capacity=worker.capacity,
                owned=worker.owned,
                generation=worker.generation,
                positions=dict(self.disks[worker.process]),
                followed=worker.followed,
                leaving=worker.leaving,
            )
            for worker in self.workers.values()
        ]

    def rebalance(self) -> Decision:
        self.due = False
        self.generation += 1
        decision = assign(self.tasks, self.ends, self.members(), self.policy)
        check(self, decision)
        self._hand_out(decision)
        self._take_back(decision)
        self.decision = decision
        for name in [name for name, worker in self.workers.items() if worker.leaving and not worker.owned]:
            del self.workers[name]
            self.due = True
        return decision

    def come_to_rest(self, at_most: int, reads: int | None = None) -> int:
        """Go on until nothing moves; returns how many rebalances it took. `reads`: see `catch_up`."""
        rebalances = 0
        while True:
            while self.due and self.workers:
                rebalances += 1
                assert rebalances <= at_most, f"still not at rest: {self.decision}"
                self.rebalance()
            if not any(worker.share.warmup for worker in self.workers.values()):
                break
            self.catch_up(reads)
        if not self.workers:
            return rebalances
        self.catch_up()
        before = {name: worker.share for name, worker in self.workers.items()}
        decision = self.rebalance()
        assert dict(decision.shares) == before, "moves although it was at rest"
        check_at_rest(self, decision)
        return rebalances

    def _hand_out(self, decision: Decision) -> None:
        for name, share in decision.shares.items():
            worker = self.workers[name]
            worker.generation = self.generation
            for task in share.active - worker.owned:
                self._start(task, worker)

    def _start(self, task: TaskId, worker: Worker) -> None:
        giver = self._givers.pop(task, None)
        self.moves += giver is not None
        if task in self.ends:
            lag = self.ends[task] - self.disks[worker.process].get(task, 0)
            if giver is not None and not giver.leaving and lag > self.policy.acceptable_recovery_lag:
                self.cold_starts.append(task)
            self.disks[worker.process][task] = self.ends[task]

    def _take_back(self, decision: Decision) -> None:
        for name, share in decision.shares.items():
            worker = self.workers[name]
            released = worker.owned - share.active
            self._givers |= dict.fromkeys(released, worker)
            self.due = self.due or bool(released)
            worker.owned = share.active
            worker.share = share
        if not self.on_disk:
            self._forget_closed()
        self._claim_warmed_up()

    def _forget_closed(self) -> None:
        for process, stored in self.disks.items():
            here = [worker for worker in self.workers.values() if worker.process == process]
            kept = {task for worker in here for task in worker.owned | worker.followed}
            self.disks[process] = {task: position for task, position in stored.items() if task in kept}

    def _claim_warmed_up(self) -> None:
        for worker in self.workers.values():
            for task in worker.share.warmup:
                lag = self.ends[task] - self.disks[worker.process].get(task, 0)
                self.due = self.due or lag <= self.policy.acceptable_recovery_lag


def check(group: SimulatedGroup, decision: Decision) -> None:
    """What holds for every decision."""
    owners = {task: worker for worker in group.workers.values() for task in worker.owned}
    assert decision.shares.keys() == group.workers.keys()
    actives = [task for share in decision.shares.values() for task in share.active]
    assert sorted([*actives, *decision.withheld]) == group.tasks, "each task once, or withheld"
    if any(not worker.leaving for worker in group.workers.values()):
        assert decision.withheld <= owners.keys(), "withheld although nobody has to let go of it"
    runners = {task: name for name, share in decision.shares.items() for task in share.active}
    for task, name in runners.items():
        assert task not in owners or owners[task].name == name, f"{task} has a second owner"
    _check_copies(group, decision, runners)
    _check_warmups(group, decision, runners)


def _check_copies(group: SimulatedGroup, decision: Decision, runners: Mapping[TaskId, str]) -> None:
    process = {name: worker.process for name, worker in group.workers.items()}
    copies: dict[TaskId, list[str]] = defaultdict(list)
    for name, share in decision.shares.items():
        assert not share.standby & share.warmup, "a standby and a warm-up of the same task"
        assert share.standby | share.warmup <= group.ends.keys(), "a copy of nothing"
        assert not (group.workers[name].leaving and (share.standby or share.warmup)), "a copy where somebody leaves"
        for task in share.standby | share.warmup:
            copies[task].append(process[name])
    for task, places in copies.items():
        assert len(set(places)) == len(places), f"two copies of {task} in a process"
        if task in runners:
            assert process[runners[task]] not in places, f"{task} has a copy beside it"
    owners = {task: worker for worker in group.workers.values() for task in worker.owned if not worker.leaving}
    for task in decision.withheld & owners.keys():
        followers = [name for name, share in decision.shares.items() if task in share.standby | share.warmup]
        locked = [name for name in followers if process[name] == owners[task].process]
        assert set(locked) <= {owners[task].name}, f"the stores of {task} are still open beside {locked}"
    standbys = Counter(task for share in decision.shares.values() for task in share.standby)
    for task, count in standbys.items():
        assert count <= group.policy.num_standby_replicas + (task in decision.withheld)


def _check_warmups(group: SimulatedGroup, decision: Decision, runners: Mapping[TaskId, str]) -> None:
    warmups = [task for share in decision.shares.values() for task in share.warmup]
    limited = [task for task in warmups if task in runners and not group.workers[runners[task]].leaving]
    assert len(limited) <= group.policy.max_warmup_replicas


def check_at_rest(group: SimulatedGroup, decision: Decision) -> None:
    """What holds once nothing moves any more."""
    assert not group.cold_starts, "moved to where its stores were far behind"
    assert not decision.withheld
    assert not any(share.warmup for share in decision.shares.values())
    capacity = sum(worker.capacity for worker in group.workers.values())
    for among in balanced_sets(group):
        for name, share in decision.shares.items():
            part = Fraction(len(among) * group.workers[name].capacity, capacity)
            assert abs(len(share.active & among) - part) < 1, f"{name} has not its part"
    processes = len({worker.process for worker in group.workers.values()})
    wanted = min(group.policy.num_standby_replicas, processes - 1)
    standbys = Counter(task for share in decision.shares.values() for task in share.standby)
    assert all(standbys[task] == wanted for task in group.ends)
    assert bool(decision.warnings) == (wanted < group.policy.num_standby_replicas and bool(group.ends))


def balanced_sets(group: SimulatedGroup) -> list[frozenset[TaskId]]:
    """The sets of tasks that are balanced each."""
    subs = {task.subtopology for task in group.tasks}
    return [
        frozenset(group.tasks),
        frozenset(group.ends),
        *(frozenset(task for task in group.tasks if task.subtopology == sub) for sub in sorted(subs)),
    ]
