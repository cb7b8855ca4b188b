"""Sessions: which results come out, when, across restarts too; what is late; what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlib import (
    EmitStrategy,
    KTable,
    LateRecord,
    Materialized,
    ProcessingError,
    SerializationError,
    SessionWindowedKStream,
    SessionWindows,
    StreamsBuilder,
    StreamsConfig,
    TopologyError,
    Window,
    Windowed,
    session_windowed,
)
from streamlib.testing import TopologyTestDriver
from streamlib.topology.nodes import SessionStoreSpec
from tests.testing.restarts import keep_disks, lose_disks

Input = tuple[str | None, str | None, int]
Emitted = tuple[str, int, int, Any, int]
"""Key, start, end, value, timestamp."""

Steps = Callable[[SessionWindowedKStream[str, str]], KTable[Windowed[str], Any]]

ON_CLOSE = EmitStrategy.on_window_close()


def ms(milliseconds: int) -> timedelta:
    return timedelta(milliseconds=milliseconds)


def sessions(gap_ms: int, *, grace_ms: int = 0) -> SessionWindows:
    return SessionWindows.of_inactivity_gap(ms(gap_ms), grace=ms(grace_ms))


def count(windows: SessionWindowedKStream[str, str]) -> KTable[Windowed[str], int]:
    return windows.count(store="s")


def joined(windows: SessionWindowedKStream[str, str]) -> KTable[Windowed[str], str]:
    return windows.reduce(lambda one, other: f"{one}{other}", store="s")


def final(steps: Steps) -> Steps:
    """The same, emitted on close."""
    return lambda windows: steps(windows.emit_strategy(ON_CLOSE))


class Run:
    """A driver of a stream folded into sessions."""

    def __init__(self, steps: Steps, windows: SessionWindows, **options: Any) -> None:
        builder = StreamsBuilder()
        stream = builder.stream("in", key=str, value=str)
        table = steps(stream.group_by_key().windowed_by(windows, **options))
        table.to_stream().to("out")
        self.driver = TopologyTestDriver(builder.build())
        self.inputs = self.driver.input_topic("in", key=str, value=str)
        self.out = self.driver.output_topic("out", key=session_windowed(str), value=table._point.value)

    def emitted(self, *records: Input) -> list[Emitted]:
        """What comes out when these records come in."""
        for record in records:
            self.inputs.pipe_input(*record)
        return self.read()

    def read(self) -> list[Emitted]:
        read = self.out.read_records()
        return [(*record.key, record.value, record.timestamp) for record in read if record.key is not None]


def at(*times: int, key: str = "k") -> list[Input]:
    return [(key, "v", time) for time in times]


# -- Cases with exact data -------------------------------------------------------------------------------------------


def test_c15_late_records_count_while_their_session_is_open() -> None:
    run = Run(count, sessions(5))
    assert run.emitted(*at(0, 5, 1), *at(11, key="k2"), *at(5, 30)) == [
        ("k", 0, 0, 1, 0),
        ("k", 0, 0, None, 0),
        ("k", 0, 5, 2, 5),
        ("k", 0, 5, None, 5),
        ("k", 0, 5, 3, 5),
        ("k2", 11, 11, 1, 11),
        ("k", 30, 30, 1, 30),
    ]
    assert run.driver.dropped_records == 1


def test_c33_a_record_in_between_makes_two_sessions_one() -> None:
    run = Run(count, sessions(100, grace_ms=1_000))
    run.emitted(*at(0, 101))
    assert run.emitted(*at(50)) == [
        ("k", 0, 0, None, 0),
        ("k", 101, 101, None, 101),
        ("k", 0, 101, 3, 101),
    ]
    assert run.emitted(*at(0, 50, key="other"))[-1] == ("other", 0, 50, 2, 50)
    assert dict(run.driver.store("s").items()) == {Windowed("k", 0, 101): 3, Windowed("other", 0, 50): 2}


def test_c39_sessions_of_several_users() -> None:
    gap = 5 * 60 * 1000
    t1 = 1_000_000
    t2 = t1 + gap // 2
    t3 = t1 + gap + 1
    t4 = t3 + gap // 2
    t5 = t4 - 1
    users = [
        *(("bob", t1), ("penny", t1), ("jo", t1), ("emily", t1), ("emily", t2)),
        *(("bob", t3), ("penny", t3), ("bob", t4), ("jo", t4), ("jo", t5)),
    ]
    emitted = Run(count, sessions(gap)).emitted(*((user, "start", time) for user, time in users))
    last = {(key, start, end): n for key, start, end, n, _ in emitted}
    assert {session: n for session, n in last.items() if n is not None} == {
        ("bob", t1, t1): 1,
        ("penny", t1, t1): 1,
        ("jo", t1, t1): 1,
        ("emily", t1, t2): 2,
        ("bob", t3, t4): 2,
        ("penny", t3, t3): 1,
        ("jo", t5, t4): 2,
    }


# -- Against a recount -----------------------------------------------------------------------------------------------

RECORDS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 60)), max_size=30)


def fed(records: Iterable[tuple[str, int]]) -> list[Input]:
    return [(key, "v", time) for key, time in records]


def runs_of(times: list[int], gap: int) -> list[tuple[int, int, int]]:
    """Start, end and number of the times that have no gap longer than this between them."""
    found: list[tuple[int, int, int]] = []
    for time in sorted(times):
        if found and time - found[-1][1] <= gap:
            start, _, n = found.pop()
            found.append((start, time, n + 1))
        else:
            found.append((time, time, 1))
    return found


def expected_sessions(gap: int, records: list[tuple[str, int]]) -> dict[tuple[str, int, int], int]:
    return {
        (key, start, end): n
        for key in "ab"
        for start, end, n in runs_of([time for each, time in records if each == key], gap)
    }


@given(st.integers(1, 9), RECORDS)
def test_what_is_left_are_the_records_without_gaps(gap: int, records: list[tuple[str, int]]) -> None:
    run = Run(count, sessions(gap, grace_ms=100))
    last = {(key, start, end): n for key, start, end, n, _ in run.emitted(*fed(records))}
    assert {session: n for session, n in last.items() if n is not None} == expected_sessions(gap, records)
    assert {tuple(session): n for session, n in run.driver.store("s").items()} == expected_sessions(gap, records)


@given(st.integers(1, 9), RECORDS)
def test_on_close_each_session_comes_out_once_in_the_order_of_ends(gap: int, records: list[tuple[str, int]]) -> None:
    run = Run(final(count), sessions(gap, grace_ms=100))
    assert run.emitted(*fed(records)) == []
    emitted = run.emitted(("z", "v", 1_000))
    counts = expected_sessions(gap, records)
    in_order = sorted(counts, key=lambda session: (session[2], session[1], session[0]))
    assert emitted == [(*session, counts[session], session[2]) for session in in_order]


def one_by_one(gap: int, grace: int, records: list[tuple[str, int]]) -> tuple[dict[tuple[str, int, int], int], int]:
    """The sessions there have been in the end, and how many records came too late for any."""
    made: dict[tuple[str, int, int], int] = {}
    stream_time, newest_end, late = -1, -1, 0
    for key, time in records:
        stream_time = max(stream_time, time)
        touched = [
            (start, end)
            for each, start, end in made
            if each == key and end >= time - gap and start <= time + gap and end > newest_end - gap - grace
        ]
        start, end = min([time, *(start for start, _ in touched)]), max([time, *(end for _, end in touched)])
        if end < stream_time - gap - grace:
            late += 1
        else:
            newest_end = max(newest_end, end)
            made[key, start, end] = 1 + sum(made.pop((key, *each)) for each in touched)
    return made, late


@given(st.integers(1, 9), st.integers(0, 9), RECORDS)
def test_a_record_counts_if_the_session_it_makes_is_open(gap: int, grace: int, records: list[tuple[str, int]]) -> None:
    made, late = one_by_one(gap, grace, records)
    run = Run(count, sessions(gap, grace_ms=grace))
    last = {(key, start, end): n for key, start, end, n, _ in run.emitted(*fed(records))}
    assert {session: n for session, n in last.items() if n is not None} == made
    assert run.driver.dropped_records == late


@given(st.integers(1, 9), st.integers(0, 9), RECORDS)
def test_on_close_the_same_comes_out_once(gap: int, grace: int, records: list[tuple[str, int]]) -> None:
    made, _ = one_by_one(gap, grace, records)
    emitted = Run(final(count), sessions(gap, grace_ms=grace)).emitted(*fed(records), ("z", "v", 1_000))
    assert sorted((key, start, end, n) for key, start, end, n, _ in emitted) == sorted(
        (*session, n) for session, n in made.items()
    )


# -- Restarts --------------------------------------------------------------------------------------------------------

RESTARTS = pytest.mark.parametrize("restart", [keep_disks, lose_disks])


@RESTARTS
@given(st.integers(1, 9), st.integers(0, 9), RECORDS, st.integers(0, 30))
def test_a_restart_changes_nothing(
    restart: Callable[[TopologyTestDriver], None], gap: int, grace: int, records: list[tuple[str, int]], at_number: int
) -> None:
    for steps in (count, final(joined)):
        windows = sessions(gap, grace_ms=grace)
        steady, shaken = Run(steps, windows), Run(steps, windows)
        for number, record in enumerate(fed(records)):
            if number == at_number:
                restart(shaken.driver)
            assert shaken.emitted(record) == steady.emitted(record)


# -- Late records ----------------------------------------------------------------------------------------------------


def test_a_late_record_is_told_with_the_session_it_would_have_made() -> None:
    late: list[LateRecord[str, str]] = []
    run = Run(lambda windows: windows.count(store=Materialized(retention=ms(1_000))), sessions(5), on_late=late.append)
    run.emitted(*at(10), *at(50, key="other"))
    assert run.emitted(("k", "w", 8)) == []
    assert late == [LateRecord("k", "w", 8, Window(8, 10), 50)]
    assert run.driver.dropped_records == 1


def test_an_error_in_on_late_names_the_node() -> None:
    def fail(record: LateRecord[str, str]) -> None:
        raise ValueError("no")

    run = Run(count, sessions(5), on_late=fail)
    with pytest.raises(ProcessingError, match="KSTREAM-AGGREGATE-0000000001: ValueError: no"):
        run.emitted(*at(30, 10))


def test_a_record_without_a_key_does_not_move_time() -> None:
    run = Run(count, sessions(5))
    assert run.emitted((None, "v", 50), ("k", "v", 5)) == [("k", 5, 5, 1, 5)]
    assert run.driver.dropped_records == 1


# -- Sessions that are emitted on close ------------------------------------------------------------------------------


def test_a_jump_of_stream_time_loses_no_session() -> None:
    run = Run(final(count), sessions(5))
    assert run.emitted(*at(0, 3), *at(8, key="other"), *at(1_000_000_000)) == [
        ("k", 0, 3, 2, 3),
        ("other", 8, 8, 1, 8),
    ]


def test_a_session_closes_when_stream_time_is_past_gap_and_grace() -> None:
    run = Run(final(count), sessions(5, grace_ms=10))
    assert run.emitted(*at(100), *at(115, key="other")) == []
    assert run.emitted(*at(116, key="other")) == [("k", 100, 100, 1, 100)]


def test_sessions_close_by_the_wall_clock_when_nothing_comes() -> None:
    run = Run(final(count), sessions(5_000, grace_ms=2_000), idle_timeout=ms(1_000))
    run.emitted(*at(100))
    run.driver.advance_wall_clock(ms(7_000))
    assert run.read() == []
    run.driver.advance_wall_clock(ms(1))
    assert run.read() == [("k", 100, 100, 1, 100)]


# -- What a table of sessions is like --------------------------------------------------------------------------------


def test_a_table_of_sessions_can_be_looked_up_by_tables_made_of_it() -> None:
    def long(windows: SessionWindowedKStream[str, str]) -> KTable[Windowed[str], int]:
        return windows.count().filter(lambda session, n: n > 1, store="long").map_values(lambda n: n * 10)

    values = [(start, end, n) for _, start, end, n, _ in Run(long, sessions(5)).emitted(*at(1, 3))]
    assert values == [(1, 3, 20)]


def test_a_table_of_sessions_can_be_joined() -> None:
    def with_values(windows: SessionWindowedKStream[str, str]) -> KTable[Windowed[str], str]:
        return windows.count().join(windows.reduce(max), lambda n, largest: f"{n}{largest}", result=str)

    emitted = Run(with_values, sessions(5)).emitted(("k", "a", 1), ("k", "b", 3))
    assert emitted[-1] == ("k", 1, 3, "2b", 3)


def number_of_records(times: Iterable[int], cache_bytes: int) -> int | None:
    """What the counts of all sessions come to, with a record cache or without."""
    builder = StreamsBuilder()
    stream = builder.stream("in", key=str, value=str)
    counts = stream.group_by_key().windowed_by(sessions(5, grace_ms=100)).count()
    by_key = counts.group_by(lambda session, n: (session.key, n), key=str)
    by_key.reduce(lambda one, other: one + other, lambda one, other: one - other).to_stream().to("out")
    config = StreamsConfig(application_id="app", statestore_cache_max_bytes=cache_bytes)
    with TopologyTestDriver(builder.build(), config=config) as driver:
        topic = driver.input_topic("in", key=str, value=str)
        for time in times:
            topic.pipe_input("k", "v", time)
        return driver.output_topic("out", key=str, value=int).read_values()[-1]


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_swallowed_sessions_are_taken_out_of_groups_of_them(cache_bytes: int) -> None:
    assert number_of_records([0, 4, 20, 8], cache_bytes) == 4


def test_a_record_cache_knows_the_old_value_of_a_session_that_stays_as_it_was() -> None:
    assert number_of_records([7, 7, 7], 1 << 20) == 3


def test_a_session_in_which_an_aggregate_is_none_begins_anew() -> None:
    def small(windows: SessionWindowedKStream[str, str]) -> KTable[Windowed[str], int]:
        return windows.aggregate(
            lambda: 0, lambda key, value, n: n + 1 if n < 2 else None, lambda key, one, other: one + other, value=int
        )

    run = Run(small, sessions(5))
    assert [value for *_, value, _ in run.emitted(*at(1, 1, 1, 1))] == [1, 2, None, 1]


def test_an_aggregate_that_does_not_fit_the_store_leaves_it_as_it_was() -> None:
    def wrong(windows: SessionWindowedKStream[str, str]) -> KTable[Windowed[str], Any]:
        return windows.aggregate(
            lambda: 0, lambda key, value, n: n + 1 if n < 2 else "many", lambda key, one, other: other, store="s"
        )

    run = Run(lambda windows: wrong(windows), sessions(5))
    with pytest.raises(SerializationError, match=r"KSTREAM-AGGREGATE-0000000001: store s cannot encode 1"):
        run.emitted(*at(1))


def test_rows_are_kept_for_as_long_as_sessions_are_open_or_longer() -> None:
    def spec(windows: SessionWindows, **options: Any) -> SessionStoreSpec:
        builder = StreamsBuilder()
        grouped = builder.stream("in", key=str, value=str).group_by_key()
        grouped.windowed_by(windows).count(store=Materialized(name="s", **options))
        found = builder.build().stores["s"]
        assert isinstance(found, SessionStoreSpec)
        return found

    assert spec(sessions(10, grace_ms=5)).retention_ms == 15
    assert spec(sessions(10, grace_ms=5), retention=ms(16)).retention_ms == 16
    assert spec(sessions(10)).topic_config == {
        "cleanup.policy": "compact,delete",
        "retention.ms": str(10 + 24 * 60 * 60 * 1000),
    }
    assert not spec(sessions(10), persistent=False).persistent
    with pytest.raises(TopologyError, match="store s: a retention of 14 ms is too short"):
        spec(sessions(10, grace_ms=5), retention=ms(14))


def test_counting_in_a_store_without_a_name_uses_two_numbers_up() -> None:
    def node(**options: Any) -> str:
        builder = StreamsBuilder()
        builder.stream("in", key=str, value=str).group_by_key().windowed_by(sessions(5)).count(**options)
        return next(name for name in builder.build().nodes if "AGGREGATE" in name)

    assert node() == "KSTREAM-AGGREGATE-0000000002"
    assert node(store=Materialized(persistent=False)) == "KSTREAM-AGGREGATE-0000000003"
    assert node(store="s") == "KSTREAM-AGGREGATE-0000000001"


# -- What is refused -------------------------------------------------------------------------------------------------


def refused(make: Callable[[Any], object], message: str) -> None:
    windows = StreamsBuilder().stream("in", key=str, value=str).group_by_key().windowed_by(sessions(5))
    with pytest.raises(TopologyError, match=message):
        make(windows)


def test_sessions_need_a_merger() -> None:
    add = lambda key, value, n: n  # noqa: E731
    refused(lambda windows: windows.aggregate(int, add), "needs an initializer, an aggregator and a merger")
    refused(lambda windows: windows.aggregate(int), "or an aggregation such as Sum")
    refused(lambda windows: windows.aggregate(int, add, 5), "aggregate needs a function, not 5")


def test_a_strategy_is_a_strategy() -> None:
    refused(lambda windows: windows.emit_strategy("close"), "emit_strategy needs EmitStrategy")


def test_an_async_function_is_refused() -> None:
    async def merge(one: str, other: str) -> str:
        return one

    refused(lambda windows: windows.reduce(merge), "async function")
