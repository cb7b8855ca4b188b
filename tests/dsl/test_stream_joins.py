"""Joins of two streams: which pairs come out and when, across restarts too; names and stores; what is refused.

The exact cases are those of Kafka Streams' own tests (`StreamStreamJoinIntegrationTest`, `KStreamKStreamOuterJoinTest`,
`RelaxedNullKeyRequirementJoinTest`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlib import (
    JoinWindows,
    KStream,
    Materialized,
    StreamsBuilder,
    StreamsConfig,
    TimeWindows,
    Topology,
    TopologyError,
)
from streamlib.errors import StreamsError
from streamlib.testing import TopologyTestDriver
from tests.testing.restarts import keep_disks, lose_disks

Restart = Callable[[TopologyTestDriver], None]
Input = tuple[str, str | None, str | None, int]
"""Topic, key, value, time."""


def ms(milliseconds: int) -> timedelta:
    return timedelta(milliseconds=milliseconds)


def within(difference_ms: int, grace_ms: int = 0) -> JoinWindows:
    return JoinWindows.of_time_difference(ms(difference_ms), grace=ms(grace_ms))


def between(before_ms: int, after_ms: int, grace_ms: int = 0) -> JoinWindows:
    """The wider half first: a window is never empty in between."""
    wide = within(abs(before_ms) + abs(after_ms), grace_ms)
    return (
        wide.after(ms(after_ms)).before(ms(before_ms))
        if after_ms > 0
        else wide.before(ms(before_ms)).after(ms(after_ms))
    )


def both(left: str | None, right: str | None) -> str:
    return f"{left}-{right}"


def text(builder: StreamsBuilder, topic: str) -> KStream[str, str]:
    return builder.stream(topic, key=str, value=str)


def steps_of(step: str, windows: Any, **options: Any) -> Callable[[StreamsBuilder], None]:
    """Streams L and R joined into `out`."""
    return lambda builder: getattr(text(builder, "L"), step)(text(builder, "R"), both, windows, **options).to("out")


def topology_of(steps: Callable[[StreamsBuilder], None], **options: Any) -> Topology:
    builder = StreamsBuilder(**options)
    steps(builder)
    return builder.build()


class Run:
    """A driver of a topology that writes to `out`."""

    def __init__(self, steps: Callable[[StreamsBuilder], None], *, optimize: bool = False, **config: Any) -> None:
        configured = StreamsConfig(application_id="app", **config)
        self.driver = TopologyTestDriver(topology_of(steps, optimize=optimize), config=configured)
        self.out = self.driver.output_topic("out", key=str, value=str)

    def pipe(self, *records: Input) -> list[str]:
        """What the records lead to, as `key:value@time`."""
        for topic, key, value, time in records:
            self.driver.input_topic(topic, key=str, value=str).pipe_input(key, value, time)
        return [f"{record.key}:{record.value}@{record.timestamp}" for record in self.out.read_records()]


def joined(step: str, windows: Any, **options: Any) -> Run:
    return Run(steps_of(step, windows, **options))


# -- Pairs -----------------------------------------------------------------------------------------------------------

VALUES = [
    *("L - 1", "R - 2", "L A 3", "R a 4", "L B 5", "R b 6", "L - 7", "R - 8", "L C 9", "R c 10"),
    *("R - 11", "L - 12", "R - 13", "R d 14", "L D 15"),
]
COMMON: list[Input] = [
    *((topic, "k", None if value == "-" else value, int(time)) for topic, value, time in map(str.split, VALUES)),
    ("L", None, "E", 16),
    ("R", None, "e", 17),
]
PAIRS = {
    4: "A-a",
    5: "B-a",
    6: "A-b B-b",
    9: "C-a C-b",
    10: "A-c B-c C-c",
    14: "A-d B-d C-d",
    15: "D-a D-b D-c D-d",
}
DAY_OF_GRACE = JoinWindows.of_time_difference(timedelta(seconds=10), grace=timedelta(days=1))


@pytest.mark.parametrize(
    ("step", "alone"),
    [
        ("join", {}),
        ("left_join", {16: "None:E-None@16"}),
        ("outer_join", {16: "None:E-None@16", 17: "None:None-e@17"}),
    ],
)
@pytest.mark.parametrize("rekeyed", [False, True])
def test_c1_c2_c3_all_pairs_in_the_order_of_the_other_sides_times(
    step: str, alone: dict[int, str], rekeyed: bool
) -> None:
    def steps(builder: StreamsBuilder) -> None:
        left, right = text(builder, "L"), text(builder, "R")
        if rekeyed:
            left, right = (each.map(lambda key, value: (key, value), key=str, value=str) for each in (left, right))
        getattr(left, step)(right, both, DAY_OF_GRACE).to("out")

    run = Run(steps)
    for record in COMMON:
        time = record[3]
        pairs = [f"k:{pair}@{time}" for pair in PAIRS.get(time, "").split()]
        assert run.pipe(record) == pairs + ([alone[time]] if time in alone else []), record


@pytest.mark.parametrize("optimize", [False, True])
def test_c4_a_stream_joined_with_itself(optimize: bool) -> None:
    def steps(builder: StreamsBuilder) -> None:
        stream = text(builder, "in")
        stream.join(stream, both, DAY_OF_GRACE).to("out")

    run = Run(steps, optimize=optimize)
    expected = {
        "A": "A-A",
        "B": "B-A A-B B-B",
        "C": "C-A C-B A-C B-C C-C",
        "D": "D-A D-B D-C A-D B-D C-D D-D",
    }
    for time, value in enumerate([None, "A", "B", None, "C", None, "D"], start=1):
        pairs = expected[value].split() if value else []
        assert run.pipe(("in", "k", value, time)) == [f"k:{pair}@{time}" for pair in pairs]


def test_c35_null_keys_of_an_outer_side_pass_a_repartition_and_are_emitted_at_once() -> None:
    def steps(builder: StreamsBuilder) -> None:
        left, right = (
            text(builder, topic).select_key(lambda key, value: None if value == "lost" else key, key=str)
            for topic in ("L", "R")
        )
        left.left_join(right, both, within(5)).to("out")
        text(builder, "L2").outer_join(text(builder, "R2"), both, within(5)).to("out")

    run = Run(steps)
    assert run.pipe(("L", "a", "lost", 5), ("R", "a", "lost", 5)) == ["None:lost-None@5"]
    assert run.pipe(("L2", None, "l", 1), ("R2", None, "r", 0)) == ["None:l-None@1", "None:None-r@0"]


def test_what_a_match_is_made_of() -> None:
    run = joined("outer_join", within(5))
    left, right = (run.driver.input_topic(topic, key=str, value=str) for topic in ("L", "R"))
    left.pipe_input("a", "1", 10, (("of", b"left"),))
    left.pipe_input("b", "2", 11, (("of", b"left"),))
    right.pipe_input("a", "3", 8, (("of", b"right"),))
    right.pipe_input("c", "4", 20, (("of", b"late"),))
    found = [(r.key, r.value, r.timestamp, r.headers) for r in run.out.read_records()]
    assert found == [("a", "1-3", 10, (("of", b"right"),)), ("b", "2-None", 11, (("of", b"late"),))]


def test_the_joiner_may_get_the_key() -> None:
    def steps(builder: StreamsBuilder) -> None:
        text(builder, "L").join(text(builder, "R"), lambda k, x, y: k + x + y, within(5), with_key=True).to("out")

    assert Run(steps).pipe(("R", "k", "r", 1), ("L", "k", "l", 2)) == ["k:klr@2"]


# -- Records without a match -----------------------------------------------------------------------------------------


def s(side: int, key: int, value: str, time: int) -> Input:
    """A record as in `KStreamKStreamOuterJoinTest`."""
    return "LR"[side - 1], str(key), value, time


def test_c17_without_a_match_when_the_window_has_closed() -> None:
    run = joined("outer_join", within(100))
    assert run.pipe(s(1, 0, "A0", 1), s(1, 1, "A1", 2), s(1, 0, "A0-0", 3)) == []
    assert run.pipe(s(2, 1, "11", 3)) == ["1:A1-11@3"]
    assert run.pipe(s(2, 2, "100", 401)) == ["0:A0-None@1", "0:A0-0-None@3"]
    assert run.pipe(s(1, 2, "dummy", 402)) == ["2:dummy-100@402"]


def test_c18_those_before_come_out_before_the_match_of_the_record_that_closed_them() -> None:
    run = joined("outer_join", within(100))
    assert run.pipe(s(1, 0, "A0", 0), s(1, 1, "A1", 100)) == []
    assert run.pipe(s(2, 1, "11", 110)) == ["0:A0-None@0", "1:A1-11@110"]


def test_c19_grace_keeps_windows_open_and_the_right_side_comes_first() -> None:
    run = joined("outer_join", within(100, 10))
    assert run.pipe(s(1, 0, "A0", 0), s(2, 1, "11", 0), s(1, 1, "A1", 101), s(2, 0, "10", 101)) == []
    assert run.pipe(s(2, 0, "100", 112)) == ["1:None-11@0", "0:A0-None@0"]


def test_c20_halves_of_different_length_close_each_for_itself() -> None:
    run = joined("outer_join", between(5, 20))
    assert run.pipe(s(1, 0, "A0", 29), s(1, 1, "A1", 30), s(2, 2, "12", 31), s(2, 3, "13", 36)) == []
    assert run.pipe(s(2, 4, "14", 37)) == ["2:None-12@31"]
    assert run.pipe(s(2, 5, "15", 50)) == ["0:A0-None@29", "3:None-13@36", "4:None-14@37"]


def test_c21_a_window_that_only_looks_ahead() -> None:
    run = joined("outer_join", between(0, 100))
    assert run.pipe(s(1, 0, "A0", 0), s(1, 1, "A1", 1)) == []
    assert run.pipe(s(2, 0, "10", 100)) == ["0:A0-10@100"]
    assert run.pipe(s(2, 1, "11", 102)) == ["1:A1-None@1"]
    assert run.pipe(s(2, 2, "12", 103)) == ["1:None-11@102"]
    assert run.pipe(s(1, 2, "A2", 103)) == ["2:A2-12@103"]


def test_eager_windows_do_not_wait_and_are_not_corrected() -> None:
    run = joined("outer_join", JoinWindows.eager(ms(5)))
    assert run.pipe(("L", "a", "1", 10)) == ["a:1-None@10"]
    assert run.pipe(("R", "a", "2", 11)) == ["a:1-2@11"]
    assert run.pipe(("R", "a", "3", 16)) == ["a:None-3@16"]
    assert run.pipe(("R", None, "4", 16), ("R", "a", None, 16)) == ["None:None-4@16"]


def test_a_joiner_that_fails_loses_only_the_record_it_fails_for() -> None:
    def failing(left: str | None, right: str | None) -> str:
        assert left != "bad"
        return both(left, right)

    def steps(builder: StreamsBuilder) -> None:
        text(builder, "L").left_join(text(builder, "R"), failing, within(5)).to("out")

    run = Run(steps, on_processing_error="skip")
    assert run.pipe(("L", "a", "1", 1), ("L", "b", "bad", 2), ("L", "c", "3", 3)) == []
    assert run.pipe(("R", "x", "y", 100)) == ["a:1-None@1"]
    assert run.pipe(("R", "x", "y", 100)) == ["c:3-None@3"]


# -- Restarts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restart", [keep_disks, lose_disks])
def test_stream_time_and_waiting_records_survive_a_restart(restart: Restart) -> None:
    run = joined("outer_join", within(10, 5))
    assert run.pipe(("L", "a", "1", 100), ("L", "a", "2", 100), ("R", "b", "3", 101), ("L", "c", None, 110)) == []
    restart(run.driver)
    assert run.pipe(("L", "d", "late", 99)) == ["d:late-None@99"]  # its window closed at 109
    assert run.pipe(("R", "a", "4", 105)) == ["a:1-4@105", "a:2-4@105"]
    restart(run.driver)
    assert run.pipe(("R", "x", "y", 200)) == ["b:None-3@101"]


@pytest.mark.parametrize("restart", [keep_disks, lose_disks])
def test_when_to_look_at_what_waits_survives_a_restart(restart: Restart) -> None:
    """It goes back with a record of the right input, while the left one's commit says something higher."""
    run = joined("outer_join", within(10))
    assert run.pipe(("L", "a", "1", 10), ("R", "b", "2", 8)) == []
    restart(run.driver)
    assert run.pipe(("L", "c", "3", 19)) == ["b:None-2@8"]
    assert run.pipe(("L", "d", "4", 20)) == []
    restart(run.driver)
    assert run.pipe(("L", "e", "5", 30)) == ["a:1-None@10", "c:3-None@19"]


class Model:
    """What comes out, by lists: pairs by looking at all records, and those without a match as `KStreamKStreamJoin`."""

    def __init__(self, step: str, windows: JoinWindows) -> None:
        self.windows = windows
        self.outer = {"L": step != "join", "R": step == "outer_join"}
        self.halves = {"L": (windows.before_ms, windows.after_ms), "R": (windows.after_ms, windows.before_ms)}
        self.kept: dict[str, list[tuple[int, int, str, str]]] = {"L": [], "R": []}  # time, arrival, key, value
        self.waiting: list[tuple[int, int, str, int, str]] = []  # time, side (right first), key, arrival, value
        self.now = self.arrivals = -1
        self.earliest: int | None = None

    def pipe(self, side: str, key: str | None, value: str | None, time: int) -> list[str]:
        self.now, self.arrivals = max(self.now, time), self.arrivals + 1
        if value is None:
            return []
        if key is None:
            return [self.pair(side, key, value, None, time)] if self.outer[side] else []
        other = "R" if side == "L" else "L"
        before, after = self.halves[side]
        out = self.closed(after) if time == self.now else []
        found = [
            each
            for each in sorted(self.kept[other])
            if each[2] == key and max(0, time - before) <= each[0] <= max(0, time + after) and self.seen(other, each[0])
        ]
        for at, _, _, match in found:
            self.waiting = [each for each in self.waiting if each[:3] != (at, int(other == "L"), key)]
            out.append(self.pair(side, key, value, match, max(at, time)))
        if not found and self.outer[side]:
            if max(0, time + after) < self.now:
                out.append(self.pair(side, key, value, None, time))
            else:
                self.waiting.append((time, int(side == "L"), key, self.arrivals, value))
                self.earliest = time if self.earliest is None else min(self.earliest, time)
        self.kept[side].append((time, self.arrivals, key, value))
        return out

    def seen(self, side: str, time: int) -> bool:
        kept_ms = self.windows.before_ms + self.windows.after_ms + self.windows.grace_ms
        return time > max(each[0] for each in self.kept[side]) - kept_ms

    def closed(self, after_ms: int) -> list[str]:
        grace = self.windows.grace_ms
        if self.earliest is None or self.earliest + after_ms + grace >= self.now:
            return []
        out: list[str] = []
        still_open: set[int] = set()
        self.earliest = None
        places = sorted({each[:3] for each in self.waiting})
        for time, side, key in places:
            self.earliest = time
            if len(still_open) == 2:
                break
            name = "RL"[side]
            if time + self.halves[name][1] + grace >= self.now:
                still_open.add(side)
                continue
            gone = sorted(each for each in self.waiting if each[:3] == (time, side, key))
            self.waiting = [each for each in self.waiting if each not in gone]
            out += [self.pair(name, key, value, None, time) for *_, value in gone]
        return out

    @staticmethod
    def pair(side: str, key: str | None, own: str, match: str | None, time: int) -> str:
        return f"{key}:{both(own, match) if side == 'L' else both(match, own)}@{time}"


def in_order_mostly(steps: list[tuple[str, str | None, str | None, int]]) -> list[Input]:
    """Each record so many milliseconds after the latest before it."""
    records, now = [], 0
    for topic, key, value, step in steps:
        records.append((topic, key, value, max(0, now + step)))
        now = max(now, now + step)
    return records


RECORDS = st.lists(
    st.tuples(
        st.sampled_from("LR"),
        st.sampled_from(["a", "a", "b", "b", "c", None]),
        st.sampled_from(["x", "y", "z", "x", "y", "z", None]),
        st.integers(-12, 8),
    ),
    max_size=50,
).map(in_order_mostly)
WINDOWS = st.builds(between, st.integers(-3, 10), st.integers(3, 10), st.integers(0, 6)) | st.builds(
    between, st.integers(3, 10), st.integers(-3, 10), st.integers(0, 6)
)


@settings(max_examples=150)
@given(
    st.sampled_from(["join", "left_join", "outer_join"]),
    WINDOWS,
    RECORDS,
    st.dictionaries(st.integers(0, 50), st.sampled_from([keep_disks, lose_disks])),
)
def test_a_join_does_what_lists_would_whenever_it_is_restarted(
    step: str, windows: JoinWindows, records: list[Input], restarts: dict[int, Restart]
) -> None:
    run, model = joined(step, windows), Model(step, windows)
    for number, record in enumerate(records):
        if number in restarts:
            restarts[number](run.driver)
        assert run.pipe(record) == model.pipe(*record), record
    run.driver.close()


@settings(max_examples=60)
@given(WINDOWS, RECORDS)
def test_one_store_is_as_good_as_two_for_a_self_join(windows: JoinWindows, records: list[Input]) -> None:
    def steps(builder: StreamsBuilder) -> None:
        stream = text(builder, "in")
        stream.join(stream, both, windows).to("out")

    plain, optimized = Run(steps), Run(steps, optimize=True)
    assert len(topology_of(steps, optimize=True).stores) == 1
    for _, key, value, time in records:
        assert optimized.pipe(("in", key, value, time)) == plain.pipe(("in", key, value, time))


# -- Names and stores --------------------------------------------------------------------------------------------------


def test_stores_are_called_after_one_name_or_a_pair() -> None:
    def names(step: str, store: Any) -> list[str]:
        return sorted(topology_of(steps_of(step, within(5), store=store)).stores)

    assert names("join", "s") == ["s-other-join-store", "s-this-join-store"]
    assert names("left_join", "s") == ["s-left-shared-join-store", "s-outer-other-join-store", "s-this-join-store"]
    assert names("outer_join", "s") == [
        "s-outer-other-join-store",
        "s-outer-shared-join-store",
        "s-outer-this-join-store",
    ]
    assert names("left_join", ("l", "r")) == ["l", "l-left-shared-join-store", "r"]
    assert names("left_join", (None, "r")) == [
        "KSTREAM-JOINTHIS-0000000004-store",
        "KSTREAM-OUTERSHARED-0000000004-store",
        "r",
    ]


def test_named_joins_pass_strict_naming() -> None:
    def steps(builder: StreamsBuilder) -> None:
        left, right = (text(builder, topic).select_key(lambda key, value: value, key=str) for topic in ("L", "R"))
        left.left_join(right, both, within(5), name="pairs", store="pairs").to("out")
        left.outer_join(right, both, within(5), name="more", store=("left", "right")).to("out")

    topics = topology_of(steps, strict_naming=True).repartition_topics
    assert [name for name in topics if name.startswith("pairs")] == [
        "pairs-left-repartition",
        "pairs-right-repartition",
    ]
    with pytest.raises(TopologyError, match="strict_naming"):
        topology_of(steps_of("join", within(5), name="pairs"), strict_naming=True)


def test_how_records_are_kept() -> None:
    kept = Materialized(persistent=False, changelog_config={"segment.ms": "1000"})
    stores = topology_of(steps_of("outer_join", between(5, 20, 3), store=kept)).stores
    this, waiting = (stores[f"KSTREAM-{side}-0000000004-store"] for side in ("OUTERTHIS", "OUTERSHARED"))
    assert this.topic_config == {"cleanup.policy": "delete", "retention.ms": "86400028", "segment.ms": "1000"}
    assert waiting.topic_config == {"cleanup.policy": "compact", "segment.ms": "1000"}
    assert not any(spec.persistent for spec in stores.values())
    unlogged = topology_of(steps_of("left_join", within(5), store=Materialized(changelog=False))).stores
    assert not any(spec.changelog for spec in unlogged.values())


def test_eager_joins_have_no_store_of_what_waits() -> None:
    assert len(topology_of(steps_of("outer_join", JoinWindows.eager(ms(5)))).stores) == 2


def test_a_rekeyed_stream_joined_with_itself_is_repartitioned_once() -> None:
    def steps(builder: StreamsBuilder) -> None:
        stream = text(builder, "in").select_key(lambda key, value: value, key=str)
        stream.join(stream, both, within(5)).to("out")

    topology = topology_of(steps)
    assert list(topology.repartition_topics) == ["KSTREAM-KEY-SELECT-0000000001-repartition"]
    # Counted as if there were two.
    assert "KSTREAM-WINDOWED-0000000008" in topology.nodes
    assert Run(steps).pipe(("in", "k", "v", 1)) == ["v:v-v@1"]


def test_a_join_is_joined_and_counted() -> None:
    def steps(builder: StreamsBuilder) -> None:
        pairs = text(builder, "L").join(text(builder, "R"), both, within(5))
        counts = pairs.group_by_key().windowed_by(TimeWindows.of_size(ms(10), grace=ms(0))).count()
        counts.to_stream(lambda window, count: window.key, key=str).map_values(str, value=str).to("out")

    assert Run(steps).pipe(("L", "k", "l", 1), ("R", "k", "r", 2), ("R", "k", "r", 3)) == ["k:1@2", "k:2@3"]


# -- What is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("windows", [None, timedelta(seconds=5), TimeWindows.of_size(ms(5), grace=ms(0))])
@pytest.mark.parametrize("step", ["join", "left_join", "outer_join"])
def test_streams_are_joined_within_windows(step: str, windows: Any) -> None:
    with pytest.raises(TopologyError, match=rf"{step} of KSTREAM-SOURCE-\d+ with the stream .* needs JoinWindows"):
        topology_of(steps_of(step, windows))
    b = StreamsBuilder()
    with pytest.raises(TopologyError, match="needs JoinWindows"):
        getattr(text(b, "L"), step)(text(b, "R"), both)


def test_both_sides_grow_in_one_builder() -> None:
    left, right = text(StreamsBuilder(), "L"), text(StreamsBuilder(), "R")
    with pytest.raises(TopologyError, match=r"join of KSTREAM-SOURCE-\d+ and .*: they come from two StreamsBuilders"):
        left.join(right, both, within(5))


def test_what_is_for_other_right_sides() -> None:
    b = StreamsBuilder()
    left, right, table = text(b, "L"), text(b, "R"), b.table("T", key=str, value=str)
    join: Any = left.join
    with pytest.raises(TopologyError, match="join with a table: windows= is of no use there"):
        join(table, both, within(5))
    with pytest.raises(TopologyError, match="join with a table: store= is of no use there"):
        join(table, both, store="s")
    with pytest.raises(TopologyError, match="join with a stream: grace= is of no use there"):
        join(right, both, within(5), grace=ms(5))
    outer: Any = left.outer_join
    with pytest.raises(TopologyError, match=r"outer_join needs a stream on the right, not .*KTable"):
        outer(table, both, within(5))
    with pytest.raises(TopologyError, match="join needs a stream, a table or a global table on the right, not 'R'"):
        join("R", both, within(5))


@pytest.mark.parametrize(
    ("store", "message"),
    [
        (Materialized(retention=ms(50)), r"retention= is of no use in a join of streams"),
        (Materialized(name="s", max_entries=3), r"store s-this-join-store: max_entries= is of no use"),
        ((None, Materialized(ttl=ms(5))), r"store KSTREAM-JOINOTHER-0000000005-store: ttl= is of no use"),
        (("s", "s"), r"two stores are called 's'"),
        (("s",), r"store= is one option for both sides or a pair"),
        (5, r"store= is a name or Materialized"),
        ("not a name", r"a store cannot have the name"),
    ],
)
def test_stores_of_a_join(store: Any, message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        topology_of(steps_of("join", within(5), store=store))


def test_two_joins_do_not_share_stores() -> None:
    b = StreamsBuilder()
    left, right = text(b, "L"), text(b, "R")
    left.join(right, both, within(5), store="s")
    with pytest.raises(TopologyError, match=r"two stores are called 's-this-join-store': .* another name by store="):
        left.join(right, both, within(5), store="s")


def test_names_of_nodes() -> None:
    with pytest.raises(TopologyError, match="a node cannot have the name 'not a name-this-windowed'"):
        topology_of(steps_of("join", within(5), name="not a name"))
    b = StreamsBuilder()
    text(b, "L").join(text(b, "R"), both, within(5), name="j")
    with pytest.raises(TopologyError, match="j-this-windowed"):
        text(b, "L").join(text(b, "R"), both, within(5), name="j")


@pytest.mark.parametrize(
    "make",
    [
        lambda duration: JoinWindows.of_time_difference(duration, grace=ms(0)),
        lambda duration: JoinWindows.of_time_difference(ms(5), grace=duration),
        lambda duration: within(5).before(duration),
        lambda duration: within(5).after(duration),
        lambda duration: JoinWindows.eager(duration),
    ],
)
def test_durations_are_timedeltas(make: Callable[[Any], JoinWindows]) -> None:
    with pytest.raises(TopologyError, match=r"window is a datetime.timedelta such as .*, not 5"):
        make(5)


def test_windows_are_not_empty() -> None:
    with pytest.raises(TopologyError, match="is not negative"):
        within(-1)
    with pytest.raises(TopologyError, match="the window is empty"):
        within(5).before(ms(-6))


def test_a_joiner_that_raises_stops_the_task() -> None:
    def failing(left: str, right: str) -> str:
        raise ValueError("no")

    run = Run(lambda b: text(b, "L").join(text(b, "R"), failing, within(5), name="pairs").to("out"))
    with pytest.raises(StreamsError, match=r"node pairs-other-join: ValueError: no \(key 'k'\)"):
        run.pipe(("L", "k", "l", 1), ("R", "k", "r", 1))
