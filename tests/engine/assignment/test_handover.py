"""How a task with stores gets to where it belongs. Stores are far from complete where nothing else is said."""

from __future__ import annotations

from streamlib.engine.assignment import Policy, assign
from tests.engine.assignment.support import FAR, actives, far, member, standbys, task, tasks, warmups, withheld

POLICY = Policy()
NEAR = FAR - POLICY.acceptable_recovery_lag


def test_a_task_stays_with_its_owner_while_its_new_place_warms_up() -> None:
    decision = assign(tasks(2), far(tasks(2)), [member("a", "0_0 0_1"), member("b")], POLICY)
    assert actives(decision) == {"a": "0_0 0_1", "b": ""}
    assert warmups(decision) == {"a": "", "b": "0_1"}
    assert not decision.withheld


def test_it_moves_once_that_has_caught_up() -> None:
    members = [member("a", "0_0 0_1"), member("b", "", "0_1", stored={"0_1": NEAR})]
    decision = assign(tasks(2), far(tasks(2)), members, POLICY)
    assert withheld(decision) == "0_1"
    assert actives(decision) == {"a": "0_0", "b": ""}
    assert warmups(decision) == {"a": "", "b": ""}


def test_it_stays_while_one_record_more_than_acceptable_is_missing() -> None:
    members = [member("a", "0_0 0_1"), member("b", "", "0_1", stored={"0_1": NEAR - 1})]
    decision = assign(tasks(2), far(tasks(2)), members, POLICY)
    assert actives(decision) == {"a": "0_0 0_1", "b": ""}
    assert warmups(decision) == {"a": "", "b": "0_1"}


def test_it_moves_once_it_was_seen_caught_up_though_its_owner_has_gone_on_since() -> None:
    behind = member("b", "", "0_1", stored={"0_1": NEAR - 1}, warmed_up="0_1")
    decision = assign(tasks(2), far(tasks(2)), [member("a", "0_0 0_1"), behind], POLICY)
    assert withheld(decision) == "0_1"


def test_who_claims_to_have_caught_up_and_has_no_stores_of_it_is_not_believed() -> None:
    claims = member("b", warmed_up="0_1")
    decision = assign(tasks(2), far(tasks(2)), [member("a", "0_0 0_1"), claims], POLICY)
    assert warmups(decision)["b"] == "0_1"


def test_who_gets_it_next_keeps_its_stores_open_meanwhile() -> None:
    members = [member("a", "0_0 0_1"), member("b", "", "0_1")]
    decision = assign(tasks(2), far(tasks(2)), members, POLICY)
    assert standbys(decision) == {"a": "", "b": "0_1"}


def test_a_move_within_a_process_needs_no_warm_up() -> None:
    """And nobody can open the stores before the owner has closed them."""
    decision = assign(tasks(2), far(tasks(2)), [member("a", "0_0 0_1", process="p"), member("b", process="p")], POLICY)
    assert withheld(decision) == "0_1"
    assert standbys(decision) == {"a": "", "b": ""}


def test_no_more_warm_ups_than_allowed() -> None:
    members = [member("a", "0_0 0_1 0_2 0_3"), member("b")]
    for most in (1, 2):
        decision = assign(tasks(4), far(tasks(4)), members, Policy(max_warmup_replicas=most))
        assert len(decision.shares["b"].warmup) == most
        assert len(decision.shares["a"].active) == 4


def test_warm_ups_in_progress_go_on() -> None:
    """Though any other task would have less to restore."""
    ends = dict.fromkeys(tasks(6), 20_000) | far([task("0_4")])
    members = [member("a", "0_0 0_1 0_2 0_3 0_4 0_5"), member("b", "", "0_4", stored={"0_4": 5})]
    decision = assign(tasks(6), ends, members, Policy(max_warmup_replicas=1))
    assert warmups(decision)["b"] == "0_4"


def test_tasks_without_stores_move_at_once() -> None:
    all_tasks = tasks(2, 2)
    decision = assign(all_tasks, far(tasks(2)), [member("a", "0_0 0_1 1_0 1_1"), member("b")], POLICY)
    assert withheld(decision) == "1_1"
    assert warmups(decision)["b"] == "0_1"


def test_a_task_with_little_to_restore_moves_at_once() -> None:
    ends = dict.fromkeys(tasks(2), POLICY.acceptable_recovery_lag)
    decision = assign(tasks(2), ends, [member("a", "0_0 0_1"), member("b")], POLICY)
    assert withheld(decision) == "0_1"


def test_a_standby_that_has_caught_up_is_where_tasks_move_first() -> None:
    members = [member("a", "0_0 0_1 0_2 0_3"), member("b", "", "0_0 0_2")]
    decision = assign(tasks(4), far(tasks(4)), members, Policy(num_standby_replicas=1))
    assert withheld(decision) == "0_0 0_2"
    assert actives(decision) == {"a": "0_1 0_3", "b": ""}


def test_where_ends_are_unknown_any_store_counts_as_caught_up_and_none_does_not() -> None:
    ends = dict.fromkeys(tasks(2))
    assert warmups(assign(tasks(2), ends, [member("a", "0_0 0_1"), member("b")], POLICY))["b"] == "0_1"
    members = [member("a", "0_0 0_1"), member("b", stored={"0_0": 1})]
    assert withheld(assign(tasks(2), ends, members, POLICY)) == "0_0"


def test_a_task_without_owner_begins_where_it_belongs_if_nobody_has_more() -> None:
    decision = assign(tasks(2), far(tasks(2)), [member("a", "0_0"), member("b")], POLICY)
    assert actives(decision) == {"a": "0_0", "b": "0_1"}
    assert not any(warmups(decision).values())


def test_a_task_without_owner_begins_where_it_is_ready_and_moves_later() -> None:
    """a has its part already, yet what it follows would be restored from nothing anywhere else."""
    members = [member("a", "0_0", "0_1"), member("b")]
    first = assign(tasks(2), far(tasks(2)), members, POLICY)
    assert actives(first) == {"a": "0_0 0_1", "b": ""}
    assert warmups(first)["b"] == "0_1"
    second = assign(tasks(2), far(tasks(2)), [member("a", "0_0 0_1"), member("b", "", "0_1")], POLICY)
    assert withheld(second) == "0_1"


def test_a_task_without_owner_takes_the_place_that_is_ready_for_it_and_an_owned_one_waits() -> None:
    """The other way round 0_2 would have to begin at b, and to move on to c later, and 0_1 the same way."""
    members = [member("a", "0_0 0_1"), member("b", "", "0_1 0_2"), member("c", stored={"0_2": 500_000})]
    decision = assign(tasks(3), far(tasks(3)), members, POLICY)
    assert actives(decision) == {"a": "0_0 0_1", "b": "0_2", "c": ""}
    assert warmups(decision) == {"a": "", "b": "", "c": "0_1"}


def test_it_does_not_begin_elsewhere_for_a_small_difference() -> None:
    members = [member("a", "0_0", stored={"0_1": 5_000}), member("b")]
    decision = assign(tasks(2), far(tasks(2)), members, POLICY)
    assert actives(decision) == {"a": "0_0", "b": "0_1"}


def test_it_does_for_a_large_one() -> None:
    members = [member("a", "0_0", stored={"0_1": 500_000}), member("b")]
    decision = assign(tasks(2), far(tasks(2)), members, POLICY)
    assert actives(decision) == {"a": "0_0 0_1", "b": ""}
    assert warmups(decision)["b"] == "0_1"


def test_the_tasks_of_a_bounced_member_go_back_to_it() -> None:
    """Others took them meanwhile; of all these it is given those that it has stores of."""
    bounced = member("b", stored=dict.fromkeys(("0_0", "0_2"), NEAR + 5))
    members = [member("a", "0_1 0_2 0_3"), bounced, member("c", "0_0 0_4 0_5")]
    decision = assign(tasks(6), far(tasks(6)), members, POLICY)
    assert withheld(decision) == "0_0 0_2"


def test_all_tasks_of_a_member_that_is_leaving_warm_up_at_once() -> None:
    members = [member("a", "0_0"), member("b", "0_1"), member("c", "0_2 0_3 0_4 0_5", leaving=True)]
    decision = assign(tasks(6), far(tasks(6)), members, Policy(max_warmup_replicas=1))
    assert actives(decision) == {"a": "0_0", "b": "0_1", "c": "0_2 0_3 0_4 0_5"}
    assert sorted(" ".join(warmups(decision).values()).split()) == ["0_2", "0_3", "0_4", "0_5"]


def test_a_leaving_member_gives_up_at_once_what_others_are_ready_for() -> None:
    members = [member("a", "0_0", "0_2"), member("b", "0_1"), member("c", "0_2 0_3", leaving=True)]
    decision = assign(tasks(4), far(tasks(4)), members, POLICY)
    assert withheld(decision) == "0_2"
    assert actives(decision)["c"] == "0_3"
    assert warmups(decision)["b"] == "0_3"


def test_what_is_ready_only_where_there_is_too_much_goes_there_first() -> None:
    """A member that leaves should not have to wait when another could take over now."""
    members = [member("a", "0_0", "0_2 0_3"), member("b", "0_1"), member("c", "0_2 0_3", leaving=True)]
    decision = assign(tasks(4), far(tasks(4)), members, POLICY)
    assert withheld(decision) == "0_2 0_3"
    assert standbys(decision)["a"] == "0_2 0_3"
    assert len(decision.shares["b"].warmup) == 1


def test_a_leaving_member_gives_up_tasks_without_stores_at_once() -> None:
    members = [member("a", "0_0"), member("b", "0_1", leaving=True)]
    assert withheld(assign(tasks(2), {}, members, POLICY)) == "0_1"


def test_a_leaving_member_gets_nothing() -> None:
    members = [member("a", "0_0"), member("b", leaving=True)]
    decision = assign(tasks(4), far(tasks(4)), members, Policy(num_standby_replicas=1))
    assert actives(decision) == {"a": "0_0 0_1 0_2 0_3", "b": ""}
    assert standbys(decision) == {"a": "", "b": ""}


def test_a_leaving_member_hands_over_to_another_of_its_process_without_warm_up() -> None:
    members = [member("a", "0_0", process="p", leaving=True), member("b", process="p"), member("c", "0_1")]
    decision = assign(tasks(2), far(tasks(2)), members, POLICY)
    assert withheld(decision) == "0_0"
    assert not any(warmups(decision).values())


def test_when_all_are_leaving_nobody_keeps_anything() -> None:
    members = [member("a", "0_0", leaving=True), member("b", "0_1", leaving=True)]
    decision = assign(tasks(2), far(tasks(2)), members, Policy(num_standby_replicas=1))
    assert actives(decision) == standbys(decision) == {"a": "", "b": ""}
    assert withheld(decision) == "0_0 0_1"
    assert not decision.warnings
