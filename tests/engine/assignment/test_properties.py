"""What holds for any group whatsoever: claims that contradict each other, stores anywhere, ends that are not known."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from streamlib.engine.assignment import Decision, Member, Policy, assign, valid_claims
from streamlib.records import TaskId
from tests.engine.assignment.support import FAR, tasks

Group = tuple[list[TaskId], dict[TaskId, int | None], list[Member]]


def policy_of(chance: random.Random) -> Policy:
    return Policy(
        num_standby_replicas=chance.randint(0, 3),
        max_warmup_replicas=chance.randint(1, 3),
        acceptable_recovery_lag=chance.choice([0, 10_000]),
        rack_tags=chance.choice([(), ("rack",), ("rack", "zone")]),
    )


def group_of(chance: random.Random) -> Group:
    all_tasks = tasks(*(chance.randint(1, 6) for _ in range(chance.randint(1, 3))))
    stateless = chance.randint(0, 3)
    ends = {t: chance.choice([None, 0, 5_000, FAR]) for t in all_tasks if t.subtopology != stateless}
    names = [f"m{number}" for number in range(chance.randint(1, 6))]
    return all_tasks, ends, [member_of(chance, name, [*all_tasks, TaskId(9, 9)]) for name in names]


def member_of(chance: random.Random, name: str, all_tasks: list[TaskId]) -> Member:
    def some() -> list[TaskId]:
        return chance.sample(all_tasks, chance.randint(0, len(all_tasks)) // chance.randint(1, 3))

    return Member(
        member_id=name,
        process=chance.choice(["", "", "p", "q"]),
        host=chance.choice(["", "x", "y"]),
        tags={tag: chance.choice("12") for tag in ("rack", "zone") if chance.random() < 0.7},
        capacity=chance.randint(1, 3),
        owned=frozenset(some()),
        generation=chance.randint(1, 3),
        positions={task: chance.choice([0, 1, 4_000, FAR - 10, FAR + 10]) for task in some()},
        followed=frozenset(some()),
        leaving=chance.random() < 0.2,
    )


# Drawn from a seed: to draw each part of a group takes much longer than to assign it.
seeds = st.integers(0, 1 << 32).map(random.Random)
groups = seeds.map(group_of)
policies = seeds.map(policy_of)


@given(groups, policies)
@settings(max_examples=200, deadline=None)
def test_each_task_is_somebodys_or_on_its_way(group: Group, policy: Policy) -> None:
    all_tasks, ends, everybody = group
    decision = assign(all_tasks, ends, everybody, policy)
    actives = [task for share in decision.shares.values() for task in share.active]
    assert sorted([*actives, *decision.withheld]) == all_tasks
    assert decision.shares.keys() == {member.member_id for member in everybody}


@given(groups, policies)
@settings(max_examples=200, deadline=None)
def test_nobody_is_given_what_another_has_a_right_to(group: Group, policy: Policy) -> None:
    all_tasks, ends, everybody = group
    owners = valid_claims(everybody)
    decision = assign(all_tasks, ends, everybody, policy)
    for name, share in decision.shares.items():
        assert all(owners.get(task, name) == name for task in share.active)


@given(groups, policies)
@settings(max_examples=200, deadline=None)
def test_copies_are_in_processes_of_their_own(group: Group, policy: Policy) -> None:
    all_tasks, ends, everybody = group
    directories = {member.member_id: member.directory for member in everybody}
    decision = assign(all_tasks, ends, everybody, policy)
    for task in all_tasks:
        holders = [name for name, share in decision.shares.items() if task in share.active | share.standby]
        holders += [name for name, share in decision.shares.items() if task in share.warmup]
        assert len({directories[name] for name in holders}) == len(holders)


@given(groups, policies)
@settings(max_examples=200, deadline=None)
def test_every_task_has_the_standbys_there_is_room_for(group: Group, policy: Policy) -> None:
    """One less where a warm-up takes the last process there is, or an owner that lets go still has its stores open."""
    all_tasks, ends, everybody = group
    directories = {member.directory for member in everybody if not member.leaving}
    wanted = min(policy.num_standby_replicas, len(directories) - 1)
    decision = assign(all_tasks, ends, everybody, policy)
    for task in ends:
        shares = decision.shares.values()
        copies = sum(task in share.standby for share in shares)
        busy = any(task in share.warmup for share in shares) or task in decision.withheld
        assert copies >= wanted - busy or not directories


@given(groups, policies)
@settings(max_examples=200, deadline=None)
def test_who_is_leaving_is_given_nothing(group: Group, policy: Policy) -> None:
    all_tasks, ends, everybody = group
    decision = assign(all_tasks, ends, everybody, policy)
    for member in everybody:
        if member.leaving:
            share = decision.shares[member.member_id]
            assert share.active <= member.owned & ends.keys()
            assert not share.standby | share.warmup


@given(groups, policies, seeds)
@settings(max_examples=200, deadline=None)
def test_the_order_of_members_and_tasks_does_not_matter(group: Group, policy: Policy, chance: random.Random) -> None:
    all_tasks, ends, everybody = group

    def shuffled() -> Decision:
        some_order = chance.sample(all_tasks, len(all_tasks))
        some_ends = {task: ends[task] for task in some_order if task in ends}
        return assign(some_order, some_ends, chance.sample(everybody, len(everybody)), policy)

    assert shuffled() == shuffled()


@given(groups, policies)
@settings(max_examples=200, deadline=None)
def test_a_living_owner_keeps_what_nobody_is_ready_for(group: Group, policy: Policy) -> None:
    all_tasks, ends, everybody = group
    owners = valid_claims(everybody)
    living = {member.member_id: member for member in everybody if not member.leaving}
    decision = assign(all_tasks, ends, everybody, policy)
    for task in decision.withheld & ends.keys():
        if owners.get(task) in living:
            receivers = [name for name in living if name != owners[task]]
            assert any(is_ready(task, name, ends[task], everybody, policy) for name in receivers)


def is_ready(task: TaskId, name: str, end: int | None, everybody: list[Member], policy: Policy) -> bool:
    (directory,) = {member.directory for member in everybody if member.member_id == name}
    neighbours = [member for member in everybody if member.directory == directory]
    if any(task in member.owned for member in neighbours):
        return True
    positions = [member.positions[task] for member in neighbours if task in member.positions]
    if end is None:
        return bool(positions)
    return end - max(positions, default=0) <= policy.acceptable_recovery_lag
