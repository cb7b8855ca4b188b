"""The record cache: what it holds back, when it lets it go on, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlib import KTable, Materialized, StreamsBuilder, StreamsConfig, TimeWindows
from streamlib.engine.record_cache import CacheBudget
from streamlib.engine.task import Task
from streamlib.errors import ProcessingError
from streamlib.records import OutRecord, TopicPartition
from streamlib.testing import TopologyTestDriver
from tests.engine.support import INPUT, batch, outputs, task_of

LARGE = 1 << 20

Steps = Callable[[StreamsBuilder], Any]
Input = tuple[str | None, str | None, int]


def started(steps: Steps, budget: CacheBudget | None = None) -> Task:
    builder = StreamsBuilder()
    steps(builder)
    return task_of(builder.build(), cache_budget=budget or CacheBudget(LARGE))


def feed(task: Task, *records: Input, start: int = 0) -> None:
    task.enqueue(batch(INPUT, start, *records))
    task.process(len(records))


def commit(task: Task) -> list[OutRecord]:
    """What goes out with a commit."""
    task.flush()
    out = outputs(task)
    stored = task.backend.positions()
    changelog = task.seal().changelog
    task.commit({p: stored.get(task.changelogs[p], 0) + len(records) for p, records in changelog.items()})
    return out


def counts(builder: StreamsBuilder, **options: Any) -> None:
    table = builder.stream("in", key=str, value=str).group_by_key().count(store=Materialized(name="n", **options))
    table.to_stream().map_values(str, value=str).to("out")


def texts(records: Iterable[OutRecord]) -> list[tuple[str, str | None, int]]:
    return [(key.decode(), None if v is None else v.decode(), at) for key, v, at, _ in records if key is not None]


def test_of_several_updates_the_last_goes_on_with_the_commit() -> None:
    task = started(counts)
    feed(task, ("a", "x", 3), ("b", "x", 4), ("a", "x", 1))
    assert outputs(task) == []
    assert texts(commit(task)) == [("b", "1", 4), ("a", "2", 3)]
    assert commit(task) == []


def test_a_store_may_do_without() -> None:
    task = started(lambda builder: counts(builder, cached=False))
    feed(task, ("a", "x", 3), ("a", "x", 4))
    assert texts(outputs(task)) == [("a", "1", 3), ("a", "2", 4)]


def test_a_budget_of_zero_turns_it_off() -> None:
    task = started(counts, CacheBudget(0))
    feed(task, ("a", "x", 3), ("a", "x", 4))
    assert texts(outputs(task)) == [("a", "1", 3), ("a", "2", 4)]


def test_over_its_bytes_the_oldest_go_on() -> None:
    budget = CacheBudget(450)  # two updates of about 200
    task = started(counts, budget)
    feed(task, ("a", "x", 1), ("b", "x", 2), ("a", "x", 3), ("c", "x", 4))
    assert texts(outputs(task)) == [("b", "1", 2)]
    assert texts(commit(task)) == [("a", "2", 3), ("c", "1", 4)]
    assert budget.used_bytes == 0


def test_tasks_share_their_budget() -> None:
    budget = CacheBudget(450)
    one, other = started(counts, budget), started(counts, budget)
    feed(one, ("a", "x", 1), ("b", "x", 2))
    feed(other, ("c", "x", 3))
    assert texts(outputs(other)) == [("c", "1", 3)]
    one.rollback()
    feed(other, ("c", "x", 4), start=1)
    assert outputs(other) == []
    other.close()
    assert budget.used_bytes == 0


def test_a_row_that_came_and_went_is_not_mentioned() -> None:
    task = started(lambda builder: builder.table("in", key=str, value=str, store="rows").to_stream().to("out"))
    feed(task, ("a", "x", 1), ("a", None, 2), ("b", None, 3))
    assert commit(task) == []
    feed(task, ("a", "x", 4), start=3)
    commit(task)
    feed(task, ("a", "y", 5), ("a", None, 6), start=4)
    assert texts(commit(task)) == [("a", None, 6)]


def test_tables_below_a_cache_are_flushed_after_it() -> None:
    def chain(builder: StreamsBuilder) -> None:
        table = builder.table("in", key=str, value=str, store="rows")
        table.map_values(lambda value: value + "!", store="loud").to_stream().to("out")

    task = started(chain)
    feed(task, ("a", "x", 1), ("a", "y", 2))
    assert texts(commit(task)) == [("a", "y!", 2)]


def test_what_comes_after_sees_the_record_of_the_last_update() -> None:
    def by_offset(builder: StreamsBuilder) -> None:
        stream = builder.table("in", key=str, value=str, store="rows").to_stream()
        stream.to(lambda key, value, context: f"out-{context.offset}")

    task = started(by_offset)
    feed(task, ("a", "x", 1), ("b", "x", 2), ("a", "y", 3))
    task.flush()
    task.learn_partitions({"out-1": 1, "out-2": 1})
    assert task.take_outputs().keys() == {TopicPartition("out-1", 0), TopicPartition("out-2", 0)}


def test_an_error_names_the_record_it_comes_from() -> None:
    def failing(builder: StreamsBuilder) -> None:
        stream = builder.table("in", key=str, value=str, store="rows").to_stream()
        stream.map_values(int, value=int).to("out")

    task = started(failing)
    feed(task, ("a", "x", 1), ("b", "1", 2))
    with pytest.raises(ProcessingError, match="offset 0"):
        task.flush()


def summed(builder: StreamsBuilder, optional: Any) -> KTable[str, int]:
    """How the first letters of values are spread: an aggregate over an aggregate."""
    latest = builder.stream("in", key=str, value=str).group_by_key().aggregate(
        lambda: "none", lambda key, value, aggregate: None if value == "gone" else value, store=optional("latest")
    )  # fmt: skip
    return latest.group_by(lambda key, value: (value[:1], value)).count(store=optional("spread"))


@pytest.mark.parametrize("cache_bytes", [300, LARGE])
@given(
    updates=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["x1", "x2", "y", "gone"]), st.integers(0, 9)), max_size=20
    )
)
def test_a_table_over_a_cached_one_is_a_recount(cache_bytes: int, updates: list[tuple[str, str, int]]) -> None:
    builder = StreamsBuilder()
    summed(builder, lambda name: Materialized(name=name)).to_stream().to("out")
    config = StreamsConfig(application_id="app", statestore_cache_max_bytes=cache_bytes)
    latest: dict[str, str] = {}
    with TopologyTestDriver(builder.build(), config=config) as driver:
        topic = driver.input_topic("in", key=str, value=str)
        for key, value, timestamp in updates:
            topic.pipe_input(key, value, timestamp)
            latest[key] = value
        spread = {letter: count for letter, count in driver.store("spread").items() if count}
    letters = [value[0] for value in latest.values() if value != "gone"]
    assert spread == {letter: letters.count(letter) for letter in letters}


def test_the_streams_of_a_cogroup_share_a_cache() -> None:
    def folded(builder: StreamsBuilder) -> None:
        words = builder.stream("in", key=str, value=str)
        short = words.filter(lambda key, value: len(value) < 3).group_by_key()
        long = words.filter(lambda key, value: len(value) >= 3).group_by_key()
        joined = short.cogroup(lambda key, value, text: text + value).cogroup(
            long, lambda key, value, text: text + value.upper()
        )
        joined.aggregate(lambda: "", value=str, store="joined").to_stream().to("out")

    task = started(folded)
    feed(task, ("a", "x", 1), ("a", "long", 2), ("a", "y", 3))
    assert texts(commit(task)) == [("a", "xLONGy", 3)]


def test_a_window_behind_a_cache_has_its_last_count() -> None:
    def counted(builder: StreamsBuilder) -> None:
        windows = TimeWindows.of_size(timedelta(milliseconds=10), grace=timedelta(milliseconds=10))
        table = builder.stream("in", key=str, value=str).group_by_key().windowed_by(windows).count()
        table.to_stream(lambda window, count: f"{window.key}@{window.start}").map_values(str, value=str).to(
            "out", key=str
        )

    task = started(counted)
    feed(task, ("a", "x", 1), ("a", "x", 12), ("a", "x", 3))
    assert texts(commit(task)) == [("a@10", "1", 12), ("a@0", "2", 3)]
