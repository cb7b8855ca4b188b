"""The test driver: one record at a time, everything it causes done when it returns."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from streamlib.errors import ProcessingError, StreamsError, TopologyError
from streamlib.records import Record
from streamlib.rocksdb import RocksDBBackend
from streamlib.state.codec import ValueAndTimestamp
from streamlib.testing import TopologyTestDriver
from streamlib.topology import operators as op
from streamlib.topology.nodes import RepartitionTopic
from streamlib.topology.topology import Topology
from tests.engine.support import LONG, build, processor, sink, source, timestamped


def word_count() -> Topology:
    return build(
        [
            source("lines", "in"),
            processor("split", op.FlatMapValues(str.split), "lines"),
            processor("rekey", op.SelectKey(lambda k, v: v), "split"),
            sink("rekey", "words-repartition", "through"),
            source("words", "words-repartition"),
            processor("count", op.StreamCount("counts"), "words", "counts"),
            processor("stream", op.TableToStream(), "count"),
            sink("stream", "counted", value=LONG),
        ],
        [timestamped("counts")],
        [RepartitionTopic(name="words-repartition")],
    )


def test_word_count_through_a_repartition_topic() -> None:
    with TopologyTestDriver(word_count()) as driver:
        lines = driver.input_topic("in", key=str, value=str)
        counted = driver.output_topic("counted", key=str, value=int)
        lines.pipe_input(None, "a b a", timestamp_ms=7)
        assert counted.read_records() == [Record("a", 1, 7), Record("b", 1, 7), Record("a", 2, 7)]
        assert counted.is_empty
        lines.pipe_input("k", "b", timestamp_ms=3)
        assert counted.read_record() == Record("b", 2, 7)
        assert driver.produced_topic_names == {"app-words-repartition", "counted", "app-counts-changelog"}
        store = driver.store("counts")
        assert store.get("a") == 2
        assert store.get("z") is None
        assert list(store.items()) == [("a", 2), ("b", 2)]
        assert store.get_row("b") == ValueAndTimestamp(2, 7)
        assert len(store) == 2


def test_rocksdb_may_keep_the_stores(tmp_path: Path) -> None:
    def make_backend(task_id: Any, stores: Any) -> RocksDBBackend:
        return RocksDBBackend(tmp_path / str(task_id), stores)

    with TopologyTestDriver(word_count(), make_backend=make_backend) as driver:
        driver.input_topic("in", key=str, value=str).pipe_key_values([("k", "a b"), ("k", "a")])
        assert driver.output_topic("counted", key=str, value=int).read_key_values_to_dict() == {"a": 2, "b": 1}
    backend = RocksDBBackend(tmp_path / "1_0", [timestamped("counts")])
    assert backend.positions() == {"counts": 3}
    backend.close()


def test_a_topic_that_is_also_read_loops_back_oldest_first() -> None:
    seen: list[str] = []
    topology = build(
        [
            source("s", "in"),
            processor("late", op.MapValues(lambda v: f"m{v}"), "s"),
            sink("late", "middle", "k"),
            source("t", "middle"),
            processor("look", op.Peek(lambda k, v: seen.append(v)), "t"),
            sink("look"),
        ]
    )
    with TopologyTestDriver(topology) as driver:
        driver.input_topic("in", key=str, value=str).pipe_key_values([("k", "1"), ("k", "2")])
        driver.input_topic("middle", key=str, value=str).pipe_input("k", "own")
        assert seen == ["m1", "m2", "own"]
        assert driver.output_topic("out", key=str, value=str).read_values() == ["m1", "m2", "own"]
        assert driver.output_topic("middle", key=str, value=str).read_values() == ["m1", "m2"]


def test_records_carry_the_wall_clock_unless_told_otherwise() -> None:
    with TopologyTestDriver(build([source(), sink("source")]), wall_clock_start_ms=100) as driver:
        topic, out = driver.input_topic("in"), driver.output_topic("out")
        topic.pipe_input(b"a", b"1")
        driver.advance_wall_clock(timedelta(seconds=5))
        topic.pipe_input(b"a", None, headers=[("h", b"x")])
        topic.pipe_record_list([Record(None, b"3", 7)])
        assert out.read_records() == [
            Record(b"a", b"1", 100),
            Record(b"a", None, 5100, [("h", b"x")]),
            Record(None, b"3", 7),
        ]


def test_reading_from_an_empty_topic_is_an_error() -> None:
    with TopologyTestDriver(build([source(), sink("source")])) as driver:
        out = driver.output_topic("out")
        with pytest.raises(LookupError, match="no record is left to read from out"):
            out.read_record()


def test_unknown_topics_and_stores_are_named() -> None:
    with TopologyTestDriver(word_count()) as driver:
        with pytest.raises(TopologyError, match="does not read inn; it reads app-words-repartition, in"):
            driver.input_topic("inn")
        with pytest.raises(TopologyError, match="there is no store count; there are: counts"):
            driver.store("count")


def test_an_error_comes_out_of_pipe_input_and_ends_the_run() -> None:
    topology = build([source(), processor("it", op.MapValues(lambda v: 1 / 0)), sink("it")])
    with TopologyTestDriver(topology) as driver:
        topic = driver.input_topic("in", key=str, value=str)
        with pytest.raises(ProcessingError, match="ZeroDivisionError"):
            topic.pipe_input("a", "1")
        with pytest.raises(StreamsError, match="failed on an earlier record") as raised:
            topic.pipe_input("a", "1")
        assert isinstance(raised.value.__cause__, ProcessingError)
