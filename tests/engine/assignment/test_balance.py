"""Who gets how much, and what moves for it. The tasks are stateless where nothing else is said."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlib.engine.assignment import Member, Policy, assign, valid_claims
from streamlib.records import TaskId
from tests.engine.assignment.support import FAR, actives, far, member, some, tasks, withheld

POLICY = Policy()


def test_a_group_of_one_gets_everything() -> None:
    decision = assign(tasks(2, 1), {}, [member("a")], POLICY)
    assert actives(decision) == {"a": "0_0 0_1 1_0"}


def test_one_task_each_when_there_are_as_many_members() -> None:
    decision = assign(tasks(3), far(tasks(3)), [member("a"), member("b"), member("c")], POLICY)
    assert sorted(actives(decision).values()) == ["0_0", "0_1", "0_2"]


def test_members_beyond_the_number_of_tasks_get_nothing() -> None:
    decision = assign(tasks(1), {}, [member("a"), member("b")], POLICY)
    assert sorted(actives(decision).values()) == ["", "0_0"]


def test_each_subtopology_is_spread_over_all_members() -> None:
    decision = assign(tasks(4, 4), {}, [member("a"), member("b")], POLICY)
    for share in decision.shares.values():
        assert Counter(task.subtopology for task in share.active) == {0: 2, 1: 2}


def test_rests_of_several_subtopologies_do_not_add_up_on_one_member() -> None:
    decision = assign(tasks(3, 3, 3), {}, [member("a"), member("b")], POLICY)
    assert sorted(len(share.active) for share in decision.shares.values()) == [4, 5]


def test_tasks_with_stores_are_balanced_among_themselves() -> None:
    """Otherwise one member could hold all the stores, and the other all the tasks without."""
    all_tasks = tasks(1, 1, 1, 1)
    stateful = all_tasks[:2]
    decision = assign(all_tasks, far(stateful), [member("a"), member("b")], POLICY)
    assert [len(share.active & set(stateful)) for share in decision.shares.values()] == [1, 1]


def test_work_goes_by_capacity() -> None:
    """The numbers are those of Kafka Streams for 9 tasks on clients of 1, 5 and 10 threads."""
    members = [member("a", capacity=1), member("b", capacity=5), member("c", capacity=10)]
    decision = assign(tasks(9), far(tasks(9)), members, POLICY)
    counts = {name: len(share.active) for name, share in decision.shares.items()}
    assert counts["a"] <= 1
    assert 2 <= counts["b"] <= 3
    assert 5 <= counts["c"] <= 6


def test_nothing_moves_when_balance_allows() -> None:
    members = [member("a", "0_0 0_3"), member("b", "0_1 0_2")]
    decision = assign(tasks(4), far(tasks(4)), members, POLICY)
    assert actives(decision) == {"a": "0_0 0_3", "b": "0_1 0_2"}
    assert not decision.withheld


def test_nothing_moves_for_a_newcomer_that_no_task_is_left_for() -> None:
    members = [member("a", "0_0"), member("b", "0_1"), member("c")]
    decision = assign(tasks(2), {}, members, POLICY)
    assert actives(decision) == {"a": "0_0", "b": "0_1", "c": ""}


def test_balance_over_several_subtopologies_does_not_depend_on_the_order_in_which_they_are_looked_at() -> None:
    """Taken one after the other, the second would have to move, and the fourth with it."""
    members = [member("a", "0_0 1_0"), member("b", "0_1 1_1"), member("c", "2_0 3_0"), member("d", "2_1 3_1")]
    decision = assign(tasks(2, 2, 2, 2), {}, members, POLICY)
    assert not decision.withheld


def test_a_moving_task_is_withheld_until_its_owner_has_let_go() -> None:
    first = assign(tasks(4), {}, [member("a", "0_0 0_1 0_2 0_3"), member("b")], POLICY)
    assert actives(first) == {"a": "0_0 0_1", "b": ""}
    assert withheld(first) == "0_2 0_3"
    second = assign(tasks(4), {}, [member("a", "0_0 0_1"), member("b")], POLICY)
    assert actives(second) == {"a": "0_0 0_1", "b": "0_2 0_3"}
    assert not second.withheld


def test_a_free_task_goes_where_its_stores_are() -> None:
    members = [member("a", stored={"0_2": FAR, "0_3": FAR}), member("b", stored={"0_0": FAR, "0_1": FAR})]
    decision = assign(tasks(4), far(tasks(4)), members, POLICY)
    assert actives(decision) == {"a": "0_2 0_3", "b": "0_0 0_1"}


def test_a_free_task_goes_where_its_stores_are_furthest() -> None:
    members = [member("a", stored={"0_0": 10, "0_1": 300}), member("b", stored={"0_0": 20, "0_1": 200})]
    decision = assign(tasks(2), far(tasks(2)), members, POLICY)
    assert actives(decision) == {"a": "0_1", "b": "0_0"}


def test_where_ends_are_unknown_the_furthest_stores_still_count() -> None:
    members = [member("a", stored={"0_0": 10, "0_1": 300}), member("b", stored={"0_0": 20, "0_1": 200})]
    decision = assign(tasks(2), dict.fromkeys(tasks(2)), members, POLICY)
    assert actives(decision) == {"a": "0_1", "b": "0_0"}


def test_a_task_that_can_only_go_to_one_place_gets_it() -> None:
    """Though another one comes first that could go there, too."""
    members = [member("a", stored={"0_0": FAR, "0_1": FAR}), member("b", stored={"0_0": FAR - 1})]
    decision = assign(tasks(2), far(tasks(2)), members, POLICY)
    assert actives(decision) == {"a": "0_1", "b": "0_0"}


def test_stores_of_a_process_are_those_of_all_its_members() -> None:
    members = [
        member("a", process="p", stored={"0_0": FAR}),
        member("b", process="p", stored={"0_1": 5}),
        member("c", process="q", stored={"0_1": 9}),
    ]
    decision = assign(tasks(3), far(tasks(3)), members, POLICY)
    assert actives(decision)["c"] == "0_1"
    assert "0_0" in (actives(decision)["a"], actives(decision)["b"])


def test_within_a_process_a_task_goes_to_who_follows_it_already() -> None:
    """The other one would have to wait until its stores are closed."""
    members = [member("a", process="p"), member("b", "", "0_0", process="p")]
    decision = assign(tasks(1), far(tasks(1)), members, POLICY)
    assert actives(decision) == {"a": "", "b": "0_0"}


def test_what_a_lost_member_had_goes_to_who_followed_it() -> None:
    members = [member("a", "0_0", "0_1 0_3"), member("b", "0_2", "0_5 0_4")]
    decision = assign(tasks(6), far(tasks(6)), members, POLICY)
    assert actives(decision) == {"a": "0_0 0_1 0_3", "b": "0_2 0_4 0_5"}


def test_a_claim_from_an_older_generation_is_void() -> None:
    old = Member(member_id="old", owned=some("0_0"), generation=3)
    new = Member(member_id="new", owned=some("0_0"), generation=4)
    assert valid_claims([old, new]) == valid_claims([new, old]) == {TaskId(0, 0): "new"}
    assert actives(assign(tasks(1), {}, [old, new], POLICY)) == {"new": "0_0", "old": ""}


def test_of_two_equal_claims_neither_holds_and_both_have_to_let_go() -> None:
    members = [member("a", "0_0"), member("b", "0_0"), member("c")]
    assert valid_claims(members) == {}
    decision = assign(tasks(1), far(tasks(1)), members, POLICY)
    assert actives(decision) == {"a": "", "b": "", "c": ""}
    assert withheld(decision) == "0_0"


def test_an_unknown_task_is_nobodys() -> None:
    decision = assign(tasks(1), far(tasks(1)), [member("a", "7_7", "8_8")], POLICY)
    assert actives(decision) == {"a": "0_0"}


def test_nobody_is_left() -> None:
    assert withheld(assign(tasks(2), {}, [], POLICY)) == "0_0 0_1"


def test_no_tasks() -> None:
    assert actives(assign([], {}, [member("a"), member("b")], POLICY)) == {"a": "", "b": ""}


@st.composite
def small_groups(draw: st.DrawFn) -> tuple[list[TaskId], list[Member]]:
    all_tasks = tasks(*draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
    names = "abc"[: draw(st.integers(1, 3))]
    owners = [draw(st.sampled_from([*names, None])) for _ in all_tasks]
    capacities = [draw(st.integers(1, 2)) for _ in names]
    return all_tasks, [
        Member(
            member_id=name,
            capacity=capacity,
            owned=frozenset(t for t, owner in zip(all_tasks, owners, strict=True) if owner == name),
        )
        for name, capacity in zip(names, capacities, strict=True)
    ]


@given(small_groups())
@settings(max_examples=60, deadline=None)
def test_no_balanced_assignment_moves_fewer_tasks(group: tuple[list[TaskId], list[Member]]) -> None:
    """Compared with all assignments there are."""
    all_tasks, members = group
    owners = valid_claims(members)
    fewest = min(
        sum(owners.get(task, name) != name for task, name in zip(all_tasks, names, strict=True))
        for names in product([m.member_id for m in members], repeat=len(all_tasks))
        if is_balanced(dict(zip(all_tasks, names, strict=True)), members)
    )
    assert len(assign(all_tasks, {}, members, POLICY).withheld) == fewest


def is_balanced(homes: dict[TaskId, str], members: list[Member]) -> bool:
    capacity = sum(member.capacity for member in members)
    among = [set(homes), *({task for task in homes if task.subtopology == sub} for sub in {t[0] for t in homes})]
    return all(
        abs(sum(homes[task] == member.member_id for task in some_tasks) * capacity - len(some_tasks) * member.capacity)
        < capacity
        for some_tasks in among
        for member in members
    )


@pytest.mark.parametrize("count", [1, 7])
def test_a_thousand_tasks_are_spread_over_a_hundred_members(count: int) -> None:
    all_tasks = [TaskId(sub, partition) for sub in range(count) for partition in range(1000 // count)]
    decision = assign(all_tasks, far(all_tasks), [member(f"m{n}") for n in range(100)], POLICY)
    assert {len(share.active) for share in decision.shares.values()} <= {
        len(all_tasks) // 100,
        len(all_tasks) // 100 + 1,
    }
