"""Whole applications without a broker: what is compared how, what is a doubt, where a fault is."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from streamlib import (
    BufferConfig,
    JoinWindows,
    Materialized,
    ProcessorContext,
    PunctuationType,
    Record,
    StreamsBuilder,
    Suppressed,
    TimeWindows,
)
from streamlib.policies import DeadLetter
from streamlib.records import TopicPartition
from streamlib.verify.comparing import Kept
from streamlib.verify.effects import without_effects
from streamlib.verify.history import Consumed, Part
from streamlib.verify.report import Origin
from tests.engine.support import Fetched
from tests.verify.support import IN, OUT, Application, Line, faults, fetched

LINES: list[Line] = [("ann", "x", 1000), ("bob", "y", 2000), ("ann", "z", 3000), ("ann", "x", 4000)]
WORDS = "app-word-repartition"
SECOND = TopicPartition("in", 1)


def counted(builder: StreamsBuilder) -> None:
    builder.stream("in", key=str, value=str).group_by_key().count(store="counts").to_stream().to("out")


def counted_words(builder: StreamsBuilder) -> None:
    lines = builder.stream("in", key=str, value=str).flat_map_values(str.split)
    words = lines.group_by(lambda _, word: word, key=str, value=str, name="word")
    words.count(store="counts").to_stream().to("out")


def test_what_should_be_there_holds_record_by_record() -> None:
    reports = Application(counted, {IN: LINES}).verify()
    output = reports["out"]
    assert (output.expected, output.found, faults(output)) == (4, 4, {})
    assert output.compared == {"record by record": 2}
    assert output.reasons == ()
    assert reports["app-counts-changelog"].expected == 2


def test_a_fault_is_told_in_the_topology_s_own_types() -> None:
    app = Application(counted, {IN: LINES})
    lost = app.output[OUT].pop(2)
    assert lost.key == b"ann"
    (example,) = app.verify()["out"].examples
    assert (example.kind, example.key, example.expected, example.found) == ("missing", "'ann'", "3", None)
    assert example.input == Origin("in", 0, 3)


def test_a_row_that_its_changelog_has_otherwise_is_different() -> None:
    app = Application(counted, {IN: LINES})
    lane, (last,) = next(iter(app.changelog.items()))
    wrong = last._replace(content=last.content._replace(value=(7).to_bytes(8, "big")))
    app.changelog = {**app.changelog, lane: [wrong]}
    report = app.verify()["app-counts-changelog"]
    assert faults(report) == {"different": 1}
    (example,) = report.examples
    assert (example.key, example.found, example.expected) == ("'ann'", "7", "3")


def test_behind_a_repartition_topic_counts_are_compared_but_not_their_times() -> None:
    app = Application(counted_words, {IN: LINES, SECOND: LINES}, {"in": 2})
    report = app.verify()["out"]
    assert faults(report) == {}
    assert report.compared == {"counts in order": 3}
    assert report.reasons == ("records of several partitions meet, in an order that is not known",)


def test_what_waits_in_a_repartition_topic_is_not_missing_behind_it() -> None:
    """Of two records that are the same, the later one waits: the earlier is counted, and in its place."""
    app = Application(counted_words, {IN: [("a", "x", 5), ("b", "y", 5), ("c", "x", 5)]})
    app.pending = {TopicPartition(WORDS, 0): [Fetched(9, 5, b"x", b"x")]}
    app.output[OUT] = [record for record in app.output[OUT] if record.value != (2).to_bytes(8, "big")]
    reports = app.verify()
    assert faults(reports["out"]) == {}
    assert WORDS not in reports


def test_what_waits_there_and_nothing_leads_to_is_unexpected() -> None:
    app = Application(counted_words, {IN: LINES})
    app.pending = {TopicPartition(WORDS, 0): [Fetched(9, 5, b"q", b"q")]}
    report = app.verify()[WORDS]
    assert (report.kind, faults(report)) == ("repartition", {"unexpected": 1})
    assert (report.examples[0].partition, report.examples[0].offset) == (0, 9)


def test_an_input_whose_start_is_gone_can_be_told_only_on_request() -> None:
    app = Application(counted, {IN: LINES})
    records = fetched(LINES, start=10)
    app.inputs[IN] = Consumed(10, 14, 14, [Part(IN, 14, records)])
    assert app.verify()["out"].unknown
    app.from_beginning = True
    report = app.verify()["out"]
    assert not report.unknown
    assert faults(report) == {}


def test_read_from_latest_the_beginning_is_not_known() -> None:
    app = Application(counted, {IN: LINES})
    app.inputs[IN] = msgspec.structs.replace(app.inputs[IN], latest=True)
    assert "'latest'" in app.verify()["out"].reasons[0]
    app.from_beginning = True
    assert app.verify()["out"].reasons == ()


def test_of_a_compacted_input_a_difference_is_no_proof() -> None:
    app = Application(counted, {IN: LINES})
    app.inputs[IN] = msgspec.structs.replace(app.inputs[IN], has_holes=True)
    assert faults(app.verify()["out"]) == {}
    app.output[OUT].pop()
    assert faults(app.verify()["out"]) == {"undecided": 1}


def test_an_output_whose_start_is_gone_misses_nothing() -> None:
    app = Application(counted, {IN: LINES})
    app.kept[OUT] = Kept.TAIL
    del app.output[OUT][:3]
    assert faults(app.verify()["out"]) == {}


def test_behind_an_open_transaction_nothing_is_missing_for_sure() -> None:
    app = Application(counted, {IN: LINES})
    app.blocked = frozenset({OUT})
    app.output[OUT].pop()
    report = app.verify()["out"]
    assert faults(report) == {"undecided": 1}
    assert not report.examples[0].certain
    assert "an open transaction hides what was written after it" in report.reasons


def test_chance_and_the_clock_are_not_held_against_anyone() -> None:
    def chosen(builder: StreamsBuilder) -> None:
        builder.stream("in", key=str, value=str).map_values(lambda _: str(random.random()), value=str).to("out")

    report = Application(chosen, {IN: LINES}).verify()["out"]
    assert faults(report).keys() <= {"undecided"}
    assert any("the clock or chance" in reason for reason in report.reasons)


class Ticking:
    """Forwards each record, and would forward more by the wall clock."""

    def init(self, context: ProcessorContext) -> None:
        self._context = context
        context.schedule(timedelta(seconds=1), PunctuationType.WALL_CLOCK_TIME, self._tick)

    def process(self, record: Record[str, str]) -> None:
        self._context.forward(record)

    def _tick(self, _: int) -> None:
        raise AssertionError("the wall clock does not move")


def test_what_the_wall_clock_may_have_done_is_a_doubt() -> None:
    def ticking(builder: StreamsBuilder) -> None:
        builder.stream("in", key=str, value=str).process(Ticking, key=str, value=str).to("out")

    app = Application(ticking, {IN: LINES})
    assert faults(app.verify()["out"]) == {}
    app.output[OUT].append(Fetched(4, 0, b"ann", b"tick"))
    report = app.verify()["out"]
    assert faults(report) == {"undecided": 1}
    assert report.reasons == ("something is done by the wall clock, which does not move in a replay",)


def test_effects_are_left_out_and_what_is_written_is_the_same() -> None:
    seen: list[Any] = []

    def telling(builder: StreamsBuilder) -> None:
        lines = builder.stream("in", key=str, value=str).peek(lambda key, _: seen.append(key))
        lines.foreach(lambda key, _: seen.append(key))
        windows = TimeWindows.of_size(timedelta(milliseconds=10), grace=timedelta(0))
        counts = lines.group_by_key().windowed_by(windows, on_late=seen.append).count()
        counts.to_stream(lambda window, _: window.key, key=str).to("out")

    report = Application(telling, {IN: [*LINES, ("ann", "late", 0)]}).verify()["out"]
    assert (report.found, faults(report), seen) == (4, {}, [])


def test_nodes_keep_their_names_without_effects() -> None:
    builder = StreamsBuilder()
    builder.stream("in", key=str, value=str).peek(print).to("out")
    topology = builder.build()
    assert without_effects(topology).describe() == topology.describe()


def test_a_replay_that_fails_says_so_and_decides_nothing() -> None:
    raising = False

    def failing(builder: StreamsBuilder) -> None:
        def refuse(value: str) -> str:
            if raising and value == "z":
                raise ValueError("not this one")
            return value

        builder.stream("in", key=str, value=str).map_values(refuse, value=str, name="refuse").to("out")

    app = Application(failing, {IN: LINES})
    raising = True
    report = app.verify()["out"]
    assert report.unknown
    assert "not this one" in report.reasons[0]
    assert not report.violated


def test_dead_letters_are_compared_without_the_text_of_the_error() -> None:
    def strict(builder: StreamsBuilder) -> None:
        builder.stream("in", key=str, value=int).to("out")

    lines: list[Line] = [("ann", "12345678"), ("bob", "no number")]
    app = Application(strict, {IN: lines}, {"dead": 1}, on_deserialization_error=DeadLetter("dead"))
    dead = TopicPartition("dead", 0)
    (record,) = app.output[dead]
    headers = tuple((name, b"other" if name.endswith(("message", "stacktrace")) else text) for name, text in record.headers)  # fmt: skip # noqa: E501
    app.output[dead] = [record._replace(headers=headers)]
    assert faults(app.verify()["dead"]) == {}
    app.output[dead] = []
    assert faults(app.verify()["dead"]) == {"missing": 1}


def test_windows_that_some_order_makes_late_are_not_held_against_anyone() -> None:
    """Read first, the second partition closes the first one's window: nothing at all would come of it."""

    def windowed(builder: StreamsBuilder) -> None:
        words = builder.stream("in", key=str, value=str).group_by(lambda _, value: value, key=str, name="word")
        windows = TimeWindows.of_size(timedelta(seconds=1), grace=timedelta(0))
        words.windowed_by(windows).count(store="counts").to_stream(lambda window, _: window.key, key=str).to("out")

    app = Application(windowed, {IN: [("a", "x", 0)], SECOND: [("b", "x", 9000)]}, {"in": 2})
    assert faults(app.verify()["out"]) == {}
    del app.output[OUT][0]
    assert not app.verify()["out"].violated


def test_a_topic_that_a_function_chooses_is_compared_like_any_other() -> None:
    def by_key(builder: StreamsBuilder) -> None:
        builder.stream("in", key=str, value=str).to(lambda key, value, context: f"for-{key}")

    app = Application(by_key, {IN: LINES}, {"for-ann": 1, "for-bob": 1})
    app.output[TopicPartition("for-ann", 0)].pop()
    reports = app.verify()
    assert (faults(reports["for-ann"]), faults(reports["for-bob"])) == ({"missing": 1}, {})


def test_rows_that_are_numbered_as_they_come_are_left_out() -> None:
    def joined(builder: StreamsBuilder) -> None:
        windows = JoinWindows.of_time_difference(timedelta(seconds=5), grace=timedelta(0))
        left, right = (builder.stream(topic, key=str, value=str) for topic in ("in", "other"))
        left.join(right, lambda one, other: one + other, windows).to("out")

    app = Application(joined, {IN: LINES, TopicPartition("other", 0): LINES})
    assert app.verify().keys() == {"out"}


def test_what_waits_in_a_buffer_is_compared_without_the_offset_it_came_from() -> None:
    def held_back(builder: StreamsBuilder) -> None:
        words = builder.stream("in", key=str, value=str).group_by(lambda _, value: value, key=str, name="word")
        windows = TimeWindows.of_size(timedelta(seconds=30), grace=timedelta(seconds=0))
        counts = words.windowed_by(windows).count(store="counts")
        counts.suppress(Suppressed.until_window_closes(BufferConfig.unbounded()), name="held").to_stream().to("out")

    reports = Application(held_back, {IN: LINES}).verify()
    assert reports["app-held-store-changelog"].compared == {"record by record": 3}


def test_a_store_without_a_changelog_is_a_doubt() -> None:
    def forgetful(builder: StreamsBuilder) -> None:
        store = Materialized(name="counts", changelog=False)
        builder.stream("in", key=str, value=str).group_by_key().count(store=store).to_stream().to("out")

    app = Application(forgetful, {IN: LINES})
    app.output[OUT].pop()
    report = app.verify()["out"]
    assert faults(report) == {"undecided": 1}
    assert report.reasons[0].startswith("store counts has no changelog")


@pytest.mark.parametrize(("count", "lag"), [(0, 4), (3, 1), (4, 0)])
def test_lag_is_what_is_left(count: int, lag: int) -> None:
    assert Consumed(0, count, 4).lag == lag
