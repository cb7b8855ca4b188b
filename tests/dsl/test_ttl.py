"""Rows that expire: who still sees them, who hears that they are gone, across restarts too."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlib import KTable, Materialized, ProcessorContext, Record, Stores, StreamsBuilder, TopologyError
from streamlib.serdes import serde_for
from streamlib.state import ttl
from streamlib.state.memory import InMemoryBackend
from streamlib.state.overlay import DEFAULT_MAX_VALUE_BYTES
from streamlib.state.stores import open_overlay, open_rows, open_store, restored_rows
from streamlib.testing import TopologyTestDriver
from streamlib.topology.nodes import TtlStoreSpec
from tests.engine.support import Fetched
from tests.testing.restarts import keep_disks, lose_disks

Input = tuple[str, str | None, int]
Emitted = tuple[Any, Any, int]
TEN = timedelta(milliseconds=10)


class Run:
    def __init__(self, steps: Callable[[StreamsBuilder], KTable[str, Any]]) -> None:
        builder = StreamsBuilder()
        table = steps(builder)
        table.to_stream().to("out")
        self.driver = TopologyTestDriver(builder.build())
        self.out = self.driver.output_topic("out", key=str, value=table._point.value)

    def emitted(self, *records: Input) -> list[Emitted]:
        topic = self.driver.input_topic("in", key=str, value=str)
        for key, value, timestamp in records:
            topic.pipe_input(key, value, timestamp)
        return [(record.key, record.value, record.timestamp) for record in self.out.read_records()]


def rows(builder: StreamsBuilder) -> KTable[str, str]:
    return builder.table("in", key=str, value=str, store=Materialized(name="rows", ttl=TEN))


def counts(builder: StreamsBuilder) -> KTable[str, int]:
    return builder.stream("in", key=str, value=str).group_by_key().count(store=Materialized(name="rows", ttl=TEN))


def test_a_row_that_expires_is_deleted_before_anything_else_goes_on() -> None:
    run = Run(counts)
    assert run.emitted(("a", "x", 0), ("a", "x", 9)) == [("a", 1, 0), ("a", 2, 9)]
    assert run.emitted(("a", "x", 19)) == [("a", None, 19), ("a", 1, 19)]


def test_rows_of_other_keys_are_swept_as_stream_time_moves() -> None:
    run = Run(rows)
    assert run.emitted(("a", "x", 0), ("b", "x", 5)) == [("a", "x", 0), ("b", "x", 5)]
    assert run.emitted(("c", "x", 10)) == [("c", "x", 10), ("a", None, 10)]
    assert list(run.driver.store("rows").items()) == [("b", "x"), ("c", "x")]


def test_a_row_that_was_swept_leaves_a_tombstone_in_the_changelog() -> None:
    run = Run(rows)
    run.emitted(("a", "x", 0), ("b", "x", 10))
    log = run.driver.output_topic("app-rows-changelog", key=str, value=str)
    assert [(r.key, r.value, r.timestamp) for r in log.read_records()] == [
        ("a", "x", 0),
        ("b", "x", 10),
        ("a", None, 10),
    ]


def test_a_table_over_one_whose_rows_expire_hears_of_it() -> None:
    def per_value(builder: StreamsBuilder) -> KTable[str, int]:
        return rows(builder).group_by(lambda key, value: (value, key)).count(store="per-value")

    run = Run(per_value)
    run.emitted(("a", "x", 0), ("b", "x", 5), ("c", "y", 12))
    assert dict(run.driver.store("per-value").items()) == {"x": 1, "y": 1}


def test_a_join_does_not_find_an_expired_row() -> None:
    builder = StreamsBuilder()
    stream = builder.stream("other", key=str, value=str)
    stream.left_join(rows(builder), lambda mine, row: f"{mine}-{row}").to("out")
    driver = TopologyTestDriver(builder.build())
    driver.input_topic("in", key=str, value=str).pipe_input("a", "x", 0)
    other, out = driver.input_topic("other", key=str, value=str), driver.output_topic("out", key=str, value=str)
    other.pipe_input("a", "1", 9)
    other.pipe_input("a", "2", 10)
    assert out.read_values() == ["1-x", "2-None"]


def test_a_processors_store_forgets_too() -> None:
    class Seen:
        def init(self, context: ProcessorContext) -> None:
            self.context, self.seen = context, context.state_store("seen")

        def process(self, record: Record[str, str]) -> None:
            self.context.forward(record.with_value(str(self.seen.put_if_absent(record.key, record.value))))

    builder = StreamsBuilder()
    store = Stores.key_value_store("seen", key=str, value=str, ttl=TEN)
    builder.stream("in", key=str, value=str).process(Seen, store).to("out")
    driver = TopologyTestDriver(builder.build())
    topic, out = driver.input_topic("in", key=str, value=str), driver.output_topic("out", key=str, value=str)
    for number, timestamp in enumerate((0, 9, 10)):
        topic.pipe_input("a", str(number), timestamp)
        if number == 1:
            lose_disks(driver)
    assert out.read_values() == ["None", "0", "None"]
    assert list(driver.store("seen").items()) == [("a", "2")]


updates = st.lists(
    st.tuples(st.sampled_from("abc"), st.none() | st.sampled_from("xyz"), st.integers(0, 40)), max_size=25
)


@given(updates, st.integers(0, 25), st.sampled_from([keep_disks, lose_disks]))
def test_readers_and_listeners_see_the_same_rows(
    sent: list[Input], restart_at: int, restart: Callable[[TopologyTestDriver], None]
) -> None:
    run, stream_time = Run(rows), 0
    heard: dict[str, str | None] = {}
    model: dict[str, tuple[str, int]] = {}
    for number, (key, value, timestamp) in enumerate(sent):
        if number == restart_at:
            restart(run.driver)
        heard |= {emitted[0]: emitted[1] for emitted in run.emitted((key, value, timestamp))}
        stream_time = max(stream_time, timestamp)
        model.pop(key, None)
        if value is not None:
            model[key] = value, timestamp
        alive = {key: value for key, (value, at) in model.items() if at + 10 > stream_time}
        assert dict(run.driver.store("rows").items()) == alive
        assert {key: value for key, value in heard.items() if value is not None} == alive


class Clock:
    stream_time = 0
    timestamp = 0


def test_a_large_store_is_swept_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ttl, "SWEPT_AT_ONCE", 2)
    monkeypatch.setattr(ttl, "WRITES_BETWEEN_SWEEPS", 3)
    spec = TtlStoreSpec(name="s", kind="key_value", key=serde_for(str), value=serde_for(str), ttl_ms=10)
    clock = Clock()
    overlay = open_overlay(spec, InMemoryBackend(), DEFAULT_MAX_VALUE_BYTES, clock)
    rows = open_rows(spec, overlay)
    store: Any = open_store(rows, clock)
    for key in "abcde":
        store.put(key, key)
    clock.stream_time = clock.timestamp = 10
    assert list(store.all()) == []
    store.put("f", "f")  # the sixth write
    # The third write has swept "a" and "b", when they had not expired.
    assert [key for key, row in overlay.changes.items() if row is None] == [b"c", b"d"]
    for _ in range(6):
        store.put("f", "f")
    assert rows.changelog_records() == [
        *[(key.encode(), None, 10, ()) for key in "abcde"],
        (b"f", b"f", 10, ()),
    ]


def test_rows_come_back_from_the_changelog_with_their_times() -> None:
    spec = TtlStoreSpec(name="s", kind="key_value", key=serde_for(str), value=serde_for(str), ttl_ms=10)
    backend, clock = InMemoryBackend(), Clock()
    fetched = [Fetched(0, 5, b"a", b"1"), Fetched(1, 6, b"b", b"2"), Fetched(2, 7, b"b", None)]
    backend.write({"s": restored_rows(spec, fetched, lambda key: None)}, {})
    clock.stream_time = 14
    store: Any = open_store(open_rows(spec, open_overlay(spec, backend, DEFAULT_MAX_VALUE_BYTES, clock)), clock)
    assert list(store.all()) == [("a", "1")]
    clock.stream_time = 15
    assert store.get("a") is None


@pytest.mark.parametrize("to_live", [10, timedelta(0), timedelta(seconds=-1)])
def test_a_time_to_live_is_more_than_zero(to_live: Any) -> None:
    with pytest.raises(TopologyError, match="store seen: ttl"):
        Stores.key_value_store("seen", key=str, value=str, ttl=to_live)


def test_a_table_is_limited_in_one_way() -> None:
    both = Materialized(name="rows", ttl=TEN, max_entries=3)
    with pytest.raises(TopologyError, match="store rows: it has max_entries= or ttl=, not several of them"):
        StreamsBuilder().table("in", key=str, value=str, store=both)
    with pytest.raises(TopologyError, match="the global store of in has all rows of its topic"):
        StreamsBuilder().global_table("in", key=str, value=str, store=Materialized(ttl=TEN))
