"""The assignor's rules, on hand-made groups and on random ones."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from streamlib.engine.assignment import Member, assign, balance, valid_claims
from streamlib.records import TaskId


def tasks(*shape: int) -> list[TaskId]:
    return [TaskId(sub, partition) for sub, count in enumerate(shape) for partition in range(count)]


def owns(name: str, owned: list[TaskId], generation: int = 1, stored: list[TaskId] | None = None) -> Member:
    return Member(name, frozenset(owned), generation, frozenset(stored or ()))


def settle(all_tasks: list[TaskId], members: list[Member], rounds: int = 5) -> tuple[dict[str, frozenset[TaskId]], int]:
    """Rebalance until nothing moves; each round the members own what they were given."""
    for number in range(rounds):
        given_tasks = assign(all_tasks, members)
        after = [Member(m.member_id, given_tasks[m.member_id], 10 + number, m.stored) for m in members]
        if [m.owned for m in after] == [m.owned for m in members]:
            return given_tasks, number
        members = after
    raise AssertionError("does not settle")


def test_one_task_each_when_there_are_as_many_members() -> None:
    given_tasks = assign(tasks(3), [Member("a"), Member("b"), Member("c")])
    assert sorted(map(len, given_tasks.values())) == [1, 1, 1]


def test_each_subtopology_is_spread_over_all_members() -> None:
    given_tasks = assign(tasks(4, 4), [Member("a"), Member("b")])
    for owned in given_tasks.values():
        assert Counter(task.subtopology for task in owned) == {0: 2, 1: 2}


def test_rests_of_several_subtopologies_do_not_add_up_on_one_member() -> None:
    given_tasks = assign(tasks(3, 3, 3), [Member("a"), Member("b")])
    assert sorted(map(len, given_tasks.values())) == [4, 5]


def test_nothing_moves_when_balance_allows() -> None:
    all_tasks = tasks(4)
    members = [owns("a", all_tasks[:2]), owns("b", all_tasks[2:])]
    assert assign(all_tasks, members) == {"a": frozenset(all_tasks[:2]), "b": frozenset(all_tasks[2:])}


def test_a_moving_task_is_withheld_until_its_owner_has_let_go() -> None:
    all_tasks = tasks(4)
    first = assign(all_tasks, [owns("a", all_tasks), Member("b")])
    assert first == {"a": frozenset(all_tasks[:2]), "b": frozenset()}
    second = assign(all_tasks, [owns("a", all_tasks[:2]), Member("b", generation=1)])
    assert second == {"a": frozenset(all_tasks[:2]), "b": frozenset(all_tasks[2:])}


def test_a_free_task_goes_where_its_stores_are() -> None:
    all_tasks = tasks(4)
    members = [Member("a", stored=frozenset(all_tasks[2:])), Member("b", stored=frozenset(all_tasks[:2]))]
    assert assign(all_tasks, members) == {"a": frozenset(all_tasks[2:]), "b": frozenset(all_tasks[:2])}


def test_a_claim_from_an_older_generation_is_void() -> None:
    task = TaskId(0, 0)
    assert valid_claims([owns("old", [task], 3), owns("new", [task], 4)]) == {task: "new"}
    assert valid_claims([owns("new", [task], 4), owns("old", [task], 3)]) == {task: "new"}


def test_two_equal_claims_make_the_task_free() -> None:
    task = TaskId(0, 0)
    assert valid_claims([owns("a", [task], 4), owns("b", [task], 4)]) == {}


def test_an_unknown_task_is_nobodys() -> None:
    stale = TaskId(7, 7)
    assert assign(tasks(1), [owns("a", [stale])]) == {"a": frozenset(tasks(1))}


def test_the_tasks_of_a_member_that_left_are_all_that_moves() -> None:
    all_tasks = tasks(9)
    before, _ = settle(all_tasks, [Member("a"), Member("b"), Member("c")])
    after, _ = settle(all_tasks, [owns(name, list(before[name]), 20) for name in "ab"])
    assert before["a"] <= after["a"]
    assert before["b"] <= after["b"]


shapes = st.lists(st.integers(1, 7), min_size=1, max_size=3)


@st.composite
def groups(draw: st.DrawFn) -> tuple[list[TaskId], list[Member]]:
    all_tasks = tasks(*draw(shapes))
    some_tasks = st.frozensets(st.sampled_from(all_tasks))
    names = [f"m{number}" for number in range(draw(st.integers(1, 5)))]
    return all_tasks, [Member(name, draw(some_tasks), draw(st.integers(1, 3)), draw(some_tasks)) for name in names]


@given(groups())
def test_no_task_has_two_owners_and_none_is_taken_from_its_owner_unasked(
    group: tuple[list[TaskId], list[Member]],
) -> None:
    all_tasks, members = group
    owners = valid_claims(members)
    given_tasks = assign(all_tasks, members)
    everywhere = [task for owned in given_tasks.values() for task in owned]
    assert len(everywhere) == len(set(everywhere))
    for member, owned in given_tasks.items():
        assert all(owners.get(task, member) == member for task in owned)


@given(groups())
def test_every_task_is_assigned_and_all_is_balanced_once_it_settles(
    group: tuple[list[TaskId], list[Member]],
) -> None:
    all_tasks, members = group
    given_tasks, _ = settle(all_tasks, members)
    assert sorted(task for owned in given_tasks.values() for task in owned) == sorted(all_tasks)
    assert max(map(len, given_tasks.values())) - min(map(len, given_tasks.values())) <= 1
    for sub in {task.subtopology for task in all_tasks}:
        counts = [sum(task.subtopology == sub for task in owned) for owned in given_tasks.values()]
        assert max(counts) - min(counts) <= 1


@given(groups())
def test_no_more_tasks_move_than_balance_asks_for(group: tuple[list[TaskId], list[Member]]) -> None:
    """Within a subtopology, an owner gives tasks away only down to its share."""
    all_tasks, members = group
    owners = valid_claims(members)
    target = balance(all_tasks, members, owners)
    for sub in {task.subtopology for task in all_tasks}:
        for member, wanted in target.items():
            mine = {task for task, owner in owners.items() if owner == member and task.subtopology == sub}
            kept = mine & wanted
            share = sum(task.subtopology == sub for task in wanted)
            assert len(kept) == min(len(mine & set(all_tasks)), share)
