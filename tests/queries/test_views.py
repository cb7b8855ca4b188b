"""What is answered of the stores of a worker, over fakes of Kafka: what is committed, by who is sure to have it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from streamlib.errors import (
    ErrorCode,
    InvalidStateStoreError,
    InvalidStateStorePartitionError,
    SerializationError,
    StateStoreMigratedError,
    StateStoreNotAvailableError,
    StreamsRebalancingError,
    UnknownStateStoreError,
)
from streamlib.queries.parts import Question
from streamlib.queries.views import ReadOnlyKeyValueStore, ReadOnlyWindowStore, open_view
from streamlib.runtime.assignor import Instructions
from streamlib.runtime.local_stores import LagInfo
from streamlib.runtime.ports import MemberTasks
from streamlib.state.codec import ValueAndTimestamp
from tests.runtime.fakes import IN0, IN1, T0, T1, TWO, Bench, until, working

OTHER = MemberTasks("other", endpoint="10.0.0.2:80", active=(T1,))


def counts(bench: Bench, **options: Any) -> ReadOnlyKeyValueStore[str, Any]:
    timed = options.pop("with_timestamps", False)
    question = Question(store="counts", **options)
    view: ReadOnlyKeyValueStore[str, Any] = open_view(
        lambda: bench.worker.local, question, ReadOnlyKeyValueStore, with_timestamps=timed
    )
    return view


async def test_what_is_committed_is_there_and_what_is_not_is_not() -> None:
    bench = Bench()
    bench.broker.write(IN0, "a", "a")
    async with working(bench, IN0, IN1):
        await until(lambda: bench.committed(IN0) == 2)
        view = counts(bench)
        assert await view.get("a") == 2
        end = bench.script.hold("offsets")
        bench.broker.write(IN0, "a", "c")
        await until(lambda: bench.worker.status.records_in == 4)
        assert await view.get("a") == 2
        assert [row async for row in view.all()] == [("a", 2)]
        end.set()
        await until(lambda: bench.committed(IN0) == 4)
        assert await view.get("c") == 1
        assert await view.get("a") == 3


async def test_what_is_aborted_was_never_there() -> None:
    bench = Bench()
    bench.broker.write(IN0, "a")
    async with working(bench, IN0, IN1):
        await until(lambda: bench.committed(IN0) == 1)
        view = counts(bench)
        bench.script.fail("offsets", ErrorCode.INVALID_PRODUCER_EPOCH)
        bench.broker.write(IN0, "a", "a")
        seen: set[int | None] = set()
        while bench.committed(IN0) < 3:
            with suppress(StateStoreNotAvailableError):
                seen.add(await view.get("a"))
        assert bench.worker.status.redone == 1
        assert seen <= {1, 3}
        assert await view.get("a") == 3


async def test_times_come_along_if_asked_for() -> None:
    bench = Bench()
    bench.broker.write(IN0, "a")
    async with working(bench, IN0, IN1):
        await until(lambda: bench.committed(IN0) == 1)
        row = await counts(bench, with_timestamps=True).get("a")
        assert isinstance(row, ValueAndTimestamp)
        assert row.value == 1


async def test_a_missing_key_is_said_to_be_missing_by_its_owner_alone() -> None:
    bench = Bench()
    async with working(bench, IN0, hosts=[OTHER]):
        await until(lambda: bench.worker.running)
        view = counts(bench)
        assert await view.get("a") is None
        with pytest.raises(InvalidStateStorePartitionError, match=r"task 0_1 runs on 10\.0\.0\.2:80: ask") as caught:
            await view.get("d")
        assert caught.value.owner == "10.0.0.2:80"


async def test_where_nobody_says_where_it_can_be_asked_that_is_said() -> None:
    bench = Bench()
    async with working(bench, IN0):
        await until(lambda: bench.worker.running)
        with pytest.raises(InvalidStateStorePartitionError, match="set application_server on each"):
            await counts(bench).get("d")


async def test_a_task_on_its_way_is_asked_for_again() -> None:
    bench = Bench()
    away = MemberTasks("other", endpoint="10.0.0.2:80")
    async with working(bench, IN0, hosts=[away]):
        await until(lambda: bench.worker.running)
        with pytest.raises(StreamsRebalancingError, match="on its way from one worker to another"):
            await counts(bench).get("d")


async def test_nothing_is_answered_while_a_store_is_restored_unless_stale_answers_will_do() -> None:
    bench = Bench()
    bench.broker.write(IN0, "a")
    gate = bench.script.hold("fetch_offsets")
    async with working(bench, IN0, IN1):
        await until(lambda: bench.tasks.opening == {T0, T1})
        with pytest.raises(StateStoreNotAvailableError, match="does not run here yet"):
            await counts(bench).get("a")
        with pytest.raises(StateStoreNotAvailableError):
            _ = [row async for row in counts(bench).all()]
        assert await counts(bench, stale=True).get("a") is None
        gate.set()
        await until(lambda: bench.committed(IN0) == 1)
        assert await counts(bench).get("a") == 1


async def test_a_copy_answers_by_choice_only_and_says_how_far_it_is() -> None:
    bench = Bench()
    bench.broker.write(IN1, "d")
    async with working(bench, IN0, IN1):
        await until(lambda: bench.committed(IN1) == 1)
        bench.group.rebalance(IN0, instructions=Instructions(members=TWO, standby=[T1], hosts=[OTHER]))
        await until(lambda: "0_1" in bench.worker.status.standbys and bench.tasks.ids == {T0})
        with pytest.raises(InvalidStateStorePartitionError, match=r"here is a copy, which may be .*\(stale\)"):
            await counts(bench).get("d")
        stale = counts(bench, stale=True)
        assert await stale.get("d") == 1
        assert [row async for row in stale.all()] == [("d", 1)]
        assert [row async for row in counts(bench).all()] == []
        assert bench.worker.local.lags() == {"counts": {0: LagInfo(0, 0), 1: LagInfo(2, 2)}}  # a row and a marker


async def test_a_scan_whose_task_moves_says_so() -> None:
    bench = Bench()
    bench.broker.write(IN1, *(f"{n:04}" for n in range(600)))
    async with working(bench, IN0, IN1):
        await until(lambda: bench.committed(IN1) == 600)
        rows = counts(bench, partition=1).all()
        assert (await anext(rows))[0] == "0000"
        bench.group.rebalance(IN0, instructions=Instructions(members=TWO, hosts=[OTHER]))
        await until(lambda: bench.tasks.ids == {T0})
        with pytest.raises(InvalidStateStorePartitionError, match="ask there"):
            _ = [row async for row in rows]


async def test_stores_that_are_closed_in_the_middle_of_a_page_say_so() -> None:
    bench = Bench()
    async with working(bench, IN0, IN1):
        await until(lambda: bench.worker.running)
        task = bench.tasks.running[T0]
        backend = task.backend
    with pytest.raises(StateStoreMigratedError, match="task 0_0 has just left this worker"):
        backend.peek("counts", b"a")
    with pytest.raises(StateStoreMigratedError):
        backend.page("counts", None, None, 1)
    with pytest.raises(StateStoreMigratedError):
        backend.estimate("counts")


async def test_who_has_not_heard_of_its_group_for_a_session_answers_nothing() -> None:
    """Others may have the task by then, and have gone on."""
    bench = Bench()
    bench.broker.write(IN0, "a")
    async with working(bench, IN0, IN1):
        await until(lambda: bench.committed(IN0) == 1)
        view = counts(bench)
        answered = bench.script.hold("heartbeat")
        bench.clock.ms += 9_000
        assert await view.get("a") == 1
        bench.clock.ms += 2_000
        with pytest.raises(StreamsRebalancingError, match="has lost touch with its group"):
            await view.get("a")
        assert await counts(bench, stale=True).get("a") == 1
        answered.set()


async def test_who_has_lost_its_membership_answers_nothing() -> None:
    bench = Bench()
    async with working(bench, IN0, IN1):
        await until(lambda: bench.worker.running)
        bench.membership.lose("the test says so")
        with pytest.raises(StreamsRebalancingError):
            await counts(bench).get("a")


async def test_rows_come_in_order_however_many_pages_they_take() -> None:
    bench = Bench()
    names = [f"{n:04}" for n in range(700)]
    bench.broker.write(IN0, *names)
    async with working(bench, IN0, IN1):
        await until(lambda: bench.committed(IN0) == 700)
        view = counts(bench)
        assert [key async for key, _ in view] == names
        assert [key async for key, _ in view.reverse_all()] == names[::-1]
        assert [key async for key, _ in view.range("0100", "0400")] == names[100:401]
        assert [key async for key, _ in view.reverse_range("0690")] == names[690:][::-1]
        assert [key async for key, _ in view.prefix_scan("06")] == names[600:]
        assert await view.approximate_num_entries() == 700


@pytest.mark.parametrize(
    ("question", "error", "says"),
    [
        ({"store": "count"}, UnknownStateStoreError, "no store 'count'; it has counts"),
        ({"store": "counts", "partition": 2}, InvalidStateStoreError, "partitions 0 to 1, not 2"),
    ],
)
def test_what_cannot_be_asked_is_said_at_once(question: dict[str, Any], error: type[Exception], says: str) -> None:
    bench = Bench()
    with pytest.raises(error, match=says):
        open_view(lambda: bench.worker.local, Question(**question), None, with_timestamps=False)


def test_a_store_of_another_kind_is_named() -> None:
    bench = Bench()
    with pytest.raises(InvalidStateStoreError, match="read as ReadOnlyKeyValueStore, not as ReadOnlyWindowStore"):
        open_view(
            lambda: bench.worker.local,
            Question(store="counts"),
            ReadOnlyWindowStore[str, int],
            with_timestamps=False,
        )


async def test_what_is_no_key_is_named() -> None:
    bench = Bench()
    async with working(bench, IN0, IN1):
        await until(lambda: bench.worker.running)
        with pytest.raises(SerializationError, match=r"7 is no key of it: .*; its keys are string"):
            await counts(bench).get(7)  # type: ignore[arg-type]


async def test_an_answer_that_took_too_long_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process was stopped when it had read the row, and others have had the task since."""
    bench = Bench()
    bench.broker.write(IN0, "a")
    async with working(bench, IN0, IN1):
        await until(lambda: bench.committed(IN0) == 1)
        backend = bench.tasks.running[T0].backend
        peek = backend.peek

        def stopped(store: str, key: bytes) -> bytes | None:
            row = peek(store, key)
            bench.clock.ms += 20_000
            return row

        monkeypatch.setattr(backend, "peek", stopped)
        with pytest.raises(StreamsRebalancingError, match="has lost touch with its group"):
            await counts(bench).get("a")
