"""Workers put together: sums, who has which task, and what is said of one that is silent."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streamlib.snapshots.application import Answer, ApplicationSnapshot, put_together
from streamlib.snapshots.worker import (
    HotKey,
    Moment,
    NodeSeen,
    PartitionSeen,
    RebalanceSeen,
    StoreComing,
    TaskComing,
    TaskSeen,
    TopicSeen,
    WorkerSnapshot,
)

NOW_MS = 1_790_000_000_000


def worker(name: str, **others: Any) -> WorkerSnapshot:
    said = {"host": "h", "pid": 1, "version": "1", "state": "RUNNING", "health": "ok", "ready": True, **others}
    return WorkerSnapshot(application_id="shop", worker_id=name, at_ms=NOW_MS, **said)


def answer(snapshot: WorkerSnapshot | None, address: str = "", **others: Any) -> Answer:
    return Answer(address or f"{snapshot.worker_id if snapshot else 'x'}:80", snapshot, **others)


def task(id_: str, lag: int = 0) -> TaskSeen:
    return TaskSeen(id_, 0.5, 10.0, 0, 0, (PartitionSeen("orders", int(id_[-1]), lag, 0.0),))


def coming(id_: str, *, standby: bool, remaining: int) -> TaskComing:
    return TaskComing(id_, standby, 10, remaining, 5.0, None, (StoreComing("s", 10, remaining),))


def merged(*answers: Answer) -> ApplicationSnapshot:
    return put_together(answers, NOW_MS)


def test_numbers_add_up() -> None:
    topics, nodes = {"orders": TopicSeen(5.0, 1.0)}, {"map": NodeSeen(0.25, 2.0)}
    shared = {"topics": topics, "nodes": nodes}
    one = worker("a", rate_in=1.5, lag=3, commit_ms=(4.0, 9.0), tasks=(task("0_0", 3),), **shared)
    other = worker("b", rate_in=2.0, lag=4, open_transaction_ms=7.0, **shared)
    app = merged(answer(one), answer(other))
    assert (app.rate_in, app.lag, app.commit_ms, app.open_transaction_ms) == (3.5, 7, (4.0, 9.0), 7.0)
    assert (app.topics["orders"].rate_in, app.topics["orders"].lag) == (10.0, 3)
    assert app.nodes["map"] == NodeSeen(0.5, 4.0)


def test_the_worst_worker_decides_and_its_reasons_come_first() -> None:
    app = merged(
        answer(worker("a", health="degraded", ready=False, reasons=("restoring",))),
        answer(worker("b", health="stuck", reasons=("it stands still",))),
    )
    assert (app.health, app.ready) == ("stuck", False)
    assert app.reasons == ("b: it stands still", "a: restoring")


def test_tasks_are_in_order_with_who_has_and_who_follows_them() -> None:
    followed = coming("0_9", standby=True, remaining=7), coming("2_0", standby=True, remaining=0)
    app = merged(
        answer(worker("a", tasks=(task("0_9", 2), task("0_0")), coming=(coming("1_0", standby=False, remaining=5),))),
        answer(worker("b", coming=followed)),
    )
    assert [(row.task, row.worker, row.role) for row in app.tasks] == [
        ("0_0", "a", "active"),
        ("0_9", "a", "active"),
        ("1_0", "a", "restoring"),
        ("2_0", "", "standby"),
    ]
    assert app.tasks[1].standbys == (("b", 7),)
    assert [(row.active, row.restoring, row.standby) for row in app.workers] == [(2, 1, 0), (0, 0, 2)]


def test_a_silent_worker_is_shown_as_it_was_and_counts_for_nothing() -> None:
    app = merged(
        answer(worker("a", rate_in=1.0)),
        answer(worker("b", rate_in=8.0, tasks=(task("0_0"),)), silent_ms=12_300, problem="Connection refused"),
    )
    assert app.rate_in == 1.0
    assert app.health == "degraded"
    assert app.reasons == ("b does not answer since 12 s: Connection refused",)
    assert (app.workers[1].state, app.workers[1].rate_in, app.workers[1].ready) == ("UNKNOWN", 8.0, False)
    assert (app.tasks[0].worker, app.tasks[0].stale) == ("b", True)


@pytest.mark.parametrize("silent_first", [True, False])
def test_a_task_that_moved_from_a_silent_worker_is_where_it_is_now(silent_first: bool) -> None:
    answers = [
        answer(worker("a" if silent_first else "b", tasks=(task("0_0"),)), silent_ms=5_000),
        answer(worker("b" if silent_first else "a", coming=(coming("0_0", standby=False, remaining=3),))),
    ]
    (row,) = merged(*answers).tasks
    assert (row.worker, row.role, row.stale) == ("b" if silent_first else "a", "restoring", False)


def test_one_that_never_answered_is_there_without_numbers() -> None:
    app = merged(answer(worker("a")), answer(None, "10.0.0.1:80", silent_ms=900, problem="Connection refused"))
    assert [row.name for row in app.workers] == ["10.0.0.1:80", "a"]
    assert app.workers[0].totals == {}


def test_workers_of_several_hosts_are_called_by_host_too() -> None:
    app = merged(answer(worker("a", host="h1")), answer(worker("a", host="h2"), "a2:80"))
    assert [row.name for row in app.workers] == ["h1/a", "h2/a"]


def test_two_with_one_name_are_told_apart_by_address() -> None:
    app = merged(answer(worker("a"), "h:81"), answer(worker("a"), "h:80"))
    assert [row.name for row in app.workers] == ["h:80", "h:81"]


def test_one_rebalance_of_three_workers_is_one_row() -> None:
    def seen(at_ms: int, number: int, *, joined: tuple[str, ...] = (), moving: int = 4) -> RebalanceSeen:
        return RebalanceSeen(at_ms, number, joined, (), moving, 24, 100.0 * number)

    app = merged(
        answer(worker("a", rebalances=(seen(1_000, 1, joined=("a",), moving=24), seen(90_000, 2, joined=("b",))))),
        answer(worker("b", rebalances=(seen(90_900, 1, joined=("a", "b")),))),
    )
    assert [(row.at_ms, row.joined, row.moving) for row in app.rebalances] == [
        (90_000, ("b",), 4),
        (1_000, ("a",), 24),
    ]
    assert app.rebalances[0].took_ms == {"a": 200.0, "b": 100.0}


def test_hot_keys_are_counted_together() -> None:
    app = merged(
        answer(worker("a", hot_keys=(HotKey("t", "x", 5, 1, 10), HotKey("t", "y", 3, 0, 10)))),
        answer(worker("b", hot_keys=(HotKey("t", "y", 4, 0, 90),))),
    )
    assert app.hot_keys == (HotKey("t", "y", 7, 0, 100), HotKey("t", "x", 5, 1, 100))


def test_history_goes_by_seconds_that_all_have_told() -> None:
    def past(*seconds: int) -> tuple[Moment, ...]:
        return tuple(Moment(second * 1_000 + 400, 1.0, 2.0, 3, None) for second in seconds)

    app = merged(answer(worker("a", history=past(10, 11, 12))), answer(worker("b", history=past(11, 12, 13))))
    assert [(each.at_ms, each.rate_in) for each in app.history] == [(10_000, 1.0), (11_000, 2.0), (12_000, 2.0)]
    assert app.history[0].commit_ms is None


def test_it_is_the_same_after_a_way_as_json() -> None:
    app = merged(answer(worker("a", tasks=(task("0_0", 3),), history=(Moment(1_000, 1.0, 2.0, 3, 4.0),))))
    assert msgspec.json.decode(msgspec.json.encode(app), type=ApplicationSnapshot) == app
