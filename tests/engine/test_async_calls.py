"""Functions that are awaited, seen from a task: orders, bounds, what a commit says, and what a crash leaves."""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlib import StreamsBuilder
from streamlib.engine import task as task_module
from streamlib.engine.at_work import at_work
from streamlib.engine.calls import DEEPEST, MOST_PENDING, Answer, Call, record_metadata
from streamlib.engine.cursor import NO_TIME
from streamlib.engine.inputs import (
    MAX_METADATA_BYTES,
    Metadata,
    decode_metadata,
    encode_metadata,
    room_for_progress,
)
from streamlib.engine.plan import make_plan
from streamlib.engine.progress import Progress, decode_progress, encode_progress
from streamlib.engine.task import LEAST_PENDING, MOST_AHEAD, Task
from streamlib.errors import ProcessingError, TopologyError
from streamlib.policies import DeadLetter, ErrorPolicies, Skip
from streamlib.records import OffsetAndMetadata, OutRecord, TaskId, TopicPartition
from streamlib.state.memory import InMemoryBackend
from streamlib.topology.operators import Ordered
from streamlib.topology.topology import Topology
from tests.engine.support import INPUT, OUTPUT, Batch, Clock, Fetched, batch, markers

Make = Callable[[Any], Any]


async def echo(value: str) -> str:
    return value


async def refuse(value: str) -> str:
    raise ValueError(f"no {value}")


async def nothing(key: str, value: str) -> None: ...


def topology(make: Make) -> Topology:
    """What `make` does with a stream of text; to topic out if it returns a stream."""
    builder = StreamsBuilder()
    made = make(builder.stream("in", key=str, value=str))
    if made is not None:
        made.to("out")
    return builder.build()


def task_of(make: Make, **options: Any) -> Task:
    task = unstarted(make, **options)
    task.start({}, {INPUT: 0})
    return task


def unstarted(make: Make, backend: InMemoryBackend | None = None, **options: Any) -> Task:
    plan = make_plan(topology(make), "app", {"in": 1, "out": 1, "dead": 1})
    backend = InMemoryBackend() if backend is None else backend
    return Task(plan, TaskId(0, 0), backend, **{"now_ms": Clock(), "max_task_idle_ms": -1, **options})


def fed(make: Make, *records: tuple[str | None, str], **options: Any) -> Task:
    """A task that has taken these records as far as it takes them."""
    task = task_of(make, **options)
    task.enqueue(batch(INPUT, 0, *((key, value, n) for n, (key, value) in enumerate(records))))
    task.process(10_000)
    return task


def answered(call: Call) -> Answer:
    return asyncio.run(call.answer())


def finish(task: Task, *calls: Call) -> None:
    for call in calls:
        task.finish(call, answered(call))


def values(task: Task) -> list[str]:
    return [(value or b"").decode() for _, value, _, _ in task.take_outputs().get(OUTPUT, ())]


def started(task: Task) -> dict[str, Call]:
    """The calls that may start, by the value they are for."""
    return {call.value: call for call in task.take_calls()}


def commit(task: Task) -> OffsetAndMetadata:
    task.flush()
    task.take_outputs()
    sealed = task.seal()
    task.commit(dict.fromkeys(sealed.changelog, 1_000_000))
    return sealed.offsets[INPUT]


# -- What is called, and what comes after ------------------------------------------------------------------------------


async def _true(key: str, value: str) -> bool:
    return value == "yes"


async def _pair(key: str, value: str) -> tuple[str, str]:
    return value, key


async def _pairs(key: str, value: str) -> list[tuple[str, str]]:
    return [(key, value), (value, key)]


async def _one_by_one(key: str, value: str) -> Any:
    yield key, value
    yield value, key


async def _letters(value: str) -> list[str]:
    return list(value)


async def _with_key(key: str, value: str) -> str:
    return key + value


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda s: s.filter(_true), [("k", "yes")]),
        (lambda s: s.filter_not(_true), [("k", "no")]),
        (lambda s: s.map(_pair), [("yes", "k"), ("no", "k")]),
        (lambda s: s.map_values(echo), [("k", "yes"), ("k", "no")]),
        (lambda s: s.map_values(_with_key, with_key=True), [("k", "kyes"), ("k", "kno")]),
        (lambda s: s.flat_map(_pairs), [("k", "yes"), ("yes", "k"), ("k", "no"), ("no", "k")]),
        (lambda s: s.flat_map(_one_by_one), [("k", "yes"), ("yes", "k"), ("k", "no"), ("no", "k")]),
        (lambda s: s.flat_map_values(_letters), [("k", "y"), ("k", "e"), ("k", "s"), ("k", "n"), ("k", "o")]),
        (lambda s: s.peek(nothing), [("k", "yes"), ("k", "no")]),
        (lambda s: s.foreach(nothing), []),
    ],
)
def test_an_operator_does_with_the_answer_what_it_does_with_a_result(make: Make, expected: list[Any]) -> None:
    task = fed(make, ("k", "yes"), ("k", "no"))
    while calls := task.take_calls():
        finish(task, *calls)
    assert [(key, value) for key, value, _, _ in task.take_outputs().get(OUTPUT, ())] == [
        (key.encode(), value.encode()) for key, value in expected
    ]


def test_names_are_those_of_plain_operators() -> None:
    plain = topology(lambda s: s.map_values(str.upper).filter(lambda key, value: True))
    awaited = topology(lambda s: s.map_values(echo).filter(_true))
    assert plain.describe() == awaited.describe()


def test_a_function_knows_which_record_it_is_called_for() -> None:
    async def place(value: str) -> str:
        record = record_metadata()
        assert record is not None
        return record.id

    task = fed(lambda s: s.map_values(place), ("k", "a"), ("l", "b"))
    finish(task, *task.take_calls())
    assert values(task) == ["in-0-0", "in-0-1"]
    assert record_metadata() is None


def test_a_function_that_blocks_is_named_with_its_record() -> None:
    seen = []

    async def blocks(value: str) -> str:
        seen.append(at_work(sys._getframe(), {"ask"}))
        return value

    task = fed(lambda s: s.map_values(blocks, name="ask"), ("k", "a"))
    finish(task, *task.take_calls())
    (found,) = seen
    assert (found.partition, found.offset, found.node) == (INPUT, 0, "ask")
    assert "blocks (" in found.function


def test_time_and_headers_are_the_records_own() -> None:
    task = task_of(lambda s: s.map_values(echo))
    rows = [Fetched(n, 10 * n, b"k", b"v", (("n", b"%d" % n),)) for n in range(2)]
    task.enqueue(Batch(INPUT, 2, rows))
    task.process(10)
    while calls := task.take_calls():
        finish(task, *calls)
    assert task.take_outputs()[OUTPUT] == [(b"k", b"v", 0, (("n", b"0"),)), (b"k", b"v", 10, (("n", b"1"),))]


# -- Orders ------------------------------------------------------------------------------------------------------------


def test_calls_of_one_key_come_one_after_the_other() -> None:
    task = fed(lambda s: s.map_values(echo), ("a", "a1"), ("a", "a2"), ("b", "b1"), ("b", "b2"))
    first = started(task)
    assert first.keys() == {"a1", "b1"}
    finish(task, first["b1"])
    second = started(task)
    assert second.keys() == {"b2"}
    finish(task, second["b2"], first["a1"])
    finish(task, *task.take_calls())
    assert values(task) == ["b1", "b2", "a1", "a2"]


def test_the_next_call_of_a_key_starts_when_the_one_before_has_gone_on() -> None:
    task = fed(lambda s: s.map_values(echo, name="one").map_values(echo, name="two"), ("a", "a1"), ("a", "a2"))
    (one,) = task.take_calls()
    finish(task, one)
    assert {(call.line.name, call.value) for call in task.take_calls()} == {("one", "a2"), ("two", "a1")}


def test_records_without_a_key_have_no_order() -> None:
    task = fed(lambda s: s.map_values(echo), (None, "1"), (None, "2"))
    calls = started(task)
    finish(task, calls["2"], calls["1"])
    assert values(task) == ["2", "1"]


def test_keys_that_cannot_be_hashed_have_an_order() -> None:
    def listed(key: str, value: str) -> Any:
        return [key], value

    task = fed(lambda s: s.map(listed).map_values(echo).map(_back), ("a", "a1"), ("a", "a2"), ("b", "b1"))
    assert started(task).keys() == {"a1", "b1"}


def _back(key: list[str], value: str) -> tuple[str, str]:
    return key[0], value


def test_results_go_on_in_the_order_of_records() -> None:
    task = fed(lambda s: s.map_values(echo, ordered="partition"), ("a", "1"), ("a", "2"), ("b", "3"))
    calls = started(task)
    assert len(calls) == 3
    finish(task, calls["3"], calls["2"])
    assert values(task) == []
    finish(task, calls["1"])
    assert values(task) == ["1", "2", "3"]


def test_without_an_order_results_go_on_as_they_come() -> None:
    task = fed(lambda s: s.map_values(echo, ordered="none"), ("a", "1"), ("a", "2"))
    calls = started(task)
    finish(task, calls["2"], calls["1"])
    assert values(task) == ["2", "1"]


# -- Bounds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", ["key", "partition", "none"])
def test_no_more_records_are_taken_than_can_be_called_for(ordered: Ordered) -> None:
    make = lambda s: s.map_values(echo, concurrency=3, ordered=ordered)  # noqa: E731
    task = fed(make, *((str(n), str(n)) for n in range(10)))
    calls = task.take_calls()
    assert len(calls) == 3
    assert not task.ready(0)
    assert task.positions() == {INPUT: 3}
    finish(task, calls[0])
    assert task.ready(0)
    assert task.process(100) == 1


def test_a_slow_key_does_not_hold_the_others() -> None:
    records = [("slow", "s")] * 50 + [(str(n), str(n)) for n in range(50)]
    task = fed(lambda s: s.map_values(echo, concurrency=2), *records)
    done: list[str] = []
    for _ in range(50):
        finish(task, *(call for call in task.take_calls() if call.value != "s"))
        done += values(task)
        task.process(100)
    assert done == [str(n) for n in range(50)]


def test_the_position_does_not_run_away_from_a_pending_record() -> None:
    task = fed(lambda s: s.map_values(echo), ("slow", "s"))
    task.enqueue(markers(INPUT, MOST_AHEAD + 1))
    task.enqueue(batch(INPUT, MOST_AHEAD + 1, ("other", "o", 1)))
    assert not task.ready(0)
    assert task.process(10) == 0
    finish(task, *task.take_calls())
    assert task.ready(0)


def test_where_commits_wait_only_few_calls_of_a_key_queue_up() -> None:
    counted = lambda s: s.group_by_key().count().to_stream().map_values(text_of, value=str)  # noqa: E731
    task = fed(counted, *[("a", "x")] * 100)
    assert DEEPEST < task.calls_pending <= 2 * DEEPEST
    while task.calls_pending:
        finish(task, *task.take_calls())
    assert DEEPEST < task.process(100) <= 2 * DEEPEST


async def text_of(number: int) -> str:
    return str(number)


# -- What a commit says ------------------------------------------------------------------------------------------------


def test_a_commit_takes_the_low_water_mark_and_tells_what_is_unfinished() -> None:
    task = fed(lambda s: s.map_values(echo), *((str(n), str(n)) for n in range(6)))
    calls = started(task)
    finish(task, *(calls[n] for n in ("0", "2", "3", "5")))
    offset = commit(task)
    assert offset.offset == 1
    assert decode_metadata(offset.metadata).progress == Progress(1, 6, (1, 4))
    assert not task.dirty
    finish(task, calls["4"])
    assert decode_metadata(commit(task).metadata).progress == Progress(1, 6, (1,))
    finish(task, calls["1"])
    assert commit(task) == OffsetAndMetadata(6, encode_metadata(Metadata(5)))


def test_what_is_finished_is_not_processed_again() -> None:
    make = lambda s: s.map_values(echo)  # noqa: E731
    records = [(str(n), str(n)) for n in range(6)]
    task = fed(make, *records)
    calls = started(task)
    finish(task, *(calls[n] for n in ("0", "2", "3", "5")))
    committed = commit(task)
    again = unstarted(make)
    again.start({INPUT: committed}, {})
    rows = [(key, value, n) for n, (key, value) in enumerate([*records, ("6", "6")])]
    again.enqueue(batch(INPUT, 1, *rows[1:3]))  # cut somewhere else
    again.enqueue(batch(INPUT, 3, *rows[3:]))
    assert again.process(100) == 3
    assert started(again).keys() == {"1", "4", "6"}


def test_what_an_earlier_run_has_finished_stays_finished_while_its_rest_is_worked_on() -> None:
    make = lambda s: s.map_values(echo, concurrency=1)  # noqa: E731
    before = OffsetAndMetadata(1, encode_metadata(Metadata(5, {}, Progress(1, 9, (1, 4)))))
    task = unstarted(make)
    task.start({INPUT: before}, {})
    task.enqueue(batch(INPUT, 1, *((str(n), str(n), n) for n in range(1, 12))))
    task.process(100)
    assert decode_metadata(commit(task).metadata).progress == Progress(1, 9, (1, 4))
    finish(task, *task.take_calls())
    assert decode_metadata(commit(task).metadata).progress == Progress(4, 9, (4,))
    task.process(100)
    finish(task, *task.take_calls())
    assert commit(task).offset == 9
    task.process(1)
    finish(task, *task.take_calls())
    assert values(task) == ["9"]


def test_an_earlier_run_that_had_finished_all_but_what_is_gone_leaves_nothing_to_do() -> None:
    """The unfinished records were deleted meanwhile: the log begins after them."""
    metadata = encode_metadata(Metadata(5, {}, Progress(1, 9, (1, 4))))
    task = unstarted(lambda s: s.map_values(echo))
    task.start({INPUT: OffsetAndMetadata(6, metadata)}, {})
    task.enqueue(batch(INPUT, 6, *((str(n), str(n), n) for n in range(6, 12))))
    assert task.process(100) == 3


def test_a_topic_that_was_made_anew_is_processed_from_its_start() -> None:
    metadata = encode_metadata(Metadata(5, {}, Progress(5, 9, (5, 7))))
    task = unstarted(lambda s: s.map_values(echo))
    task.start({INPUT: OffsetAndMetadata(0, metadata)}, {})
    task.enqueue(batch(INPUT, 0, *((str(n), str(n), n) for n in range(12))))
    assert task.process(100) == 12


def test_a_commit_without_progress_after_a_restart_says_nothing_new() -> None:
    before = OffsetAndMetadata(1, encode_metadata(Metadata(5, {}, Progress(1, 9, (1, 4)))))
    task = unstarted(lambda s: s.map_values(echo))
    task.start({INPUT: before}, {})
    assert not task.dirty
    assert task.offsets() == {}


def test_the_topology_may_change_to_one_that_awaits_nothing() -> None:
    before = OffsetAndMetadata(1, encode_metadata(Metadata(5, {}, Progress(1, 9, (1, 4)))))
    task = unstarted(lambda s: s.map_values(str.upper))
    task.start({INPUT: before}, {})
    task.enqueue(batch(INPUT, 1, *((str(n), str(n), n) for n in range(1, 12))))
    task.process(1)
    assert values(task) == ["1"]
    assert decode_metadata(commit(task).metadata).progress == Progress(4, 9, (4,))
    task.process(100)
    assert values(task) == ["4", "9", "10", "11"]


def test_purging_stops_at_the_low_water_mark() -> None:
    task = fed(lambda s: s.map_values(echo), ("a", "1"), ("b", "2"))
    calls = started(task)
    finish(task, calls["2"])
    assert task.low_water_marks() == {INPUT: 0}
    finish(task, calls["1"])
    assert task.low_water_marks() == {INPUT: 2}


@given(
    first=st.integers(0, 1 << 50),
    gaps=st.lists(st.integers(0, 1 << 20), max_size=50),
    beyond=st.integers(0, 1 << 20),
)
def test_progress_survives_its_bytes(first: int, gaps: list[int], beyond: int) -> None:
    offsets = [first + sum(gaps[: n + 1]) for n in range(len(gaps))]
    progress = Progress(first, (offsets or [first])[-1] + beyond, tuple(offsets))
    assert decode_progress(encode_progress(progress)) == progress
    metadata = Metadata(7, {"node": 3}, progress)
    assert decode_metadata(encode_metadata(metadata)) == metadata


@pytest.mark.parametrize("operators", [0, 1, 10, 40])
def test_as_many_unfinished_records_are_allowed_as_fit_into_metadata(operators: int) -> None:
    times = {f"windowed-{number:02}": 1 << 62 for number in range(operators)}
    room = min(room_for_progress(times), MOST_PENDING)
    assert room == MOST_PENDING or room > LEAST_PENDING
    offsets = tuple((1 << 60) + 2_000_000 * number for number in range(room))
    text = encode_metadata(Metadata(1 << 62, times, Progress(offsets[0], offsets[-1] + 1, offsets)))
    assert len(text) <= MAX_METADATA_BYTES


def test_where_hardly_any_fit_commits_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_module, "room_for_progress", lambda nodes: LEAST_PENDING - 1)
    assert task_of(lambda s: s.map_values(echo)).may_hold_commit


@given(st.binary(max_size=40))
def test_other_bytes_are_no_progress(raw: bytes) -> None:
    try:
        decode_progress(raw)
    except ValueError:
        return
    assert raw


def test_other_text_is_no_metadata() -> None:
    cut_off = encode_metadata(Metadata(7, {}, Progress(1, 300, (1,))))
    assert decode_metadata(cut_off[:16]).partition_time in (7, NO_TIME)


# -- Which commits wait ------------------------------------------------------------------------------------------------


def _split(stream: Any) -> Any:
    branches = stream.split(name="s-").branch(_yes, name="a").default_branch(name="b")
    return branches["s-a"].map_values(echo).merge(branches["s-b"])


def _yes(key: str, value: str) -> bool:
    return value == "yes"


def _beside(stream: Any) -> Any:
    stream.to("out")
    return stream.map_values(echo)


def _twice(stream: Any) -> Any:
    return stream.map_values(echo).merge(stream.map_values(echo))


def _two_ends(stream: Any) -> None:
    stream.foreach(nothing)
    stream.foreach(nothing, name="another")


def _watched(stream: Any) -> Any:
    stream.peek(lambda key, value: None).filter(_yes)
    return stream.map_values(echo)


def _sink_before_second(stream: Any) -> Any:
    once = stream.map_values(echo)
    once.to("out")
    return once.map_values(echo)


@pytest.mark.parametrize(
    ("make", "waits"),
    [
        (lambda s: s.map_values(echo), False),
        (lambda s: s.map_values(echo).filter(_true).map(_pair), False),
        (lambda s: s.filter(_yes).map_values(str.upper).map_values(echo), False),
        (lambda s: s.map_values(echo).flat_map_values(list), False),
        (lambda s: s.flat_map(_pairs), False),
        (lambda s: s.map_values(echo).group_by_key().count().to_stream(), False),
        (_split, False),
        (_two_ends, False),
        (_watched, False),
        (lambda s: s.group_by_key().count().to_stream().map_values(text_of, value=str), True),
        (lambda s: s.flat_map_values(list).map_values(echo), True),
        (lambda s: s.flat_map(_pairs).map_values(echo), True),
        (lambda s: s.map_values(echo).group_by_key().count().to_stream().map_values(text_of, value=str), True),
        (_beside, True),
        (_twice, True),
        (_sink_before_second, True),
    ],
)
def test_a_commit_waits_where_results_may_be_out_while_a_call_is_pending(make: Make, waits: bool) -> None:
    assert task_of(make).may_hold_commit is waits


@pytest.mark.parametrize(("policy", "waits"), [(Skip(), False), (DeadLetter("dead"), True)])
def test_a_dead_letter_is_a_result(policy: Any, waits: bool) -> None:
    task = task_of(_watched, policies=ErrorPolicies(on_processing_error=policy))
    assert task.may_hold_commit is waits


def test_a_commit_that_waits_can_be_made_when_all_calls_are_through() -> None:
    task = fed(_beside, ("a", "1"), ("b", "2"))
    first, second = task.take_calls()
    finish(task, first)
    assert task.holds_commit
    with pytest.raises(AssertionError):
        commit(task)
    finish(task, second)
    assert commit(task).offset == 2


def test_what_a_punctuator_forwards_holds_commits() -> None:
    class Ticker:
        def init(self, context: Any) -> None:
            from streamlib import PunctuationType, Record

            tick = lambda now: context.forward(Record("t", str(now), now))  # noqa: E731
            context.schedule(timedelta(seconds=1), PunctuationType.WALL_CLOCK_TIME, tick)

        def process(self, record: Any) -> None: ...

    task = task_of(lambda s: s.process(Ticker, key=str, value=str).map_values(echo))
    task.punctuate(1_000)
    assert task.holds_commit
    (call,) = task.take_calls()
    assert str(call) == "node KSTREAM-MAPVALUES-0000000002: the call for a punctuator"
    finish(task, call)
    assert values(task) == ["1000"]


def test_a_roll_back_forgets_calls() -> None:
    task = fed(_beside, ("a", "1"))
    task.rollback()
    task.start({}, {INPUT: 0})
    assert task.calls_pending == 0
    assert not task.holds_commit
    assert task.take_calls() == []


# -- Errors ------------------------------------------------------------------------------------------------------------


def test_a_failed_call_is_the_error_of_a_plain_operator() -> None:
    task = fed(lambda s: s.map_values(refuse, name="enrich"), ("a", "1"), ("b", "2"))
    calls = started(task)
    with pytest.raises(ProcessingError) as caught:
        finish(task, calls["2"])
    error = caught.value
    assert str(error) == ("node enrich: ValueError: no 2 (key 'b') [while processing topic in, partition 0, offset 1]")
    assert (error.node, error.topic, error.partition, error.offset) == ("enrich", "in", 0, 1)
    assert isinstance(error.__cause__, ValueError)


def test_an_error_below_names_its_own_node_and_record() -> None:
    def fail(value: str) -> str:
        raise KeyError(value)

    task = fed(lambda s: s.map_values(echo).map_values(fail, name="below"), ("a", "1"), ("b", "2"))
    calls = started(task)
    with pytest.raises(ProcessingError, match=r"node below: KeyError: '2' .*offset 1"):
        finish(task, calls["2"])


@pytest.mark.parametrize("ordered", ["key", "partition", "none"])
def test_a_skipped_record_lets_the_next_go_on(ordered: Ordered) -> None:
    async def picky(value: str) -> str:
        return await (refuse if value == "bad" else echo)(value)

    make = lambda s: s.map_values(picky, ordered=ordered)  # noqa: E731
    task = fed(make, ("a", "1"), ("a", "bad"), ("a", "3"), policies=ErrorPolicies(on_processing_error=Skip()))
    while calls := task.take_calls():
        finish(task, *calls)
    assert values(task) == ["1", "3"]
    assert task.dropped == 1
    assert commit(task).offset == 3


def test_a_dead_letter_is_the_record_as_it_was_read() -> None:
    policies = ErrorPolicies(on_processing_error=DeadLetter("dead"))
    task = fed(lambda s: s.map_values(str.upper).map_values(refuse), ("a", "x"), ("b", "y"), policies=policies)
    calls = started(task)
    finish(task, calls["Y"])
    ((key, value, _, headers),) = task.take_outputs()[TopicPartition("dead", 0)]
    assert (key, value) == (b"b", b"y")
    assert dict(headers)["__streams.errors.offset"] == b"1"
    assert dict(headers)["__streams.errors.message"] == b"no Y"


def test_a_time_out_is_an_error_like_others() -> None:
    task = fed(lambda s: s.map_values(echo, timeout=timedelta(seconds=2), name="enrich"), ("a", "1"))
    (call,) = task.take_calls()
    assert call.timeout_ms == 2_000
    with pytest.raises(ProcessingError, match="node enrich: TimeoutError: no answer"):
        task.finish(call, Answer(error=TimeoutError("no answer")))


# -- What the DSL takes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda s: s.map_values(str.upper, concurrency=3),
            "map_values: concurrency, ordered, timeout and service",
        ),
        (lambda s: s.filter(_yes, ordered="none"), "filter: concurrency, ordered, timeout and service"),
        (
            lambda s: s.foreach(print, timeout=timedelta(seconds=1)),
            "foreach: concurrency, ordered, timeout and service",
        ),
        (lambda s: s.map_values(echo, concurrency=0), "concurrency is from 1 to 1000, not 0"),
        (lambda s: s.map_values(echo, concurrency=1001), "concurrency is from 1 to 1000, not 1001"),
        (lambda s: s.map_values(echo, ordered="keys"), "ordered is 'key', 'partition' or 'none', not 'keys'"),
        (lambda s: s.map_values(echo, timeout=5), "the timeout is a datetime.timedelta"),
        (lambda s: s.map_values(echo, timeout=timedelta(0)), "timeout"),
        (lambda s: s.map(_one_by_one), "_one_by_one is an async generator: use flat_map"),
        (lambda s: s.select_key(_with_key), "select_key was given the async function _with_key, and cannot await it"),
        (lambda s: s.group_by_key().reduce(_with_key), "reduce was given the async function"),
        (lambda s: s.group_by_key().aggregate(dict, _with_key), "aggregate was given the async function"),
        (lambda s: s.split().branch(_true), "branch was given the async function _true"),
        (lambda s: s.to_table().map_values(echo), "map_values was given the async function echo"),
        (lambda s: s.to_table().filter(_true), "filter was given the async function"),
        (lambda s: s.map_values("no"), "map_values needs a function, not 'no'"),
    ],
)
def test_what_cannot_be_awaited_is_refused(make: Make, message: str) -> None:
    with pytest.raises(TopologyError) as caught:
        topology(make)
    assert message in str(caught.value)


def test_types_come_from_what_is_returned_in_the_end() -> None:
    async def length(value: str) -> int:
        return len(value)

    async def parts(value: str) -> Any:
        yield 1

    parts.__annotations__["return"] = "AsyncIterator[int]"
    task = fed(lambda s: s.map_values(length), ("a", "xyz"))
    finish(task, *task.take_calls())
    assert task.take_outputs()[OUTPUT][0][1] == (3).to_bytes(8, "big")


# -- Crashes -----------------------------------------------------------------------------------------------------------


class World:
    """A task, what is committed of it, and a log to read; a crash leaves only what is committed."""

    def __init__(
        self,
        make: Make,
        records: list[tuple[str, str]],
        answer: Callable[[Call], Answer] = lambda call: Answer(call.value),
        **options: Any,
    ) -> None:
        self._make = make
        self._answer = answer
        self._options = options
        self._rows = [(key, value, n) for n, (key, value) in enumerate(records)]
        self._backend = InMemoryBackend()
        self._ends: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, OffsetAndMetadata] = {}
        self._open: list[OutRecord] = []
        self.results: list[OutRecord] = []
        self._start()

    def _start(self) -> None:
        self.task = unstarted(self._make, self._backend, **self._options)
        self.task.start(self._committed, {} if self._committed else {INPUT: 0})
        self.fetched = self.task.positions()[INPUT]
        self.under_way: list[Call] = []

    def fetch(self, count: int) -> None:
        rows = self._rows[self.fetched : self.fetched + count]
        if rows:
            self.task.enqueue(batch(INPUT, self.fetched, *rows))
            self.fetched += len(rows)

    def process(self, count: int) -> None:
        self.task.process(count)
        self.under_way += self.task.take_calls()

    def finish(self, number: int) -> None:
        if self.under_way:
            call = self.under_way.pop(number % len(self.under_way))
            self.task.finish(call, self._answer(call))
            self.under_way += self.task.take_calls()

    def commit(self) -> None:
        if self.task.holds_commit:
            return
        self.task.flush()
        self._open += self.task.take_outputs().get(OUTPUT, [])
        sealed = self.task.seal()
        for partition, records in sealed.changelog.items():
            self._ends[partition] = self._ends.get(partition, 0) + len(records)
        self._committed.update(sealed.offsets)
        self.task.commit({partition: self._ends[partition] for partition in sealed.changelog})
        self.results += self._open
        self._open = []

    def send(self) -> None:
        """Outputs leave, inside the open transaction."""
        self._open += self.task.take_outputs().get(OUTPUT, [])

    def crash(self) -> None:
        self._open = []
        self._start()

    def drain(self) -> None:
        while self.fetched < len(self._rows) or self.task.ready(0) or self.under_way:
            self.fetch(3)
            self.process(100)
            self.finish(0)
        self.commit()

    @property
    def by_key(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for key, value, _, _ in self.results:
            found[(key or b"").decode()].append((value or b"").decode())
        return found


def _count_after(stream: Any) -> Any:
    return stream.map_values(echo).group_by_key().count().to_stream().map_values(str, value=str)


def _count_before(stream: Any) -> Any:
    return stream.group_by_key().count().to_stream().map_values(str, value=str).map_values(echo)


STEPS = st.one_of(
    st.tuples(st.just("fetch"), st.integers(1, 8)),
    st.tuples(st.just("process"), st.integers(1, 8)),
    st.tuples(st.just("finish"), st.integers(0, 50)),
    st.tuples(st.just("finish"), st.integers(0, 50)),
    st.tuples(st.just("finish"), st.integers(0, 50)),
    st.tuples(st.just("send"), st.none()),
    st.tuples(st.just("commit"), st.none()),
    st.tuples(st.just("crash"), st.none()),
)


@pytest.mark.parametrize("ordered", ["key", "partition", "none"])
@pytest.mark.parametrize(
    "make",
    [
        lambda s, ordered: s.map_values(echo, ordered=ordered, concurrency=5),
        lambda s, ordered: s.map_values(echo, ordered=ordered).map_values(echo, ordered=ordered, concurrency=2),
        lambda s, ordered: s.peek(nothing, ordered=ordered).flat_map_values(lambda value: [value]),
    ],
    ids=["one", "two", "peek"],
)
@settings(max_examples=60, deadline=None)
@given(
    keys=st.lists(st.sampled_from("abc"), max_size=40),
    steps=st.lists(STEPS, max_size=120),
)
def test_effects_are_once_whatever_finishes_and_crashes(
    make: Any, ordered: Ordered, keys: list[str], steps: list[tuple[str, int | None]]
) -> None:
    records = [(key, str(number)) for number, key in enumerate(keys)]
    world = World(lambda s: make(s, ordered), records)
    run(world, steps)
    results = [int(value or b"") for _, value, _, _ in world.results]
    if ordered == "partition":
        assert results == list(range(len(records)))
    assert sorted(results) == list(range(len(records)))
    if ordered == "key":
        assert all(found == sorted(found, key=int) for found in world.by_key.values())


@pytest.mark.parametrize("make", [_count_after, _count_before], ids=["after", "before"])
@settings(max_examples=100, deadline=None)
@given(
    keys=st.lists(st.sampled_from("abc"), max_size=40),
    steps=st.lists(STEPS, max_size=120),
)
def test_stores_are_written_once_whatever_finishes_and_crashes(
    make: Make, keys: list[str], steps: list[tuple[str, int | None]]
) -> None:
    world = World(make, [(key, "") for key in keys])
    run(world, steps)
    assert world.by_key == {key: [str(n + 1) for n in range(keys.count(key))] for key in set(keys)}


def run(world: World, steps: list[tuple[str, int | None]]) -> None:
    for step, number in steps:
        act = getattr(world, step)
        act() if number is None else act(number)
    world.drain()
