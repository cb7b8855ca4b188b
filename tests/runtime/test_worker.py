"""A whole worker over fakes: what it does when something goes wrong at the worst moment, and in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import pytest

from streamlib import StreamsBuilder
from streamlib.engine.plan import make_plan
from streamlib.errors import ErrorCode, KafkaError, ProcessingError, TaskMigratedError, TopologyError
from streamlib.records import TopicPartition
from streamlib.runtime import worker as worker_module
from tests.runtime.fakes import IN0, IN1, T0, T1, Bench, Transaction, others_run, until

UNKNOWN_OUTCOMES = ["flush even", "offsets", "commit even", "ended even"]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for pause in ("FIRST_BACKOFF_MS", "LONGEST_BACKOFF_MS", "LOCK_RETRY_MS"):
        monkeypatch.setattr(worker_module, pause, 0)


@asynccontextmanager
async def working(bench: Bench, *partitions: TopicPartition) -> AsyncIterator[anyio.CancelScope]:
    """A worker to which these partitions are assigned; stopped at the end."""
    bench.group.assigned = partitions
    with anyio.fail_after(10):
        async with anyio.create_task_group() as children:
            children.start_soon(_run, bench)
            yield children.cancel_scope
            bench.worker.stop()


async def _run(bench: Bench) -> None:
    await bench.worker.run(leave=True)


async def fails(bench: Bench, *partitions: TopicPartition) -> BaseException:
    """What the worker ends with."""
    bench.group.assigned = partitions
    with anyio.fail_after(10), pytest.raises(Exception) as caught:  # noqa: PT011
        await bench.worker.run(leave=True)
    return caught.value


def in_order(journal: Sequence[str], *steps: str) -> bool:
    """Whether these steps were done in this order, with any others in between."""
    rest = iter(journal)
    return all(step in rest for step in steps)


def assert_each_once(bench: Bench, *keys: str) -> None:
    """The output counts every key up without gap or repeat, and the disk has the last counts."""
    expected = [(key, n + 1) for key, count in Counter(keys).items() for n in range(count)]
    assert sorted(bench.counts()) == sorted(expected)
    on_disk = bench.directory.rows(T0) | bench.directory.rows(T1)
    assert {key.decode(): int.from_bytes(value[-8:], "big") for key, value in on_disk.items()} == Counter(keys)


def assert_let_go(bench: Bench) -> None:
    """Nothing is left open."""
    assert bench.directory.open_stores == set()
    assert bench.tasks.ids == frozenset()
    assert bench.fetcher.positions == {}


async def test_what_is_written_is_counted_once_and_the_end_is_orderly() -> None:
    bench = Bench()
    bench.broker.write(IN0, "a", "b", "a")
    async with working(bench, IN0, IN1):
        await until(lambda: bench.committed(IN0) == 3)
    assert_each_once(bench, "a", "b", "a")
    assert_let_go(bench)
    assert bench.journal[-1] == "leave"


@pytest.mark.parametrize("step", UNKNOWN_OUTCOMES)
@pytest.mark.parametrize("code", [ErrorCode.NETWORK_EXCEPTION, ErrorCode.INVALID_TXN_STATE, ErrorCode.PRODUCER_FENCED])
async def test_a_failed_commit_is_redone_from_the_committed_offsets(step: str, code: ErrorCode) -> None:
    bench = Bench()
    bench.broker.write(IN0, "a", "b", "a")
    bench.script.fail(step, code)
    async with working(bench, IN0):
        await until(lambda: bench.committed(IN0) == 3 and bench.tasks.running)
        bench.broker.write(IN0, "a")
        await until(lambda: bench.committed(IN0) == 4)
    assert_each_once(bench, "a", "b", "a", "a")
    committed = 3 if step == "ended even" else 0
    redone = bench.journal[bench.journal.index(step) :]
    assert in_order(
        redone, "init even", "init odd", "fetch_offsets", "list_offsets latest", f"read in-0 from {committed}"
    )
    assert "write 0_0" not in redone[: redone.index("init odd")]


async def test_a_recovery_that_fails_is_tried_again() -> None:
    bench = Bench()
    async with working(bench, IN0):
        await until(lambda: bench.tasks.running)
        bench.script.fail("flush even", ErrorCode.NETWORK_EXCEPTION)
        bench.script.fail("init even", ErrorCode.COORDINATOR_NOT_AVAILABLE, ErrorCode.NETWORK_EXCEPTION)
        bench.script.fail("fetch_offsets", ErrorCode.NOT_COORDINATOR)
        bench.broker.write(IN0, "a")
        await until(lambda: bench.committed(IN0) == 1)
    assert_each_once(bench, "a")


async def test_a_worker_that_cannot_begin_tries_again() -> None:
    bench = Bench()
    bench.script.fail("init even", ErrorCode.UNKNOWN_SERVER_ERROR, ErrorCode.PRODUCER_FENCED)
    bench.broker.write(IN0, "a")
    async with working(bench, IN0):
        await until(lambda: bench.committed(IN0) == 1)
    assert in_order(bench.journal, "init even", "init even", "init even", "init odd", "join")
    assert_each_once(bench, "a")


async def test_a_worker_that_cannot_begin_in_time_stops() -> None:
    bench = Bench()
    bench.script.fail("init even", ErrorCode.UNKNOWN_SERVER_ERROR, ErrorCode.COORDINATOR_NOT_AVAILABLE)
    init = bench.script.hold("init even")

    async def wait_too_long() -> None:
        await until(lambda: bench.script.done("init even") == 1)
        bench.clock.ms += 120_000
        init.set()

    async with anyio.create_task_group() as children:
        children.start_soon(wait_too_long)
        error = await fails(bench, IN0)
    assert isinstance(error, KafkaError)
    assert error.code == ErrorCode.UNKNOWN_SERVER_ERROR
    assert "join" not in bench.journal


async def test_a_membership_lost_before_the_offsets_commits_nothing() -> None:
    bench = Bench()
    async with working(bench, IN0):
        await until(lambda: bench.tasks.running)
        flush = bench.script.hold("flush even")
        bench.broker.write(IN0, "a")
        await until(lambda: bench.script.done("flush even"))
        bench.script.fail("heartbeat", ErrorCode.UNKNOWN_MEMBER_ID)
        await until(lambda: bench.membership.metadata.generation == -1)
        bench.journal.clear()
        flush.set()
        await until(lambda: bench.committed(IN0) == 1)
    first_join = bench.journal[: bench.journal.index("join")]
    assert in_order(first_join, "abort even", "close 0_0", "init even", "init odd")
    assert not any(step.startswith(("offsets", "commit", "write")) for step in first_join)
    assert bench.group.claims[-1] == ()
    assert_each_once(bench, "a")


async def test_a_worker_whose_generation_went_by_drops_all_and_begins_anew() -> None:
    bench = Bench()
    async with working(bench, IN0):
        await until(lambda: bench.tasks.running)
        bench.group.generation = 5
        bench.broker.write(IN0, "a")
        await until(lambda: bench.committed(IN0) == 1)
    assert in_order(bench.journal, "offsets even in 1", "abort even", "close 0_0", "join", "offsets even in 6")
    assert_each_once(bench, "a")


async def test_dropping_all_is_finished_even_if_it_fails_half_way() -> None:
    bench = Bench()
    async with working(bench, IN0):
        await until(lambda: bench.tasks.running)
        bench.journal.clear()
        bench.script.fail("init even", ErrorCode.NETWORK_EXCEPTION, ErrorCode.COORDINATOR_NOT_AVAILABLE)
        bench.script.fail("heartbeat", ErrorCode.ILLEGAL_GENERATION)
        await until(lambda: bench.tasks.running and "join" in bench.journal)
        bench.broker.write(IN0, "a")
        await until(lambda: bench.committed(IN0) == 1)
    assert in_order(bench.journal, "close 0_0", "init even", "init even", "init odd", "join", "open 0_0")
    assert_each_once(bench, "a")


async def test_a_revoked_task_is_committed_then_closed_then_given_back_and_others_run_on() -> None:
    bench = Bench()
    async with working(bench, IN0, IN1):
        await until(lambda: bench.tasks.running.keys() == {T0, T1})
        _move_without_records(bench, IN0)  # a position to commit that nothing has hurried to commit
        await until(lambda: bench.tasks.running[T0].dirty)
        bench.journal.clear()
        bench.group.rebalance(IN1)
        await until(lambda: bench.group.claims[-1] == (IN1,))
        await until(lambda: bench.membership.settled)
        assert bench.tasks.ids == {T1}
        bench.broker.write(IN1, "b")
        await until(lambda: bench.committed(IN1) == 1)
    assert in_order(bench.journal, "join", "offsets even in 2", "commit even", "close 0_0", "join")
    assert not any(step.startswith("read in-1") for step in bench.journal)
    assert bench.committed(IN0) == 2
    assert_each_once(bench, "b")


async def test_a_revoked_task_whose_commit_fails_is_given_back_all_the_same() -> None:
    bench = Bench()
    async with working(bench, IN0, IN1):
        await until(lambda: bench.tasks.running.keys() == {T0, T1})
        _move_without_records(bench, IN0)
        await until(lambda: bench.tasks.running[T0].dirty)
        bench.script.fail("flush even", ErrorCode.NETWORK_EXCEPTION)
        bench.group.rebalance(IN1)
        await until(lambda: bench.group.claims[-1] == (IN1,) and bench.tasks.running.keys() == {T1})
        bench.broker.write(IN1, "b")
        await until(lambda: bench.committed(IN1) == 1)
    assert bench.committed(IN0) == -1
    assert_each_once(bench, "b")


async def test_a_task_revoked_while_it_is_opened_is_given_back_unstarted() -> None:
    bench = Bench()
    offsets = bench.script.hold("fetch_offsets")
    async with working(bench, IN0, IN1):
        await until(lambda: bench.script.done("fetch_offsets"))
        bench.group.rebalance(IN1)
        await until(lambda: bench.group.claims[-1] == (IN1,))
        assert bench.script.done("close 0_0") == 1
        offsets.set()
        await until(lambda: bench.tasks.running.keys() == {T1})
    assert not any(step.startswith("read in-0") for step in bench.journal)


@pytest.mark.parametrize("step", ["fetch_offsets", "list_offsets earliest", "list_offsets latest"])
async def test_an_assignment_taken_while_something_fails_is_followed_afterwards(step: str) -> None:
    bench = Bench()
    async with working(bench, IN0):
        await until(lambda: bench.tasks.running)
        bench.script.fail(step, ErrorCode.NETWORK_EXCEPTION, ErrorCode.NETWORK_EXCEPTION)
        bench.group.rebalance(IN0, IN1)
        await until(lambda: bench.tasks.running.keys() == {T0, T1})
        bench.broker.write(IN1, "b")
        await until(lambda: bench.committed(IN1) == 1)
    assert_each_once(bench, "b")


async def test_an_assignment_that_comes_during_a_recovery_is_followed_afterwards() -> None:
    bench = Bench()
    async with working(bench, IN0):
        await until(lambda: bench.tasks.running)
        init = bench.script.hold("init odd")
        before = bench.script.done("init odd")
        bench.script.fail("flush even", ErrorCode.NETWORK_EXCEPTION)
        bench.broker.write(IN0, "a")
        await until(lambda: bench.script.done("init odd") > before)
        bench.group.rebalance(IN1)
        await until(lambda: bench.group.generation == 2 and bench.membership.settled)
        init.set()
        await until(lambda: bench.tasks.running.keys() == {T1} and bench.membership.settled)
    assert bench.group.claims[-1] == (IN1,)
    assert bench.committed(IN0) == -1


async def test_a_position_that_left_the_log_leads_back_to_the_committed_offsets() -> None:
    bench = Bench()
    async with working(bench, IN0):
        await until(lambda: bench.tasks.running)
        bench.broker.write(IN0, "a", "b")
        await until(lambda: bench.committed(IN0) == 2)
        bench.journal.clear()
        bench.fetcher.break_off(KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE, "Fetch", "in-0"))
        await until(lambda: "read in-0 from 2" in bench.journal)
    assert_each_once(bench, "a", "b")


@pytest.mark.parametrize(("buffer_bytes", "held_back"), [(16 << 20, False), (4, True)])
async def test_inputs_share_what_may_wait_to_be_processed(
    buffer_bytes: int, held_back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "SLICE_RECORDS", 1)
    monkeypatch.setattr(worker_module, "SLICE_MS", 0)
    paused: list[bool] = []

    def look(value: str) -> str:
        paused.append(IN0 in bench.fetcher.paused)
        return value

    bench = Bench(look, input_buffer_max_bytes=buffer_bytes)
    bench.broker.write(IN0, "a", "b", "c", "d")
    async with working(bench, IN0, IN1):
        await until(lambda: bench.committed(IN0) == 4)
    assert any(paused) == held_back
    assert_each_once(bench, "a", "b", "c", "d")


async def test_a_user_error_aborts_and_commits_nothing() -> None:
    bench = Bench(raise_on_poison)
    bench.broker.write(IN1, "b")
    bench.broker.logs[IN1][0] = bench.broker.logs[IN1][0]._replace(record=(b"p", b"poison", 0, ()))
    bench.broker.write(IN0, "a")
    error = await fails(bench, IN0, IN1)
    assert isinstance(error, ProcessingError)
    assert bench.counts() == []
    assert bench.committed(IN0) == bench.committed(IN1) == -1
    assert not bench.broker.open
    assert bench.directory.rows(T0) == {}
    assert_let_go(bench)


async def test_a_mistake_of_ours_beside_the_loop_ends_the_worker_cleanly() -> None:
    bench = Bench()
    bench.script.fail("fetch_offsets", AssertionError("a bug"))
    error = await fails(bench, IN0)
    assert isinstance(error, ExceptionGroup)
    assert error.subgroup(AssertionError) is not None
    assert not bench.broker.open
    assert_let_go(bench)


async def test_a_mistake_of_ours_during_a_commit_ends_the_worker_cleanly() -> None:
    bench = Bench()
    bench.broker.write(IN0, "a")
    bench.script.fail("offsets", AssertionError("a bug"))
    error = await fails(bench, IN0)
    assert isinstance(error, ExceptionGroup)
    assert not bench.broker.open
    assert bench.counts() == []
    assert bench.directory.rows(T0) == {}
    assert_let_go(bench)


async def test_a_mistake_of_ours_in_the_abort_does_not_keep_the_stores_open() -> None:
    bench = Bench(raise_on_poison)
    bench.broker.write(IN0, "a")
    bench.script.fail("commit even", ErrorCode.FENCED_INSTANCE_ID)
    bench.script.fail("abort even", AssertionError("a bug"))
    assert isinstance(await fails(bench, IN0), AssertionError)
    assert_let_go(bench)


async def test_a_fenced_static_member_stops_and_commits_nothing() -> None:
    bench = Bench()
    bench.broker.write(IN0, "a")
    bench.script.fail("offsets", ErrorCode.FENCED_INSTANCE_ID)
    error = await fails(bench, IN0)
    assert isinstance(error, KafkaError)
    assert error.code == ErrorCode.FENCED_INSTANCE_ID
    assert bench.committed(IN0) == -1
    assert "leave" not in bench.journal
    assert_let_go(bench)


@pytest.mark.parametrize("step", ["flush even", "offsets", "commit even"])
async def test_cancelled_in_the_middle_of_a_commit_nothing_uncommitted_reaches_the_disk(step: str) -> None:
    bench = Bench()
    async with working(bench, IN0) as scope:
        await until(lambda: bench.tasks.running)
        bench.script.hold(step)
        bench.broker.write(IN0, "a")
        await until(lambda: bench.script.done(step))
        scope.cancel()
    assert "write 0_0" not in bench.journal
    assert bench.counts() == []
    assert not bench.broker.open
    assert_let_go(bench)


async def test_a_worker_that_cannot_tell_of_its_abort_does_not_wait_for_it_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "LAST_ABORT_MS", 1)
    bench = Bench()
    async with working(bench, IN0) as scope:
        await until(lambda: bench.tasks.running)
        bench.script.hold("flush even")
        bench.script.hold("abort even")
        bench.broker.write(IN0, "a")
        await until(lambda: bench.script.done("flush even"))
        scope.cancel()
    assert bench.script.done("abort even") == 1
    assert_let_go(bench)


@pytest.mark.parametrize("guarantee", ["exactly_once_v2", "at_least_once"])
async def test_the_producers_are_closed_with_the_worker(guarantee: str) -> None:
    """A batch of theirs that is still tried again would arrive when the tasks are someone else's."""
    bench = Bench(guarantee=guarantee)  # type: ignore[arg-type]
    async with working(bench, IN0):
        await until(lambda: bench.tasks.running)
    expected = ["close plain"] if guarantee == "at_least_once" else ["close even", "close odd"]
    closed = {"close plain", "close even", "close odd"}
    assert sorted(step for step in bench.journal if step in closed) == expected


@pytest.mark.parametrize("step", ["join", "join answered", "sync", "fetch_offsets", "list_offsets latest"])
async def test_a_worker_can_be_stopped_while_it_joins_or_opens(step: str) -> None:
    bench = Bench()
    bench.script.hold(step)
    async with working(bench, IN0):
        await until(lambda: bench.script.done(step))
        await others_run()
    assert_let_go(bench)


async def test_work_at_hand_is_committed_by_a_stop_during_a_rebalance() -> None:
    bench = Bench()
    async with working(bench, IN0):
        await until(lambda: bench.tasks.running)
        _move_without_records(bench, IN0)
        await until(lambda: bench.tasks.running[T0].dirty)
        bench.script.hold("join")
        bench.group.rebalance(IN0)
        await until(lambda: bench.script.done("join") == 2)
    assert bench.committed(IN0) == 2
    assert bench.journal[-1] == "leave"


async def test_a_group_that_cannot_be_left_is_not_an_error_of_the_work() -> None:
    bench = Bench()
    bench.script.fail("leave", ErrorCode.COORDINATOR_NOT_AVAILABLE)
    async with working(bench, IN0):
        await until(lambda: bench.tasks.running)
    assert_let_go(bench)


async def test_locked_stores_are_waited_for_while_others_run() -> None:
    bench = Bench()
    bench.directory.locked.add(T0)
    async with working(bench, IN0, IN1):
        await until(lambda: bench.tasks.running.keys() == {T1} and bench.tasks.waits_for_lock)
        bench.directory.locked.clear()
        await until(lambda: bench.tasks.running.keys() == {T0, T1})


async def test_a_record_cache_lets_the_last_update_go_on_with_the_commit() -> None:
    bench = Bench(cache_max_bytes=1 << 20)
    bench.broker.write(IN0, "a", "b", "a")
    bench.script.fail("flush even", ErrorCode.NETWORK_EXCEPTION)
    async with working(bench, IN0):
        await until(lambda: bench.committed(IN0) == 3)
    assert bench.counts() == [("b", 1), ("a", 2)]
    assert bench.cache_budget.used_bytes == 0


async def test_at_least_once_repeats_what_is_in_doubt_and_loses_nothing() -> None:
    bench = Bench(guarantee="at_least_once")
    bench.script.fail("flush plain", ErrorCode.NETWORK_EXCEPTION)
    bench.script.fail("commit_offsets", ErrorCode.NETWORK_EXCEPTION)
    bench.broker.write(IN0, "a", "b")
    async with working(bench, IN0):
        await until(lambda: bench.committed(IN0) == 2)
    assert {key for key, _ in bench.counts()} == {"a", "b"}


async def test_a_task_of_which_only_some_inputs_are_assigned_is_refused() -> None:
    """The leader runs another topology: the other inputs may be someone else's, who would run the same task."""
    builder = StreamsBuilder()
    builder.stream("in", key=str, value=str).merge(builder.stream("more", key=str, value=str)).to("out")
    bench = Bench(plan=make_plan(builder.build(), "app", {"in": 2, "more": 2, "out": 2}))
    error = await fails(bench, IN0)
    assert isinstance(error, TopologyError)
    assert not any(step.startswith("open") for step in bench.journal)


def _move_without_records(bench: Bench, partition: TopicPartition) -> None:
    """Aborted data and its marker: the position moves by two, and there is nothing to process."""
    aborted = bench.broker.open["foreign"] = Transaction()
    aborted.written.add(partition)
    bench.broker.append(partition, [(b"x", b"x", 0, ())], aborted)
    bench.broker.end("foreign", "aborted")


def raise_on_poison(value: str) -> str:
    if value == "poison":
        raise ValueError(value)
    return value


async def test_a_function_slower_than_the_session_ends_the_worker_instead_of_looping() -> None:
    def hold(value: str) -> str:
        bench.clock.ms += 11_000  # the session is 10 s
        return value

    bench = Bench(hold)
    bench.broker.write(IN0, "a")
    for _ in range(3):
        bench.script.fail("offsets", ErrorCode.UNKNOWN_MEMBER_ID)
    error = await fails(bench, IN0)
    assert isinstance(error, TaskMigratedError)
    assert "up to 11000 ms" in str(error)
    assert "session_timeout_ms (10000)" in str(error)
    assert bench.committed(IN0) == -1
    assert_let_go(bench)


@pytest.mark.parametrize("step", ["init odd", "flush even", "offsets even in 1", "commit even"])
async def test_a_worker_told_to_stop_does_not_wait_for_ever(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The brokers are down, say: it ends in time to be gone before its supervisor kills it."""
    monkeypatch.setattr(worker_module, "LAST_COMMIT_MS", 50)
    bench = Bench()
    bench.script.hold(step)
    bench.broker.write(IN0, "a")
    async with working(bench, IN0):
        await until(lambda: bench.script.done(step))
    assert bench.counts() == []
    assert_let_go(bench)
