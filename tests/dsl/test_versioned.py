"""Tables with a history: what is forwarded and what is ignored, joins as of a time, records that wait for late rows.

C5 to C8 are the cases of Kafka Streams' own tests (`AbstractJoinIntegrationTest` and those that extend it).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlib import (
    BufferConfig,
    KTable,
    Materialized,
    ProcessorContext,
    Stores,
    StreamsBuilder,
    Suppressed,
    TimeWindows,
    TopologyError,
)
from streamlib.testing import TopologyTestDriver
from tests.testing.restarts import keep_disks, lose_disks

Input = tuple[str, str | None, int]
Restart = Callable[[TopologyTestDriver], None]

INPUT: list[Input] = [
    ("L", None, 1),
    ("R", None, 2),
    ("L", "A", 3),
    ("R", "a", 4),
    ("L", "B", 5),
    ("R", "b", 6),
    ("L", None, 7),
    ("R", None, 8),
    ("L", "C", 9),
    ("R", "c", 10),
    ("R", None, 11),
    ("L", None, 12),
    ("R", None, 13),
]
OUT_OF_ORDER: list[Input] = [
    ("R", "d", 7),
    ("L", "D", 6),
    ("L", None, 2),
    ("R", None, 3),
    ("R", "e", 14),
    ("L", "E", 15),
    ("L", None, 10),
    ("R", None, 9),
    ("L", "F", 4),
    ("R", "f", 3),
]


MILLISECOND = timedelta(milliseconds=1)


def ms(milliseconds: int) -> timedelta:
    return timedelta(milliseconds=milliseconds)


def versioned(name: str, history_ms: int = 10_000) -> Materialized:
    return Materialized(name=name, history_retention=ms(history_ms))


def table_of(builder: StreamsBuilder, topic: str = "R", history_ms: int = 10_000) -> KTable[str, str]:
    return builder.table(topic, key=str, value=str, store=versioned(f"{topic}-rows", history_ms))


def both(left: str | None, right: str | None) -> str:
    return f"{left or 'null'}-{right or 'null'}"


class Run:
    """A driver of a topology that writes texts to the topic out."""

    def __init__(self, steps: Callable[[StreamsBuilder], Any], value: Any = str) -> None:
        builder = StreamsBuilder()
        steps(builder).to("out")
        self.driver = TopologyTestDriver(builder.build())
        self.out = self.driver.output_topic("out", key=str, value=value)

    def pipe(self, topic: str, value: Any, timestamp: int, key: str | None = "k") -> list[str]:
        """What comes of a record, as `value@time`."""
        self.driver.input_topic(topic, key=str, value=type(value) if value is not None else str).pipe_input(
            key, value, timestamp
        )
        return [f"{'null' if each.value is None else each.value}@{each.timestamp}" for each in self.out.read_records()]

    def pipe_all(self, records: list[Input]) -> list[str]:
        """What comes of each record, `-` for nothing."""
        return [" ".join(self.pipe(*record)) or "-" for record in records]


# -- What is forwarded -------------------------------------------------------------------------------------------------


def test_a_late_update_goes_to_a_stream_but_not_into_an_aggregate() -> None:
    def counts(builder: StreamsBuilder) -> Any:
        table = table_of(builder, "in")
        table.to_stream().to("all")
        return table.group_by(lambda k, v: (v, k)).count().to_stream()

    run = Run(counts, int)
    everything = run.driver.output_topic("all", key=str, value=str)
    assert run.pipe("in", "x", 10) == ["1@10"]
    assert run.pipe("in", "y", 5) == []
    assert run.pipe("in", "z", 20) == ["0@20", "1@20"]
    assert everything.read_values() == ["x", "y", "z"]


def test_an_update_older_than_the_history_is_dropped() -> None:
    run = Run(lambda builder: table_of(builder, "in", 100).to_stream())
    assert run.pipe_all([("in", "x", 1000), ("in", "late", 900), ("in", "too late", 899)]) == [
        "x@1000",
        "late@900",
        "-",
    ]
    assert run.driver.dropped_records == 1


def derived(table: KTable[str, str], how: str) -> KTable[str, Any]:
    match how:
        case "filter":
            return table.filter(lambda k, v: v != "no")
        case "map_values":
            return table.map_values(lambda v: v)
        case "transform_values":

            class Same:
                def init(self, context: ProcessorContext) -> None: ...
                def transform(self, key: str, value: str | None) -> str | None:
                    return value

            return table.transform_values(Same)
        case _:
            return table.filter(lambda k, v: v != "no", store=Materialized(name="kept", history_retention=ms(10_000)))


@pytest.mark.parametrize("how", ["filter", "map_values", "transform_values", "versioned"])
def test_what_is_made_row_by_row_passes_the_order_on(how: str) -> None:
    def steps(builder: StreamsBuilder) -> Any:
        table = derived(table_of(builder, "in"), how)
        table.to_stream().to("all")
        return table.group_by(lambda k, v: (v, k)).count().to_stream()

    run = Run(steps, int)
    everything = run.driver.output_topic("all", key=str, value=str)
    assert run.pipe_all([("in", "x", 10), ("in", "y", 5), ("in", "z", 20)]) == ["1@10", "-", "0@20 1@20"]
    assert everything.read_values() == ["x", "y", "z"]


def test_a_store_without_versions_takes_any_update_as_the_last() -> None:
    def steps(builder: StreamsBuilder) -> Any:
        kept = table_of(builder, "in").filter(lambda k, v: True, store="kept")
        return kept.group_by(lambda k, v: (v, k)).count().to_stream()

    run = Run(steps, int)
    assert run.pipe_all([("in", "x", 10), ("in", "y", 5)]) == ["1@10", "0@10 1@5"]
    assert run.driver.store("kept").get("k") == "y"


def test_a_filter_of_a_versioned_table_forwards_deletes_of_rows_that_never_passed() -> None:
    """Below a versioned table, what failed and fails again is told nevertheless (`KTableFilter`)."""

    def steps(builder: StreamsBuilder, store: Any) -> Any:
        table = builder.table("in", key=str, value=str, store=store).filter(lambda k, v: v == "yes")
        table.group_by(lambda k, v: (v, k)).count()
        return table.to_stream()

    plain, kept = Run(lambda b: steps(b, "rows")), Run(lambda b: steps(b, versioned("rows")))
    assert (plain.pipe("in", "no", 1), kept.pipe("in", "no", 1)) == ([], ["null@1"])


def test_an_aggregate_in_a_versioned_store_begins_anew_in_order_or_is_out_of_order() -> None:
    def steps(builder: StreamsBuilder) -> Any:
        counts = builder.stream("in", key=str, value=str).group_by_key()
        folded = counts.aggregate(
            lambda: "", lambda k, v, total: None if v == "-" else total + v, store=versioned("sums", 100), value=str
        )
        folded.to_stream().to("out")
        return folded.group_by(lambda k, v: (v or None, k)).count().to_stream().map_values(str, value=str)

    run = Run(steps)
    assert run.pipe("in", "a", 1000) == ["a@1000", "1@1000"]
    assert run.pipe("in", "b", 990) == ["ab@1000", "0@1000", "1@1000"]
    assert run.pipe("in", "-", 1010) == ["null@1010", "0@1010"]
    assert run.pipe("in", "c", 1005) == ["c@1005"]  # out of order: deleted later
    assert run.pipe("in", "x", 900) == []  # too old
    history = [(each.value, each.timestamp) for each in run.driver.store("sums").history("k")]
    assert history == [("ab", 1000), ("c", 1005), (None, 1010)]


def test_a_regrouped_table_can_have_a_history_too() -> None:
    def steps(builder: StreamsBuilder) -> Any:
        rows = builder.table("in", key=str, value=str)
        return (
            rows.group_by(lambda k, v: (v[0], v))
            .reduce(lambda old, new: old + new, lambda old, gone: old.replace(gone, ""), store=versioned("joined"))
            .to_stream()
        )

    run = Run(steps)
    assert run.pipe("in", "a1", 10, "x") == ["a1@10"]
    assert run.pipe("in", "a2", 20, "y") == ["a1a2@20"]
    assert run.pipe("in", None, 30, "x") == ["a2@30"]
    assert run.driver.store("joined").as_of("a", 25).value == "a1a2"  # type: ignore[union-attr]


# -- Joins of tables ---------------------------------------------------------------------------------------------------


def joined_tables(kind: str, store: Materialized | None = None) -> Run:
    def steps(builder: StreamsBuilder) -> Any:
        left, right = table_of(builder, "L"), table_of(builder, "R")
        match kind:
            case "inner":
                return left.join(right, both, store=store).to_stream()
            case "left":
                return left.left_join(right, both, store=store).to_stream()
            case _:
                return left.outer_join(right, both, store=store).to_stream()

    return Run(steps)


@pytest.mark.parametrize("store", [None, Materialized(name="joined"), versioned("joined")])
@pytest.mark.parametrize(
    ("kind", "in_order", "late"),
    [
        ("inner", "- - - A-a@4 B-a@5 B-b@6 null@7 - - C-c@10 null@11 - -", "- - - - - E-e@15 - - - -"),
        (
            "left",
            "- - A-null@3 A-a@4 B-a@5 B-b@6 null@7 - C-null@9 C-c@10 C-null@11 null@12 -",
            "- - - - - E-e@15 - - - -",
        ),
        (
            "outer",
            "- - A-null@3 A-a@4 B-a@5 B-b@6 null-b@7 null@8 C-null@9 C-c@10 C-null@11 null@12 -",
            "- - - - null-e@14 E-e@15 - - - -",
        ),
    ],
)
def test_c5_to_c7_joins_of_versioned_tables_ignore_late_updates(
    store: Materialized | None, kind: str, in_order: str, late: str
) -> None:
    run = joined_tables(kind, store)
    assert run.pipe_all(INPUT) == in_order.split()
    assert run.pipe_all(OUT_OF_ORDER) == late.split()


def test_a_join_by_foreign_key_ignores_late_updates_of_either_side() -> None:
    def steps(builder: StreamsBuilder) -> Any:
        left, right = table_of(builder, "L"), table_of(builder, "R")
        return left.join(right, both, foreign_key=lambda v: v[0]).to_stream()

    run = Run(steps)
    assert run.pipe("R", "r", 10, "a") == []
    assert run.pipe("L", "a1", 20) == ["a1-r@20"]
    assert run.pipe("L", "a0", 15) == []
    assert run.pipe("R", "q", 5, "a") == []
    assert run.pipe("R", "s", 30, "a") == ["a1-s@30"]


# -- Joins of streams with tables --------------------------------------------------------------------------------------


def joined_stream(left: bool, grace_ms: int | None = None, history_ms: int = 10_000) -> Run:
    def steps(builder: StreamsBuilder) -> Any:
        stream, grace = builder.stream("L", key=str, value=str), None if grace_ms is None else ms(grace_ms)
        table = table_of(builder, "R", history_ms)
        if left:
            return stream.left_join(table, both, grace=grace, name="buffered")
        return stream.join(table, both, grace=grace, name="buffered")

    return Run(steps)


def test_c8_a_stream_is_joined_with_the_row_of_its_time() -> None:
    in_order, late = "- - - - B-a@5" + 8 * " -", "- D-b@6 - - - E-e@15 - - F-a@4 -"
    assert joined_stream(False).pipe_all(INPUT + OUT_OF_ORDER) == f"{in_order} {late}".split()
    in_order = "- - A-null@3 - B-a@5 - - - C-null@9" + 4 * " -"
    assert joined_stream(True).pipe_all(INPUT + OUT_OF_ORDER) == f"{in_order} {late}".split()


def test_c8_with_grace_a_stream_waits_for_late_rows() -> None:
    in_order, late = 8 * "- " + "B-a@5" + 4 * " -", "- D-b@6 - - - - - - F-a@4 -"
    assert joined_stream(False, 2).pipe_all(INPUT + OUT_OF_ORDER) == f"{in_order} {late}".split()
    in_order, late = "- - - - A-null@3 - - - B-a@5 - - - -", "- D-b@6 - - - C-null@9 - - F-a@4 -"
    assert joined_stream(True, 2).pipe_all(INPUT + OUT_OF_ORDER) == f"{in_order} {late}".split()


def test_waiting_records_go_on_by_time_then_key_then_arrival_with_their_headers() -> None:
    run = joined_stream(True, 10)
    stream = run.driver.input_topic("L", key=str, value=str)
    for key, value, timestamp in [("b", "1", 6), ("a", "2", 6), ("b", "3", 6), ("z", "4", 5)]:
        stream.pipe_input(key, value, timestamp, (("h", value.encode()),))
    stream.pipe_input("x", "later", 16)
    released = run.out.read_records()
    assert [(each.key, each.value, each.timestamp) for each in released] == [
        ("z", "4-null", 5),
        ("a", "2-null", 6),
        ("b", "1-null", 6),
        ("b", "3-null", 6),
    ]
    assert [each.headers for each in released] == [(("h", each.value[:1].encode()),) for each in released if each.value]


def test_only_what_waits_moves_the_time_and_what_has_no_key_is_emitted_at_once() -> None:
    run = joined_stream(True, 10)
    assert run.pipe("L", "A", 5) == []
    assert run.pipe("L", None, 100) == []
    assert run.pipe("L", "B", 100, key=None) == ["B-null@100"]
    assert run.pipe("R", "a", 100) == []
    assert run.pipe("L", "C", 15) == ["A-null@5"]


@pytest.mark.parametrize("restart", [keep_disks, lose_disks])
def test_waiting_records_survive_a_restart(restart: Restart) -> None:
    run = joined_stream(True, 10)
    assert run.pipe_all([("R", "a", 1), ("L", "A", 5), ("L", "B", 5), ("R", "b", 5), ("L", "C", 10)]) == ["-"] * 5
    restart(run.driver)
    assert run.pipe("L", "D", 5) == []  # is as late as before: it waits behind the others
    assert run.pipe("R", "a", 4) == []
    assert run.pipe("L", "E", 15) == ["A-b@5", "B-b@5", "D-b@5"]
    restart(run.driver)
    assert run.pipe("L", "F", 4) == ["F-a@4"]  # later than the grace, as before
    assert run.pipe("L", "G", 100) == ["C-b@10", "E-b@15"]


RECORDS = st.lists(
    st.tuples(st.sampled_from("LR"), st.sampled_from("ab"), st.none() | st.sampled_from("xyz"), st.integers(0, 30)),
    max_size=40,
)


@settings(max_examples=40)
@given(records=RECORDS, grace_ms=st.integers(0, 12), restarts=st.sets(st.integers(0, 40), max_size=2))
def test_a_join_with_grace_does_what_a_list_of_versions_would(
    records: list[tuple[str, str, str | None, int]], grace_ms: int, restarts: set[int]
) -> None:
    run, waiting, now = joined_stream(True, grace_ms, history_ms=100), [], -1
    versions: dict[str, dict[int, str | None]] = {"a": {}, "b": {}}

    def row(key: str, time: int) -> str | None:
        began = max((each for each in versions[key] if each <= time), default=None)
        return None if began is None else versions[key][began]

    for number, (topic, key, value, time) in enumerate(records):
        expected: list[tuple[str, str, int]] = []
        if topic == "R":
            versions[key][time] = value
        elif value is not None and time < now - grace_ms:
            expected = [(key, both(value, row(key, time)), time)]
        elif value is not None:
            now = max(now, time)
            waiting.append((time, key, number, value))
            due = sorted(each for each in waiting if each[0] <= now - grace_ms)
            waiting = [each for each in waiting if each not in due]
            expected = [(at, both(waited, row(at, when)), when) for when, at, _, waited in due]
        run.driver.input_topic(topic, key=str, value=str).pipe_input(key, value, time)
        assert [(each.key, each.value, each.timestamp) for each in run.out.read_records()] == expected
        if number in restarts:
            lose_disks(run.driver)


@pytest.mark.parametrize("restart", [keep_disks, lose_disks])
def test_versions_survive_a_restart(restart: Restart) -> None:
    run = joined_stream(True, history_ms=100)
    run.pipe_all([("R", "a", 1000), ("R", None, 1010), ("R", "c", 1050), ("R", "b", 1020)])
    restart(run.driver)
    found = [run.pipe("L", "x", time)[0] for time in (999, 1000, 1010, 1020, 1049, 1050, 2000)]
    assert [each.split("@")[0] for each in found] == ["x-null", "x-a", "x-null", "x-b", "x-b", "x-c", "x-c"]
    assert run.pipe("R", "too late", 949) == []
    assert run.driver.dropped_records == 1


# -- What is refused ---------------------------------------------------------------------------------------------------


def test_a_grace_needs_a_table_that_knows_what_was() -> None:
    def joined(builder: StreamsBuilder, table: KTable[str, str], grace: Any = MILLISECOND) -> None:
        builder.stream("L", key=str, value=str).join(table, both, grace=grace, name="j")

    b = StreamsBuilder()
    with pytest.raises(TopologyError, match=r"join j: grace= needs a table that knows its rows of earlier times"):
        joined(b, b.table("R", key=str, value=str))
    b = StreamsBuilder()
    with pytest.raises(TopologyError, match=r"join j: grace= needs a table"):
        joined(b, table_of(b).filter(lambda k, v: True, store="kept"))
    b = StreamsBuilder()
    with pytest.raises(TopologyError, match=r"join j: grace= needs a table"):
        joined(b, table_of(b).join(table_of(b, "other"), both))
    b = StreamsBuilder()
    with pytest.raises(TopologyError, match=r"would wait 11 ms, but table KTABLE-FILTER-\d+ forgets .* after 10 ms"):
        joined(b, table_of(b, history_ms=10).filter(lambda k, v: True), ms(11))
    b = StreamsBuilder()
    with pytest.raises(TopologyError, match=r"grace of the join j is a datetime.timedelta .*, not 5"):
        joined(b, table_of(b), 5)
    b = StreamsBuilder()
    with pytest.raises(TopologyError, match=r"grace of the join j is not negative"):
        joined(b, table_of(b), ms(-1))


def test_a_history_has_to_be_one() -> None:
    with pytest.raises(TopologyError, match=r"store v: history_retention is a datetime.timedelta .*, not 5"):
        Stores.versioned_key_value_store("v", key=str, value=str, history_retention=5)  # type: ignore[arg-type]
    with pytest.raises(TopologyError, match=r"store R-rows: history_retention is not negative"):
        table_of(StreamsBuilder(), history_ms=-1)
    with pytest.raises(TopologyError, match=r"store x: it has max_entries= or history_retention=, not several of them"):
        StreamsBuilder().table("in", store=Materialized(name="x", history_retention=ms(1), max_entries=1))


def test_where_versions_make_no_sense() -> None:
    b = StreamsBuilder()
    with pytest.raises(TopologyError, match=r"suppress: table KTABLE-MAPVALUES-\d+ has versions"):
        table_of(b).map_values(lambda v: v).suppress(Suppressed.until_time_limit(ms(1), BufferConfig.unbounded()))
    with pytest.raises(TopologyError, match=r"the global store of in has to be a key-value store"):
        StreamsBuilder().global_table("in", store=versioned("rows"))
    windows = TimeWindows.of_size(ms(10), grace=ms(0))
    with pytest.raises(TopologyError, match=r"history_retention= are for tables without windows"):
        StreamsBuilder().stream("in").group_by_key().windowed_by(windows).count(store=versioned("counts"))


def test_a_store_with_a_history_is_kept_without_a_name_too() -> None:
    b = StreamsBuilder()
    b.table("in", key=str, value=str, store=Materialized(history_retention=ms(5))).to_stream().to("out")
    (store,) = b.build().stores.values()
    assert (store.name, store.kind, store.cached) == ("in-STATE-STORE-0000000000", "versioned", False)
