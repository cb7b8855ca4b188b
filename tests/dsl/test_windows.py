"""Windows of time: which results come out, when, across restarts too; what is late; what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlib import (
    EmitStrategy,
    JoinWindows,
    KTable,
    LateRecord,
    Materialized,
    ProcessingError,
    SessionWindows,
    SlidingWindows,
    StreamsBuilder,
    TimeWindowedKStream,
    TimeWindows,
    TopologyError,
    UnlimitedWindows,
    Window,
    Windowed,
    time_windowed,
)
from streamlib.dsl.windowed import FixedWindows
from streamlib.engine.plan import make_plan
from streamlib.engine.task import Task
from streamlib.partitioning import partition_for
from streamlib.records import TaskId
from streamlib.state.memory import InMemoryBackend
from streamlib.testing import TopologyTestDriver
from streamlib.topology.nodes import WindowStoreSpec
from tests.engine.support import INPUT, Clock, batch
from tests.testing.restarts import keep_disks, lose_disks

Input = tuple[str | None, str | None, int]
Emitted = tuple[str, int, int, Any, int]
"""Key, start, end, value, timestamp."""

Steps = Callable[[TimeWindowedKStream[str, str]], KTable[Windowed[str], Any]]

ON_CLOSE = EmitStrategy.on_window_close()


def ms(milliseconds: int) -> timedelta:
    return timedelta(milliseconds=milliseconds)


def tumbling(size_ms: int, *, grace_ms: int = 0) -> TimeWindows:
    return TimeWindows.of_size(ms(size_ms), grace=ms(grace_ms))


def hopping(size_ms: int, advance_ms: int, *, grace_ms: int = 0) -> TimeWindows:
    return tumbling(size_ms, grace_ms=grace_ms).advance_by(ms(advance_ms))


def sliding(difference_ms: int, *, grace_ms: int = 0) -> SlidingWindows:
    return SlidingWindows.of_time_difference(ms(difference_ms), grace=ms(grace_ms))


def count(windows: TimeWindowedKStream[str, str]) -> KTable[Windowed[str], int]:
    return windows.count(store="w")


def concat(windows: TimeWindowedKStream[str, str]) -> KTable[Windowed[str], str]:
    return windows.aggregate(lambda: "0", lambda key, value, joined: f"{joined}+{value}", store="w")


def final(steps: Steps) -> Steps:
    """The same, emitted on close."""
    return lambda windows: steps(windows.emit_strategy(ON_CLOSE))


class Run:
    """A driver of a stream folded into windows."""

    def __init__(self, steps: Steps, windows: FixedWindows, **options: Any) -> None:
        builder = StreamsBuilder()
        stream = builder.stream("in", key=str, value=str)
        table = steps(stream.group_by_key().windowed_by(windows, **options))
        table.to_stream().to("out")
        self.driver = TopologyTestDriver(builder.build())
        self.inputs = self.driver.input_topic("in", key=str, value=str)
        self.out = self.driver.output_topic("out", key=Windowed[str], value=table._point.value)

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


def numbered(*records: tuple[str, int]) -> list[Input]:
    """Records whose value is their number."""
    return [(key, str(number), time) for number, (key, time) in enumerate(records, 1)]


# -- Cases with exact data -------------------------------------------------------------------------------------------

C22 = numbered(("A", 0), ("A", 5), ("A", 10), ("B", 6), ("B", 11), ("B", 15), ("C", 25))


def test_c14_sliding_windows_come_out_one_by_one() -> None:
    run = Run(final(count), sliding(5, grace_ms=15))
    assert run.emitted(*at(10, 11, 10, 13, 10, 24, 5, 7, 90)) == [
        ("k", 5, 10, 5, 10),
        ("k", 6, 11, 5, 11),
        ("k", 8, 13, 5, 13),
        ("k", 11, 16, 2, 13),
        ("k", 12, 17, 1, 13),
        ("k", 19, 24, 1, 24),
    ]


def test_c22_hopping_windows_on_update() -> None:
    assert Run(concat, hopping(10, 5)).emitted(*C22) == [
        ("A", 0, 10, "0+1", 0),
        ("A", 0, 10, "0+1+2", 5),
        ("A", 5, 15, "0+2", 5),
        ("A", 5, 15, "0+2+3", 10),
        ("A", 10, 20, "0+3", 10),
        ("B", 5, 15, "0+4", 6),
        ("B", 5, 15, "0+4+5", 11),
        ("B", 10, 20, "0+5", 11),
        ("B", 10, 20, "0+5+6", 15),
        ("B", 15, 25, "0+6", 15),
        ("C", 20, 30, "0+7", 25),
        ("C", 25, 35, "0+7", 25),
    ]


def test_c22_hopping_windows_on_close_with_those_that_kafka_streams_loses() -> None:
    emitted = Run(final(concat), hopping(10, 5)).emitted(*C22)
    lost = [("A", 10, 20, "0+3", 10), ("B", 10, 20, "0+5+6", 15)]
    assert [each for each in emitted if each not in lost] == [
        ("A", 0, 10, "0+1+2", 5),
        ("A", 5, 15, "0+2+3", 10),
        ("B", 5, 15, "0+4+5", 11),
        ("B", 15, 25, "0+6", 15),
    ]
    assert [each for each in emitted if each in lost] == lost


def test_c23_hopping_windows_with_grace() -> None:
    updates = Run(concat, hopping(10, 5, grace_ms=5)).emitted(*C22)
    assert len(updates) == 13
    assert ("B", 0, 10, "0+4", 6) in updates
    emitted = Run(final(concat), hopping(10, 5, grace_ms=5)).emitted(*C22)
    lost = [("A", 5, 15, "0+2+3", 10), ("B", 5, 15, "0+4+5", 11)]
    assert [each for each in emitted if each not in lost] == [
        ("A", 0, 10, "0+1+2", 5),
        ("B", 0, 10, "0+4", 6),
        ("A", 10, 20, "0+3", 10),
        ("B", 10, 20, "0+5+6", 15),
    ]
    assert [each for each in emitted if each in lost] == lost


C36: list[Input] = [
    ("k", "100", 100),
    *(("k", str(time), time) for time in (0, 1, 2, 3, 4, 5, 6)),
    *(("k", str(time), time) for time in (105, 106)),
]


def joined(windows: TimeWindowedKStream[str, str]) -> KTable[Windowed[str], str]:
    return windows.aggregate(lambda: "", lambda key, value, before: f"{before}+{value}", store="w")


def test_c36_each_expired_window_is_dropped_for_itself() -> None:
    run = Run(joined, hopping(10, 5, grace_ms=90))
    assert run.emitted(*C36) == [
        ("k", 95, 105, "+100", 100),
        ("k", 100, 110, "+100", 100),
        ("k", 5, 15, "+5", 5),
        ("k", 5, 15, "+5+6", 6),
        ("k", 100, 110, "+100+105", 105),
        ("k", 105, 115, "+105", 105),
        ("k", 100, 110, "+100+105+106", 106),
        ("k", 105, 115, "+105+106", 106),
    ]
    assert run.driver.dropped_records == 7


def test_c36_emitted_on_close() -> None:
    assert Run(final(joined), hopping(10, 5, grace_ms=90)).emitted(*C36) == [("k", 5, 15, "+5+6", 6)]


# -- Against a recount -----------------------------------------------------------------------------------------------

RECORDS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 60)), max_size=30)


def fed(records: Iterable[tuple[str, int]]) -> list[Input]:
    return [(key, "v", time) for key, time in records]


def open_windows(windows: TimeWindows, records: Iterable[tuple[str, int]]) -> Counter[tuple[str, int, int]]:
    """How many records are in each window, late ones left out."""
    counts: Counter[tuple[str, int, int]] = Counter()
    stream_time = -1
    for key, time in records:
        stream_time = max(stream_time, time)
        for start in range(0, time + 1, windows.advance_ms):
            end = start + windows.size_ms
            if end > time and end > stream_time - windows.grace_ms:
                counts[key, start, end] += 1
    return counts


TIME_WINDOWS = st.builds(
    lambda advance, more, grace: hopping(advance + more, advance, grace_ms=grace),
    st.integers(1, 9),
    st.integers(0, 9),
    st.integers(0, 20),
)


@given(TIME_WINDOWS, RECORDS)
def test_the_last_update_of_each_window_is_what_is_in_it(windows: TimeWindows, records: list[tuple[str, int]]) -> None:
    emitted = Run(count, windows).emitted(*fed(records))
    assert {(key, start, end): n for key, start, end, n, _ in emitted} == open_windows(windows, records)


@given(TIME_WINDOWS, RECORDS)
def test_on_close_each_window_comes_out_once_with_all_that_is_in_it(
    windows: TimeWindows, records: list[tuple[str, int]]
) -> None:
    counts = open_windows(windows, records)
    emitted = Run(final(count), windows).emitted(*fed(records), ("z", "v", 1_000))
    assert sorted((key, start, end, n) for key, start, end, n, _ in emitted) == sorted(
        (*window, n) for window, n in counts.items()
    )
    closed = max((time for _, time in records), default=0) - windows.grace_ms
    early = [start for _, start, end, _, _ in emitted if end <= closed]
    assert early == sorted(early)


def sliding_counts(difference: int, records: list[tuple[str, int]]) -> dict[tuple[str, int, int], int]:
    """How many records are in each set of records that fit into a window, none of them late (KIP-450)."""
    counts = {}
    for key in "ab":
        times = sorted(time for each, time in records if each == key)
        starts = {max(0, time - difference) for time in times} | {time + 1 for time in times}
        for start in starts:
            n = sum(1 for time in times if start <= time <= start + difference)
            if n:
                counts[key, start, start + difference] = n
    return counts


@given(st.integers(0, 9), RECORDS)
def test_sliding_windows_hold_each_set_of_records_that_fits(difference: int, records: list[tuple[str, int]]) -> None:
    run = Run(count, sliding(difference, grace_ms=100))
    last = {(key, start, end): n for key, start, end, n, _ in run.emitted(*fed(records))}
    assert last == sliding_counts(difference, records)
    assert {tuple(window): n for window, n in run.driver.store("w").items()} == last


@given(st.integers(0, 9), RECORDS)
def test_sliding_windows_come_out_once_when_they_close(difference: int, records: list[tuple[str, int]]) -> None:
    windows = sliding(difference, grace_ms=100)
    emitted = Run(final(count), windows).emitted(*fed(records), ("z", "v", 1_000))
    expected = sorted(sliding_counts(difference, records).items(), key=lambda each: (each[0][1], each[0][0]))
    assert [(key, start, end, n) for key, start, end, n, _ in emitted] == [(*window, n) for window, n in expected]


# -- Restarts --------------------------------------------------------------------------------------------------------

RESTARTS = pytest.mark.parametrize("restart", [keep_disks, lose_disks])


@RESTARTS
@given(st.sampled_from([tumbling(7, grace_ms=3), hopping(10, 4), sliding(5, grace_ms=4)]), RECORDS, st.integers(0, 30))
def test_a_restart_changes_nothing(
    restart: Callable[[TopologyTestDriver], None], windows: FixedWindows, records: list[tuple[str, int]], at_number: int
) -> None:
    for steps in (count, final(count)):
        steady, shaken = Run(steps, windows), Run(steps, windows)
        for number, record in enumerate(fed(records)):
            if number == at_number:
                restart(shaken.driver)
            assert shaken.emitted(record) == steady.emitted(record)


@RESTARTS
def test_a_record_that_was_late_before_a_restart_is_late_after_it(
    restart: Callable[[TopologyTestDriver], None],
) -> None:
    run = Run(count, tumbling(10))
    run.emitted(*at(35))
    restart(run.driver)
    assert run.emitted(*at(5)) == []


# -- Late records ----------------------------------------------------------------------------------------------------


def test_each_closed_window_a_record_comes_for_is_told_and_counted() -> None:
    late: list[LateRecord[str, str]] = []
    run = Run(count, hopping(10, 5), on_late=late.append)
    run.emitted(("k", "v", 22), ("k", "w", 13))
    assert late == [LateRecord("k", "w", 13, Window(5, 15), 22), LateRecord("k", "w", 13, Window(10, 20), 22)]
    assert run.driver.dropped_records == 2


def test_a_record_that_is_late_for_all_sliding_windows_is_told_once() -> None:
    late: list[LateRecord[str, str]] = []
    run = Run(count, sliding(5), on_late=late.append)
    run.emitted(*at(30, 10))
    assert late == [LateRecord("k", "v", 10, Window(10, 15), 30)]


def test_an_error_in_on_late_names_the_node() -> None:
    def fail(record: LateRecord[str, str]) -> None:
        raise ValueError("no")

    run = Run(count, tumbling(10), on_late=fail)
    with pytest.raises(ProcessingError, match="KSTREAM-AGGREGATE-0000000001: ValueError: no"):
        run.emitted(*at(30, 10))


def test_a_record_without_a_key_does_not_move_time() -> None:
    run = Run(count, tumbling(10))
    assert run.emitted((None, "v", 50), ("k", "v", 5)) == [("k", 0, 10, 1, 5)]
    assert run.driver.dropped_records == 1


# -- Windows that close although nothing comes -----------------------------------------------------------------------


def idle(timeout_ms: int, windows: FixedWindows | None = None) -> Run:
    return Run(final(count), windows or tumbling(10_000, grace_ms=2_000), idle_timeout=ms(timeout_ms))


def test_windows_close_by_the_wall_clock_when_nothing_comes() -> None:
    run = idle(30_000)
    run.emitted(*at(5_000))
    run.driver.advance_wall_clock(ms(29_999))
    assert run.read() == []
    run.driver.advance_wall_clock(ms(1))
    assert run.read() == [("k", 0, 10_000, 1, 5_000)]


def test_stream_time_goes_no_faster_than_the_wall_clock() -> None:
    run = idle(1_000)
    run.emitted(*at(5_000))
    run.driver.advance_wall_clock(ms(6_999))
    assert run.read() == []
    assert run.emitted(*at(6_000)) == []  # not late
    run.driver.advance_wall_clock(ms(5_999))
    assert run.read() == []
    run.driver.advance_wall_clock(ms(1))
    assert run.read() == [("k", 0, 10_000, 2, 6_000)]


def test_each_record_ends_the_silence() -> None:
    run = idle(30_000, tumbling(1_000))
    for time in (0, 100, 200):
        run.emitted(*at(time))
        run.driver.advance_wall_clock(ms(20_000))
    assert run.read() == []
    run.driver.advance_wall_clock(ms(10_000))
    assert run.read() == [("k", 0, 1_000, 3, 200)]


@RESTARTS
def test_what_the_wall_clock_has_closed_stays_closed(restart: Callable[[TopologyTestDriver], None]) -> None:
    run = idle(30_000)
    run.emitted(*at(5_000))
    run.driver.advance_wall_clock(ms(30_000))
    assert len(run.read()) == 1
    restart(run.driver)
    assert run.emitted(*at(6_000)) == []
    assert run.driver.dropped_records == 1
    run.driver.advance_wall_clock(ms(60_000))
    assert run.read() == []


@RESTARTS
def test_the_silence_begins_anew_with_a_restart(restart: Callable[[TopologyTestDriver], None]) -> None:
    run = idle(30_000)
    run.emitted(*at(5_000))
    run.driver.advance_wall_clock(ms(20_000))
    restart(run.driver)
    run.driver.advance_wall_clock(ms(29_999))
    assert run.read() == []
    run.driver.advance_wall_clock(ms(1))
    assert run.read() == [("k", 0, 10_000, 1, 5_000)]


def test_windows_close_one_after_the_other() -> None:
    run = idle(1_000, hopping(10_000, 5_000))
    run.emitted(*at(7_000))
    run.driver.advance_wall_clock(ms(3_000))
    assert run.read() == [("k", 0, 10_000, 1, 7_000)]
    run.driver.advance_wall_clock(ms(4_999))
    assert run.read() == []
    run.driver.advance_wall_clock(ms(1))
    assert run.read() == [("k", 5_000, 15_000, 1, 7_000)]


def test_it_is_not_quiet_while_records_are_known_to_wait() -> None:
    builder = StreamsBuilder()
    windows = builder.stream("in", key=str, value=str).group_by_key().windowed_by(tumbling(10), idle_timeout=ms(50))
    final(count)(windows).to_stream().to("out")
    clock = Clock()
    task = Task(make_plan(builder.build(), "app", {"in": 1, "out": 1}), TaskId(0, 0), InMemoryBackend(), now_ms=clock)
    task.start({}, {INPUT: 0})
    task.enqueue(batch(INPUT, 0, ("k", "v", 5)))
    task.learn_end_offsets({INPUT: 2})
    task.process(10)

    def closed_at(now_ms: int) -> bool:
        clock.now_ms = now_ms
        task.punctuate(now_ms)
        return bool(task.take_outputs())

    assert not closed_at(50)  # one more is at the broker
    task.enqueue(batch(INPUT, 1, ("k", "v", 6)))
    assert not closed_at(100)  # it is here
    task.process(10)
    assert not closed_at(149)
    assert closed_at(150)


# -- What a table of windows is like ---------------------------------------------------------------------------------


def test_a_store_of_windows_can_be_read_in_the_driver() -> None:
    run = Run(count, tumbling(10, grace_ms=100))
    run.emitted(*at(5, 7, 12), *at(13, key="other"))
    store = run.driver.store("w")
    assert store.get(Windowed("k", 0, 10)) == 2
    assert store.get(Windowed("k", 20, 30)) is None
    assert store.get_row(Windowed("k", 10, 20)).timestamp == 12
    assert list(store.fetch("k", 0, 20)) == [(Windowed("k", 0, 10), 2), (Windowed("k", 10, 20), 1)]
    assert len(store) == 3


def test_a_windowed_key_goes_to_the_partition_of_the_key_inside() -> None:
    builder = StreamsBuilder()
    counts = count(builder.stream("in", key=str, value=str).group_by_key().windowed_by(tumbling(10)))
    counts.to_stream().to("out")
    task = Task(make_plan(builder.build(), "app", {"in": 1, "out": 8}), TaskId(0, 0), InMemoryBackend(), now_ms=Clock())
    task.start({}, {INPUT: 0})
    task.enqueue(batch(INPUT, 0, *((key, "v", time) for time in (0, 10, 20) for key in "abcdef")))
    task.process(100)
    written = {partition.partition: records for partition, records in task.take_outputs().items()}
    for partition, records in written.items():
        assert {partition_for((key or b"")[:1], 8) for key, *_ in records} == {partition}
    assert sum(map(len, written.values())) == 18


def test_a_windowed_table_can_be_looked_up_by_tables_made_of_it() -> None:
    def often(windows: TimeWindowedKStream[str, str]) -> KTable[Windowed[str], int]:
        return windows.count().filter(lambda window, n: n > 1, store="often").map_values(lambda n: n * 10)

    run = Run(often, tumbling(10))
    assert run.emitted(*at(5, 7)) == [("k", 0, 10, 20, 7)]


def test_a_window_in_which_an_aggregate_is_none_begins_anew() -> None:
    def small(windows: TimeWindowedKStream[str, str]) -> KTable[Windowed[str], int]:
        return windows.aggregate(lambda: 0, lambda key, value, n: n + 1 if n < 2 else None, value=int)

    values = [value for *_, value, _ in Run(small, tumbling(10)).emitted(*at(1, 2, 3, 4))]
    assert values == [1, 2, None, 1]


def test_unlimited_windows_begin_at_a_time_and_hold_all_from_there() -> None:
    run = Run(count, UnlimitedWindows.of(start_ms=10))
    assert [(start, n) for _, start, _, n, _ in run.emitted(*at(9, 10, 500, 11))] == [(10, 1), (10, 2), (10, 3)]
    assert run.driver.dropped_records == 0


def test_rows_are_kept_for_as_long_as_windows_are_open_or_longer() -> None:
    def spec(windows: FixedWindows, **options: Any) -> WindowStoreSpec:
        builder = StreamsBuilder()
        grouped = builder.stream("in", key=str, value=str).group_by_key()
        grouped.windowed_by(windows).count(store=Materialized(name="w", **options))
        found = builder.build().stores["w"]
        assert isinstance(found, WindowStoreSpec)
        return found

    assert spec(tumbling(10, grace_ms=5)).retention_ms == 15
    assert spec(sliding(10, grace_ms=5)).retention_ms == 25
    assert spec(tumbling(10, grace_ms=5), retention=ms(16)).retention_ms == 16
    assert spec(tumbling(10)).topic_config["cleanup.policy"] == "compact,delete"
    assert spec(tumbling(10), retention=ms(1000)).topic_config["retention.ms"] == str(1000 + 24 * 60 * 60 * 1000)
    with pytest.raises(TopologyError, match="store w: a retention of 14 ms is too short"):
        spec(tumbling(10, grace_ms=5), retention=ms(14))
    with pytest.raises(TopologyError, match="store w: max_entries="):
        spec(tumbling(10), max_entries=5)


def test_a_driver_reads_windows_as_the_topology_writes_them() -> None:
    run = Run(count, tumbling(10))
    run.emitted(*at(5))
    other = run.driver.output_topic("out", key=time_windowed(str, 20), value=int)
    run.inputs.pipe_input("k", "v", 6)
    assert other.read_record().key == Windowed("k", 0, 20)
    run.inputs.pipe_input("k", "v", 7)
    assert run.out.read_record().key == Windowed("k", 0, 10)


# -- What is refused -------------------------------------------------------------------------------------------------


def refused(make: Callable[[Any], object], message: str) -> None:
    grouped = StreamsBuilder().stream("in", key=str, value=str).group_by_key()
    with pytest.raises(TopologyError, match=message):
        make(grouped)


@pytest.mark.parametrize("windows", [5, timedelta(seconds=5), None, "5s", TimeWindows])
def test_windows_are_windows(windows: Any) -> None:
    refused(lambda grouped: grouped.windowed_by(windows), "windowed_by needs windows, such as TimeWindows.of_size")


def test_a_strategy_is_a_strategy() -> None:
    refused(lambda grouped: grouped.windowed_by(tumbling(5)).emit_strategy("close"), "emit_strategy needs EmitStrategy")


def test_unlimited_windows_never_close() -> None:
    windows = UnlimitedWindows.of()
    refused(lambda grouped: grouped.windowed_by(windows).emit_strategy(ON_CLOSE), "unlimited windows never close")


def test_an_idle_timeout_needs_windows_that_are_emitted_on_close() -> None:
    refused(
        lambda grouped: grouped.windowed_by(tumbling(5), idle_timeout=ms(5)).count(name="n"),
        r"node n: idle_timeout=.*add \.emit_strategy\(EmitStrategy.on_window_close",
    )


@pytest.mark.parametrize("timeout", [5, timedelta(0), timedelta(seconds=-1)])
def test_an_idle_timeout_is_a_timedelta(timeout: Any) -> None:
    refused(lambda grouped: grouped.windowed_by(tumbling(5), idle_timeout=timeout), "idle_timeout is")


def test_on_late_is_a_function() -> None:
    async def tell(record: LateRecord[str, str]) -> None: ...

    refused(lambda grouped: grouped.windowed_by(tumbling(5), on_late=5), "on_late=.* needs a function, not 5")
    refused(lambda grouped: grouped.windowed_by(tumbling(5), on_late=tell), "async function")


def test_two_windowed_tables_cannot_share_a_store() -> None:
    builder = StreamsBuilder()
    grouped = builder.stream("in", key=str, value=str).group_by_key()
    grouped.windowed_by(tumbling(5)).count(store="w")
    with pytest.raises(TopologyError, match="two stores are called 'w'"):
        grouped.windowed_by(tumbling(6)).count(store="w")


@pytest.mark.parametrize(
    "make",
    [
        lambda: TimeWindows.of_size(timedelta(seconds=1)),
        lambda: SlidingWindows.of_time_difference(timedelta(seconds=1)),
        lambda: SessionWindows.of_inactivity_gap(timedelta(seconds=1)),
        lambda: JoinWindows.of_time_difference(timedelta(seconds=1)),
    ],
)
def test_windows_without_a_grace_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(TopologyError, match=r"windows need a grace: .* grace=timedelta\(0\) if late ones should not"):
        make()
