"""Services that functions call: which calls may be made, which are made again, and what a task does meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlib import CircuitBreaker, RateLimit, Service, record_metadata
from streamlib.engine.calls import Answer, Call
from streamlib.engine.cursor import Cursor
from streamlib.engine.services import FIRST_REST_MS, Services
from streamlib.engine.task import Task
from streamlib.errors import ProcessingError, TopologyError
from streamlib.policies import ErrorPolicies, Skip
from streamlib.records import TopicPartition
from tests.engine.support import INPUT, Clock, batch
from tests.engine.test_async_calls import commit, fed, task_of, values

OPEN_MS = 30_000
DOWN = Answer(error=ConnectionError("nobody there"))


async def ask(value: str) -> str:
    return value


def service(failures: int = 2, **options: Any) -> Service:
    return Service("s", breaker=CircuitBreaker(failures, timedelta(milliseconds=OPEN_MS), **options))


def limited(calls: int, per_ms: int = 1000) -> Service:
    return Service("s", rate_limit=RateLimit(calls, timedelta(milliseconds=per_ms)))


def asking(*records: tuple[str, str], called: Service, **options: Any) -> tuple[Task, Clock]:
    """A task that asks the service for each value."""
    clock = Clock()
    task = fed(lambda s: s.map_values(ask, service=called, **options), *records, now_ms=clock)
    return task, clock


def numbered(count: int) -> list[tuple[str, str]]:
    return [(f"k{n}", str(n)) for n in range(count)]


def fail(task: Task, *calls: Call) -> None:
    for call in calls:
        task.finish(call, DOWN)


def answer(task: Task, *calls: Call) -> None:
    for call in calls:
        task.finish(call, Answer(call.value))


def opened(*records: tuple[str, str], **options: Any) -> tuple[Task, Clock]:
    """A task whose service has just been found not to work."""
    task, clock = asking(*records, called=service(), **options)
    fail(task, *task.take_calls()[:2])
    return task, clock


# -- Breaker -----------------------------------------------------------------------------------------------------------


def test_a_call_that_finds_the_service_down_is_made_again_and_nothing_fails() -> None:
    task, clock = asking(("k", "a"), called=service(failures=5))
    fail(task, *task.take_calls())
    assert task.take_calls() == []
    clock.now_ms += FIRST_REST_MS
    fail(task, *task.take_calls())
    clock.now_ms += FIRST_REST_MS
    assert task.take_calls() == []
    clock.now_ms += FIRST_REST_MS
    answer(task, *task.take_calls())
    assert values(task) == ["a"]


def test_after_so_many_failures_in_a_row_no_calls_are_made() -> None:
    task, clock = asking(*numbered(6), called=service(failures=3))
    calls = task.take_calls()
    fail(task, *calls[:2])
    answer(task, calls[2])  # no longer in a row
    fail(task, *calls[3:5])
    clock.now_ms += FIRST_REST_MS
    again = task.take_calls()
    assert len(again) == 4
    fail(task, again[0])
    clock.now_ms += OPEN_MS - 1
    assert task.take_calls() == []


def test_what_was_under_way_when_the_breaker_opens_changes_nothing_for_it() -> None:
    task, clock = asking(*numbered(5), called=service())
    calls = task.take_calls()
    fail(task, *calls[:2])
    clock.now_ms += 10
    fail(task, calls[2])
    answer(task, calls[3])
    assert values(task) == ["3"]
    clock.now_ms += OPEN_MS - 11
    assert task.take_calls() == []
    clock.now_ms += 1
    assert len(task.take_calls()) == 1


def test_one_call_is_tried_then_all_go_on() -> None:
    task, clock = opened(*numbered(5))
    clock.now_ms += OPEN_MS
    [trial] = task.take_calls()
    assert trial.value == "0"
    clock.now_ms += OPEN_MS - 1
    assert task.take_calls() == []
    answer(task, trial)
    assert [call.value for call in task.take_calls()] == ["1"]  # the others are still under way


def test_a_failed_trial_opens_for_as_long_again() -> None:
    task, clock = opened(*numbered(2))
    clock.now_ms += OPEN_MS
    fail(task, *task.take_calls())
    clock.now_ms += OPEN_MS - 1
    assert task.take_calls() == []
    clock.now_ms += 1
    answer(task, *task.take_calls())
    answer(task, *task.take_calls())
    assert values(task) == ["0", "1"]


def test_a_trial_that_takes_longer_than_it_is_open_closes_it() -> None:
    task, clock = opened(*numbered(3))
    clock.now_ms += OPEN_MS
    [trial] = task.take_calls()
    clock.now_ms += OPEN_MS
    [another] = task.take_calls()
    answer(task, trial, another)
    assert values(task) == ["0", "1"]


def test_a_trial_whose_task_has_gone_is_not_waited_for() -> None:
    services = Services(clock := Clock())
    make = lambda s: s.map_values(ask, service=service())  # noqa: E731
    gone, other = (fed(make, ("a", "1"), ("b", "2"), now_ms=clock, services=services) for _ in range(2))
    fail(gone, *gone.take_calls())
    assert other.take_calls() == []
    clock.now_ms += OPEN_MS
    assert len(gone.take_calls()) == 1
    assert services.status["s"].breaker == "half_open"
    gone.close()
    assert other.take_calls() == []
    clock.now_ms += OPEN_MS
    answer(other, *other.take_calls())
    assert services.status["s"].breaker == "closed"


@pytest.mark.parametrize("ordered", ["key", "partition", "none"])
def test_an_order_holds_although_calls_are_made_again(ordered: Any) -> None:
    task, clock = asking(("a", "1"), ("a", "2"), ("b", "3"), called=service(failures=9), ordered=ordered)
    fail(task, task.take_calls()[0])
    clock.now_ms += FIRST_REST_MS
    seen: list[str] = []
    waiting = {call.value: call for call in task.take_calls()}
    assert "1" in waiting
    if ordered == "key":
        assert "2" not in waiting
    answer(task, waiting.pop("1"))
    seen += values(task)
    answer(task, *waiting.values(), *task.take_calls())
    assert seen == ["1"]


def test_a_record_whose_call_is_made_again_stays_unfinished_for_commits() -> None:
    task, _ = opened(*numbered(4))
    assert commit(task).offset == 0 if task.dirty else True
    assert not task.holds_commit


def test_records_wait_where_the_service_is_down() -> None:
    task, clock = opened(*numbered(2), concurrency=4)
    task.enqueue(batch(INPUT, 2, *((f"k{n}", str(n), n) for n in range(2, 20))))
    assert task.process(100) == 2
    assert not task.ready(clock.now_ms)
    clock.now_ms += OPEN_MS
    answer(task, *task.take_calls())
    assert task.ready(clock.now_ms)


def test_other_errors_are_the_records() -> None:
    task, _ = asking(("k", "a"), called=service(failures=1))
    [call] = task.take_calls()
    with pytest.raises(ProcessingError, match="ValueError: no such user"):
        task.finish(call, Answer(error=ValueError("no such user")))


def test_a_service_that_finds_fault_with_a_record_works() -> None:
    clock, skip = Clock(), ErrorPolicies(on_processing_error=Skip())
    make = lambda s: s.map_values(ask, service=service())  # noqa: E731
    task = fed(make, *numbered(4), now_ms=clock, policies=skip)
    calls = task.take_calls()
    fail(task, calls[0])
    task.finish(calls[1], Answer(error=ValueError("no such user")))
    fail(task, calls[2])
    clock.now_ms += FIRST_REST_MS
    assert len(task.take_calls()) == 2


@pytest.mark.parametrize(
    ("errors", "error", "again"),
    [
        (OSError, TimeoutError(), True),
        ((KeyError, ValueError), ValueError(), True),
        (lambda error: error.args == (503,), RuntimeError(503), True),
        ((ConnectionError, TimeoutError), OSError(), False),
        (lambda error: error.args == (503,), RuntimeError(404), False),
    ],
)
def test_the_user_says_what_tells_that_a_service_is_down(errors: Any, error: Exception, again: bool) -> None:
    task, clock = asking(("k", "a"), called=service(errors=errors))
    [call] = task.take_calls()
    if again:
        task.finish(call, Answer(error=error))
        clock.now_ms += FIRST_REST_MS
        assert task.take_calls() == [call]
    else:
        with pytest.raises(ProcessingError):
            task.finish(call, Answer(error=error))


def test_a_function_of_errors_that_raises_is_named() -> None:
    task, _ = asking(("k", "a"), called=service(errors=lambda error: error.status == 503))
    [call] = task.take_calls()
    with pytest.raises(ProcessingError, match=r"the errors of service s raised AttributeError.*\[while processing"):
        task.finish(call, DOWN)


def test_what_happens_to_a_service_is_logged_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    services = Services(clock := Clock())
    task = fed(lambda s: s.map_values(ask, service=service()), *numbered(5), now_ms=clock, services=services)
    fail(task, *task.take_calls())
    for _ in range(3):
        clock.now_ms += OPEN_MS
        fail(task, *task.take_calls())
    status = services.status["s"]
    assert (status.breaker, status.calls, status.failed, status.opened) == ("open", 8, 8, 1)
    clock.now_ms += OPEN_MS
    answer(task, *task.take_calls())
    assert services.status["s"].breaker == "closed"
    assert [record.message.split(",")[0] for record in caplog.records] == [
        "service s does not work",
        "service s answers again",
    ]


# -- Rate limit --------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(calls=st.integers(1, 5), per_ms=st.integers(1, 50), pauses=st.lists(st.integers(0, 30), max_size=80))
def test_no_span_has_more_calls_than_the_limit_and_none_waits_without_need(
    calls: int, per_ms: int, pauses: list[int]
) -> None:
    gate = Services(clock := Clock()).gate(limited(calls, per_ms))
    made: list[int] = []
    for pause in pauses:
        clock.now_ms += pause
        within = sum(1 for at in made if at > clock.now_ms - per_ms)
        assert gate.may_call(None) == (within < calls)  # type: ignore[arg-type]
        if within < calls:
            made.append(clock.now_ms)


def test_calls_beyond_the_limit_wait_for_their_turn_in_order() -> None:
    task, clock = asking(*numbered(5), called=limited(2))
    assert [call.value for call in task.take_calls()] == ["0", "1"]
    assert task.take_calls() == []
    assert task.next_call_ms == clock.now_ms + 1000
    clock.now_ms += 1000
    assert [call.value for call in task.take_calls()] == ["2", "3"]
    clock.now_ms += 1000
    assert [call.value for call in task.take_calls()] == ["4"]
    assert task.next_call_ms is None


def test_operators_and_tasks_of_a_worker_share_a_limit() -> None:
    services, shared = Services(clock := Clock()), limited(3)
    make = lambda s: s.map_values(ask, service=shared).map_values(ask, service=shared)  # noqa: E731
    one, other = (fed(make, *numbered(2), now_ms=clock, services=services) for _ in range(2))
    answer(one, *one.take_calls())
    assert len(one.take_calls()) + len(other.take_calls()) == 1
    assert services.status["s"].limited


def test_a_limit_counts_trials_and_calls_made_again() -> None:
    both = Service("s", RateLimit(1, timedelta(minutes=1)), service(failures=1).breaker)
    task, clock = asking(*numbered(2), called=both)
    fail(task, *task.take_calls())
    clock.now_ms += OPEN_MS
    assert task.take_calls() == []
    clock.now_ms += OPEN_MS
    assert len(task.take_calls()) == 1


# -- What can be said --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RateLimit(0), "calls are from 1 to 100,000, not 0"),
        (lambda: RateLimit(1, timedelta()), "more than zero"),
        (lambda: CircuitBreaker(0), "failures are at least 1, not 0"),
        (lambda: CircuitBreaker(open_for=5), "timedelta"),  # type: ignore[arg-type]
        (lambda: CircuitBreaker(errors=(503,)), r"kinds of exceptions, not \(503,\)"),  # type: ignore[arg-type]
        (lambda: Service("s"), "neither a rate_limit nor a breaker"),
        (lambda: Service("", RateLimit(1)), "has a name"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        make()


def test_a_service_is_a_service() -> None:
    with pytest.raises(TopologyError, match="map_values: service is a Service, not 's'"):
        task_of(lambda s: s.map_values(ask, service="s"))


def test_two_services_of_one_name_are_refused() -> None:
    with pytest.raises(TopologyError, match="two services are called 's' and differ"):
        task_of(lambda s: s.map_values(ask, service=limited(1)).map_values(ask, service=limited(2)))


def test_a_service_is_refused_where_commits_would_wait_for_it() -> None:
    with pytest.raises(TopologyError, match=r"node asked names a service.*put a repartition\(\) in front"):
        task_of(
            lambda s: s.group_by_key().count(store="c").to_stream().map_values(str, value=str)
            .map_values(ask, service=limited(1), name="asked")
        )  # fmt: skip


# -- Ids ---------------------------------------------------------------------------------------------------------------


async def record_id(value: str) -> str:
    record = record_metadata()
    assert record is not None
    return record.id


async def halves(value: str) -> list[str]:
    return value.split(".")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda s: s.map_values(record_id), ["in-0-0"]),
        (lambda s: s.filter(lambda k, v: True).map_values(record_id).map_values(record_id), ["in-0-0"]),
        (lambda s: s.flat_map_values(str.split).map_values(record_id), ["in-0-0-0", "in-0-0-1"]),
        (
            lambda s: s.flat_map(lambda k, v: [(w, w) for w in v.split()]).map_values(record_id),
            ["in-0-0-0", "in-0-0-1"],
        ),
        (
            lambda s: s.flat_map_values(str.split).flat_map_values(halves).map_values(record_id),
            ["in-0-0-0-0", "in-0-0-0-1", "in-0-0-1-0"],
        ),
        (
            lambda s: s.flat_map_values(str.split).map_values(ask, ordered="none").map_values(record_id),
            ["in-0-0-0", "in-0-0-1"],
        ),
    ],
)
@pytest.mark.parametrize("backwards", [False, True])
def test_ids_are_those_of_the_record_whatever_order_calls_come_back_in(
    make: Any, expected: list[str], backwards: bool
) -> None:
    task = fed(make, ("k", "a.b c"))
    while calls := task.take_calls():
        for call in reversed(calls) if backwards else calls:
            task.finish(call, asyncio.run(call.answer()))
    assert sorted(values(task)) == expected


def test_a_flat_map_that_fails_leaves_no_number_to_the_next_record() -> None:
    def burst(value: str) -> list[str]:
        return [value, value]

    def refuse(value: str) -> str:
        if value == "bad":
            raise ValueError(value)
        return value

    task = fed(
        lambda s: s.flat_map_values(burst).map_values(refuse).with_record_id().merge(s.with_record_id()),
        ("k", "bad"), ("k", "good"),
        policies=ErrorPolicies(on_processing_error=Skip()),
    )  # fmt: skip
    written = task.take_outputs()[TopicPartition("out", 0)]
    ids = [(dict(headers)["record-id"] or b"").decode() for _, _, _, headers in written]
    assert ids == ["in-0-0", "in-0-1-0", "in-0-1-1", "in-0-1"]


def test_a_record_keeps_the_id_it_came_with() -> None:
    task = task_of(lambda s: s.with_record_id(header="first").with_record_id(header="first"))
    task.enqueue(batch(INPUT, 5, ("k", "v", 0)))
    task.process(1)
    assert [headers for _, _, _, headers in task.take_outputs()[TopicPartition("out", 0)]] == [(("first", b"in-0-5"),)]


def test_only_a_flat_map_above_something_that_asks_is_numbered() -> None:
    seen: list[tuple[int, ...]] = []
    task = task_of(lambda s: s.flat_map_values(str.split).peek(lambda k, v: seen.append(cursor_of(task).derived)))
    task.enqueue(batch(INPUT, 0, ("k", "a b", 0)))
    task.process(1)
    assert seen == [(), ()]


def cursor_of(task: Task) -> Cursor:
    return task._cursor
