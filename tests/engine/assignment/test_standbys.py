"""Where copies of stores are kept. All stores are far from complete where nothing else is said."""

from __future__ import annotations

from itertools import combinations

import pytest

from streamlib.engine.assignment import Decision, Member, Policy, assign
from streamlib.records import TaskId
from tests.engine.assignment.support import actives, far, member, standbys, tasks, warmups, withheld

ONE = Policy(num_standby_replicas=1)
TWO = Policy(num_standby_replicas=2)


def places(decision: Decision, task: TaskId) -> list[str]:
    """Who has a copy of it, the active one first."""
    shares = decision.shares.items()
    return [
        *(name for name, share in shares if task in share.active),
        *(name for name, share in shares if task in share.standby),
    ]


def test_each_task_has_a_standby_at_another_member() -> None:
    decision = assign(tasks(2), far(tasks(2)), [member("a", "0_0"), member("b", "0_1")], ONE)
    assert standbys(decision) == {"a": "0_1", "b": "0_0"}


def test_tasks_without_stores_have_none() -> None:
    decision = assign(tasks(2), {}, [member("a"), member("b")], ONE)
    assert standbys(decision) == {"a": "", "b": ""}
    assert not decision.warnings


def test_none_are_kept_where_none_are_wanted() -> None:
    members = [member("a", "0_0", "0_1"), member("b", "0_1", "0_0")]
    assert standbys(assign(tasks(2), far(tasks(2)), members, Policy())) == {"a": "", "b": ""}


def test_a_standby_is_never_in_the_process_of_its_active() -> None:
    members = [member("a", process="p"), member("b", process="p"), member("c", process="q")]
    decision = assign(tasks(6), far(tasks(6)), members, ONE)
    process = {"a": "p", "b": "p", "c": "q"}
    for task in tasks(6):
        active, standby = places(decision, task)
        assert process[active] != process[standby]


def test_too_few_processes_are_named_in_one_warning() -> None:
    members = [member("a", process="p"), member("b", process="p"), member("c", process="q")]
    decision = assign(tasks(6), far(tasks(6)), members, Policy(num_standby_replicas=3))
    assert [len(places(decision, task)) for task in tasks(6)] == [2] * 6
    (warning,) = decision.warnings
    assert "6 stateful tasks lack 2 of their 3 standbys" in warning
    assert "2 processes" in warning


def test_a_group_of_one_has_no_standbys_and_says_so() -> None:
    decision = assign(tasks(2), far(tasks(2)), [member("a")], ONE)
    assert standbys(decision) == {"a": ""}
    assert len(decision.warnings) == 1


def test_a_standby_is_on_another_host_if_there_is_one() -> None:
    members = [member("a", "0_0", host="x"), member("b", "0_1", host="x"), member("c", "0_2", host="y")]
    decision = assign(tasks(3), far(tasks(3)), members, ONE)
    assert places(decision, TaskId(0, 0)) == ["a", "c"]
    assert places(decision, TaskId(0, 1)) == ["b", "c"]


def test_and_on_the_same_one_if_not() -> None:
    members = [member("a", "0_0", host="x"), member("b", "0_1", host="x")]
    assert standbys(assign(tasks(2), far(tasks(2)), members, ONE)) == {"a": "0_1", "b": "0_0"}


def test_a_standby_moves_for_another_host_but_not_before_that_is_ready() -> None:
    members = [member("a", "0_0", "0_1", host="x"), member("b", "0_1", "0_0", host="x"), member("c", host="y")]
    first = assign(tasks(2), far(tasks(2)), members, ONE)
    assert standbys(first) == {"a": "0_1", "b": "0_0", "c": ""}
    assert warmups(first)["c"] == "0_0 0_1"
    members = [*members[:2], member("c", "", "0_0 0_1", host="y")]
    second = assign(tasks(2), far(tasks(2)), members, ONE)
    assert standbys(second) == {"a": "", "b": "", "c": "0_0 0_1"}
    assert warmups(second)["c"] == ""


@pytest.mark.parametrize("copies", [1, 2])
def test_copies_are_in_as_many_racks_as_possible(copies: int) -> None:
    members = [member(f"m{n}", tags={"rack": f"r{n // 2}"}) for n in range(6)]
    policy = Policy(num_standby_replicas=copies, rack_tags=("rack",))
    decision = assign(tasks(12), far(tasks(12)), members, policy)
    for task in tasks(12):
        racks = {int(name[1:]) // 2 for name in places(decision, task)}
        assert len(racks) == copies + 1


def test_tags_that_are_not_asked_for_do_not_matter() -> None:
    members = [
        member("a", "0_0", tags={"os": "x"}),
        member("b", "0_1", "0_0", tags={"os": "x"}),
        member("c", "0_2", tags={"os": "y"}),
    ]
    decision = assign(tasks(3), far(tasks(3)), members, Policy(num_standby_replicas=1, rack_tags=("rack",)))
    assert places(decision, TaskId(0, 0)) == ["a", "b"]


def test_standbys_differ_from_their_active_in_zone_and_cluster() -> None:
    """The example of KIP-708: three zones in each of three clusters, and two standbys."""
    members = [
        member(f"{zone}{cluster}", tags={"zone": str(zone), "cluster": str(cluster)})
        for zone in range(3)
        for cluster in range(3)
    ]
    policy = Policy(num_standby_replicas=2, rack_tags=("zone", "cluster"))
    decision = assign(tasks(18), far(tasks(18)), members, policy)
    for task in tasks(18):
        names = places(decision, task)
        assert len({name[0] for name in names}) == 3
        assert len({name[1] for name in names}) == 3


def test_standbys_stay_where_they_are() -> None:
    members = [member("a", "0_0", "0_2"), member("b", "0_1", "0_0"), member("c", "0_2", "0_1")]
    decision = assign(tasks(3), far(tasks(3)), members, ONE)
    assert standbys(decision) == {"a": "0_2", "b": "0_0", "c": "0_1"}


def test_of_several_stores_the_furthest_is_kept() -> None:
    members = [
        member("a", "0_0"),
        member("b", "0_1", stored={"0_0": 400_000}),
        member("c", "0_2", stored={"0_0": 500_000}),
    ]
    assert places(assign(tasks(3), far(tasks(3)), members, ONE), TaskId(0, 0)) == ["a", "c"]


def test_actives_and_standbys_are_balanced_together() -> None:
    for count in (3, 4, 5, 7):
        members = [member(f"m{n}") for n in range(count)]
        decision = assign(tasks(8, 3), far(tasks(8, 3)), members, ONE)
        totals = [len(share.active) + len(share.standby) for share in decision.shares.values()]
        assert max(totals) - min(totals) <= 1


def test_copies_go_by_capacity() -> None:
    members = [member("a", capacity=1), member("b", capacity=3), member("c", capacity=2)]
    decision = assign(tasks(12), far(tasks(12)), members, ONE)
    totals = {name: len(share.active) + len(share.standby) for name, share in decision.shares.items()}
    assert totals == {"a": 4, "b": 12, "c": 8}


@pytest.mark.parametrize("count", [3, 4, 5])
def test_no_two_members_hold_the_same_tasks(count: int) -> None:
    """Otherwise all the tasks of a lost member would fall to one other."""
    decision = assign(tasks(count), far(tasks(count)), [member(f"m{n}") for n in range(count)], ONE)
    held = [share.active | share.standby for share in decision.shares.values()]
    assert all(one != other for one, other in combinations(held, 2))


def test_the_tasks_of_a_lost_member_fall_to_many() -> None:
    decision = assign(tasks(16), far(tasks(16)), [member(f"m{n}") for n in range(5)], ONE)
    for name, share in decision.shares.items():
        followers = [places(decision, task)[1] for task in share.active]
        assert len(set(followers)) >= 3, name


def test_a_new_member_takes_its_part_of_the_standbys_when_it_is_ready() -> None:
    """Until then the old ones are followed, so that there is no time without."""
    members = [member("a", "0_0 0_2", "0_1 0_3"), member("b", "0_1 0_3", "0_0 0_2"), member("c")]
    policy = Policy(num_standby_replicas=1, max_warmup_replicas=10)
    decision = assign(tasks(4), far(tasks(4)), members, policy)
    assert standbys(decision)["a"] == "0_1 0_3"
    assert standbys(decision)["b"] == "0_0 0_2"
    assert len(decision.shares["c"].warmup) >= 2
    assert not decision.withheld


def test_warm_ups_of_active_tasks_come_before_those_of_standbys() -> None:
    members = [member("a", "0_0 0_2", "0_1 0_3"), member("b", "0_1 0_3", "0_0 0_2"), member("c")]
    decision = assign(tasks(4), far(tasks(4)), members, Policy(num_standby_replicas=1, max_warmup_replicas=1))
    (warmup,) = decision.shares["c"].warmup
    after = assign(
        tasks(4), far(tasks(4)), [*members[:2], member("c", "", str(warmup))], Policy(num_standby_replicas=1)
    )
    assert withheld(after) == str(warmup)


def test_standbys_come_in_addition_to_warm_ups() -> None:
    """The numbers are those of Kafka Streams: one task warms up at b, and the others follow there already."""
    members = [member("a", "0_0 0_1 0_2 0_3"), member("b")]
    decision = assign(tasks(4), far(tasks(4)), members, Policy(num_standby_replicas=1, max_warmup_replicas=1))
    assert actives(decision) == {"a": "0_0 0_1 0_2 0_3", "b": ""}
    (warmup,) = decision.shares["b"].warmup
    assert decision.shares["b"].standby == set(tasks(4)) - {warmup}


def test_a_task_that_waits_for_its_warm_up_may_have_its_standby_there() -> None:
    """b is to have both of those it follows, and one of them warms up; it does not stop to follow the other."""
    half = {"0_1": 500_000, "0_2": 500_000}
    members = [
        member("a", "0_0 0_1 0_2 0_3 0_4", capacity=2),
        member("b", "", "0_1 0_2", stored=half, capacity=2),
        member("c"),
    ]
    decision = assign(tasks(5), far(tasks(5)), members, Policy(num_standby_replicas=1, max_warmup_replicas=1))
    assert warmups(decision)["b"] == "0_1"
    assert "0_2" in standbys(decision)["b"]


def test_a_task_that_warms_up_still_has_its_standby() -> None:
    """The numbers are those of Kafka Streams: b and c follow three each, two of the six being warm-ups."""
    members = [member("a", "0_0 0_1 0_2 0_3"), member("b"), member("c")]
    decision = assign(tasks(4), far(tasks(4)), members, ONE)
    assert len(decision.shares["a"].active) == 4
    assert [len(s.standby | s.warmup) for s in decision.shares.values()] == [0, 3, 3]
    assert [len(s.standby & s.warmup) for s in decision.shares.values()] == [0, 0, 0]


def test_an_owner_goes_on_as_standby_of_what_it_gives_away() -> None:
    members = [member("a", "0_0 0_1"), member("b", "", "0_1")]
    decision = assign(tasks(2), far(tasks(2)), members, ONE)
    assert withheld(decision) == "0_1"
    assert standbys(decision) == {"a": "0_1", "b": "0_0 0_1"}


def test_a_member_that_is_leaving_holds_no_copies() -> None:
    members = [member("a", "0_0", "0_1"), member("b", "0_1", "0_0"), member("c", "", "0_0 0_1", leaving=True)]
    decision = assign(tasks(2), far(tasks(2)), members, TWO)
    assert standbys(decision) == {"a": "0_1", "b": "0_0", "c": ""}
    assert len(decision.warnings) == 1


def test_nothing_depends_on_the_order_in_which_members_and_tasks_are_named() -> None:
    members: list[Member] = [member("a", "0_0 0_1", "0_2"), member("b", "0_2"), member("c"), member("d", leaving=True)]
    forwards = assign(tasks(5, 2), far(tasks(5)), members, ONE)
    backwards = assign(reversed(tasks(5, 2)), dict(reversed(far(tasks(5)).items())), members[::-1], ONE)
    assert forwards == backwards
