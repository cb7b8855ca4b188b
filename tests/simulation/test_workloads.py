"""Workloads: nothing is found in runs that are right, however they went, and something whenever one is not."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Iterator, Mapping

import pytest

from streamlib.records import OutRecord, TopicPartition
from streamlib.simulation.workloads import WORKLOADS, Input, Seen, Workload, foreign_key, stream_join, table_join
from streamlib.simulation.workloads.foreign_key import Order
from streamlib.state.codec import pack_timestamp
from tests.simulation.tasks import BUGS, Bug, Tasks

every_workload = pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS.keys())

IN_ORDER = [
    "passthrough",
    "counter",
    "ledger",
    "transfer",
    "windows",
    "sessions",
    "suppress",
    "outer_join",
    "global_table",
    "deduplicate",
    "punctuate",
]
"""Of these each output is determined, and so is its place in its partition."""

CHECKED_STORES = {
    "counter": {"counts"},
    "ledger": {"last"},
    "transfer": {"accounts"},
    "repartition": {"counts", "names"},
    "table_join": {"left-rows", "right-rows", "joined"},
    "foreign_key": {"order-rows", "user-rows", "joined", "user-subscription-store"},
    "punctuate": {"totals"},
}

WITHOUT_STATE = {"passthrough", "global_table"}  # but for a global store, which no commit changes
TIMELY = {"windows", "sessions", "suppress", "outer_join", "punctuate", "enrich"}
"""Where what is committed beside the offsets decides what comes out: stream time, or which records are unfinished."""


# -- Runs ------------------------------------------------------------------------------------------------------------


@every_workload
def test_nothing_is_found_in_runs_with_crashes_and_any_order_of_work(workload: Workload) -> None:
    for seed in range(25):
        assert workload.check(Tasks(workload, seed, inputs=10 + 2 * seed).run()) == [], f"seed {seed}"


@every_workload
def test_there_are_results(workload: Workload) -> None:
    """A check of nothing finds nothing."""
    seen = Tasks(workload, 1, inputs=60).run()
    for topic in workload.outputs:
        assert sum(len(records) for partition, records in seen.outputs.items() if partition.topic == topic) >= 5


def _is_harmless(bug: Bug, workload: str) -> bool:
    if bug == "stream time is lost":
        return workload not in TIMELY
    return bug.startswith("the state") and workload in WITHOUT_STATE


@pytest.mark.parametrize("bug", BUGS)
@every_workload
def test_bugs_are_found_within_a_few_seeds(workload: Workload, bug: Bug) -> None:
    runs = (Tasks(workload, seed, inputs=60, bug=bug).run() for seed in range(25))
    assert any(workload.check(seen) for seen in runs) is not _is_harmless(bug, workload.name)


@every_workload
def test_the_inputs_of_a_seed_are_always_the_same(workload: Workload) -> None:
    drawn = workload.inputs(random.Random(7), 40)
    assert drawn == workload.inputs(random.Random(7), 40)
    assert drawn != workload.inputs(random.Random(8), 40)
    assert {each.partition.topic for each in drawn} <= set(workload.topics) - set(workload.outputs)
    assert {each.partition.partition for each in drawn} == {0, 1}
    assert all(each.record[2] >= 0 for each in drawn)


@every_workload
def test_what_a_workload_says_of_itself_fits(workload: Workload) -> None:
    topology = workload.topology()
    assert set(workload.outputs) <= set(workload.topics)
    assert set(workload.prepared) <= set(workload.topics) - set(workload.outputs)
    assert topology.describe() == workload.topology().describe()
    assert len(topology.subtopologies()) >= 1


# -- Faults in what is seen ------------------------------------------------------------------------------------------


def _without(seen: Seen, partition: TopicPartition, index: int) -> Seen:
    changed = copy.deepcopy(seen)
    del changed.outputs[partition][index]
    return changed


def _with(seen: Seen, partition: TopicPartition, index: int, record: OutRecord) -> Seen:
    changed = copy.deepcopy(seen)
    changed.outputs[partition].insert(index, (changed.outputs[partition][index - 1][0], record))
    return changed


def _outputs(workload: Workload, seen: Seen) -> Iterator[tuple[TopicPartition, int, OutRecord]]:
    for partition, records in seen.outputs.items():
        if partition.topic in workload.outputs:
            for index, (_, record) in enumerate(records):
                yield partition, index, record


@pytest.fixture(scope="module")
def seen_of() -> Mapping[str, Seen]:
    """One run of each workload."""
    return {name: Tasks(workload, 3).run() for name, workload in WORKLOADS.items()}


@pytest.mark.parametrize("name", [*IN_ORDER, "repartition", "enrich"])
def test_each_output_that_is_lost_is_missed(name: str, seen_of: Mapping[str, Seen]) -> None:
    workload, seen = WORKLOADS[name], seen_of[name]
    for partition, index, _ in _outputs(workload, seen):
        assert workload.check(_without(seen, partition, index)), f"{partition} without output {index}"


@pytest.mark.parametrize("name", [*IN_ORDER, "repartition", "stream_join", "enrich"])
def test_each_output_that_comes_twice_is_told(name: str, seen_of: Mapping[str, Seen]) -> None:
    workload, seen = WORKLOADS[name], seen_of[name]
    for partition, index, record in _outputs(workload, seen):
        (first, *_) = workload.check(_with(seen, partition, index + 1, record))
        assert first.startswith(f"topic {partition.topic}"), first


@pytest.mark.parametrize("name", [*IN_ORDER, "repartition", "enrich"])
def test_each_output_with_another_value_or_time_is_told(name: str, seen_of: Mapping[str, Seen]) -> None:
    workload, seen = WORKLOADS[name], seen_of[name]
    for partition, index, (key, value, timestamp, headers) in _outputs(workload, seen):
        less = _without(seen, partition, index)
        if index > 0:
            assert workload.check(_with(less, partition, index, (key, value, timestamp + 1, headers)))
            assert workload.check(_with(less, partition, index, (key, (value or b"") + b"?", timestamp, headers)))
            assert workload.check(_with(less, partition, index, (b"?", value, timestamp, headers)))


@pytest.mark.parametrize("name", IN_ORDER)
def test_each_output_in_the_wrong_partition_is_told(name: str, seen_of: Mapping[str, Seen]) -> None:
    workload, seen = WORKLOADS[name], seen_of[name]
    for partition, index, record in _outputs(workload, seen):
        changed = _without(seen, partition, index)
        other = partition._replace(partition=1 - partition.partition)
        changed.outputs[other].append((99, record))
        assert workload.check(changed)


@pytest.mark.parametrize("name", CHECKED_STORES)
def test_each_row_that_is_missing_or_should_not_be_there_is_told(name: str, seen_of: Mapping[str, Seen]) -> None:
    workload, seen = WORKLOADS[name], seen_of[name]
    for store in CHECKED_STORES[name]:
        assert seen.stores[store], f"store {store} is empty"
        for key, row in seen.stores[store].items():
            changed = copy.deepcopy(seen)
            del changed.stores[store][key]
            assert any(found.startswith(f"store {store}") for found in workload.check(changed))
            changed.stores[store][key[:-1] + bytes([key[-1] ^ 1])] = row
            assert any(found.startswith(f"store {store}") for found in workload.check(changed))


@pytest.mark.parametrize("name", CHECKED_STORES)
def test_each_row_with_another_content_is_told(name: str, seen_of: Mapping[str, Seen]) -> None:
    """A store that is ahead of its output, or behind it."""
    workload, seen = WORKLOADS[name], seen_of[name]
    for store in CHECKED_STORES[name] - {"user-subscription-store"}:
        for key, row in seen.stores[store].items():
            changed = copy.deepcopy(seen)
            changed.stores[store][key] = row[:-1] + bytes([row[-1] ^ 1])
            assert any(found.startswith(f"store {store}") for found in workload.check(changed))


# -- Joins in detail -------------------------------------------------------------------------------------------------


def _logs(records: Iterable[Input]) -> dict[TopicPartition, list[tuple[int, OutRecord]]]:
    logs: dict[TopicPartition, list[tuple[int, OutRecord]]] = {}
    for partition, record in records:
        logs.setdefault(partition, []).append((len(logs[partition]) if partition in logs else 0, record))
    return logs


def _joined_streams(*outer: Input) -> list[str]:
    """What is found if these are the results of the outer join of l1 and r1 and, without a match, l2."""
    left, right, inner = stream_join.LEFT, stream_join.RIGHT, stream_join.INNER
    inputs = [left.record(0, "a", "l1", 10), right.record(0, "a", "r1", 20), left.record(0, "b", "l2", 15)]
    closing = left.record(0, "closing-left", "closing", stream_join.CLOSING_MS)
    outputs = [inner.record(0, "a", "l1+r1", 20), *outer]
    return stream_join.STREAM_JOIN.check(Seen(_logs([*inputs, closing]), _logs(outputs), {}))


def _outer(key: str, value: str, timestamp: int) -> Input:
    return stream_join.OUTER.record(0, key, value, timestamp)


PAIR, ALONE, EARLY = _outer("a", "l1+r1", 20), _outer("b", "l2+-", 15), _outer("a", "l1+-", 10)


def test_an_outer_join_may_tell_before_a_match_that_there_is_none() -> None:
    assert _joined_streams(PAIR, ALONE) == []
    assert _joined_streams(EARLY, PAIR, ALONE) == []


def test_an_outer_join_does_not_tell_after_a_match_that_there_is_none_nor_tells_it_twice() -> None:
    assert _joined_streams(PAIR, EARLY, ALONE) == [
        "topic outer, partition 0, offset 1: 'a' = 'l1+-' at 10 ms comes after topic outer, partition 0, offset 0"
    ]
    assert _joined_streams(EARLY, EARLY, PAIR, ALONE) == [
        "topic outer, partition 0, offset 1: 'a' = 'l1+-' at 10 ms comes after topic outer, partition 0, offset 0"
    ]


def test_pairs_and_records_without_a_match_are_missed_and_told_when_they_come_twice() -> None:
    assert _joined_streams(PAIR) == ["topic outer, partition 0: 'b' = 'l2+-' at 15 ms is missing"]
    assert _joined_streams(EARLY, ALONE) == ["topic outer, partition 0: 'a' = 'l1+r1' at 20 ms is missing"]
    twice = "topic outer, partition 0, offset 2: 'b' = 'l2+-' at 15 ms comes twice"
    assert _joined_streams(PAIR, ALONE, ALONE) == [twice]


def _joined_tables(*results: tuple[str | None, int], joined: tuple[str, int] | None = None) -> list[str]:
    """What is found if these are the results of l1, l2 and a delete on the left, r1 and r2 on the right."""
    left, right, out = table_join.LEFT, table_join.RIGHT, table_join.OUT
    inputs = [left.record(0, "a", value, time) for value, time in (("l1", 10), ("l2", 20), (None, 30))]
    inputs += [right.record(0, "a", value, time) for value, time in (("r1", 11), ("r2", 21))]
    outputs = [out.record(0, "a", value, time) for value, time in results]
    stores = {"right-rows": {b"a": pack_timestamp(21) + b"r2"}, "joined": {}}
    if joined is not None:
        stores["joined"] = {b"a": pack_timestamp(joined[1]) + joined[0].encode()}
    return table_join.TABLE_JOIN.check(Seen(_logs(inputs), _logs(outputs), stores))


def test_results_of_tables_may_come_of_any_order_of_the_changes() -> None:
    assert _joined_tables(("l1+r1", 11), ("l2+r1", 20), ("l2+r2", 21), (None, 30)) == []
    assert _joined_tables(("l1+r1", 11), ("l1+r2", 21), ("l2+r2", 21), (None, 30)) == []
    assert _joined_tables(("l2+r1", 20), (None, 30)) == []
    assert _joined_tables() == [], "the right side came last"


def test_results_of_tables_that_no_order_leads_to_are_told() -> None:
    lost = _joined_tables(("l1+r1", 11), ("l2+r2", 21), (None, 30))
    assert lost == [
        "topic out, partition 0, offset 1: no order of the changes leads to 'a' = 'l2+r2' at 21 ms as result 2 of its "
        "key"
    ]
    assert _joined_tables(("l2+r1", 20), ("l2+r1", 20), (None, 30)), "twice"
    assert _joined_tables(("l2+r1", 20), ("l1+r1", 11), (None, 30)), "back"
    assert _joined_tables(("l1+r2", 21), ("l1+r1", 21)), "back on the other side"
    assert _joined_tables(("l2+r1", 21), (None, 30)), "another time"


def test_a_tombstone_that_a_join_of_tables_has_lost_is_missed() -> None:
    assert _joined_tables(("l2+r1", 20), ("l2+r2", 21), joined=("l2+r2", 21)) == [
        "topic out: results of 'a' are missing: its changes lead to more than the 2 there are",
        "store joined: 'a' has ('l2+r2', 21), not no row",
    ]


def _joined_by_foreign_key(*results: str | None, last: str = "n2+u2") -> list[str]:
    """What is found if these are the results of an order n1 of user d, then n2 of user f; f is u1, then u2."""
    orders, users, out = foreign_key.ORDERS, foreign_key.USERS, foreign_key.OUT
    inputs = [
        orders.record(0, "a", Order("d", "n1"), 10),
        orders.record(0, "a", Order("f", "n2"), 20),
        users.record(1, "f", "u1", 11),
        users.record(1, "f", "u2", 21),
    ]
    stores = {
        "order-rows": {b"a": pack_timestamp(20) + b'{"user":"f","name":"n2"}'},
        "user-rows": {b"f": pack_timestamp(21) + b"u2"},
        "joined": {b"a": pack_timestamp(21) + last.encode()},
        "user-subscription-store": {b"\0\0\0\1fa": b""},
    }
    outputs = [out.record(0, "a", result, 0) for result in results]
    return foreign_key.FOREIGN_KEY.check(Seen(_logs(inputs), _logs(outputs), stores))


def test_results_by_foreign_key_may_skip_steps() -> None:
    assert _joined_by_foreign_key("n1+-", "n1+-", "n2+-", "n2+u1", "n2+u2") == []
    assert _joined_by_foreign_key("n2+u2") == []


@pytest.mark.parametrize(
    ("results", "found"),
    [
        (("n2+u1", "n2+u1", "n2+u2"), "topic out, partition 0, offset 1: 'a' = 'n2+u1' at 0 ms comes twice"),
        (("n2+u2", "n1+-", "n2+u2"), "topic out, partition 0, offset 1: 'a' = 'n1+-' at 0 ms goes back"),
        (("n1+u1", "n2+u2"), "topic out, partition 0, offset 0: 'a' = 'n1+u1' at 0 ms is of no rows that belong"),
        (("n2+u1",), "topic out, partition 0, offset 0: the last result of 'a' is 'n2+u1', not 'n2+u2'"),
        (("n2+u2", None), "topic out, partition 0, offset 1: the last result of 'a' is None, not 'n2+u2'"),
        ((), "topic out: the last result of 'a' is None, not 'n2+u2'"),
    ],
)
def test_results_by_foreign_key_that_are_wrong_are_told(results: tuple[str | None, ...], found: str) -> None:
    first, *_ = _joined_by_foreign_key(*results)
    assert first.startswith(found)


def test_a_subscription_that_was_not_taken_back_is_told() -> None:
    inputs = [foreign_key.ORDERS.record(0, "a", None, 10)]
    stores = {"user-subscription-store": {b"\0\0\0\1fa": b""}}
    (found,) = foreign_key.FOREIGN_KEY.check(Seen(_logs(inputs), {}, stores))
    assert found == ("store user-subscription-store: CombinedKey(foreign_key='f', primary_key='a') should not be there")


# -- What a run may do to the inputs ---------------------------------------------------------------------------------


@every_workload
def test_records_that_cannot_be_decoded_do_not_count(workload: Workload) -> None:
    """A run may write some, with the policy to skip them."""
    seen = Tasks(workload, 5).run()
    for records in seen.inputs.values():
        records.insert(len(records) // 2, (records[-1][0], (b"\xff", b"\xff poison", 0, ())))
    assert workload.check(seen) == []
