"""Suppression: what is held back and when it goes on, across restarts too; what is refused.

The exact cases are those of Kafka Streams' own tests (`SuppressScenarioTest`, `KTableSuppressProcessorTest`,
`SuppressionDurabilityIntegrationTest`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlib import (
    BufferConfig,
    KTable,
    SessionWindows,
    SlidingWindows,
    StreamsBuilder,
    Suppressed,
    TimeWindows,
    TopologyError,
)
from streamlib.errors import StreamsError
from streamlib.testing import TopologyTestDriver
from streamlib.windows import time_windowed
from tests.testing.restarts import keep_disks, lose_disks

Update = tuple[str, str | None, int]
Emitted = tuple[Any, Any, int]


def ms(milliseconds: int) -> timedelta:
    return timedelta(milliseconds=milliseconds)


def until(limit_ms: int, buffer: BufferConfig | None = None) -> Suppressed:
    return Suppressed.until_time_limit(ms(limit_ms), buffer or BufferConfig.unbounded())


FINAL = Suppressed.until_window_closes()


class Run:
    """A driver of a topology whose table, and the same suppressed, go to topics."""

    def __init__(self, make_table: Callable[[StreamsBuilder], KTable[Any, Any]], suppressed: Suppressed) -> None:
        builder = StreamsBuilder()
        table = make_table(builder)
        table.to_stream().to("raw")
        table.suppress(suppressed, name="held").to_stream().to("suppressed")
        self.driver = TopologyTestDriver(builder.build())
        self.raw, self.suppressed = (
            self.driver.output_topic(topic, key=table._point.key, value=table._point.value)
            for topic in ("raw", "suppressed")
        )

    def emitted(self, *updates: Update) -> list[Emitted]:
        """What the updates let go on."""
        topic = self.driver.input_topic("in", key=str, value=str)
        for key, value, timestamp in updates:
            topic.pipe_input(key, value, timestamp)
        return [(record.key, record.value, record.timestamp) for record in self.suppressed.read_records()]


def counts_by_value(builder: StreamsBuilder) -> KTable[str, int]:
    return builder.table("in", key=str, value=str).group_by(lambda key, value: (value, value)).count()


THREE: list[Update] = [("k1", "v1", 0), ("k1", "v2", 1), ("k2", "v1", 2)]


# -- Until a time limit ----------------------------------------------------------------------------------------------


def test_a_limit_of_zero_holds_nothing_back() -> None:
    run = Run(counts_by_value, until(0))
    assert run.emitted(*THREE) == [("v1", 1, 0), ("v1", 0, 1), ("v2", 1, 1), ("v1", 1, 2)]
    assert run.emitted(("x", "x", 3)) == [("x", 1, 3)]
    assert run.emitted(("x", "y", 4)) == [("x", 0, 4), ("y", 1, 4)]
    assert [(r.key, r.value) for r in run.raw.read_records()][-3:] == [("x", 1), ("x", 0), ("y", 1)]


def test_the_first_change_starts_the_clock_and_the_last_goes_on() -> None:
    run = Run(counts_by_value, until(2))
    assert run.emitted(*THREE) == [("v1", 1, 2)]
    assert run.emitted(("tick", "tick", 3)) == [("v2", 1, 1)]
    assert run.emitted(("tick", "tock", 4)) == []


@pytest.mark.parametrize(
    "buffer",
    [BufferConfig.max_records(1), BufferConfig.max_bytes(150), BufferConfig.max_records(9).with_max_bytes(150)],
)
def test_a_full_buffer_lets_the_oldest_go_on(buffer: BufferConfig) -> None:
    run = Run(counts_by_value, until(60_000, buffer))
    assert run.emitted(*THREE) == [("v1", 0, 1), ("v2", 1, 1)]
    assert run.emitted(("x", "x", 3)) == [("v1", 1, 2)]


def test_a_buffer_that_must_not_emit_early_stops_the_task() -> None:
    strict = BufferConfig.max_records(1).shut_down_when_full()
    run = Run(lambda b: b.table("in", key=str, value=str), until(60_000, strict))
    assert run.emitted(("a", "1", 0), ("a", "2", 1)) == []
    with pytest.raises(StreamsError, match=r"node held: the suppression buffer is full: 2 records of 1"):
        run.emitted(("b", "1", 2))


def test_deletes_go_on_and_headers_are_those_of_the_last_change() -> None:
    run = Run(lambda b: b.table("in", key=str, value=str), until(5))
    topic = run.driver.input_topic("in", key=str, value=str)
    topic.pipe_input("a", "1", 0, [("number", b"1")])
    topic.pipe_input("a", None, 3, [("number", b"2"), ("none", None)])
    topic.pipe_input("b", "1", 5)
    [record] = run.suppressed.read_records()
    assert (record.key, record.value, record.timestamp) == ("a", None, 3)
    assert record.headers == (("number", b"2"), ("none", None))


def test_a_join_sees_a_row_change_when_it_goes_on() -> None:
    builder = StreamsBuilder()
    left, right = (builder.table(topic, key=str, value=str) for topic in ("L", "R"))
    joined = left.outer_join(right.suppress(until(10)), lambda one, other: f"({one},{other})")
    joined.to_stream().to("out")
    driver = TopologyTestDriver(builder.build())
    out = driver.output_topic("out", key=str, value=str)

    def emitted(topic: str, key: str, value: str, timestamp: int) -> list[Emitted]:
        driver.input_topic(topic, key=str, value=str).pipe_input(key, value, timestamp)
        return [(record.key, record.value, record.timestamp) for record in out.read_records()]

    assert emitted("R", "B", "1", 0) == []
    assert emitted("R", "A", "1", 0) == []
    assert emitted("R", "tick", "tick", 10) == [("A", "(None,1)", 0), ("B", "(None,1)", 0)]
    assert emitted("R", "A", "2", 11) == []
    assert emitted("L", "A", "a", 12) == [("A", "(a,1)", 12)]
    assert emitted("L", "B", "b", 12) == [("B", "(b,1)", 12)]
    assert emitted("L", "A", "b", 13) == [("A", "(b,1)", 13)]
    assert emitted("R", "tick1", "tick1", 21) == [("tick", "(None,tick)", 10), ("A", "(b,2)", 13)]


@pytest.mark.parametrize("restart", [keep_disks, lose_disks])
def test_what_waits_and_its_bound_survive_a_restart(restart: Callable[[TopologyTestDriver], None]) -> None:
    run = Run(lambda b: b.table("in", key=str, value=str), until(3_600_000, BufferConfig.max_records(3)))
    assert run.emitted(("k1", "1", 1), ("k2", "2", 2), ("k3", "3", 3)) == []
    assert run.emitted(("k4", "4", 4), ("k5", "5", 5)) == [("k1", "1", 1), ("k2", "2", 2)]
    restart(run.driver)
    emitted = run.emitted(("k6", "6", 6), ("k7", "7", 7), ("k8", "8", 8))
    assert emitted == [("k3", "3", 3), ("k4", "4", 4), ("k5", "5", 5)]
    assert dict(run.driver.store("held-store").items()) == {"k6": "6", "k7": "7", "k8": "8"}


updates = st.lists(
    st.tuples(st.sampled_from("abc"), st.none() | st.sampled_from("xyz"), st.integers(0, 30)), max_size=25
)


@given(updates, st.integers(0, 10), st.integers(0, 25), st.sampled_from([keep_disks, lose_disks]))
def test_a_restart_changes_nothing(
    changes: list[Update], limit_ms: int, restart_at: int, restart: Callable[[TopologyTestDriver], None]
) -> None:
    def table(builder: StreamsBuilder) -> KTable[str, str]:
        return builder.table("in", key=str, value=str)

    bounded = until(limit_ms, BufferConfig.max_records(2))
    steady, shaken = Run(table, bounded), Run(table, bounded)
    for number, change in enumerate(changes):
        if number == restart_at:
            restart(shaken.driver)
        assert shaken.emitted(change) == steady.emitted(change)


# -- Until windows close ---------------------------------------------------------------------------------------------


def windowed(windows: Any) -> Callable[[StreamsBuilder], KTable[Any, int]]:
    return lambda builder: builder.stream("in", key=str, value=str).group_by_key().windowed_by(windows).count()


def at(*times: int) -> list[Update]:
    return [("k1", "v", time) for time in times]


def shown(emitted: list[Emitted]) -> list[tuple[str, int, int, Any, int]]:
    return [(key.key, key.start, key.end, value, timestamp) for key, value, timestamp in emitted]


def test_the_last_count_of_a_tumbling_window_goes_on() -> None:
    run = Run(windowed(TimeWindows.of_size(ms(2), grace=ms(1))), FINAL)
    assert shown(run.emitted(*at(0, 1, 2, 1, 0, 5, 0))) == [("k1", 0, 2, 4, 1), ("k1", 2, 4, 1, 2)]


def test_a_jump_in_time_closes_all_windows_before() -> None:
    run = Run(windowed(TimeWindows.of_size(ms(2), grace=ms(2))), FINAL)
    emitted = shown(run.emitted(*at(0, 1, 2, 0, 3, 0, 4, 0, 30)))
    assert emitted == [("k1", 0, 2, 4, 1), ("k1", 2, 4, 2, 3), ("k1", 4, 6, 1, 4)]


def test_sliding_windows_close_one_by_one() -> None:
    run = Run(windowed(SlidingWindows.of_time_difference(ms(5), grace=ms(15))), FINAL)
    assert shown(run.emitted(*at(10, 11, 10, 13, 10, 24, 5, 7, 90))) == [
        ("k1", 5, 10, 5, 10),
        ("k1", 6, 11, 5, 11),
        ("k1", 8, 13, 5, 13),
        ("k1", 11, 16, 2, 13),
        ("k1", 12, 17, 1, 13),
        ("k1", 19, 24, 1, 24),
    ]


def test_sessions_close_after_gap_and_grace_and_merged_ones_never_show() -> None:
    run = Run(windowed(SessionWindows.of_inactivity_gap(ms(5), grace=ms(0))), FINAL)
    updates: list[Update] = [*at(0, 5, 1), ("k2", "v", 11), *at(5, 30)]
    assert shown(run.emitted(*updates)) == [("k1", 0, 5, 3, 5), ("k2", 11, 11, 1, 11)]


@pytest.mark.parametrize("restart", [keep_disks, lose_disks])
def test_windows_close_on_time_after_a_restart(restart: Callable[[TopologyTestDriver], None]) -> None:
    run = Run(windowed(TimeWindows.of_size(ms(10), grace=ms(5))), FINAL)
    assert run.emitted(*at(1, 12)) == []
    restart(run.driver)
    assert shown(run.emitted(*at(2))) == []
    assert shown(run.emitted(*at(15))) == [("k1", 0, 10, 2, 2)]


# -- What is refused -------------------------------------------------------------------------------------------------


def refused(make: Callable[[StreamsBuilder], object], message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        make(StreamsBuilder())


def test_only_windows_close() -> None:
    refused(lambda b: b.table("in", key=str, value=str).suppress(FINAL), "KTABLE-SOURCE.*keys are not windowed")


def test_a_windowed_topic_does_not_say_when_its_windows_close() -> None:
    keys = time_windowed(str, 10)
    refused(lambda b: b.table("in", key=keys, value=str).suppress(FINAL), "not known when its windows close")


def test_final_results_need_a_buffer_that_never_emits_early() -> None:
    with pytest.raises(TopologyError, match=r"shut_down_when_full\(\)"):
        Suppressed.until_window_closes(BufferConfig.max_records(3))
    strict = BufferConfig.max_records(3).shut_down_when_full()
    assert Suppressed.until_window_closes(strict).buffer.record_limit == 3


@pytest.mark.parametrize("limit", [5, timedelta(seconds=-1), None])
def test_a_limit_is_a_timedelta(limit: Any) -> None:
    with pytest.raises(TopologyError, match="the time limit of a suppression"):
        Suppressed.until_time_limit(limit, BufferConfig.unbounded())


@pytest.mark.parametrize("bound", [-1, 2.5, "3", True])
def test_a_bound_is_a_number(bound: Any) -> None:
    with pytest.raises(TopologyError, match="the bound of a suppression buffer"):
        BufferConfig.max_records(bound)
    with pytest.raises(TopologyError, match="the bound of a suppression buffer"):
        BufferConfig.unbounded().with_max_bytes(bound)


def test_a_suppression_is_one() -> None:
    anything: Any = 5
    refused(lambda b: b.table("in", key=str, value=str).suppress(anything), "KTABLE-SOURCE.*needs Suppressed")
    with pytest.raises(TopologyError, match="needs a BufferConfig"):
        Suppressed.until_window_closes(anything)


def test_names_and_topic_settings() -> None:
    builder = StreamsBuilder()
    table = builder.table("in", key=str, value=str)
    table.suppress(until(5, BufferConfig.unbounded().with_logging_enabled({"segment.ms": "1000"})), name="held")
    table.suppress(until(5, BufferConfig.unbounded().with_logging_disabled()))
    topology = builder.build()
    held, other = topology.stores["held-store"], topology.stores["KTABLE-SUPPRESS-STATE-STORE-0000000004"]
    assert held.topic_config == {"cleanup.policy": "compact", "segment.ms": "1000"}
    assert held.changelog_topic == "held-store-changelog"
    assert (held.changelog, other.changelog) == (True, False)
    with pytest.raises(TopologyError, match="a node cannot have the name"):
        table.suppress(until(5), name="not a name")
