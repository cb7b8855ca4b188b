"""Joins of two streams: Kafka Streams' own test inputs, brute force, restarts, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlib import JoinWindows, KStream, StreamsBuilder, Topology, TopologyError
from streamlib.testing import TopologyTestDriver
from tests.testing.restarts import keep_disks, lose_disks

Input = tuple[str, str | None, str | None, int]
"""Topic, key, value, timestamp."""
DAY = timedelta(days=1)
NOTHING = timedelta(0)


def ms(milliseconds: int) -> timedelta:
    return timedelta(milliseconds=milliseconds)


def within(difference: int, grace: int = 0) -> JoinWindows:
    return JoinWindows.of_time_difference(ms(difference), grace=ms(grace))


def text(builder: StreamsBuilder, topic: str) -> KStream[str, str]:
    return builder.stream(topic, key=str, value=str)


def joined(method: str, windows: JoinWindows, *, sign: str = "+", rekeyed: bool = False) -> Topology:
    """Left and right, joined to `left+right`."""
    builder = StreamsBuilder()
    left, right = text(builder, "L"), text(builder, "R")
    if rekeyed:
        left, right = (each.map(lambda key, value: (key, value)) for each in (left, right))
    getattr(left, method)(right, lambda x, y: f"{x or 'null'}{sign}{y or 'null'}", windows).to("out")
    return builder.build()


def emitted(driver: TopologyTestDriver) -> list[str]:
    out = driver.output_topic("out", key=str, value=str)
    return [f"{record.key}:{record.value}@{record.timestamp}" for record in out.read_records()]


def run(topology: Topology, *inputs: Input) -> list[list[str]]:
    """What each input brings out, as `key:value@time`."""
    with TopologyTestDriver(topology) as driver:
        outputs = []
        for topic, key, value, timestamp in inputs:
            driver.input_topic(topic, key=str, value=str).pipe_input(key, value, timestamp_ms=timestamp)
            outputs.append(emitted(driver))
        return outputs


# -- One key, values one after the other, as in Kafka Streams' tests of all kinds of joins ---------------------------

IN: list[Input] = [
    ("L", "0", None, 1), ("R", "0", None, 2), ("L", "0", "A", 3), ("R", "0", "a", 4), ("L", "0", "B", 5),
    ("R", "0", "b", 6), ("L", "0", None, 7), ("R", "0", None, 8), ("L", "0", "C", 9), ("R", "0", "c", 10),
    ("R", "0", None, 11), ("L", "0", None, 12), ("R", "0", None, 13), ("R", "0", "d", 14), ("L", "0", "D", 15),
    ("L", None, "E", 16), ("R", None, "e", 17),
]  # fmt: skip
INNER = {
    4: ["A-a"], 5: ["B-a"], 6: ["A-b", "B-b"], 9: ["C-a", "C-b"], 10: ["A-c", "B-c", "C-c"],
    14: ["A-d", "B-d", "C-d"], 15: ["D-a", "D-b", "D-c", "D-d"],
}  # fmt: skip


@pytest.mark.parametrize("rekeyed", [False, True])
@pytest.mark.parametrize(
    ("method", "more"),
    [("join", {}), ("left_join", {16: ["E-null"]}), ("outer_join", {16: ["E-null"], 17: ["null-e"]})],
)
def test_all_pairs_within_the_window(method: str, more: dict[int, list[str]], rekeyed: bool) -> None:
    windows = JoinWindows.of_time_difference(timedelta(seconds=10), grace=DAY)
    outputs = run(joined(method, windows, sign="-", rekeyed=rekeyed), *IN)
    expected = {**INNER, **more}
    for (_, key, _, timestamp), output in zip(IN, outputs, strict=True):
        assert output == [f"{key}:{pair}@{timestamp}" for pair in expected.get(timestamp, [])]


@pytest.mark.parametrize("optimize", [False, True])
def test_a_stream_joined_with_itself(optimize: bool) -> None:
    builder = StreamsBuilder(optimize=optimize)
    stream = text(builder, "L")
    stream.join(stream, lambda x, y: f"{x}-{y}", JoinWindows.of_time_difference(ms(10), grace=DAY)).to("out")
    values = [("A", 2), ("B", 3), (None, 4), ("C", 5), (None, 6), ("D", 7)]
    outputs = run(builder.build(), *[("L", "0", value, timestamp) for value, timestamp in values])
    pairs = [[each.split(":")[1].split("@")[0] for each in output] for output in outputs]
    assert pairs == [
        ["A-A"],
        ["B-A", "A-B", "B-B"],
        [],
        ["C-A", "C-B", "A-C", "B-C", "C-C"],
        [],
        ["D-A", "D-B", "D-C", "A-D", "B-D", "C-D", "D-D"],
    ]


# -- When records without a match come out ---------------------------------------------------------------------------


def test_unmatched_records_come_out_when_the_window_has_passed() -> None:
    outputs = run(
        joined("outer_join", within(100)),
        ("L", "0", "A0", 1), ("L", "1", "A1", 2), ("L", "0", "A0-0", 3), ("R", "1", "11", 3),
        ("R", "2", "100", 401), ("L", "2", "dummy", 402),
    )  # fmt: skip
    assert outputs == [[], [], [], ["1:A1+11@3"], ["0:A0+null@1", "0:A0-0+null@3"], ["2:dummy+100@402"]]


def test_what_is_released_comes_before_the_matches_of_the_record_that_releases_it() -> None:
    outputs = run(joined("outer_join", within(100)), ("L", "0", "A0", 0), ("L", "1", "A1", 100), ("R", "1", "11", 110))
    assert outputs[-1] == ["0:A0+null@0", "1:A1+11@110"]


def test_grace_holds_unmatched_records_back_and_right_comes_before_left() -> None:
    outputs = run(
        joined("outer_join", within(100, 10)),
        ("L", "0", "A0", 0), ("R", "1", "11", 0), ("L", "1", "A1", 101), ("R", "0", "10", 101), ("R", "0", "100", 112),
    )  # fmt: skip
    assert outputs == [[], [], [], [], ["1:null+11@0", "0:A0+null@0"]]


def test_the_halves_of_a_window_may_differ() -> None:
    outputs = run(
        joined("outer_join", within(5).after(ms(20))),
        ("L", "0", "A0", 29), ("L", "1", "A1", 30), ("R", "2", "12", 31), ("R", "3", "13", 36), ("R", "4", "14", 37),
        ("R", "5", "15", 50),
    )  # fmt: skip
    assert outputs == [
        [], [], [], [], ["2:null+12@31"], ["0:A0+null@29", "3:null+13@36", "4:null+14@37"]
    ]  # fmt: skip


def test_a_window_may_lie_wholly_after_the_left_record() -> None:
    outputs = run(
        joined("outer_join", within(0).after(ms(100))),
        ("L", "0", "A0", 0), ("L", "1", "A1", 1), ("R", "0", "10", 100), ("R", "1", "11", 102), ("R", "2", "12", 103),
        ("L", "2", "A2", 103),
    )  # fmt: skip
    assert outputs == [
        [], [], ["0:A0+10@100"], ["1:A1+null@1"], ["1:null+11@102"], ["2:A2+12@103"]
    ]  # fmt: skip


@pytest.mark.parametrize(("method", "expected"), [("left_join", 1), ("outer_join", 2)])
def test_records_without_a_key_go_through_a_repartition_topic_if_the_join_wants_them(
    method: str, expected: int
) -> None:
    inputs: list[Input] = [("L", None, "leftValue", 0), ("R", None, "rightValue", 0)]
    outputs = run(joined(method, within(100), sign="|", rekeyed=True), *inputs)
    both = ["None:leftValue|null@0", "None:null|rightValue@0"]
    assert [each for output in outputs for each in output] == both[:expected]


# -- Against brute force ---------------------------------------------------------------------------------------------

RECORDS = st.lists(st.tuples(st.sampled_from("LR"), st.sampled_from("ab"), st.integers(1_000, 1_300)), max_size=25)
HALVES = st.tuples(st.integers(-20, 60), st.integers(-20, 60)).filter(lambda halves: sum(halves) >= 0)
LONG_AGO = 100_000


def inputs_of(records: list[tuple[str, str, int]]) -> list[Input]:
    return [(side, key, f"{side}{number}", timestamp) for number, (side, key, timestamp) in enumerate(records)]


def pairs(inputs: list[Input], before: int, after: int) -> set[tuple[str, str]]:
    return {
        (str(x), str(y))
        for side, key, x, at in inputs
        for other_side, other_key, y, other_at in inputs
        if (side, other_side) == ("L", "R") and key == other_key and at - before <= other_at <= at + after
    }


@given(records=RECORDS, halves=HALVES)
def test_an_inner_join_emits_each_pair_once_at_its_later_time(
    records: list[tuple[str, str, int]], halves: tuple[int, int]
) -> None:
    windows = JoinWindows(*halves, grace_ms=1_000)
    inputs = inputs_of(records)
    times = {value: timestamp for _, _, value, timestamp in inputs}
    keys = {value: key for _, key, value, _ in inputs}
    outputs = [each for output in run(joined("join", windows), *inputs) for each in output]
    expected = [f"{keys[x]}:{x}+{y}@{max(times[x], times[y])}" for x, y in pairs(inputs, *halves)]
    assert sorted(outputs) == sorted(expected)


@given(records=RECORDS, halves=HALVES, method=st.sampled_from(["left_join", "outer_join"]))
def test_in_the_end_what_has_no_partner_has_come_out_alone_and_once(
    records: list[tuple[str, str, int]], halves: tuple[int, int], method: str
) -> None:
    # In the order of their times: one that is late and finds nothing is given up at once (`KStreamKStreamJoin`).
    inputs = sorted(inputs_of(records), key=lambda each: each[3])
    later: list[Input] = [("L", "z", "end", LONG_AGO), ("R", "z", "end", 2 * LONG_AGO), ("L", "z", "x", 3 * LONG_AGO)]
    outputs = [each for output in run(joined(method, JoinWindows(*halves, grace_ms=1_000)), *inputs, *later)
               for each in output if not each.startswith("z")]  # fmt: skip
    found = pairs(inputs, *halves)
    lonely_left = {x for side, _, x, _ in inputs if side == "L"} - {x for x, _ in found}
    lonely_right = {y for side, _, y, _ in inputs if side == "R"} - {y for _, y in found}
    expected = [f"{x}+{y}" for x, y in found] + [f"{x}+null" for x in lonely_left]
    if method == "outer_join":
        expected += [f"null+{y}" for y in lonely_right]
    assert sorted(each.split(":")[1].split("@")[0] for each in outputs) == sorted(expected)


@given(
    records=RECORDS,
    restarts=st.lists(st.sampled_from([None, None, None, keep_disks, lose_disks]), min_size=30, max_size=30),
)
def test_a_restart_loses_no_record_that_waits(
    records: list[tuple[str, str, int]], restarts: list[Callable[[TopologyTestDriver], None] | None]
) -> None:
    topology, inputs = joined("outer_join", within(40, 50)), inputs_of(records)
    inputs += [("L", "z", "end", LONG_AGO), ("R", "z", "end", 2 * LONG_AGO)]
    undisturbed = sorted(each for output in run(topology, *inputs) for each in output)
    with TopologyTestDriver(topology) as driver:
        outputs: list[str] = []
        for (topic, key, value, timestamp), restart in zip(inputs, restarts, strict=False):
            driver.input_topic(topic, key=str, value=str).pipe_input(key, value, timestamp_ms=timestamp)
            outputs += emitted(driver)
            if restart is not None:
                restart(driver)
        assert sorted(outputs) == undisturbed


# -- Refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (lambda s, t, g: s.join(s, max), "join of .* needs JoinWindows, such as"),
        (lambda s, t, g: s.left_join(s, max, timedelta(5)), "left_join of .* needs JoinWindows, .*not datetime"),
        (lambda s, t, g: s.join(s, max, within(5), key_selector=max), "a stream: key_selector= is of no use"),
        (lambda s, t, g: s.join(t, max, within(5)), "join with a table: windows= is of no use there"),
        (lambda s, t, g: s.join(g, max, within(5), key_selector=max), "a global table: windows= is of no use there"),
        (lambda s, t, g: s.join(g, max), "with the global table .* needs key_selector="),
        (lambda s, t, g: s.outer_join(t, max, within(5)), "outer_join needs a stream on the right"),
        (lambda s, t, g: s.join(5, max), "join needs a stream, a table or a global table on the right, not 5"),
        (lambda s, t, g: s.join(s, 5, within(5)), "join needs a function"),
        (lambda s, t, g: JoinWindows.of_time_difference(cast(Any, 5), grace=NOTHING), "a datetime.timedelta .*, not 5"),
        (lambda s, t, g: JoinWindows.of_time_difference(ms(-5), grace=NOTHING), "not negative"),
        (lambda s, t, g: within(5).before(ms(-6)), "the window is empty"),
    ],
)  # fmt: skip
def test_what_makes_no_join_is_refused(steps: Callable[[Any, Any, Any], object], message: str) -> None:
    builder = StreamsBuilder()
    with pytest.raises(TopologyError, match=message):
        steps(text(builder, "L"), builder.table("T", key=str, value=str), builder.global_table("G", key=str, value=str))


def test_streams_of_two_builders_are_not_joined() -> None:
    with pytest.raises(TopologyError, match="they come from two StreamsBuilders"):
        text(StreamsBuilder(), "L").join(text(StreamsBuilder(), "R"), max, within(5))


def test_under_strict_naming_the_stores_want_a_name() -> None:
    builder = StreamsBuilder(strict_naming=True)
    with pytest.raises(TopologyError, match=r"join\(store=...\)"):
        text(builder, "L").join(text(builder, "R"), max, within(5), name="pairs")
    builder = StreamsBuilder(strict_naming=True)
    text(builder, "L").outer_join(text(builder, "R"), lambda x, y: "", within(5), name="pairs", store="pairs").to("out")
    assert list(builder.build().stores) == [
        "pairs-outer-this-join-store",
        "pairs-outer-other-join-store",
        "pairs-outer-shared-join-store",
    ]
