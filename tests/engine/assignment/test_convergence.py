"""Groups come to rest, whatever happens to them, and every step on the way keeps the rules."""

from __future__ import annotations

import random

import pytest

from streamlib.engine.assignment import Policy
from streamlib.records import TaskId
from tests.engine.assignment.simulated_group import SimulatedGroup
from tests.engine.assignment.support import FAR, tasks

POLICIES = [
    Policy(num_standby_replicas=standbys, max_warmup_replicas=warmups, rack_tags=tags)
    for standbys in (0, 1, 2)
    for warmups in (1, 2, 100)
    for tags in ((), ("rack", "zone"))
]
SEEDS = range(40)


def bound(group: SimulatedGroup) -> int:
    """Of rebalances: three for each round of warm-ups, and every task and copy may have to move."""
    copies = len(group.ends) * (1 + group.policy.num_standby_replicas)
    return 12 + 3 * copies // group.policy.max_warmup_replicas


def some_group(chance: random.Random) -> SimulatedGroup:
    all_tasks = tasks(*(chance.randint(1, 12) for _ in range(chance.randint(1, 4))))
    stateless = {sub for sub in range(4) if chance.random() < 0.3}
    ends = {task: chance.choice([0, 5_000, FAR, FAR]) for task in all_tasks if task.subtopology not in stateless}
    group = SimulatedGroup(all_tasks, ends, chance.choice(POLICIES), on_disk=chance.random() < 0.7)
    for _ in range(chance.randint(1, 6)):
        join(group, chance)
    return group


def join(group: SimulatedGroup, chance: random.Random) -> None:
    number = next(n for n in range(1000) if f"m{n}" not in group.workers)
    group.join(
        f"m{number}",
        # Stores in memory are shared with nobody.
        process=chance.choice([f"p{number}", f"p{number}", f"p{number % 3}"]) if group.on_disk else "",
        host=f"h{number % 4}",
        tags={"rack": f"r{number % 3}", "zone": f"z{number % 2}"},
        capacity=chance.choice([1, 1, 1, 2, 3]),
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_a_group_that_nothing_happens_to_comes_to_rest(seed: int) -> None:
    group = some_group(random.Random(seed))
    assert group.come_to_rest(1) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_it_comes_to_rest_after_members_were_added(seed: int) -> None:
    chance = random.Random(seed)
    group = some_group(chance)
    group.come_to_rest(1)
    for _ in range(chance.randint(1, 4)):
        join(group, chance)
    group.come_to_rest(bound(group), reads=chance.choice([None, 300_000]))


@pytest.mark.parametrize("seed", SEEDS)
def test_it_comes_to_rest_after_members_were_lost(seed: int) -> None:
    chance = random.Random(seed)
    group = some_group(chance)
    group.come_to_rest(1)
    for name in chance.sample(sorted(group.workers), chance.randint(0, len(group.workers) - 1)):
        chance.choice([group.kill, group.stop])(name)
    group.come_to_rest(bound(group), reads=chance.choice([None, 300_000]))


@pytest.mark.parametrize("seed", range(80))
def test_it_comes_to_rest_after_anything(seed: int) -> None:
    chance = random.Random(seed)
    group = some_group(chance)
    for _ in range(25):
        happen(group, chance)
    group.come_to_rest(bound(group), reads=chance.choice([None, 300_000]))


def happen(group: SimulatedGroup, chance: random.Random) -> None:
    """Something, at any time: in the middle of moves and warm-ups, too."""
    names = sorted(group.workers)
    match chance.choice(["join", "kill", "stop", "wipe", "records", "read", "rebalance", "rebalance", "rebalance"]):
        case "join" if len(names) < 9:
            join(group, chance)
        case "kill" if len(names) > 1:
            group.kill(chance.choice(names))
        case "stop" if names:
            group.stop(chance.choice(names))
        case "wipe":
            running = {worker.process for worker in group.workers.values()}
            for process in sorted(group.disks.keys() - running)[:1]:
                group.wipe(process)
        case "records":
            group.process_records(chance.choice([10, 8_000, 100_000]))
        case "read":
            group.catch_up(chance.choice([None, 5_000, 200_000]))
        case "rebalance" if names:
            group.rebalance()
        case _:
            pass


def test_adding_one_member_moves_its_share_and_no_more() -> None:
    group = SimulatedGroup(tasks(24), dict.fromkeys(tasks(24), FAR), Policy())
    for name in "abc":
        group.join(name)
    group.come_to_rest(1)
    group.join("d")
    group.come_to_rest(7)  # six tasks, two at a time; handing out the last ones takes one more
    assert group.moves == 6


def test_what_a_lost_member_had_is_all_that_starts_elsewhere() -> None:
    group = SimulatedGroup(tasks(24), dict.fromkeys(tasks(24), FAR), Policy(num_standby_replicas=1))
    for name in "abcd":
        group.join(name)
    group.come_to_rest(1)
    before = {name: worker.owned for name, worker in group.workers.items()}
    group.kill("d")
    group.rebalance()
    assert all(before[name] <= group.workers[name].owned for name in "abc")
    assert all(group.disks[name][task] == FAR for name in "abc" for task in group.workers[name].owned)


def test_stores_on_disk_bring_everything_back_after_a_cold_restart() -> None:
    stores = {"a": tasks(9)[1::2], "b": tasks(9)[::2]}
    group = SimulatedGroup(tasks(9), dict.fromkeys(tasks(9), FAR), Policy())
    for name, mine in stores.items():
        group.join(name)
        group.disks[name] = dict.fromkeys(mine, FAR)
    group.come_to_rest(1)
    assert {name: sorted(worker.owned) for name, worker in group.workers.items()} == stores


def test_a_bounced_member_gets_its_tasks_back() -> None:
    group = SimulatedGroup(tasks(6, 6), dict.fromkeys(tasks(6, 6), FAR), Policy())
    for name in "abc":
        group.join(name)
    group.come_to_rest(1)
    before = group.workers["b"].owned
    group.kill("b")
    group.come_to_rest(2)
    group.process_records(100)
    group.join("b")
    group.come_to_rest(3)
    assert group.workers["b"].owned == before


def test_a_group_that_is_replaced_one_by_one_never_starts_cold() -> None:
    all_tasks = tasks(24)
    group = SimulatedGroup(all_tasks, dict.fromkeys(all_tasks, FAR), Policy())
    for name in "abc":
        group.join(name)
    group.come_to_rest(1)
    for old, new in zip("abc", "def", strict=True):
        group.join(new)
        group.stop(old)
        group.come_to_rest(20, reads=400_000)
    assert sorted(group.workers) == ["d", "e", "f"]


def test_unknown_ends_do_not_keep_a_group_from_coming_to_rest() -> None:
    group = SimulatedGroup(tasks(6), {}, Policy())
    group.join("a")
    group.come_to_rest(1)
    group.join("b")
    group.come_to_rest(2)
    assert {len(worker.owned) for worker in group.workers.values()} == {3}
    assert TaskId(0, 0) in group.workers["a"].owned
